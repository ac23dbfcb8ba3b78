"""From run folders to one tidy frame: a line for each job and each measured number."""

from pathlib import Path
from typing import Any

import pandas as pd

from benchmark.errors import UserError
from benchmark.job import FIELDS, Job
from benchmark.store import Run

COLUMNS = ["job", "state", *FIELDS, "item", "value"]


def collect(runs: Path, jobs: list[Job], ap_definition: str) -> tuple[pd.DataFrame, list[str]]:
    """The frame, in percent, and a warning for each record that could not be read.

    Columns: job (its id), state, every field of Job, item, value. `item` is a class name or `mAP`; `value` is NaN
    where the test set shows no such object. A job without a result has one line whose item is None.
    """
    lines, warnings = [], []
    for job in jobs:
        run = Run(runs / job.scale / job.id)
        head = {"job": job.id} | job.model_dump()
        try:
            state, values = _read(run, ap_definition)
        except UserError as error:
            warnings.append(str(error))
            state, values = "pending", {}
        head["state"] = state
        lines += [head | {"item": item, "value": value} for item, value in values.items()] or [head]
    return pd.DataFrame(lines, columns=COLUMNS), warnings


def _read(run: Run, ap_definition: str) -> tuple[str, dict[str, float | None]]:
    state = run.state()
    if state != "done":
        return state, {}
    record: dict[str, Any] = run.read("result.json") or {}
    try:
        if record["job"] != run.id:
            raise UserError(f"{run.path('result.json')}: is of job {record['job']}; move the folder away")
        values = record["ap"][ap_definition] | {"mAP": record["mAP"][ap_definition]}
        return state, {item: None if v is None else 100 * float(v) for item, v in values.items()}
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{run.path('result.json')}: not a result ({type(error).__name__}: {error}); "
            "move the folder away and call again"
        ) from None
