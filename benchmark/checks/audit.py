"""Whether committed records can be believed, and how those of others come in: all that can be found out without
training again. Of one run: its id, digests, metrics, epochs, seconds and code; of several: that none shows another's
scores. No torch.

What is not found here: records and scores that somebody made up to fit each other. `verify --rerun` would show them.
"""

import io
import os
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from benchmark.errors import UserError
from benchmark.matrix import study
from benchmark.store import code
from benchmark.store.files import read_regular, write_atomic
from benchmark.store.records import Epoch, Origin, Result
from benchmark.store.run import Run, all_runs, runs_in
from benchmark.store.verify import NOISE, checked

KEPT = ("job.json", "environment.json", "metrics.jsonl", "scores.npz", "result.json", "failure.json", "origin.json")
ROUNDED = 0.001  # seconds of an epoch are written to this


def found(folder: Path) -> list[Run]:
    """The runs under a folder of runs or of one scale, or the one whose folder it is. UserError where there is none."""
    runs = runs_in(folder)
    if not runs:
        raise UserError(
            f"{folder}: no run is there; name a folder that holds <scale>/<job id>/job.json, a scale's or a run's own"
        )
    return runs


def finished(run: Run) -> bool:
    """Whether it has an outcome, good or bad, that can be looked at; a corrupt one is looked at too."""
    return run.state() in ("done", "failed", "diverged", "corrupt")


def problems(run: Run) -> list[str]:
    """What is wrong with a finished run's records, a line each; none where all of it fits together."""
    try:
        return [f"{run.folder}: {text}" for text in _problems(run)]
    except UserError as error:
        return [str(error)]


def borrowed(runs: Iterable[Run]) -> list[str]:
    """A line for each run whose scores are another's of another seed or other data: no two can be the same."""
    owners: dict[str, Run] = {}
    lines = []
    for run in runs:
        try:
            record, job = run.result(), run.job()
            if record is None or record.scores_sha256 is None:
                continue
            owner = owners.setdefault(record.scores_sha256, run)
            theirs = owner.job()
        except UserError:
            continue  # `problems` names it
        if (theirs.seed, theirs.dataset) != (job.seed, job.dataset):
            lines.append(f"{run.folder}: has the scores of {owner.id}, which is of another seed or data set")
    return lines


def _problems(run: Run) -> Iterator[str]:
    job = run.job()
    if run.folder.parent.name != job.scale:
        yield f"lies under {run.folder.parent.name}, is of scale {job.scale}"
    record, unverified = checked(run, None)
    on, epochs = run.environment(), run.metrics()
    if record is None:
        if run.failure() is None:
            yield "has no result"
        return
    if on is None:
        yield "environment.json is missing, so nobody knows what it ran on"
    if unverified:
        yield f"unverified: {unverified}"
    ran = record.code or (on.code if on else None)
    if ran is None or ran.commit is None:
        yield "names no commit"
    else:
        if ran.dirty is not False:
            yield f"ran with changes that commit {ran.commit[:12]} does not hold"
        if code.history_is_whole() and not code.is_commit(ran.commit):
            yield f"commit {ran.commit[:12]} is not in this checkout"
        if on and on.code and on.code.commit not in (None, ran.commit):
            yield f"result.json names commit {ran.commit[:12]}, environment.json {on.code.commit[:12]}"
    asked = job.limit_train and round(study.method(job.method).train_share * job.limit_train)
    if asked not in (None, record.num_train):
        yield f"says {record.num_train} training images, the job {asked}"
    if job.limit_test not in (None, record.num_test):
        yield f"says {record.num_test} test images, the job {job.limit_test}"
    if record.epoch != job.epochs:
        yield f"is of epoch {record.epoch}, the job has {job.epochs}"
    yield from _of_epochs(record, epochs, job.epochs)
    if not unverified:
        yield from _of_images(run, job.overlap)


def _of_epochs(record: Result, epochs: list[Epoch], planned: int) -> Iterator[str]:
    """What the log of epochs contradicts."""
    if [epoch.epoch for epoch in epochs] != list(range(1, planned + 1)):
        yield f"metrics.jsonl holds {len(epochs)} epochs in order, the job has {planned}"
        return
    tested = [epoch.test_top1 if record.single_label else epoch.test_mAP for epoch in epochs]
    measured = record.top1 if record.single_label else (record.mAP or {}).get("area")
    if _differ(tested[-1], measured):
        yield f"metrics.jsonl ends at {record.headline} {tested[-1]}, result.json says {measured}"
    best = record.best_on_test
    if best is not None:
        highest, said = max((value or 0 for value in tested), default=0), best.top1 if record.single_label else best.mAP
        if _differ(said, highest) or _differ(tested[min(best.epoch, planned) - 1], highest):
            yield f"says that epoch {best.epoch} was the best on the test set, metrics.jsonl does not"
    seconds = [epoch.seconds for epoch in epochs]
    if record.seconds is None or not all(seconds):
        yield "does not say how many seconds each epoch took"
    elif abs(record.seconds - sum(s for s in seconds if s)) > ROUNDED * planned:
        yield f"says {record.seconds:g} s, its epochs took {sum(s for s in seconds if s):g} s"


def _differ(one: float | None, other: float | None) -> bool:
    return one != other if one is None or other is None else abs(one - other) > NOISE


def _of_images(run: Run, may_overlap: bool) -> Iterator[str]:
    """The scores' images: each once, and none that was trained on, unless the job says that it may."""
    with np.load(io.BytesIO(read_regular(run.path("scores.npz")) or b"")) as arrays:
        tested = set(arrays["ids"].tolist())
        if len(tested) != len(arrays["ids"]):
            yield f"{len(arrays['ids']) - len(tested)} test images are scored twice"
        shared = tested & set(arrays["train_ids"].tolist()) if "train_ids" in arrays else set()
        if shared and not may_overlap:
            yield f"{len(shared)} images, such as {min(shared)}, were trained on and tested on"


def take(sources: list[Run], runs: Path, origin: Origin) -> tuple[list[Run], list[str]]:
    """Copy somebody's finished runs under `runs`, with whose they are: those taken, and a line for all that is wrong
    with each other one, of which nothing stays. An origin that a run has already is kept."""
    others = borrowed([*all_runs(runs), *sources])
    taken, lines = [], []
    for source in sources:
        wrong = [line for line in others if line.startswith(f"{source.folder}: ")] or _taken(source, runs, origin)
        lines += wrong
        taken += [] if wrong else [source]
    return taken, lines


def _taken(source: Run, runs: Path, origin: Origin) -> list[str]:
    """What is wrong with it; it was copied where nothing is. The copy is what is looked at, so that no file changes
    between the look and the copying; what a folder holds beside records stays away."""
    at = Path(source.folder.absolute().parent.name, source.id)
    if not finished(source):
        return [f"{source.folder}: has no result and no failure; only finished runs are taken"]
    if os.path.lexists(runs / at):
        return [f"{source.folder}: {runs / at} is there and is not overwritten; move one of the two away"]
    waiting = runs / f".import-{os.getpid()}"  # too deep to be listed as a run
    copy = Run(waiting / at)
    try:
        for name in KEPT:
            content = read_regular(source.path(name))
            if content is not None:
                write_atomic(copy.path(name), content)
        wrong = problems(copy)
        if not wrong:
            if copy.origin() is None:
                copy.write(origin)
            (runs / at).parent.mkdir(parents=True, exist_ok=True)
            copy.folder.rename(runs / at)
        return [text.replace(str(copy.folder), str(source.folder)) for text in wrong]
    except OSError as error:
        raise UserError(f"{runs / at}: cannot be written ({error.strerror}); name a writable folder") from None
    finally:
        shutil.rmtree(waiting, ignore_errors=True)
