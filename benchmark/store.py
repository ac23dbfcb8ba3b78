"""Run folders: the only truth about a run. runs/<scale>/<job id>/ holds

    job.json          what to run; written by whoever plans it
    claim.json        who runs it (host, pid, start); made with O_EXCL, gone when the run ends
    progress.json     how far it is; its time of change is the heartbeat
    environment.json  what it runs on
    metrics.jsonl     one line an epoch
    checkpoint.pt     state after the last whole epoch, while unfinished
    scores.npz        test scores after the last epoch, compressed
    result.json       the outcome, written last; or
    failure.json      why there is none, with the traceback

Every file is written to a temporary name and renamed, so a reader sees the old one or the new one.
"""

import errno
import fcntl
import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from benchmark.errors import UserError
from benchmark.job import Job

# Another host's process cannot be looked up; it is taken for dead when its heartbeat is this old.
STALE_AFTER_SECONDS = 600
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
            record = json.loads(path.read_bytes())
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

    def heartbeat_age(self) -> float:
        """Seconds since the run last said how far it is; infinity if it never did."""
        for name in ("progress.json", "claim.json"):
            try:
                return max(0.0, time.time() - self.path(name).stat().st_mtime)
            except OSError:
                continue
        return float("inf")

    def _claim_is_live(self) -> bool:
        try:
            claim = self.read("claim.json")
        except UserError:
            return False  # a claim that cannot be read was cut short by a crash, and is set aside
        if claim is None:
            return False
        if claim.get("host") == _this_host():
            return _process_start(claim.get("pid")) == claim.get("process_start")
        return self.heartbeat_age() < STALE_AFTER_SECONDS

    @contextmanager
    def claim(self) -> Iterator[None]:
        """Hold the run for this process. Raises Claimed where a live process holds it or it is done already."""
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.path("claim.json")
        # Looking and taking over are one step under a lock: two processes that both find a stale claim would
        # otherwise both remove it, the second one the first's new claim.
        with open(self.path("claim.lock"), "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if self.state() in ("running", "done"):
                raise Claimed(self.id)
            path.unlink(missing_ok=True)
            record = {
                "host": _this_host(),
                "pid": os.getpid(),
                "process_start": _process_start(os.getpid()),
                "started": time.time(),
            }
            with open(path, "x", encoding="utf-8") as file:
                json.dump(record, file)
        try:
            yield
        finally:
            path.unlink(missing_ok=True)
            self.path("progress.json").unlink(missing_ok=True)

    def metrics(self) -> list[dict[str, Any]]:
        """The epochs logged so far. A last line that a crash cut short is left out."""
        try:
            lines = self.path("metrics.jsonl").read_text(encoding="utf-8").splitlines()
        except FileNotFoundError:
            return []
        epochs = []
        for line in lines:
            try:
                epochs.append(json.loads(line))
            except ValueError:
                break
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


def _this_host() -> str:
    # The boot's id tells a restarted machine, whose process numbers start anew, from the one that made the claim.
    try:
        return f"{socket.gethostname()} {Path('/proc/sys/kernel/random/boot_id').read_text().strip()}"
    except OSError:
        return socket.gethostname()


def _process_start(pid: Any) -> str | None:
    """When process `pid` of this host started, in clock ticks since boot; None where it is gone.

    A number alone would not do: it is used again by later processes.
    """
    if not isinstance(pid, int):
        return None
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
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
