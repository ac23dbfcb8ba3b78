"""Run folders: the only truth about a run. runs/<scale>/<job id>/ holds

    job.json          what to run; written by whoever plans it
    claim.json        who runs it (claim.py), gone when the run ends
    progress.json     how far it is; touched while the training proceeds
    environment.json  what it runs on
    metrics.jsonl     one line an epoch
    checkpoint.pt     state after the last whole epoch, while unfinished
    scores.npz        test scores after the last epoch, compressed (scores.py)
    result.json       the outcome, written last; or
    failure.json      why there is none, with the traceback
    origin.json       whose run it is, where somebody else made it (checks/audit.py)

Every file is written to a temporary name and renamed, so a reader sees the old one or the new one.
"""

import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from benchmark.errors import UserError
from benchmark.matrix.job import Job, first_problem
from benchmark.store.claim import Claimed, Holder, Ownership
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

STATES = ("done", "running", "stale", "failed", "diverged", "corrupt", "pending")


RUN_ANEW = "'python -m benchmark run' sets it aside and runs the job anew"
FILES = {kind: name for name, kind in RECORDS.items()}


R = TypeVar("R", bound=Record)
_GOOD_RESULTS: set[tuple[Path, int, int, int]] = set()  # folder, and time, size and number of the file


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
                return "running" if Ownership(self.folder).is_live() else "stale", None, ""
            failure = self.failure()
        except UserError as error:
            if self.path("claim.json").exists() and Ownership(self.folder).is_live():
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

    def holder(self) -> Holder | None:
        """None where the run has no claim, or one that cannot be read."""
        return Ownership(self.folder).holder()

    @contextmanager
    def claim(self) -> Iterator[None]:
        """Hold the run for this process.

        Raises:
            Claimed: a live process holds it, or it is done already.
            UserError: the folder cannot be written.
        """
        with Ownership(self.folder).take(self.state, self._enter):
            yield

    def _enter(self, mine: Claim) -> None:
        self.write(mine)
        self._set_aside_what_is_corrupt()
        for unfinished in self.folder.glob("*.tmp"):  # of a process that was killed while it wrote
            unfinished.unlink(missing_ok=True)

    def metrics(self) -> list[Epoch]:
        """The epochs logged so far. What follows the first line that a crash cut short is left out."""
        return epochs_of(read_regular(self.path("metrics.jsonl")) or b"")

    def write_metrics(self, epochs: list[dict[str, Any]]) -> None:
        """All epochs at once: at most a few hundred short lines, and never half of one."""
        records = [Epoch(**epoch).model_dump(mode="json", exclude_unset=True) for epoch in epochs]
        lines = [json.dumps({"schema": 1} | record, sort_keys=True, allow_nan=False) + "\n" for record in records]
        write_atomic(self.path("metrics.jsonl"), "".join(lines).encode())


def epochs_of(metrics: bytes) -> list[Epoch]:
    """The epochs that metrics.jsonl holds, up to the first line that a crash cut short."""
    epochs: list[Epoch] = []
    for line in metrics.splitlines():
        try:
            epochs.append(Epoch.model_validate_json(line))
        except ValidationError:
            break
    return epochs


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
