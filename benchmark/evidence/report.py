"""One self-contained page: the answer, what keeps it from being decided, then tables whose cells open their traces.

It needs no script, nothing is fetched and nothing depends on the day: the same runs and the same checkout give the same
bytes.
"""

import base64
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup, escape

from benchmark.errors import visible
from benchmark.evidence import answer, explain, figures
from benchmark.evidence.answer import Comparison
from benchmark.matrix.matrix import Matrix
from benchmark.results.pairing import Samples
from benchmark.results.results import SINGLE_LABEL, Finished, Missing, Results
from benchmark.stats import intervals
from benchmark.stats.intervals import Interval
from benchmark.tables import locks, render, seeds_needed
from benchmark.tables.cells import Cell, Table, TableOfRuns
from benchmark.tables.published import Spec

# A sign beside the words, so that no verdict is told by its colour alone.
SIGNS = dict(zip(intervals.OUTCOMES, "✓◐✗?○≠∞–", strict=True))
# As grids name a line of somebody's code: `owner/repository 0123abcd, folder/file.py:12-34`.
SOURCE = re.compile(r"([\w.-]+/[\w.-]+) ([0-9a-f]{8,40}), ([\w./-]+\.\w+):(\d+)(?:-(\d+))?")


@dataclass(frozen=True)
class Part:
    """A table of runs with what belongs to it. `figures`: (caption, media type, bytes)."""

    table: TableOfRuns
    results: Results
    samples: Samples
    figures: Sequence[tuple[str, str, bytes]] = ()

    @property
    def matrix(self) -> Matrix:
        """Of all methods of the scale, also of those that the table has no column of."""
        return self.results.matrix


def page(
    parts: list[Part], headlines: Sequence[Table] = (), specs: dict[str, Spec] | None = None,
    shown: Sequence[Comparison] = (),
) -> str:  # fmt: skip
    """The report of one scale. headlines: the tables of claims that it answers, made from the parts' tables; specs: all
    tables, of which a headline may name some that have no such scale. shown: what the answer compares, at any scale."""
    loader = jinja2.FileSystemLoader(Path(__file__).parent)
    environment = jinja2.Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.globals |= {"signs": SIGNS}
    environment.filters |= {"minus": render.minus, "linked": linked, "pieces": pieces}
    text = environment.get_template("report.html").render(
        title=_title([table.spec for table in headlines] or [part.table.spec for part in parts]),
        scale=parts[0].matrix.scale,
        whys=dict.fromkeys(f"{part.matrix.grid.title}: {part.matrix.overlay.why}" for part in parts),
        answer=_answer(list(shown), parts, headlines) if headlines else None,
        claims=_open_claims([line for headline in headlines for line in _claims(headline, parts, specs or {})]),
        published=any(cell.published is not None for part in parts for cell in part.table.cells.values()),
        departures=_departures(parts),
        parts=[_part(part) for part in parts],
        environments=_environments(parts),
    )
    return visible(text)


def pieces(text: str) -> list[str]:
    """A gain, its bracket and what it is over: where a narrow cell may break."""
    return re.split(r" (?=[\[(†])", text)


def linked(text: str) -> Markup:
    """Text in which each line of code that a repository holds is a link to it."""
    at, parts = 0, []
    for match in SOURCE.finditer(text):
        repository, commit, path, first, last = match.groups()
        lines = f"L{first}" + (f"-L{last}" if last else "")
        address = f"https://github.com/{repository}/blob/{commit}/{path}#{lines}"
        parts += [escape(text[at : match.start()]), Markup('<a href="{}">{}</a>').format(address, match[0])]
        at = match.end()
    return Markup("").join([*parts, escape(text[at:])])


def _title(specs: list[Spec]) -> str:
    """Asks of the documents that have published cells here; without any, the tables' own titles."""
    published = [s for s in specs if any(c is not None for row in s.rows for c in row.published)]
    names = dict.fromkeys(spec.source.document for spec in published)
    return f"Does it reproduce? {'; '.join(names)}" if names else "; ".join(spec.title for spec in specs)


def _answer(shown: list[Comparison], parts: list[Part], headlines: Sequence[Table]) -> dict[str, Any]:
    """The sentence, picture and table of `python -m benchmark answer`; a gain at the page's own scale opens its
    trace."""
    at_hand = {part.table.spec.name for part in parts}
    scale = parts[0].matrix.called
    found = answer.claims(shown)
    lines: list[dict[str, Any]] = []
    for claim in found:
        lines.append(_line(claim.line, claim.mean, claim.interval, None) | {"is_claim": True})
        for c in claim.settings:
            source = c.table.row(c.cell)
            here = c.table.scale == scale and source.table in at_hand
            anchor = _anchor(f"{source.table}:{source.of}:{c.cell.column}") if here else None
            lines.append(_line(c.line, c.gain, (c.interval.low, c.interval.high), anchor))
    drawing = figures.answer(found) if shown else None
    return {
        "verdict": answer.verdict(shown),
        "header": answer.HEADER,
        "lines": lines,
        "notes": answer.notes(found) if shown else ["No pair of a method and its baseline has run on real data."],
        "picture": drawing and _picture(drawing.caption, "image/svg+xml", figures.svg(drawing)),
        "other_scales": sorted({c.table.scale for c in shown} - {scale}),
    }


def _line(texts: Sequence[str], value: float, interval: Interval | None, anchor: str | None) -> dict[str, Any]:
    """A row of the answer's table; anchor: of the trace that its number opens."""
    is_sure = interval is not None and not interval[0] <= 0 <= interval[1]
    return {"texts": texts, "value": value, "sure": is_sure, "id": anchor, "is_claim": False}


def _claims(headline: Table, parts: list[Part], specs: dict[str, Spec]) -> list[dict[str, Any]]:
    """A line for each claim: what is claimed, what was found, and how many seeds a decision takes; one that nothing
    ran for is said to be untested."""
    shown = {part.table.spec.name for part in parts}
    method_of = {column.key: render.SUBSCRIPT.sub(r"\2", column.header) for column in headline.spec.columns}
    lines = []
    for claim in locks.claims_of(headline.spec, specs):
        cell = headline.cells[claim.row, claim.column]
        tested = cell.gain is not None
        lines.append({
            "row": answer.named(headline, claim.row), "methods": [method_of[claim.column]],
            "claimed": render.signed(cell.published, headline), "gain": render.value_text(cell, headline),
            "verdict": cell.gain_verdict, "tested": tested, "lock": cell.lock or locks.NOT_LOCKED,
            "seeds": seeds_needed.short(seeds_needed.needs(claim, cell)),
            "id": _anchor(f"{claim.source.name}:{claim.of.key}:{claim.column}")
            if tested and claim.source.name in shown else None,
        })  # fmt: skip
    return lines


def _open_claims(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Methods of which all the same is to be said share a line."""
    merged: list[dict[str, Any]] = []
    for line in lines:
        if merged and merged[-1] | {"methods": line["methods"]} == line:
            merged[-1] = line | {"methods": merged[-1]["methods"] + line["methods"]}
        else:
            merged.append(line)
    return merged


def _departures(parts: list[Part]) -> dict[tuple[str, ...], list[str]]:
    """What departs from the paper's protocol, each list once, with the titles of the tables that it holds for."""
    titles: dict[tuple[str, ...], list[str]] = {}
    for part in parts:
        if not part.table.comparable:
            titles.setdefault(part.table.departures, []).append(part.table.spec.title)
    return titles


def _part(part: Part) -> dict[str, Any]:
    table, spec = part.table, part.table.spec
    pictures = [_picture(*figure) for figure in part.figures]
    return {
        "id": spec.name,
        "title": spec.title,
        "unit": spec.unit,
        "judged": table.comparable and spec.tolerance is not None,  # else a column of one and the same verdict
        "verdicts": {
            level: ", ".join(f"{count} {outcome}" for outcome, count in counts.items())
            for level, counts in table.verdicts().items()
        },
        "tolerance": spec.tolerance,
        "blocks": _blocks(part),
        "has_interval": any(cell.gain_interval for cell in table.cells.values()),
        "crosses": any(cell.crosses for cell in table.cells.values()),
        "comparable": table.comparable,
        "traces": [_trace(part, cell) for cell in table.cells.values()],
        "picture": pictures[0] if pictures else None,
        "pictures": pictures[1:],
        "assumptions": explain.assumptions(part.matrix, part.matrix.jobs),
        "discrepancies": spec.discrepancies,
        "source": f"{spec.source.document}, {spec.source.place}",
        "notes": table.notes,
        "runs": _runs(part),
    }


def _picture(caption: str, media: str, image: bytes) -> tuple[str, str, str]:
    return caption, media, base64.b64encode(image).decode()


def _blocks(part: Part) -> list[dict[str, Any]]:
    """The table in pieces that fit a phone: one a method, with the rows below each other; or one a row, with the
    methods below each other, where that makes fewer."""
    table, spec = part.table, part.table.spec
    headers = {column.key: header(column.header) for column in spec.columns}
    labels = {row.key: table.label(row.key) for row in spec.rows}
    cells = {at: _cell(part, cell) for at, cell in table.cells.items()}
    if len(spec.rows) <= len(spec.columns):
        blocks: list[dict[str, Any]] = [
            {"title": label, "head": "method", "lines": [(headers[c], cells[row, c]) for c in headers]}
            for row, label in labels.items()
        ]
    else:
        blocks = [
            {"title": title, "head": spec.row_header, "lines": [(labels[row], cells[row, c]) for row in labels]}
            for c, title in headers.items()
        ]
    for i, block in enumerate(blocks):
        block["id"] = f"{spec.name}-{i + 1}"
        block["has"] = {name for _, cell in block["lines"] for name in cell["has"]}
    return blocks


def _cell(part: Part, cell: Cell) -> dict[str, Any]:
    """has: the columns that it fills; a block shows those that any of its cells fills."""
    table = part.table
    first = table.spec.columns[0].key
    judged = table.comparable and table.spec.tolerance is not None
    fills = {
        "gain": cell.column != first, "paper_gain": cell.published_gain is not None,
        "gain_verdict": judged and cell.column != first, "paper": cell.published is not None,
        "delta": cell.published is not None and render.has_delta(table), "verdict": judged,
        "order": judged and cell.column == first,
    }  # fmt: skip
    return {
        "id": _anchor(f"{table.spec.name}:{cell.row}:{cell.column}"),
        "text": render.value_text(cell, table),
        "best": cell.column in table.best(cell.row),
        "paper": render.number(cell.published, table),
        "paper_best": cell.column in table.best(cell.row, published=True),
        "delta": render.signed(cell.delta, table),
        "gain": {"text": render.gain_text(cell, table), "value": cell.gain, "sure": _told_from_zero(cell)},
        "paper_gain": render.signed(cell.published_gain, table),
        "verdict": cell.verdict,
        "gain_verdict": cell.gain_verdict,
        "order": table.orders.get(cell.row),
        "has": [name for name, filled in fills.items() if filled],
    }


def _told_from_zero(cell: Cell) -> bool:
    """Whether the interval in the gain's bracket excludes zero, and is one over seeds: of one over images only nobody
    knows what another seed would say."""
    between = cell.gain_interval
    return between is not None and between.over != "images only" and not between.low <= 0 <= between.high


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


def _runs(part: Part) -> dict[str, Any]:
    """Each run with its scores: the means that the table shows, without those of single classes."""
    table = part.table
    scores: dict[str, dict[str, str]] = {}
    for cell in table.cells.values():
        if (item := table.item(cell)) in (render.MEAN, *SINGLE_LABEL):
            for name, value in zip(cell.runs, cell.values, strict=True):
                scores.setdefault(item, {})[name] = render.number(value, table)
    lines = [_run(part.results.of(job)) for job in part.matrix.jobs]
    return {
        "items": list(scores),
        "lines": [line | {"scores": [of.get(line["id"], render.BLANK) for of in scores.values()]} for line in lines],
    }


def _run(found: Finished | Missing) -> dict[str, Any]:
    record = found.record if isinstance(found, Finished) else None
    best = record.best_on_test if record else None
    return {"id": found.id, "state": found.state, "seconds": record and record.seconds, "best": best and best.epoch}


def _environments(parts: list[Part]) -> list[dict[str, Any]]:
    """What the runs ran on, each once, with how many runs it made."""
    lines: dict[str, dict[str, Any]] = {}
    for found in dict.fromkeys(part.results.of(job) for part in parts for job in part.matrix.jobs):
        record = found.environment
        if record is None or found.state == "corrupt":
            continue
        code = (found.record.code if isinstance(found, Finished) else None) or record.code
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
