"""How jobs end, as data. Whoever prints an outcome, or why a job waits, calls str(): the sentences stand here alone."""

import signal
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from benchmark.errors import UserError
from benchmark.store.run import Run

# Exit statuses of run-job
ALREADY_CLAIMED = 3  # another process holds the run
OUT_OF_TIME = 4  # its deadline came
# ... and of run, beside 0 and 1
BAD_INPUT = 2
UNFINISHED = 3  # the budget was used before the last job ended


class How(StrEnum):
    """The first three are a run's own records, and have the names of its states."""

    DONE = "done"
    FAILED = "failed"
    DIVERGED = "diverged"
    BUDGET_USED = "budget used"
    TIMED_OUT = "timed out"
    KILLED = "killed"
    HUNG = "hung"
    NO_RECORD = "no record"
    LOST_BY_RAY = "lost by Ray"
    GONE_FROM_SLURM = "gone from SLURM"


SENTENCES = {  # where the name is not all; filled in with an outcome's fields
    How.TIMED_OUT: "stopped after --timeout {seconds:g} s",
    How.KILLED: "killed by signal {signal} ({signal_name})",
    How.HUNG: "hung: no progress for {seconds:g} s, killed",
    How.NO_RECORD: "ended with status {status} and no record; see {log}",
    How.LOST_BY_RAY: "lost by Ray ({reason})",
    How.GONE_FROM_SLURM: "SLURM job {queue_id} ended without a record; {reason}",
}
RECORDED = (How.DONE, How.FAILED, How.DIVERGED)
RESUMABLE = (How.TIMED_OUT, How.KILLED, How.HUNG, How.LOST_BY_RAY, How.GONE_FROM_SLURM)  # by the next call


@dataclass(frozen=True)
class Outcome:
    """How a job, or an attempt at it, ended, with what that `how` has to tell."""

    how: How
    kind: str = ""  # of a failure, as failure.json names it
    attempts: int = 0  # after which it was given up
    signal: int = 0
    status: int = 0  # run-job's
    seconds: float = 0.0
    reason: str = ""
    queue_id: str = ""
    log: Path | None = None

    @property
    def signal_name(self) -> str:
        return next((s.name for s in signal.Signals if s == self.signal), "real-time")

    @property
    def by_the_machine(self) -> bool:
        """Killed, hung or without its device: nothing that the job did."""
        return self.how in (How.KILLED, How.HUNG) or self.kind == "lost_device"

    def briefly(self) -> str:
        """What happened, without what to do about it."""
        return SENTENCES.get(self.how, self.how.value).format(**vars(self), signal_name=self.signal_name)

    def __str__(self) -> str:
        times = f", {self.attempts} times" if self.attempts else ""
        again = "; call again to resume" if self.attempts or self.how in RESUMABLE else ""
        return self.briefly() + times + again


@dataclass(frozen=True)
class Again:
    """A job waits for its next attempt: for some seconds, or until it has a place to itself."""

    after: Outcome
    seconds: float = 0.0
    alone_on: str = ""

    def __str__(self) -> str:
        when = f", alone on {self.alone_on}" if self.alone_on else f" in {self.seconds:g} s"
        return f"{self.after.briefly()}; again{when}"


@dataclass(frozen=True)
class HeldElsewhere:
    """A job waits for a process that this command did not start."""

    host: str
    pid: int

    def __str__(self) -> str:
        return f"waiting for process {self.pid} on {self.host}, which holds it"


Told = Mapping[str, Outcome | Again | HeldElsewhere]  # by job id; a scheduler tells what the run folders do not
View = Callable[[list[Run], Told], None]


def recorded(run: Run, state: str) -> Outcome | None:
    """The outcome that the run's own records hold; None where its state is no end."""
    if state not in RECORDED:
        return None
    return Outcome(How(state), kind=_failure_kind(run) if state == "failed" else "")


def final(run: Run, state: str) -> Outcome | None:
    """The outcome that no further attempt changes, nor any other process."""
    return recorded(run, state) if state in ("done", "diverged") else None


def _failure_kind(run: Run) -> str:
    """As training writes it; empty where the record cannot be read."""
    with suppress(UserError):
        return failure.kind if (failure := run.failure()) else ""
    return ""


def held_elsewhere(run: Run) -> HeldElsewhere | None:
    """Who holds a run that this command has no worker on."""
    holder = run.holder()
    return HeldElsewhere(holder.host, holder.pid) if holder else None


def exit_status(outcomes: Collection[Outcome]) -> int:
    """Of `run`: 0 all have a result, 1 one failed, 2 all that failed had bad input, 3 only time was missing."""
    failed = [outcome for outcome in outcomes if outcome.how not in (How.DONE, How.BUDGET_USED)]
    if failed:
        return BAD_INPUT if all(outcome.kind == "input" for outcome in failed) else 1
    return UNFINISHED if any(outcome.how == How.BUDGET_USED for outcome in outcomes) else 0
