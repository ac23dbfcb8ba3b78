"""What a person sees while jobs run, and when they have ended."""

import json

import pytest

from benchmark.cli import run as run_command
from benchmark.executors import view
from benchmark.executors.outcome import How, Outcome
from benchmark.store import run as run_module


@pytest.fixture
def jobs(tmp_path, make_job):
    return [
        run_module.submit(tmp_path, make_job(method, seed)) for method in ("baseline", "icasc-a_ch") for seed in (0, 1)
    ]


def _share(run, done: float) -> None:
    run.path("progress.json").write_text(json.dumps({"epoch": 1, "epochs": 10, "done": done}))


def test_the_time_left_goes_by_what_was_done_since_the_first_look(jobs):
    now = 0.0
    pace = view.Pace(lambda: now)
    states = {run.folder: "running" for run in jobs} | {jobs[0].folder: "done"}
    _share(jobs[1], 0.5)  # before this command began
    assert pace.summary(jobs, states) == "1 of 4 jobs ended, 38% of all"
    now = 600.0
    _share(jobs[1], 0.75)
    _share(jobs[2], 0.25)  # half a job in ten minutes, two to go
    assert pace.summary(jobs, states) == "1 of 4 jobs ended, 50% of all; about 40 min left"
    now = 1200.0
    assert pace.summary(jobs, dict.fromkeys(states, "failed")) == "4 of 4 jobs ended, 100% of all"


def test_what_an_earlier_attempt_did_is_no_pace(jobs):
    now = 0.0
    pace = view.Pace(lambda: now)
    states = {run.folder: "running" for run in jobs}
    epochs = jobs[0].job().epochs
    for run in jobs:  # its claim was let go with its progress.json; it goes on from a checkpoint
        run.path("metrics.jsonl").write_text("".join(f'{{"epoch": {e + 1}}}\n' for e in range(epochs // 2)))
    half = f"0 of 4 jobs ended, {100 * (epochs // 2) / epochs:.0f}% of all"
    assert pace.summary(jobs, states) == half
    now = 20.0
    for run in jobs:
        _share(run, 0.0)  # touched before the checkpoint is read
    assert pace.summary(jobs, states) == half


@pytest.mark.parametrize(("seconds", "text"), [(0.2, "1 s"), (89, "89 s"), (600, "10 min"), (9000, "2.5 h")])
def test_times_are_as_exact_as_they_are_known(seconds, text):
    assert view._time(seconds) == text


def test_lines_do_not_repeat_what_they_said(jobs, monkeypatch, capsys):
    monkeypatch.setattr(view, "PLAIN_SECONDS", 0.0)
    monkeypatch.setattr(view, "_state", lambda run: "running")
    with view.make_view() as shown:
        for done in (0.0, 0.0, 1.0, 1.0, 1.0):
            for run in jobs:
                _share(run, done)
            shown(jobs, {})
    began, lines = [f"{run.id}: running" for run in jobs], capsys.readouterr().out.splitlines()
    assert lines[:4] == began
    assert [line.partition(";")[0] for line in lines[4:]] == ["0 of 4 jobs ended, 100% of all"]


def test_bars_end_with_the_time_left(jobs):
    from rich.console import Console

    console = Console(width=120)
    with console.capture() as printed:
        console.print(view._bars(jobs, {}, view.Pace()))
    assert printed.get().splitlines()[-1] == "0 of 4 jobs ended, 0% of all"


def test_jobs_that_failed_alike_share_the_last_line(jobs, capfd):
    for run in jobs[:3]:
        run.path("failure.json").write_text(json.dumps({"kind": "input", "error": "cow.jpg is missing"}))
    outcomes = {run.id: Outcome(How.FAILED, kind="input") for run in jobs[:3]} | {jobs[3].id: Outcome(How.DONE)}
    print("the tables")
    with pytest.raises(SystemExit) as ended:
        run_command.report_what_is_left(jobs, outcomes, None)
    assert ended.value.code == 2
    assert capfd.readouterr().err.splitlines() == [f"{jobs[0].id} and 2 more: failed: input: cow.jpg is missing"]
