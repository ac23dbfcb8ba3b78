"""From run folders to one tidy frame: a line for each job and each measured number; and to the saved scores."""

import hashlib
import io
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmark import metrics
from benchmark.errors import UserError
from benchmark.job import FIELDS, Job
from benchmark.store import Run

COLUMNS = ["job", "state", *FIELDS, "item", "value"]
SINGLE_LABEL = ("top1", "top5")


@dataclass(frozen=True)
class Scores:
    """What a run keeps of its test set. labels: (N, C) of 1 present, 0 only difficult, -1 absent; or (N,) of class
    numbers."""

    ids: np.ndarray
    labels: np.ndarray
    scores_NC: np.ndarray
    classes: list[str]


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
        return {item: None if v is None else 100 * float(v) for item, v in values.items()}
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{run.path('result.json')}: not a result ({type(error).__name__}: {error}); "
            "move the folder away and call again"
        ) from None


def frequent(record: dict[str, Any], min_positives: int) -> set[str]:
    """The classes that at least so many images of each split show."""
    counts = record["num_positive"], record["num_positive_train"]
    return {name for name in record["num_positive"] if all(of[name] >= min_positives for of in counts)}


def read_scores(run: Run) -> Scores:
    """The saved test scores. UserError where they are missing, damaged, or not the ones the result was made from."""
    path, record = run.path("scores.npz"), run.read("result.json") or {}
    try:
        saved = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    if record.get("scores_sha256") not in (None, hashlib.sha256(saved).hexdigest()):
        raise UserError(f"{path}: not the scores that result.json was made from; restore it, or move the folder away")
    try:
        with np.load(io.BytesIO(saved)) as arrays:
            ids, labels, scores_NC = arrays["ids"], arrays["labels"], arrays["scores"]
            classes = arrays["classes"].tolist() if "classes" in arrays else _classes(record, labels, scores_NC)
    except (KeyError, ValueError, zipfile.BadZipFile) as error:
        raise UserError(f"{path}: not a file of scores ({error})") from None
    return Scores(ids, labels, scores_NC, classes)


def _classes(record: dict[str, Any], labels: np.ndarray, scores_NC: np.ndarray) -> list[str]:
    # Records sort their keys; the only multi-label set, VOC, has its classes in that order.
    if labels.ndim == 1:
        return [str(c) for c in range(scores_NC.shape[1])]
    classes = sorted(next(iter(record.get("ap", {"": {}}).values())))
    if len(classes) != scores_NC.shape[1]:
        raise ValueError(f"{scores_NC.shape[1]} columns for {len(classes)} classes")
    return classes
