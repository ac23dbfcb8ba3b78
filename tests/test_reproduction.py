"""What docs/reproduction.md says is what the committed records give."""

from pathlib import Path

import pytest

from benchmark import grid, sensitivity

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
