"""An assumption as an axis: from saved scores at once, from runs where they are."""

import json
import shutil

import numpy as np
import pytest
from typer.testing import CliRunner

from benchmark import cli
from benchmark.errors import UserError
from benchmark.evidence import sensitivity
from benchmark.matrix import grid
from benchmark.matrix.matrix import Matrix
from benchmark.results.results import Reader, Results, items
from benchmark.store import metrics
from benchmark.store import run as run_module
from tests.evidence import GOLDEN, RUNS, golden_results, golden_table, plant, save_scores


@pytest.fixture(autouse=True)
def pinned_grid(monkeypatch):
    monkeypatch.setattr(grid.load, "__defaults__", (GOLDEN,))


def lines(vary, *arguments, runs=RUNS):
    words = ["sensitivity", "--grid", "voc", "--vary", vary, "--runs", str(runs), "--json", *arguments]
    result = CliRunner().invoke(cli.app, words)
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return json.loads(result.stdout)


def test_ap_definitions_come_from_the_scores():
    found = lines("ap_definition")
    assert [line["value"] for line in found] == [
        d for d in (*metrics.DEFINITIONS, sensitivity.LIST_ORDER) for _ in range(2)
    ]
    assert all(line["command"] is None for line in found)
    cell = golden_table().cells["mAP", "icasc-a_ch"]
    assert found[1]["gain"] == pytest.approx(cell.gain)
    assert (found[1]["in_use"], found[1]["moved"]) == (True, 0.0)
    assert found[3]["moved"] == pytest.approx(found[3]["gain"] - cell.gain)


def test_difficult_objects_of_the_test_set():
    run = Reader().open(run_module.all_runs(RUNS)[0].folder)
    assert sensitivity.rescored(run, "area", 0) == pytest.approx(items(run.record, "area"))
    assert sensitivity.rescored(run, "area", 1) != pytest.approx(items(run.record, "area"))
    assert {line["value"] for line in lines("difficult_test")} == {"ignored", "negative", "positive"}


def test_the_best_epoch_is_over_all_classes_as_it_was_recorded():
    last, _, best, _ = lines("checkpoint", "--scale", "mini")
    assert (last["value"], best["value"], best["over"]) == ("last_epoch", "best_on_test", "seeds only")
    records = {run.id: run.result() for run in run_module.all_runs(RUNS)}
    means = [
        np.mean([100 * record.best_on_test.mAP for name, record in records.items() if f"-{method}-s" in name])
        for method in ("icasc-grad_cam", "baseline")
    ]
    assert (best["mean"], best["gain"]) == pytest.approx((means[0], means[0] - means[1]))
    with pytest.raises(UserError, match="only mAP is recorded of that epoch, no cow"):
        sensitivity.table(golden_results(), "checkpoint", ["best_on_test"], "cow")


def test_the_number_of_images_that_a_class_needs(tmp_path):
    shutil.copytree(RUNS, tmp_path, dirs_exist_ok=True)
    for run in run_module.all_runs(tmp_path):
        record = json.loads(run.path("result.json").read_text())
        run.path("result.json").write_text(json.dumps(record | {"num_positive_train": record["num_positive"]}))
    least = sorted(run.result().num_positive.values())[10]  # of 20 classes
    found = lines(f"min_positives=[1,{least}]", "--scale", "mini", runs=tmp_path)
    assert [line["value"] for line in found] == [1, 1, least, least]
    record = next(run for run in run_module.all_runs(tmp_path) if "icasc-a_ch-s0" in run.id).result()
    assert 0 < len(record.frequent(least)) < 20
    expected = items(record, "area", record.frequent(least))["mAP"]
    of_seeds = [run for run in run_module.all_runs(tmp_path) if "icasc-a_ch-s" in run.id]
    assert found[3]["mean"] == pytest.approx(
        np.mean([items(r.result(), "area", r.result().frequent(least))["mAP"] for r in of_seeds])
    )
    assert expected != pytest.approx(items(record, "area")["mAP"])
    with pytest.raises(UserError, match="a number of images, 1 or more"):
        sensitivity.table(golden_results(), "min_positives", [0])


def test_what_is_missing_has_a_command():
    used, _, other, _ = lines("sigma")
    assert (used["value"], used["command"]) == (0.55, None)
    assert (other["value"], other["n"], other["gain"], other["moved"]) == (0.25, 0, None, None)
    assert "--set sigma=0.25 --only method=baseline,method=icasc-grad_cam,method=icasc-a_ch" in other["command"]


@pytest.mark.usefixtures("planted_numbers")
def test_a_planted_effect_moves_the_gain(tmp_path):
    effect = {0.25: 2.0, 0.55: 5.0}
    for sigma in effect:
        plant(
            tmp_path,
            lambda job, item: 70.0 + job.seed + (effect[job.sigma] if job.method != "baseline" else 0),
            sigma=sigma,
        )
    found = lines("sigma=[0.25, 0.55]", runs=tmp_path)
    assert [line["value"] for line in found] == [0.55, 0.55, 0.25, 0.25]
    assert [line["gain"] for line in found] == pytest.approx([5.0, 5.0, 2.0, 2.0])
    assert [line["moved"] for line in found] == pytest.approx([0.0, 0.0, -3.0, -3.0])


@pytest.mark.usefixtures("planted_numbers")
def test_what_a_value_moves_is_of_the_seeds_that_both_have(tmp_path):
    """And a mean is of the seeds that its gain is of."""
    for sigma in (0.25, 0.55):
        for run in plant(tmp_path, lambda job, item: 70.0 + job.seed**2 * (job.method != "baseline"), sigma=sigma):
            job = run.job()
            if (job.sigma, job.seed) == (0.25, 0) or (job.method, job.seed) == ("baseline", 2):
                run.path("result.json").unlink(missing_ok=True)
    found = lines("sigma=[0.25, 0.55]", runs=tmp_path)
    assert [(line["seeds"], line["mean"], line["gain"]) for line in found[::2]] == [
        ([0, 1], pytest.approx(70.5), pytest.approx(0.5)),
        ([1], pytest.approx(71.0), pytest.approx(1.0)),
    ]
    assert [line["moved"] for line in found[::2]] == pytest.approx([0.0, 0.0])


def test_a_gain_has_the_interval_of_the_tables():
    _, found, *_ = lines("ap_definition")
    interval = golden_table().cells["mAP", "icasc-a_ch"].gain_interval
    assert (found["low"], found["high"]) == pytest.approx((interval.low, interval.high))
    assert found["over"] == "seeds and images"
    _, reread, *_ = [line for line in lines("difficult_test") if line["value"] == "positive"] * 2
    assert reread["over"] == "seeds only", "labels that are read anew were not resampled"


def test_runs_tested_on_other_images_are_not_compared(tmp_path):
    for run in plant(tmp_path, lambda job, item: 70.0 + job.seed):
        if "baseline" in run.id:
            record = json.loads(run.path("result.json").read_bytes())
            record["data"]["test"]["sha256"] = "of others"
            run.path("result.json").write_text(json.dumps(record))
    found = lines("ap_definition", "--scale", "paper", runs=tmp_path)
    assert {(line["n"], line["gain"], line["low"]) for line in found} == {(0, None, None)}
    assert "were tested on different images" in found[0]["unpaired"][0]


@pytest.mark.parametrize(
    ("vary", "message"),
    [
        ("sgima", "did you mean 'sigma'"),
        ("theta", "has no alternatives"),
        ("sigma=[a]", "sigma"),
    ],
)
def test_errors(vary, message):
    with pytest.raises(UserError, match=message):
        lines(vary)


def test_a_wrong_item_has_a_hint():
    with pytest.raises(UserError, match="did you mean 'cow'"):
        lines("ap_definition", "--item", "cwo")


@pytest.fixture
def study(monkeypatch, tmp_path):
    """A grid whose mini scale compares two readings, one of which has a loss, and so a baseline, of its own."""
    text = (GOLDEN / "voc.yaml").read_text()
    named = "    why: drawn numbers"
    assert named in text
    (tmp_path / "voc.yaml").write_text(
        text.replace(named, "    readings: [{sigma: 0.25}, {class_reduction: sum}]\n    min_positives: 2\n" + named)
        + "  class_reduction: {value: mean, alternatives: [sum], why: a test}\n"
    )
    return grid.load("voc", tmp_path)


def _finish(runs, job, ap, shown_by, kind="a_ch"):
    """A finished run whose first class has AP `ap`; class 1 is shown by too few training images to count."""
    run, rng = run_module.submit(runs, job), np.random.default_rng(0)
    labels = rng.choice([-1, 1], (40, 3)).astype(np.int8)
    scores = rng.normal(size=(40, 3)) + (3 * labels if ap else 0)
    per_class = {f"c{i}": ap if i != 1 else 0.9 for i in range(3)}
    counts = dict.fromkeys(per_class, 20)
    record = {
        "ap": {"area": per_class}, "mAP": {"area": 0.5}, "num_positive": counts,
        "num_positive_train": counts | {"c1": shown_by},
    }  # fmt: skip
    save_scores(run, labels, scores, **record)
    of_maps = {f"{kind}_{layer}{end}": 0.25 for layer in ("inner", "last") for end in ("", "_blank")}
    epoch = {"epoch": 1, "train": {"classification": 0.1 + ap}, "test_mAP": 0.5, "attention_overlap": of_maps}
    run.write_metrics([epoch])
    return run


@pytest.mark.usefixtures("planted_numbers")
def test_readings_pair_with_the_baseline_of_their_own_loss(study, tmp_path):
    runs = tmp_path / "runs"
    for reading, gain in (({"sigma": 0.25}, 0.1), ({"class_reduction": "sum"}, -0.2)):
        for job in study.jobs("mini", readings=[reading]):
            if job.method != "icasc-grad_cam":
                base = 0.4 if job.class_reduction == "mean" else 0.6
                _finish(runs, job, base + (gain if job.method == "icasc-a_ch" else 0), shown_by=1)
    lines = sensitivity.readings(Results.read(Matrix(study, "mini", runs=runs)))
    assert [(line["reading"], line["method"]) for line in lines] == [
        (reading, method)
        for reading in ({"sigma": 0.25}, {"class_reduction": "sum"})
        for method in ("icasc-grad_cam", "icasc-a_ch")
    ]
    found = {tuple(line["reading"]): line for line in lines if line["method"] == "icasc-a_ch"}
    assert found["sigma",]["gain"] == pytest.approx(10)
    assert found["class_reduction",]["gain"] == pytest.approx(-20)
    assert found["sigma",]["over"] == "seeds and images"
    assert found["sigma",]["mean"] == pytest.approx(50), "class c1 is in too few training images to count"
    assert found["sigma",]["loss"] == pytest.approx(0.6)
    assert found["sigma",]["baseline_blank_last"] == 0.25
    assert found["sigma",]["overlap_last"] == pytest.approx(0.25 / 0.75), "of the maps that are not blank"
    missing = [line for line in lines if line["method"] == "icasc-grad_cam"]
    assert {(line["n"], line["state"]) for line in missing} == {(0, "not run")}


def test_readings_as_text_hide_nothing(study, tmp_path):
    matrix = Matrix(study, "mini", runs=tmp_path / "runs")
    lines = sensitivity.readings(Results.read(matrix))
    text = sensitivity.readings_text(matrix, lines, "pipe")
    assert text.count("not run") == len(lines) == 4
    assert r"sigma 0.25" in text
    assert r"class\_reduction sum" in text


@pytest.mark.usefixtures("planted_numbers")
def test_one_seed_is_over_images_only_and_other_images_are_no_pair(study, tmp_path):
    for job in study.jobs("mini", readings=[{"sigma": 0.25}], only={"seed": [0]}):
        _finish(tmp_path, job, 0.4, shown_by=1, kind=job.method.removeprefix("icasc-"))
    matrix = Matrix(study, "mini", selection={"seed": [0]}, runs=tmp_path, readings=({"sigma": 0.25},))
    lines = sensitivity.readings(Results.read(matrix))
    assert {line["over"] for line in lines} == {"images only"}
    assert "(images only)" in sensitivity.readings_text(matrix, lines, "pipe")
    run = next(run for run in run_module.all_runs(tmp_path) if "grad_cam" in run.id)
    record = json.loads(run.path("result.json").read_bytes())
    scores = np.random.default_rng(1).normal(size=(40, 3))
    save_scores(
        run, np.ones((40, 3), np.int8), scores, **{k: v for k, v in record.items() if k[:3] in ("ap", "mAP", "num")}
    )
    other, same = sensitivity.readings(Results.read(matrix))
    assert (other["n"], other["state"], same["state"]) == (0, "no pair", "done")
    assert "Not paired: " in sensitivity.readings_text(matrix, [other, same], "pipe")


def test_a_scale_without_readings_says_which_has_them(tmp_path):
    result = CliRunner().invoke(cli.app, ["sensitivity", "--grid", "voc", "--scale", "mini"])
    assert isinstance(result.exception, UserError)
    assert "name an assumption with --vary" in str(result.exception)
