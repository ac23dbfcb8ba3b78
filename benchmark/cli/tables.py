"""The commands that print what is known: tables, published, assumptions; and lock, which says by what it is judged."""

import json
import sys
from typing import Annotated

import typer

from benchmark.cli.common import (
    CACHE,
    RUNS,
    TABLES,
    AsJson,
    Cache,
    DataRoot,
    Runs,
    Set,
    Tables,
    Weights,
    Wide,
    asked,
    opened_runs,
    print_rows,
    render_tables,
)
from benchmark.errors import UserError, nearest
from benchmark.matrix import grid, study
from benchmark.tables import catalogue, published


def tables_command(
    table: Annotated[str | None, typer.Option("--table", help="Only this one")] = None,
    scale: Annotated[str | None, typer.Option("--scale", help="Only this one; default: every scale with runs")] = None,
    sets: Set = None,
    data_root: DataRoot = None,
    weights: Weights = None,
    runs: Runs = RUNS,
    tables: Tables = TABLES,
    cache: Cache = CACHE,
    again: Annotated[bool, typer.Option("--replace", help="Also in place of tables of more runs")] = False,
    wide: Wide = False,
) -> None:
    """Write the tables from the run folders as Markdown, LaTeX, CSV and JSON, and print them."""
    known = list(dict.fromkeys(s for name in grid.names() for s in grid.load(name).scales))
    beside = grid.built_in_names() if study.at_hand().folder else []
    every = list(dict.fromkeys([*known, *(s for name in beside for s in grid.load(name).scales)]))
    if scale is not None and scale not in every:
        raise UserError(f"no grid has a scale '{scale}'" + nearest(scale, every))
    if table is not None:
        published.file(table, tables)  # a wrong name is told before a folder that is not there
    catalogue.look_at(runs)
    with_runs = [s for s in every if any((runs / s).glob("*/job.json"))]
    with opened_runs() as reader:
        for each in [scale] if scale else with_runs or ["mini" if "mini" in known else known[0]]:
            question = asked(each, sets, weights, runs, reader)
            specs = [published.load(table, tables)] if table else catalogue.shown(question, tables)
            problems = [catalogue.why_not(spec, each, tables) for spec in specs]
            if table and scale and problems[0]:
                raise UserError(problems[0])
            if scale and scale not in known and all(problems):
                raise UserError(
                    f"no method of the study has run at scale '{scale}'; --table NAME prints a built-in table"
                )
            render_tables(specs, question, data_root, tables, cache, again, wide, blank=table is not None)


def published_command(
    table: Annotated[str | None, typer.Option("--table", help="Only this one")] = None,
    tables: Tables = TABLES,
    as_json: AsJson = False,
) -> None:
    """Print the published cells, each with its place in the paper."""
    specs = [published.load(name, tables) for name in ([table] if table else published.names(tables))]
    cells = [cell for spec in specs for cell in published.cells(spec)]
    if as_json:
        print(json.dumps(cells, indent=1, ensure_ascii=False))
        return
    print_rows(cells, ("table", "row", "column", "value", "unit"))
    for spec in specs:
        print(f"{spec.name}: {spec.source.document}, {spec.source.place}")
        print("".join(f"  in the paper: {text}\n" for text in spec.discrepancies), end="")


def assumptions(
    grid_name: Annotated[str | None, typer.Option("--grid", help="Only this grid's")] = None, as_json: AsJson = False
) -> None:
    """Print what the paper leaves open, what is assumed here, and why."""
    rows = [
        {"grid": name, "assumption": key, **assumption.model_dump()}
        for name in ([grid_name] if grid_name else grid.names())
        for key, assumption in grid.load(name).assumptions.items()
    ]
    if as_json:
        print(json.dumps(rows, indent=1))
        return
    for row in rows:
        others = f" (or {', '.join(map(str, row['alternatives']))})" if row["alternatives"] else ""
        print(f"{row['grid']}  {row['assumption']}: {row['value']}{others}\n      {row['why']}")


def lock(
    check: Annotated[bool, typer.Option("--check", help="Only say what is not; exit status 1 if something is")] = False,
    tables: Tables = TABLES,
) -> None:
    """Write down, with date and commit, what each claim will be judged by: its readings, looks, tolerance and jobs."""
    from benchmark.store import code
    from benchmark.tables import locks

    specs = {name: published.load(name, tables) for name in published.names(tables)}
    book = locks.read(tables)
    found = locks.unlocked(specs, book)
    for address, (_, why) in found.items():
        print(f"{address}: {why}")
    if not any(True for spec in specs.values() for _ in locks.claims_of(spec, specs)):
        print(f"{published.home(tables)}: holds no claim; a row with 'claim: true' is one")
    elif not found:
        print(f"every claim is locked in {book.path}")
    elif check:
        sys.exit(1)
    else:
        files = [*grid.files(), *published.home(tables).glob("*.yaml")]
        outside = [path for path in files if not path.resolve().is_relative_to(code.ROOT)]
        if outside:
            raise UserError(
                f"lock: {outside[0]} lies outside the suite's repository, and a lock names a commit of that; "
                "copy the study into a clone of it, and commit it there"
            )
        commit = code.clean_commit(*(str(path.resolve()) for path in files))
        if commit is None:
            raise UserError(
                f"lock: it names the suite's commit with these grids and {tables}; commit what changed there first"
            )
        made = locks.append(book, {address: terms for address, (terms, _) in found.items()}, commit)
        count = f"{len(found)} claim{'s' if len(found) > 1 else ''}"
        print(f"{count} locked in {book.path}: {made.name}; commit it before the runs that it is for")
