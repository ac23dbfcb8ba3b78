"""Tables from run folders: golden files from small real runs, verdicts from planted ones, honest blanks."""

import json
import subprocess
import sys

import pytest

from benchmark.errors import UserError
from benchmark.matrix import grid
from benchmark.matrix.matrix import Matrix
from benchmark.store import metrics, scores
from benchmark.store import run as run_module
from benchmark.tables import build, collect, render, stats
from tests import evidence
from tests.evidence import GOLDEN, RUNS, SPEC, as_published, golden_table, plant


@pytest.mark.parametrize("ending", ["md", "tex", "csv", "json"])
def test_golden(ending):
    text = render.FORMATS[ending](golden_table())
    assert text == (evidence.TABLES / "mini" / f"table2.{ending}").read_text(encoding="utf-8")


def test_numbers_are_recomputed_from_saved_scores():
    for run in run_module.all_runs(evidence.RUNS):
        saved = scores.read(run)
        for definition in metrics.DEFINITIONS:
            recorded = collect.items(run.result(), definition)
            ap = metrics.per_class_ap(saved.predicted, saved.labels, definition)
            for name, value in zip(saved.classes, ap, strict=True):
                assert recorded[name] == pytest.approx(100 * value, abs=1e-9)
            assert recorded["mAP"] == pytest.approx(100 * metrics.mean_ap(ap), abs=1e-9)


def test_golden_runs_hold_no_path_of_a_machine():
    for path in evidence.RUNS.rglob("*.json*"):
        assert '"/' not in path.read_text()


def test_cell_by_hand(tmp_path):
    lead = {0: 1.0, 1: 2.0, 2: 6.0}
    plant(tmp_path, lambda job, item: 80.0 + job.seed + (lead[job.seed] if job.method == "icasc-a_ch" else 0))
    cell = golden_table("paper", tmp_path).cells["mAP", "icasc-a_ch"]
    assert cell.values == pytest.approx((81.0, 83.0, 88.0))
    assert cell.mean == pytest.approx(84.0)
    assert cell.std == pytest.approx(13**0.5)
    assert cell.gains == pytest.approx((1.0, 2.0, 6.0))
    assert cell.gain == pytest.approx(3.0)
    half = 4.302653 * 7**0.5 / 3**0.5
    assert cell.gain_interval == pytest.approx((3 - half, 3 + half))
    assert cell.delta == pytest.approx(84.0 - 83.17)


def test_a_perfect_reproduction(tmp_path):
    plant(tmp_path, as_published)
    table = golden_table("paper", tmp_path)
    assert table.comparable
    counts = table.verdicts()
    assert counts["value"] == {"reproduced": 63}
    assert counts["gain"] == {"reproduced": 42}
    assert counts["order"] == {"reproduced": 21}
    assert "value: 63 reproduced; gain: 42 reproduced; order: 21 reproduced." in build.verdict_line(table)


def test_no_gain_is_not_reproduced(tmp_path):
    plant(tmp_path, lambda job, item: 77.44 + 0.1 * job.seed + 0.02 * job.seed * (job.method != "baseline"))
    table = golden_table("paper", tmp_path)
    assert table.cells["mAP", "baseline"].verdict.outcome == "reproduced"
    assert table.cells["mAP", "icasc-a_ch"].verdict.outcome == "not reproduced"
    assert table.cells["mAP", "icasc-a_ch"].gain_verdict.outcome == "not reproduced"


def test_half_the_gain_is_partly_reproduced(tmp_path):
    half = {"baseline": 0.0, "icasc-grad_cam": 2.3, "icasc-a_ch": 2.9}
    plant(tmp_path, lambda job, item: 77.44 + half[job.method] + 0.1 * job.seed * (job.method == "icasc-a_ch"))
    table = golden_table("paper", tmp_path)
    assert table.cells["mAP", "icasc-a_ch"].gain_verdict.outcome == "partly"
    assert table.orders["mAP"].outcome == "reproduced"


def test_another_best_method(tmp_path):
    swapped = {"baseline": 0.0, "icasc-grad_cam": 5.7, "icasc-a_ch": 4.7}
    plant(tmp_path, lambda job, item: 77.44 + swapped[job.method] + 0.1 * job.seed)
    assert golden_table("paper", tmp_path).orders["mAP"].outcome == "not reproduced"


def test_wide_spread_is_inconclusive_and_says_how_many_seeds(tmp_path):
    plant(tmp_path, lambda job, item: as_published(job, item, spread=0) + {0: -2.0, 1: 0.3, 2: 2.0}[job.seed])
    verdict = golden_table("paper", tmp_path).cells["cow", "baseline"].verdict
    assert verdict.outcome == "inconclusive"
    assert verdict.seeds > 3


def test_one_seed_is_inconclusive(tmp_path):
    plant(tmp_path, as_published, seed=0)
    table = golden_table("paper", tmp_path, seed=0)
    assert table.verdicts()["value"] == {"inconclusive": 63}
    assert table.cells["cow", "baseline"].interval is None


def test_other_scales_and_overrides_are_not_comparable(tmp_path):
    assert golden_table().verdicts()["value"] == {"not comparable": 63}
    plant(tmp_path, as_published, epochs=2)
    verdict = golden_table("paper", tmp_path, epochs=2).cells["cow", "baseline"].verdict
    assert verdict.outcome == "not comparable"
    assert "epochs: 2 (paper: 20)" in verdict.reason


def test_without_tolerance_nothing_is_judged(tmp_path):
    plant(tmp_path, as_published)
    table = golden_table("paper", tmp_path, {"tolerance": None})
    assert not any(table.verdicts().values())
    assert not any(note.startswith("Verdicts") for note in table.notes)


def test_published_blanks_stay_blank(tmp_path):
    plant(tmp_path, as_published)
    spec = golden_table().spec
    rows = [row.model_copy(update={"published": [None] * 3}) for row in spec.rows]
    table = golden_table("paper", tmp_path, {"rows": rows})
    assert table.cells["cow", "baseline"].verdict is None
    assert table.orders == {}
    assert {o["outcome"] for o in build.compare(table, 1.0)} == {"not published"}
    for text in render.FORMATS.values():
        assert text(table)


# Honest blanks


def test_not_run(tmp_path):
    table = golden_table("paper", tmp_path)
    cell = table.cells["cow", "baseline"]
    assert (cell.status, cell.n, cell.mean) == ("not run", 0, None)
    assert cell.verdict.outcome == "not run"
    assert table.orders["cow"].outcome == "not run"


@pytest.mark.parametrize(
    ("name", "record", "status"),
    [
        ("failure.json", {"kind": "crash", "error": "x"}, "failed"),
        ("failure.json", {"kind": "diverged", "error": "x"}, "diverged"),
        ("claim.json", {"host": "elsewhere", "pid": 1}, "running"),
    ],
)
def test_why_there_is_no_number(tmp_path, name, record, status):
    for run in plant(tmp_path, as_published):
        if "baseline" in run.id:
            run.path("result.json").unlink()
            run.path(name).write_text(json.dumps(record))
    table = golden_table("paper", tmp_path)
    cell = table.cells["cow", "baseline"]
    assert cell.status == status
    assert render.value_text(cell, table) == status
    assert cell.verdict.outcome == ("diverged" if status == "diverged" else "not run")
    assert table.cells["cow", "icasc-a_ch"].gain_verdict.outcome == "not run"


def test_partial(tmp_path):
    plant(tmp_path, as_published)[0].path("result.json").unlink()
    table = golden_table("paper", tmp_path)
    cell = table.cells["cow", "baseline"]
    assert (cell.status, cell.n, cell.planned) == ("partial", 2, 3)
    assert cell.verdict.outcome == "not run"
    assert "2 of 3 seeds" in cell.verdict.reason
    other = table.cells["cow", "icasc-a_ch"]
    assert other.verdict.outcome == "reproduced"
    assert other.gain_verdict.outcome == "not run"


def test_no_positives(tmp_path):
    plant(tmp_path, lambda job, item: None if item == "cow" else as_published(job, item))
    cell = golden_table("paper", tmp_path).cells["cow", "baseline"]
    assert cell.status == "no positives"
    assert cell.verdict.outcome == "not comparable"


def test_a_damaged_record_is_a_warning_and_a_blank(tmp_path):
    plant(tmp_path, as_published)[0].path("result.json").write_text('{"job": "')
    table = golden_table("paper", tmp_path)
    assert "corrupt record" in table.warnings[0]
    assert table.cells["cow", "baseline"].status == "partial"


def test_single_label_results(tmp_path):
    """Items of single-label runs are read beside those of multi-label ones."""
    run = plant(tmp_path, as_published)[0]
    run.path("result.json").write_text(json.dumps({"job": run.id, "top1": 0.75, "top5": 0.9}))
    assert collect.items(run.result(), "area") == {"top1": 75.0, "top5": 90.0}


@pytest.mark.parametrize(
    ("scale", "overrides", "label"),
    [
        ("mini", {}, "ResNet-18 (as resnet18_narrow)"),
        ("paper", {}, "ResNet-18"),
        ("paper", {"backbone": "resnet50"}, "ResNet-18 (as resnet50)"),
    ],
)
def test_a_row_names_what_stood_in(tmp_path, scale, overrides, label):
    row = (
        golden_table()
        .spec.rows[-1]
        .model_copy(update={"key": "ResNet-18", "item": "mAP", "where": {"backbone": "resnet18"}})
    )
    table = golden_table(scale, tmp_path, {"rows": [row]}, **overrides)
    assert table.label("ResNet-18") == label
    assert f"| {render.escape_markdown(label)} |" in " ".join(render.markdown(table).split())


def test_none_of_this_imports_torch():
    modules = ["tables.build", "tables.diff", "evidence.sensitivity", "evidence.report", "evidence.figures", "cli"]
    code = f"import sys, {', '.join(f'benchmark.{m}' for m in modules)}; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_cell_does_not_mix_jobs():
    with pytest.raises(UserError, match="would mix jobs that differ in sigma"):
        golden_table(sigma=[0.25, 0.55])


def test_pinned_grid_reads():
    assert len(grid.load("voc", evidence.GOLDEN).jobs("mini")) == 6


def _asking(**changes):
    chosen = grid.load("voc", GOLDEN)
    scale = chosen.scales["mini"].model_copy(update=changes)
    return chosen.model_copy(update={"scales": chosen.scales | {"mini": scale}})


def test_gain_s_interval_over_images_is_explain_s():
    chosen = _asking(image_intervals=True)
    table = build.build(SPEC, Matrix(chosen, "mini", runs=RUNS))
    cell = table.cells["mAP", "icasc-a_ch"]
    samples = collect.image_samples(table.matrix, [*cell.runs, *table.baseline(cell).runs])
    gained = build.paired_over(samples, table, cell)
    assert cell.gain_images == stats.percentile_interval(gained)
    assert cell.gain_images[0] < cell.gain < cell.gain_images[1]
    assert table.baseline(cell).gain_images is None
    low, high = cell.gain_images
    assert f"{cell.gain:+.2f} [{low:+.2f}, {high:+.2f}]" in render.markdown(table)
    assert "paired bootstrap over the test images" in " ".join(table.notes)


def test_classes_that_few_images_show_are_left_out(tmp_path):
    runs = plant(tmp_path, lambda job, item: 70.0 if item == "cow" else 90.0, "mini")
    for run in runs:
        record = json.loads(run.path("result.json").read_bytes())
        counts = dict.fromkeys(record["ap"]["area"], 20)
        record |= {"num_positive": counts | {"cow": 14}, "num_positive_train": counts | {"dog": 3}}
        run.path("result.json").write_text(json.dumps(record))
    chosen = _asking(min_positives=15)
    table = build.build(SPEC, Matrix(chosen, "mini", runs=tmp_path))
    assert {row for (row, _), cell in table.cells.items() if cell.status == "few positives"} == {"cow", "dog"}
    assert table.cells["mAP", "baseline"].mean == pytest.approx(90)
    assert "Fewer than 15 training or test images show cow, dog" in " ".join(table.notes)
    assert table.cells["cow", "icasc-a_ch"].verdict.outcome == "not comparable"
