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

Every file is written to a temporary name and renamed, so a reader sees the old one or the new one.
"""

import errno
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
from typing import Any

from pydantic import ValidationError

from benchmark.errors import UserError
from benchmark.matrix.job import Job

# Another host's process cannot be looked up. Its claim looks stale when the time of its last touch is this far from
# this host's clock, before or after: clocks of two machines differ, and jump. It is taken over only when it also did
# not change while it was watched for a while of this process's own time, longer than NFS remembers a file's attributes.
BEAT_SECONDS = 5.0
STALE_AFTER_SECONDS = 120.0
WATCH_SECONDS = 75.0
STATES = ("done", "running", "stale", "failed", "diverged", "pending")


class Claimed(Exception):
    """Another live process holds the run."""


def write_atomic(path: Path, data: bytes) -> None:
    """All of `data` under `path`, or the old file untouched. UserError where the disk refuses."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        remedy = {
            errno.ENOSPC: "free some space and call again; finished runs are kept",
            errno.EFBIG: "files may be no larger here (ulimit -f)",
            errno.EDQUOT: "the quota is used up; free some space and call again",
            errno.EACCES: "the folder cannot be written; change its permissions",
            errno.EROFS: "the file system is read-only; name a writable folder",
        }.get(error.errno or 0, "see the reason and call again")
        raise UserError(f"{path}: cannot be written ({error.strerror}); {remedy}") from None
    finally:
        with suppress(OSError):  # a read-only folder; the error that matters is raised already
            temporary.unlink(missing_ok=True)


def write_json(path: Path, record: Any) -> None:
    write_atomic(path, (json.dumps(record, indent=1, sort_keys=True, allow_nan=False) + "\n").encode())


@dataclass(frozen=True)
class Holder:
    """Who claims a run, alive or not."""

    claim: dict[str, Any]
    touched: int  # nanoseconds by the holder's clock: only compared with itself

    @property
    def host(self) -> str:
        """Its name alone."""
        return str(self.claim.get("host", "?")).split(" ")[0]

    @property
    def pid(self) -> int:
        return self.claim.get("pid", 0)

    @property
    def is_here(self) -> bool:
        """Whether its process can be looked up."""
        return self.claim.get("host") == _this_host()


@dataclass(frozen=True)
class Run:
    """One run folder. Methods read or write its files and keep no state of their own."""

    folder: Path

    @property
    def id(self) -> str:
        return self.folder.name

    def path(self, name: str) -> Path:
        return self.folder / name

    def read(self, name: str) -> dict[str, Any] | None:
        """The JSON object in file `name`; None where there is none. A corrupt one is set aside and named."""
        path = self.path(name)
        try:
            record = json.loads(path.read_bytes(), parse_constant=_refuse_constant)
            if not isinstance(record, dict):
                raise ValueError("not a JSON object")
            return record
        except FileNotFoundError:
            return None
        except (ValueError, RecursionError) as error:
            raise UserError(f"{path}: corrupt record ({error}); {self._set_aside(path)}") from None
        except OSError as error:
            raise UserError(f"{path}: cannot be read ({error.strerror})") from None

    def _set_aside(self, path: Path) -> str:
        aside = path.with_name(f"{path.name}.corrupt-{time.time_ns()}")
        try:
            path.rename(aside)
        except OSError:
            return "move it away and call again"
        return f"set aside as {aside.name}; call again to run it anew"

    def job(self) -> Job:
        """The job of job.json. UserError where it is missing, is no job, or has another id than the folder."""
        path = self.path("job.json")
        record = self.read("job.json")
        if record is None:
            raise UserError(f"{path}: missing; 'python -m benchmark run' writes it")
        try:
            job = Job(**record)
        except ValidationError as error:
            raise UserError(f"{path}: not a job ({error.errors()[0]['msg']})") from None
        if job.id != self.id:
            raise UserError(f"{path}: holds job {job.id}, not the folder's; move the folder away")
        return job

    def state(self) -> str:
        """One of STATES, read from the files that are there."""
        if self.path("result.json").exists():
            return "done"
        if self.path("claim.json").exists():
            return "running" if self._claim_is_live() else "stale"
        if self.path("failure.json").exists():
            failure = self.read("failure.json") or {}
            return "diverged" if failure.get("kind") == "diverged" else "failed"
        return "pending"

    def _read_claim(self) -> dict[str, Any]:
        """The claim as it is; empty where it says nothing. FileNotFoundError where there is none."""
        try:
            record = json.loads(self.path("claim.json").read_bytes())
        except ValueError:
            return {}  # cut short by a crash of the machine
        return record if isinstance(record, dict) else {}

    def _claim_is_live(self) -> bool:
        try:
            claim = self._read_claim()
            if "host" not in claim:
                return False
            if claim["host"] == _this_host():
                start = _process_start(claim.get("pid"))
                return start is not None and start == claim.get("process_start")
            return abs(time.time() - self.path("claim.json").stat().st_mtime) < STALE_AFTER_SECONDS
        except FileNotFoundError:
            return False
        except OSError:
            return True  # unreadable for the moment; nobody is evicted on that ground

    def holder(self) -> Holder | None:
        """None where the run has no claim, or one that cannot be read."""
        try:
            return Holder(self._read_claim(), self._touched())
        except OSError:
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
        mine = {
            "host": _this_host(),
            "pid": os.getpid(),
            "process_start": _process_start(os.getpid()),
            "started": time.time(),
        }
        # Looking and taking over are one step under a lock: two processes that both find a stale claim would
        # otherwise both remove it, the second one the first's new claim.
        with self._locked():
            state = self.state()
            if state in ("running", "done"):
                raise Claimed(self.id)
            if state == "stale":
                with suppress(FileNotFoundError):
                    if self._read_claim().get("host") not in (None, _this_host()) and self._is_touched_while_watched():
                        raise Claimed(self.id)
            write_json(path, mine)
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

    def _keep_alive(self, mine: dict[str, Any], released: threading.Event) -> None:
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

    def metrics(self) -> list[dict[str, Any]]:
        """The epochs logged so far. What follows the first line that a crash cut short is left out."""
        try:
            lines = self.path("metrics.jsonl").read_bytes().splitlines()
        except FileNotFoundError:
            return []
        except OSError as error:
            raise UserError(f"{self.path('metrics.jsonl')}: cannot be read ({error.strerror})") from None
        epochs: list[dict[str, Any]] = []
        for line in lines:
            try:
                epoch = json.loads(line, parse_constant=_refuse_constant)
            except (ValueError, RecursionError):
                break
            if not isinstance(epoch, dict) or type(epoch.get("epoch")) is not int:
                break
            epochs.append(epoch)
        return epochs

    def write_metrics(self, epochs: list[dict[str, Any]]) -> None:
        """All epochs at once: at most a few hundred short lines, and never half of one."""
        lines = [json.dumps(epoch, sort_keys=True, allow_nan=False) + "\n" for epoch in epochs]
        write_atomic(self.path("metrics.jsonl"), "".join(lines).encode())


def submit(runs: Path, job: Job) -> Run:
    """The job's folder, with job.json in it. An existing record is left alone."""
    run = Run(runs / job.scale / job.id)
    if not run.path("job.json").exists():
        write_json(run.path("job.json"), job.model_dump(mode="json", exclude_none=True))
    return run


def all_runs(runs: Path) -> list[Run]:
    """Every folder with a job.json under `runs`, by scale and id."""
    return [Run(path.parent) for path in sorted(runs.glob("*/*/job.json"))]


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
