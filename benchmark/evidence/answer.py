"""The answer to the suite's question on one page: every gain on real data that stands beside a published one.

A table of five columns and a picture, both of the headline tables of all scales that have runs.
"""

from typing import NamedTuple

from tabulate import tabulate

from benchmark.tables import render
from benchmark.tables.cells import Cell, Table
from benchmark.tables.claims import GainInterval

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
        stood_in = self.table.ran_as.get(self.cell.row)
        return f"{self.table.label(self.cell.row)}{f' (as {stood_in})' if stood_in else ''}, {self.table.scale}"

    @property
    def method(self) -> str:
        header = next(c.header for c in self.table.spec.columns if c.key == self.cell.column)
        return render.SUBSCRIPT.sub(r"\2", header)

    @property
    def moved(self) -> bool:
        """Whether the method is known to have moved its maps: where it did not, its gain tests nothing."""
        return self.cell.treatment is None or self.cell.treatment.applied


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


def markdown(shown: list[Comparison]) -> str:
    """The table, and what its marks mean."""
    rows = [
        [
            render.escape_markdown(f"{c.data}, {c.method}" + ("" if c.moved else " ‡")),
            str(len(c.cell.gains)),
            render.gain_text(c.cell, c.table),
            render.signed(c.cell.published, c.table),
            render.share_text(c.cell),
        ]
        for c in shown
    ]
    grid = tabulate(rows, HEADER, tablefmt="pipe", disable_numparse=True, colalign=("left", *["right"] * 4))
    notes = ["n: paired seeds. Ours: points over the baseline, with the 95% interval over seeds and test images."]
    if not all(c.table.comparable for c in shown):
        notes.append("†: not the paper's protocol or data, so no verdict on its number.")
    if any(c.cell.crosses for c in shown):
        notes.append("††: a pair was trained by two versions of the training code.")
    if not all(c.moved for c in shown):
        notes.append("‡: the method is not known to have moved its maps, so this gain is no test of it.")
    return f"{render.escape_markdown(verdict(shown))}\n\n{grid}\n\n{' '.join(notes)}\n"
