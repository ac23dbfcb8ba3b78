"""Run folders: the only truth about a run. runs/<scale>/<job id>/ holds

    job.json          what to run; written by whoever plans it
    claim.json        who runs it (host, pid, start); touched while that process lives, gone when the run ends
    progress.json     how far it is; touched while the training proceeds
    environment.json  what it runs on
    metrics.jsonl     one line an epoch
    checkpoint.pt     state after the last whole epoch, while unfinished
    scores.npz        test scores after the last epoch, compressed (scores.py)
    result.json       the outcome, written last; or
    failure.json      why there is none, with the traceback
    origin.json       whose run it is, where somebody else made it (audit.py)

Every file is written to a temporary name and renamed, so a reader sees the old one or the new one.
"""

import fcntl
import json
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from benchmark.errors import UserError
from benchmark.matrix.job import Job, first_problem
from benchmark.store.files import read_regular, write_atomic, write_json
from benchmark.store.records import (
    RECORDS,
    Claim,
    Environment,
    Epoch,
    Failure,
    Origin,
    Progress,
    Record,
    Result,
    Submission,
)

# Another host's process cannot be looked up. Its claim looks stale when the time of its last touch is this far from
# this host's clock, before or after: clocks of two machines differ, and jump. It is taken over only when it also did
# not change while it was watched for a while of this process's own time, longer than NFS remembers a file's attributes.
BEAT_SECONDS = 5.0
STALE_AFTER_SECONDS = 120.0
WATCH_SECONDS = 75.0
STATES = ("done", "running", "stale", "failed", "diverged", "corrupt", "pending")


RUN_ANEW = "'python -m benchmark run' sets it aside and runs the job anew"
FILES = {kind: name for name, kind in RECORDS.items()}


R = TypeVar("R", bound=Record)
_GOOD_RESULTS: set[tuple[Path, int, int, int]] = set()  # folder, and time, size and number of the file


class Claimed(Exception):
    """Another live process holds the run."""


@dataclass(frozen=True)
class Holder:
    """Who claims a run, alive or not."""

    claim: Claim
    touched: int  # nanoseconds by the holder's clock: only compared with itself

    @property
    def host(self) -> str:
        """Its name alone."""
        return (self.claim.host or "?").split(" ")[0]

    @property
    def pid(self) -> int:
        return self.claim.pid or 0

    @property
    def is_here(self) -> bool:
        return self.claim.host == _this_host()

    @property
    def can_be_looked_up(self) -> bool:
        """Whether this host knows if it is alive: its process is one of here, or a crash cut the claim short."""
        return self.claim.host is None or self.is_here


@dataclass(frozen=True)
class Run:
    """One run folder. Methods read or write its files and keep no state of their own; what reads changes nothing."""

    folder: Path

    @property
    def id(self) -> str:
        return self.folder.name

    def path(self, name: str) -> Path:
        return self.folder / name

    def result(self) -> Result | None:
        """The outcome; None where there is none. UserError where the record is corrupt, or of another job."""
        record = self._read(Result)
        if record is not None and record.job != self.id:
            raise UserError(f"{self.path('result.json')}: corrupt record (it is of job {record.job}); {RUN_ANEW}")
        return record

    def environment(self) -> Environment | None:
        return self._read(Environment)

    def failure(self) -> Failure | None:
        return self._read(Failure)

    def progress(self) -> Progress | None:
        return self._read(Progress)

    def submission(self) -> Submission | None:
        return self._read(Submission)

    def origin(self) -> Origin | None:
        """Whose run it is; None for one made here."""
        return self._read(Origin)

    def _read(self, kind: type[R]) -> R | None:
        """The record of its kind; None where there is none. UserError names a corrupt one, which stays as it is: the
        process that runs the job anew sets it aside."""
        path = self.path(FILES[kind])
        content = read_regular(path)
        if content is None:
            return None
        try:
            return kind.model_validate_json(content)
        except ValidationError as error:
            raise UserError(f"{path}: corrupt record ({_problem(error)}); {RUN_ANEW}") from None

    def write(self, record: Record) -> None:
        """What was set of the record, and its schema, in the file of its kind."""
        fields = record.model_dump(mode="json", exclude_unset=True, exclude={"schema_version"})
        write_json(self.path(FILES[type(record)]), {"schema": record.schema_version} | fields)

    def job(self) -> Job:
        """The job of job.json. UserError where it is missing, is no job, or has another id than the folder."""
        path = self.path("job.json")
        content = read_regular(path)
        if content is None:
            raise UserError(f"{path}: missing; 'python -m benchmark run' writes it")
        try:
            fields = json.loads(content, parse_constant=_refuse_constant)
            if not isinstance(fields, dict):
                raise ValueError("not a JSON object")
        except (ValueError, RecursionError) as error:
            raise UserError(f"{path}: corrupt record ({error}); {RUN_ANEW}") from None
        try:
            job = Job(**fields)
        except ValidationError as error:
            raise UserError(f"{path}: not a job ({error.errors()[0]['msg']})") from None
        if job.id != self.id:
            raise UserError(f"{path}: holds job {job.id}, not the folder's; move the folder away")
        return job

    def state(self) -> str:
        """One of STATES, read from the files that are there: `corrupt` where an outcome cannot be read."""
        return self.outcome()[0]

    def outcome(self) -> tuple[str, Failure | None, str]:
        """The state; the failure, where that is the outcome; and why an outcome cannot be read, where one cannot."""
        try:
            if self._has_result():
                return "done", None, ""
            if self.path("claim.json").exists():
                return "running" if self._claim_is_live() else "stale", None, ""
            failure = self.failure()
        except UserError as error:
            if self.path("claim.json").exists() and self._claim_is_live():
                return "running", None, ""  # which sets aside what is corrupt
            return "corrupt", None, str(error)
        if failure is None:
            return "pending", None, ""
        return "diverged" if failure.kind == "diverged" else "failed", failure, ""

    def _has_result(self) -> bool:
        """Whether there is one that can be read. What was found good is not read again until it changes: schedulers and
        displays look at 10,000 runs twice a second."""
        try:
            status = os.stat(self.path("result.json"))
        except OSError:
            return self.result() is not None  # absent, or an error that says why
        seen = (self.folder, status.st_mtime_ns, status.st_size, status.st_ino)
        if seen not in _GOOD_RESULTS and self.result() is not None:
            _GOOD_RESULTS.add(seen)
        return True

    def _set_aside_what_is_corrupt(self) -> None:
        """By the process that holds the claim, so that nobody reads it any more and nothing of it is lost."""
        for read, name in ((self.result, "result.json"), (self.failure, "failure.json")):
            try:
                read()
            except UserError as error:
                aside = self.path(f"{name}.corrupt-{time.time_ns()}")
                with suppress(OSError):
                    self.path(name).rename(aside)
                    print(f"{error}: set aside as {aside.name}", flush=True)

    def _read_claim(self) -> Claim:
        """The claim as it is; one that says nothing where a crash of the machine cut it short. FileNotFoundError where
        there is none."""
        content = read_regular(self.path("claim.json"))
        if content is None:
            raise FileNotFoundError(self.path("claim.json"))
        try:
            return Claim.model_validate_json(content)
        except ValidationError:
            return Claim()

    def _claim_is_live(self) -> bool:
        try:
            claim = self._read_claim()
            if claim.host is None:
                return False
            if claim.host == _this_host():
                start = _process_start(claim.pid)
                return start is not None and start == claim.process_start
            return abs(time.time() - self.path("claim.json").stat().st_mtime) < STALE_AFTER_SECONDS
        except FileNotFoundError:
            return False
        except UserError:
            return self.path("claim.json").is_file()  # unreadable for the moment: nobody is evicted on that ground
        except OSError:
            return True

    def holder(self) -> Holder | None:
        """None where the run has no claim, or one that cannot be read."""
        try:
            return Holder(self._read_claim(), self._touched())
        except (OSError, UserError):
            return None

    def _touched(self) -> int:
        with open(self.path("claim.json"), "rb") as file:  # opening asks a file server anew
            return os.fstat(file.fileno()).st_mtime_ns

    def _is_touched_while_watched(self) -> bool:
        """Whether the claim of another host, which looks stale, changes after all."""
        deadline, before = time.monotonic() + WATCH_SECONDS, self._touched()
        while time.monotonic() < deadline:
            time.sleep(min(1.0, WATCH_SECONDS / 10))
            if self._touched() != before:
                return True
        return False

    @contextmanager
    def _locked(self) -> Iterator[None]:
        path = self.path("claim.lock")
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            lock = open(path, "w")  # noqa: SIM115
        except OSError as error:
            raise UserError(f"{path}: cannot be written ({error.strerror}); name a writable folder") from None
        with lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX)
            except OSError as error:
                raise UserError(f"{path}: this file system has no locks ({error.strerror}); take another") from None
            yield

    @contextmanager
    def claim(self) -> Iterator[None]:
        """Hold the run for this process. Raises Claimed where a live process holds it or it is done already; UserError
        where the folder cannot be written."""
        path = self.path("claim.json")
        pid = os.getpid()
        mine = Claim(host=_this_host(), pid=pid, process_start=_process_start(pid), started=time.time())
        # Looking and taking over are one step under a lock: two processes that both find a stale claim would
        # otherwise both remove it, the second one the first's new claim.
        with self._locked():
            state = self.state()
            if state in ("running", "done"):
                raise Claimed(self.id)
            if state == "stale":
                with suppress(FileNotFoundError):
                    stale = Holder(self._read_claim(), self._touched())
                    if not stale.can_be_looked_up and self._is_touched_while_watched():
                        raise Claimed(self.id)
            self.write(mine)
            self._set_aside_what_is_corrupt()
            for unfinished in self.folder.glob("*.tmp"):  # of a process that was killed while it wrote
                unfinished.unlink(missing_ok=True)
        released = threading.Event()
        beat = threading.Thread(target=self._keep_alive, args=(mine, released), daemon=True)
        beat.start()
        try:
            yield
        finally:
            released.set()
            beat.join()
            with suppress(UserError, OSError), self._locked():
                if self._read_claim() == mine:
                    path.unlink()
                    self.path("progress.json").unlink(missing_ok=True)

    def _keep_alive(self, mine: Claim, released: threading.Event) -> None:
        """Touch the claim for other hosts to see. A process that finds its claim in other hands, having been frozen for
        so long that it was taken for dead, ends itself without another word: two must not write into one folder."""
        while not released.wait(BEAT_SECONDS):
            try:
                if self._read_claim() == mine:
                    os.utime(self.path("claim.json"))
                    continue
            except FileNotFoundError:
                pass
            except OSError:
                continue  # a file server that does not answer for a while
            if not released.is_set():
                os.kill(os.getpid(), signal.SIGKILL)  # SIGTERM would have it write a checkpoint first
            return

    def metrics(self) -> list[Epoch]:
        """The epochs logged so far. What follows the first line that a crash cut short is left out."""
        epochs: list[Epoch] = []
        for line in (read_regular(self.path("metrics.jsonl")) or b"").splitlines():
            try:
                epochs.append(Epoch.model_validate_json(line))
            except ValidationError:
                break
        return epochs

    def write_metrics(self, epochs: list[dict[str, Any]]) -> None:
        """All epochs at once: at most a few hundred short lines, and never half of one."""
        records = [Epoch(**epoch).model_dump(mode="json", exclude_unset=True) for epoch in epochs]
        lines = [json.dumps({"schema": 1} | record, sort_keys=True, allow_nan=False) + "\n" for record in records]
        write_atomic(self.path("metrics.jsonl"), "".join(lines).encode())


def submit(runs: Path, job: Job) -> Run:
    """The job's folder, with job.json in it. An existing record is left alone; one that is no job is set aside."""
    run = Run(runs / job.scale / job.id)
    try:
        if run.path("job.json").exists() and run.job():
            return run
    except UserError:
        with suppress(Claimed), run.claim():
            run.path("job.json").rename(run.path(f"job.json.corrupt-{time.time_ns()}"))
    write_json(run.path("job.json"), job.model_dump(mode="json", exclude_none=True))
    return run


def all_runs(runs: Path) -> list[Run]:
    """Every folder with a job.json under `runs`, by scale and id."""
    return [Run(path.parent) for path in sorted(runs.glob("*/*/job.json"))]


def runs_in(folder: Path) -> list[Run]:
    """Of a folder of runs, of one scale's folder in it, or of a run's own."""
    paths = next((found for at in ("*/*", "*", ".") if (found := sorted(folder.glob(f"{at}/job.json")))), [])
    return [Run(path.parent) for path in paths]


def _problem(error: ValidationError) -> str:
    problem = first_problem(error)
    at = ".".join(str(part) for part in problem["loc"])
    return f"{at}: {problem['msg']}" if at else problem["msg"]


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not a number")


@cache
def _this_host() -> str:
    """Whose process numbers are meant: the machine's name, its boot (a restarted machine counts anew), and the
    container's numbering, where there is one."""
    parts = [socket.gethostname()]
    with suppress(OSError):
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text().strip())
        parts.append(os.readlink("/proc/self/ns/pid"))
    return " ".join(parts)


def _process_start(pid: Any) -> str | None:
    """When process `pid` of this host started, in clock ticks since boot; None where it is gone.

    A number alone would not do: it is used again by later processes.
    """
    if not isinstance(pid, int):
        return None
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        if Path("/proc/self/stat").exists():
            return None
    else:
        after_name = stat.rpartition(")")[2].split()
        return None if after_name[0] in "ZX" else after_name[19]  # state; field 22 of proc(5)
    try:  # no /proc on this system
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except PermissionError:
        pass
    return "alive"
