"""How much the gain moves when the paper is read another way: one assumption as an axis, or a scale's readings side by
side."""

from pathlib import Path
from typing import Any

import numpy as np
from tabulate import tabulate

from benchmark.errors import UserError, nearest
from benchmark.evidence import explain
from benchmark.matrix.grid import EVALUATION, Grid
from benchmark.matrix.job import FIELDS, Job
from benchmark.store import metrics, scores
from benchmark.store.run import Run
from benchmark.tables import collect, stats
from benchmark.tables.build import default_definition, shown

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
    least = grid.scales[run.job().scale].min_positives
    found = collect.items(run, definition, least)
    if name == "difficult_test":
        found = rescored(run, definition, DIFFICULT_TEST[value], least)
    item = item or ("mAP" if "mAP" in found else "top1")
    if item not in found:
        raise UserError(f"{run.id} has no '{item}'" + nearest(item, found))
    return found[item]


def rescored(run: Run, definition: str, difficult: int, min_positives: int = 1) -> dict[str, float | None]:
    """As collect.items, with label 0 (only difficult objects) read as `difficult`."""
    saved = scores.read(run)
    if saved.labels.ndim == 1:
        raise UserError(f"{run.id}: single-label images have no difficult objects")
    labels = np.where(saved.labels == 0, difficult, saved.labels)
    kept = collect.frequent(run.read("result.json"), min_positives) if min_positives > 1 else set(saved.classes)
    by_class = zip(saved.classes, metrics.per_class_ap(saved.predicted, labels, definition), strict=True)
    ap = {name: value if name in kept else None for name, value in by_class}
    share = ap | {"mAP": metrics.mean_ap(list(ap.values()))}
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


def readings(grid: Grid, scale: str, runs: Path) -> list[dict[str, Any]]:
    """A line for each of the scale's readings, backbone and method but the baseline. None is left out: what did not run
    has its state.

    Columns: reading, backbone, method, state, n, planned, mean (%), gain (points over the baseline of the same seed),
    over_images (95% interval of the gain by the paired bootstrap over test images), loss and baseline_loss
    (classification, mean of the last epoch), overlap_inner and overlap_last (attention.overlap of the method's own kind
    of map after the last epoch), blank_last (share of blank true maps there), and the baseline's as baseline_<name>.
    """
    lines = []
    for reading in grid.scales[scale].readings:
        jobs = grid.jobs(scale, readings=[reading])
        for backbone, method in dict.fromkeys((job.backbone, job.method) for job in jobs if job.method != "baseline"):
            of_backbone = {(job.method, job.seed): job for job in jobs if job.backbone == backbone}
            seeds = [seed for name, seed in of_backbone if name == method]
            pairs = [
                [Run(runs / scale / of_backbone[name, seed].id) for name in ("baseline", method)] for seed in seeds
            ]
            lines.append(
                {"reading": reading, "backbone": backbone, "method": method, "planned": len(seeds)}
                | _compared([p for p in pairs if {run.state() for run in p} == {"done"}], pairs, grid, scale)
            )
    return lines


def _compared(done: list[list[Run]], pairs: list[list[Run]], grid: Grid, scale: str) -> dict[str, Any]:
    """Means over the finished pairs of baseline and method."""
    if not done:
        states = [pair[1].state() for pair in pairs]
        return {"n": 0, "state": next((s for s in states if s in ("diverged", "failed", "running")), "not run")}
    definition, least = default_definition(grid), grid.scales[scale].min_positives
    item = "mAP" if "mAP" in collect.items(done[0][0], definition) else "top1"
    values = np.array([[collect.items(run, definition, least)[item] for run in pair] for pair in done])
    last = [[run.metrics()[-1] for run in pair] for pair in done]
    kind = done[0][1].job().method.removeprefix("icasc-")

    def mean(side: int, *keys: str) -> float | None:
        found = [pair[side].get(keys[0], {}).get(keys[1]) for pair in last]
        return None if None in found else float(np.mean(found))

    ids = [run.id for pair in done for run in pair]
    samples = collect.image_samples(done[0][0].folder.parents[1], scale, ids, definition, min_positives=least)
    theirs, ours = (dict(enumerate(run.id for run in side)) for side in zip(*done, strict=True))
    gained = collect.paired_over(samples, ours, theirs, item)
    return {
        "n": len(done), "state": "done" if len(done) == len(pairs) else "partial",
        "mean": float(values[:, 1].mean()), "gain": float((values[:, 1] - values[:, 0]).mean()),
        "over_images": None if gained is None else stats.percentile_interval(gained),
        "loss": mean(1, "train", "classification"), "baseline_loss": mean(0, "train", "classification"),
    } | {
        f"{prefix}{name}": mean(side, "attention_overlap", f"{kind}_{key}")
        for side, prefix in ((0, "baseline_"), (1, ""))
        for name, key in (("overlap_inner", "inner"), ("overlap_last", "last"), ("blank_last", "last_blank"))
    }  # fmt: skip


def reading_row(line: dict[str, Any]) -> dict[str, str]:
    """A line of `readings` for people; a pair is method, then baseline."""

    def number(key: str, form: str = ".2f") -> str:
        return "–" if line.get(key) is None else f"{line[key]:{form}}"

    def beside(key: str, form: str) -> str:
        return f"{number(key, form)} ({number(f'baseline_{key}', form)})"

    interval = line.get("over_images")
    return {
        "reading": ", ".join(f"{name} {shown(value)}" for name, value in line["reading"].items()),
        "method": line["method"],
        "n": str(line["n"]) if line["state"] == "done" else f"{line['n']} [{line['state']}]",
        "mean": number("mean"),
        "gain": number("gain", "+.2f"),
        "95% over images": "–" if interval is None else f"[{interval[0]:+.2f}, {interval[1]:+.2f}]",
        "loss (baseline's)": beside("loss", ".4f"),
        "overlap, inner": beside("overlap_inner", ".3f"),
        "overlap, last": beside("overlap_last", ".3f"),
        "blank, last": beside("blank_last", ".2f"),
    }


def readings_text(grid: Grid, scale: str, lines: list[dict[str, Any]], form: str) -> str:
    """The lines of `readings` as a table with what a reader must know: `simple` for a terminal, `pipe` for Markdown."""
    rows = [reading_row(line) for line in lines]
    notes = [
        f"Scale {scale}: {grid.scales[scale].why}. Other assumptions as in the grid; not comparable with the paper.",
        "mean: mAP or top-1 in % after the last epoch, over n seeds; gain: method - baseline, paired by seed, with the"
        " paired bootstrap over the images tested on. loss: classification, training mean of the last epoch. overlap:"
        " of the true and the confusing class's maps on 64 of these images, 0 ... 1; blank: share of the 64 whose true"
        " map is zero everywhere, where there is nothing to overlap. In parentheses the baseline's.",
    ]
    least = grid.scales[scale].min_positives
    notes += [f"Classes that fewer than {least} images of either split show are left out."] if least > 1 else []
    head = f"Readings of ICASC: {grid.title}"
    table = tabulate(rows, headers="keys", tablefmt=form, disable_numparse=True)
    if form == "pipe":
        head, notes = f"### {head}", [f"- {note}" for note in notes]
        table = table.replace("_", r"\_")
    return "\n".join([head, "", table, "", *notes, ""])
