"""This machine: one process a job, a slot per GPU or per group of cores."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from benchmark.errors import UserError
from benchmark.store import Run

POLL_SECONDS = 0.2
GRACE_SECONDS = 10.0
ALREADY_CLAIMED = 3  # run-job's exit status when another process holds the run
FINAL = ("done", "failed", "diverged")

View = Callable[[list[Run], dict[str, str]], None]


@dataclass(frozen=True)
class Slots:
    """How many jobs run at once, the CPU threads of each, and the GPUs that they take turns on (none: the CPU), so
    many together as a job has ranks."""

    workers: int
    threads: int
    gpus: tuple[str, ...] = ()
    ranks: int = 1

    def gpus_of(self, slot: int) -> str:
        first = slot * self.ranks
        return ",".join(self.gpus[i % len(self.gpus)] for i in range(first, first + self.ranks))


def slots(num_jobs: int, workers: int | None, gpus: tuple[str, ...], ranks: int = 1) -> Slots:
    """A worker per GPU, or per `ranks` GPUs; without a GPU one per core, and the cores shared where there are fewer
    jobs than cores."""
    if 0 < len(gpus) < ranks:
        raise UserError(f"a job of ranks={ranks} needs a GPU each, here are {len(gpus)}; --device cpu runs it without")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    workers = workers or max(1, min(num_jobs, (len(gpus) or cores) // ranks))
    return Slots(workers, max(1, cores // workers), gpus, ranks)


def visible_gpus() -> tuple[str, ...]:
    """Numbers of NVIDIA's GPUs, found without importing torch."""
    if "CUDA_VISIBLE_DEVICES" in os.environ:
        return tuple(g for g in os.environ["CUDA_VISIBLE_DEVICES"].split(",") if g.strip() not in ("", "-1"))
    try:
        listed = subprocess.run(["nvidia-smi", "--list-gpus"], capture_output=True, text=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError):
        return ()
    return tuple(str(i) for i, line in enumerate(listed.stdout.splitlines()) if line.startswith("GPU "))


def execute(runs: list[Run], arguments: list[str], where: Slots, view: View) -> dict[str, str]:
    """Run every job of `runs` that has no outcome yet; its id and how it ended. Jobs that another scheduler runs are
    waited for. On KeyboardInterrupt the workers are asked to stop, and killed after a grace period.
    """
    waiting = [run for run in runs if run.state() != "done"]
    outcome: dict[str, str] = {}
    active: dict[int, tuple[subprocess.Popen, Run]] = {}
    try:
        while waiting or active:
            for slot, (process, run) in list(active.items()):
                if process.poll() is not None:
                    del active[slot]
                    if process.returncode == ALREADY_CLAIMED:
                        waiting.append(run)
                    else:
                        outcome[run.id] = _outcome(run, process.returncode)
            for run in list(waiting):
                slot = next((s for s in range(where.workers) if s not in active), None)
                if slot is None:
                    break
                state = run.state()
                if state == "done" or (state == "diverged"):
                    outcome[run.id] = state
                    waiting.remove(run)
                elif state != "running":  # one that runs elsewhere is looked at again
                    active[slot] = (_start(run, arguments, where, slot), run)
                    waiting.remove(run)
            view(runs, outcome)
            time.sleep(POLL_SECONDS)
    finally:
        _stop([process for process, _ in active.values()])
    view(runs, outcome)
    return outcome


def _start(run: Run, arguments: list[str], where: Slots, slot: int) -> subprocess.Popen:
    environment = os.environ | {
        "OMP_NUM_THREADS": str(where.threads),
        "MKL_NUM_THREADS": str(where.threads),
        "PYTHONUNBUFFERED": "1",
    }
    if where.gpus:
        environment["CUDA_VISIBLE_DEVICES"] = where.gpus_of(slot)
    command = [sys.executable, "-m", "benchmark", "run-job", str(run.folder), "--threads", str(where.threads)]
    with open(run.path("log.txt"), "ab") as log:
        # A session of its own, so that a Ctrl-C at the terminal reaches the scheduler alone, which then ends the group.
        return subprocess.Popen(
            [*command, *arguments], stdout=log, stderr=log, stdin=subprocess.DEVNULL, env=environment,
            start_new_session=True, cwd=Path.cwd(),
        )  # fmt: skip


def _outcome(run: Run, returncode: int) -> str:
    state = run.state()
    if returncode < 0 and state not in FINAL:
        return f"killed by signal {-returncode} ({signal.Signals(-returncode).name}); call again to resume"
    return state if state in FINAL else f"ended with status {returncode} and no record; see {run.path('log.txt')}"


def _stop(processes: list[subprocess.Popen]) -> None:
    """End whole process groups: politely first, so that claims are released."""
    for sent in (signal.SIGTERM, signal.SIGKILL):
        for process in processes:
            if process.poll() is None:
                os.killpg(process.pid, sent)
        deadline = time.monotonic() + GRACE_SECONDS
        while time.monotonic() < deadline and any(p.poll() is None for p in processes):
            time.sleep(0.05)
