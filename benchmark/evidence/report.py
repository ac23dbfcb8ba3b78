"""One self-contained page: the answer first, then tables whose cells open their traces, figures, and what was assumed.

Nothing is fetched and nothing depends on the day: the same runs and the same checkout give the same bytes.
"""

import base64
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup, escape

from benchmark.errors import UserError, visible
from benchmark.evidence import explain
from benchmark.matrix.job import Job
from benchmark.matrix.matrix import Matrix
from benchmark.store.run import Run
from benchmark.tables import locks, power, render, stats
from benchmark.tables.cells import Cell, Table
from benchmark.tables.collect import Samples
from benchmark.tables.published import Spec

# A sign beside the words, so that no verdict is told by its colour alone.
SIGNS = dict(zip(stats.OUTCOMES, "✓◐✗?○≠∞–", strict=True))


@dataclass(frozen=True)
class Part:
    """A table of runs with what belongs to it. `figures`: (caption, media type, bytes). `attention`: what `figures
    --attention` measured, a line for each network."""

    table: Table
    matrix: Matrix
    samples: Samples
    figures: Sequence[tuple[str, str, bytes]] = ()
    attention: Sequence[dict[str, Any]] = ()


def page(parts: list[Part], headlines: Sequence[Table] = (), specs: dict[str, Spec] | None = None) -> str:
    """The report of one scale. headlines: the tables of claims that it answers, made from the parts' tables; specs: all
    tables, of which a headline may name some that have no such scale."""
    loader = jinja2.FileSystemLoader(Path(__file__).parent)
    environment = jinja2.Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.globals |= {"signs": SIGNS, "outcomes": stats.OUTCOMES}
    page = environment.get_template("report.html").render(
        scale=parts[0].matrix.scale,
        why=parts[0].matrix.overlay.why,
        comparable=all(part.table.comparable for part in parts),
        claims=[line for headline in headlines for line in _answers(headline, parts, specs or {})],
        parts=[_part(part) for part in parts],
        environments=_environments(parts),
    )
    return visible(page)


def _answers(headline: Table, parts: list[Part], specs: dict[str, Spec]) -> list[dict[str, Any]]:
    """A line for each claim: what is claimed, what was found, and how many seeds a decision takes; one that nothing
    ran for is said to be untested."""
    shown = {part.table.spec.name for part in parts}
    header_of = {column.key: header(column.header) for column in headline.spec.columns}
    lines = []
    for claim in locks.claims_of(headline.spec, specs):
        cell = headline.cells[claim.row, claim.column]
        lines.append({
            "row": headline.label(claim.row), "method": header_of[claim.column],
            "claimed": render.signed(cell.published, headline), "gain": render.value_text(cell, headline),
            "share": render.share_text(cell), "verdict": cell.gain_verdict, "tested": cell.gain is not None,
            "lock": cell.lock or locks.NOT_LOCKED, "seeds": power.short(power.needs(claim, cell)),
            "id": _anchor(f"{claim.source.name}:{claim.of.key}:{claim.column}") if claim.source.name in shown else None,
        })  # fmt: skip
    return lines


def _part(part: Part) -> dict[str, Any]:
    table, spec = part.table, part.table.spec
    traces = [_trace(part, cell) for cell in table.cells.values()]
    answer = next((row.key for row in spec.rows if row.claim), spec.rows[-1].key)
    return {
        "id": spec.name,
        "title": spec.title,
        "unit": spec.unit,
        "verdicts": table.verdicts(),
        "judged": table.comparable and spec.tolerance is not None,  # else a column of one and the same verdict
        "tolerance": spec.tolerance,
        "headline": [_cell(part, answer, column.key) | {"method": header(column.header)} for column in spec.columns],
        "headline_row": table.label(answer),
        "columns": [{"header": header(c.header), "first": i == 0} for i, c in enumerate(spec.columns)],
        "rows": [
            {
                "key": table.label(row.key),
                "order": table.orders.get(row.key),
                "cells": [_cell(part, row.key, column.key) for column in spec.columns],
            }
            for row in spec.rows
        ],
        "traces": traces,
        "figures": [(caption, media, base64.b64encode(image).decode()) for caption, media, image in part.figures],
        "attention": part.attention,
        "assumptions": explain.assumptions(part.matrix, part.matrix.jobs),
        "departures": table.departures,
        "discrepancies": spec.discrepancies,
        "source": f"{spec.source.document}, {spec.source.place}",
        "notes": table.notes,
        "jobs": [_job(Run(part.matrix.folder(job)), job) for job in part.matrix.jobs],
    }


def _cell(part: Part, row: str, column: str) -> dict[str, Any]:
    table = part.table
    cell = table.cells[row, column]
    between = cell.gain_interval
    return {
        "id": _anchor(f"{table.spec.name}:{row}:{column}"),
        "text": render.value_text(cell, table),
        "mean": cell.mean,
        "best": column in table.best(row),
        "paper": (render.number(cell.published, table), cell.published),
        "paper_best": column in table.best(row, published=True),
        "delta": {
            "text": render.signed(cell.delta, table),
            "value": cell.delta,
            "sure": table.comparable and cell.delta is not None and _excludes(cell.interval, cell.published),
        },
        "gain": {
            "text": render.gain_text(cell, table),
            "value": cell.gain,
            "sure": _excludes((between.low, between.high) if between else None, 0.0),
        },
        "paper_gain": (render.signed(cell.published_gain, table), cell.published_gain),
        "verdict": cell.verdict,
        "gain_verdict": cell.gain_verdict,
    }


def _excludes(interval: stats.Interval | None, value: float | None) -> bool:
    return interval is not None and value is not None and not interval[0] <= value <= interval[1]


def _trace(part: Part, cell: Cell) -> dict[str, Any]:
    cell_trace = explain.trace(part.table, cell, part.samples)
    header_of = {c.key: c.header for c in part.table.spec.columns}
    return {
        "id": _anchor(cell_trace["address"]),
        "row": cell.row,
        "method": header(header_of[cell.column]),
        "sections": explain.sections(cell_trace),
    }


def _anchor(address: str) -> str:
    """A cell's address as an id; one with blanks could not be referred to."""
    return re.sub(r"\s+", "_", address)


def header(text: str) -> Markup:
    """A column's header with its subscript."""
    return Markup("").join(
        Markup("{}<sub>{}</sub>").format(*piece) if isinstance(piece, tuple) else escape(piece)
        for piece in render.split_subscript(text)
    )


def _job(run: Run, job: Job) -> dict[str, Any]:
    try:
        record, state = run.result(), run.state()
    except UserError:
        record, state = None, "corrupt"
    best = record.best_on_test if record else None
    return {
        "id": job.id, "state": state, "seconds": record and record.seconds,
        "best": best and best.model_dump(exclude_none=True),
    }  # fmt: skip


def _environments(parts: list[Part]) -> list[dict[str, Any]]:
    """What the runs ran on, each once, with how many runs it made."""
    lines: dict[str, dict[str, Any]] = {}
    for run in dict.fromkeys(Run(part.matrix.folder(job)) for part in parts for job in part.matrix.jobs):
        try:
            record, result = run.environment(), run.result()
        except UserError:
            continue
        if record is None:
            continue
        code = (result and result.code) or record.code
        line = {
            "device": record.device,
            "machine": ", ".join(v for v in (record.machine.processor, record.machine.system) if v),
            "threads": record.threads,
            "python": record.python,
            "packages": ", ".join(f"{name} {version}" for name, version in record.packages.items()),
            "commit": str(code and code.commit)[:12],
            "code": explain.code_state(code),
        }
        lines.setdefault(repr(line), line | {"runs": 0})["runs"] += 1
    return list(lines.values())
