"""What a table is: cells of numbers with the runs that they came from. build.py fills it; render.py prints it."""

import math
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from benchmark.matrix.matrix import Matrix
from benchmark.results.results import Results
from benchmark.stats.claims import GainInterval
from benchmark.stats.intervals import Interval, Verdict
from benchmark.tables.published import Row, Spec
from benchmark.tables.treatment import Treatment

CROSSING = "††: not all of its runs were trained by one version of the training code."
LEVELS = ("value", "gain", "order")  # what a verdict is about: a cell, its lead over the baseline, a row's best method


@dataclass(frozen=True)
class Cell:
    """One cell, in the table's unit. `values` are per seed; `mean`, `std` (sample, n >= 2) and `interval` theirs.

    `published` is over `published_over` classes where ours leaves some out, else (None) as printed. `delta` is mean -
    published, None where the test set is not the paper's: a difference of values would measure the images. `gains` are,
    over seeds, method - baseline, both runs of one seed and tested on the same images; `gain` their mean, and
    `gain_interval` its interval over seeds and test images together. `crosses`: the paired runs were not all trained by
    the same code. `unpaired`: pairs that were not made, and why. `status`: done; partial (some seeds, and how many
    diverged); no or few positives (of the class); or, without any value, not run, running, failed, diverged, corrupt,
    or published (only that: nothing is to run). A verdict is None where the paper prints nothing to judge by, or claims
    nothing of the row. `treatment`: of a row that is a claim, whether the method moved the maps that it is to move;
    None of one that moves none. `lock`: what is to be said of a claim's lock (locks.standing).
    """

    row: str
    column: str
    published: float | None
    published_gain: float | None
    status: str
    planned: int = 0
    seeds: tuple[int, ...] = ()
    values: tuple[float, ...] = ()
    runs: tuple[str, ...] = ()
    mean: float | None = None
    std: float | None = None
    interval: Interval | None = None
    delta: float | None = None
    gains: tuple[float, ...] = ()
    gain: float | None = None
    gain_interval: GainInterval | None = None
    paired_seeds: tuple[int, ...] = ()
    published_over: int | None = None
    crosses: bool = False
    unpaired: tuple[str, ...] = ()
    verdict: Verdict | None = None
    gain_verdict: Verdict | None = None
    treatment: Treatment | None = None
    lock: str | None = None
    text: str | None = None  # a cell of words, as Table 1's

    @property
    def n(self) -> int:
        return len(self.values)


@dataclass(frozen=True)
class Table:
    """Cells by row and column, and what a reader must know beside them. `orders`: each row's verdict on which method
    is best. `ran_as`: for a row whose runs have other values than it names, such as a stand-in's, or a reading that
    the scale has and the grid has not, those values.
    `reading`: the frozen reading that its runs follow; without one they are exploratory."""

    spec: Spec
    scale: str
    cells: dict[tuple[str, str], Cell]
    notes: tuple[str, ...]
    comparable: bool
    orders: dict[str, Verdict] = field(default_factory=dict)
    departures: tuple[str, ...] = ()
    ran_as: dict[str, str] = field(default_factory=dict)
    reading: dict[str, Any] | None = None
    sources: "dict[str, TableOfRuns]" = field(default_factory=dict, repr=False)  # by row, of a table of tables

    @property
    def warnings(self) -> list[str]:
        """A line for each damaged file of the runs that it rests on."""
        return list(dict.fromkeys(line for source in self.sources.values() for line in source.warnings))

    def to_frame(self) -> Any:
        """A tidy pandas DataFrame, a line a cell: row, column, published, mean, std, ... in the table's unit."""
        import pandas as pd

        return pd.DataFrame(self.records())

    def records(self) -> list[dict[str, Any]]:
        """Return each cell as plain data, intervals and verdicts with it: tidy, in the table's unit."""
        return [
            {
                "table": self.spec.name, "scale": self.scale, "row": c.row, "column": c.column,
                "published": c.published, "mean": c.mean, "std": c.std, "n": c.n,
                "low": c.interval and c.interval[0], "high": c.interval and c.interval[1], "delta": c.delta,
                "gain": c.gain, "gain_low": c.gain_interval and c.gain_interval.low,
                "gain_high": c.gain_interval and c.gain_interval.high,
                "gain_over": c.gain_interval and c.gain_interval.over,
                "published_gain": c.published_gain, "published_over": c.published_over, "crosses": c.crosses,
                "status": c.status, "comparable": self.comparable,
                "verdict": c.verdict and c.verdict.outcome, "gain_verdict": c.gain_verdict and c.gain_verdict.outcome,
                "order_verdict": self.orders[c.row].outcome if c.row in self.orders else None,
                "values": list(c.values), "runs": list(c.runs),
            }
            for c in self.cells.values()
        ]  # fmt: skip

    def label(self, row: str) -> str:
        """The row's key for people, with what stood in for it, as `ResNet-18, top-1 (as resnet18_narrow)`, and over how
        many classes its means are where ours leaves some out: `mAP (12 classes)`."""
        over = next((c.published_over for c in self.cells.values() if c.row == row and c.published_over), None)
        named = row in self.ran_as and not self.spec.of_gains  # the headline names them in its notes
        stood_in = f" (as {self.ran_as[row]})" if named else ""
        return row + stood_in + (f" ({over} classes)" if over else "")

    def baseline(self, cell: Cell) -> Cell:
        """The cell of the same row that its gain is over: the first column's, or the row's own choice; itself where it
        has no gain."""
        over = self.row(cell).over
        return self.cells[cell.row, over.get(cell.column, cell.column) if over else self.spec.columns[0].key]

    def row(self, cell: Cell) -> Row:
        return next(row for row in self.spec.rows if row.key == cell.row)

    def item(self, cell: Cell) -> str:
        """The measured number that the cell shows: a class, mAP, top1, ..."""
        return self.row(cell).item or cell.row

    def best(self, row: str, published: bool = False) -> set[str]:
        """Columns to be printed in bold: the highest published value of a row, as printed (two equal ones share it); of
        ours the one that is ahead of all others beyond the noise, if there is one."""
        cells = [self.cells[row, column.key] for column in self.spec.columns]
        if self.spec.decimals is None or self.spec.of_gains or len(cells) < 2:
            return set()
        if published:
            printed = {c.column: round(c.published, self.spec.decimals) for c in cells if c.published is not None}
            return {k for k, v in printed.items() if v == max(printed.values())} if len(printed) > 1 else set()
        first, *others = cells
        if any(cell.mean is None or cell.gain_interval is None for cell in others):
            return set()
        if any(cell.gain_interval.over == "images only" for cell in others if cell.gain_interval):
            return set()  # with one seed nobody knows how much another would change the order
        if all(cell.gain_interval.high < 0 for cell in others if cell.gain_interval):
            return {first.column}
        lead = max(others, key=lambda cell: cell.gain_interval.low if cell.gain_interval else -math.inf)
        beaten = [cell.gain_interval.high for cell in others if cell is not lead and cell.gain_interval]
        low = lead.gain_interval.low if lead.gain_interval else -math.inf
        return {lead.column} if low > max([0.0, *beaten]) else set()

    def verdicts(self) -> dict[str, Counter]:
        """How often each outcome falls, by level."""
        cells = list(self.cells.values())
        judged: dict[str, list[Verdict | None]] = {
            "value": [c.verdict for c in cells],
            "gain": [c.gain_verdict for c in cells],
            "order": list(self.orders.values()),
        }
        return {level: Counter(v.outcome for v in judged[level] if v is not None) for level in LEVELS}


@dataclass(frozen=True)
class TableOfRuns(Table):
    """A table of what runs hold; a table of tables, or of words, is none."""

    results: Results = field(kw_only=True, repr=False, compare=False)

    @property
    def matrix(self) -> Matrix:
        """Whose jobs it shows."""
        return self.results.matrix

    @property
    def warnings(self) -> list[str]:
        return self.results.warnings
