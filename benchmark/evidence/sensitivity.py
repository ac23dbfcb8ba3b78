"""How much the gain moves when the paper is read another way: one assumption as an axis, or a scale's readings side by
side."""

from typing import Any

import numpy as np
from tabulate import tabulate

from benchmark.errors import UserError, nearest
from benchmark.matrix import study
from benchmark.matrix.grid import EVALUATION
from benchmark.matrix.job import FIELDS, Job
from benchmark.matrix.matrix import Matrix
from benchmark.results import pairing
from benchmark.results.pairing import Pairs
from benchmark.results.results import Finished, Missing, Results
from benchmark.stats import claims
from benchmark.store import metrics
from benchmark.tables.build import shown
from benchmark.tables.cells import CROSSING
from benchmark.tables.render import escape_markdown

# What becomes of a test image that shows a class only as a difficult object.
DIFFICULT_TEST = {"ignored": 0, "negative": -1, "positive": 1}
# `area` where tied images count in the order of the image list, as the development kit's stable sort has them. Ours
# count together, which is the lowest AP that an order can have.
LIST_ORDER = "area_list_order"
# Read from finished runs, no training.
FROM_RECORDS: dict[str, tuple[Any, ...]] = {
    "ap_definition": (*metrics.DEFINITIONS, LIST_ORDER),
    "difficult_test": tuple(DIFFICULT_TEST),
    "checkpoint": ("last_epoch", "best_on_test"),  # over all classes, as the best epoch is recorded
    "min_positives": (1, 5, 15, 30, 50),  # images of a class in each split, fewer of which leave it out of mAP
}


def values_of(matrix: Matrix, name: str) -> list[Any]:
    """What assumption `name`, or `min_positives`, can be. UserError for what is no assumption or has one value."""
    grid = matrix.grid
    if name == "min_positives":
        return list(dict.fromkeys([matrix.min_positives, *FROM_RECORDS[name]]))
    if name not in grid.assumptions:
        valid = [*grid.assumptions, "min_positives"]
        raise UserError(f"grid {grid.name} assumes nothing about '{name}'" + nearest(name, valid))
    assumption = grid.assumptions[name]
    values = list(dict.fromkeys([assumption.value, *assumption.alternatives, *FROM_RECORDS.get(name, ())]))
    if len(values) == 1:
        raise UserError(f"grid {grid.name}: '{name}' has no alternatives; add some to its YAML")
    if name in EVALUATION and name not in FROM_RECORDS:
        raise UserError(f"'{name}' is not kept in the run folders, so other values cannot be tabled")
    return values


def in_use(matrix: Matrix, name: str) -> Any:
    """The value that a run of this matrix has unless told otherwise."""
    if name == "min_positives":
        return matrix.min_positives
    fields = matrix.grid.base | matrix.overlay.set | matrix.overrides
    return fields.get(name, matrix.grid.assumptions[name].value)


def table(results: Results, name: str, values: list[Any], item: str | None = None) -> list[dict[str, Any]]:
    """A line for each value, backbone and method but the baseline: the gain over the baseline, paired by seed.

    Columns: value, in_use, backbone, method, n, planned, mean, gain, low, high (95%, over what `over` says), unpaired
    (why pairs were not made), crosses, seeds and gains (of each pair), moved (gain - the gain at the value in use, over
    the seeds that both have), command (to make what is missing; None where nothing is). `item` defaults to mAP, or
    top1.
    """
    used = in_use(results.matrix, name)
    for value in values:
        _check(name, value)
    if name == "checkpoint":
        results = results.asked_otherwise(least_positives=1)
    lines = []
    for value in sorted(values, key=lambda v: v != used):
        read = results
        if name in FIELDS and value != used:
            read = results.asked_otherwise(overrides=results.matrix.overrides | {name: value})
        elif name == "ap_definition" and value != LIST_ORDER:
            read = results.asked_otherwise(average_precision=value)
        elif name == "min_positives":
            read = results.asked_otherwise(least_positives=value)
        numbers = {job.id: _number(read, job, name, value, item) for job in read.matrix.jobs}
        for backbone in dict.fromkeys(job.backbone for job in read.matrix.jobs):
            # Scores are resampled as recorded: of the last epoch, with their labels, ties together. Of others, seeds
            # alone are known.
            as_recorded = value != LIST_ORDER and (name not in ("difficult_test", "checkpoint") or value == used)
            lines += _lines(read, backbone, numbers, value, item, as_recorded)
    for line in lines:
        line["in_use"] = line["value"] == used
        reference = next((other for other in lines if other["value"] == used and _same(other, line)), None)
        line["moved"] = None if reference is None else difference(line, reference)
    return lines


def difference(line: dict[str, Any], other: dict[str, Any]) -> float | None:
    """Of two lines' gains, over the seeds that both have, else another seed would be taken for the reading; None where
    they share none."""
    ours, theirs = (dict(zip(of["seeds"], of["gains"], strict=True)) for of in (line, other))
    return _mean([gain - theirs[seed] for seed, gain in ours.items() if seed in theirs])


def _check(name: str, value: Any) -> None:
    known = FROM_RECORDS.get(name, ())
    if name == "min_positives":
        if type(value) is not int or value < 1:
            raise UserError(f"min_positives={value}: a number of images, 1 or more")
    elif known and value not in known:
        raise UserError(f"{name}={value}: there is no such reading" + nearest(value, known))


def _same(a: dict[str, Any], b: dict[str, Any]) -> bool:
    return a["method"] == b["method"] and a["backbone"] == b["backbone"]


def _lines(
    results: Results, backbone: str, numbers: dict[str, float | None], value: Any, item: str | None, resample: bool
) -> list[dict[str, Any]]:
    matrix = results.matrix
    jobs = [job for job in matrix.jobs if job.backbone == backbone]
    by_method = {m: [job for job in jobs if job.method == m] for m in matrix.methods}
    baseline, *methods = [method for method, of in by_method.items() if of]
    measured = {
        method: {job.seed: (job.id, number) for job in of if (number := numbers[job.id]) is not None}
        for method, of in by_method.items()
    }
    compared = _gains_over(baseline, measured, results, item, resample)
    lines = []
    for method in methods:
        pairs, interval = compared[method]
        lines.append(
            {
                "value": value, "backbone": backbone, "method": method, "n": len(pairs.gains),
                "planned": len(by_method[method]), "mean": _mean([measured[method][seed][1] for seed in pairs.seeds]),
                "gain": pairs.mean, "low": interval and interval.low, "high": interval and interval.high,
                "over": interval and interval.over, "unpaired": list(pairs.unpaired), "crosses": pairs.crosses,
                "seeds": list(pairs.seeds), "gains": list(pairs.gains),
            }
        )  # fmt: skip
    missing = [line["method"] for line in lines if line["n"] < line["planned"]]
    command = matrix.command([baseline, *missing])
    return [line | {"command": command if line["method"] in missing else None} for line in lines]


def _gains_over(
    baseline: str, measured: dict[str, dict[int, tuple[str, float]]], results: Results, item: str | None,
    resample: bool = True,
) -> dict[str, tuple[Pairs, claims.GainInterval | None]]:  # fmt: skip
    """Each method's pairs with the baseline and the interval of their gain, as a table has them. measured: method ->
    seed -> run and value."""
    pairs = {
        method: results.pairs(by_seed, measured[baseline]) for method, by_seed in measured.items() if method != baseline
    }
    ids = (run for by_seed in measured.values() for run, _ in by_seed.values())
    item = item or next((found.record.headline for found in results.finished(ids)), None)

    def paired_runs(method: str) -> tuple[dict[int, str], dict[int, str]]:
        of = {seed: measured[method][seed][0] for seed in pairs[method].seeds}
        return of, {seed: measured[baseline][seed][0] for seed in of}

    sides = [side for method in pairs for side in pairing.sides(*paired_runs(method)) if resample]
    samples = results.resample(pairing.alone(dict.fromkeys(run for side in sides for run in side)), item=item)
    found = {}
    for method, of in pairs.items():
        drawn = pairing.paired_over(samples, *paired_runs(method), item) if item else None
        found[method] = of, claims.gain_interval(of.gains, drawn)
    return found


def _mean(values: list[float]) -> float | None:
    return float(np.mean(values)) if values else None


def _number(results: Results, job: Job, name: str, value: Any, item: str | None) -> float | None:
    """One run's number in percent, None where it has none: as recorded, or from its saved scores."""
    found = results.of(job)
    if isinstance(found, Missing):
        return None
    record, measured, kept = found.record, results.items(job), results.classes_in_mean(job)
    if (name == "difficult_test" or value == LIST_ORDER) and found.scores is None:
        return None  # a warning says that it keeps none
    if name == "difficult_test":
        measured = rescored(found, results.matrix.definition, DIFFICULT_TEST[value], kept)
    if value == LIST_ORDER and not record.single_label:
        measured = rescored(found, "area", DIFFICULT_TEST["ignored"], kept, list_order=True)
    item = item or record.headline
    if item not in measured:
        raise UserError(f"{job.id} has no '{item}'" + nearest(item, measured))
    if value == "best_on_test":
        best = record.best_on_test
        if item != record.headline:
            raise UserError(f"checkpoint=best_on_test: only {record.headline} is recorded of that epoch, no {item}")
        share = None if best is None else best.top1 if record.single_label else best.mAP
        return None if share is None else 100 * share
    return measured[item]


def in_list_order(scores_N: np.ndarray) -> np.ndarray:
    """Scores without ties (N,): of equal ones the first in the list is the higher."""
    ranked_N = np.empty(len(scores_N))
    ranked_N[np.argsort(-scores_N, kind="stable")] = -np.arange(len(scores_N))
    return ranked_N


def rescored(
    found: Finished, definition: str, difficult: int, kept: set[str] | None = None, list_order: bool = False
) -> dict[str, float | None]:
    """As results.items, with label 0 (only difficult objects) read as `difficult`; list_order: see `in_list_order`."""
    saved = found.scores
    if saved is None:
        raise UserError(found.damage.get("scores.npz", f"{found.run.path('scores.npz')}: missing"))
    if saved.labels.ndim == 1:
        raise UserError(f"{found.id}: single-label images have no difficult objects")
    labels = np.where(saved.labels == 0, difficult, saved.labels)
    predicted = saved.predicted
    if list_order:
        predicted = np.stack([in_list_order(column) for column in predicted.T], axis=1)
    by_class = zip(saved.classes, metrics.per_class_ap(predicted, labels, definition), strict=True)
    ap = {name: value if kept is None or name in kept else None for name, value in by_class}
    share = ap | {"mAP": metrics.mean_ap(list(ap.values()))}
    return {name: None if v is None else 100 * v for name, v in share.items()}


def text_row(line: dict[str, Any]) -> dict[str, str]:
    """A line for people."""

    def number(value: float | None, sign: str = "+") -> str:
        return "–" if value is None else f"{value:{sign}.2f}"

    return {
        "value": shown(line["value"]) + (" (in use)" if line["in_use"] else ""),
        "backbone": line["backbone"],
        "method": line["method"],
        "runs": f"{line['n']} of {line['planned']}",
        "mean": number(line["mean"], ""),
        "gain": number(line["gain"]),
        "95%": _span(line),
        "gain moves": "" if line["in_use"] else number(line["moved"]),
    }


def readings(results: Results) -> list[dict[str, Any]]:
    """A line for each of the matrix's readings, backbone and method but the baseline. None is left out: what did not
    run has its state.

    Columns: reading, backbone, method, state, n (pairs), planned, mean (%), gain (points over the baseline of the same
    seed and test images), seeds and gains (of each pair), low, high and over (its 95% interval and what that covers, as
    in tables), image_error (its standard error over test images, None where they were not resampled), unpaired,
    crosses, loss and baseline_loss (classification, mean of the last epoch), overlap_inner and overlap_last
    (Epoch.shown_overlap of the method's own kind of map after the last epoch), blank_last (share of blank true maps
    there), and the baseline's as baseline_<name>.
    """
    lines, matrix = [], results.matrix
    for reading in matrix.readings or matrix.overlay.readings:
        read = results.asked_otherwise(readings=(reading,))
        for backbone in dict.fromkeys(job.backbone for job in read.matrix.jobs):
            lines += [{"reading": reading, "backbone": backbone} | line for line in _of_reading(read, backbone)]
    return lines


def _of_reading(results: Results, backbone: str) -> list[dict[str, Any]]:
    runs: dict[str, dict[int, Finished | Missing]] = {}
    numbers: dict[str, dict[int, tuple[str, float]]] = {}
    for job in results.matrix.jobs:
        if job.backbone == backbone:
            runs.setdefault(job.method, {})[job.seed] = results.of(job)
            by_seed = numbers.setdefault(job.method, {})
            if (value := _headline(results, job)) is not None:
                by_seed[job.seed] = job.id, value
    baseline, *methods = runs
    compared = _gains_over(baseline, numbers, results, None)
    lines = []
    for method in methods:
        pairs, interval = compared[method]
        head = {"method": method, "planned": len(runs[method]), "n": len(pairs.seeds), "unpaired": list(pairs.unpaired)}
        if not pairs.seeds:
            states = [run.state for run in runs[method].values()]
            found = next((s for s in states if s in ("diverged", "failed", "running")), "not run")
            lines.append(head | {"state": "no pair" if pairs.unpaired else found})
            continue
        line = head | {
            "state": "done" if len(pairs.seeds) == len(runs[method]) else "partial",
            "mean": _mean([numbers[method][seed][1] for seed in pairs.seeds]), "gain": pairs.mean,
            "low": interval and interval.low, "high": interval and interval.high, "over": interval and interval.over,
            "crosses": pairs.crosses, "seeds": list(pairs.seeds), "gains": list(pairs.gains),
            "image_error": interval.estimate.image_error if interval and interval.estimate else None,
        }  # fmt: skip
        kind = study.method(method).maps or ""  # of one that moves none, none is shown
        for name, prefix in ((baseline, "baseline_"), (method, "")):
            line |= _last_epoch([runs[name][seed] for seed in pairs.seeds], kind, prefix)
        lines.append(line)
    return lines


def _headline(results: Results, job: Job) -> float | None:
    found = results.of(job)
    return results.items(job)[found.record.headline] if isinstance(found, Finished) else None


def _last_epoch(runs: list[Finished | Missing], kind: str, prefix: str) -> dict[str, float | None]:
    """What runs logged after their last epoch, as means; None where some did not."""
    last = [run.epochs[-1] for run in runs]

    def mean(numbers: list[float | None]) -> float | None:
        known = [number for number in numbers if number is not None]
        return _mean(known) if len(known) == len(numbers) else None

    return {
        f"{prefix}loss": mean([epoch.loss for epoch in last]),
        f"{prefix}overlap_inner": mean([epoch.shown_overlap(f"{kind}_inner") for epoch in last]),
        f"{prefix}overlap_last": mean([epoch.shown_overlap(f"{kind}_last") for epoch in last]),
        f"{prefix}blank_last": mean([epoch.overlap(f"{kind}_last_blank") for epoch in last]),
    }


def _span(line: dict[str, Any]) -> str:
    """The interval of a line's gain, and what it covers where that is not seeds and images."""
    if line.get("low") is None:
        return "–"
    over = "" if line["over"] == "seeds and images" else f" ({line['over']})"
    return f"[{line['low']:+.2f}, {line['high']:+.2f}]{over}" + (" ††" if line["crosses"] else "")


def reading_row(line: dict[str, Any]) -> dict[str, str]:
    """A line of `readings` for people; a pair is method, then baseline."""

    def number(key: str, form: str = ".2f") -> str:
        return "–" if line.get(key) is None else f"{line[key]:{form}}"

    def beside(key: str, form: str) -> str:
        return f"{number(key, form)} ({number(f'baseline_{key}', form)})"

    return {
        "reading": ", ".join(f"{name} {shown(value)}" for name, value in line["reading"].items()),
        "method": line["method"],
        "n": str(line["n"]) if line["state"] == "done" else f"{line['n']} [{line['state']}]",
        "mean": number("mean"),
        "gain": number("gain", "+.2f"),
        "95%": _span(line),
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
        "mean: mAP or top-1 in % after the last epoch, over n seeds; gain: method - baseline, paired by seed and test"
        " images, with its 95% interval over seeds and test images together (images only: one seed, so how much the"
        " gain varies over seeds is not in it). loss: classification, training mean of the last epoch. overlap:"
        " of the true and the confusing class's maps, 0 ... 1, on those of 64 of these images whose true map is not"
        " blank; blank: share of the 64 whose map is zero everywhere. In parentheses the baseline's.",
    ]
    least = matrix.min_positives
    notes += [f"Classes that fewer than {least} images of either split show are left out."] if least > 1 else []
    notes += [f"Not paired: {text}." for text in dict.fromkeys(text for line in lines for text in line["unpaired"])]
    if any(line.get("crosses") for line in lines):
        notes.append(CROSSING)
    head = f"Readings of {matrix.grid.subject}: {matrix.grid.title}"
    table = tabulate(rows, headers="keys", tablefmt=form, disable_numparse=True)
    if form == "pipe":
        head, notes = f"### {escape_markdown(head)}", [f"- {escape_markdown(note)}" for note in notes]
        table = table.replace("_", r"\_")
    return "\n".join([head, "", table, "", *notes, ""])
