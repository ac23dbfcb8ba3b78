"""How much the gain moves when the paper is read another way: one assumption as an axis, or a scale's readings side by
side."""

from typing import Any

import numpy as np
from tabulate import tabulate

from benchmark.errors import UserError, nearest
from benchmark.matrix.grid import EVALUATION, Grid
from benchmark.matrix.job import FIELDS
from benchmark.matrix.matrix import Matrix
from benchmark.store import metrics, scores
from benchmark.store.run import Run
from benchmark.tables import collect, stats
from benchmark.tables.build import shown

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


def in_use(matrix: Matrix, name: str) -> Any:
    """The value that a run of this matrix has unless told otherwise."""
    fields = matrix.grid.base | matrix.overlay.set | matrix.overrides
    return fields.get(name, matrix.grid.assumptions[name].value)


def table(matrix: Matrix, name: str, values: list[Any], item: str | None = None) -> list[dict[str, Any]]:
    """A line for each value, backbone and method but the baseline: the gain over the baseline, paired by seed.

    Columns: value, in_use, backbone, method, n, planned, mean, gain, low, high, moved (gain - the gain at the value in
    use), command (to make what is missing; None where nothing is). `item` defaults to mAP, or top1.
    """
    used = in_use(matrix, name)
    lines = []
    for value in sorted(values, key=lambda v: v != used):
        read = matrix
        if name in FIELDS and value != used:
            read = matrix.asked_otherwise(overrides=matrix.overrides | {name: value})
        elif name == "ap_definition":
            read = matrix.asked_otherwise(average_precision=value)
        numbers = {job.id: _number(Run(read.folder(job)), read, name, value, item) for job in read.jobs}
        for backbone in dict.fromkeys(job.backbone for job in read.jobs):
            lines += _lines(read, backbone, numbers, value)
    for line in lines:
        line["in_use"] = line["value"] == used
        reference = next((o["gain"] for o in lines if o["value"] == used and _same(o, line)), None)
        line["moved"] = None if None in (line["gain"], reference) else line["gain"] - reference
    return lines


def _same(a: dict[str, Any], b: dict[str, Any]) -> bool:
    return a["method"] == b["method"] and a["backbone"] == b["backbone"]


def _lines(matrix: Matrix, backbone: str, numbers: dict[str, float | None], value: Any) -> list[dict[str, Any]]:
    jobs = [job for job in matrix.jobs if job.backbone == backbone]
    by_method = {m: {job.seed: numbers[job.id] for job in jobs if job.method == m} for m in matrix.methods}
    baseline, *methods = [method for method, by_seed in by_method.items() if by_seed]
    lines = []
    for method in methods:
        measured = {seed: v for seed, v in by_method[method].items() if v is not None}
        gains = [v - theirs for seed, v in measured.items() if (theirs := by_method[baseline].get(seed)) is not None]
        interval = stats.t_interval(gains)
        lines.append(
            {
                "value": value, "backbone": backbone, "method": method, "n": len(gains),
                "planned": len(by_method[method]), "mean": _mean(list(measured.values())), "gain": _mean(gains),
                "low": interval and interval[0],
                "high": interval and interval[1],
            }
        )  # fmt: skip
    missing = [line["method"] for line in lines if line["n"] < line["planned"]]
    command = matrix.command([baseline, *missing])
    return [line | {"command": command if line["method"] in missing else None} for line in lines]


def _mean(values: list[float]) -> float | None:
    return float(np.mean(values)) if values else None


def _number(run: Run, matrix: Matrix, name: str, value: Any, item: str | None) -> float | None:
    """One run's number in percent, None where it has none: as recorded, or from its saved scores."""
    record = collect.readable(run)
    if record is None:
        return None
    measured = collect.items(record, matrix.definition, matrix.min_positives)
    if name == "difficult_test":
        measured = rescored(run, matrix, DIFFICULT_TEST[value])
    item = item or record.headline
    if item not in measured:
        raise UserError(f"{run.id} has no '{item}'" + nearest(item, measured))
    return measured[item]


def rescored(run: Run, matrix: Matrix, difficult: int) -> dict[str, float | None]:
    """As collect.items, with label 0 (only difficult objects) read as `difficult`."""
    saved, record = scores.read(run), run.result()
    if record is None or saved.labels.ndim == 1:
        raise UserError(f"{run.id}: single-label images have no difficult objects")
    labels = np.where(saved.labels == 0, difficult, saved.labels)
    kept = record.frequent(matrix.min_positives) if matrix.min_positives > 1 else set(saved.classes)
    by_class = zip(saved.classes, metrics.per_class_ap(saved.predicted, labels, matrix.definition), strict=True)
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


def readings(matrix: Matrix) -> list[dict[str, Any]]:
    """A line for each of the matrix's readings, backbone and method but the baseline. None is left out: what did not
    run has its state.

    Columns: reading, backbone, method, state, n, planned, mean (%), gain (points over the baseline of the same seed),
    over_images (95% interval of the gain by the paired bootstrap over test images), loss and baseline_loss
    (classification, mean of the last epoch), overlap_inner and overlap_last (attention.overlap of the method's own kind
    of map after the last epoch), blank_last (share of blank true maps there), and the baseline's as baseline_<name>.
    """
    lines = []
    for reading in matrix.readings or matrix.overlay.readings:
        read = matrix.asked_otherwise(readings=(reading,))
        for backbone, method in dict.fromkeys((job.backbone, job.method) for job in read.jobs):
            if method == read.jobs[0].method:
                continue
            runs = {(j.method, j.seed): Run(read.folder(j)) for j in read.jobs if j.backbone == backbone}
            seeds = [seed for name, seed in runs if name == method]
            pairs = [(runs[read.jobs[0].method, seed], runs[method, seed]) for seed in seeds]
            head = {"reading": reading, "backbone": backbone, "method": method, "planned": len(seeds)}
            lines.append(head | _compared(pairs, read))
    return lines


def _compared(pairs: list[tuple[Run, Run]], matrix: Matrix) -> dict[str, Any]:
    """Means over the finished pairs of baseline and method."""
    done = [pair for pair in pairs if all(run.state() == "done" for run in pair)]
    if not done:
        states = [pair[1].state() for pair in pairs]
        return {"n": 0, "state": next((s for s in states if s in ("diverged", "failed", "running")), "not run")}
    records = [[record for run in pair if (record := run.result())] for pair in done]
    item = records[0][0].headline
    measured = [[collect.items(r, matrix.definition, matrix.min_positives)[item] for r in pair] for pair in records]
    values = np.array(measured, dtype=float)
    last = [[run.metrics()[-1] for run in pair] for pair in done]
    kind = done[0][1].job().method.removeprefix("icasc-")

    def mean(numbers: list[float | None]) -> float | None:
        known = [number for number in numbers if number is not None]
        return _mean(known) if len(known) == len(numbers) else None

    def loss(side: int) -> float | None:
        return mean([pair[side].loss for pair in last])

    def apart(side: int, key: str) -> float | None:
        return mean([pair[side].overlap(f"{kind}_{key}") for pair in last])

    samples = collect.image_samples(matrix, [run.id for pair in done for run in pair])
    theirs, ours = (dict(enumerate(run.id for run in side)) for side in zip(*done, strict=True))
    gained = collect.paired_over(samples, ours, theirs, item)
    return {
        "n": len(done), "state": "done" if len(done) == len(pairs) else "partial",
        "mean": float(values[:, 1].mean()), "gain": float((values[:, 1] - values[:, 0]).mean()),
        "over_images": None if gained is None else stats.percentile_interval(gained),
        "loss": loss(1), "baseline_loss": loss(0),
    } | {
        f"{prefix}{name}": apart(side, key)
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


def readings_text(matrix: Matrix, lines: list[dict[str, Any]], form: str) -> str:
    """The lines of `readings` as a table with what a reader must know: `simple` for a terminal, `pipe` for Markdown."""
    rows = [reading_row(line) for line in lines]
    notes = [
        f"Scale {matrix.scale}: {matrix.overlay.why}. Other assumptions as in the grid; not comparable with the paper.",
        "mean: mAP or top-1 in % after the last epoch, over n seeds; gain: method - baseline, paired by seed, with the"
        " paired bootstrap over the images tested on. loss: classification, training mean of the last epoch. overlap:"
        " of the true and the confusing class's maps on 64 of these images, 0 ... 1; blank: share of the 64 whose true"
        " map is zero everywhere, where there is nothing to overlap. In parentheses the baseline's.",
    ]
    least = matrix.min_positives
    notes += [f"Classes that fewer than {least} images of either split show are left out."] if least > 1 else []
    head = f"Readings of ICASC: {matrix.grid.title}"
    table = tabulate(rows, headers="keys", tablefmt=form, disable_numparse=True)
    if form == "pipe":
        head, notes = f"### {head}", [f"- {note}" for note in notes]
        table = table.replace("_", r"\_")
    return "\n".join([head, "", table, "", *notes, ""])
