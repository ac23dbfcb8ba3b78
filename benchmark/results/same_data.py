"""Whether finished runs are of the data on disk: the digests in their records against those of the splits that lie
there."""

from collections.abc import Iterable
from functools import cache
from pathlib import Path

from benchmark import data
from benchmark.errors import UserError
from benchmark.matrix import study
from benchmark.matrix.job import Job
from benchmark.results.results import Finished, Results
from benchmark.store import scores
from benchmark.store.records import Result
from benchmark.store.run import Run

Read = dict[str, tuple[str, str]]  # training or test -> the split's name, and a digest of its images


def others(jobs: Iterable[Job], runs: Path, data_root: Path | None, cache_folder: Path) -> dict[str, list[str]]:
    """Map each finished run to the splits whose digest differs from the data on disk. Runs whose data are absent or not
    recorded are left out. Records are read, and not compared with their scores."""
    return _others(((job, _recorded(runs, job)) for job in jobs), data_root, cache_folder)


def others_of(results: Results, data_root: Path | None, cache_folder: Path) -> dict[str, list[str]]:
    """As `others`, of what was read."""
    finished = ((job, found) for job in results.matrix.jobs if isinstance(found := results.of(job), Finished))
    read = ((job, _read(job, found.record, found.images)) for job, found in finished)
    return _others(read, data_root, cache_folder)


def _others(read: Iterable[tuple[Job, Read]], data_root: Path | None, cache_folder: Path) -> dict[str, list[str]]:
    @cache
    def here(name: str, split: str, seed: int, partial: bool, limit: int | None) -> str | None:
        return data.digest(name, split, seed, data_root, cache_folder, partial, limit)

    found = {}
    for job, by_name in read:
        limits = {"test": job.limit_test}
        on_disk = {
            name: here(job.dataset, split, job.seed, job.partial, limits.get(name))
            for name, (split, _) in by_name.items()
        }
        if splits := [name for name, (_, sha256) in by_name.items() if on_disk[name] not in (None, sha256)]:
            found[job.id] = splits
    return found


def _recorded(runs: Path, job: Job) -> Read:
    """What a run read, by its record; nothing where it has none that can be read: who shows it says so."""
    run = Run(runs / job.scale / job.id)
    try:
        record = run.result()
        if record is None:
            return {}
        images = record.data.test.sha256 if record.data else None
        if images is None and run.path("scores.npz").exists():  # records before November 2026
            saved = scores.read(run)
            images = scores.digest(saved.ids, saved.labels)
    except UserError:
        return {}
    return _read(job, record, images)


def _read(job: Job, record: Result, images: str | None) -> Read:
    """The splits that a run read, each with its digest. Of a part of the training images (limit_train, or a method's
    share) only the test images are known by it."""
    read = {"test": (job.test_split, images)} if images else {}
    if record.data is not None and job.limit_train is None and study.method(job.method).train_share == 1:
        read["training"] = job.train_split, record.data.train.sha256
    return read


def departure(found: dict[str, list[str]]) -> str:
    """As a departure from the protocol; empty where there is none."""
    if not found:
        return ""
    splits = " and ".join(dict.fromkeys(split for of in found.values() for split in of))
    return f"data: {len(found)} runs are of other {splits} images than lie here, such as {next(iter(found))}"
