"""The two tables that no single grid makes: Table 1, from the grids and the data, and the headline, from the others."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmark import data
from benchmark.errors import UserError
from benchmark.matrix import grid
from benchmark.matrix.grid import Grid
from benchmark.matrix.job import Job
from benchmark.tables import stats
from benchmark.tables.cells import Cell, Table
from benchmark.tables.published import Row, Spec

NOT_AT_HAND = "data not at hand"
METRICS = {"cross_entropy": "Top-1 Accuracy", "multilabel_soft_margin": "mean Average Precision"}


def headline(spec: Spec, tables: dict[str, Table], scale: str) -> Table:
    """For each row the cell with the best gain of another table. `tables`: by name, those that have this scale."""
    cells, notes = {}, []
    for row in spec.rows:
        cell, note = _best_gain(spec, row, tables.get(row.table))
        cells[row.key, spec.columns[0].key] = cell
        notes += [f"{row.key}: {note}."] if note else []
    comparable = all(tables[row.table].comparable for row in spec.rows if row.table in tables)
    why = "" if comparable else "; not comparable with the published gains (†)"
    head = [
        f"Scale {scale}{why}.",
        "Ours: the highest mean gain, over the baseline of the same seed, among the methods and rows of each data "
        "set's table; the best of several is too good on average, here as in the paper. Last epoch.",
    ]
    notes = [*head, *notes, *(f"In the paper: {text}" for text in spec.discrepancies)]
    return Table(spec, scale, cells, tuple(notes), comparable)


def _best_gain(spec: Spec, row: Row, table: Table | None) -> tuple[Cell, str]:
    empty = Cell(row.key, spec.columns[0].key, row.published[0], None, "not run")
    if table is None:
        return empty, ""
    of_item = [r.key for r in table.spec.rows if (r.item or r.key) == row.item]
    gains = [c for c in table.cells.values() if c.row in of_item and c.gain is not None]
    if not gains:
        states = {c.status for c in table.cells.values() if c.row in of_item} - {"done"}
        return replace(empty, status=states.pop() if len(states) == 1 else "not run"), ""
    best = max(gains, key=lambda c: c.gain)
    cell = replace(
        empty, status=best.status, planned=best.planned, seeds=best.seeds, values=best.gains, runs=best.runs,
        mean=best.gain, std=stats.sample_std(best.gains), interval=best.gain_interval,
        delta=None if row.published[0] is None else best.gain - row.published[0],
    )  # fmt: skip
    header = next(c.header for c in table.spec.columns if c.key == best.column)
    return cell, f"{table.label(best.row)}, {header.replace('{', '').replace('}', '')}"


def protocol(spec: Spec, scale: str, data_root: Path | None, cache_folder: Path) -> Table:
    """Table 1 as the grids have it at `scale`; counts are measured where the data are at hand, and said to be missing
    where they are not. A cell that differs from the printed one is marked."""
    cells = {}
    for column in spec.columns:
        chosen = grid.load(column.key)
        if scale not in chosen.scales:
            facts: dict[str, Any] = {}
        else:
            facts = _facts(chosen, chosen.jobs(scale), data_root, cache_folder)
        for row in spec.rows:
            cells[row.key, column.key] = _text_cell(row, column.key, spec, facts.get(row.key, f"no scale {scale}"))
    differing = [f"{c.row} of {c.column}" for c in cells.values() if c.text and c.text.endswith("≠")]
    notes = [
        f"Scale {scale}: protocol from benchmark/grids, counts from the data where they are at hand. "
        "≠: another value than the paper prints.",
        *([f"Different: {', '.join(differing)}."] if differing else []),
        *(f"In the paper: {text}" for text in spec.discrepancies),
    ]
    return Table(spec, scale, cells, tuple(notes), scale == "paper")


def _text_cell(row: Row, column: str, spec: Spec, ours: Any) -> Cell:
    printed = spec.published(row.key, column)
    known = ours != NOT_AT_HAND and not str(ours).startswith("no scale")
    text = _text(ours) + ("" if not known or same(ours, printed) else " ≠")
    return Cell(row.key, column, printed, None, "done" if known else "not run", text=text)


def same(ours: Any, printed: Any) -> bool:
    """Whether a value is what the paper prints; `1.3M` and `~1.3M` stand for what rounds to them."""
    if isinstance(printed, str) and printed.endswith("M") and isinstance(ours, int):
        return round(ours / 1e6, 1) == float(printed.strip("~M"))
    return _text(ours) == _text(printed)


def _text(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _facts(chosen: Grid, jobs: list[Job], data_root: Path | None, cache_folder: Path) -> dict[str, Any]:
    """A grid's column of Table 1; several settings are joined by a slash."""

    def joined(value_of: Callable[[Job], Any]) -> Any:
        values = list(dict.fromkeys(value_of(job) for job in jobs))
        return values[0] if len(values) == 1 else "/".join(map(_text, values))

    dataset = data.DATASETS[jobs[0].dataset]
    sets = _splits(jobs, dataset, data_root, cache_folder)
    whole = None not in sets.values()
    images = sum(len(found.ids) for found in sets.values()) if whole else NOT_AT_HAND
    if whole and dataset.count_images is not None:
        images = dataset.count_images(data.locate(jobs[0].dataset, data_root, cache_folder))

    def count(split: str, limit: int | None = None) -> Any:
        return NOT_AT_HAND if sets[split] is None else len(sets[split].ids[:limit])

    return {
        "# classes": len(sets[jobs[0].train_split].classes) if whole else NOT_AT_HAND,
        "image size": joined(lambda j: f"{j.image_size}×{j.image_size}"),
        "# images": images,
        "# training images": joined(lambda j: count(j.train_split, j.limit_train)),
        "# testing images": joined(lambda j: count(j.test_split)),
        "training batch size": joined(lambda j: j.batch_size),
        "weight decay": joined(lambda j: j.weight_decay),
        "momentum": joined(lambda j: j.momentum),
        "initial learning rate": joined(lambda j: j.learning_rate),
        "# training epochs": joined(lambda j: j.epochs),
        "evaluation metric": joined(lambda j: METRICS[j.loss]),
    }


def _splits(
    jobs: list[Job], dataset: data.Dataset, data_root: Path | None, cache_folder: Path
) -> dict[str, data.ImageSet | None]:
    """The splits that the jobs train and test on; None for what does not lie on disk whole."""

    def load(split: str) -> data.ImageSet | None:
        if dataset.draw is None and data_root is None:
            return None
        try:
            return dataset.load(data.locate(jobs[0].dataset, data_root, cache_folder), split)
        except UserError:
            return None

    return {split: load(split) for split in dict.fromkeys(s for j in jobs for s in (j.train_split, j.test_split))}
