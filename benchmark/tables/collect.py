"""From run folders to one tidy frame, a line for each job and each measured number; and to the same numbers on
bootstrap samples of the test images."""

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmark.errors import UserError
from benchmark.matrix.job import FIELDS, Job
from benchmark.store import metrics, scores
from benchmark.store.run import Run
from benchmark.tables import bootstrap

COLUMNS = ["job", "state", *FIELDS, "item", "value"]
SINGLE_LABEL = ("top1", "top5")
ROUNDS = bootstrap.ROUNDS

Samples = dict[str, dict[str, np.ndarray]]  # run id -> item -> (rounds,) in percent


def collect(runs: Path, jobs: list[Job], ap_definition: str, min_positives: int = 1) -> tuple[pd.DataFrame, list[str]]:
    """The frame, in percent, and a warning for each record that could not be read.

    Columns: job (its id), state, every field of Job, item, value. `item` is a class name, `mAP`, `top1` or `top5`;
    `value` is NaN where too few images show the class (see `items`). A job without a result has one line whose item is
    None.
    """
    lines, warnings = [], []
    for job in jobs:
        run = Run(runs / job.scale / job.id)
        head = {"job": job.id} | job.model_dump()
        try:
            state, values = _read(run, ap_definition, min_positives)
        except UserError as error:
            warnings.append(str(error))
            state, values = "pending", {}
        head["state"] = state
        lines += [head | {"item": item, "value": value} for item, value in values.items()] or [head]
    return pd.DataFrame(lines, columns=COLUMNS), warnings


def _read(run: Run, ap_definition: str, min_positives: int) -> tuple[str, dict[str, float | None]]:
    state = run.state()
    if state != "done":
        return state, {}
    return state, items(run, ap_definition, min_positives)


def items(run: Run, ap_definition: str, min_positives: int = 1) -> dict[str, float | None]:
    """Every measured number of a finished run, in percent. UserError where the record is no result of this run.

    A class with fewer than `min_positives` images in either split is None, and not in mAP.
    """
    record: dict[str, Any] = run.read("result.json") or {}
    try:
        if record["job"] != run.id:
            raise UserError(f"{run.path('result.json')}: is of job {record['job']}; move the folder away")
        values = {item: record[item] for item in SINGLE_LABEL if item in record}
        if "ap" in record or not values:
            ap, mean = record["ap"][ap_definition], record["mAP"][ap_definition]
            if min_positives > 1:
                kept = frequent(record, min_positives)
                ap = {name: value if name in kept else None for name, value in ap.items()}
                mean = metrics.mean_ap(list(ap.values()))
            values |= ap | {"mAP": mean}
        if not all(v is None or (isinstance(v, int | float) and 0 <= v <= 1) for v in values.values()):
            raise ValueError("a measured number is no share from 0 to 1")
        return {item: None if v is None else 100 * float(v) for item, v in values.items()}
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{run.path('result.json')}: not a result ({type(error).__name__}: {error}); "
            "move the folder away and call again"
        ) from None


def frequent(record: dict[str, Any], min_positives: int) -> set[str]:
    """The classes that at least so many images of each split show."""
    counts = record["num_positive"], record["num_positive_train"]
    return {name for name in record["num_positive"] if all(of[name] >= min_positives for of in counts)}


def image_samples(
    runs: Path,
    scale: str,
    ids: list[str],
    definition: str,
    rounds: int = ROUNDS,
    item: str | None = None,
    min_positives: int = 1,
    cache: Path | None = bootstrap.CACHE,
) -> Samples:
    """Each run's numbers on bootstrap samples of its test images, in percent; only `item` where one is named. Classes
    with fewer images than `min_positives` are left out, as in `items`.

    Runs tested on the same images get the same samples, so their differences are paired; others independent ones.
    """
    samples = {}
    for run in (Run(runs / scale / name) for name in ids):
        if run.path("scores.npz").exists():
            drawn = _resampled(run, definition, rounds, min_positives, cache)
            samples[run.id] = {name: 100 * values for name, values in drawn.items() if item in (None, name)}
    bootstrap.draws.cache_clear()
    return samples


def _resampled(run: Run, definition: str, rounds: int, min_positives: int, cache: Path | None) -> dict[str, np.ndarray]:
    saved = scores.read(run)
    labels, predicted, classes = saved.labels, saved.predicted, saved.classes
    if labels.ndim == 2 and min_positives > 1:
        wanted = frequent(run.read("result.json"), min_positives)
        kept = [c for c, name in enumerate(classes) if name in wanted]
        labels, predicted, classes = labels[:, kept], predicted[:, kept], [classes[c] for c in kept]
    key = bootstrap.cache_key(run.path("scores.npz").read_bytes(), definition, classes, rounds)
    seed = int.from_bytes(hashlib.sha256("\n".join(map(str, saved.ids)).encode()).digest()[:8])
    return bootstrap.cached(
        cache, key, lambda: bootstrap.resampled(predicted, labels, classes, definition, rounds, seed)
    )


def mean_over(samples: Samples, ids: Iterable[str], item: str) -> np.ndarray | None:
    """The runs' mean in each sample of images; None where one has none."""
    found = [samples.get(name, {}).get(item) for name in ids]
    return None if not found or any(f is None for f in found) else np.mean(found, axis=0)


def paired_over(samples: Samples, ours: dict[int, str], theirs: dict[int, str], item: str) -> np.ndarray | None:
    """The mean difference of runs of the same seed (seed -> run id) in each sample of images: both on the same ones."""
    shared = [seed for seed in ours if seed in theirs]
    found = [mean_over(samples, [of[seed] for seed in shared], item) for of in (ours, theirs)]
    return None if found[0] is None or found[1] is None else found[0] - found[1]
