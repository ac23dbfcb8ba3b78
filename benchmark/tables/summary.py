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
from benchmark.stats import claims, intervals
from benchmark.stats.intervals import DECIDED, JUDGED, Verdict
from benchmark.tables import locks
from benchmark.tables.build import judged_claim, told_locks, treatments, with_lock
from benchmark.tables.cells import CROSSING, Cell, Table, TableOfRuns
from benchmark.tables.published import Row, Spec

NOT_AT_HAND = "data not at hand"
METRICS = {"cross_entropy": "Top-1 Accuracy", "multilabel_soft_margin": "mean Average Precision"}


def headline(spec: Spec, tables: dict[str, TableOfRuns], scale: str, book: locks.Book | None = None) -> Table:
    """The gains of other tables' rows, each method against what the abstract claims. `tables`: by name, those that have
    this scale. book: the locks that its verdicts may name."""
    comparable = all(tables[row.table].comparable for row in spec.rows if row.table in tables)
    cells = {(row.key, c.key): _claimed(spec, row, c.key, tables) for row in spec.rows for c in spec.columns}
    cells, corrected = _corrected(spec, cells)
    table_of = {row.key: tables.get(row.table or "") for row in spec.rows}
    for claim in locks.claims_of(spec, {name: table.spec for name, table in tables.items()}):
        at, source = (claim.row, claim.column), table_of[claim.row]
        if source and source.reading is not None:
            cells = cells | {at: with_lock(cells[at], claim, source, book or locks.Book())}
    ran_as = {row.key: tables[row.table].ran_as.get(row.of or "", "") for row in spec.rows if row.table in tables}
    table = Table(
        spec, scale, cells, (), comparable, ran_as={row: name for row, name in ran_as.items() if name},
        sources={row: source for row, source in table_of.items() if source},
    )  # fmt: skip
    why = "" if comparable else "; not comparable with the published gains (†)"
    notes = [
        f"Scale {scale}{why}.",
        "Ours: the mean gain over the baseline of the same seed, in brackets its 95% interval over seeds and test "
        "images together; share: of the paper's gain. Every method and network is shown, none chosen. Last epoch.",
        corrected,
        told_locks(table) if comparable else f"Exploratory: scale {scale}; not locked.",
        *_marks(list(cells.values())),
        *treatments(table),
        *(f"{row}: as {name}." for row, name in table.ran_as.items()),
        *(f"In the paper: {text}" for text in spec.discrepancies),
    ]
    return replace(table, notes=tuple(notes))


def _claimed(spec: Spec, row: Row, method: str, tables: dict[str, TableOfRuns]) -> Cell:
    """One method's gain. What is claimed is a mean over all classes: where ours leaves some out, it is the paper's gain
    over the same ones."""
    printed = spec.published(row.key, method)
    table = tables.get(row.table or "")
    if table is None or row.of is None:
        return Cell(row.key, method, printed, None, "not run")
    source = table.cells[row.of, method]
    claim = source.published_gain if source.published_over else printed
    cell = Cell(
        row.key, method, claim, None, source.status if source.gain is not None else _blank(source), source.planned,
        source.paired_seeds, source.gains, _paired_runs(source), source.gain,
        intervals.sample_std(source.gains), gains=source.gains,
        paired_seeds=source.paired_seeds, gain=source.gain, gain_interval=source.gain_interval,
        published_over=source.published_over, crosses=source.crosses, unpaired=source.unpaired,
        treatment=source.treatment,
    )  # fmt: skip
    if claim is None or source.gain is None:
        return cell
    return replace(cell, gain_verdict=judged(spec, cell, claim, table))


def _paired_runs(cell: Cell) -> tuple[str, ...]:
    of_seed = dict(zip(cell.seeds, cell.runs, strict=False))  # a cell without a value has runs, but no seeds
    return tuple(of_seed[seed] for seed in cell.paired_seeds)


def _blank(cell: Cell) -> str:
    return "no pair" if cell.mean is not None else cell.status


def judged(spec: Spec, cell: Cell, claim: float, table: Table) -> Verdict:
    """The half-claim rule on a headline cell, where its table can be compared with the paper."""
    if not table.comparable:
        return Verdict("not comparable", f"scale {table.scale}")
    if table.reading is None:
        return Verdict("exploratory", "not a frozen reading with seeds 0, 1, 2, ...")
    return judged_claim(spec, cell, claim)


def _corrected(spec: Spec, cells: dict[tuple[str, str], Cell]) -> tuple[dict[tuple[str, str], Cell], str]:
    """The cells with verdicts that also hold when all claims that are judged here are judged together (Holm), and a
    note. Two-sided, as the interval is; what is inconclusive counts among them."""
    p_values: dict[tuple[str, str], float] = {}
    for at, cell in cells.items():
        known = cell.gain_interval.estimate if cell.gain_interval else None
        if (
            cell.gain_verdict
            and cell.gain_verdict.outcome in JUDGED
            and known
            and isinstance(cell.published, int | float)
        ):
            p = claims.claim_p(known, cell.published)
            p_values[at] = min(1.0, 2 * min(p, 1 - p))
    if not p_values:
        looks = ", ".join(map(str, spec.looks or []))
        return cells, f"Verdicts: none yet; a claim is judged at {looks} seeds of the paper's protocol."
    adjusted = dict(zip(p_values, claims.holm(list(p_values.values())), strict=True))
    for at, p in adjusted.items():
        cell = cells[at]
        level = claims.level_of_look(len(cell.gains), spec.looks)
        if cell.gain_verdict and cell.gain_verdict.outcome in DECIDED and (level is None or p > 1 - level):
            reason = f"{cell.gain_verdict.reason}; not with {len(adjusted)} claims judged together (p = {p:.2g}, Holm)"
            cells = cells | {at: replace(cell, gain_verdict=Verdict("inconclusive", reason))}
    told = [f"{row}, {column}: {cells[row, column].gain_verdict.outcome} (p = {p:.2g})"  # type: ignore[union-attr]
            for (row, column), p in adjusted.items()]  # fmt: skip
    return cells, f"Verdicts against half of the claim, {len(told)} judged together (Holm): {'; '.join(told)}."


def missing_seeds(named: dict[str, Cell]) -> list[str]:
    """Which gains rest on fewer pairs of seeds than were planned, in a line."""
    told = [
        f"{name} ({len(cell.gains)} of {cell.planned}{''.join(cell.status.partition(',')[1:])})"
        for name, cell in named.items()
        if 0 < len(cell.gains) < cell.planned
    ]
    return [f"Not all planned seeds have run: {'; '.join(told)}."] if told else []


def _marks(cells: list[Cell]) -> list[str]:
    """What the marks and labels in the cells mean, where there are some."""
    notes = []
    if any(cell.published_over for cell in cells):
        notes.append("Where the label counts classes, the paper's gain is taken anew over the same, from its Table 2.")
    notes += missing_seeds({f"{cell.row}, {cell.column}": cell for cell in cells})
    if any(cell.crosses for cell in cells):
        notes.append(CROSSING)
    return notes


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

    dataset = data.find(jobs[0].dataset)
    sets = _splits(jobs, dataset, data_root, cache_folder)
    present = [split for split in sets.values() if split is not None]
    whole = len(present) == len(sets)
    images: Any = sum(len(split.ids) for split in present) if whole else NOT_AT_HAND
    if whole and dataset.all_images is not None:
        images = len(dataset.all_images(data.locate(jobs[0].dataset, data_root, cache_folder)))

    def count(split: str, limit: int | None = None) -> Any:
        read = sets[split]
        return NOT_AT_HAND if read is None else len(read.ids[:limit])

    return {
        "# classes": len(present[0].classes) if whole else NOT_AT_HAND,
        "image size": joined(lambda j: f"{j.image_size}×{j.image_size}"),
        "# images": images,
        "# training images": joined(lambda j: count(j.train_split, j.limit_train)),
        "# testing images": joined(lambda j: count(j.test_split, j.limit_test)),
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
