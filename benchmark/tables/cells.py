"""What a table is: cells of numbers with the runs that they came from. tables.py fills it; render.py prints it."""

from collections import Counter
from dataclasses import dataclass, field

from benchmark.matrix.matrix import Matrix
from benchmark.tables.published import Row, Spec
from benchmark.tables.stats import Interval, Verdict

LEVELS = ("value", "gain", "order")  # what a verdict is about: a cell, its lead over the baseline, a row's best method


@dataclass(frozen=True)
class Cell:
    """One cell, in the table's unit. `values` are per seed; `mean`, `std` (sample, n >= 2) and `interval` theirs.

    `delta` is mean - published; `gains` are, over seeds, method - baseline, both runs of one seed; `gain` their mean.
    `status`: done; partial (some seeds); no or few positives (of the class); or, without any value, not run,
    running, failed, diverged. A verdict is None where the paper prints nothing to judge by.
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
    gain_interval: Interval | None = None
    gain_images: Interval | None = None  # of the gain, by the paired bootstrap over test images; see Scale
    verdict: Verdict | None = None
    gain_verdict: Verdict | None = None
    text: str | None = None  # a cell of words, as Table 1's

    @property
    def n(self) -> int:
        return len(self.values)


@dataclass(frozen=True)
class Table:
    """Cells by row and column, and what a reader must know beside them. `orders`: each row's verdict on which method
    is best. `ran_as`: for a row whose runs have other values than it names, such as a stand-in's, those values."""

    spec: Spec
    scale: str
    cells: dict[tuple[str, str], Cell]
    notes: tuple[str, ...]
    comparable: bool
    warnings: tuple[str, ...] = ()
    orders: dict[str, Verdict] = field(default_factory=dict)
    departures: tuple[str, ...] = ()
    ran_as: dict[str, str] = field(default_factory=dict)
    matrix: Matrix | None = None  # whose jobs it shows; a table of tables, or of words, has none

    def label(self, row: str) -> str:
        """The row's key for people, with what stood in for it, as `ResNet-18, top-1 (as resnet18_narrow)`."""
        return f"{row} (as {self.ran_as[row]})" if row in self.ran_as else row

    def baseline(self, cell: Cell) -> Cell:
        """The first column's cell of the same row."""
        return self.cells[cell.row, self.spec.columns[0].key]

    def row(self, cell: Cell) -> Row:
        return next(row for row in self.spec.rows if row.key == cell.row)

    def item(self, cell: Cell) -> str:
        """The measured number that the cell shows: a class, mAP, top1, ..."""
        return self.row(cell).item or cell.row

    def best(self, row: str, published: bool = False) -> set[str]:
        """Columns with the highest value of a row, as printed (so two equal ones share the bold)."""
        values = {
            c.key: getattr(self.cells[row, c.key], "published" if published else "mean") for c in self.spec.columns
        }
        numbers = {} if self.spec.decimals is None else values
        printed = {k: round(v, self.spec.decimals) for k, v in numbers.items() if v is not None}
        return {k for k, v in printed.items() if v == max(printed.values())} if len(printed) > 1 else set()

    def verdicts(self) -> dict[str, Counter]:
        """How often each outcome falls, by level."""
        cells = list(self.cells.values())
        judged = {
            "value": [c.verdict for c in cells],
            "gain": [c.gain_verdict for c in cells],
            "order": list(self.orders.values()),
        }
        return {level: Counter(v.outcome for v in judged[level] if v is not None) for level in LEVELS}
