"""Outcomes are data; their sentences, and the exit status of `run`."""

from pathlib import Path

import pytest

from benchmark.executors.outcome import Again, HeldElsewhere, How, Outcome, exit_status, recorded
from benchmark.store import run as run_module

SAID = {
    "done": Outcome(How.DONE),
    "failed": Outcome(How.FAILED, kind="crash"),
    "failed, 4 times; call again to resume": Outcome(How.FAILED, kind="lost_device", attempts=4),
    "diverged": Outcome(How.DIVERGED, kind="diverged"),
    "budget used": Outcome(How.BUDGET_USED),
    "stopped after --timeout 1.5 s; call again to resume": Outcome(How.TIMED_OUT, seconds=1.5),
    "killed by signal 9 (SIGKILL); call again to resume": Outcome(How.KILLED, signal=9),
    "killed by signal 40 (real-time), 4 times; call again to resume": Outcome(How.KILLED, signal=40, attempts=4),
    "hung: no progress for 2 s, killed, 4 times; call again to resume": Outcome(How.HUNG, seconds=2, attempts=4),
    "ended with status 9 and no record; see a/log.txt": Outcome(How.NO_RECORD, status=9, log=Path("a/log.txt")),
    "lost by Ray ({node} died); call again to resume": Outcome(How.LOST_BY_RAY, reason="{node} died"),
    "SLURM job 7_1 ended without a record; see a/log.txt; call again to resume": Outcome(
        How.GONE_FROM_SLURM, queue_id="7_1", reason="see a/log.txt"
    ),
    "killed by signal 9 (SIGKILL); again in 2 s": Again(Outcome(How.KILLED, signal=9), seconds=2),
    "failed; again, alone on GPU 0": Again(Outcome(How.FAILED, kind="out_of_memory"), alone_on="GPU 0"),
    "waiting for process 7 on alpha, which holds it": HeldElsewhere("alpha", 7),
}  # fmt: skip


@pytest.mark.parametrize("text", SAID)
def test_what_is_said(text):
    assert str(SAID[text]) == text


def test_every_end_has_a_sentence():
    assert {outcome.how for outcome in SAID.values() if isinstance(outcome, Outcome)} == set(How)


DONE, USED, CRASH, INPUT = (
    Outcome(How.DONE), Outcome(How.BUDGET_USED), Outcome(How.FAILED, kind="crash"), Outcome(How.FAILED, kind="input"),
)  # fmt: skip


@pytest.mark.parametrize(
    ("outcomes", "status"),
    [
        ([], 0),
        ([DONE, DONE], 0),
        ([DONE, USED], 3),
        ([DONE, INPUT, INPUT], 2),
        ([INPUT, USED], 2),
        ([INPUT, CRASH], 1),
        ([INPUT, Outcome(How.KILLED, signal=9, attempts=4)], 1),
        ([Outcome(How.DIVERGED), USED], 1),
        # A path in a message does not make it the user's input.
        ([Outcome(How.LOST_BY_RAY, reason="node at runs: input closed")], 1),
    ],
)
def test_exit_status(outcomes, status):
    assert exit_status(outcomes) == status


@pytest.mark.parametrize("content", ['{"kind": "input"}', '{"kind"'])
def test_kind_of_a_recorded_failure(content, tmp_path):
    run = run_module.Run(tmp_path)
    assert recorded(run, "pending") is None
    run.path("failure.json").write_text(content)
    assert recorded(run, "failed") == Outcome(How.FAILED, kind="input" if content.endswith("}") else "")
