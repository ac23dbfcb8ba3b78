"""What jobs cost, going by the epochs of jobs like them that ran. Where none ran there is no cost, and no guess."""

import heapq
import statistics
from collections.abc import Iterable
from pathlib import Path

from benchmark.errors import UserError
from benchmark.matrix.job import Job
from benchmark.store.run import Run, all_runs

# What the time of an epoch hangs on. Jobs that differ in other fields, such as the seed, take as long.
ALIKE = (
    "scale", "dataset", "train_split", "test_split", "limit_train", "limit_test", "partial", "backbone", "method",
    "image_size", "resize", "batch_size", "precision", "ranks", "inner_layer", "second_order", "gradient_batchnorm",
)  # fmt: skip
SLOTS = (1, 2, 4, 8)  # GPUs, or CPUs such as the machine that was measured


def epoch_seconds(runs: Path) -> dict[tuple, dict[str, float]]:
    """For each kind of job under `runs` the median seconds of an epoch, its test included, by machine."""
    seconds: dict[tuple, dict[str, list[float]]] = {}
    for run in all_runs(runs):
        try:
            epochs, machine = [e.seconds for e in run.metrics() if e.seconds is not None], _machine(run)
            if epochs and machine:
                seconds.setdefault(_kind(run.job()), {}).setdefault(machine, []).extend(epochs)
        except UserError:  # a damaged record measures nothing; `status` names it
            continue
    return {kind: {m: statistics.median(s) for m, s in machines.items()} for kind, machines in seconds.items()}


def hours(job: Job, measured: dict[tuple, dict[str, float]]) -> tuple[float, str] | None:
    """Of the whole job, and the machine that says so: the fastest that ran its like. None where none did."""
    machines = measured.get(_kind(job))
    if not machines:
        return None
    machine = min(machines, key=machines.__getitem__)
    return job.epochs * machines[machine] / 3600, machine


def together(hours_of_jobs: Iterable[float], slots: int) -> float:
    """Hours until the last of the jobs ends on `slots` machines, the longest begun first."""
    ends = [0.0] * slots
    for each in sorted(hours_of_jobs, reverse=True):
        heapq.heappush(ends, heapq.heappop(ends) + each)
    return max(ends)


def _kind(job: Job) -> tuple:
    return tuple(getattr(job, name) for name in ALIKE)


def _machine(run: Run) -> str | None:
    """The GPU's name, and whether steps were recorded there; or the processor's with the threads that were used."""
    record = run.environment()
    if record is None or record.device is None:
        return None
    if record.device != "cpu":
        return f"{record.device}, recorded steps" if record.cuda_graph else record.device
    threads = "1 thread" if record.threads == 1 else f"{record.threads} threads"
    return f"{record.machine.processor}, {threads}"
