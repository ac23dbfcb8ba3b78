"""Executors start `python -m benchmark run-job FOLDER` and nothing else; what a run is, they do not know."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from benchmark.errors import UserError, nearest
from benchmark.executors import local, ray, slurm
from benchmark.executors.outcome import Outcome, View
from benchmark.matrix import strict_yaml
from benchmark.matrix.job import explain, first_problem
from benchmark.store.run import Run

Execute = Callable[[list[Run], list[str], Any, View], dict[str, Outcome]]  # runs, options of run-job, own settings

EXECUTORS: dict[str, Execute] = {"local": local.execute, "ray": ray.execute, "slurm": slurm.execute}
SETTINGS: dict[str, type[BaseModel]] = {"ray": ray.Settings, "slurm": slurm.Settings}


def read_settings(executor: str, path: Path | None) -> Any:
    """The executor's settings from a YAML file, its defaults without one; None for `local`, which has options instead.

    UserError with file, line and the nearest valid name for anything wrong.
    """
    if executor not in EXECUTORS:
        raise UserError(f"--executor {executor}: there is no such executor" + nearest(executor, EXECUTORS))
    if executor == "local":
        if path is not None:
            raise UserError(f"--settings {path}: the local executor has none; name --executor ray or slurm")
        return None
    model = SETTINGS[executor]
    document, lines = strict_yaml.load(path) if path is not None else ({}, {})
    document = {} if document is None else document
    if not isinstance(document, dict):
        raise UserError(f"{path}: settings are a mapping with the keys {', '.join(model.model_fields)}")
    try:
        return model(**document)
    except ValidationError as error:
        line = strict_yaml.line_of(lines, first_problem(error)["loc"])
        raise UserError(f"{path}:{line}: {explain(error, tuple(model.model_fields))}") from None
