"""Any two sides, cell by cell: published cells, a table (built, or read from its json or csv), run folders.

Both sides become the same plain thing, a Side; one comparison serves all.
"""

import json
from dataclasses import dataclass, field
from io import StringIO
from pathlib import Path
from typing import Any

import pandas as pd

from benchmark.errors import UserError
from benchmark.results.results import Finished, Reader, items
from benchmark.store.run import runs_in
from benchmark.tables import published, render
from benchmark.tables.cells import Cell, Table
from benchmark.tables.published import Spec

FLOAT_NOISE = 1e-9
EXACT_DECIMALS = 6  # of csv and json


class UnfitError(UserError):
    """The two sides hold nothing that could be compared; the exit status is 3."""


@dataclass(frozen=True)
class Side:
    """Cells by (row, column) or (job, item), in the table's unit; None where there is no number.

    kind: published, table or runs. `rounding`: how far a cell may be from the number it was printed from.
    """

    kind: str
    label: str
    table: str | None
    scale: str | None
    comparable: bool  # with published cells
    cells: dict[tuple[str, str], float | None]
    rounding: float = 0.0
    notes: tuple[str, ...] = field(default=())


def of_published(spec: Spec) -> Side:
    cells = {(c["row"], c["column"]): c["value"] for c in published.cells(spec)}
    if not all(value is None or isinstance(value, (int, float)) for value in cells.values()):
        raise UnfitError(f"{spec.name} holds text, not numbers")
    return Side("published", f"published {spec.name}", spec.name, None, True, cells)


def of_table(table: Table) -> Side:
    cells = {at: cell.mean for at, cell in _ours(table)}
    label = f"{table.spec.name} at scale {table.scale}"
    return Side("table", label, table.spec.name, table.scale, table.comparable, cells, 0.0, table.notes)


def of_published_beside(table: Table) -> Side:
    """The published cells as they stand in a built table: a mean over the classes that ours is over."""
    spec, cells = table.spec, {at: cell.published for at, cell in _ours(table)}
    return Side("published", f"published {spec.name}", spec.name, None, True, cells)


def _ours(table: Table) -> list[tuple[tuple[str, str], Cell]]:
    """Without the columns of which nothing is to run."""
    return [(at, cell) for at, cell in table.cells.items() if table.spec.runs(cell.column)]


def of_runs(folder: Path, ap_definition: str, reader: Reader) -> Side:
    """Every finished run under runs/, under one scale's folder of it, or in its own folder."""
    runs = runs_in(folder)
    if not runs:
        raise UnfitError(f"{folder}: holds no run folders")
    cells: dict[tuple[str, str], float | None] = {}
    for run in runs:
        found = reader.open(run.folder)
        values = items(found.record, ap_definition) if isinstance(found, Finished) else {"": None}
        cells |= {(run.id, item): value for item, value in values.items()}
    return Side("runs", str(folder), None, None, True, cells)


def of_file(path: Path) -> Side:
    """A table that this suite wrote. UnfitError for anything else."""
    readers = {".json": _read_json, ".csv": _read_csv}
    if path.suffix not in readers:
        raise UnfitError(
            f"{path}: expected a folder of runs, or a table ending in {', '.join(readers)}; "
            "a table's .json lies beside its .md and .tex"
        )
    if path.exists() and not path.is_file():
        raise UserError(f"{path}: is no regular file; name one")
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read ({error})") from None
    try:
        return readers[path.suffix](text, str(path))
    except (KeyError, IndexError, TypeError, ValueError, StopIteration) as error:
        raise UnfitError(f"{path}: not a table that 'python -m benchmark tables' wrote ({error!r})") from None


def _read_json(text: str, label: str) -> Side:
    document = json.loads(text)
    return _tidy(document["cells"], label, tuple(document["notes"]))


def _read_csv(text: str, label: str) -> Side:
    frame = pd.read_csv(StringIO(text), keep_default_na=False)
    lines = [{str(key): value for key, value in line.items()} for line in frame.to_dict("records")]
    return _tidy([line | {"mean": float(line["mean"]) if line["mean"] != "" else None} for line in lines], label)


def _tidy(lines: list[dict[str, Any]], label: str, notes: tuple[str, ...] = ()) -> Side:
    first = lines[0]
    cells = {(_named(line["row"]), _named(line["column"])): line["mean"] for line in lines}
    comparable = str(first["comparable"]) == "True"
    rounding = 0.5 * 10**-EXACT_DECIMALS
    return Side("table", label, first["table"], first["scale"], comparable, cells, rounding, notes)


def _named(text: Any) -> str:
    """Without the apostrophe of `render.inert`."""
    return str(text).removeprefix("'") if render.inert(str(text)[1:]) == text else str(text)


def compare(a: Side, b: Side, tolerance: float) -> list[dict[str, Any]]:
    """Each cell's outcome: within or outside the tolerance, missing, not comparable. UnfitError where nothing of the
    one side can be in the other."""
    if (a.kind == "runs") != (b.kind == "runs"):
        raise UnfitError(f"{a.label} and {b.label}: runs are compared with runs, tables with tables")
    if a.table != b.table:
        raise UnfitError(f"{a.label} and {b.label}: two tables, {a.table} and {b.table}")
    if not a.cells.keys() & b.cells.keys():
        raise UnfitError(f"{a.label} and {b.label}: no {'job' if a.kind == 'runs' else 'cell'} is in both")
    allowed = tolerance + a.rounding + b.rounding + FLOAT_NOISE
    comparable = _comparable(a, b)
    lines = []
    for at in dict.fromkeys([*a.cells, *b.cells]):
        before, after = a.cells.get(at), b.cells.get(at)
        delta = None if before is None or after is None else after - before
        if at in a.cells and at in b.cells and before is None and after is None:
            outcome = "both blank"
        elif delta is None:
            outcome = "not published" if before is None and a.kind == "published" else "missing"
        elif not comparable:
            outcome = "not comparable"
        else:
            outcome = "within" if abs(delta) <= allowed else "outside"
        lines.append({"row": at[0], "column": at[1], "a": before, "b": after, "delta": delta, "outcome": outcome})
    return lines


def _comparable(a: Side, b: Side) -> bool:
    if "published" in (a.kind, b.kind):
        return a.comparable and b.comparable
    return a.scale == b.scale


def exit_status(outcomes: list[dict[str, Any]]) -> int:
    """0: all within tolerance; 1: some outside; 2: some missing or not comparable, so the question stays open."""
    kinds = {o["outcome"] for o in outcomes}
    if kinds & {"missing", "not comparable"}:
        return 2
    return 1 if "outside" in kinds else 0
