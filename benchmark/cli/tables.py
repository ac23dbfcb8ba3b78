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
    Asked,
    Cache,
    DataRoot,
    Runs,
    Set,
    Tables,
    Weights,
    Wide,
    print_rows,
    render_tables,
)
from benchmark.errors import UserError, nearest
from benchmark.matrix import grid
from benchmark.tables import published


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
    specs = [published.load(name, tables) for name in ([table] if table else published.names(tables))]
    known = list(dict.fromkeys(s for name in grid.names() for s in grid.load(name).scales))
    if scale is not None and scale not in known:
        raise UserError(f"no grid has a scale '{scale}'" + nearest(scale, known))
    scales = [scale] if scale else [s for s in known if any((runs / s).glob("*/job.json"))] or ["mini"]
    for each in scales:
        asked = Asked(each, sets, weights, runs)
        render_tables(specs, asked, data_root, tables, cache, again, wide, blank=table is not None)


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
    if not found:
        print(f"every claim is locked in {book.path}")
    elif check:
        sys.exit(1)
    else:
        files = [*grid.files(), *published.home(tables).glob("*.yaml")]
        commit = code.clean_commit(*(str(path.resolve()) for path in files))
        if commit is None:
            raise UserError(
                f"lock: it names the suite's commit with these grids and {tables}; commit what changed there first"
            )
        made = locks.append(book, {address: terms for address, (terms, _) in found.items()}, commit)
        count = f"{len(found)} claim{'s' if len(found) > 1 else ''}"
        print(f"{count} locked in {book.path}: {made.name}; commit it before the runs that it is for")
