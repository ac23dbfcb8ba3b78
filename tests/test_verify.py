"""A number is believed where its scores give it: what is typed into a record, or put beside it, is named."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from benchmark.errors import UserError
from benchmark.evidence import explain, sensitivity
from benchmark.store import metrics, scores, verify
from benchmark.store.files import write_json
from benchmark.store.run import Run, all_runs
from benchmark.tables import render
from tests.evidence import RUNS, golden_table

ROOT = Path(__file__).parents[1]


@pytest.fixture
def runs(tmp_path) -> Path:
    return Path(shutil.copytree(RUNS, tmp_path / "runs"))


def edit(run: Run, change: Callable[[dict], object]) -> None:
    record = json.loads(run.path("result.json").read_text())
    change(record)
    write_json(run.path("result.json"), record)


def as_if_of(run: Run, other: Run) -> None:
    """Scores of another run, and no digest that tells."""
    shutil.copy(other.path("scores.npz"), run.path("scores.npz"))
    edit(run, lambda record: record.pop("scores_sha256"))


@pytest.mark.records
def test_every_committed_number_is_that_of_its_scores():
    """Computed again, on whatever processor this is."""
    for run in all_runs(ROOT / "runs")[::5] + all_runs(RUNS):
        record, why = verify.checked(run, None)
        assert record is not None
        assert why == ""


FORGED = {
    "mAP typed in": (lambda run, _: edit(run, lambda r: r["mAP"].update(area=0.99)), "says mAP.area 0.99, its scores"),
    "AP typed in": (lambda run, _: edit(run, lambda r: r["ap"]["area"].update(cat=0.5)), "says ap.area.cat 0.5"),
    "AP of no class": (lambda run, _: edit(run, lambda r: r["ap"]["area"].update(ox=0.5)), "says ap.area.ox 0.5"),
    "a class left out": (lambda run, _: edit(run, lambda r: r["ap"]["area"].pop("cat")), "says ap.area.cat None"),
    "counts typed in": (lambda run, _: edit(run, lambda r: r["num_positive"].update(cat=1)), "says num_positive.cat 1"),
    "images typed in": (lambda run, _: edit(run, lambda r: r.update(num_test=9)), "says 9 test images"),
    "scores of another run": (as_if_of, "its scores give"),
}


@pytest.mark.parametrize("name", FORGED)
def test_what_contradicts_the_scores_is_named_and_not_believed(name, runs):
    forge, message = FORGED[name]
    victim, other = all_runs(runs)[:2]
    forge(victim, other)
    with pytest.raises(UserError, match=message):
        verify.checked(victim, None)
    table = golden_table(runs=runs)
    assert any(str(victim.path("result.json")) in warning for warning in table.warnings)
    assert all(victim.id not in cell.runs for cell in table.cells.values())


def test_no_reader_shows_a_typed_in_number(runs, call, tmp_path):
    victim = all_runs(runs)[0]
    edit(victim, lambda record: record["mAP"].update(area=0.9876))
    said = f"{victim.path('result.json')}: says mAP.area 0.9876"
    table = golden_table(runs=runs)
    trace = explain.text(explain.trace(table, table.cells["mAP", "baseline"], {}))
    assert said in trace
    assert sensitivity._number(table.results, victim.job(), "ap_definition", "area", None) is None
    ended = call(tmp_path, "diff", "runs", "runs")
    assert "warning: runs/mini/" in ended.stderr
    assert "says mAP.area 0.9876" in ended.stderr
    assert not any("98.76" in text for text in (trace, ended.stdout, *(f(table) for f in render.FORMATS.values())))


def test_readers_of_numbers_ask_whether_the_scores_give_them():
    """Only the code and the data of a run are read without; and what shows a number opens no run folder itself."""
    asking = {"retrain.py": 2, "rebuild.py": 2, "same_data.py": 1, "audit.py": 1}
    opening = {"retrain.py", "rebuild.py", "same_data.py", "results.py", "audit.py"}
    for room in ("results", "stats", "tables", "evidence", "checks"):
        for path in (ROOT / "benchmark" / room).glob("*.py"):
            text = path.read_text()
            assert text.count(".result()") == asking.get(path.name, 0), path.name
            assert path.name in opening or not re.search(r"\bRun\(", text), path.name


def test_what_cannot_be_computed_again_is_called_unverified(runs):
    without, unnamed = all_runs(runs)[:2]
    without.path("scores.npz").unlink()
    edit(unnamed, lambda record: record.pop("scores_sha256"))
    assert verify.checked(without)[1] == "it keeps no scores"
    assert verify.checked(unnamed)[1] == "it does not name its scores"
    notes = [note for note in golden_table(runs=runs).notes if note.startswith("Unverified")]
    assert [run.id in note for run, note in zip((without, unnamed), notes, strict=True)] == [True, True]


@pytest.mark.parametrize("damage", ["nan", "labels"])
def test_scores_of_which_nothing_can_be_computed_are_named(damage, runs):
    run = all_runs(runs)[0]
    saved = scores.read(run)
    predicted, labels = saved.predicted.copy(), saved.labels
    if damage == "nan":
        predicted[0, 0] = np.nan
    else:
        labels = labels[:, :3]
    scores.write(run, saved.ids, labels, predicted, tuple(saved.classes))
    edit(run, lambda record: record.pop("scores_sha256"))
    with pytest.raises(UserError, match=r"scores\.npz: no scores to compute from|its scores give"):
        verify.checked(run, None)


def test_what_was_verified_is_remembered_by_its_bytes(runs, tmp_path, monkeypatch):
    run, known = all_runs(runs)[0], tmp_path / "cache" / "known"
    verify.checked(run, known)
    monkeypatch.setattr(metrics, "summary", lambda *_: pytest.fail("computed again"))
    verify.checked(run, known)
    verify._lines.cache_clear()
    verify.checked(run, known)
    edit(run, lambda record: record["mAP"].update(area=0.99))
    with pytest.raises(pytest.fail.Exception):
        verify.checked(run, known)
    assert sorted(p.name for p in run.folder.iterdir()) == sorted(p.name for p in (RUNS / "mini" / run.id).iterdir())
