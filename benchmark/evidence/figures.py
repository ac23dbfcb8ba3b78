"""Figures of measured numbers: gains as a forest plot, each row as dots beside the published ones, training curves.

Methods differ by marker, line and brightness, so print in grey stays readable. The same runs give the same bytes.
"""

import io
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from matplotlib.transforms import blended_transform_factory

from benchmark.evidence.answer import Comparison, Control
from benchmark.matrix.job import Job
from benchmark.results.results import Results
from benchmark.store.files import write_atomic
from benchmark.store.records import Epoch
from benchmark.tables.cells import Table, TableOfRuns
from benchmark.tables.render import SUBSCRIPT, minus

# Fonts are embedded as TrueType, which stays searchable and which publishers ask for; dates are left out.
SETTINGS: dict[Any, Any] = {
    "pdf.fonttype": 42, "ps.fonttype": 42, "svg.hashsalt": "benchmark", "font.size": 9, "axes.spines.top": False,
    "axes.spines.right": False, "axes.axisbelow": True, "legend.frameon": False,
}  # fmt: skip
# color, marker, line: by a column's place in its table; told apart in grayscale by the marker too
STYLES = (
    ("#000000", "o", "-"), ("#b5442e", "s", "--"), ("#4f9fcf", "D", "-."), ("#7a7a7a", "^", ":"), ("#c9b458", "v", "-"),
    ("#6a4c93", "P", "--"),
)  # fmt: skip
DPI = 200
CUT = 12.0  # points; a control that loses more, as one that does not train, is an arrow at the edge


class Drawing(NamedTuple):
    name: str
    caption: str  # says what is shown to who cannot see it
    figure: Figure


class Panel(NamedTuple):
    """A number of each epoch; None where none was taken."""

    label: str
    number: Callable[[Epoch], float | None]


@contextmanager
def settings() -> Iterator[None]:
    with matplotlib.rc_context(SETTINGS):
        yield


def draw(table: TableOfRuns) -> list[Drawing]:
    """Every figure that a table of runs gives; none where nothing is measured."""
    if not any(cell.n for cell in table.cells.values()):
        return []
    with settings():
        drawings = [forest(table), dots(table)]
        for backbone in dict.fromkeys(job.backbone for job in table.matrix.jobs):
            drawings += curves(table, table.matrix.jobs_of({"backbone": backbone}))
    return [drawing for drawing in drawings if drawing is not None]


def forest(table: Table) -> Drawing | None:
    """The gain of each method over the baseline with its interval, and the published gain."""
    methods = table.spec.columns[1:]
    shown = [row for row in table.spec.rows if any(table.cells[row.key, m.key].gain is not None for m in methods)]
    if not shown:
        return None
    figure, axes = _rows(len(shown) * len(methods), [table.label(row.key) for row in shown], len(methods))
    marks, over, lines, any_published = [], set(), [], False
    for i, method in enumerate(methods):
        color, marker, _ = STYLES[(i + 1) % len(STYLES)]
        cells = [table.cells[row.key, method.key] for row in shown]
        at = _offsets(len(shown), i, len(methods))
        for cell, y in zip(cells, at, strict=True):
            if cell.gain_interval:
                line = ":" if cell.gain_interval.over == "images only" else "-"
                lines.append(((cell.gain_interval.low, cell.gain_interval.high), y, color, line))
                over.add(cell.gain_interval.over)
        gains = [np.nan if c.gain is None else c.gain for c in cells]
        printed = [np.nan if c.published_gain is None else c.published_gain for c in cells]
        any_published = any_published or not np.isnan(printed).all()
        axes.plot(gains, at, marker, color=color, markersize=4.5, label=f"{_plain(method.header)}, ours")
        axes.plot(printed, at, marker, color=color, markersize=5.5, fillstyle="none", label=_published(printed))
        marks += [g for g in (*gains, *printed) if not np.isnan(g)]
    axes.axvline(0, color="black", linewidth=0.8)
    # With few seeds an interval can be a hundred times as wide as the effect: the axis follows it, but not that far.
    low, high = min(0.0, *marks), max(0.0, *marks)
    span = high - low or 1.0
    low = max(low - 5 * span, min([low - 0.1 * span, *(1.05 * start for (start, _), *_ in lines)]))
    high = min(high + 5 * span, max([high + 0.1 * span, *(1.05 * end for (_, end), *_ in lines)]))
    axes.set_xlim(low, high)
    cut = any(start < low or end > high for (start, end), *_ in lines)
    for (start, end), y, color, line in lines:
        axes.plot((start, end), (y, y), line, color=color, linewidth=1.2, solid_capstyle="butt")
        for edge, marker, goes_on in ((low, "<", start < low), (high, ">", end > high)):
            if goes_on:
                axes.plot(edge, y, marker, color=color, markersize=4, clip_on=False)
    axes.set_xlabel(f"gain over {_plain(table.spec.columns[0].header)}, points ({literal(table.spec.unit or '')})")
    _legend(figure, axes, len(methods))
    n = "/".join(map(str, sorted({len(cell.gains) for cell in table.cells.values() if cell.gains})))
    drawn = "intervals over " + ", or ".join(sorted(over))
    caption = f"Gain of each method over the baseline, paired by seed (n = {n})"
    caption += f", with 95% {drawn}" if over else ""
    caption += " (dotted)" if "images only" in over else ""
    caption += ", an arrow at the edge where one goes on" if cut else ""
    caption += f"{'; hollow: the published gain' if any_published else ''}.{_warning(table)}"
    return Drawing("gains", caption, figure)


def answer(shown: list[Comparison]) -> Drawing:
    """The published gain against ours: on the diagonal it is reproduced, on the zero line there is none."""
    with settings(), matplotlib.rc_context({"font.size": 12}):
        figure = Figure(figsize=(6.0, 6.4), layout="constrained")
        axes = figure.subplots()
        end = 1.15 * max(c.claim for c in shown)
        axes.plot((0, end), (0, end), "--", color="0.35", linewidth=1.2)
        axes.text(0.55 * end, 0.55 * end, "reproduced ", ha="right", va="bottom", color="0.35")
        axes.axhline(0, color="black", linewidth=1)
        axes.text(0.14 * end, -0.1, "no gain", va="top")
        data, methods = ([*dict.fromkeys(kinds)] for kinds in zip(*((c.data, c.method) for c in shown), strict=True))
        for c in shown:
            color, marker, _ = STYLES[data.index(c.data) % len(STYLES)]
            beside = [other for other in shown if other.claim == c.claim]  # at one claim, around it
            x = c.claim + (beside.index(c) - (len(beside) - 1) / 2) * 0.025 * end
            label = literal(f"{c.data}, {c.method}") + f", n = {len(c.cell.gains)}{'' if c.moved else ' ‡'}"
            fill = "full" if c.method == methods[-1] else "none"
            axes.plot((x, x), (c.interval.low, c.interval.high), "-" if c.moved else ":", color=color, linewidth=1.6)
            axes.plot(x, c.gain, marker, color=color, fillstyle=fill, markersize=9, mew=1.6, label=label)
        axes.set_xlim(0, end)
        axes.set_ylim(min(-0.5, *(c.interval.low for c in shown)) - 0.3, max(end, *(c.interval.high for c in shown)))
        axes.set_xlabel("published gain (points)")
        axes.set_ylabel("our gain (points)")
        handles, labels = axes.get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", fontsize=8.5)
    caption = "Published gain against ours, with 95% intervals over seeds and test images (with n = 1: images only)."
    caption += (
        " Comparisons with one claim are drawn side by side around it."
        if len(shown) > len({c.claim for c in shown})
        else ""
    )
    caption += " None follows the paper's protocol on its data." if not any(c.table.comparable for c in shown) else ""
    caption += " Dotted, ‡: maps not known to have moved." if not all(c.moved for c in shown) else ""
    return Drawing("answer", caption, figure)


def controls(shown: list[Control]) -> Drawing:
    """Each control's gain as a line, by data set and scale, and what is claimed beside them."""
    begins = [i == 0 or c.data != shown[i - 1].data for i, c in enumerate(shown)]
    heights, y = [], 0.0
    for begin in begins:
        y += 1.6 if begin else 0.0
        heights.append(y)
        y += 1.0
    with settings():
        figure = Figure(figsize=(7.6, 1.2 + 0.23 * y), layout="constrained")
        axes = figure.subplots()
        at_the_left = blended_transform_factory(figure.transFigure, axes.transData)
        ends = [end for c in shown if abs(c.gain) < CUT for end in (c.interval.low, c.interval.high)]
        marks = np.clip([0.0, *ends, *(v for c in shown for v in c.claims.values())], -CUT, CUT)
        low, high = float(marks.min()) - 0.5, float(marks.max()) + 0.7
        for c, y, begin in zip(shown, heights, begins, strict=True):
            if begin:
                heading = axes.text(0.01, y - 0.85, c.data, fontweight="bold", va="center", transform=at_the_left)
                heading.set_in_layout(False)  # it may be longer than the axes are wide
                last = max(at for at, other in zip(heights, shown, strict=True) if other.data == c.data)
                axes.plot((0, 0), (y - 0.5, last + 0.5), color="black", linewidth=0.8)
                for value in dict.fromkeys(c.claims.values()):
                    axes.plot((value, value), (y - 0.5, last + 0.5), "--", color="0.35", linewidth=1.2)
            at_claim = c.cell.column in c.claims
            start, end = max(low, c.interval.low), min(high, c.interval.high)
            if start < end:
                line = "-" if len(c.cell.gains) > 1 else ":"
                axes.plot((start, end), (y, y), line, color="black", linewidth=1.4, solid_capstyle="butt")
            if low <= c.gain <= high:
                axes.plot(c.gain, y, "s" if at_claim else "o", color="black", fillstyle="full" if at_claim else "none")
            else:
                axes.plot(low if c.gain < low else high, y, "<" if c.gain < low else ">", color="black", clip_on=False)
        told = [f"{c.told}  n={len(c.cell.gains)}" for c in shown]
        axes.set_yticks(heights, [_plain(c.name) for c in shown])
        right = axes.secondary_yaxis("right")
        right.set_yticks(heights, [minus(text) for text in told])
        for side in (axes, right):
            side.tick_params(axis="y", length=0)
        for spine in (axes.spines["left"], right.spines["right"]):
            spine.set_visible(False)
        axes.set_xlim(low, high)
        axes.set_ylim(heights[-1] + 0.8, heights[0] - 1.4)
        axes.set_xlabel("gain over the baseline, or over what is named (points)")
    caption = (
        "Gains of the controls, hollow, and of the methods that are held against them, filled, with 95% intervals over "
        "seeds and test images. Solid line: no gain; dashed: what the paper claims, over the same classes."
    )
    caption += " Dotted: one seed, over test images only." if any(len(c.cell.gains) == 1 for c in shown) else ""
    caption += " An arrow: beyond the axis." if any(not low <= c.gain <= high for c in shown) else ""
    return Drawing("answer-controls", caption, figure)


def dots(table: Table) -> Drawing:
    """Each row's number by method, each seed as a small mark, beside the published ones."""
    columns = table.spec.columns
    figure, axes = _rows(
        len(table.spec.rows) * len(columns), [table.label(row.key) for row in table.spec.rows], len(columns)
    )
    for i, column in enumerate(columns):
        color, marker, _ = STYLES[i % len(STYLES)]
        cells = [table.cells[row.key, column.key] for row in table.spec.rows]
        at = _offsets(len(cells), i, len(columns))
        for cell, y in zip(cells, at, strict=True):
            axes.plot(cell.values, [y] * cell.n, "|", color=color, markersize=5, alpha=0.6)
        means = [np.nan if c.mean is None else c.mean for c in cells]
        printed = [np.nan if c.published is None else c.published for c in cells]
        axes.plot(means, at, marker, color=color, markersize=4, label=f"{_plain(column.header)}, ours")
        axes.plot(printed, at, marker, color=color, markersize=5, fillstyle="none", label=_published(printed))
    axes.set_xlabel(f"{_quantity(table)} ({literal(table.spec.unit or '')})")
    _legend(figure, axes, len(columns))
    published = any(cell.published is not None for cell in table.cells.values())
    caption = f"{_quantity(table)} by row and method: the mean over n = {_seeds(table)} seeds, each seed as a tick"
    caption += f"{'; hollow: published' if published else ''}.{_warning(table)}"
    return Drawing("values", caption, figure)


def curves(table: TableOfRuns, jobs: list[Job]) -> list[Drawing]:
    """By epoch: training loss and test score; and how far the maps of the true and the confusing class overlap."""
    logged = _logged(table.results, jobs)
    over = _over_seeds(jobs, logged)
    epochs = [epoch for of_job in logged.values() for epoch in of_job]
    drawings = []
    panels = [Panel("training classification loss", lambda epoch: epoch.loss)]
    if any(epoch.test_mAP is not None for epoch in epochs):
        panels.append(Panel("test mAP (%)", lambda epoch: _percent(epoch.test_mAP)))
    if any(epoch.test_top1 is not None for epoch in epochs):
        panels.append(Panel("test top1 (%)", lambda epoch: _percent(epoch.test_top1)))
    if epochs:
        caption = (
            f"Training of {jobs[0].backbone}: classification loss and test score by epoch{over}. The test score "
            "is shown, never used to choose an epoch."
        )
        drawings.append(Drawing(f"curves-{jobs[0].backbone}", caption, _by_epoch(table, jobs, logged, panels)))
    if any(epoch.attention_overlap is not None for epoch in epochs):
        names = {"grad_cam": "Grad-CAM", "a_ch": "A_ch"}
        panels = [
            Panel(f"{what}, {names[kind]}, {layer} layer", partial(number, key=f"{kind}_{key}"))
            for key, what, layer, number in (
                ("inner", "overlap", "inner", Epoch.shown_overlap), ("last", "overlap", "last", Epoch.shown_overlap),
                ("inner_blank", "share blank", "inner", Epoch.overlap),
                ("last_blank", "share blank", "last", Epoch.overlap),
            )
            for kind in names
            # A_ch's maps are hardly ever blank, and a panel of zeros would say nothing.
            if what == "overlap" or any(number(epoch, f"{kind}_{key}") for epoch in epochs)
        ]  # fmt: skip
        caption = (
            f"Overlap of the true and the most confusing class's maps of {jobs[0].backbone} on the same test images "
            f"after each epoch{over} (0: apart, 1: the same), of those whose true map is not blank, and the share "
            "whose map is, where any is. Every network is measured by both kinds of map, whichever its method trains."
        )
        drawings.append(Drawing(f"overlap-{jobs[0].backbone}", caption, _by_epoch(table, jobs, logged, panels)))
    return drawings


def _logged(results: Results, jobs: list[Job]) -> dict[str, list[Epoch]]:
    """Each job's epochs; of a method one of whose runs has ended, only of those that have, which tables show."""
    runs = {job: results.of(job) for job in jobs}
    ended = {job.method for job, found in runs.items() if found.state == "done"}
    return {
        job.id: [] if job.method in ended and found.state != "done" else found.epochs for job, found in runs.items()
    }


def _over_seeds(jobs: list[Job], logged: dict[str, list[Epoch]]) -> str:
    drawn = Counter(job.method for job in jobs if logged[job.id])
    if max(drawn.values(), default=0) < 2:
        return ""
    n = "/".join(map(str, sorted(set(drawn.values()))))
    return f", mean over seeds (n = {n}), the band from the lowest to the highest"


def _percent(share: float | None) -> float | None:
    return None if share is None else 100 * share


def _by_epoch(table: Table, jobs: list[Job], logged: dict[str, list[Epoch]], panels: list[Panel]) -> Figure:
    """The panels, two rows of them where they are many."""
    rows = 1 if len(panels) < 4 else 2
    per_row = -(-len(panels) // rows)
    figure = Figure(figsize=(3.6 * per_row, 2.9 * rows), layout="constrained")
    uneven = len(set(Counter(job.method for job in jobs if logged[job.id]).values())) > 1
    # Column by column, so that panels that belong together stand below each other.
    grid = figure.subplots(rows, per_row, squeeze=False).T.ravel()
    for axes, panel in zip(grid, panels, strict=False):
        for i, column in enumerate(table.spec.columns):
            color, _, line = STYLES[i % len(STYLES)]
            of_method = [logged[job.id] for job in jobs if job.method == column.key]
            seeds = [[_number(panel.number(epoch)) for epoch in epochs] for epochs in of_method if epochs]
            if not seeds:
                continue
            shortest = min(map(len, seeds))  # a run that goes on is drawn as far as all are
            values = np.array([s[:shortest] for s in seeds])
            at = np.arange(1, shortest + 1)
            axes.fill_between(at, values.min(axis=0), values.max(axis=0), color=color, alpha=0.15, linewidth=0)
            marker = "." if shortest < 5 else ""
            label = _plain(column.header) + (f", n = {len(seeds)}" if uneven else "")
            axes.plot(at, values.mean(axis=0), line, marker=marker, color=color, label=label)
        axes.set_xlabel("epoch")
        axes.set_ylabel(panel.label)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    grid[len(panels) - 1].legend(fontsize=8)
    return figure


def _number(value: float | None) -> float:
    return float("nan") if value is None else value


def _rows(num_lines: int, labels: list[str], per_row: int) -> tuple[Figure, Axes]:
    """A plot with one labelled row for each entry, the first on top, and a band behind every other one."""
    figure = Figure(figsize=(6.4, 1.3 + 0.13 * num_lines + 0.06 * len(labels)), layout="constrained")
    axes = figure.subplots()
    axes.set_yticks(range(len(labels)), [literal(label) for label in labels])
    axes.set_ylim(len(labels) - 0.5, -0.5)
    axes.tick_params(axis="y", length=0)
    for i in range(0, len(labels), 2):
        axes.axhspan(i - 0.5, i + 0.5, color="0.95", linewidth=0)
    axes.grid(axis="x", color="0.85", linewidth=0.6)
    return figure, axes


def _offsets(rows: int, index: int, count: int) -> np.ndarray:
    """Heights of one method's marks: beside those of the others within each row."""
    return np.arange(rows) + (index - (count - 1) / 2) * 0.26


def _legend(figure: Figure, axes: Axes, columns: int) -> None:
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=columns, fontsize=8)


def _published(printed: list[float]) -> str | None:
    """What the legend calls them; nothing where nothing is published."""
    return None if np.isnan(printed).all() else "published"


def literal(text: str) -> str:
    """As it reads: between two dollar signs matplotlib sets mathematics."""
    return text.replace("$", r"\$")


def _plain(header: str) -> str:
    return literal(SUBSCRIPT.sub(r"\1 \2", header))


def _quantity(table: Table) -> str:
    items = {row.item or row.key for row in table.spec.rows}
    named = {"top1": "top-1 accuracy", "top5": "top-5 accuracy"}
    return named.get(items.pop(), "AP") if len(items) == 1 else "AP"


def _seeds(table: Table) -> str:
    return "/".join(map(str, sorted({cell.n for cell in table.cells.values() if cell.n})))


def _warning(table: Table) -> str:
    return "" if table.comparable else f" Scale {table.scale}: not comparable with the published numbers."


def jpeg(drawing: Drawing) -> bytes:
    """For a page that shows photographs."""
    buffer = io.BytesIO()
    with settings():
        drawing.figure.savefig(buffer, format="jpeg", dpi=90, pil_kwargs={"quality": 80})
    return buffer.getvalue()


def svg(drawing: Drawing) -> bytes:
    buffer = io.BytesIO()
    with settings():
        drawing.figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    return buffer.getvalue()


def write(drawings: list[Drawing], folder: Path) -> list[Path]:
    """Each as `<folder>/<name>.png` and `.pdf`."""
    paths = []
    for drawing in drawings:
        for ending, options in (
            ("png", {"dpi": DPI, "metadata": {"Software": None}}),
            ("pdf", {"metadata": {"CreationDate": None, "Creator": None, "Producer": None}}),
        ):
            buffer = io.BytesIO()
            with settings():
                drawing.figure.savefig(buffer, format=ending, **options)
            path = folder / f"{drawing.name}.{ending}"
            write_atomic(path, buffer.getvalue())
            paths.append(path)
    return paths
