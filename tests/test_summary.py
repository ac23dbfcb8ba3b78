"""Table 1 from grids and data, and the headline from other tables."""

import json
from dataclasses import replace

import pytest

from benchmark.matrix import grid
from benchmark.stats import claims
from benchmark.stats.intervals import ImageParts, Verdict
from benchmark.tables import published, render, summary
from benchmark.tables.cells import Cell
from tests.evidence import SPEC, as_published, golden_table, plant

TABLES = published.BUILT_IN
HEADLINE, TABLE1 = published.load("headline", TABLES), published.load("table1", TABLES)
GAIN = {"baseline": 0.0, "icasc-grad_cam": -3.0, "icasc-a_ch": 1.25}


def headline(**tables):
    table = summary.headline(HEADLINE, tables, "paper")
    lines = [line for line in render.markdown(table).splitlines() if line.startswith("| PASCAL")]
    return table, [part.strip() for part in lines[0].strip("|").split("|")]


def voc_table(runs, value):
    """Its mAP row under the name that the headline asks for."""
    plant(runs, value)
    rows = [SPEC.rows[-1].model_copy(update={"key": "ResNet-18", "item": "mAP"})]
    return golden_table("paper", runs, {"rows": rows})


def test_headline_shows_every_method_against_the_claim(tmp_path):
    spread = {0: -0.1, 1: 0.0, 2: 0.1}
    table, line = headline(
        voc=voc_table(
            tmp_path, lambda job, item: 70.0 + GAIN[job.method] + spread[job.seed] * (job.method != "baseline")
        )
    )
    assert line[0] == "PASCAL VOC 2012, ResNet-18"
    assert line[1].startswith("-3.00 [")
    assert (line[2], line[5]) == ("+5.73", "+5.73")
    assert line[4].startswith("+1.25 [")
    assert line[6].startswith("0.22 [")
    assert table.comparable
    verdicts = [table.cells["PASCAL VOC 2012, ResNet-18", c.key].gain_verdict.outcome for c in HEADLINE.columns]
    assert verdicts == ["not reproduced", "not reproduced"]
    assert "2 judged together (Holm)" in " ".join(table.notes)


@pytest.mark.parametrize(("together", "outcome"), [(1, "reproduced"), (4, "inconclusive")])
def test_a_verdict_must_hold_among_all_that_are_judged_together(together, outcome):
    """p = 0.01 two-sided, where a look is at 0.0167: enough for one claim, not for the first of four (0.04)."""
    known = claims.Estimate(
        0.82 + 0.2576, 1, 0.0, ImageParts(0.1, 0.0), "seeds only"
    )  # half of 1.64, and z(0.995) errors
    interval = claims.GainInterval(0.9, 1.3, "seeds only", known)
    cell = Cell("row", "method", 1.64, None, "done", gains=(1.0, 1.1, 1.2), gain_interval=interval)
    cells = {(f"row{i}", "method"): replace(cell, gain_verdict=Verdict("reproduced", "alone")) for i in range(together)}
    corrected, note = summary._corrected(HEADLINE, cells)
    assert {c.gain_verdict.outcome for c in corrected.values()} == {outcome}
    assert f"{together} judged together (Holm)" in note
    assert f"p = {0.01 * together:.2g}" in note


def test_a_planted_claim_is_found_where_the_paper_s_cells_are_not_at_hand(tmp_path):
    """CIFAR-100 has no published cells, and yet the abstract's claim of it is judged."""
    source = voc_table(tmp_path, lambda job, item: 70.0 + 3.33 * (job.method != "baseline") + 0.1 * job.seed)
    rows = [row.model_copy(update={"key": "ResNet-110, top-1", "published": [None] * 3}) for row in source.spec.rows]
    table = golden_table("paper", tmp_path, {"rows": rows})
    found = summary.headline(HEADLINE, {"cifar100": table}, "paper").cells["CIFAR-100, ResNet-110", "icasc-a_ch"]
    assert found.gain_verdict.outcome == "reproduced"


def test_headline_without_runs_and_with_diverged_ones(tmp_path):
    assert headline()[1][1] == "not run"
    assert headline(voc=voc_table(tmp_path / "none", lambda job, item: None))[1][1] == "no positives"
    for run in plant(tmp_path, as_published):
        if "baseline" not in run.id:
            run.path("result.json").unlink()
            run.path("failure.json").write_text(json.dumps({"kind": "diverged", "error": "x"}))
    rows = [SPEC.rows[-1].model_copy(update={"key": "ResNet-18", "item": "mAP"})]
    assert headline(voc=golden_table("paper", tmp_path, {"rows": rows}))[1][1] == "diverged"


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


def test_only_the_splits_that_jobs_use_are_counted(own_lists, tmp_path):
    """At scale subset the official splits cannot be whole, and need not be."""
    found = cells("subset", "voc", own_lists, tmp_path)
    assert found["# classes"] == "20"
    assert [found[f"# {kind}images"] for kind in ("training ", "testing ", "")] == ["20 ≠", "10 ≠", "30 ≠"]


def test_images_that_a_job_leaves_out_are_not_counted(cache):
    """Of 2000 drawn ones to train on."""
    spec = TABLE1.columns[0]
    limited = grid.load(spec.key).jobs("mini", {"limit_train": 150, "limit_test": 60})
    facts = summary._facts(grid.load(spec.key), limited, None, cache)
    assert (facts["# training images"], facts["# testing images"], facts["# images"]) == (150, 60, 2500)


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
