"""A file imports only from floors below it, or from its left on the same floor; what needs no torch imports none."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import benchmark

ROOT = Path(benchmark.__file__).parent
LIGHT = [  # never import torch
    ["errors", "heap"],
    ["job", "strict_yaml"],
    ["store", "environment", "metrics", "scores", "published", "grid", "data", "executors"],
    ["results", "cost", "stats", "cells", "tables", "summary", "render", "diff", "explain", "sensitivity", "view"],
    ["figures", "report"],
    ["cli", "__main__"],
]
HEAVY = [
    ["torchvision_ops", "attention", "batch_norm", "distributed"],
    ["models"],
    ["methods", "step"],
    ["overlap", "batches", "checkpoint", "weights"],
    ["train"],
    ["pretrain", "attention_figures"],
    ["bench"],
]
FIRST_HEAVY = 3  # the training side stands on LIGHT's first three floors
LAZY = {  # imported inside commands that need torch, when they run
    ("cli", "checkpoint"), ("cli", "train"), ("cli", "distributed"), ("cli", "pretrain"), ("cli", "bench"),
    ("cli", "attention_figures"),
}  # fmt: skip


def _module(path: Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def _imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "benchmark":
            parts = node.module.split(".")
            found |= {parts[1]} if len(parts) > 1 else {alias.name for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {alias.name.split(".")[1] for alias in node.names if alias.name.startswith("benchmark.")}
    return {name for name in found if name != "__version__"}


def _floors() -> dict[str, int]:
    light = {name: floor for floor, names in enumerate(LIGHT) for name in names}
    return light | {name: FIRST_HEAVY + floor for floor, names in enumerate(HEAVY) for name in names}


SOURCES = [p for p in sorted(ROOT.rglob("*.py")) if p != ROOT / "__init__.py"]


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_go_down(path):
    floors, module = _floors(), _module(path)
    assert module in floors, f"{module} has no floor: put it on one"
    for name in _imports(path) - {module}:
        if (module, name) in LAZY:
            continue
        assert name in floors, f"{module} imports {name}, which has no floor"
        assert floors[name] <= floors[module], f"{module} imports {name} from above"
        heavy = {n for names in HEAVY for n in names}
        assert module in heavy or name not in heavy, f"{module} imports torch through {name}"


@pytest.mark.parametrize("names", LIGHT + HEAVY)
def test_same_floor_has_no_circle(names):
    graph = {n: set() for n in names}
    for path in SOURCES:
        if _module(path) in graph:
            graph[_module(path)] |= (_imports(path) & set(names)) - {_module(path)}
    done: set[str] = set()
    while len(done) < len(graph):
        free = {n for n, needs in graph.items() if n not in done and needs <= done}
        assert free, f"circle among {set(graph) - done}"
        done |= free


@pytest.mark.parametrize(
    "command",
    [["plan", "--grid", "voc"], ["status"], ["tables"], ["diff", "--table", "table2"], ["published"], ["assumptions"]],
)
def test_looking_never_imports_torch(command, tmp_path):
    code = (
        "import sys, shutil; from pathlib import Path\n"
        f"sys.argv = ['benchmark', *{command!r}]\n"
        "from benchmark.__main__ import main\n"
        "try: main()\nexcept SystemExit: pass\n"
        "assert 'torch' not in sys.modules, 'torch was imported'"
    )
    (tmp_path / "tables").mkdir()
    for path in (ROOT.parent / "tables").glob("*.yaml"):
        (tmp_path / "tables" / path.name).write_text(path.read_text())
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr
