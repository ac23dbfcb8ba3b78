"""What docs/reproduction.md says is what the committed records give."""

import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from benchmark import cli, grid, sensitivity

ROOT = Path(__file__).parents[1]
STUDY = ROOT / "tables" / "study" / "voc-readings.md"


@pytest.fixture(scope="module")
def made() -> str:
    chosen = grid.load("voc")
    return sensitivity.readings_text(chosen, "study", sensitivity.readings(chosen, "study", ROOT / "runs"), "pipe")


def test_committed_table_is_made_from_the_committed_records(made):
    assert STUDY.read_text(encoding="utf-8") == made


def test_rows_of_the_document_are_the_table_s(made):
    document = (ROOT / "docs" / "reproduction.md").read_text(encoding="utf-8")
    rows = [line for line in document.splitlines() if line.startswith(r"| attention\_weight")]
    measured = [line for line in made.splitlines() if line.startswith(r"| attention\_weight") and "not run" not in line]
    assert rows == measured
    assert rows


@pytest.mark.parametrize("table", ["cifar100", "headline"])
def test_committed_tables_of_real_runs_are_made_from_the_committed_records(table, tmp_path):
    for path in (ROOT / "tables").glob("*.yaml"):
        shutil.copy(path, tmp_path)
    words = ["tables", "--scale", "reduced", "--table", table, "--runs", str(ROOT / "runs"), "--tables", str(tmp_path)]
    assert CliRunner().invoke(cli.app, words, catch_exceptions=False).exit_code == 0
    made = {path.name: path.read_text(encoding="utf-8") for path in (tmp_path / "reduced").iterdir()}
    assert len(made) == 5
    for name, text in made.items():
        assert (ROOT / "tables" / "reduced" / name).read_text(encoding="utf-8") == text


def test_rows_of_the_readme_are_the_tables_rows():
    """The real data's: each row of a committed table that the README shows is that table's, in full."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    table = (ROOT / "tables" / "reduced" / "cifar100.md").read_text(encoding="utf-8").splitlines()
    rows = [line for line in table if line.startswith("| ResNet-")]
    assert rows
    assert set(rows) <= set(readme)
