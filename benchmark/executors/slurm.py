"""A SLURM cluster, through submitit: a job array. SLURM goes on without the command that submitted it, so this only
watches the run folders and may be stopped at any time; a later one finds in slurm.json what is in the queue already.

submitit hands a job over as a pickle in runs/<scale>/.slurm, which the job loads: whoever may write there may run code
as the user."""

import fcntl
import io
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

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

# Options of sbatch that say what a job is here, and the key of Settings that is meant instead, where there is one.
# A user's would replace the suite's without a word: another `signal`, and no run is requeued at its time limit.
RESERVED = {
    "time": "time_limit", "signal": "notice", "partition": "partition", "array": "at_once",
    "cpus-per-task": "cpus", "cpus-per-gpu": "cpus", "ntasks": "", "ntasks-per-node": "", "ntasks-per-core": "",
    "ntasks-per-socket": "", "ntasks-per-gpu": "", "nodes": "", "use-min-nodes": "",
    "gpus": "gpus", "gpus-per-node": "gpus", "gpus-per-task": "gpus", "gpus-per-socket": "gpus",
    "mem": "memory_gb", "requeue": "", "no-requeue": "", "open-mode": "", "output": "", "error": "", "input": "",
    "job-name": "", "chdir": "", "wrap": "", "wait": "", "parsable": "", "test-only": "", "hold": "",
}  # fmt: skip
# Variables that sbatch takes for options, and above those of the script.
RESERVED_VARIABLES = {
    f"SBATCH_{name}"
    for name in ("ARRAY_INX", "ERROR", "INPUT", "JOB_NAME", "NO_REQUEUE", "OPEN_MODE", "OUTPUT", "REQUEUE", "SIGNAL",
                 "TEST_ONLY", "TIMELIMIT", "WAIT")
}  # fmt: skip
CLIENT_VARIABLES = ("SLURM_CONF", "SLURM_CLUSTERS", "SLURM_JWT")  # where the cluster is, in a job as elsewhere


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
    sbatch: dict[str, Any] = {}  # any other option of sbatch: {account: vision, exclusive: true}
    cluster: Literal["slurm", "local"] = "slurm"  # local: submitit's stand-in on this machine, to try a file

    @field_validator("sbatch")
    @classmethod
    def _are_the_users_to_set(cls, options: dict[str, Any]) -> dict[str, Any]:
        """As sbatch spells them. ValueError for one that the suite sets itself, abbreviated or not."""
        spelled: dict[str, Any] = {}
        for key, value in options.items():
            option = key.replace("_", "-")
            if len(option) < 2 or option.startswith("-"):
                raise ValueError(f"'{key}': write an option's long name without dashes before it, such as account")
            # sbatch takes the beginning of a name for the name, where no other begins so.
            if reserved := next((name for name in RESERVED if name.startswith(option)), None):
                meant = f"; set '{RESERVED[reserved]}' beside it" if RESERVED[reserved] else ""
                raise ValueError(f"'{key}' is not free: the suite sets {reserved} itself{meant or '; leave it out'}")
            if not isinstance(value, str | int):  # a bool is one
                raise ValueError(f"'{key}': write text, a number, or true for a flag without a value")
            if option in spelled:
                raise ValueError(f"'{key}' is there twice, with - and with _; leave one out")
            spelled[option] = value
        return spelled

    @model_validator(mode="after")
    def _gpus_are_told(self) -> Self:
        hidden = [name for name, value in self.sbatch.items() if "gpu" in f"{name}={value}" and "gres" in name]
        if hidden and not self.gpus:
            raise ValueError(f"sbatch: '{hidden[0]}' asks for GPUs that jobs of gpus: 0 do not use; set 'gpus' too")
        return self

    @property
    def options(self) -> dict[str, Any]:
        """Of sbatch: a flag that is true stands without a value, one that is false is not given."""
        return {name: value for name, value in self.sbatch.items() if value is not False}


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
        return recorded(job.run, state) or Outcome(
            How.GONE_FROM_SLURM, queue_id=job.queue_id, reason=_where_to_look(job.run, job.queue_id)
        )
    job.queue_id = _submit_what_is_not_queued([job.run], arguments, settings).get(job.run.id)
    job.missed = 0
    return None


def _where_to_look(run: Run, queue_id: str) -> str:
    """The logs that the job has left: SLURM's, which also holds what failed before the run began, and the run's."""
    submission, logs = run.submission(), [_folder(run) / queue_id / f"{queue_id}_0_log.out", run.path("log.txt")]
    since = (submission and submission.submitted) or 0.0  # an older log is of an earlier attempt
    written = [str(log) for log in logs if log.is_file() and log.stat().st_mtime >= since]
    if written:
        return f"see {' and '.join(written)}"
    return f"it has left no log: 'scontrol show job {queue_id}' says why, or the cluster's sacct"


def _folder(run: Run) -> Path:
    """Where submitit keeps what it hands over, and SLURM its logs."""
    return run.folder.parent / ".slurm"


def _submit_what_is_not_queued(runs: list[Run], arguments: list[str], settings: Settings) -> dict[str, str]:
    """SLURM's id of each run, a new one where it has none in the queue; none where another executor runs it."""
    if not runs:
        return {}
    folder = _folder(runs[0])
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
            task = Task(arguments, settings.cpus * ranks, os.getcwd(), settings.gpus == 0)
            before = ""
            for array in _arrays([run for run in new if launch.ranks(run) == ranks], settings):
                submitted = time.time()
                jobs = _map_array(folder, task, array, settings, ranks, before)
                for run, job in zip(array, jobs, strict=True):
                    run.write(Submission(id=job.job_id, submitted=submitted))
                    ids[run.id] = job.job_id
                before = jobs[0].job_id.partition("_")[0]
    return ids


def _arrays(runs: list[Run], settings: Settings) -> list[list[Run]]:
    """The runs in arrays that the cluster takes."""
    largest = _largest_array() if settings.cluster == "slurm" else None
    size = max(1, largest if largest is not None else len(runs))
    return [runs[first : first + size] for first in range(0, len(runs), size)]


def _largest_array() -> int | None:
    """How many jobs an array of this cluster may have (MaxArraySize); None where SLURM does not say."""
    try:
        command = ["scontrol", "show", "config"]
        shown = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    found = re.search(r"^MaxArraySize\s*=\s*(\d+)", shown.stdout, re.MULTILINE)
    return int(found[1]) if found else None


@contextmanager
def _outside_of_any_job() -> Iterator[None]:
    """Without the variables of a job that this command may run in, which the new ones would take for theirs, and
    without those that sbatch would put above the suite's options."""
    from submitit.helpers import clean_env

    kept = {
        name: value
        for name, value in os.environ.items()
        if name in CLIENT_VARIABLES or (name.startswith("SBATCH_") and name not in RESERVED_VARIABLES)
    }
    with clean_env():
        os.environ |= kept
        yield


def _map_array(folder: Path, task: Task, runs: list[Run], settings: Settings, ranks: int, before: str) -> list[Any]:
    """Submit `runs` as one array; it begins when the job `before` has ended, where there is one: `at_once` holds for
    all of them."""
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
        slurm_additional_parameters={"requeue": True, **_in_turn(settings.options, before)},
    )
    try:
        with (
            _outside_of_any_job(),
            redirect_stderr(io.StringIO()),
        ):  # submitit repeats what sbatch says; it is told below
            return executor.map_array(task, [str(run.folder) for run in runs])
    except submitit.core.utils.UncompletedJobError as error:
        said = [line for line in str(error).splitlines() if "sbatch: error" in line] or str(error).splitlines()
        raise UserError(f"--executor slurm: {said[0].strip()}; see the settings") from None


def _in_turn(options: dict[str, Any], before: str) -> dict[str, Any]:
    if not before:
        return options
    own = options.get("dependency")
    return options | {"dependency": f"{own},afterany:{before}" if own else f"afterany:{before}"}


def _queued(settings: Settings, ids: Iterable[str]) -> set[str] | None:
    """Those that pend or run; None where SLURM does not answer."""
    if settings.cluster == "local":  # their ids are those of processes
        return {job_id for job_id in ids if _is_alive(job_id)}
    try:
        command = ["squeue", "--me", "--noheader", "--array", "--format=%i"]
        # A user's SQUEUE_STATES, or the like, would hide jobs that are there.
        plain = {name: value for name, value in os.environ.items() if not name.startswith("SQUEUE_")}
        listed = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True, env=plain)
    except (OSError, subprocess.SubprocessError):
        return None
    return set(listed.stdout.split())


def _is_alive(pid: str) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False
