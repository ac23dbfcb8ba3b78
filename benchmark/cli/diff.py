"""The command that compares two sides cell by cell."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from benchmark.cli.common import (
    RUNS,
    TABLES,
    AsJson,
    MeasuredScale,
    Runs,
    Set,
    Tables,
    Weights,
    measured,
    opened_runs,
    print_rows,
    texts,
    warn_of_unverified,
)
from benchmark.errors import UserError, nearest
from benchmark.matrix import grid
from benchmark.tables import catalogue, published
from benchmark.tables.catalogue import Asked
from benchmark.tables.cells import Table

if TYPE_CHECKING:
    from benchmark.tables.diff import Side  # which imports pandas

UNFIT = 3


def diff(
    a: Annotated[str | None, typer.Argument(help="published, generated, a table's file, or a folder of runs")] = None,
    b: Annotated[str | None, typer.Argument(help="The other side")] = None,
    table: Annotated[str | None, typer.Option("--table", help="A file of tables/, without .yaml")] = None,
    scale: MeasuredScale = None,
    tolerance: Annotated[
        float | None, typer.Option(min=0, help="Default: the table's against published cells, else 0")
    ] = None,
    ap_definition: Annotated[str, typer.Option(help="Of average precision, between two folders of runs")] = "area",
    sets: Set = None,
    weights: Weights = None,
    runs: Runs = RUNS,
    tables: Tables = TABLES,
    as_json: AsJson = False,
) -> None:
    """Compare two sides cell by cell; --table T alone compares ours with the published one. Exit status 0: all within
    tolerance; 1: some outside; 2: some missing or not comparable; 3: the two do not fit each other."""
    from benchmark.tables import diff as diff_module

    if a is None and table is None:
        raise UserError("diff: name two sides, or one table with --table")
    if (a is None) != (b is None):
        raise UserError("diff: a second side is missing; 'published', a table's file or a folder of runs")
    if ap_definition not in grid.EVALUATION["ap_definition"]:
        raise UserError(f"--ap-definition {ap_definition}" + nearest(ap_definition, grid.EVALUATION["ap_definition"]))
    built: Table | None = None
    texts_of_sides = (a, b) if a and b else (f"published:{table}", f"generated:{table}")  # --table T alone
    try:
        with opened_runs() as reader:
            asked = measured(scale, sets, weights, runs, reader)
            sides: list[Side | None] = []
            for text in texts_of_sides:
                side = _side(text, table, ap_definition, asked, tables)
                if isinstance(side, Table):
                    built, side = side, diff_module.of_table(side)
                sides.append(side)
            named = (
                [side.table for side in sides if side] + [table] + [text.partition(":")[2] for text in texts_of_sides]
            )
            name = next((name for name in named if name), None)
            if built is None:
                warn_of_unverified(reader)
            left, right = (side or _published_side(name, built, tables) for side in sides)
            if tolerance is None:
                tolerance = _declared(published.load(name, tables)) if name and None in sides else 0.0
            outcomes = diff_module.compare(left, right, tolerance)
    except diff_module.UnfitError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(UNFIT)
    code = diff_module.exit_status(outcomes)
    if as_json:
        head = {"a": left.label, "b": right.label, "tolerance": tolerance, "exit_status": code}
        head |= print_verdicts(built, True) if built else {}
        print(json.dumps(head | {"cells": outcomes}, indent=1))
    else:
        shown = [o for o in outcomes if o["outcome"] != "within"] if left.kind == "runs" else outcomes
        print_rows(
            texts(shown, 6 if tolerance == 0 else decimals_of(name, tables)),
            ("row", "column", "a", "b", "delta", "outcome"),
        )
        print(f"a: {left.label}, b: {right.label}, tolerance {tolerance:g}: {_counts(outcomes)}")
        if built:
            print_verdicts(built, False)
    sys.exit(code)


def decimals_of(name: str | None, tables: Path) -> int:
    """As many as the table prints."""
    return (published.load(name, tables).decimals if name in published.every_name(tables) else None) or 2


def _published_side(name: str | None, built: Table | None, tables: Path) -> "Side":
    """The published cells of table `name`, as they stand beside a built one's."""
    from benchmark.tables import diff as diff_module

    if name is None:
        raise UserError("diff: which table? Name it with --table")
    return diff_module.of_published_beside(built) if built else diff_module.of_published(published.load(name, tables))


def print_verdicts(built: Table, as_json: bool) -> dict[str, Any]:
    """What a table says beyond its cells; printed, or returned for JSON."""
    if not as_json:
        wanted = ("Verdicts", "Not paired") if built.comparable else ("Verdicts", "Not paired", "Scale", "Deviations")
        print("\n".join(note for note in built.notes if note.startswith(wanted)))
    return {"verdicts": {level: dict(counts) for level, counts in built.verdicts().items()}}


def _declared(spec: published.Spec) -> float:
    from benchmark.tables.diff import UnfitError

    if spec.tolerance is None:
        numbers = spec.grid or spec.of_gains
        told = "declares no tolerance; name one with --tolerance" if numbers else "holds no numbers that runs produce"
        raise UnfitError(f"{spec.name} {told}")
    return spec.tolerance


def _side(text: str, table: str | None, ap_definition: str, asked: Asked, tables: Path) -> "Side | Table | None":
    """What `published[:T]`, `generated[:T]` or a path means. None: published, of the other side's table."""
    from benchmark.tables import diff as diff_module

    word, _, rest = text.partition(":")
    name = rest or table
    if word == "published":
        return None  # which cells, the other side says
    if word == "generated":
        if not name:
            raise UserError("diff: generated of which table? Say generated:table2")
        return generated(published.load(name, tables), asked, tables)
    if Path(text).is_dir():
        return diff_module.of_runs(Path(text), ap_definition, asked.reader)
    if not Path(text).exists():
        raise UserError(f"{text}: no such file or folder; 'published:T' and 'generated:T' name the cells of table T")
    return diff_module.of_file(Path(text))


def _counts(outcomes: list[dict[str, Any]]) -> str:
    kinds = [o["outcome"] for o in outcomes]
    return ", ".join(f"{kinds.count(o)} {o}" for o in dict.fromkeys(kinds))


def generated(spec: published.Spec, asked: Asked, tables: Path) -> Table:
    """The table from the run folders."""
    if not (spec.grid or spec.of_gains):
        raise UserError(f"{spec.name} holds no numbers that runs produce")
    return catalogue.table_at(spec, asked, tables)
