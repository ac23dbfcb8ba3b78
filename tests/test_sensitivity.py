"""An assumption as an axis: from saved scores at once, from runs where they are."""

import json

import pytest
from typer.testing import CliRunner

from benchmark import cli, cli_evidence, grid, metrics, results, sensitivity, store
from benchmark.errors import UserError
from tests.evidence import GOLDEN, RUNS, golden_table, plant

assert cli_evidence.app is cli.app


@pytest.fixture(autouse=True)
def pinned_grid(monkeypatch):
    monkeypatch.setattr(grid.load, "__defaults__", (GOLDEN,))


def lines(vary, *arguments, runs=RUNS):
    words = ["sensitivity", "--grid", "voc", "--vary", vary, "--runs", str(runs), "--json", *arguments]
    result = CliRunner().invoke(cli.app, words)
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return json.loads(result.output)


def test_ap_definitions_come_from_the_scores():
    found = lines("ap_definition")
    assert [line["value"] for line in found] == [d for d in metrics.DEFINITIONS for _ in range(2)]
    assert all(line["command"] is None for line in found)
    cell = golden_table().cells["mAP", "icasc-a_ch"]
    assert found[1]["gain"] == pytest.approx(cell.gain)
    assert (found[1]["in_use"], found[1]["moved"]) == (True, 0.0)
    assert found[3]["moved"] == pytest.approx(found[3]["gain"] - cell.gain)


def test_difficult_objects_of_the_test_set():
    run = store.all_runs(RUNS)[0]
    assert sensitivity.rescored(run, "area", 0) == pytest.approx(results.items(run, "area"))
    assert sensitivity.rescored(run, "area", 1) != pytest.approx(results.items(run, "area"))
    assert {line["value"] for line in lines("difficult_test")} == {"ignored", "negative", "positive"}


def test_what_is_missing_has_a_command():
    used, _, other, _ = lines("sigma")
    assert (used["value"], used["command"]) == (0.55, None)
    assert (other["value"], other["n"], other["gain"], other["moved"]) == (0.25, 0, None, None)
    assert "--set sigma=0.25 --only method=baseline,method=icasc-grad_cam,method=icasc-a_ch" in other["command"]


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
