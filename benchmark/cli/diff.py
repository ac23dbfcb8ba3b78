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
    Asked,
    MeasuredScale,
    Runs,
    Set,
    Tables,
    Weights,
    build_table,
    measured,
    print_rows,
    texts,
)
from benchmark.errors import UserError, nearest
from benchmark.matrix import grid
from benchmark.tables import published
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
    asked = measured(scale, sets, weights, runs)
    try:
        if a is None:
            diff_with_published(published.load(table, tables), asked, tolerance, as_json)
        specs = [spec for spec in (published.load(name, tables) for name in published.names(tables)) if spec.grid]
        read = [_side(text, table, ap_definition, asked, tables, specs) for text in (a, b)]
        name = next((side.table for side in read if side and side.table), None)
        if name is None and None in read:
            raise UserError("diff: which table? Name it with --table")
        sides = [s or diff_module.of_published(published.load(name, tables)) for s in read]
        if tolerance is None:
            tolerance = 0.0
            if "published" in (sides[0].kind, sides[1].kind):
                tolerance = _declared(published.load(name, tables)).value
        outcomes = diff_module.compare(*sides, tolerance)
    except diff_module.UnfitError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(UNFIT)
    code = diff_module.exit_status(outcomes)
    if as_json:
        head = {"a": sides[0].label, "b": sides[1].label, "tolerance": tolerance, "exit_status": code}
        print(json.dumps(head | {"cells": outcomes}, indent=1))
    else:
        shown = [o for o in outcomes if o["outcome"] != "within"] if sides[0].kind == "runs" else outcomes
        print_rows(texts(shown, 6 if tolerance == 0 else 2), ("row", "column", "a", "b", "delta", "outcome"))
        print(f"a: {sides[0].label}, b: {sides[1].label}, tolerance {tolerance:g}: {_counts(outcomes)}")
    sys.exit(code)


def diff_with_published(spec: published.Spec, asked: Asked, tolerance: float | None, as_json: bool) -> None:
    """Our cells beside the published ones, each with its verdicts; ends the process."""
    from benchmark.tables import build as table_module
    from benchmark.tables import diff as diff_module

    declared = _declared(spec)
    built = generated(spec, asked)
    outcomes = table_module.compare(built, declared.value if tolerance is None else tolerance)
    code = diff_module.exit_status(outcomes)
    if as_json:
        print(
            json.dumps(
                {
                    "table": spec.name,
                    "scale": built.scale,
                    "tolerance": declared.model_dump(),
                    "unit": spec.unit,
                    "exit_status": code,
                    "cells": outcomes,
                    "verdicts": {level: dict(counts) for level, counts in built.verdicts().items()},
                },
                indent=1,
            )
        )
    else:
        keys = ("row", "column", "published", "mean", "n", "delta", "status", "outcome", "verdict", "gain_verdict")
        print_rows(texts(outcomes), keys)
        print(f"{spec.name} at scale {built.scale}, tolerance {declared.value:g} {spec.unit}: {_counts(outcomes)}")
        print("\n".join(note for note in built.notes if note.startswith("Verdicts")))
        if not built.comparable:
            print("\n".join(note for note in built.notes if note.startswith(("Scale", "Deviations"))))
    sys.exit(code)


def _declared(spec: published.Spec) -> published.Tolerance:
    from benchmark.tables.diff import UnfitError

    if spec.grid is None or spec.tolerance is None:
        raise UnfitError(f"{spec.name} holds no numbers that runs produce")
    return spec.tolerance


def _side(
    text: str, table: str | None, ap_definition: str, asked: Asked, tables: Path, specs: list[published.Spec]
) -> "Side | None":
    """What `published[:T]`, `generated[:T]` or a path means. None: published, of the other side's table."""
    from benchmark.tables import diff as diff_module

    word, _, name = text.partition(":")
    name = name or table
    if word == "published":
        return diff_module.of_published(published.load(name, tables)) if name else None
    if word == "generated":
        if not name:
            raise UserError("diff: generated of which table? Say generated:table2")
        return diff_module.of_table(generated(published.load(name, tables), asked))
    if Path(text).is_dir():
        return diff_module.of_runs(Path(text), ap_definition)
    if not Path(text).exists():
        raise UserError(f"{text}: no such file or folder; 'published:T' and 'generated:T' name the cells of table T")
    return diff_module.of_file(Path(text), specs)


def _counts(outcomes: list[dict[str, Any]]) -> str:
    found = [o["outcome"] for o in outcomes]
    return ", ".join(f"{found.count(o)} {o}" for o in dict.fromkeys(found))


def generated(spec: published.Spec, asked: Asked) -> Table:
    """The table from the run folders."""
    if spec.grid is None:
        raise UserError(f"{spec.name} holds no numbers that runs produce")
    return build_table(spec, asked.matrix(spec.grid))
