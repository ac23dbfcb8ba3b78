"""Figures of measured numbers: gains as a forest plot, each row as dots beside the published ones, training curves.

Methods differ by marker, line and brightness, so print in grey stays readable. The same runs give the same bytes.
"""

import io
import math
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator
from matplotlib.transforms import blended_transform_factory

from benchmark.evidence.answer import UNMOVED, Claim, Comparison, Control
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
# The forest plot, in inches: of the whole, and where the lines begin and end between the texts beside them.
WIDTH, LEFT, RIGHT = 6.4, 2.1, 4.75
CLAIMED, POOLED = "#b5442e", "#1f5a8c"


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


def answer(shown: list[Claim]) -> Drawing:
    """A forest plot: a panel a claim, a line a setting with its interval, the published improvement as a dashed line,
    and the pooled difference as a diamond below."""
    heights, bottom = _panel_heights(shown)
    with settings(), matplotlib.rc_context({"font.size": 9.2}):
        height = bottom + 0.95
        figure = Figure(figsize=(WIDTH, height))
        axes = figure.add_axes((LEFT / WIDTH, 0.95 / height, (RIGHT - LEFT) / WIDTH, bottom / height))
        low, high = _forest_limits(shown)
        axes.set_xlim(low, high)
        axes.set_ylim(bottom, 0)  # in inches
        axes.grid(axis="x", color="0.92", linewidth=0.6)
        for claim, (top, *rows, pooled) in zip(shown, heights, strict=True):
            _panel_title(axes, claim, top)
            axes.plot((0, 0), (top + 0.44, pooled + 0.2), color="black", linewidth=0.9, zorder=1)
            for c, (start, y, end) in zip(claim.settings, _rows_around(top + 0.44, rows, pooled - 0.18), strict=True):
                color = "0.6" if not c.moved else "black"
                axes.plot((c.claim, c.claim), (start, end), "--", color=CLAIMED, linewidth=1.3)
                _interval_line(axes, (c.interval.low, c.interval.high), y, color)
                size = 2.4 * math.sqrt(len(c.cell.gains))  # the square's area is the number of pairs
                axes.plot(np.clip(c.gain, low, high), y, "s", color=color, markersize=size)
                labels = [*filter(None, c.setting.lines), *([] if c.moved else [UNMOVED])]
                _beside(axes, y, "\n".join(labels), f"{c.difference}\n{_counted(len(c.cell.gains), 'seed')}", color)
            axes.plot((claim.claimed,) * 2, (pooled - 0.18, pooled + 0.2), "--", color=CLAIMED, linewidth=1.3)
            start, end = np.clip(claim.interval or (claim.mean, claim.mean), low, high)
            middle = np.clip(claim.mean, low, high)
            axes.fill((start, middle, end, middle), (pooled, pooled - 0.1, pooled, pooled + 0.1), color=POOLED)
            pairs = len(claim.differences)
            label = f"pooled over {_counted(pairs, 'pair')}\nahead in {claim.ahead:g} of them"
            _beside(axes, pooled, label, claim.difference, POOLED, fontweight="bold")
        axes.tick_params(axis="y", left=False, labelleft=False)
        axes.spines["left"].set_visible(False)
        axes.set_xlabel("\N{LEFTWARDS ARROW} worse     difference from the baseline, points     "
                        "better \N{RIGHTWARDS ARROW}")  # fmt: skip
        figure.legend(handles=_forest_legend(shown), loc="lower center", ncols=2, fontsize=8.8, columnspacing=3)
    captions = [f"{claim.title}, {minus(claim.difference)} against {claim.claimed:+.2f}" for claim in shown]
    caption = (
        f"Difference from the baseline by claim and setting, with 95% intervals. {'; '.join(captions)}. Squares: one "
        "setting each, its area the number of seeds; diamond: the mean over all pairs; dashed: the paper's improvement."
    )
    caption += (
        f" Grey: {UNMOVED}, so an absence there is no test of the claim."
        if any(not c.moved for c in _settings_of(shown))
        else ""
    )
    caption += " None follows the paper's protocol on its data." if not any_comparable(shown) else ""
    return Drawing("answer", caption, figure)


def _panel_heights(shown: list[Claim]) -> tuple[list[list[float]], float]:
    """Of each panel its top and the middles of its rows, the pooled one last; and the lower end. Inches downwards."""
    panels, y = [], 0.0
    for claim in shown:
        at = [y]
        y += 0.46
        for c in claim.settings:
            of_row = 0.37 if c.moved else 0.5
            at.append(y + of_row / 2)
            y += of_row
        at.append(y + 0.2)
        y += 0.52
        panels.append(at)
    return panels, y - 0.08


def _rows_around(top: float, rows: list[float], bottom: float) -> list[tuple[float, float, float]]:
    """Each row's start, middle and end."""
    edges = [top, *((one + other) / 2 for one, other in pairwise(rows)), bottom]
    return list(zip(edges, rows, edges[1:], strict=False))


def _forest_limits(shown: list[Claim]) -> tuple[float, float]:
    ends = [end for c in _settings_of(shown) for end in (c.interval.low, c.interval.high, c.claim)]
    marks = np.clip([0.0, *ends, *(end for claim in shown for end in claim.interval or ())], -CUT, CUT)
    return float(marks.min()) - 0.4, float(marks.max()) + 0.5


def _settings_of(shown: list[Claim]) -> list[Comparison]:
    return [c for claim in shown for c in claim.settings]


def any_comparable(shown: list[Claim]) -> bool:
    return any(c.table.comparable for c in _settings_of(shown))


def _panel_title(axes: Axes, claim: Claim, top: float) -> None:
    """The claim and its word over the whole width, and what the paper says at the head of its line."""
    at_the_left = blended_transform_factory(axes.figure.transFigure, axes.transData)
    axes.text(0.015, top + 0.13, literal(claim.title), fontsize=10.5, fontweight="bold", va="center",
              transform=at_the_left, bbox={"color": "white", "pad": 1})  # fmt: skip
    claims = dict.fromkeys(f"{c.claim:+.2f}" for c in claim.settings)
    axes.text(claim.claimed, top + 0.36, f"paper {' / '.join(claims)}", color=CLAIMED, ha="center", va="center",
              bbox={"color": "white", "pad": 1})  # fmt: skip


def _interval_line(axes: Axes, interval: tuple[float, float], y: float, color: str) -> None:
    """Cut at the edges, where it goes on as an arrow."""
    edges = axes.get_xlim()
    axes.plot(np.clip(interval, *edges), (y, y), color=color, linewidth=1.5, solid_capstyle="butt")
    for edge, marker, goes_on in zip(edges, "<>", (interval[0] < edges[0], interval[1] > edges[1]), strict=True):
        if goes_on:
            axes.plot(edge, y, marker, color=color, markersize=5, clip_on=False)


def _beside(axes: Axes, y: float, left: str, right: str, color: str, **style: Any) -> None:
    """The texts of a row, left and right of the plot."""
    at_the_side = blended_transform_factory(axes.figure.transFigure, axes.transData)
    color = "0.4" if color == "0.6" else color  # letters need more contrast than lines
    for x, text, align in ((0.015, literal(left), "left"), (0.985, minus(right), "right")):
        axes.text(x, y, text, ha=align, va="center", color=color, linespacing=1.15, transform=at_the_side, **style)


def _counted(count: int, what: str) -> str:
    return f"{count} {what}" + ("" if count == 1 else "s")


def _forest_legend(shown: list[Claim]) -> list[Line2D]:
    drawn: list[tuple[str, dict[str, Any]]] = [
        ("one setting, 95% CI", {"color": "black", "marker": "s", "linestyle": "-"}),
        ("all pairs, 95% CI", {"color": POOLED, "marker": "D", "linestyle": "none"}),
        ("the paper's improvement", {"color": CLAIMED, "linestyle": "--"}),
    ]
    if any(not c.moved for c in _settings_of(shown)):
        drawn.append((UNMOVED, {"color": "0.6", "marker": "s", "linestyle": "-"}))
    return [Line2D([], [], label=label, markersize=5, **style) for label, style in drawn]


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
