"""What a person sees while jobs run: bars on a terminal, a line for each event elsewhere. All of it is read from the
run folders, so it shows any executor's jobs; a scheduler adds what only it knows."""

import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmark.errors import UserError, one_line
from benchmark.executors.outcome import Told, View
from benchmark.store.records import Epoch
from benchmark.store.run import STATES, Run

if TYPE_CHECKING:
    from rich.console import Group

PLAIN_SECONDS = 30.0
WATCH_SECONDS = 2.0
MAX_BARS = 30  # more would scroll; the others are summed up in a line
ENDED = ("done", "failed", "diverged")
FIRST = ("running", "stale", "failed", "diverged")  # what is shown where not all fits


@contextmanager
def make_view() -> Iterator[View]:
    if not sys.stdout.isatty():
        yield _Lines()
        return
    from rich.live import Live

    pace = Pace()
    with Live(refresh_per_second=4) as live:
        yield lambda runs, told: live.update(_bars(runs, told, pace))


def watch(select: Any) -> None:
    """Show the runs that `select()` finds, again and again, until none is left to run or KeyboardInterrupt."""
    print(f"watching: {counted([_state(run) for run in select()]) or 'no job'}", flush=True)
    looks: list[float] = []
    with make_view() as view:
        while True:
            began = time.process_time()
            runs = select()
            view(runs, {})
            if not any(_state(run) in ("pending", "running", "stale") for run in runs):
                return
            # 10,000 runs take long to look at; how long, the quickest look says: the machine may be busy.
            looks.append(time.process_time() - began)
            time.sleep(max(WATCH_SECONDS, 10 * min(looks)))


def counted(states: list[str]) -> str:
    """`2 done, 1 running`, in the order of STATES."""
    counts = Counter(states)
    return ", ".join(f"{counts[state]} {state}" for state in STATES if counts[state])


def _state(run: Run) -> str:
    try:
        return run.state()
    except UserError:  # a display does not stop for a damaged record
        return "failed"


def _progress(run: Run, state: str) -> tuple[float, str]:
    """Share done in [0, 1], and the last epoch's line."""
    done, epochs = _done(run)
    done = 1.0 if state == "done" else done
    if not epochs:
        return done, ""
    tested = {"mAP": epochs[-1].test_mAP, "top1": epochs[-1].test_top1}
    scores = [f"test {name} {100 * value:.1f}" for name, value in tested.items() if value is not None]
    return done, ", ".join([f"epoch {epochs[-1].epoch}", *scores])


def _done(run: Run) -> tuple[float, list[Epoch]]:
    """In [0, 1], with its epochs. By these where the attempt has not told yet: it goes on from a checkpoint, and what
    is done already is no pace of its."""
    try:
        progress, epochs = run.progress(), run.metrics()
        logged = epochs[-1].epoch / run.job().epochs if epochs else 0.0
    except UserError:
        return 0.0, []
    return max(logged, progress.done if progress else 0.0), epochs


class Pace:
    """How long the jobs will still take, going by how much of them was done since the first look."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._first: tuple[float, float] | None = None

    def summary(self, runs: list[Run], states: dict[Path, str]) -> str:
        """`2 of 15 jobs ended, 20% of all; about 12 min left`; no time before a hundredth of it was done."""
        shares = [_share(run, states[run.folder]) for run in runs]
        ended = sum(states[run.folder] in ENDED for run in runs)
        text = f"{ended} of {len(runs)} jobs ended, {100 * sum(shares) / max(1, len(runs)):.0f}% of all"
        now, done = self._clock(), sum(shares)
        began, at_first = self._first = self._first or (now, done)
        if ended == len(runs) or done - at_first < 0.01 * len(runs):
            return text
        return f"{text}; about {_time((len(runs) - done) * (now - began) / (done - at_first))} left"


def _time(seconds: float) -> str:
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    return f"{round(seconds / 60)} min" if seconds < 90 * 60 else f"{seconds / 3600:.1f} h"


def _share(run: Run, state: str) -> float:
    """Of the job that needs no more work, in [0, 1]."""
    return 1.0 if state in ENDED else _done(run)[0]


def _bars(runs: list[Run], told: Told, pace: Pace) -> "Group":
    from rich.console import Group
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    table = Table.grid(padding=(0, 2))
    states = {run.folder: _state(run) for run in runs}
    order = sorted(runs, key=lambda run: FIRST.index(s) if (s := states[run.folder]) in FIRST else len(FIRST))
    names = [run.id.rpartition("-")[0] for run in runs]
    alike = len(list(takewhile(lambda letters: len(set(letters)) == 1, zip(*names, strict=False))))
    shared = names[0].rfind("-", 0, alike) + 1 if len(names) > 1 else 0  # what all begin with says nothing
    for run in order[:MAX_BARS]:
        state = states[run.folder]
        done, last = _progress(run, state)
        bar = ProgressBar(total=1.0, completed=done, width=24)
        name = Text(one_line(run.id.rpartition("-")[0][shared:]))
        table.add_row(name, bar, Text(f"{100 * done:3.0f}%"), Text(one_line(str(told.get(run.id, state)))), Text(last))
    if len(order) > MAX_BARS:
        table.add_row(f"and {len(order) - MAX_BARS} more; all: {counted(list(states.values()))}")
    return Group(table, pace.summary(runs, states))


class _Lines:
    """A line when a job's state changes or an epoch ends, and a sign of life now and then."""

    def __init__(self) -> None:
        self._seen: dict[Path, tuple[str, str]] = {}
        self._next = time.monotonic() + PLAIN_SECONDS
        self._pace = Pace()
        self._said: str | None = None

    def __call__(self, runs: list[Run], told: Told) -> None:
        quiet = True
        for run in runs:
            before = self._seen.get(run.folder)
            if before is not None and before[0] == "done":
                continue
            state = _state(run)
            shown = str(told.get(run.id, state))
            last = _progress(run, state)[1] if state != "pending" else ""
            if before != (shown, last):
                if before is not None or shown not in ("pending", "done"):
                    print(f"{run.id}: {shown}{', ' if last else ''}{last}", flush=True)
                    quiet = False
                self._seen[run.folder] = (shown, last)
        due = quiet and time.monotonic() >= self._next
        if self._said is not None and not due:  # to look at every run again takes long where they are many
            return
        self._next = time.monotonic() + PLAIN_SECONDS
        summary = self._pace.summary(runs, {run.folder: _state(run) for run in runs})
        if due and summary != self._said:
            print(summary, flush=True)
        self._said = summary
