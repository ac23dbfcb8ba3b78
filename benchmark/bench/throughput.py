"""How many jobs a second an executor gets through when the jobs are empty."""

import tempfile
import time
from pathlib import Path
from typing import Any

from benchmark.executors import EXECUTORS
from benchmark.executors.local import make_slots
from benchmark.executors.ray import Settings
from benchmark.store.run import Run

FEW, MANY = 4, 44


def measure(executor: str) -> float:
    """Jobs per second of `local` or `ray` on this machine, a core each.

    An empty job is a folder without a job.json: `run-job` is started for it as for any other, says that it is missing,
    and ends before it imports torch. What remains is the executor's own work and the start of Python with the command
    line. The executor's start and end, of which Ray's take seconds, cancel out: 44 jobs are timed against 4.
    """
    return (MANY - FEW) / (_seconds(executor, MANY) - _seconds(executor, FEW))


def _seconds(executor: str, num_jobs: int) -> float:
    settings: Any = Settings() if executor == "ray" else make_slots(num_jobs, None, ())
    with tempfile.TemporaryDirectory() as folder:
        runs = [Run(Path(folder, "empty", str(i))) for i in range(num_jobs)]
        for run in runs:
            run.folder.mkdir(parents=True)
        started = time.monotonic()
        outcomes = EXECUTORS[executor](runs, [], settings, lambda runs, told: None)
        seconds = time.monotonic() - started
        ended = [run.id for run in runs if "job.json: missing" in run.path("log.txt").read_text()]
    assert len(ended) == len(outcomes) == num_jobs, "every job was really started"
    return seconds
