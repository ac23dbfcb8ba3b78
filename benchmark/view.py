"""What a person sees while jobs run: bars on a terminal, a line for each event elsewhere."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import takewhile

from benchmark.errors import UserError
from benchmark.executors.local import View
from benchmark.store import Run

PLAIN_SECONDS = 30.0
MAX_BARS = 30  # more would scroll; the others are summed up in a line


@contextmanager
def make_view() -> Iterator[View]:
    if not sys.stdout.isatty():
        yield _Lines()
        return
    from rich.live import Live

    with Live(refresh_per_second=4) as live:
        yield lambda runs, outcome: live.update(_bars(runs, outcome))


def _progress(run: Run, outcome: dict[str, str]) -> tuple[str, float, str]:
    """State, share done in [0, 1], and the last epoch's line."""
    state = outcome.get(run.id) or run.state()
    epochs = run.metrics()
    try:
        progress = run.read("progress.json") or {}
    except UserError:  # a display does not stop for a damaged progress file
        progress = {}
    last = ""
    if epochs:
        tested = {k[5:]: v for k, v in epochs[-1].items() if k.startswith("test_")}
        last = f"epoch {epochs[-1]['epoch']}, " + ", ".join(f"test {k} {100 * (v or 0):.1f}" for k, v in tested.items())
    return state, 1.0 if state == "done" else float(progress.get("done", 0.0)), last


def _bars(runs: list[Run], outcome: dict[str, str]) -> object:
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    table = Table.grid(padding=(0, 2))
    order = sorted(runs, key=lambda run: run.state() != "running")
    names = [run.id.rpartition("-")[0] for run in runs]
    alike = len(list(takewhile(lambda letters: len(set(letters)) == 1, zip(*names, strict=False))))
    shared = names[0].rfind("-", 0, alike) + 1 if len(names) > 1 else 0  # what all begin with says nothing
    for run in order[:MAX_BARS]:
        state, done, last = _progress(run, outcome)
        bar = ProgressBar(total=1.0, completed=done, width=24)
        name = Text(run.id.rpartition("-")[0][shared:])
        table.add_row(name, bar, Text(f"{100 * done:3.0f}%"), Text(state), Text(last))
    if len(order) > MAX_BARS:
        table.add_row(f"and {len(order) - MAX_BARS} more, {len(outcome)} ended")
    return table


class _Lines:
    """A line when a job's state changes or an epoch ends, and a sign of life now and then."""

    def __init__(self) -> None:
        self._seen: dict[str, tuple[str, str]] = {}
        self._next = time.monotonic() + PLAIN_SECONDS

    def __call__(self, runs: list[Run], outcome: dict[str, str]) -> None:
        quiet = True
        for run in runs:
            if self._seen.get(run.id, ("",))[0] == "done":
                continue
            state, _, last = _progress(run, outcome)
            if self._seen.get(run.id) != (state, last):
                if run.id in self._seen or state not in ("pending", "done"):
                    print(f"{run.id}: {state}{', ' if last else ''}{last}", flush=True)
                    quiet = False
                self._seen[run.id] = (state, last)
        if not quiet or time.monotonic() < self._next:
            return
        self._next = time.monotonic() + PLAIN_SECONDS
        for run in runs:
            state, done, _ = _progress(run, outcome)
            if state == "running":
                print(f"{run.id}: {100 * done:.0f}%", flush=True)
