"""Tables from run folders: golden files from small real runs, verdicts from planted ones, honest blanks."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmark.errors import UserError
from benchmark.evidence import explain
from benchmark.matrix import grid
from benchmark.matrix.matrix import Matrix
from benchmark.results.results import Results, items
from benchmark.stats import claims
from benchmark.store import metrics, scores
from benchmark.store import run as run_module
from benchmark.store.files import write_json
from benchmark.store.run import all_runs, submit
from benchmark.tables import build, diff, published, render, summary
from tests import evidence
from tests.evidence import GOLDEN, SPEC, as_published, golden_table, plant, save_scores


@pytest.mark.parametrize("ending", ["md", "tex", "csv", "json"])
def test_golden(ending):
    text = render.FORMATS[ending](golden_table())
    assert text == (evidence.TABLES / "mini" / f"table2.{ending}").read_text(encoding="utf-8")


def test_numbers_are_recomputed_from_saved_scores():
    for run in run_module.all_runs(evidence.RUNS):
        saved = scores.read(run)
        for definition in metrics.DEFINITIONS:
            recorded = items(run.result(), definition)
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
    assert (cell.gain_interval.low, cell.gain_interval.high) == pytest.approx((3 - half, 3 + half))
    assert cell.gain_interval.over == "seeds only", "no scores were saved"
    assert cell.delta == pytest.approx(84.0 - 83.17)


def test_a_perfect_reproduction(tmp_path):
    plant(tmp_path, as_published)
    table = golden_table("paper", tmp_path)
    assert table.comparable
    counts = table.verdicts()
    assert counts["value"] == {"reproduced": 63}
    assert counts["gain"] == {"reproduced": 2}, "mAP is the claim; classes are descriptive"
    assert counts["order"] == {"reproduced": 21}
    assert "value: 63 reproduced; gain: 2 reproduced; order: 21 reproduced." in build.verdict_line(table)


def test_no_gain_is_not_reproduced(tmp_path):
    plant(tmp_path, lambda job, item: 77.44 + 0.1 * job.seed + 0.02 * job.seed * (job.method != "baseline"))
    table = golden_table("paper", tmp_path)
    assert table.cells["mAP", "baseline"].verdict.outcome == "reproduced"
    assert table.cells["mAP", "icasc-a_ch"].verdict.outcome == "not reproduced"
    assert table.cells["mAP", "icasc-a_ch"].gain_verdict.outcome == "not reproduced"


def test_no_gain_of_a_method_that_moved_nothing_is_no_answer(tmp_path):
    plant(tmp_path, lambda job, item: 77.44 + 0.1 * job.seed + 0.02 * job.seed * (job.method != "baseline"), moved=0.0)
    table = golden_table("paper", tmp_path)
    cell = table.cells["mAP", "icasc-a_ch"]
    assert cell.treatment.answer == "not applied"
    assert cell.gain_verdict.outcome == "inconclusive"
    assert cell.gain_verdict.reason.startswith("treatment not applied: no overlap of maps fell")
    assert table.cells["cow", "icasc-a_ch"].treatment is None, "no claim is made of a class"
    assert any(note.startswith("Treatment, mAP, icasc-a_ch: not applied") for note in table.notes)


@pytest.mark.parametrize(
    ("share", "outcome"), [(1.0, "reproduced"), (0.7, "reproduced"), (0.5, "inconclusive"), (0.3, "not reproduced")]
)
def test_half_of_the_claim_decides(tmp_path, share, outcome):
    claim = {"baseline": 0.0, "icasc-grad_cam": 4.68, "icasc-a_ch": 5.73}
    spread = {0: -0.1, 1: 0.0, 2: 0.1}
    plant(tmp_path, lambda job, item: 77.44 + share * claim[job.method] + spread[job.seed] * (job.method != "baseline"))
    table = golden_table("paper", tmp_path)
    assert table.cells["mAP", "icasc-a_ch"].gain_verdict.outcome == outcome
    assert table.cells["cow", "icasc-a_ch"].gain_verdict is None, "no claim is made of a class"
    assert table.orders["mAP"].outcome == "reproduced"


def test_a_number_of_seeds_that_was_not_declared_gets_no_verdict(tmp_path):
    plant(tmp_path, as_published, seed=[0, 1, 2, 3])
    cell = golden_table("paper", tmp_path, seed=[0, 1, 2, 3]).cells["mAP", "icasc-a_ch"]
    assert cell.gain_verdict.outcome == "inconclusive"
    assert "no declared look (3, 5, 8)" in cell.gain_verdict.reason


def _with_scores(runs, ids_of, scale="paper", **record):
    """Runs with the same labels and scores, tested on the images that `ids_of(job)` names."""
    labels, scores_NC = np.ones((6, 20), int), np.random.default_rng(0).normal(size=(6, 20))
    for run in plant(runs, as_published, scale):
        known = json.loads(run.path("result.json").read_bytes())
        del known["job"], known["data"]  # so that the scores say which images
        save_scores(run, labels, scores_NC, ids_of(run.job()), **known, **record)


@pytest.mark.usefixtures("planted_numbers")
def test_runs_tested_on_other_images_are_not_paired(tmp_path):
    _with_scores(tmp_path, lambda job: [f"{'a' if job.method == 'baseline' else 'b'}{i}" for i in range(6)])
    table = golden_table("paper", tmp_path)
    cell = table.cells["mAP", "icasc-a_ch"]
    assert (cell.gain, cell.gains, cell.gain_interval) == (None, (), None)
    assert cell.gain_verdict.outcome == "not comparable"
    assert "were tested on different images" in " ".join(table.notes)
    for run in all_runs(tmp_path):
        run.path("scores.npz").unlink()
    silent = golden_table("paper", tmp_path)
    assert silent.cells["mAP", "icasc-a_ch"].gain is None, "what cannot be told is not taken for the same"
    assert "does not say which images it was tested on" in " ".join(silent.notes)
    _with_scores(tmp_path / "same", lambda job: [f"a{i}" for i in range(6)])
    assert golden_table("paper", tmp_path / "same").cells["mAP", "icasc-a_ch"].gain is not None


def test_a_pair_trained_by_other_code_is_marked_and_not_judged(tmp_path):
    for run in plant(tmp_path, as_published):
        record = json.loads(run.path("result.json").read_bytes())
        training = "old" if "baseline" in run.id else "new"
        write_json(run.path("result.json"), record | {"code": {"version": "1", "training": training}})
    table = golden_table("paper", tmp_path)
    cell = table.cells["mAP", "icasc-a_ch"]
    assert cell.crosses
    assert cell.gain_verdict.outcome == "not comparable"
    assert render.gain_text(cell, table).endswith("††")
    (told,) = (note for note in table.notes if note.startswith("††"))
    assert "trained by one version of the training code: aeroplane, icasc-grad_cam;" in told


def test_seeds_trained_by_other_code_are_marked_and_not_judged(tmp_path):
    """Though each is paired with a baseline of its own code: the interval is of the same code, trained again."""
    for run in plant(tmp_path, as_published):
        record = json.loads(run.path("result.json").read_bytes())
        training = "new" if run.job().seed == 2 else "old"
        write_json(run.path("result.json"), record | {"code": {"version": "1", "training": training}})
    cell = golden_table("paper", tmp_path).cells["mAP", "icasc-a_ch"]
    assert cell.crosses
    assert cell.gain_verdict.outcome == "not comparable"


@pytest.mark.parametrize(("hashes", "crosses"), [("aaa", False), ("aab", True)])
def test_a_study_whose_methods_changed_from_seed_to_seed_is_marked(tmp_path, hashes, crosses):
    for run in plant(tmp_path, as_published):
        record = json.loads(run.path("result.json").read_bytes())
        of_study = {} if run.job().method == "baseline" else {"study": hashes[run.job().seed]}
        write_json(run.path("result.json"), record | {"code": {"version": "1", "training": "x"} | of_study})
    assert golden_table("paper", tmp_path).cells["mAP", "icasc-a_ch"].crosses == crosses


@pytest.mark.parametrize(
    ("other", "pairs"),
    [({"seed": 2}, "each pair on one of them"), ({"method": "icasc-a_ch"}, "pairs of two of them: ic")],
)
def test_more_than_one_kind_of_device_is_said(tmp_path, other, pairs):
    for run in plant(tmp_path, as_published):
        on = "another GPU" if all(getattr(run.job(), key) == value for key, value in other.items()) else "cpu"
        write_json(run.path("environment.json"), {"device": on, "machine": {"processor": "a processor"}})
    (told,) = (note for note in golden_table("paper", tmp_path).notes if note.startswith("Runs by what"))
    assert "a processor: 6, another GPU: 3; " + pairs in told


def test_less_than_the_official_data_is_a_departure_at_every_scale(tmp_path):
    for run in plant(tmp_path, as_published):
        record = json.loads(run.path("result.json").read_bytes())
        write_json(run.path("result.json"), record | {"num_test": 1450, "num_train": 5717})
    table = golden_table("paper", tmp_path)
    assert not table.comparable
    assert "data: 1,450 of 5,823 test images" in table.departures
    assert table.cells["mAP", "icasc-a_ch"].gain_verdict.outcome == "not comparable"


def test_classes_that_are_missing_are_named_with_the_images(tmp_path):
    """Of runs with one label an image; their scores know the classes."""
    cifar, spec = grid.load("cifar100"), published.load("cifar100", Path(__file__).parents[1] / "tables")
    for job in cifar.jobs("paper", {"partial": True}):
        save_scores(
            submit(tmp_path, job), np.arange(60) % 50, np.eye(50)[np.arange(60) % 50], num_train=25_000, num_test=60,
            top1=1.0, top5=1.0,
        )  # fmt: skip
    table = build.build(spec, Results.read(Matrix(cifar, "paper", {"partial": True}, runs=tmp_path)))
    assert table.departures == (
        "partial: True (paper: False)",
        "data: 50 of 100 classes, 25,000 of 50,000 training images, 60 of 10,000 test images",
    )
    assert not table.comparable
    assert all(cell.delta is None for cell in table.cells.values()), "the test images are not the paper's"
    assert render.gain_text(table.cells[spec.rows[0].key, spec.columns[1].key], table).endswith("†")


def test_a_method_s_share_of_the_images_is_no_departure_of_the_data(tmp_path):
    cifar, chosen = grid.load("cifar100"), {"method": ["baseline", "data-half"]}
    for job in cifar.jobs("paper", chosen):
        num_train = 25_000 if job.method == "data-half" else 50_000
        submit(tmp_path, job).path("result.json").write_text(
            json.dumps({"job": job.id, "num_train": num_train, "num_test": 10_000})
        )
    assert build._missing_data(Results.read(Matrix(cifar, "paper", chosen, runs=tmp_path))) == []


def test_a_mean_is_compared_with_a_mean_over_the_same_classes(tmp_path):
    plant(tmp_path, lambda job, item: None if item in ("cow", "dog") else as_published(job, item, spread=0))
    table = golden_table("paper", tmp_path)
    cells = [table.cells["mAP", column.key] for column in SPEC.columns]
    kept = [row.published for row in SPEC.rows if row.key not in ("cow", "dog", "mAP")]
    assert [cell.published for cell in cells] == pytest.approx(np.mean(kept, axis=0).tolist())
    assert [cell.published_over for cell in cells] == [18] * 3
    assert cells[2].published_gain == pytest.approx(cells[2].published - cells[0].published)
    assert table.label("mAP") == "mAP (18 classes)"
    assert "printed is 77.44 / 82.12 / 83.17, over all" in " ".join(table.notes)


def test_no_difference_of_values_where_the_test_images_are_not_the_paper_s():
    table = golden_table()
    assert {cell.delta for cell in table.cells.values()} == {None}
    assert "Δ |" not in render.markdown(table)


def test_bold_is_what_is_ahead_beyond_the_noise(tmp_path):
    plant(tmp_path, as_published)
    assert golden_table("paper", tmp_path).best("mAP") == {"icasc-a_ch"}
    noise = {0: -1.0, 1: 0.0, 2: 1.2}
    near = tmp_path / "near"
    plant(near, lambda job, item: 70.0 + noise[job.seed] * (job.method == "icasc-a_ch") + 0.1 * job.seed)
    assert golden_table("paper", near).best("mAP") == set()


def test_one_seed_is_nobody_s_lead():
    """However far it is ahead on its test images."""
    table = golden_table()
    for over, best in (("seeds and images", {"icasc-a_ch"}), ("images only", set())):
        ahead = {"icasc-grad_cam": 1.0, "icasc-a_ch": 9.0}
        cells = {
            ("mAP", method): dataclasses.replace(
                table.cells["mAP", method],
                gain_interval=claims.GainInterval(gain - 1, gain + 1, over if gain == 1 else "seeds and images", None),
            )
            for method, gain in ahead.items()
        }
        assert dataclasses.replace(table, cells=table.cells | cells).best("mAP") == best


def test_a_finished_job_in_no_row_is_named(tmp_path):
    plant(tmp_path, as_published)
    rows = [SPEC.rows[0].model_copy(update={"where": {"seed": 99}})]
    table = golden_table("paper", tmp_path, {"rows": rows})
    assert "Results in no row of this table: 9" in " ".join(table.notes)


def test_fewer_runs_do_not_replace_a_fuller_table(tmp_path):
    runs = plant(tmp_path / "runs", as_published)
    assert render.write(golden_table("paper", tmp_path / "runs"), tmp_path)
    full = (tmp_path / "table2.md").read_bytes()
    runs[0].path("result.json").unlink()
    partial = golden_table("paper", tmp_path / "runs")
    assert render.write(partial, tmp_path) == []
    assert (tmp_path / "table2.md").read_bytes() == full
    assert render.write(partial, tmp_path, replace=True)
    assert (tmp_path / "table2.md").read_bytes() != full


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
    outcomes = diff.compare(diff.of_published_beside(table), diff.of_table(table), 1.0)
    assert {o["outcome"] for o in outcomes} == {"not published"}
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
    assert table.cells["mAP", "icasc-a_ch"].gain_verdict.outcome == "not run"


def test_partial(tmp_path):
    plant(tmp_path, as_published)[0].path("result.json").unlink()
    table = golden_table("paper", tmp_path)
    cell = table.cells["cow", "baseline"]
    assert (cell.status, cell.n, cell.planned) == ("partial", 2, 3)
    assert cell.verdict.outcome == "not run"
    assert "2 of 3 seeds" in cell.verdict.reason
    other = table.cells["mAP", "icasc-a_ch"]
    assert other.verdict.outcome == "reproduced"
    assert other.gain_verdict.outcome == "not run"
    assert "Gain over only 2 of 3 seeds (1, 2), icasc-a_ch: " in " ".join(table.notes)
    assert summary.missing_seeds({"mAP": other}) == ["Not all planned seeds have run: mAP (2 of 3)."]


def test_a_table_without_some_seeds_is_its_own_file_s(tmp_path):
    plant(tmp_path, as_published)[0].path("result.json").unlink()
    table = golden_table("paper", tmp_path)
    render.write(table, tmp_path)
    side = diff.of_file(tmp_path / "table2.json")
    assert {line["outcome"] for line in diff.compare(diff.of_table(table), side, 0.0)} == {"within"}


def test_a_seed_that_diverged_is_told_beside_those_that_did_not(tmp_path):
    (run,) = (run for run in plant(tmp_path, as_published) if "icasc-a_ch-s1" in run.id)
    run.path("result.json").unlink()
    run.path("failure.json").write_text(json.dumps({"kind": "diverged", "error": "x"}))
    table = golden_table("paper", tmp_path)
    cell = table.cells["cow", "icasc-a_ch"]
    assert render.value_text(cell, table).endswith("[partial, 1 diverged]")
    assert cell.verdict.outcome == "diverged"
    told = summary.missing_seeds({"cow": cell})
    assert told == ["Not all planned seeds have run: cow (2 of 3, 1 diverged)."]
    assert summary.missing_seeds({"cow": table.cells["cow", "icasc-grad_cam"]}) == []


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
    assert items(run.result(), "area") == {"top1": 75.0, "top5": 90.0}


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


def test_one_interval_of_a_gain_everywhere():
    """Over seeds and test images together, in tables, traces and figures."""
    table = golden_table()
    cell = table.cells["mAP", "icasc-a_ch"]
    samples = table.results.resample(build.groups(table, cell))
    assert cell.gain_interval == claims.gain_interval(cell.gains, build.paired_over(samples, table, cell))
    assert cell.gain_interval.over == "seeds and images"
    low, high = cell.gain_interval.low, cell.gain_interval.high
    shown = f"{cell.gain:+.2f} [{low:+.2f}, {high:+.2f}]"
    assert shown in render.markdown(table)
    assert f"[{low:+.2f}, {high:+.2f}] 95% over seeds and images, as in tables" in explain.text(
        explain.trace(table, cell, samples)
    )
    assert table.baseline(cell).gain_interval is None


def test_classes_that_few_images_show_are_left_out(tmp_path):
    runs = plant(tmp_path, lambda job, item: 70.0 if item == "cow" else 90.0, "mini")
    for run in runs:
        record = json.loads(run.path("result.json").read_bytes())
        counts = dict.fromkeys(record["ap"]["area"], 20)
        record |= {"num_positive": counts | {"cow": 14}, "num_positive_train": counts | {"dog": 3}}
        run.path("result.json").write_text(json.dumps(record))
    chosen = _asking(min_positives=15)
    table = build.build(SPEC, Results.read(Matrix(chosen, "mini", runs=tmp_path)))
    assert {row for (row, _), cell in table.cells.items() if cell.status == "few positives"} == {"cow", "dog"}
    assert table.cells["mAP", "baseline"].mean == pytest.approx(90)
    assert "Fewer than 15 training or test images show cow, dog" in " ".join(table.notes)
    assert table.cells["cow", "icasc-a_ch"].verdict.outcome == "not comparable"


def test_a_method_that_is_given_fewer_images_is_averaged_over_the_baseline_s_classes(tmp_path):
    """Of its own images too few show a cow: without this class, its mean of the others would look like a gain."""
    runs = plant(tmp_path, lambda job, item: 10.0 if item == "cow" else 90.0, "mini")
    for run in runs:
        record = json.loads(run.path("result.json").read_bytes())
        counts = dict.fromkeys(record["ap"]["area"], 20)
        fewer = {"cow": 8} if run.job().method != "baseline" else {}
        record |= {"num_positive": counts, "num_positive_train": counts | fewer}
        run.path("result.json").write_text(json.dumps(record))
    table = build.build(SPEC, Results.read(Matrix(_asking(min_positives=15), "mini", runs=tmp_path)))
    means = [table.cells["mAP", column.key].mean for column in SPEC.columns]
    assert means == pytest.approx([(19 * 90 + 10) / 20] * 3)
    assert table.cells["mAP", "icasc-a_ch"].gain == pytest.approx(0)
    assert table.cells["cow", "icasc-a_ch"].mean == pytest.approx(10)
