"""The specification curve (Simonsohn, Simmons and Nelson, Nature Human Behaviour 2020): every reading of the paper that
was tried, sorted by its gain, with its choices below; and what each choice that the paper leaves open is worth, beside
what another seed and other test images are.
"""

import math
from collections.abc import Sequence
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator, ScalarFormatter

from benchmark.evidence import sensitivity
from benchmark.evidence.figures import STYLES, Drawing, literal, settings
from benchmark.matrix import study
from benchmark.matrix.job import Job
from benchmark.matrix.matrix import Matrix
from benchmark.results.results import Results
from benchmark.tables.build import shown
from benchmark.tables.published import Spec

PORTS = ("port-a_ch",)  # what others published as the method: readings, though the paper names no such
NO_WEIGHT = 1e-3  # of the attention terms: at most this is a control, the same code without an effect
GAP = 2 / math.sqrt(math.pi)  # mean distance of two draws, in standard deviations of a normal one
LEAST = 0.01  # points; smaller differences are drawn here
LINEAR = 8  # points on both sides of zero; beyond, a wide curve is drawn on a log scale
BROKEN = 0.5  # of the best baseline's number: a baseline below has not trained, and a gain over it says nothing

Line = dict[str, Any]  # of sensitivity.readings


class Worth(NamedTuple):
    """By how many points the gain differs between two runs of the study that differ in this alone: each pair of them
    that there is, or the one number that a spread gives."""

    name: str
    differences: tuple[float, ...]

    @property
    def mean(self) -> float:
        return float(np.mean(self.differences))


def tried(results: Results) -> Results:
    """With every reading that was declared at the scale or lies among its runs, so that none can be left out."""
    matrix = results.matrix
    as_grid = matrix.asked_otherwise(readings=({},))
    readings = list(matrix.readings or matrix.overlay.readings)
    known = {job.id for job in matrix.asked_otherwise(readings=tuple(readings)).jobs} if readings else set()
    by_protocol = {(job.method, _protocol(job, matrix)): job for job in as_grid.jobs}
    first = as_grid.methods[0]
    for job in results.reader.jobs(matrix.runs / matrix.scale):
        if job.id in known:
            continue
        usual = by_protocol.get((job.method, _protocol(job, matrix)))
        if usual is None or job.method == first:
            continue
        names = [*matrix.grid.assumptions, *(type(job.options).model_fields if job.options else ())]
        of_run = {name: job.value(name) for name in names if job.value(name) != usual.value(name)}
        if of_run not in readings:
            readings.append(of_run)
    return results.asked_otherwise(readings=tuple(readings))


def _protocol(job: Job, matrix: Matrix) -> str:
    """All of a job but its seed, its method with its options, and what the grid assumes."""
    apart = {"seed", "method", "options", *matrix.grid.assumptions}
    return repr({name: value for name, value in job.model_dump().items() if name not in apart})


def measured(results: Results) -> list[Line]:
    """The readings that have a gain, the lowest first; `choices`: all that each chose; `untrained`: whether not even
    its baseline trained."""
    matrix = results.matrix
    lines = [line for line in sensitivity.readings(results) if line["n"]] if matrix.readings else []
    names = list(dict.fromkeys(name for line in lines for name in line["reading"]))
    usual = {job.method: job for job in matrix.asked_otherwise(readings=({},)).jobs}
    best = max((line["mean"] - line["gain"] for line in lines), default=0)
    for line in lines:
        line["untrained"] = line["mean"] - line["gain"] < BROKEN * best
        as_grid = usual[line["method"]]
        line["choices"] = {name: line["reading"].get(name, as_grid.value(name)) for name in names}
        line["choices"] |= {"method": line["method"]} | ({"backbone": line["backbone"]} if _several(lines) else {})
    return sorted(lines, key=lambda line: line["gain"])


def _several(lines: Sequence[Line]) -> bool:
    return len({line["backbone"] for line in lines}) > 1


def is_control(line: Line, spec: Spec) -> bool:
    """Whether its gain is to be that of no method: a method that the paper does not name, or one without weight."""
    weight = line["reading"].get("attention_weight")
    known = {*PORTS, *(column.key for column in spec.columns)}
    return line["method"] not in known or (weight is not None and weight <= NO_WEIGHT)


def worths(lines: Sequence[Line], of_seeds: Sequence[Line]) -> list[Worth]:
    """Of each choice, of another seed and of other test images, the largest mean first. Readings whose baseline did not
    train tell nothing. Two readings are held against each other on the seeds that both have. of_seeds: lines of several
    seeds, of this scale or, where it has one seed, another's."""
    found: dict[str, list[float]] = {}
    lines = [line for line in lines if not line["untrained"]]
    for one, other in combinations(lines, 2):
        apart = [name for name in one["choices"] if one["choices"][name] != other["choices"][name]]
        if len(apart) == 1 and (moved := sensitivity.difference(one, other)) is not None:
            found.setdefault(apart[0], []).append(abs(moved))
    images = [GAP * line["image_error"] for line in lines if line["image_error"]]
    seeds = [abs(a - b) for line in of_seeds for a, b in combinations(line["gains"], 2)]
    of_chance = {"another seed": seeds, "other test images": images}
    named = [Worth(name, tuple(values)) for name, values in (found | of_chance).items() if values]
    return sorted(named, key=lambda worth: -worth.mean)


def lines_of_seeds(results: Results, spec: Spec, lines: Sequence[Line]) -> tuple[str, list[Line]]:
    """Lines of more than one seed, and the scale that they are of: this one, or the grid's with the most seeds of the
    same data set and network. No control's: an A/A is to vary less than a reading does."""
    matrix, own = results.matrix, [line for line in lines if line["n"] > 1]
    if own or not lines:
        return matrix.scale, own
    best: tuple[str, list[Line]] = (matrix.scale, [])
    as_ours = {(job.dataset, job.backbone) for job in matrix.jobs}
    for name in matrix.grid.scales:
        other = matrix.asked_otherwise(scale=name, readings=({},), overrides={}, selection={})
        if name != matrix.scale and {(job.dataset, job.backbone) for job in other.jobs} == as_ours:
            others = measured(tried(Results.read(other, results.reader)))
            its = [line for line in others if line["n"] > 1 and not is_control(line, spec)]
            best = max(best, (name, its), key=lambda at: max((line["n"] for line in at[1]), default=0))
    return best


def claimed(spec: Spec, results: Results, headline: Spec | None) -> dict[str, float]:
    """By method the gain that the paper claims: over the classes that ours is over, from its cells; without cells, the
    abstract's one."""
    row = next((row for row in spec.rows if row.claim), None)
    if row is None:
        return {}
    kept = _classes(results)
    found: dict[str, float] = {}
    for i, column in enumerate(spec.columns[1:], start=1):
        ours, first = (row.mean_over(kept, at) if kept else row.published[at] for at in (i, 0))
        if isinstance(ours, int | float) and isinstance(first, int | float):
            found[column.key] = float(ours) - float(first)
    if found or headline is None:
        return found
    of_table = (of for of in headline.rows if of.table == spec.name)
    cells = next(of_table).published
    return {c.key: float(v) for c, v in zip(headline.columns, cells, strict=True) if isinstance(v, int | float)}


def _classes(results: Results) -> set[str]:
    """The classes that a mean of the first finished run is over; none of images with one label."""
    first = next(iter(results.finished(job.id for job in results.matrix.jobs)), None)
    if first is None or first.record.single_label:
        return set()
    return first.record.frequent(results.matrix.min_positives)


def at_scales(results: Results, spec: Spec, headline: Spec | None) -> list[Drawing]:
    """The curves of every scale of the grid that reads real data, this one's first."""
    matrix = results.matrix
    others = [name for name in matrix.grid.scales if name not in (matrix.scale, "mini")]
    drawings = draw(results, spec, headline)
    for name in others if matrix.scale != "mini" else []:
        other = matrix.asked_otherwise(scale=name, overrides={}, selection={}, readings=())
        drawings += draw(Results.read(other, results.reader), spec, headline)
    return drawings


def draw(results: Results, spec: Spec, headline: Spec | None) -> list[Drawing]:
    """The curve and the worth of its choices; nothing where fewer than two readings were measured."""
    results = tried(results)
    matrix, lines = results.matrix, measured(results)
    of_readings = [line for line in lines if not is_control(line, spec)]
    if not of_readings or len({repr(line["reading"]) for line in lines}) < 2:
        return []
    scale, of_seeds = lines_of_seeds(results, spec, of_readings)
    stem, claims = f"{matrix.grid.name}-{matrix.scale}", claimed(spec, results, headline)
    with settings():
        return [
            Drawing(f"{stem}-readings", _told(matrix, lines, bool(claims)), _curve(lines, spec, claims)),
            _worth_drawing(f"{stem}-worth", matrix, worths(of_readings, of_seeds), scale, of_seeds),
        ]


def _told(matrix: Matrix, lines: Sequence[Line], any_claim: bool) -> str:
    over = ", or ".join(sorted({str(line["over"]) for line in lines if line["over"]}))
    over += "; dotted: images only" if _mixed(lines) else ""
    n = "/".join(map(str, sorted({line["n"] for line in lines})))
    return (
        f"Every reading of the paper that was tried at scale {matrix.scale} of {matrix.grid.title}, by its gain over"
        f" the baseline (n = {n}), with 95% intervals ({over}); below, what each chose."
        + (" Dashed: the paper's claim over the same classes." if any_claim else "")
        + f" Not comparable with the paper: {matrix.overlay.why}."
    )


def _mixed(lines: Sequence[Line]) -> bool:
    """Whether only some intervals know how much the gain varies over seeds."""
    return len({line["over"] == "images only" for line in lines}) == 2


def _curve(lines: Sequence[Line], spec: Spec, claims: dict[str, float]) -> Figure:
    names = list(dict.fromkeys(name for line in lines for name in line["choices"]))
    rows = [
        (name, value)
        for name in names
        for value in dict.fromkeys(line["choices"][name] for line in lines)
        if value is not None and len({repr(line["choices"][name]) for line in lines}) > 1  # None: it has no such choice
    ]
    figure = Figure(figsize=(max(6.4, 2.6 + 0.17 * len(lines)), 3.2 + 0.17 * len(rows)), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(2.8, 0.17 * len(rows) + 0.1))
    headers = {name: method.title or name for name, method in study.at_hand().methods.items()}
    headers |= {column.key: column.header.replace("+ ", "") for column in spec.columns}
    _gains(above, lines, spec, claims, headers)
    _choices(below, lines, rows)
    handles, labels = above.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=2, fontsize=8)
    return figure


def _gains(axes: Axes, lines: Sequence[Line], spec: Spec, claims: dict[str, float], headers: dict[str, str]) -> None:
    axes.axhline(0, color="black", linewidth=0.8)
    axes.grid(axis="y", color="0.85", linewidth=0.6)
    for i, method in enumerate(sorted({line["method"] for line in lines})):
        color, marker, _ = STYLES[(i + 1) % len(STYLES)]
        at = [x for x, line in enumerate(lines) if line["method"] == method]
        for x in at:
            line = lines[x]
            if line["low"] is not None:
                dotted = line["over"] == "images only" and _mixed(lines)
                axes.plot((x, x), (line["low"], line["high"]), ":" if dotted else "-", color=color, linewidth=1.2)
            if is_control(line, spec):
                axes.axhline(line["gain"], color=color, linewidth=0.8, linestyle=":")
                axes.plot(x, line["gain"], "o", color="black", markersize=8, fillstyle="none")
            fill = "none" if line["untrained"] else "full"
            axes.plot(x, line["gain"], marker, color=color, markersize=4, fillstyle=fill)
        axes.plot([], [], marker, color=color, markersize=4, linestyle="", label=_plain(headers.get(method, method)))
    for i, claim in enumerate(dict.fromkeys(claims.values())):
        of = ", ".join(_plain(headers[method]) for method in claims if claims[method] == claim)
        axes.axhline(
            claim, color="0.3", linewidth=1.2, linestyle=("--", "-.")[i % 2], label=f"claimed {claim:+.2f}: {of}"
        )
    if any(line["untrained"] for line in lines):
        axes.plot([], [], "s", color="black", markersize=4, fillstyle="none", linestyle="",
                  label="hollow: its baseline does not train either")  # fmt: skip
    if any(is_control(line, spec) for line in lines):
        axes.plot([], [], "o", color="black", markersize=8, fillstyle="none", linestyle=":", label="circled: a control")
    low = min(line["gain"] if line["low"] is None else line["low"] for line in lines)
    if low < -2 * LINEAR:
        axes.set_yscale("symlog", linthresh=LINEAR, linscale=1.5)
        axes.set_yticks([tick for tick in (-80, -40, -20, -8, -4, 0, 4, 8) if tick > 2 * low])
        axes.yaxis.set_major_formatter(ScalarFormatter())
        axes.yaxis.set_minor_locator(NullLocator())
    axes.set_ylabel(
        "gain over the baseline, points" + (f"\n(logarithmic below -{LINEAR})" if low < -2 * LINEAR else "")
    )
    axes.tick_params(axis="x", length=0)


def _choices(axes: Axes, lines: Sequence[Line], rows: list[tuple[str, Any]]) -> None:
    """A dot where a reading chose so; choices of one kind on one band."""
    kinds = list(dict.fromkeys(name for name, _ in rows))
    for y, (name, value) in enumerate(rows):
        if kinds.index(name) % 2 == 0:
            axes.axhspan(y - 0.5, y + 0.5, color="0.93", linewidth=0)
        chosen = [x for x, line in enumerate(lines) if line["choices"][name] == value]
        others = [x for x in range(len(lines)) if x not in chosen]
        axes.plot(others, [y] * len(others), ".", color="0.8", markersize=2)
        axes.plot(chosen, [y] * len(chosen), "o", color="black", markersize=4)
    axes.set_yticks(range(len(rows)), [f"{name}  {shown(value)}" for name, value in rows], fontsize=8)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xlim(-0.7, len(lines) - 0.3)
    axes.set_xticks([])
    axes.tick_params(axis="y", length=0)
    axes.set_xlabel(f"the {len(lines)} readings and methods that were tried, by gain")


def _worth_drawing(
    name: str, matrix: Matrix, named: Sequence[Worth], scale: str, of_seeds: Sequence[Line]
) -> Drawing:  # fmt: skip
    figure = Figure(figsize=(6.4, 1.1 + 0.24 * len(named)), layout="constrained")
    axes = figure.subplots()
    for y, worth in enumerate(named):
        of_chance = worth.name in ("another seed", "other test images")
        axes.plot(np.maximum(worth.differences, LEAST), [y] * len(worth.differences), "|", color="0.45", markersize=7)
        axes.plot(max(worth.mean, LEAST), y, "s" if of_chance else "o", color="black", markersize=5,
                  fillstyle="none" if of_chance else "full")  # fmt: skip
        if of_chance:
            axes.axvline(worth.mean, color="0.6", linewidth=0.8, linestyle="--" if "seed" in worth.name else ":")
        axes.text(1.01, y, f"{worth.mean:.2f}", transform=axes.get_yaxis_transform(), va="center", fontsize=8)
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(ScalarFormatter())
    axes.set_yticks(range(len(named)), [worth.name for worth in named])
    axes.set_ylim(len(named) - 0.5, -0.5)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x", color="0.9", linewidth=0.6)
    axes.set_xlabel("difference in gain, points (log scale); right: mean")
    n = max((line["n"] for line in of_seeds), default=1)
    seeds = f"from the {n} seeds of scale {scale}" if of_seeds else "not known, as there is one seed"
    caption = (
        f"What a choice that the paper leaves open is worth at scale {matrix.scale} of {matrix.grid.title}: by how many"
        " points the gain differs between two readings that differ in it alone, each pair as a tick, their mean as a"
        f" dot. Hollow: the same for another seed ({seeds}) and for other test images (mean distance of two draws, from"
        " the bootstrap). Controls, and readings whose baseline does not train, are left out."
    )
    return Drawing(name, caption, figure)


def _plain(header: str) -> str:
    return literal(header.replace("_{", " ").replace("}", ""))
