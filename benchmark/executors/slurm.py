"""A SLURM cluster, through submitit: a job array. SLURM goes on without the command that submitted it, so this only
watches the run folders and may be stopped at any time; a later one finds in slurm.json what is in the queue already.

submitit hands a job over as a pickle in runs/<scale>/.slurm, which the job loads: whoever may write there may run code
as the user."""

import fcntl
import io
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from contextlib import redirect_stderr
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from benchmark.errors import UserError
from benchmark.executors import launch
from benchmark.executors.outcome import ALREADY_CLAIMED, How, Outcome, View, final, held_elsewhere, recorded
from benchmark.executors.patience import Patience
from benchmark.matrix.job import Int, Positive
from benchmark.store.records import Submission
from benchmark.store.run import Run

POLL_SECONDS = 0.5
QUEUE_SECONDS = 5.0  # between two looks at the queue, which all of a cluster's users share
GONE_AFTER = 3  # looks that do not find a job: its last records have then reached this machine's file system
MAX_TIMEOUTS = 1000  # time limits that a run may need; each one starts from the last checkpoint
STOPPED = (-signal.SIGTERM, 128 + signal.SIGTERM)  # how a run ends on SIGTERM


class Settings(BaseModel):
    """What `run --executor slurm --settings FILE` reads."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    time_limit: Positive = 60  # minutes; a run that needs more is requeued and goes on from its checkpoint
    notice: Positive = 90  # seconds before the limit at which it is stopped for that
    partition: str | None = None
    cpus: Positive = 1  # for each rank of a job
    gpus: Annotated[Int, Field(ge=0)] = 0  # for each rank
    memory_gb: Positive | None = None  # for each job
    at_once: Positive = 256  # jobs of the array
    setup: tuple[str, ...] = ()  # lines of shell before the job starts, such as `module load cuda`
    sbatch: dict[str, str | int] = {}  # any other option of sbatch: {account: vision, qos: low}
    cluster: Literal["slurm", "local"] = "slurm"  # local: submitit's stand-in on this machine, to try a file


@dataclass
class Task:
    """What a SLURM job does with a run folder. submitit pickles it, and calls `checkpoint` before the time limit and
    on preemption."""

    arguments: list[str]
    threads: int
    cwd: str
    hide_gpus: bool
    process: subprocess.Popen | None = None

    def __call__(self, folder: str) -> None:
        run = Run(Path(self.cwd, folder))
        status, patience = self._run(folder), Patience(run)
        while status == ALREADY_CLAIMED and run.state() != "done":
            patience.turned_away()  # a node that died has left its claim, which turns stale after a while
            while (state := run.state()) == "running" or (state != "done" and not patience.over()):
                time.sleep(POLL_SECONDS)
            status = self._run(folder)
        if status in STOPPED:
            # SLURM has signalled the whole job, to end or to requeue it: to return now would count as success.
            time.sleep(120)
        if status not in (0, ALREADY_CLAIMED):
            raise RuntimeError(f"run-job ended with status {status}; see {folder}/log.txt")

    def _run(self, folder: str) -> int:
        # SIGUSR2 announces the time limit to this process, which then stops the run.
        self.process = launch.start(
            folder, self.arguments, self.threads, self.cwd, self.hide_gpus, ignored=(signal.SIGUSR2,)
        )
        while self.process.poll() is None:
            time.sleep(0.2)
        return self.process.returncode

    def checkpoint(self, folder: str) -> Any:
        """The run is stopped; what to do when SLURM starts the job again."""
        from submitit.helpers import DelayedSubmission

        if self.process:
            launch.end(self.process)
        return DelayedSubmission(replace(self, process=None), folder)


@dataclass(eq=False)
class Watched:
    """A run until it has an outcome."""

    run: Run
    queue_id: str | None  # SLURM's; None where another executor runs it
    missed: int = 0  # looks at the queue, one after the other, that did not find it


def execute(runs: list[Run], arguments: list[str], settings: Settings, view: View) -> dict[str, Outcome]:
    """As local's, but that stopping this stops no job."""
    if not runs:
        return {}
    outcomes: dict[str, Outcome] = {}
    left = [run for run in runs if run.state() != "done"]
    ids = _submit_what_is_not_queued(left, arguments, settings)
    jobs = [Watched(run, ids.get(run.id)) for run in left]
    next_look = 0.0
    try:
        while jobs:
            queued = None
            if time.monotonic() >= next_look:
                queued = _queued(settings, [job.queue_id for job in jobs if job.queue_id])
                next_look = time.monotonic() + (QUEUE_SECONDS if settings.cluster == "slurm" else POLL_SECONDS)
            for job in jobs:
                outcome = _look(job, queued, arguments, settings)
                outcomes |= {job.run.id: outcome} if outcome else {}
            jobs = [job for job in jobs if job.run.id not in outcomes]
            elsewhere = {job.run.id: holder for job in jobs if not job.queue_id and (holder := held_elsewhere(job.run))}
            view(runs, {**elsewhere, **outcomes})
            time.sleep(POLL_SECONDS)
    except KeyboardInterrupt:
        arrays = ", ".join(sorted({job.queue_id.split("_")[0] for job in jobs if job.queue_id}))
        print(f"\nSLURM goes on with job {arrays}; 'scancel {arrays.replace(',', '')}' would end it", file=sys.stderr)
        raise
    view(runs, outcomes)
    return outcomes


def _look(job: Watched, queued: set[str] | None, arguments: list[str], settings: Settings) -> Outcome | None:
    """The outcome, once there is one; a run that another executor has let go of is submitted. `queued`: None where the
    queue was not looked at, or did not answer."""
    state = job.run.state()
    if queued is not None:
        job.missed = 0 if job.queue_id in queued or state == "running" else job.missed + 1
    if (outcome := final(job.run, state)) or job.missed < GONE_AFTER:
        return outcome
    if job.queue_id:
        gone = Outcome(How.GONE_FROM_SLURM, queue_id=job.queue_id, log=job.run.path("log.txt"))
        return recorded(job.run, state) or gone
    job.queue_id = _submit_what_is_not_queued([job.run], arguments, settings).get(job.run.id)
    job.missed = 0
    return None


def _submit_what_is_not_queued(runs: list[Run], arguments: list[str], settings: Settings) -> dict[str, str]:
    """SLURM's id of each run, a new one where it has none in the queue; none where another executor runs it."""
    if not runs:
        return {}
    folder = runs[0].folder.parent / ".slurm"
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "lock", "w") as lock:  # two commands would submit the same
        fcntl.flock(lock, fcntl.LOCK_EX)
        known = {run.id: submission.id for run in runs if (submission := run.submission())}
        queued = _queued(settings, known.values())
        if queued is None:
            raise UserError("--executor slurm: squeue does not answer; is SLURM up, and is this a host of it?")
        ids = {run_id: job_id for run_id, job_id in known.items() if job_id in queued}
        new = [run for run in runs if run.id not in ids and run.state() not in ("done", "diverged", "running")]
        for ranks in sorted({launch.ranks(run) for run in new}):
            array = [run for run in new if launch.ranks(run) == ranks]
            task = Task(arguments, settings.cpus * ranks, os.getcwd(), settings.gpus == 0)
            for run, job in zip(array, _map_array(folder, task, array, settings, ranks), strict=True):
                run.write(Submission(id=job.job_id, submitted=time.time()))
                ids[run.id] = job.job_id
    return ids


def _map_array(folder: Path, task: Task, runs: list[Run], settings: Settings, ranks: int) -> list[Any]:
    try:
        import submitit
    except ImportError:
        raise UserError("--executor slurm: submitit is not installed; pip install .[slurm]") from None
    try:
        executor = submitit.AutoExecutor(
            folder=folder.absolute() / "%j", cluster=settings.cluster, slurm_max_num_timeout=MAX_TIMEOUTS
        )
    except RuntimeError:
        raise UserError("--executor slurm: no srun is found; call on a host from which jobs are submitted") from None
    executor.update_parameters(
        name="benchmark",
        timeout_min=settings.time_limit,
        cpus_per_task=settings.cpus * ranks,
        gpus_per_node=settings.gpus * ranks or None,
        mem_gb=settings.memory_gb,
        stderr_to_stdout=True,
        slurm_partition=settings.partition,
        slurm_signal_delay_s=settings.notice,
        slurm_array_parallelism=settings.at_once,
        slurm_setup=list(settings.setup),
        slurm_srun_args=[f"--cpus-per-task={settings.cpus * ranks}"],  # since SLURM 22.05, srun does not take sbatch's
        slurm_additional_parameters={"requeue": True, **settings.sbatch},
    )
    try:
        with redirect_stderr(io.StringIO()):  # submitit repeats what sbatch says; it is told below
            return executor.map_array(task, [str(run.folder) for run in runs])
    except submitit.core.utils.UncompletedJobError as error:
        said = [line for line in str(error).splitlines() if "sbatch: error" in line] or str(error).splitlines()
        raise UserError(f"--executor slurm: {said[0].strip()}; see the settings") from None


def _queued(settings: Settings, ids: Iterable[str]) -> set[str] | None:
    """Those that pend or run; None where SLURM does not answer."""
    if settings.cluster == "local":  # their ids are those of processes
        return {job_id for job_id in ids if _is_alive(job_id)}
    try:
        command = ["squeue", "--me", "--noheader", "--array", "--format=%i"]
        listed = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return set(listed.stdout.split())


def _is_alive(pid: str) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False
