"""An assumption as an axis: how much the gain moves when the paper is read another way."""

from pathlib import Path
from typing import Any

import numpy as np

from benchmark import explain, metrics, results, stats
from benchmark.errors import UserError, nearest
from benchmark.grid import EVALUATION, Grid
from benchmark.job import FIELDS, Job
from benchmark.store import Run
from benchmark.tables import default_definition, shown

# Read from saved scores, no training: what becomes of a test image that shows a class only as a difficult object.
DIFFICULT_TEST = {"ignored": 0, "negative": -1, "positive": 1}
FROM_SCORES = {"ap_definition": tuple(metrics.DEFINITIONS), "difficult_test": tuple(DIFFICULT_TEST)}


def values_of(grid: Grid, name: str) -> list[Any]:
    """What assumption `name` can be. UserError for what is no assumption or has one value."""
    if name not in grid.assumptions:
        raise UserError(f"grid {grid.name} assumes nothing about '{name}'" + nearest(name, grid.assumptions))
    assumption = grid.assumptions[name]
    values = list(dict.fromkeys([assumption.value, *assumption.alternatives, *FROM_SCORES.get(name, ())]))
    if len(values) == 1:
        raise UserError(f"grid {grid.name}: '{name}' has no alternatives; add some to its YAML")
    if name in EVALUATION and name not in FROM_SCORES:
        raise UserError(f"'{name}' is not kept in the run folders, so other values cannot be tabled")
    return values


def in_use(grid: Grid, scale: str, name: str, changed: dict[str, Any]) -> Any:
    """The value that a run of this scale has unless told otherwise."""
    held = grid.base | grid.scales[scale].set | changed
    return held.get(name, grid.assumptions[name].value)


def table(
    grid: Grid, scale: str, name: str, values: list[Any], changed: dict[str, Any], runs: Path, item: str | None = None
) -> list[dict[str, Any]]:
    """A line for each value, backbone and method but the baseline: the gain over the baseline, paired by seed.

    Columns: value, in_use, backbone, method, n, planned, mean, gain, low, high, moved (gain - the gain at the value in
    use), command (to make what is missing; None where nothing is). `item` defaults to mAP, or top1.
    """
    used = in_use(grid, scale, name, changed)
    lines = []
    for value in sorted(values, key=lambda v: v != used):
        overrides = changed | ({name: value} if name in FIELDS and value != used else {})
        jobs = grid.jobs(scale, overrides)
        numbers = {job.id: _number(Run(runs / scale / job.id), grid, name, value, item) for job in jobs}
        for backbone in dict.fromkeys(job.backbone for job in jobs):
            here = [job for job in jobs if job.backbone == backbone]
            lines += _lines(grid, scale, overrides, here, numbers, value)
    for line in lines:
        line["in_use"] = line["value"] == used
        reference = next((o["gain"] for o in lines if o["value"] == used and _same(o, line)), None)
        line["moved"] = None if None in (line["gain"], reference) else line["gain"] - reference
    return lines


def _same(a: dict[str, Any], b: dict[str, Any]) -> bool:
    return a["method"] == b["method"] and a["backbone"] == b["backbone"]


def _lines(
    grid: Grid, scale: str, overrides: dict[str, Any], jobs: list[Job], numbers: dict[str, float | None], value: Any
) -> list[dict[str, Any]]:
    methods = list(dict.fromkeys(job.method for job in jobs))
    by_method = {m: {job.seed: numbers[job.id] for job in jobs if job.method == m} for m in methods}
    baseline = by_method[methods[0]]
    lines = []
    for method in methods[1:]:
        found = {seed: v for seed, v in by_method[method].items() if v is not None}
        gains = [v - baseline[seed] for seed, v in found.items() if baseline.get(seed) is not None]
        interval = stats.t_interval(gains)
        lines.append(
            {
                "value": value, "backbone": jobs[0].backbone, "method": method, "n": len(gains),
                "planned": len(by_method[method]), "mean": float(np.mean(list(found.values()))) if found else None,
                "gain": float(np.mean(gains)) if gains else None, "low": interval and interval[0],
                "high": interval and interval[1],
            }
        )  # fmt: skip
    missing = [line["method"] for line in lines if line["n"] < line["planned"]]
    command = explain.command(grid, scale, overrides, jobs, [methods[0], *missing], {})
    return [line | {"command": command if line["method"] in missing else None} for line in lines]


def _number(run: Run, grid: Grid, name: str, value: Any, item: str | None) -> float | None:
    """One run's number in percent, None where it has none: as recorded, or from its saved scores."""
    if run.state() != "done":
        return None
    definition = value if name == "ap_definition" else default_definition(grid)
    found = results.items(run, definition)
    if name == "difficult_test":
        found = rescored(run, definition, DIFFICULT_TEST[value])
    item = item or ("mAP" if "mAP" in found else "top1")
    if item not in found:
        raise UserError(f"{run.id} has no '{item}'" + nearest(item, found))
    return found[item]


def rescored(run: Run, definition: str, difficult: int) -> dict[str, float | None]:
    """AP of each class, and mAP, in percent, with label 0 (only difficult objects) read as `difficult`."""
    saved = results.read_scores(run)
    if saved.labels.ndim == 1:
        raise UserError(f"{run.id}: single-label images have no difficult objects")
    labels = np.where(saved.labels == 0, difficult, saved.labels)
    ap = metrics.per_class_ap(saved.scores_NC, labels, definition)
    share = dict(zip(saved.classes, ap, strict=True)) | {"mAP": metrics.mean_ap(ap)}
    return {name: None if v is None else 100 * v for name, v in share.items()}


def text_row(line: dict[str, Any]) -> dict[str, str]:
    """A line for people."""

    def number(value: float | None, sign: str = "+") -> str:
        return "–" if value is None else f"{value:{sign}.2f}"

    interval = "–" if line["low"] is None else f"[{line['low']:+.2f}, {line['high']:+.2f}]"
    return {
        "value": shown(line["value"]) + (" (in use)" if line["in_use"] else ""),
        "backbone": line["backbone"],
        "method": line["method"],
        "runs": f"{line['n']} of {line['planned']}",
        "mean": number(line["mean"], ""),
        "gain": number(line["gain"]),
        "95% over seeds": interval,
        "gain moves": "" if line["in_use"] else number(line["moved"]),
    }
