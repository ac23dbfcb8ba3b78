"""From runs to tables: each cell's numbers and verdicts, and the notes that a reader needs beside them."""

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from benchmark.errors import UserError
from benchmark.matrix.job import FIELDS
from benchmark.matrix.matrix import Matrix
from benchmark.tables import collect, stats
from benchmark.tables.cells import Cell, Table
from benchmark.tables.published import Row, Spec
from benchmark.tables.stats import Verdict

TOO_FEW = ("no positives", "few positives")  # of a class, in the test set or in either split


def build(spec: Spec, matrix: Matrix) -> Table:
    """The table of the matrix's jobs, from what their run folders hold."""
    frame, warnings = collect.collect(matrix)
    departures = _departures(spec, matrix)
    comparable = matrix.scale == "paper" and not departures
    why_not = "" if comparable else f"scale {matrix.scale}: {'; '.join(departures) or matrix.overlay.why}"
    planned, by_item = frame.drop_duplicates("job"), dict(list(frame.groupby("item")))
    cells, orders, ran_as = {}, {}, {}
    too_few = TOO_FEW[matrix.min_positives > 1]
    for row in spec.rows:
        row_filter = matrix.row_filter(row.where)
        of_row = _matching(planned, row_filter)
        ran_as |= _ran_as(row, of_row)
        measured = _matching(by_item.get(row.item or row.key, frame.iloc[:0]), row_filter)
        for column in spec.columns:
            cells[row.key, column.key] = _cell(spec, row, column.key, of_row, measured, why_not, too_few)
        order = _order(spec, {c.key: cells[row.key, c.key] for c in spec.columns}, why_not)
        orders |= {row.key: order} if order else {}
    table = Table(spec, matrix.scale, cells, (), comparable, tuple(warnings), orders, tuple(departures), ran_as, matrix)
    if matrix.overlay.image_intervals:
        table = _with_image_intervals(table, matrix)
    return replace(table, notes=tuple(_notes(table, matrix)))


def paired_over(samples: collect.Samples, table: Table, cell: Cell) -> np.ndarray | None:
    """The cell's gain in each bootstrap sample of the test images."""
    by_seed = [dict(zip(c.seeds, c.runs, strict=False)) for c in (cell, table.baseline(cell))]
    return collect.paired_over(samples, *by_seed, table.item(cell))


def _with_image_intervals(table: Table, matrix: Matrix) -> Table:
    ids = dict.fromkeys(name for cell in table.cells.values() for name in cell.runs)
    samples = collect.image_samples(matrix, list(ids))
    cells = dict(table.cells)
    for key, cell in cells.items():
        gained = paired_over(samples, table, cell) if cell.gain is not None else None
        if gained is not None:
            cells[key] = replace(cell, gain_images=stats.percentile_interval(gained))
    return replace(table, cells=cells)


def _ran_as(row: Row, of_row: pd.DataFrame) -> dict[str, str]:
    others = [str(v) for name, value in row.where.items() for v in of_row[name].unique() if v != value]
    return {row.key: ", ".join(others)} if others else {}


def _matching(frame: pd.DataFrame, row_filter: dict[str, Any]) -> pd.DataFrame:
    for name, value in row_filter.items():
        frame = frame[frame[name] == value]
    return frame


def _cell(
    spec: Spec, row: Row, column: str, of_row: pd.DataFrame, measured: pd.DataFrame, why_not: str, too_few: str
) -> Cell:
    """One cell from the row's jobs, a line each, and from its item's numbers, a line each; `too_few` is its status
    where these are blank."""
    baseline = spec.columns[0].key
    published = spec.published(row.key, column)
    published_gain = None
    if column != baseline and published is not None and spec.published(row.key, baseline) is not None:
        published_gain = published - spec.published(row.key, baseline)
    planned = of_row[of_row["method"] == column]
    if planned.duplicated("seed").any():
        differing = [f for f in FIELDS if planned[f].nunique(dropna=False) > 1 and f != "seed"]
        raise UserError(
            f"table {spec.name}: cell {row.key}, {column} would mix jobs that differ in "
            f"{', '.join(differing)}; choose one value with --set"
        )
    head = {
        "row": row.key, "column": column, "published": published, "published_gain": published_gain,
        "planned": len(planned),
    }  # fmt: skip
    ours = measured[measured["method"] == column].set_index("seed")
    if ours.empty:
        return _judged(spec, Cell(**head, status=_blank(planned["state"].tolist())), why_not)
    runs, values = tuple(ours["job"]), ours["value"].dropna()
    if values.empty:
        return _judged(spec, Cell(**head, status=too_few, runs=runs), why_not)
    mean = float(values.mean())
    gains = pd.Series(dtype=float)
    if column != baseline:
        gains = (values - measured[measured["method"] == baseline].set_index("seed")["value"]).dropna()
    cell = Cell(
        **head,
        status="done" if len(ours) == len(planned) else "partial",
        seeds=tuple(int(seed) for seed in values.index),
        values=tuple(float(v) for v in values),
        runs=runs,
        mean=mean,
        std=stats.sample_std(values.to_numpy()),
        interval=stats.t_interval(values.to_numpy()),
        delta=None if published is None else mean - published,
        gains=tuple(float(v) for v in gains),
        gain=float(gains.mean()) if len(gains) else None,
        gain_interval=stats.t_interval(gains.to_numpy()),
    )
    return _judged(spec, cell, why_not)


def _blank(states: list[str]) -> str:
    for state in ("running", "stale", "diverged", "failed", "corrupt"):
        if state in states:
            return "running" if state == "stale" else state
    return "not run"


def _judged(spec: Spec, cell: Cell, why_not: str) -> Cell:
    """The cell with its verdicts on value and gain."""
    if spec.tolerance is None:
        return cell
    open_question = _open(cell, why_not)
    verdict = gain_verdict = None
    if cell.published is not None:
        verdict = open_question or stats.judge_value(list(cell.values), cell.published, spec.tolerance.value)
    if cell.published_gain is not None:
        missing = len(cell.gains) < cell.planned
        gain_verdict = open_question or (
            Verdict("not run", f"{len(cell.gains)} of {cell.planned} seeds have a baseline to be paired with")
            if missing
            else stats.judge_gain(list(cell.gains), cell.published_gain, spec.tolerance.gain)
        )
    return replace(cell, verdict=verdict, gain_verdict=gain_verdict)


def _open(cell: Cell, why_not: str) -> Verdict | None:
    """Why nothing can be judged, if so. Part of the planned seeds is not judged: looking early and stopping when the
    answer pleases would void the error rates."""
    if cell.status == "diverged":
        return Verdict("diverged", "the loss stopped being a number")
    if cell.mean is None and cell.status not in TOO_FEW:
        return Verdict("not run", cell.status)
    if why_not:
        return Verdict("not comparable", why_not)
    if cell.status in TOO_FEW:
        return Verdict("not comparable", "too few images show the class")
    if cell.status == "partial":
        return Verdict("not run", f"{cell.n} of {cell.planned} seeds; a verdict waits for all that were planned")
    return None


def _order(spec: Spec, cells: dict[str, Cell], why_not: str) -> Verdict | None:
    """Is the method that is best in the paper best here? None where the paper names no single best."""
    printed = {key: cell.published for key, cell in cells.items() if cell.published is not None}
    best = [key for key, value in printed.items() if value == max(printed.values())]
    if spec.tolerance is None or len(printed) < 2 or len(best) != 1:
        return None
    open_questions = [q for key in printed if (q := _open(cells[key], why_not))]
    if open_questions:
        return open_questions[0]
    by_seed = {key: dict(zip(cells[key].seeds, cells[key].values, strict=True)) for key in printed}
    shared = [seed for seed in by_seed[best[0]] if all(seed in by_seed[key] for key in printed)]
    leads = {key: [by_seed[best[0]][s] - by_seed[key][s] for s in shared] for key in printed if key != best[0]}
    return stats.judge_order(best[0], leads)


def _departures(spec: Spec, matrix: Matrix) -> list[str]:
    """Departures from the paper's protocol; one that not all columns share names those that have it."""
    headers = {c.key: c.header.replace("{", "").replace("}", "") for c in spec.columns}
    everywhere = set(matrix.methods)
    return [
        text if methods == everywhere else f"{text} [{', '.join(headers.get(m, m) for m in sorted(methods))}]"
        for text, methods in matrix.departures.items()
    ]


def _notes(table: Table, matrix: Matrix) -> list[str]:
    spec, seeds = table.spec, matrix.seeds
    why = "" if table.comparable else "; not comparable with the published cells (†)"
    planned = f"{'seeds' if len(seeds) > 1 else 'seed'} {', '.join(map(str, seeds))}"
    notes = [
        f"Scale {matrix.scale}: {_about(table, matrix)}{why}.",
        f"Ours: mean ± sample standard deviation over n seeds ({planned} planned), in {spec.unit}; "
        f"Δ: ours - paper; gain: method - baseline, paired by seed. Last epoch, never the best on the test set.",
    ]
    if matrix.overlay.image_intervals:
        notes.append(
            f"In brackets the gain's 95% interval by the paired bootstrap over the test images ({collect.ROUNDS} "
            "rounds); how much the gain varies over seeds is not in it."
        )
    if spec.tolerance is not None:
        notes.append(verdict_line(table))
    notes.append(f"Assumptions: {'; '.join(_as_they_ran(matrix))}.")
    unseen = list(dict.fromkeys(cell.row for cell in table.cells.values() if cell.status in TOO_FEW))
    if unseen and matrix.min_positives > 1:
        notes.append(
            f"Fewer than {matrix.min_positives} training or test images show {', '.join(unseen)}; mAP is the mean over "
            "the others."
        )
    elif unseen:
        notes.append(f"The test set shows no {', no '.join(unseen)}; mAP is the mean over the other classes.")
    if table.departures:
        notes.append(f"Deviations from the paper's protocol: {'; '.join(table.departures)}.")
    notes += [f"Nothing to compare with where no published cell is shown: {spec.missing}."] if spec.missing else []
    notes += [f"In the paper: {text}" for text in spec.discrepancies]
    return notes


def _about(table: Table, matrix: Matrix) -> str:
    """What the scale is, and which networks stand in where the rows do not say it."""
    overridden = matrix.scale == "paper" and table.departures
    about = "the paper's protocol, but for the deviations below" if overridden else matrix.overlay.why
    backbones = {job.backbone for job in matrix.jobs}
    stand_ins = [f"{new} for {old}" for old, new in matrix.overlay.stand_ins.items() if new in backbones]
    return about + (f" ({', '.join(stand_ins)})" if stand_ins and not table.ran_as else "")


def _as_they_ran(matrix: Matrix) -> list[str]:
    """The assumptions, each with the values that the jobs have: an override is printed as it ran."""
    texts = []
    for name, assumption in matrix.grid.assumptions.items():
        ran = [value for job in matrix.jobs if (value := getattr(job, name, None)) is not None]
        values = list(dict.fromkeys(ran)) or [matrix.definition if name == "ap_definition" else assumption.value]
        texts.append(f"{name} {'/'.join(map(shown, values))}")
    return texts


def verdict_line(table: Table) -> str:
    """The table's answer in a line, such as `Verdicts: value: 3 reproduced, 18 not run; gain: ...`."""
    parts = []
    for level, counts in table.verdicts().items():
        found = ", ".join(f"{counts[outcome]} {outcome}" for outcome in stats.OUTCOMES if counts[outcome])
        parts.append(f"{level}: {found or 'nothing published'}")
    tolerance, unit = table.spec.tolerance, table.spec.unit
    return (
        f"Verdicts: {'; '.join(parts)}. By 95% t intervals over seeds, against tolerances of {tolerance.value:g} "
        f"{unit} (value) and {tolerance.gain:g} {unit} (gain)."
    )


def shown(value: Any) -> str:
    """A job field's value for people."""
    text = {True: "yes", False: "no"}.get(value, str(value)) if isinstance(value, bool) else str(value)
    return text[:19] if text.startswith("sha256:") else text


def compare(table: Table, tolerance: float) -> list[dict[str, Any]]:
    """Each cell's outcome against its published one: within or outside the tolerance, missing, not
    comparable, not published; and the verdict on it, which asks the same of the whole interval."""
    rows = []
    for cell in table.cells.values():
        if cell.published is None:
            outcome = "not published"
        elif cell.delta is None or cell.status != "done":
            outcome = "missing"
        elif not table.comparable:
            outcome = "not comparable"
        else:
            outcome = "within" if abs(cell.delta) <= tolerance else "outside"
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
                "verdict": cell.verdict.outcome if cell.verdict else None,
                "gain_verdict": cell.gain_verdict.outcome if cell.gain_verdict else None,
            }
        )
    return rows
