"""Values first: a table is cells of numbers with the runs that they came from. Text is render.py's."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from benchmark import results
from benchmark.errors import UserError
from benchmark.grid import Grid
from benchmark.job import FIELDS, Job
from benchmark.published import Row, Spec


@dataclass(frozen=True)
class Cell:
    """One cell, in the table's unit. `values` are per seed; `mean` and `std` (sample, n >= 2) theirs.

    `delta` is mean - published; `gain` the mean over seeds of method - baseline, both runs of one seed.
    `status`: done; partial (some seeds); no positives (the test set shows none); or, without any value, not run,
    running, failed, diverged.
    """

    row: str
    column: str
    published: float | None
    published_gain: float | None
    status: str
    values: tuple[float, ...] = ()
    runs: tuple[str, ...] = ()
    mean: float | None = None
    std: float | None = None
    delta: float | None = None
    gain: float | None = None

    @property
    def n(self) -> int:
        return len(self.values)


@dataclass(frozen=True)
class Table:
    """Cells by row and column, and what a reader must know beside them."""

    spec: Spec
    scale: str
    cells: dict[tuple[str, str], Cell]
    notes: tuple[str, ...]
    comparable: bool
    warnings: tuple[str, ...] = ()

    def best(self, row: str, published: bool = False) -> set[str]:
        """Columns with the highest value of a row, as printed (so two equal ones share the bold)."""
        values = {
            c.key: getattr(self.cells[row, c.key], "published" if published else "mean") for c in self.spec.columns
        }
        printed = {k: round(v, self.spec.decimals) for k, v in values.items() if v is not None}
        return {k for k, v in printed.items() if v == max(printed.values())} if len(printed) > 1 else set()


def build(spec: Spec, grid: Grid, scale: str, jobs: list[Job], runs: Path) -> Table:
    """The table of `jobs`, from what lies under `runs`."""
    definition = grid.assumptions["ap_definition"].value
    frame, warnings = results.collect(runs, jobs, definition)
    stand_ins = grid.scales[scale].stand_ins
    cells = {}
    for row in spec.rows:
        of_row = frame
        for field, value in row.where.items():
            of_row = of_row[of_row[field] == stand_ins.get(value, value)]
        for column in spec.columns:
            cells[row.key, column.key] = _cell(spec, row, column.key, of_row)
    departures = _departures(spec, grid, jobs)
    comparable = scale == "paper" and not departures
    return Table(spec, scale, cells, tuple(_notes(spec, grid, scale, jobs, departures)), comparable, tuple(warnings))


def _cell(spec: Spec, row: Row, column: str, of_row: pd.DataFrame) -> Cell:
    baseline = spec.columns[0].key
    published = spec.published(row.key, column)
    published_gain = None
    if column != baseline and published is not None and spec.published(row.key, baseline) is not None:
        published_gain = published - spec.published(row.key, baseline)
    head = {"row": row.key, "column": column, "published": published, "published_gain": published_gain}
    planned = of_row[of_row["method"] == column].drop_duplicates("job")
    if planned.duplicated("seed").any():
        differing = [f for f in FIELDS if planned[f].nunique(dropna=False) > 1 and f != "seed"]
        raise UserError(
            f"table {spec.name}: cell {row.key}, {column} would mix jobs that differ in "
            f"{', '.join(differing)}; choose one value with --set"
        )
    measured = of_row[of_row["item"] == (row.item or row.key)]
    ours = measured[measured["method"] == column].set_index("seed")
    if ours.empty:
        return Cell(**head, status=_blank(planned["state"].tolist()))
    runs, values = tuple(ours["job"]), ours["value"].dropna()
    if values.empty:
        return Cell(**head, status="no positives", runs=runs)
    mean = float(values.mean())
    gains = pd.Series(dtype=float)
    if column != baseline:
        gains = (values - measured[measured["method"] == baseline].set_index("seed")["value"]).dropna()
    return Cell(
        **head,
        status="done" if len(ours) == len(planned) else "partial",
        values=tuple(float(v) for v in values),
        runs=runs,
        mean=mean,
        std=float(values.std(ddof=1)) if len(values) > 1 else None,
        delta=None if published is None else mean - published,
        gain=float(gains.mean()) if len(gains) else None,
    )


def _blank(states: list[str]) -> str:
    for state in ("running", "stale", "diverged", "failed"):
        if state in states:
            return "running" if state == "stale" else state
    return "not run"


def _departures(spec: Spec, grid: Grid, jobs: list[Job]) -> list[str]:
    """Deviations from the paper's protocol; one that not all columns share names those that have it."""
    headers = {c.key: c.header.replace("{", "").replace("}", "") for c in spec.columns}
    methods: dict[str, set[str]] = {}
    for job in jobs:
        for deviation in grid.deviations(job):
            methods.setdefault(deviation, set()).add(job.method)
    everywhere = {job.method for job in jobs}
    return [
        text if held == everywhere else f"{text} [{', '.join(headers.get(m, m) for m in sorted(held))}]"
        for text, held in methods.items()
    ]


def _notes(spec: Spec, grid: Grid, scale: str, jobs: list[Job], departures: list[str]) -> list[str]:
    seeds = sorted({job.seed for job in jobs})
    a = {name: assumption.value for name, assumption in grid.assumptions.items()}
    comparable = scale == "paper" and not departures
    why = "" if comparable else "; not comparable with the published cells (†)"
    # A value that an override changed is printed as it ran, not as the grid assumes it.
    ran: dict[str, list[Any]] = {}
    for job in jobs:
        for name in grid.assumptions:
            value = getattr(job, name, None)
            if value is not None and value not in ran.setdefault(name, []):
                ran[name].append(value)
    listed = [f"{n} {'/'.join(_text(v) for v in ran.get(n) or [a[n]])}" for n in grid.assumptions]
    notes = [
        f"Scale {scale}: {grid.scales[scale].why}{why}.",
        f"Ours: mean ± sample standard deviation over n seeds ({', '.join(map(str, seeds))} planned), in {spec.unit}; "
        f"Δ: ours - paper; gain: method - baseline, paired by seed. Last epoch, never the best on the test set.",
        f"Assumptions: {'; '.join(listed)}.",
    ]
    if departures:
        notes.append(f"Deviations from the paper's protocol: {'; '.join(departures)}.")
    notes += [f"In the paper: {text}" for text in spec.discrepancies]
    return notes


def _text(value: Any) -> str:
    text = {True: "yes", False: "no"}.get(value, str(value)) if isinstance(value, bool) else str(value)
    return text[:19] if text.startswith("sha256:") else text


def compare(table: Table) -> list[dict[str, Any]]:
    """Each cell's outcome against its published one: within or outside the declared tolerance, missing, not
    comparable, not published."""
    rows = []
    for cell in table.cells.values():
        if cell.published is None:
            outcome = "not published"
        elif cell.delta is None or cell.status != "done":
            outcome = "missing"
        elif not table.comparable:
            outcome = "not comparable"
        else:
            outcome = "within" if abs(cell.delta) <= table.spec.tolerance else "outside"
        rows.append(
            {
                "row": cell.row,
                "column": cell.column,
                "published": cell.published,
                "mean": cell.mean,
                "n": cell.n,
                "delta": cell.delta,
                "status": cell.status,
                "outcome": outcome,
            }
        )
    return rows


def exit_status(outcomes: list[dict[str, Any]]) -> int:
    """0: all within tolerance; 1: some outside; 2: some missing or not comparable, so the question stays open."""
    found = {o["outcome"] for o in outcomes}
    if found & {"missing", "not comparable"}:
        return 2
    return 1 if "outside" in found else 0
