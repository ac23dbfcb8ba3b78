"""The answer to the suite's question on one page: every gain on real data that stands beside a published one.

A table of five columns and a picture, both of the headline tables of all scales that have runs.
"""

from typing import NamedTuple

from tabulate import tabulate

from benchmark.matrix.matrix import Matrix
from benchmark.stats import intervals
from benchmark.stats.claims import GainInterval
from benchmark.tables import render
from benchmark.tables.cells import CROSSING, Cell, Table
from benchmark.tables.summary import missing_seeds
from benchmark.tables.treatment import LAYERS

HEADER = ("data and protocol", "n", "ours", "paper", "share of the paper's gain")


class Comparison(NamedTuple):
    """One method's gain on one data set at one scale, in points. claim: the published one, over the same classes."""

    table: Table
    cell: Cell
    claim: float
    gain: float
    interval: GainInterval

    @property
    def data(self) -> str:
        """`CIFAR-100, ResNet-110 (as resnet20), reduced`"""
        return f"{named(self.table, self.cell.row)}, {self.table.scale}"

    @property
    def method(self) -> str:
        header = next(c.header for c in self.table.spec.columns if c.key == self.cell.column)
        return render.SUBSCRIPT.sub(r"\2", header)

    @property
    def line(self) -> tuple[str, str, str, str, str]:
        """Its cells under HEADER."""
        what = f"{self.data}, {self.method}" + ("" if self.moved else " ‡")
        ours, paper = render.gain_text(self.cell, self.table), render.signed(self.claim, self.table)
        return what, str(len(self.cell.gains)), ours, paper, render.share_text(self.cell)

    @property
    def moved(self) -> bool:
        """Whether the method is known to have moved its maps: where it did not, its gain tests nothing."""
        return self.cell.treatment is None or self.cell.treatment.applied


def named(table: Table, row: str) -> str:
    """A headline's row with what stood in for it."""
    stood_in = table.ran_as.get(row)
    return table.label(row) + (f" (as {stood_in})" if stood_in else "")


def comparisons(headlines: list[Table]) -> list[Comparison]:
    """Those with an interval and a claim, in the order of the tables."""
    return [
        Comparison(table, cell, cell.published, cell.gain, cell.gain_interval)
        for table in headlines
        for cell in table.cells.values()
        if cell.gain is not None and cell.gain_interval is not None and isinstance(cell.published, float)
    ]


def verdict(shown: list[Comparison]) -> str:
    """What they say together, in a sentence that claims no more than their tables do."""
    if not any(c.table.comparable for c in shown):
        return "No published number has been tested: none of these runs follows the paper's protocol on its data."
    told = [f"{c.data}, {c.method}: {c.cell.gain_verdict.outcome}" for c in shown if c.cell.gain_verdict]
    return "; ".join(told) + "."


class Control(NamedTuple):
    """A gain of a table of controls, in points, as a line: a control's, or of a method that is held against them.
    claims: what is claimed of the same data by method, over the same classes."""

    table: Table
    cell: Cell
    gain: float
    interval: GainInterval
    claims: dict[str, float]

    @property
    def data(self) -> str:
        """`PASCAL VOC 2012, ResNet-18, controls`, with other data and what was set otherwise, where there are such"""
        ran_on = {job.dataset for job in self.matrix.jobs} - {self.matrix.grid.protocol["dataset"]}
        other = f" on {', '.join(sorted(ran_on))}" if ran_on else ""
        label = self.table.label(self.table.spec.rows[0].key)
        return f"{self.matrix.grid.title.partition(',')[0]}, {label}{other}, {self.matrix.called}"

    @property
    def matrix(self) -> Matrix:
        assert self.table.matrix is not None, "a table of controls is of runs"
        return self.table.matrix

    @property
    def told(self) -> str:
        return intervals.span(self.gain, (self.interval.low, self.interval.high))

    @property
    def name(self) -> str:
        over = self.table.row(self.cell).over.get(self.cell.column)
        return self._header(self.cell.column) + (f", over {self._header(over)}" if over else "")

    def _header(self, key: str) -> str:
        header = next(c.header for c in self.table.spec.columns if c.key == key)
        return render.SUBSCRIPT.sub(r"\1 \2", header)

    def overlap(self, layer: str) -> str:
        """By how much the overlap of its maps changed there."""
        changes = self.cell.treatment.changes if self.cell.treatment else {}
        change = next((change for name, change in changes.items() if name.endswith(f"_{layer}")), None)
        if change is None:
            return render.BLANK
        of = f" [{change.interval[0]:+.3f}, {change.interval[1]:+.3f}]" if change.interval else ""
        return f"{change.mean:+.3f}{of}"


def controls(table: Table, claims: dict[str, float]) -> list[Control]:
    """Those with an interval, of the table's first measure."""
    return [
        Control(table, cell, cell.gain, cell.gain_interval, claims)
        for cell in table.cells.values()
        if cell.gain is not None
        and cell.gain_interval is not None
        and table.item(cell) == (table.spec.rows[0].item or table.spec.rows[0].key)
    ]


def controls_markdown(shown: list[Control]) -> str:
    """A table for each data set and scale: gains, and what became of the maps."""
    parts = []
    for data in dict.fromkeys(c.data for c in shown):
        of_data = [c for c in shown if c.data == data]
        rows = [
            [
                render.escape_markdown(c.name + ("" if not c.cell.crosses else " ††")),
                str(len(c.cell.gains)),
                c.told + ("" if c.interval.over == "seeds and images" else f" ({c.interval.over})"),
                *(c.overlap(layer) for layer in LAYERS),
                c.cell.treatment.answer if c.cell.treatment else render.BLANK,
            ]
            for c in of_data
        ]
        header = ("", "n", "gain", *(f"overlap, {layer}" for layer in LAYERS), "treatment")
        align = ("left", "right", "right", *("right" for _ in LAYERS), "left")
        grid = tabulate(rows, header, tablefmt="pipe", disable_numparse=True, colalign=align)
        planned = (
            "" if all(len(c.cell.gains) == c.cell.planned for c in of_data) else " Not all planned seeds have run."
        )
        parts.append(f"**{render.escape_markdown(data)}**, {of_data[0].matrix.overlay.why}.{planned}\n\n{grid}")
    told = [
        "n: paired seeds. Gain: points over the baseline, or over what is named, with the 95% interval over seeds and "
        "test images. Overlap: of the true and the confusing class's maps, its change against the same, "
        "with intervals of 97.5% for each of two layers (0: unmoved, below: further apart). Treatment: applied where "
        "one of these lies below 0; not applied, and no effect, is what such seeds do not show, not what they exclude."
    ]
    if any(c.cell.crosses for c in shown):
        told.append(CROSSING)
    return "\n\n".join([*parts, " ".join(told)]) + "\n"


def notes(shown: list[Comparison]) -> list[str]:
    """What the columns and the marks mean."""
    told = ["n: paired seeds. Ours: points over the baseline, with the 95% interval over seeds and test images."]
    if not all(c.table.comparable for c in shown):
        told.append("†: not the paper's protocol or data, so no verdict on its number.")
    if any(c.cell.crosses for c in shown):
        told.append(CROSSING)
    if not all(c.moved for c in shown):
        told.append("‡: the method is not known to have moved its maps, so this gain is no test of it.")
    return told + missing_seeds({f"{c.data}, {c.method}": c.cell for c in shown})


def markdown(shown: list[Comparison]) -> str:
    """The table, and what its marks mean."""
    rows = [(render.escape_markdown(what), *numbers) for what, *numbers in (c.line for c in shown)]
    grid = tabulate(rows, HEADER, tablefmt="pipe", disable_numparse=True, colalign=("left", *["right"] * 4))
    return f"{render.escape_markdown(verdict(shown))}\n\n{grid}\n\n{' '.join(notes(shown))}\n"
