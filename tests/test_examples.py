"""The study in examples/: a paper that is known to be true, and one that is known to be false; and its notebook."""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from benchmark.matrix import own
from benchmark.tables import published

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples"
NOTEBOOK = json.loads((EXAMPLES / "notebook.ipynb").read_text())
ADDED = 6  # points, to a mean that was measured


@pytest.fixture(autouse=True)
def built_in_again():
    yield
    own.use(None)


def test_papers_claim_what_the_readme_says():
    own.use(EXAMPLES)
    true, false = (published.load(name, EXAMPLES / "tables") for name in ("true", "false"))
    readme = (EXAMPLES / "README.md").read_text()
    for spec in (true, false):
        baseline, method = spec.rows[0].published
        assert f"+ {method - baseline:.2f} points" in readme
    measured = false.rows[0].published[1] - true.rows[0].published[0] - ADDED
    assert f"{measured:.2f} were measured" in readme


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_true_is_reproduced_and_false_is_not(call, tmp_path, cache):
    """As the README has it, by real training; its second command measured what the tables print."""
    shutil.copytree(EXAMPLES, tmp_path / "examples", ignore=shutil.ignore_patterns("runs", "paper"))
    told = call(tmp_path, "run", "--grid", "digits", "--study", "examples", "--cache", cache)
    assert told.returncode == 0, told.stderr
    verdicts = {}
    for name, column in (("true", "hot_head"), ("false", "dusted")):
        made = json.loads((tmp_path / "examples" / "tables" / "paper" / f"{name}.json").read_text())
        verdicts[name] = next(cell["gain_verdict"] for cell in made["cells"] if cell["column"] == column)
        assert f"Lock: not locked (top-1 accuracy, {column})." in " ".join(made["notes"])
    assert verdicts == {"true": "reproduced", "false": "not reproduced"}


def code_cells() -> list[str]:
    return ["".join(cell["source"]) for cell in NOTEBOOK["cells"] if cell["cell_type"] == "code"]


def test_notebook_runs_and_never_imports_torch():
    """Its cells one after the other in a process of its own, started where a notebook starts: in its folder."""
    cells = [*code_cells(), "import sys; assert 'torch' not in sys.modules"]
    text = f"space = {{}}\nfor cell in {cells!r}:\n    exec(cell, space)"
    ended = subprocess.run(
        [sys.executable, "-c", text], cwd=EXAMPLES, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True,
        text=True,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    for name in ("table", "runs", "epochs", "scores"):
        assert f"benchmark.{name}(" in "\n".join(cells)


def test_notebook_is_kept_without_outputs():
    cells = [cell for cell in NOTEBOOK["cells"] if cell["cell_type"] == "code"]
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in cells)


@pytest.mark.records
@pytest.mark.skipif(importlib.util.find_spec("nbclient") is None, reason="nbclient is not installed")
def test_notebook_runs_in_jupyter(monkeypatch):
    import nbclient
    import nbformat

    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    notebook = nbformat.read(EXAMPLES / "notebook.ipynb", as_version=4)
    nbclient.NotebookClient(notebook, resources={"metadata": {"path": str(EXAMPLES)}}).execute()
