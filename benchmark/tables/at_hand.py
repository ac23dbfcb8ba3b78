"""Whether finished runs are of the data at hand: the digests in their records against those of the splits on disk."""

from collections.abc import Iterable
from functools import cache
from pathlib import Path

from benchmark import data
from benchmark.errors import UserError
from benchmark.matrix import study
from benchmark.matrix.job import Job
from benchmark.store.records import Result
from benchmark.store.run import Run
from benchmark.tables import collect


def others(jobs: Iterable[Job], runs: Path, data_root: Path | None, cache_folder: Path) -> dict[str, list[str]]:
    """Each finished run that is of other data, with the splits that lie here otherwise than the run read them; none
    where nothing lies here, or where nobody can tell."""

    @cache
    def here(name: str, split: str, seed: int, partial: bool, limit: int | None) -> str | None:
        return data.digest(name, split, seed, data_root, cache_folder, partial, limit)

    found = {}
    for job in jobs:
        run = Run(runs / job.scale / job.id)
        try:
            record = run.result()
        except UserError:  # who reads it says so
            continue
        read = _read(run, job, record) if record else {}
        limits = {"test": job.limit_test}
        at_hand = {
            name: here(job.dataset, split, job.seed, job.partial, limits.get(name)) for name, (split, _) in read.items()
        }
        if splits := [name for name, (_, sha256) in read.items() if at_hand[name] not in (None, sha256)]:
            found[run.id] = splits
    return found


def _read(run: Run, job: Job, record: Result) -> dict[str, tuple[str, str]]:
    """The splits that a run read, each with its digest. Of a part of the training images (limit_train, or a method's
    share) only the test images are known by it."""
    test = collect.tested_on(run, record)
    read = {"test": (job.test_split, test)} if test else {}
    if record.data is not None and job.limit_train is None and study.method(job.method).train_share == 1:
        read["training"] = job.train_split, record.data.train.sha256
    return read


def told(found: dict[str, list[str]]) -> str:
    """As a departure from the protocol; empty where there is none."""
    if not found:
        return ""
    splits = " and ".join(dict.fromkeys(split for of in found.values() for split in of))
    return f"data: {len(found)} runs are of other {splits} images than lie here, such as {next(iter(found))}"
