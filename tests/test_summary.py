"""Table 1 from grids and data, and the headline from other tables."""

import json
import shutil
from pathlib import Path

import pytest

from benchmark.matrix import grid
from benchmark.tables import published, render, summary
from tests.conftest import MAIN
from tests.evidence import as_published, golden_table, plant

TABLES = Path(__file__).parents[1] / "tables"
HEADLINE, TABLE1 = published.load("headline", TABLES), published.load("table1", TABLES)
GAIN = {"baseline": 0.0, "icasc-grad_cam": -3.0, "icasc-a_ch": 1.25}


def headline(**tables):
    table = summary.headline(HEADLINE, tables, "paper")
    lines = [line for line in render.markdown(table).splitlines() if line.startswith("| PASCAL")]
    return table, [part.strip() for part in lines[0].strip("|").split("|")]


def voc_table(runs, value):
    plant(runs, value)
    return golden_table("paper", runs)


def test_headline_is_the_best_gain_with_its_sign(tmp_path):
    table, line = headline(voc=voc_table(tmp_path, lambda job, item: 70.0 + GAIN[job.method]))
    assert line == ["PASCAL VOC 2012", "+1.25 ± 0.00", "+5.73", "-4.48"]
    assert "PASCAL VOC 2012: mAP, + ICASC_A_ch." in table.notes
    assert table.comparable


def test_headline_of_a_loss_is_negative(tmp_path):
    worse = {"baseline": 0.0, "icasc-grad_cam": -3.0, "icasc-a_ch": -2.0}
    _, line = headline(voc=voc_table(tmp_path, lambda job, item: 70.0 + worse[job.method]))
    assert line[1:3] == ["-2.00 ± 0.00", "+5.73"]


def test_headline_without_runs_and_with_diverged_ones(tmp_path):
    assert headline()[1][1] == "not run"
    assert headline(voc=golden_table("paper", tmp_path))[1][1] == "not run"
    for run in plant(tmp_path, as_published):
        if "baseline" not in run.id:
            run.path("result.json").unlink()
            run.path("failure.json").write_text(json.dumps({"kind": "diverged", "error": "x"}))
    assert headline(voc=golden_table("paper", tmp_path))[1][1] == "diverged"


def cells(scale, column, data_root, cache):
    at = [c.key for c in TABLE1.columns].index(column)
    rows = [row.model_copy(update={"published": [row.published[at]]}) for row in TABLE1.rows]
    spec = TABLE1.model_copy(update={"rows": rows, "columns": [TABLE1.columns[at]]})
    table = summary.protocol(spec, scale, data_root, cache)
    return {row: cell.text for (row, _), cell in table.cells.items()}


@pytest.mark.parametrize("column", [c.key for c in TABLE1.columns])
def test_the_paper_s_protocol_is_table_1_s(column, tmp_path):
    """Every printed parameter is the grid's; what can only be counted is not made up."""
    found = cells("paper", column, tmp_path, tmp_path)
    counted = {"# classes", "# images", "# training images", "# testing images"}
    assert {row for row, text in found.items() if text == summary.NOT_AT_HAND} == counted
    assert not [row for row, text in found.items() if text.endswith("≠")]


def test_counts_are_measured_and_differences_marked(cache):
    found = cells("mini", "cifar100", None, cache)
    assert found["# classes"] == "100"
    assert found["# images"] == "2500 ≠"
    assert found["# training images"] == "2000 ≠"
    assert found["initial learning rate"] == "0.1"
    assert found["training batch size"] == "32 ≠"


def test_only_the_splits_that_jobs_use_are_counted(tiny_voc, tmp_path):
    """At scale subset the official splits cannot be whole, and need not be."""
    root = Path(shutil.copytree(tiny_voc, tmp_path / "root"))
    for split in ("train", "val"):
        (root / MAIN / f"{split}.txt").rename(root / MAIN / f"present_{split}.txt")
    found = cells("subset", "voc", root, tmp_path)
    assert found["# classes"] == "20"
    assert [found[f"# {kind}images"] for kind in ("training ", "testing ", "")] == ["20 ≠", "10 ≠", "30 ≠"]


def test_images_that_a_job_leaves_out_are_not_counted(cache):
    """Of 2000 drawn ones to train on."""
    spec = TABLE1.columns[0]
    limited = grid.load(spec.key).jobs("mini", {"limit_train": 150})
    facts = summary._facts(grid.load(spec.key), limited, None, cache)
    assert (facts["# training images"], facts["# testing images"], facts["# images"]) == (150, 500, 2500)


def test_a_scale_that_a_grid_has_not(tmp_path):
    assert set(cells("subset", "cifar100", None, tmp_path).values()) == {"no scale subset"}


@pytest.mark.parametrize(
    ("ours", "printed", "expected"),
    [
        (1281167, "~1.3M", True), (1281167, "1.2M", False), (0.0005, 5e-4, True), (100, 100, True), (99, 100, False),
        ("7680/15360", "7680/15360", True),
    ],
)  # fmt: skip
def test_same(ours, printed, expected):
    assert summary.same(ours, printed) == expected
