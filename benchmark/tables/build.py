"""From runs to tables: each cell's numbers and verdicts, and the notes that a reader needs beside them."""

from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from benchmark import data
from benchmark.errors import UserError
from benchmark.matrix import study
from benchmark.matrix.job import METHOD_FIELDS, Job, settable
from benchmark.matrix.matrix import Matrix
from benchmark.results import pairing
from benchmark.results.pairing import Group, Samples
from benchmark.results.results import ROUNDS, Results
from benchmark.stats import claims, intervals
from benchmark.stats.intervals import Verdict
from benchmark.tables import locks
from benchmark.tables.cells import CROSSING, Cell, Table, TableOfRuns
from benchmark.tables.published import Row, Spec
from benchmark.tables.treatment import treatment

TOO_FEW = ("no positives", "few positives")  # of a class, in the test set or in either split


def build(
    spec: Spec, results: Results, book: locks.Book | None = None, resample: bool = True, other_data: str = ""
) -> TableOfRuns:
    """Make the table of what runs hold.

    Args:
        spec: Its rows, columns and published cells.
        results: Of a matrix that has its methods; jobs of others are left out.
        book: The locks that its verdicts may name.
        resample: Draw test images again; without, gains have their intervals over seeds only, and nothing waits.
        other_data: What same_data.departure says of its runs.
    """
    results = results.of_methods([column.key for column in spec.columns])
    matrix, frame = results.matrix, results.frame
    departures = [*_departures(spec, matrix), *_missing_data(results), *([other_data] if other_data else [])]
    comparable = matrix.scale == "paper" and not departures
    reading = locks.frozen_reading(spec, matrix) if comparable else None
    bar = None
    if not comparable:
        bar = Verdict("not comparable", f"scale {matrix.scale}: {'; '.join(departures) or matrix.overlay.why}")
    elif reading is None:
        bar = Verdict("exploratory", f"judged are {_frozen(spec)}")
    planned, by_item = frame.drop_duplicates("job"), dict(list(frame.groupby("item")))
    cells: dict[tuple[str, str], Cell] = {}
    orders: dict[str, Verdict] = {}
    ran_as: dict[str, str] = {}
    for row in spec.rows:
        row_filter = matrix.row_filter(row.where)
        of_row = _matching(planned, row_filter)
        ran_as |= _ran_as(row, of_row, matrix)
        measured = _matching(by_item.get(row.item or row.key, frame.iloc[:0]), row_filter)
        kept = {name for name in row.class_cells if name in by_item and by_item[name]["value"].notna().any()}
        for column in spec.columns:
            cells[row.key, column.key] = _cell(spec, row, column.key, of_row, measured, kept, matrix)
    table = TableOfRuns(
        spec, matrix.scale, cells, (), comparable, {}, tuple(departures), ran_as, reading, results=results
    )
    cells |= _with_gains(table, resample)
    claimed = {(c.of.key, c.column): c for c in locks.claims_of(spec, {})} if reading is not None else {}
    for row in spec.rows:
        of_columns = {c.key: cells[row.key, c.key] for c in spec.columns}
        for key, cell in of_columns.items():
            judged = _judged(spec, row, cell, bar)
            claim = claimed.get((row.key, key))
            cells[row.key, key] = with_lock(judged, claim, table, book or locks.Book()) if claim else judged
        order = _order(spec, of_columns, bar)
        orders |= {row.key: order} if order else {}
    table = replace(table, orders=orders)
    return replace(table, notes=(*_notes(table), *_unverified(results.unverified)))


def paired_over(samples: Samples, table: Table, cell: Cell) -> np.ndarray | None:
    """The cell's gain of each seed in each bootstrap sample of the test images, (seeds, rounds)."""
    return pairing.paired_over(samples, *_paired_runs(table, cell), table.item(cell))


def groups(table: Table, cell: Cell) -> list[Group]:
    """Runs whose numbers on bootstrap samples are shown of a cell: its own, and both sides of its gain."""
    ours, theirs = pairing.sides(*_paired_runs(table, cell))
    return pairing.alone(dict.fromkeys([*cell.runs, *ours, *theirs]))


def _paired_runs(table: Table, cell: Cell) -> tuple[dict[int, str], dict[int, str]]:
    """Seed -> run, of the cell's pairs and of the baseline."""
    ours, theirs = (dict(zip(c.seeds, c.runs, strict=False)) for c in (cell, table.baseline(cell)))
    return {seed: run for seed, run in ours.items() if seed in cell.paired_seeds}, theirs


def _with_gains(table: TableOfRuns, resample: bool) -> dict[tuple[str, str], Cell]:
    """The cells with their gains: of runs of one seed that were tested on the same images."""
    cells: dict[tuple[str, str], Cell] = {}
    for at, cell in table.cells.items():
        baseline = table.baseline(cell)
        if cell is baseline or cell.mean is None:
            continue
        ours, theirs = (dict(zip(c.seeds, zip(c.runs, c.values, strict=True), strict=True)) for c in (cell, baseline))
        pairs = table.results.pairs(ours, theirs)
        cells[at] = replace(
            cell, gains=pairs.gains, paired_seeds=pairs.seeds, gain=pairs.mean, crosses=pairs.crosses,
            unpaired=pairs.unpaired,
        )  # fmt: skip
    paired = replace(table, cells=table.cells | cells)
    cells |= _with_intervals(paired, resample)
    return cells | _with_treatments(replace(table, cells=table.cells | cells))


def _with_intervals(table: TableOfRuns, resample: bool) -> dict[tuple[str, str], Cell]:
    """Each gain's interval over seeds and test images together, of its own runs alone."""
    with_gain = {at: cell for at, cell in table.cells.items() if cell.gains}
    sides = [pairing.sides(*_paired_runs(table, cell)) for cell in with_gain.values()]
    runs = dict.fromkeys(run for both in sides for side in both for run in side)
    samples = table.results.resample(pairing.alone(runs)) if resample else {}
    cells = {}
    for at, cell in with_gain.items():
        level = claims.level_of_looks(table.matrix.overlay.looks_taken.get(cell.column, ()))
        found = claims.gain_interval(cell.gains, paired_over(samples, table, cell), level)
        cells[at] = replace(cell, gain_interval=found)
    return table.cells | cells


def _with_treatments(table: TableOfRuns) -> dict[tuple[str, str], Cell]:
    """The cells of claims and of controls, each with whether its method moved what it is to move."""
    cells: dict[tuple[str, str], Cell] = {}
    for at, cell in table.cells.items():
        asked = table.row(cell).claim or table.spec.of_controls
        maps = study.at_hand().methods[cell.column].maps if asked and cell.gains else None
        if maps:
            ours, theirs = (dict(zip(c.seeds, c.runs, strict=True)) for c in (cell, table.baseline(cell)))
            ours = {seed: run for seed, run in ours.items() if seed in cell.paired_seeds}
            interval = cell.gain_interval
            effect = None if interval is None else not interval.low <= 0 <= interval.high
            over = table.row(cell).over.get(cell.column)
            cells[at] = replace(cell, treatment=treatment(table.results, ours, theirs, effect, maps, over))
    return cells


def _ran_as(row: Row, of_row: pd.DataFrame, matrix: Matrix) -> dict[str, str]:
    """Stand-ins of what the row names, and the reading of the paper that the scale has instead of the grid's, where no
    override has another: overrides name the table's folder, and stand among its deviations."""
    others = [str(v) for name, value in row.where.items() for v in of_row[name].unique() if v != value]
    for name, value in matrix.overlay.set.items():
        if name in METHOD_FIELDS and name not in matrix.overrides and value != matrix.grid.base.get(name):
            others.append(f"{name.replace('_', ' ')} {shown(value)}")
    return {row.key: ", ".join(others)} if others else {}


def _matching(frame: pd.DataFrame, row_filter: dict[str, Any]) -> pd.DataFrame:
    for name, value in row_filter.items():
        frame = frame[frame[name] == value]
    return frame


def _cell(
    spec: Spec, row: Row, column: str, of_row: pd.DataFrame, measured: pd.DataFrame, kept: set[str], matrix: Matrix
) -> Cell:
    """One cell, gain and verdicts apart, from the row's jobs, a line each, and from its item's numbers, a line each.
    kept: the classes that a mean is over, where the row is one."""
    head = Cell(row.key, column, status="not run", **_published(spec, row, column, kept))
    planned = of_row[of_row["method"] == column]
    if planned.duplicated("seed").any():
        differing = [f for f in settable() if planned[f].nunique(dropna=False) > 1 and f != "seed"]
        raise UserError(
            f"table {spec.name}: cell {row.key}, {column} would mix jobs that differ in "
            f"{', '.join(differing)}; choose one value with --set"
        )
    head = replace(head, planned=len(planned))
    ours = measured[measured["method"] == column].set_index("seed")
    if ours.empty:
        return replace(head, status=_blank(planned["state"].tolist()) if spec.runs(column) else "published")
    values = ours["value"].dropna()
    if values.empty:
        return replace(head, status=TOO_FEW[matrix.min_positives > 1], runs=tuple(ours["job"]))
    mean = float(values.mean())
    return replace(
        head,
        status="done" if len(ours) == len(planned) else _part(planned["state"].tolist()),
        seeds=tuple(int(seed) for seed in values.index),
        values=tuple(float(v) for v in values),
        runs=tuple(ours["job"][values.index]),
        mean=mean,
        std=intervals.sample_std(values.to_numpy()),
        interval=intervals.t_interval(values.to_numpy(), bounds=intervals.SHARES),
        delta=mean - head.published if head.published is not None and matrix.has_the_paper_s_test_set else None,
    )


def _published(spec: Spec, row: Row, column: str, kept: set[str]) -> dict[str, Any]:
    """The published value and gain: over the classes that ours is over, where it leaves some out."""
    index = [c.key for c in spec.columns].index(column)
    over = len(kept) if 0 < len(kept) < len(row.class_cells) else None
    value, first = (row.published[i] if over is None else row.mean_over(kept, i) for i in (index, 0))
    numbers = isinstance(value, int | float) and isinstance(first, int | float)
    gain = float(value) - float(first) if index and numbers and value is not None and first is not None else None
    return {"published": value, "published_gain": gain, "published_over": over}


def _part(states: list[str]) -> str:
    """That a network stopped being one is an outcome of its method, not to be hidden among the seeds that went well."""
    diverged = states.count("diverged")
    return "partial" + (f", {diverged} diverged" if diverged else "")


def _blank(states: list[str]) -> str:
    for state in ("running", "stale", "diverged", "failed", "corrupt"):
        if state in states:
            return "running" if state == "stale" else state
    return "not run"


def with_lock(cell: Cell, claim: locks.Claim, table: TableOfRuns, book: locks.Book) -> Cell:
    """The cell of a claim with what is to be said of its lock, in its verdict too. table: of its runs."""
    baseline = table.cells[claim.of.key, table.spec.columns[0].key]
    records = [found.record for found in table.results.finished((*cell.runs, *baseline.runs))]
    _, said = locks.standing(claim, table.matrix.grid, records, book)
    verdict = cell.gain_verdict
    if verdict and verdict.outcome in intervals.JUDGED:
        verdict = replace(verdict, reason=f"{verdict.reason}; {said}")
    return replace(cell, lock=said, gain_verdict=verdict)


def _frozen(spec: Spec) -> str:
    """The readings that are judged, and the seeds."""
    readings = " or ".join(", ".join(f"{name} {shown(v)}" for name, v in of.items()) for of in spec.readings)
    return f"{f'{readings}, else ' if readings else ''}as the grid has it, with seeds 0, 1, 2, ..."


def _judged(spec: Spec, row: Row, cell: Cell, bar: Verdict | None) -> Cell:
    """The cell with its verdicts: on its value, and, where the row is a claim, on its gain."""
    if spec.tolerance is None or not spec.runs(cell.column):
        return cell
    open_question = _open(cell, bar)
    verdict = gain_verdict = None
    if cell.published is not None:
        verdict = open_question or intervals.judge_value(list(cell.values), cell.published, spec.tolerance)
    if row.claim and cell.published_gain is not None:
        gain_verdict = open_question or judged_claim(spec, cell, cell.published_gain)
    return replace(cell, verdict=verdict, gain_verdict=gain_verdict)


def judged_claim(spec: Spec, cell: Cell, claimed: float) -> Verdict:
    """Is more than half of the claimed gain there? At the declared looks' level."""
    if cell.unpaired:
        return Verdict("not comparable", cell.unpaired[0])
    if len(cell.gains) < cell.planned:
        return Verdict("not run", f"{len(cell.gains)} of {cell.planned} seeds have a baseline to be paired with")
    if cell.crosses:
        return Verdict("not comparable", "its runs were not all trained by the same code")
    level = claims.level_of_look(len(cell.gains), spec.looks)
    interval = cell.gain_interval and level and cell.gain_interval.at(level)
    verdict = claims.judge_claim(cell.gains, claimed, interval or None, spec.looks)
    if verdict.outcome == "not reproduced" and cell.treatment and not cell.treatment.applied:
        return Verdict("inconclusive", f"treatment {cell.treatment.answer}: {cell.treatment.reason}; {verdict.reason}")
    return verdict


def _open(cell: Cell, bar: Verdict | None) -> Verdict | None:
    """Why nothing can be judged, if so: for all of the table (bar), or here. Part of the planned seeds is not judged:
    looking early and stopping when the answer pleases would void the error rates."""
    if cell.status.endswith("diverged"):
        return Verdict("diverged", "the loss stopped being a number")
    if cell.mean is None and cell.status not in TOO_FEW:
        return Verdict("not run", cell.status)
    if bar:
        return bar
    if cell.status in TOO_FEW:
        return Verdict("not comparable", "too few images show the class")
    if cell.status.startswith("partial"):
        return Verdict("not run", f"{cell.n} of {cell.planned} seeds; a verdict waits for all that were planned")
    return None


def _order(spec: Spec, cells: dict[str, Cell], bar: Verdict | None) -> Verdict | None:
    """Is the method that is best in the paper best here? None where the paper names no single best."""
    printed = {key: cell.published for key, cell in cells.items() if cell.published is not None and spec.runs(key)}
    best = [key for key, value in printed.items() if value == max(printed.values())]
    if spec.tolerance is None or len(printed) < 2 or len(best) != 1:
        return None
    open_questions = [q for key in printed if (q := _open(cells[key], bar))]
    if open_questions:
        return open_questions[0]
    by_seed = {key: dict(zip(cells[key].seeds, cells[key].values, strict=True)) for key in printed}
    shared = [seed for seed in by_seed[best[0]] if all(seed in by_seed[key] for key in printed)]
    leads = {key: [by_seed[best[0]][s] - by_seed[key][s] for s in shared] for key in printed if key != best[0]}
    return intervals.judge_order(best[0], leads)


def _departures(spec: Spec, matrix: Matrix) -> list[str]:
    """Departures from the paper's protocol; one that not all columns share names those that have it."""
    headers = {c.key: c.header.replace("{", "").replace("}", "") for c in spec.columns}
    everywhere = set(matrix.methods)
    return [
        text if methods == everywhere else f"{text} [{', '.join(headers.get(m, m) for m in sorted(methods))}]"
        for text, methods in matrix.departures.items()
    ]


def _missing_data(results: Results) -> list[str]:
    """What runs read less of than the official data set has, whatever scale they are called by. A limit is a departure
    of its own."""
    texts, matrix = [], results.matrix
    for job in matrix.jobs:
        record, dataset = results.records.get(job.id), data.find(job.dataset)
        if record is None:
            continue
        read, official = [], dataset.official_counts
        # Caltech-256's small categories give what they have, in the paper as here: an assumption, no departure.
        all_used = job.limit_train is None and study.method(job.method).train_share == 1
        if all_used and "small_categories" not in matrix.grid.assumptions:
            read.append((record.num_train, official.get(job.train_split), "training images"))
        if job.limit_test is None:
            read.append((record.num_test, official.get(job.test_split), "test images"))
        lacking = [(n, whole, what) for n, whole, what in read if n is not None and whole is not None and n < whole]
        if lacking and (tested := _classes_tested(results, job)) and tested < dataset.num_classes:
            lacking.insert(0, (tested, dataset.num_classes, "classes"))
        if lacking:
            texts.append("data: " + ", ".join(f"{n:,} of {whole:,} {what}" for n, whole, what in lacking))
    return list(dict.fromkeys(texts))


def _classes_tested(results: Results, job: Job) -> int | None:
    """Of a run with one label an image, as its scores have it; None of others, whose empty classes a note names."""
    saved = results.of(job).scores
    if saved is None or saved.labels.ndim != 1 or job.limit_test is not None:
        return None
    return len(np.unique(saved.labels))


def _notes(table: TableOfRuns) -> list[str]:
    spec, matrix, seeds = table.spec, table.matrix, table.matrix.seeds
    why = "" if table.comparable else "; not comparable with the published cells (†)"
    planned = f"{'seeds' if len(seeds) > 1 else 'seed'} {', '.join(map(str, seeds))}"
    notes = [
        f"Scale {matrix.scale}: {_about(table, matrix)}{why}.",
        f"Ours: mean ± sample standard deviation over n seeds ({planned} planned), in {spec.unit}; gain: method - "
        "baseline, paired by seed and test images, in brackets its 95% interval over seeds and test images together "
        f"({ROUNDS:,} bootstrap rounds); bold: ahead of all others beyond it. Last epoch, never the "
        "best on the test set.",
    ]
    for row in (row for row in spec.rows if row.over):
        notes.append(f"{row.key}: {', '.join(f'{ours} - {theirs}' for ours, theirs in row.over.items())}.")
    if not spec.of_controls:  # of which nothing is published that a value could differ from
        no_delta = "No Δ: the test images are not the paper's, and a difference of values would measure these."
        notes.append("Δ: ours - paper." if matrix.has_the_paper_s_test_set else no_delta)
    notes += _warnings(table)
    if spec.tolerance is not None:
        notes += [verdict_line(table), lock_line(table)]
    notes += [f"Assumptions: {'; '.join(_as_they_ran(matrix))}."] if matrix.grid.assumptions else []
    notes += treatments(table)
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


def treatments(table: Table) -> list[str]:
    """Of each claim whose method is to move maps: did it? Rows of which the same is to be said share a line."""
    told: dict[tuple[str, str], list[str]] = {}
    for cell in table.cells.values():
        if cell.treatment:
            told.setdefault((cell.column, cell.treatment.told), []).append(table.label(cell.row))
    return [f"Treatment, {'; '.join(rows)}, {column}: {text}." for (column, text), rows in told.items()]


def _warnings(table: TableOfRuns) -> list[str]:
    """What a reader must know of single numbers, each kind in a line."""
    cells, notes = list(table.cells.values()), []
    over = {cell.published_over for cell in cells if cell.published_over}
    if over:
        notes.append(
            f"The paper's mean is taken anew over the same {'/'.join(map(str, sorted(over)))} classes, from its cells; "
            f"printed is {_as_printed(table)}, over all."
        )
    if any(cell.gain_interval and cell.gain_interval.over == "images only" for cell in cells):
        notes.append(
            "Images only: one seed, so how much the gain varies over seeds is not known and not in the interval."
        )
    notes += _by_chance(table)
    taken = table.matrix.overlay.looks_taken if table.matrix else {}
    for column in dict.fromkeys(cell.column for cell in cells if cell.gain_interval and cell.column in taken):
        numbers = " and ".join(map(str, taken[column]))
        level = claims.level_of_looks(taken[column])
        notes.append(
            f"{column}: seeds were added after a look, so its intervals are those of looks at {numbers} seeds: "
            f"{level:.1%}."
        )
    fewer: dict[str, list[str]] = {}
    for cell in cells:
        if 0 < len(cell.gains) < cell.n:
            seeds = ", ".join(map(str, cell.paired_seeds))
            fewer.setdefault(f"{len(cell.gains)} of {cell.n} seeds ({seeds}), {cell.column}", []).append(cell.row)
    notes += [f"Gain over only {what}: {', '.join(rows)}." for what, rows in fewer.items()]
    crossing = [f"{cell.row}, {cell.column}" for cell in cells if cell.crosses]
    if crossing:
        notes.append(f"{CROSSING.rstrip('.')}: {'; '.join(crossing)}.")
    for text in dict.fromkeys(text for cell in cells for text in cell.unpaired):
        notes.append(f"Not paired: {text}.")
    shown = {run for cell in cells for run in cell.runs}
    notes += _origins(table, shown) + _devices(table, shown)
    finished = [run for run in table.results.records if run not in shown]
    if finished:
        notes.append(f"Results in no row of this table: {len(finished)}, such as {finished[0]}.")
    return notes


def _by_chance(table: Table) -> list[str]:
    """What many comparisons give by chance alone, where a table has a row for each class."""
    rows = {name for row in table.spec.rows for name in row.class_cells}
    found = [
        cell.gain_interval
        for cell in table.cells.values()
        if cell.row in rows and cell.gain_interval and cell.gain_interval.over != "images only"
    ]
    if not found:
        return []
    below, above = sum(each.high < 0 for each in found), sum(each.low > 0 for each in found)
    return [
        f"Of {len(found)} gains of a class, {below} have an interval below zero and {above} above; without any effect "
        f"chance gives about {len(found) * (1 - intervals.LEVEL) / 2:.1f} each way. No single one is a finding."
    ]


def _origins(table: TableOfRuns, shown: set[str]) -> list[str]:
    """Whose runs are in the table, where somebody else made them."""
    made: dict[str, int] = {}
    for found in map(table.results.by_id, sorted(shown)):
        if found.origin:
            made[found.origin.name] = made.get(found.origin.name, 0) + 1
        elif "origin.json" in found.damage:
            made[f"nobody knows whom ({found.damage['origin.json']})"] = 1
    return [f"Of {len(shown)} runs, made by others: {', '.join(f'{made[o]} by {o}' for o in made)}."] if made else []


def _devices(table: TableOfRuns, shown: set[str]) -> list[str]:
    """What the runs were trained on, where it is more than one thing: they round differently, and training can make
    much of a rounding error. A pair within one kind shares it, one of two kinds does not."""
    kinds: dict[str, str] = {}
    for run in sorted(shown):
        on = table.results.by_id(run).environment
        kinds[run] = (on and (on.machine.processor if on.device == "cpu" else on.device)) or "not known"
    count = Counter(kinds.values())
    if len(count) < 2:
        return []
    apart = []
    for cell in table.cells.values():
        ours, theirs = _paired_runs(table, cell)
        if any(kinds[run] != kinds[theirs[seed]] for seed, run in ours.items()):
            apart.append(cell.column)
    pairs = f"pairs of two of them: {', '.join(dict.fromkeys(apart))}" if apart else "each pair on one of them"
    return [f"Runs by what they were trained on: {', '.join(f'{kind}: {n}' for kind, n in count.items())}; {pairs}."]


def _unverified(unverified: dict[str, str]) -> list[str]:
    """A line for each reason why numbers are only what the records say."""
    lines = []
    for why in dict.fromkeys(unverified.values()):
        runs = [run for run, its in unverified.items() if its == why]
        lines.append(
            f"Unverified, of {len(runs)} runs such as {runs[0]}: {why}, so no number of its was computed again."
        )
    return lines


def _as_printed(table: Table) -> str:
    printed = [row for row in table.spec.rows if row.mean_of]
    return "; ".join(" / ".join(f"{value:g}" for value in row.published if value is not None) for row in printed)


def _about(table: Table, matrix: Matrix) -> str:
    """What the scale is, and which networks stand in where the rows do not say it."""
    overridden = matrix.scale == "paper" and table.departures
    about = "the paper's protocol, but for the deviations below" if overridden else matrix.overlay.why
    backbones = {job.backbone for job in matrix.jobs}
    stand_ins = [f"{new} for {old}" for old, new in matrix.overlay.stand_ins.items() if new in backbones]
    told = stand_ins and not any(job.backbone in text for job in matrix.jobs for text in table.ran_as.values())
    return about + (f" ({', '.join(stand_ins)})" if told else "")


def _as_they_ran(matrix: Matrix) -> list[str]:
    """The assumptions, each with the values that the jobs have: an override is printed as it ran."""
    texts = []
    for name, assumption in matrix.grid.assumptions.items():
        ran = [value for job in matrix.jobs if (value := job.value(name)) is not None]
        values = list(dict.fromkeys(ran)) or [matrix.definition if name == "ap_definition" else assumption.value]
        texts.append(f"{name} {'/'.join(map(shown, values))}")
    return texts


def verdict_line(table: Table) -> str:
    """The table's answer in a line, such as `Verdicts: value: 3 reproduced, 18 not run; gain: ...`."""
    parts = []
    for level, counts in table.verdicts().items():
        told = ", ".join(f"{counts[outcome]} {outcome}" for outcome in intervals.OUTCOMES if counts[outcome])
        parts.append(f"{level}: {told or 'nothing published'}")
    spec = table.spec
    looks = f", at {', '.join(map(str, spec.looks))} seeds" if spec.looks else ""
    return (
        f"Verdicts: {'; '.join(parts)}. Value: by 95% t intervals over seeds, tolerance {spec.tolerance:g} "
        f"{spec.unit}. Gain: reproduced where its interval lies beyond half of the claimed gain, not reproduced where "
        f"it lies short of it{looks}."
    )


def lock_line(table: Table) -> str:
    """Whether what the table says was asked before its runs: confirmatory, or exploratory; and the locks of its
    claims."""
    if not table.comparable:
        return f"Exploratory: no claim is judged at scale {table.scale} or off the paper's protocol; not locked."
    if table.reading is None:
        return f"Exploratory: judged are {_frozen(table.spec)}; not locked."
    return f"Reading {_frozen(table.spec.model_copy(update={'readings': [table.reading]}))}. {told_locks(table)}"


def told_locks(table: Table) -> str:
    """The locks of the table's claims, each said once."""
    said: dict[str, list[str]] = {}
    for cell in table.cells.values():
        if cell.lock:
            said.setdefault(cell.lock, []).append(f"{cell.row}, {cell.column}")
    told = [f"{text} ({'; '.join(cells)})" for text, cells in said.items()]
    return f"Lock: {'; '.join(told) or locks.NOT_LOCKED}."


def shown(value: Any) -> str:
    """A job field's value for people."""
    text = {True: "yes", False: "no"}.get(value, str(value)) if isinstance(value, bool) else str(value)
    return text[:19] if text.startswith("sha256:") else text
