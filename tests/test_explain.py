"""Traces: every number again from the run folder, staleness, the command that makes the cell again."""

import json

import numpy as np
import pytest
from typer.testing import CliRunner

from benchmark import cli
from benchmark.errors import UserError
from benchmark.evidence import explain
from benchmark.matrix import grid
from benchmark.results.pairing import each_over
from benchmark.tables import build, published
from tests.evidence import GOLDEN, RUNS, TABLES, as_published, golden_results, golden_table, plant, save_scores


@pytest.fixture(autouse=True)
def pinned_grid(monkeypatch):
    monkeypatch.setattr(grid.load, "__defaults__", (GOLDEN,))


def call(*arguments, runs=RUNS, tables=TABLES):
    result = CliRunner().invoke(cli.app, [*map(str, arguments), "--runs", str(runs), "--tables", str(tables)])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.output


def test_trace_of_a_real_cell():
    found = json.loads(call("explain", "table2:cow:icasc-a_ch", "--json"))
    cell = golden_table().cells["cow", "icasc-a_ch"]
    assert found["value"]["mean"] == cell.mean
    assert found["gain"]["values"] == list(cell.gains)
    assert [run["id"] for run in found["runs"]] == list(cell.runs)
    assert [run["value"] for run in found["runs"]] == list(cell.values)
    assert found["published"]["value"] == 71.12
    assert found["published"]["place"].endswith("Table 2, row 'cow', column '+ ICASC_{A_ch}'")
    assert "epochs: 2 (paper: 20)" in found["deviations"]
    assert {a["name"] for a in found["assumptions"]} >= {"sigma", "ap_definition", "resize"}
    value = found["value"]
    assert value["interval_images"][0] < value["mean"] < value["interval_images"][1]
    narrow, wide = value["interval_seeds"], value["interval_seeds_and_images"]
    assert wide[0] < narrow[0] or wide[0] == narrow[0] == 0, "a share is cut at 0"
    assert narrow[0] < narrow[1] < wide[1]
    gain = found["gain"]
    assert gain["interval"] == [cell.gain_interval.low, cell.gain_interval.high]
    assert gain["smallest_detectable"] > cell.gain_interval.estimate.half(), "a lesser one is told in half of all cases"
    assert f"{gain['smallest_detectable']:.2f}: smallest gain" in call("explain", "table2:cow:icasc-a_ch")


def test_a_baseline_reads_no_icasc_assumption():
    found = json.loads(call("explain", "table2:cow:baseline", "--json"))
    assert found["gain"] is None
    assert "sigma" not in {a["name"] for a in found["assumptions"]}


def test_the_command_makes_exactly_these_jobs_and_their_baseline():
    found = json.loads(call("explain", "table2:cow:icasc-a_ch", "--set", "sigma=0.25", "--json"))
    words = found["command"].split()
    assert words[:4] == ["python", "-m", "benchmark", "run"]
    assert words[words.index("--set") + 1] == "sigma=0.25"
    only = cli.common.selection([words[words.index("--only") + 1]])
    jobs = grid.load("voc", GOLDEN).jobs("mini", {"sigma": 0.25}, only)
    assert {job.method for job in jobs} == {"baseline", "icasc-a_ch"}
    assert len(jobs) == 4


@pytest.mark.parametrize("address", ["table2:mAP:icasc-a_ch", "table2:dog:baseline"])
def test_text_names_what_it_shows(address):
    text = call("explain", address)
    for part in ("over seeds", "over test images", "verdicts", "runs", "assumptions", "again", "seed 0:"):
        assert part in text
    assert "bootstrap" not in call("explain", address, "--rounds", 0)


def test_a_cell_that_did_not_run(tmp_path):
    text = call("explain", "table2:cow:icasc-a_ch", "--scale", "paper", runs=tmp_path)
    assert "value, order: not run (not run)" in text
    assert "pending" in text
    assert "--data-root DIR" in text


def test_a_failure_is_told(tmp_path):
    for run in plant(tmp_path, as_published):
        run.path("result.json").unlink()
        run.path("failure.json").write_text(json.dumps({"kind": "diverged", "error": "the loss is not a number"}))
    text = call("explain", "table2:cow:icasc-a_ch", runs=tmp_path)
    assert "diverged" in text
    assert "the loss is not a number" in text


def test_a_published_number_within_one_run(tmp_path):
    plant(tmp_path, as_published)
    assert "within the 95% range of a single run of ours" in call("explain", "table2:cow:icasc-a_ch", runs=tmp_path)


def test_a_headline_cell_names_its_runs_and_the_rule(tmp_path):
    """Two seeds of mini runs: the gain is the table's, its claim the abstract's."""
    (tmp_path / "table2.yaml").write_bytes((TABLES / "table2.yaml").read_bytes())
    text = (published.BUILT_IN / "headline.yaml").read_text()
    head, _, _ = text.partition("rows:")
    rows = "rows:\n  - {key: VOC, table: table2, of: mAP, published: [5.73, 5.73]}\n"
    rows += "  - {key: Other, table: other, of: mAP, published: [4.8, 4.8]}\n"
    (tmp_path / "headline.yaml").write_text(head + rows)
    other = (TABLES / "table2.yaml").read_text().replace("mean_of: table2", "mean_of: other")
    (tmp_path / "other.yaml").write_text(other)
    found = json.loads(call("explain", "headline:VOC:icasc-a_ch", "--json", tables=tmp_path))
    cell = golden_table().cells["mAP", "icasc-a_ch"]
    assert found["shows"] == "table2:mAP:icasc-a_ch"
    assert found["gain"]["values"] == list(cell.gains)
    assert found["published"]["gain"] == 5.73
    assert found["published"]["place"].endswith("abstract, row 'VOC', column 'ICASC_{A_ch}'")
    assert found["gain"]["share_of_claim"]["ratio"] == pytest.approx(cell.gain / 5.73)
    assert [run["id"] for run in found["runs"]] == list(cell.runs)
    assert found["verdicts"]["gain"]["outcome"] == "not comparable"
    printed = call("explain", "headline:VOC:icasc-a_ch", "--rounds", 0, tables=tmp_path)
    for told in (
        "half of the claim",
        "after 3, 5, 8 seeds alone, each look at 98.3%",
        "Holm",
        "not locked",
        *cell.runs,
    ):
        assert told in printed
    untested = call("explain", "headline:Other:icasc-a_ch", "--scale", "paper", runs=tmp_path, tables=tmp_path)
    assert "gain: not run (untested: not run)" in untested


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("table2", "expected table:row:column"),
        ("table2:cow", "expected table:row:column"),
        ("tabel2:cow:baseline", "did you mean 'table2'"),
        ("table2:cwo:baseline", "did you mean 'cow'"),
        ("table2:cow:icasc-ach", "did you mean 'icasc-a_ch'"),
    ],
)
def test_a_wrong_address_has_a_hint(address, message):
    with pytest.raises(UserError, match=message):
        explain.locate(address, {"table2": published.load("table2", TABLES)})


@pytest.mark.usefixtures("planted_numbers")
def test_samples_are_shared_by_runs_of_the_same_images_only(tmp_path):
    runs = plant(tmp_path, as_published)[:3]
    scores = np.random.default_rng(0).normal(size=(40, 10))
    for run, ids in zip(runs, ("a", "a", "b"), strict=True):
        save_scores(run, np.zeros(40, int), scores, [f"{ids}{i}" for i in range(40)], top1=0.1, top5=0.5)
    alone = [(run.id,) for run in runs]
    together = tuple(run.id for run in runs[1:])
    samples = golden_results("paper", tmp_path).resample([*alone, together], 30)
    first, same, other = (samples[group]["top1"] for group in alone)
    assert (first == same).all()
    assert (first != other).any()
    assert samples[together]["top1"] == pytest.approx((same + other) / 2, abs=1e-4)


@pytest.mark.usefixtures("planted_numbers")
def test_single_label_runs_are_resampled(tmp_path):
    rng = np.random.default_rng(0)
    run = plant(tmp_path, as_published)[0]
    labels, scores = rng.integers(0, 10, 200), rng.normal(size=(200, 10))
    save_scores(run, labels, scores, top1=0.1, top5=0.5)
    samples = golden_results("paper", tmp_path).resample([[run.id]], 50, "top1")[run.id,]
    assert samples["top1"].mean() == pytest.approx(100 * (scores.argmax(axis=1) == labels).mean(), abs=2)


def test_samples_are_paired():
    """Two runs of one seed and nearly the same scores: their difference varies far less over images than each."""
    table = golden_table()
    cell = table.cells["mAP", "icasc-a_ch"]
    samples = golden_results().resample(build.groups(table, cell), 100, "mAP")
    paired = build.paired_over(samples, table, cell)
    assert paired.std() < 0.3 * each_over(samples, cell.runs, "mAP").std()


def test_a_pair_of_two_versions_of_the_code_names_both(tmp_path):
    for run in plant(tmp_path, as_published):
        record = json.loads(run.path("result.json").read_bytes())
        digit = "a" if run.job().method == "baseline" else "b"
        record["code"] = {"version": "1", "training": digit, "commit": digit * 40}
        run.path("result.json").write_text(json.dumps(record))
    printed = call("explain", "table2:mAP:icasc-a_ch", "--scale", "paper", runs=tmp_path)
    assert f"not all trained by one version of the training code: {'b' * 12}; the baseline by {'a' * 12}" in printed


def test_intervals_are_cut_to_what_a_quantity_can_be(tmp_path):
    """Of accuracies 0 to 100, of gains -100 to 100, though two seeds say next to nothing."""
    plant(tmp_path, lambda job, item: 1 if (job.seed == 0) == (job.method == "baseline") else 95)
    table = golden_table("paper", tmp_path)
    for method in ("baseline", "icasc-a_ch"):
        made = explain.trace(table, table.cells["mAP", method], {})
        low, high = made["value"]["interval_seeds"]
        assert (low, high) == (0.0, 100.0)
    low, high = made["gain"]["interval_seeds"]
    assert (low, high) == (-100.0, 100.0)
