"""From run folders to one tidy frame, a line for each job and each measured number; and to the same numbers on
bootstrap samples of the test images."""

import hashlib
import sys
from collections.abc import Iterable
from functools import cache
from itertools import combinations
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from benchmark.errors import UserError
from benchmark.matrix import grid, study
from benchmark.matrix.job import FIELDS, Job
from benchmark.matrix.matrix import Matrix
from benchmark.store import metrics, scores, verify
from benchmark.store.code import same_code
from benchmark.store.records import Result
from benchmark.store.run import Run
from benchmark.tables import bootstrap

SINGLE_LABEL = ("top1", "top5")
ROUNDS = bootstrap.ROUNDS

Group = tuple[str, ...]  # run ids
Samples = dict[Group, dict[str, np.ndarray]]  # -> item -> the runs' mean in each sample (rounds,), in percent


class Collected(NamedTuple):
    """frame: see `collect`. records: of the finished runs, by id. warnings: a line for each that cannot be read.
    unverified: ids of results whose numbers could not be computed again, and why."""

    frame: pd.DataFrame
    records: dict[str, Result]
    warnings: list[str]
    unverified: dict[str, str]


def collect(matrix: Matrix) -> Collected:
    """What a matrix's run folders hold, each result read once and compared with its scores; numbers in percent.

    Columns: job (its id), state, every field of Job, every option of a method, item, value. `item` is a class name,
    `mAP`, `top1` or `top5`; `value` is NaN where too few images show the class (see `items`). A job without a result
    has one line whose item is None.
    """
    lines, warnings = [], []
    named = [*(name for name in FIELDS if name != "options"), *study.at_hand().option_names]
    columns = ["job", "state", *named, "item", "value"]
    records: dict[str, Result] = {}
    unverified: dict[str, str] = {}
    for job in matrix.jobs:
        run = Run(matrix.folder(job))
        head = {"job": job.id} | {name: job.value(name) for name in named}
        try:
            record, why = verify.checked(run)
            state = "done" if record else run.state()
            values = items(record, matrix.definition, counted(matrix, job, record)) if record else {}
        except UserError as error:
            warnings.append(str(error))
            state, values = "corrupt", {}
        else:
            records |= {job.id: record} if record else {}
            unverified |= {job.id: why} if why else {}
        head["state"] = state
        lines += [head | {"item": item, "value": value} for item, value in values.items()] or [head]
    return Collected(pd.DataFrame(lines, columns=columns), records, warnings, unverified)


def readable(run: Run) -> Result | None:
    """The run's result; None, with a warning that names the record, where it cannot be read or is contradicted by its
    scores: one is left out, the others are shown."""
    try:
        record, unverified = verify.checked(run)
    except UserError as error:
        print(f"warning: {error}", file=sys.stderr)
        return None
    if unverified:
        print(f"warning: {run.path('result.json')}: unverified: {unverified}", file=sys.stderr)
    return record


def counted(matrix: Matrix, job: Job, record: Result) -> set[str] | None:
    """The classes that count in a mean: of which either split has `min_positives` images, for the baseline of the same
    seed. A method that is given half of the images would else be averaged over the frequent ones of fewer classes. By
    its own record where that baseline has none; None: all."""
    if matrix.min_positives <= 1 or record.single_label:
        return None
    first, alike = matrix.methods[0], ("dataset", "backbone", "train_split", "test_split", "seed", "limit_train")
    fields = {name: getattr(job, name) for name in alike}
    baseline = next(
        (j for j in matrix.jobs if j.method == first and all(getattr(j, n) == v for n, v in fields.items())), job
    )
    other = None if baseline.id == job.id else readable(Run(matrix.folder(baseline)))
    return (other or record).frequent(matrix.min_positives)


def headline_classes(job: Job, record: Result, others: Iterable[tuple[Job, Result]]) -> set[str] | None:
    """The classes that tables average a run's AP over, wherever the run lies: as `counted`, of the grid that has the
    job's data set and scale.

    Args:
        job: of the run.
        record: its result.
        others: jobs and results that lie beside it; the baseline's of the same seed says which classes count.

    Returns:
        None where that is all of them.
    """
    first, least = _preset(job.dataset, job.scale)
    if least <= 1 or record.single_label:
        return None
    alike = ("dataset", "backbone", "train_split", "test_split", "seed", "limit_train", "scale")
    fields = [getattr(job, name) for name in alike]
    beside = (r for j, r in others if j.method == first and [getattr(j, name) for name in alike] == fields)
    return next(beside, record).frequent(least)


@cache
def _preset(dataset: str, scale: str) -> tuple[str, int]:
    """The first method and the `min_positives` of the grid that has the scale of this data set; none is left out where
    there is no such grid."""
    for name in grid.names():
        chosen = grid.load(name)
        if scale in chosen.scales:
            matrix = Matrix(chosen, scale)
            if any(job.dataset == dataset for job in matrix.jobs):
                return matrix.methods[0], matrix.min_positives
    return "", 1


def items(record: Result, definition: str, kept: set[str] | None = None) -> dict[str, float | None]:
    """Every measured number of a finished run, in percent. UserError where the record has none by this definition.

    kept: where given, any other class is None, and not in mAP.
    """
    if record.ap is None or record.mAP is None:
        shares = {"top1": record.top1, "top5": record.top5}
        values: dict[str, float | None] = {item: share for item, share in shares.items() if share is not None}
    else:
        if definition not in record.ap or definition not in record.mAP:
            raise UserError(f"{record.job}: result.json holds no average precision by the definition '{definition}'")
        ap, mean = record.ap[definition], record.mAP[definition]
        if kept is not None:
            ap = {name: value if name in kept else None for name, value in ap.items()}
            mean = metrics.mean_ap(list(ap.values()))
        values = ap | {"mAP": mean}
    return {item: None if value is None else 100 * value for item, value in values.items()}


class Pairs(NamedTuple):
    """Gains of runs of one seed over the baseline's. unpaired: pairs that were not made, and why. crosses: not all of
    these runs, within a pair or from seed to seed, were trained by one version of the training code."""

    seeds: tuple[int, ...]
    gains: tuple[float, ...]
    unpaired: tuple[str, ...]
    crosses: bool

    @property
    def mean(self) -> float | None:
        return float(np.mean(self.gains)) if self.gains else None


def pair(
    ours: dict[int, tuple[str, float]], theirs: dict[int, tuple[str, float]], records: dict[str, Result],
    images: dict[str, str | None],
) -> Pairs:  # fmt: skip
    """The only pairing there is: of one seed, and tested on the same images. ours, theirs: seed -> run and value;
    images: what `tested_on` says of each run."""
    gains, unpaired, codes = {}, [], []
    for seed in (seed for seed in ours if seed in theirs):
        (run, value), (other, its_value) = ours[seed], theirs[seed]
        if None in (images[run], images[other]):
            unpaired.append(f"{run} or {other} does not say which images it was tested on")
        elif images[run] != images[other]:
            unpaired.append(f"{run} and {other} were tested on different images")
        else:
            gains[seed] = value - its_value
            codes += [records[run].code, records[other].code]
    crosses = any(same_code(one, other) is False for one, other in combinations(dict.fromkeys(codes), 2))
    files = {code and code.study for code in codes[::2]}  # a baseline may need none
    return Pairs(tuple(gains), tuple(gains.values()), tuple(unpaired), crosses or len(files) > 1)


def tested_on(run: Run, record: Result) -> str | None:
    """Which images, as a digest; None where it is not known."""
    try:
        return scores.tested_on(run, record)
    except UserError:  # damaged scores: image_samples names them
        return None


def image_samples(
    matrix: Matrix, groups: Iterable[Iterable[str]], rounds: int = ROUNDS, item: str | None = None,
    cache: Path | None = bootstrap.CACHE,
) -> Samples:  # fmt: skip
    """The mean number of each group of runs on bootstrap samples of their test images, in percent; only `item` where
    one is named. Classes that the matrix leaves out are left out, as in `items`. A group one of whose runs has no
    sample is left out, and an item that one lacks.

    Runs tested on the same images get the same samples, so their differences are paired; others independent ones. Each
    run is read once and not kept: 100,000 would be 8 GB.
    """
    within: dict[str, list[Group]] = {}
    for group in dict.fromkeys(map(tuple, groups)):
        for name in group:
            within.setdefault(name, []).append(group)
    totals: Samples = {}
    lacking: set[Group] = set()
    jobs = {job.id: job for job in matrix.jobs}
    for name, of in within.items():
        run = Run(matrix.runs / matrix.scale / name)
        drawn = _samples_of(run, jobs.get(name), matrix, rounds, cache)
        if drawn is None:
            lacking.update(of)
            continue
        drawn = {name: 100 * values for name, values in drawn.items() if item in (None, name)}
        for group in of:
            known = totals.setdefault(group, {name: np.zeros_like(values) for name, values in drawn.items()})
            totals[group] = {name: np.add(known[name], drawn[name], out=known[name]) for name in known if name in drawn}
    bootstrap.draws.cache_clear()
    return {
        group: {name: total / np.float32(len(group)) for name, total in by_item.items()}
        for group, by_item in totals.items()
        if group not in lacking
    }


def _samples_of(
    run: Run, job: Job | None, matrix: Matrix, rounds: int, cache: Path | None
) -> dict[str, np.ndarray] | None:
    """Shares, by item; None where the run has no scores, with a warning where it cannot be read."""
    try:
        record, _ = verify.checked(run)
        if record is None or not run.path("scores.npz").exists():
            return None
        return _resampled(run, counted(matrix, job or run.job(), record), matrix.definition, rounds, cache)
    except UserError as error:
        print(f"warning: {error}", file=sys.stderr)
        return None


def _resampled(
    run: Run, wanted: set[str] | None, definition: str, rounds: int, cache: Path | None
) -> dict[str, np.ndarray]:
    saved = scores.read(run)
    labels, predicted, classes = saved.labels, saved.predicted, saved.classes
    if wanted is not None:
        kept = [c for c, name in enumerate(classes) if name in wanted]
        labels, predicted, classes = labels[:, kept], predicted[:, kept], [classes[c] for c in kept]
    key = bootstrap.cache_key(run.path("scores.npz").read_bytes(), definition, classes, rounds)
    seed = int.from_bytes(hashlib.sha256("\n".join(map(str, saved.ids)).encode()).digest()[:8])
    return bootstrap.cached(
        cache, key, lambda: bootstrap.resampled(predicted, labels, classes, definition, rounds, seed)
    )


def each_over(samples: Samples, ids: Iterable[str], item: str) -> np.ndarray | None:
    """Each run's number in each sample of images, (runs, rounds); None without runs, or where one has none. The runs
    are to be groups of their own in `samples`: `alone`."""
    found = [samples.get((run,), {}).get(item) for run in ids]
    known = [values for values in found if values is not None]
    return np.stack(known) if known and len(known) == len(found) else None


def alone(ids: Iterable[str]) -> list[Group]:
    """Each run as a group of its own, as `image_samples` is asked for what `each_over` needs."""
    return [(run,) for run in ids]


def sides(ours: dict[int, str], theirs: dict[int, str]) -> tuple[Group, Group]:
    """The runs (seed -> run id) of the seeds that both have."""
    shared = [seed for seed in ours if seed in theirs]
    return tuple(ours[seed] for seed in shared), tuple(theirs[seed] for seed in shared)


def paired_over(samples: Samples, ours: dict[int, str], theirs: dict[int, str], item: str) -> np.ndarray | None:
    """The difference of the runs of each seed (seed -> run id) in each sample of images, both on the same ones:
    (seeds, rounds)."""
    mine, its = (each_over(samples, side, item) for side in sides(ours, theirs))
    return None if mine is None or its is None else mine - its
