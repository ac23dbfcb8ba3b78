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


@pytest.mark.parametrize(
    ("scale", "table"), [("reduced", "cifar100"), ("reduced", "headline"), ("subset", "table2"), ("subset", "headline")]
)
def test_committed_tables_of_real_runs_are_made_from_the_committed_records(scale, table, tmp_path):
    for path in (ROOT / "tables").glob("*.yaml"):
        shutil.copy(path, tmp_path)
    words = ["tables", "--scale", scale, "--table", table, "--runs", str(ROOT / "runs"), "--tables", str(tmp_path)]
    assert CliRunner().invoke(cli.app, words, catch_exceptions=False).exit_code == 0
    made = {path.name: path.read_text(encoding="utf-8") for path in (tmp_path / scale).iterdir()}
    assert len(made) == 5
    for name, text in made.items():
        assert (ROOT / "tables" / scale / name).read_text(encoding="utf-8") == text


@pytest.mark.parametrize(
    ("document", "table", "first"),
    [
        ("README.md", "reduced/cifar100.md", ("ResNet-110, top-1", "ResNet-110, top-5")),
        ("README.md", "subset/table2.md", ("mAP",)),
        ("docs/reproduction.md", "reduced/cifar100.md", ("ResNet-110, top-1", "ResNet-110, top-5")),
        (
            "docs/reproduction.md",
            "subset/table2.md",
            ("bottle", "car", "cat", "chair", "cow", "dog", "horse", "person", "pottedplant", "sheep", "sofa",
             "tvmonitor", "mAP"),
        ),
    ],
)  # fmt: skip
def test_rows_of_real_data_are_the_tables_rows(document, table, first):
    """In full: the document's rows are looked for in the table, and none may be missing."""
    shown = (ROOT / document).read_text(encoding="utf-8").splitlines()
    made = (ROOT / "tables" / table).read_text(encoding="utf-8").splitlines()
    rows = [line for line in made if line.startswith(tuple(f"| {name} " for name in first))]
    assert len(rows) == len(first)
    assert set(rows) <= set(shown)
