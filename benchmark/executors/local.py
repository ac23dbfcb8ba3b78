"""This machine: one process a job, a slot per GPU or per group of cores.

What the machine did to a job (killed it, took its memory or its device, left it hanging) is repeated, after a pause
that grows. What the job did (a result, divergence, bad input, a crash of the code) is an outcome and never repeated.
"""

import math
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from benchmark.errors import UserError
from benchmark.store.run import Run

POLL_SECONDS = 0.2
VIEW_SECONDS = 0.5
GRACE_SECONDS = 10.0
ATTEMPTS = 4  # of one job, counted from its last finished epoch
BACKOFF_SECONDS = 2.0  # before the second attempt; four times as long before each later one
ALREADY_CLAIMED = 3  # run-job's exit status when another process holds the run
OUT_OF_TIME = 4  # ... when its time was up
BUDGET_USED = "budget used"
FINAL = ("done", "failed", "diverged")
RUN_JOB = (sys.executable, "-m", "benchmark", "run-job")

View = Callable[[list[Run], dict[str, str]], None]


@dataclass(frozen=True)
class Slots:
    """How many jobs run at once, the CPU threads of each, and the GPUs that they take turns on (none: the CPU), so many
    together as a job has ranks.

    `timeout`: seconds that one attempt may take; `hang_timeout`: that it may train without saying how far it is;
    `deadline`: seconds since the epoch after which nothing is begun or waited for.
    """

    workers: int
    threads: int
    gpus: tuple[str, ...] = ()
    ranks: int = 1
    timeout: float | None = None
    hang_timeout: float = 1800.0
    deadline: float = math.inf

    def gpus_of(self, slot: int) -> str:
        """The GPUs of a slot's jobs, as many as they have ranks."""
        first = slot % (len(self.gpus) // self.ranks) * self.ranks
        return ",".join(self.gpus[first : first + self.ranks])

    def place(self, slot: int) -> str:
        """What the jobs of a slot share memory on."""
        return f"GPU {self.gpus_of(slot)}" if self.gpus else "CPU"


@dataclass
class Attempt:
    """A worker that runs."""

    run: Run
    process: subprocess.Popen
    started: float  # like all times here, on the clock that nobody sets
    epochs: int  # finished when it started
    progress: int | None  # when progress.json was changed, by the file system's clock: only compared with itself
    heard: float  # when that was last seen to change
    ended_because: str = ""
    kill_at: float = float("inf")


def slots(num_jobs: int, workers: int | None, gpus: tuple[str, ...], jobs_per_gpu: int = 1, ranks: int = 1) -> Slots:
    """`jobs_per_gpu` workers per GPU, or per `ranks` GPUs; without a GPU one per core, and the cores shared where jobs
    are fewer. UserError where the GPUs are fewer than the ranks."""
    if 0 < len(gpus) < ranks:
        raise UserError(f"a job of ranks={ranks} needs a GPU each, here are {len(gpus)}; --device cpu runs it without")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    at_once = len(gpus) // ranks * jobs_per_gpu or max(1, cores // ranks)
    workers = workers or max(1, min(num_jobs, at_once))
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


def named_gpus(text: str) -> tuple[str, ...]:
    """`0,1` as GPUs. UserError for one that is named twice, or that is not this machine's or not this session's."""
    named, visible = tuple(part.strip() for part in text.split(",")), visible_gpus()
    for gpu in named:
        if named.count(gpu) > 1:
            raise UserError(f"--gpus {text}: GPU {gpu} twice; --jobs-per-gpu runs several jobs on one")
        if gpu not in visible:
            found = f"only {', '.join(visible)}" if visible else "no GPU"
            raise UserError(f"--gpus {text}: no GPU '{gpu}' here; nvidia-smi and CUDA_VISIBLE_DEVICES show {found}")
    return named


def execute(runs: list[Run], arguments: list[str], where: Slots, view: View) -> dict[str, str]:
    """Run every job of `runs` that has no outcome yet; its id and how it ended. Jobs that another scheduler runs are
    waited for. On KeyboardInterrupt the workers are asked to stop, and killed after a grace period. The
    jobs themselves keep to the deadline.
    """
    waiting = [run for run in runs if run.state() != "done"]
    outcome: dict[str, str] = {}
    retrying: dict[str, str] = {}  # why a job waits for its next attempt
    attempts: Counter[str] = Counter()
    not_before: dict[str, float] = {}
    alone: dict[str, str] = {}  # jobs that ran out of memory, and the place that they are to have to themselves
    active: dict[int, Attempt] = {}
    next_view = 0.0
    try:
        while waiting or active:
            for slot, attempt in list(active.items()):
                if not _has_ended(attempt, where):
                    continue
                del active[slot]
                run, was_alone = attempt.run, alone.pop(attempt.run.id, None)
                kind, text = _how_it_ended(attempt, where)
                _log(run, f"{text}, after {time.monotonic() - attempt.started:.0f} s")
                if len(run.metrics()) > attempt.epochs:
                    attempts[run.id] = 1  # it gets on, if slowly
                if kind == "claimed":
                    attempts[run.id] -= 1
                    waiting.append(run)
                elif kind == "out_of_memory" and not was_alone:
                    alone[run.id] = where.place(slot)
                    retrying[run.id] = f"{text}; again, alone on {where.place(slot)}"
                    waiting.insert(0, run)
                elif kind == "spoiled" and attempts[run.id] < ATTEMPTS:
                    pause = BACKOFF_SECONDS * 4 ** (attempts[run.id] - 1)
                    not_before[run.id] = time.monotonic() + pause
                    retrying[run.id] = f"{text}; again in {pause:g} s"
                    waiting.append(run)
                else:
                    again = f", {attempts[run.id]} times; call again to resume" if kind == "spoiled" else ""
                    outcome[run.id] = text + again
            if time.time() >= where.deadline:
                outcome |= {run.id: BUDGET_USED for run in waiting}
                waiting = []
            for run in list(waiting):
                if len(active) == where.workers:
                    break
                if time.monotonic() < not_before.get(run.id, 0.0):
                    continue
                slot = _free_slot(run, where, active, alone)
                if slot is None:
                    continue
                state = run.state()
                if state in ("done", "diverged"):
                    outcome[run.id] = state
                    waiting.remove(run)
                elif state != "running":  # one that runs elsewhere is looked at again
                    attempts[run.id] += 1
                    active[slot] = _start(run, arguments, where, slot, attempts[run.id])
                    retrying.pop(run.id, None)
                    waiting.remove(run)
            if (now := time.monotonic()) >= next_view:
                view(runs, retrying | outcome)
                next_view = time.monotonic() + max(VIEW_SECONDS, 10 * (time.monotonic() - now))  # 10,000 jobs take long
            time.sleep(POLL_SECONDS)
    finally:
        _stop(list(active.values()))
    view(runs, outcome)
    return outcome


def _free_slot(run: Run, where: Slots, active: dict[int, Attempt], alone: dict[str, str]) -> int | None:
    """A slot for `run`. One that must be alone waits until its place is empty, and others keep off that place."""
    busy = {where.place(slot) for slot in active}
    first_alone = {place: job for job, place in reversed(alone.items())}
    for slot in range(where.workers):
        place = where.place(slot)
        if slot in active or (place in first_alone and (first_alone[place] != run.id or place in busy)):
            continue
        if alone.get(run.id, place) == place:
            return slot
    return None


def _start(run: Run, arguments: list[str], where: Slots, slot: int, number: int) -> Attempt:
    environment = os.environ | {
        "OMP_NUM_THREADS": str(where.threads),
        "MKL_NUM_THREADS": str(where.threads),
        "PYTHONUNBUFFERED": "1",
    }
    if where.gpus:
        # By default CUDA numbers the fastest GPU first; nvidia-smi, and so a person, numbers them by their slot.
        environment["CUDA_DEVICE_ORDER"] = "PCI_BUS_ID"
        environment["CUDA_VISIBLE_DEVICES"] = where.gpus_of(slot)
    command = [*RUN_JOB, str(run.folder), "--threads", str(where.threads), *arguments]
    _log(run, f"attempt {number} on {where.place(slot)}")
    try:
        with open(run.path("log.txt"), "ab") as log:
            # A session of its own, so that a Ctrl-C at the terminal reaches the scheduler alone, which then ends the
            # group.
            process = subprocess.Popen(
                command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, env=environment, start_new_session=True,
                cwd=Path.cwd(),
            )  # fmt: skip
    except OSError as error:
        raise UserError(f"{run.path('log.txt')}: no worker can be started ({error.strerror})") from None
    now = time.monotonic()
    return Attempt(run, process, now, len(run.metrics()), _progress(run), now)


def _has_ended(attempt: Attempt, where: Slots) -> bool:
    """Whether the worker is gone, with all that it started; ends one that takes too long or hangs."""
    now, progress = time.monotonic(), _progress(attempt.run)
    if progress != attempt.progress:
        attempt.progress, attempt.heard = progress, now
    if attempt.process.poll() is not None:
        _signal(attempt, signal.SIGKILL)
        return True
    if not attempt.ended_because and where.timeout is not None and now - attempt.started > where.timeout:
        attempt.ended_because, attempt.kill_at = "timeout", now + GRACE_SECONDS
        _signal(attempt, signal.SIGTERM)
    elif not attempt.ended_because and now - attempt.heard > where.hang_timeout:
        attempt.ended_because, attempt.kill_at = "hang", now
    if now >= attempt.kill_at:
        _signal(attempt, signal.SIGKILL)
    return False


def _how_it_ended(attempt: Attempt, where: Slots) -> tuple[str, str]:
    """`final`, `claimed` (another process has the run), `out_of_memory`, or `spoiled` by the machine otherwise; and
    what to tell."""
    run, code = attempt.run, attempt.process.returncode
    state = run.state()
    if state in ("done", "diverged"):
        return "final", state
    if code == OUT_OF_TIME:
        return "final", BUDGET_USED
    if attempt.ended_because == "timeout":
        return "final", f"stopped after --timeout {where.timeout:g} s; call again to resume"
    if attempt.ended_because == "hang":
        return "spoiled", f"hung: no progress for {where.hang_timeout:g} s, killed"
    # run-job ends so on SIGTERM, its checkpoint written, and where one of its ranks was killed.
    if code < 0 or code in (128 + signal.SIGTERM, 128 + signal.SIGKILL):
        number = -code if code < 0 else code - 128
        name = next((s.name for s in signal.Signals if s == number), "real-time")
        return "spoiled", f"killed by signal {number} ({name})"
    if code == ALREADY_CLAIMED:
        return "claimed", "another process has it"
    if state == "failed":
        kind = failure_kind(run)
        return {"lost_device": "spoiled"}.get(kind, kind if kind == "out_of_memory" else "final"), "failed"
    return "final", f"ended with status {code} and no record; see {run.path('log.txt')}"


def failure_kind(run: Run) -> str:
    """As the training writes it; empty where the record cannot be read."""
    with suppress(UserError):
        return failure.kind if (failure := run.failure()) else ""
    return ""


def _progress(run: Run) -> int | None:
    try:
        return run.path("progress.json").stat().st_mtime_ns
    except OSError:
        return None


def _log(run: Run, text: str) -> None:
    with suppress(OSError), open(run.path("log.txt"), "a", encoding="utf-8") as log:  # a full disk stops no scheduler
        print(f"--- {time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime())} {text}", file=log)


def _signal(attempt: Attempt, number: int) -> None:
    with suppress(ProcessLookupError, PermissionError):  # PermissionError: macOS, for a group of which all are gone
        os.killpg(attempt.process.pid, number)


def _stop(attempts: list[Attempt]) -> None:
    """End whole process groups: politely first, so that claims are released."""
    for attempt in attempts:
        _signal(attempt, signal.SIGTERM)
    deadline = time.monotonic() + GRACE_SECONDS
    while time.monotonic() < deadline and any(a.process.poll() is None for a in attempts):
        time.sleep(0.05)
    for attempt in attempts:
        _signal(attempt, signal.SIGKILL)
        attempt.process.wait()
