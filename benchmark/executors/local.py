"""This machine: one process a job, a slot per GPU or per group of cores.

What the machine did to a job (killed it, took its memory or its device, left it hanging) is repeated, after a pause
that grows. What the job did (a result, divergence, bad input, a crash of the code) is an outcome and never repeated.
"""

import math
import os
import re
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path

from benchmark.errors import UserError
from benchmark.executors import launch
from benchmark.executors.outcome import (
    ALREADY_CLAIMED,
    OUT_OF_TIME,
    Again,
    HeldElsewhere,
    How,
    Outcome,
    Told,
    View,
    final,
    held_elsewhere,
    recorded,
)
from benchmark.executors.patience import Patience
from benchmark.store.run import Run

POLL_SECONDS = 0.2
VIEW_SECONDS = 0.5
GRACE_SECONDS = 10.0
ATTEMPTS = 4  # of one job, counted from its last finished epoch
BACKOFF_SECONDS = 2.0  # before the second attempt; four times as long before each later one
RUN_JOB = (sys.executable, "-m", "benchmark", "run-job")


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
class Worker:
    """A process that makes an attempt at a job."""

    slot: int
    process: subprocess.Popen
    started: float  # like all times here, on the clock that nobody sets
    epochs: int  # finished when it started
    progress: int | None  # when progress.json was changed, by the file system's clock: only compared with itself
    heard: float  # when that was last seen to change
    stopped: Outcome | None = None  # by the scheduler, and why
    kill_at: float = math.inf


@dataclass(eq=False)
class Scheduled:
    """A job on its way to an outcome: it waits (no worker, no outcome), is active (a worker), or has ended."""

    run: Run
    patience: Patience  # with what another host may hold
    attempts: int = 0
    not_before: float = 0.0
    alone_on: str = ""  # the place that it is to have to itself, having run out of memory
    why: Again | HeldElsewhere | None = None  # it waits, where that is not for a slot
    worker: Worker | None = None
    outcome: Outcome | None = None

    @property
    def waits(self) -> bool:
        return self.worker is None and self.outcome is None


def make_slots(
    num_jobs: int, workers: int | None, gpus: tuple[str, ...], jobs_per_gpu: int = 1, ranks: int = 1
) -> Slots:
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


# Of a process that sees what a worker will see: numbers as nvidia-smi's.
COUNT_GPUS = (
    sys.executable, "-c",
    "import torch; print('GPUs:', torch.cuda.device_count() if torch.cuda.is_available() else 0, torch.__version__)",
)  # fmt: skip
BY_SLOT = {"CUDA_DEVICE_ORDER": "PCI_BUS_ID"}  # as a person and nvidia-smi number them; CUDA begins with the fastest


def find_gpus(device: str, named: str | None) -> tuple[str, ...]:
    """The GPUs to run on; none: the CPU. Decided here for all workers, by what is seen and by what torch can use.

    UserError where a GPU is there that torch cannot use, or `device` is cuda and there is none.
    """
    if device == "cpu":
        return ()
    gpus = named_gpus(named) if named is not None else visible_gpus()
    # CUDA can be there without nvidia-smi.
    unseen = not gpus and "CUDA_VISIBLE_DEVICES" not in os.environ and torch_has_cuda()
    usable, said = _usable_gpus(gpus) if gpus or unseen else (0, "")
    gpus = tuple(map(str, range(usable))) if unseen else gpus
    if usable < len(gpus):
        shown = f"GPU {', '.join(gpus)} {'is' if len(gpus) == 1 else 'are'} here, but torch can use {usable or 'none'}"
        raise UserError(
            f"{shown} ({said}); install a torch that fits the driver, name others with --gpus, or --device cpu"
        )
    if device == "cuda" and not gpus:
        raise UserError("--device cuda: torch sees no CUDA device; --device cpu runs without")
    return gpus


def torch_has_cuda() -> bool:
    """Whether the installed torch was built with CUDA, without importing it."""
    found = find_spec("torch")
    if found is None or found.origin is None:
        return False
    version = Path(found.origin).with_name("version.py")
    return not version.exists() or re.search(r"^cuda\b.*= None$", version.read_text(), re.MULTILINE) is None


def _usable_gpus(gpus: tuple[str, ...]) -> tuple[int, str]:
    """How many of them torch can use (of all, where none is named), and what it says about it."""
    seen = {"CUDA_VISIBLE_DEVICES": ",".join(gpus)} if gpus else {}
    try:
        asked = subprocess.run(
            COUNT_GPUS, capture_output=True, text=True, timeout=300, env=os.environ | BY_SLOT | seen
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError) as error:
        return 0, str(error)
    found = re.search(r"^GPUs: (\d+) (.*)$", asked.stdout, re.MULTILINE)
    told = [line.strip() for line in asked.stderr.splitlines() if line.strip()]
    if found is None:
        return 0, told[-1] if told else "it cannot be imported"
    warned = [line.partition("UserWarning: ")[2] for line in told if "UserWarning: " in line]
    return int(found[1]), f"torch {found[2]}" + "".join(f": {line}" for line in warned[:1])


def named_gpus(text: str) -> tuple[str, ...]:
    """`0,1` as GPUs. UserError for one that is named twice, or that is not this machine's or not this session's."""
    named, visible = tuple(part.strip() for part in text.split(",")), visible_gpus()
    for gpu in named:
        if named.count(gpu) > 1:
            raise UserError(f"--gpus {text}: GPU {gpu} twice; --jobs-per-gpu runs several jobs on one")
        if gpu not in visible:
            shown = f"only {', '.join(visible)}" if visible else "no GPU"
            raise UserError(f"--gpus {text}: no GPU '{gpu}' here; nvidia-smi and CUDA_VISIBLE_DEVICES show {shown}")
    return named


def execute(runs: list[Run], arguments: list[str], slots: Slots, view: View) -> dict[str, Outcome]:
    """Run every job of `runs` that has no outcome yet; its id and how it ended. Jobs that another scheduler runs are
    waited for. On KeyboardInterrupt the workers are asked to stop, and killed after a grace period. The
    jobs themselves keep to the deadline.
    """
    jobs = [Scheduled(run, Patience(run)) for run in runs if run.state() != "done"]
    next_view = 0.0
    try:
        while any(job.outcome is None for job in jobs):
            for job, worker in [(job, job.worker) for job in jobs if job.worker]:
                if _has_ended(job.run, worker, slots):
                    _end_attempt(job, worker, slots)
                    _queue_again(job, jobs)
            if time.time() >= slots.deadline:
                _give_up_waiting(jobs)
            _start_workers(jobs, arguments, slots)
            if (now := time.monotonic()) >= next_view:
                view(runs, _told(jobs))
                next_view = time.monotonic() + max(VIEW_SECONDS, 10 * (time.monotonic() - now))  # 10,000 jobs take long
            time.sleep(POLL_SECONDS)
    finally:
        _stop([job.worker for job in jobs if job.worker])
    view(runs, _told(jobs))
    return {job.run.id: job.outcome for job in jobs if job.outcome}


def _told(jobs: list[Scheduled]) -> Told:
    return {job.run.id: told for job in jobs if (told := job.outcome or job.why)}


def _end_attempt(job: Scheduled, worker: Worker, slots: Slots) -> None:
    """Active -> ended, or waiting again."""
    was_alone = job.alone_on
    job.worker, job.alone_on = None, ""
    outcome = _how_it_ended(job.run, worker)
    text = outcome.briefly() if outcome else "another process has it"
    _log(job.run, f"{text}, after {time.monotonic() - worker.started:.0f} s")
    if len(job.run.metrics()) > worker.epochs:
        job.attempts = 1  # it gets on, if slowly
    if outcome is None:
        job.attempts -= 1
        job.patience.turned_away()
        return
    job.patience = Patience(job.run)
    if outcome.kind == "out_of_memory" and not was_alone:
        job.alone_on = slots.place(worker.slot)
        job.why = Again(outcome, alone_on=job.alone_on)
    elif outcome.by_the_machine and job.attempts < ATTEMPTS:
        pause = BACKOFF_SECONDS * 4 ** (job.attempts - 1)
        job.not_before = time.monotonic() + pause
        job.why = Again(outcome, seconds=pause)
    else:
        job.outcome = replace(outcome, attempts=job.attempts) if outcome.by_the_machine else outcome


def _queue_again(job: Scheduled, jobs: list[Scheduled]) -> None:
    """The job is the last to be started, but that those that must be alone come first."""
    jobs.remove(job)
    jobs.append(job)
    jobs.sort(key=lambda each: not each.alone_on)


def _give_up_waiting(jobs: list[Scheduled]) -> None:
    """Waiting -> ended."""
    for job in jobs:
        if job.waits:
            job.outcome = Outcome(How.BUDGET_USED)


def _start_workers(jobs: list[Scheduled], arguments: list[str], slots: Slots) -> None:
    """Waiting -> active, as far as there are slots; or ended, by another scheduler."""
    active = {job.worker.slot for job in jobs if job.worker}
    alone = {job.alone_on: job for job in reversed(jobs) if job.alone_on and not job.outcome}  # the first on each place
    for job in [job for job in jobs if job.waits]:
        if len(active) == slots.workers:
            break
        if time.monotonic() < job.not_before:
            continue
        slot = _free_slot(job, slots, active, alone)
        if slot is None:
            continue
        state = job.run.state()
        if outcome := final(job.run, state):
            job.outcome = outcome
        elif state == "running" or not job.patience.over():
            job.why = held_elsewhere(job.run)
        else:
            job.attempts += 1
            job.why, job.worker = None, _start(job.run, arguments, slots, slot, job.attempts)
            active.add(slot)


def _free_slot(job: Scheduled, slots: Slots, active: set[int], alone: dict[str, Scheduled]) -> int | None:
    """A slot for the job. One that must be alone waits until its place is empty, and others keep off that place."""
    busy = {slots.place(slot) for slot in active}
    for slot in range(slots.workers):
        place = slots.place(slot)
        if slot in active or (place in alone and (alone[place] is not job or place in busy)):
            continue
        if job.alone_on in ("", place):
            return slot
    return None


def _start(run: Run, arguments: list[str], slots: Slots, slot: int, number: int) -> Worker:
    environment = launch.environment(slots.threads)
    if slots.gpus:
        environment |= BY_SLOT | {"CUDA_VISIBLE_DEVICES": slots.gpus_of(slot)}
    command = [*RUN_JOB, str(run.folder), "--threads", str(slots.threads), *arguments]
    _log(run, f"attempt {number} on {slots.place(slot)}")
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
    return Worker(slot, process, now, len(run.metrics()), _progress(run), now)


def _has_ended(run: Run, worker: Worker, slots: Slots) -> bool:
    """Whether the worker is gone, with all that it started; ends one that takes too long or hangs."""
    now, progress = time.monotonic(), _progress(run)
    if progress != worker.progress:
        worker.progress, worker.heard = progress, now
    if worker.process.poll() is not None:
        _signal(worker, signal.SIGKILL)
        return True
    if not worker.stopped and slots.timeout is not None and now - worker.started > slots.timeout:
        worker.stopped, worker.kill_at = Outcome(How.TIMED_OUT, seconds=slots.timeout), now + GRACE_SECONDS
        _signal(worker, signal.SIGTERM)
    elif not worker.stopped and now - worker.heard > slots.hang_timeout:
        worker.stopped, worker.kill_at = Outcome(How.HUNG, seconds=slots.hang_timeout), now
    if now >= worker.kill_at:
        _signal(worker, signal.SIGKILL)
    return False


def _how_it_ended(run: Run, worker: Worker) -> Outcome | None:
    """How the attempt ended; None where another process has the run."""
    code, state = worker.process.returncode, run.state()
    if outcome := final(run, state):
        return outcome
    if code == OUT_OF_TIME:
        return Outcome(How.BUDGET_USED)
    if worker.stopped:
        return worker.stopped
    # run-job ends so on SIGTERM, its checkpoint written, and where one of its ranks was killed.
    if code < 0 or code in (128 + signal.SIGTERM, 128 + signal.SIGKILL):
        return Outcome(How.KILLED, signal=-code if code < 0 else code - 128)
    if code == ALREADY_CLAIMED:
        return None
    return recorded(run, state) or Outcome(How.NO_RECORD, status=code, log=run.path("log.txt"))


def _progress(run: Run) -> int | None:
    try:
        return run.path("progress.json").stat().st_mtime_ns
    except OSError:
        return None


def _log(run: Run, text: str) -> None:
    with suppress(OSError), open(run.path("log.txt"), "a", encoding="utf-8") as log:  # a full disk stops no scheduler
        print(f"--- {time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime())} {text}", file=log)


def _signal(worker: Worker, number: int) -> None:
    with suppress(ProcessLookupError, PermissionError):  # PermissionError: macOS, for a group of which all are gone
        os.killpg(worker.process.pid, number)


def stop_here(runs: list[Run]) -> list[str]:
    """End the processes of this machine that run them, and the commands that would start these again; a line for each.
    Claims are released and checkpoints kept; what does not end in time is left alone and said."""
    holders = [(run, run.holder()) for run in runs if run.state() == "running"]
    held = [(run, holder.pid) for run, holder in holders if holder and holder.is_here]
    told = {}
    for pid in dict.fromkeys(_beginner(pid) for _, pid in held):
        try:
            os.kill(pid, signal.SIGTERM)
        except OSError as error:
            told[pid] = f"process {pid} cannot be stopped ({error.strerror})"
    deadline = time.monotonic() + 2 * GRACE_SECONDS
    while time.monotonic() < deadline and any(run.state() == "running" for run, _ in held):
        time.sleep(POLL_SECONDS)
    for run, pid in held:
        ended = "still runs" if run.state() == "running" else "stopped"
        told[pid] = f"{run.id}: process {pid} {ended}"
    return list(told.values())


def _beginner(pid: int) -> int:
    """The command of this suite that began it all: the scheduler, or the worker itself where that is gone."""
    found = pid
    with suppress(OSError, ValueError):
        while pid > 1:
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            if b"benchmark" in words and {b"run", b"run-job"} & {*words}:
                found = pid
            pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    return found


def _stop(workers: list[Worker]) -> None:
    """End whole process groups: politely first, so that claims are released."""
    for worker in workers:
        _signal(worker, signal.SIGTERM)
    deadline = time.monotonic() + GRACE_SECONDS
    while time.monotonic() < deadline and any(worker.process.poll() is None for worker in workers):
        time.sleep(0.05)
    for worker in workers:
        _signal(worker, signal.SIGKILL)
        worker.process.wait()
