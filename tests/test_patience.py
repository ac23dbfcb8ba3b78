"""When a scheduler starts another worker for a run that the last one found claimed."""

import os

import pytest

from benchmark.executors import patience
from benchmark.executors.patience import Patience
from benchmark.store import claim as claim_module
from benchmark.store.run import Run, write_json

ELSEWHERE = {"host": "alpha boot pid:[1]", "pid": 7, "process_start": "1", "started": 1.0}


@pytest.fixture
def clock(monkeypatch):
    """clock(seconds): so much later."""
    now = [1000.0]
    monkeypatch.setattr(patience.time, "monotonic", lambda: now[0])

    def later(seconds: float) -> None:
        now[0] += seconds

    return later


@pytest.fixture
def run(tmp_path) -> Run:
    write_json(tmp_path / "claim.json", ELSEWHERE)
    return Run(tmp_path)


def _touch(run: Run, moment: float) -> None:
    os.utime(run.path("claim.json"), (moment, moment))


def _seconds_until_over(waiting: Patience, clock, longest: float = 1000.0) -> float:
    waited = 0.0
    while not waiting.over():
        clock(0.25)
        waited += 0.25
        if waited >= longest:
            return float("inf")
    return waited


@pytest.mark.parametrize("claim", [None, ELSEWHERE | {"host": claim_module.this_host()}, {}], ids=str)
def test_the_first_worker_starts_at_once_where_no_other_host_can_hold_the_run(claim, run, clock):
    run.path("claim.json").unlink() if claim is None else write_json(run.path("claim.json"), claim)
    assert Patience(run).over()


def test_a_claim_that_is_touched_is_waited_for_with_growing_pauses(run, clock, monkeypatch):
    """Before any worker: the claim looks stale by this host's clock alone."""
    waiting, looks, real = Patience(run), [], Run.holder

    def holder(self):
        _touch(run, len(looks) * 1e6)  # by a clock of its own
        looks.append(patience.time.monotonic() - 1000)
        return real(self)

    monkeypatch.setattr(Run, "holder", holder)
    assert _seconds_until_over(waiting, clock) == float("inf")
    assert looks[:8] == [0.0, 0.5, 1.5, 3.5, 7.5, 15.5, 31.5, 63.5]


@pytest.mark.parametrize("turned_away", [False, True])
def test_a_claim_that_stays_still_is_tried_after_a_worker_s_own_time_of_watching(turned_away, run, clock):
    waiting = Patience(run)
    if turned_away:
        waiting.turned_away()
    assert _seconds_until_over(waiting, clock) == claim_module.WATCH_SECONDS


def test_a_claim_of_this_host_can_be_looked_up(run, clock):
    write_json(run.path("claim.json"), ELSEWHERE | {"host": claim_module.this_host()})
    waiting = Patience(run)
    waiting.turned_away()
    assert not waiting.over()
    assert _seconds_until_over(waiting, clock) == 0.5


def test_a_claim_that_is_released_ends_the_wait(run, clock):
    waiting = Patience(run)
    assert not waiting.over()
    run.path("claim.json").unlink()
    assert _seconds_until_over(waiting, clock) == 0.5


def test_a_claim_that_another_has_taken_is_watched_anew(run, clock):
    waiting = Patience(run)
    assert not waiting.over()
    clock(claim_module.WATCH_SECONDS - 1)
    write_json(run.path("claim.json"), ELSEWHERE | {"pid": 8})
    assert _seconds_until_over(waiting, clock) == claim_module.WATCH_SECONDS
