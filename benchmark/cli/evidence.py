"""The commands that show what a number rests on: explain, sensitivity, figures, report."""

import json
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from benchmark.cli.common import (
    CACHE,
    RUNS,
    TABLES,
    AsJson,
    Asked,
    Cache,
    DataRoot,
    GridName,
    MeasuredScale,
    Runs,
    Set,
    Tables,
    Weights,
    build_table,
    measured,
    print_rows,
    sources_of,
)
from benchmark.errors import UserError, nearest, visible
from benchmark.matrix import grid, strict_yaml
from benchmark.matrix.matrix import Matrix
from benchmark.store.files import write_atomic
from benchmark.store.run import Run, runs_in
from benchmark.tables import published
from benchmark.tables.cells import Table

if TYPE_CHECKING:
    from benchmark.evidence.answer import Control

Rounds = Annotated[int, typer.Option(min=0, max=100_000, help="Bootstrap samples of the test images; 0: none")]


def explain(
    address: Annotated[str, typer.Argument(help="table:row:column, such as table2:mAP:baseline")],
    scale: MeasuredScale = None,
    rounds: Rounds = 10_000,
    sets: Set = None,
    weights: Weights = None,
    runs: Runs = RUNS,
    tables: Tables = TABLES,
    as_json: AsJson = False,
    as_it_was: Annotated[
        bool, typer.Option("--as-it-was", help="Print what makes its runs as they were made, commit and packages too")
    ] = False,
    run: Annotated[bool, typer.Option("--run", help="With --as-it-was: do so, and compare")] = False,
    data_root: DataRoot = None,
) -> None:
    """Where a cell's number comes from: runs, seeds, code, uncertainty, assumptions, and the command to make it.
    --as-it-was --run ends with 1 where a number does not come out, with 2 where nothing tells."""
    from benchmark.evidence import explain as explain_module
    from benchmark.tables import build, collect, locks, summary

    loaded = [published.load(name, tables) for name in published.names(tables)]
    specs = {spec.name: spec for spec in loaded if spec.grid or spec.of_gains}
    spec, row, column = explain_module.locate(address, specs)
    asked = measured(scale, sets, weights, runs)
    if run and not as_it_was:
        raise UserError("--run: goes with --as-it-was; 'python -m benchmark run' trains by the code as it is now")
    if as_it_was:
        if spec.grid is None:
            raise UserError(f"{address}: shows another table's gain; name the cell that it shows")
        matrix, where = asked.matrix(spec.grid), next(r.where for r in spec.rows if r.key == row)
        folders = [Run(matrix.folder(job)) for job in matrix.jobs_of(where, column)]
        make_as_it_was([each for each in folders if each.state() == "done"], run, data_root, weights)
        return

    def traced(built: Table, row: str) -> dict[str, Any]:
        assert built.matrix is not None, "a table of runs"
        cell = built.cells[row, column]
        groups = build.groups(built, cell) if rounds else []
        samples = collect.image_samples(built.matrix, groups, rounds, built.item(cell))
        return explain_module.trace(built, cell, samples)

    if spec.grid:
        cell_trace = traced(build_table(spec, asked.matrix(spec.grid), tables), row)
    else:
        shows = next(r for r in spec.rows if r.key == row)
        grid_of = specs[shows.table].grid if shows.table in specs else None
        if grid_of and shows.of and asked.scale in grid.load(grid_of).scales and asked.matrix(grid_of).overrides:
            other = f"{shows.table}:{shows.of}:{column}"
            raise UserError(f"{address}: shows the gain as its grid has it; with --set or --weights name {other}")
        by_name = sources_of(spec, asked, None, tables, CACHE)
        if shows.table not in by_name or shows.of is None:
            raise UserError(
                f"{address}: untested at scale {asked.scale}, which {shows.table} does not have; name another"
            )
        whole = summary.headline(spec, by_name, asked.scale, locks.read(tables))
        cell_trace = explain_module.trace_claim(whole, whole.cells[row, column], traced(by_name[shows.table], shows.of))
    print(json.dumps(cell_trace, indent=1, ensure_ascii=False) if as_json else explain_module.text(cell_trace))


def make_as_it_was(runs: list[Run], run: bool, data_root: Path | None, weights: Path | None) -> None:
    """Print what makes these runs as they were made; run: do it, and say how each came out."""
    from benchmark.checks import rebuild, retrain

    ways = [rebuild.made(each) for each in runs]
    if not ways:
        raise UserError("nothing was measured in this cell; 'python -m benchmark explain' without --as-it-was says why")
    if not run:
        print(rebuild.text(ways, data_root, weights))
        return
    print(f"{len(ways)} runs, which took {sum(way.record.seconds or 0 for way in ways):.0f} s", flush=True)
    outcomes = []
    for way in ways:
        outcome = retrain.compared(way.run, rebuild.do(way, data_root, weights), same_code=True)
        print(f"{way.run.id}: {outcome.said}", flush=True)
        outcomes.append(outcome.agrees)
    if not all(outcomes):
        sys.exit(1 if False in outcomes else 2)


def sensitivity(
    grid_name: GridName,
    vary: Annotated[
        str | None, typer.Option("--vary", help="An assumption; name=[a,b] for other values than the grid's")
    ] = None,
    scale: MeasuredScale = None,
    item: Annotated[str | None, typer.Option(help="A class, mAP, top1, ...; default: the headline number")] = None,
    sets: Set = None,
    weights: Weights = None,
    runs: Runs = RUNS,
    as_json: AsJson = False,
) -> None:
    """Table how much the gain moves with an assumption, and print the commands for the runs that are missing; without
    --vary, the readings that the scale puts side by side."""
    from benchmark.evidence import sensitivity as sensitivity_module

    matrix = measured(scale, sets, weights, runs).matrix(grid_name)
    if vary is None:
        if not matrix.overlay.readings:
            having = [name for name, other in matrix.grid.scales.items() if other.readings]
            raise UserError(
                f"sensitivity: scale {matrix.scale} of grid {grid_name} has no readings to compare; "
                f"{'--scale ' + having[0] + ' has, or ' if having else ''}name an assumption with --vary"
            )
        lines = sensitivity_module.readings(matrix)
        text = sensitivity_module.readings_text(matrix, lines, "simple")
        print(json.dumps(lines, indent=1) if as_json else text)
        return
    name, equals, given = vary.partition("=")
    values = sensitivity_module.values_of(matrix, name)
    if equals:
        values = strict_yaml.scalar(given)
        values = values if isinstance(values, list) else [values]
    lines = sensitivity_module.table(matrix, name, values, item)
    if as_json:
        print(json.dumps(lines, indent=1))
        return
    rows = [sensitivity_module.text_row(line) for line in lines]
    print_rows([{name: row.pop("value")} | row for row in rows], (name, *(key for key in rows[0])))
    missing = list(dict.fromkeys(line["command"] for line in lines if line["command"]))
    print("\n".join(["\nmissing runs:", *missing]) if missing else "\nevery run is there")


def figures(
    table: Annotated[str | None, typer.Option("--table", help="Only this one; default: every table with runs")] = None,
    scale: MeasuredScale = None,
    sets: Set = None,
    weights: Weights = None,
    data_root: DataRoot = None,
    runs: Runs = RUNS,
    tables: Tables = TABLES,
    cache: Cache = CACHE,
) -> None:
    """Draw gains, values, training curves, the attention maps that runs keep and every reading that was tried as PNG
    and PDF."""
    from benchmark.evidence import figures as figures_module
    from benchmark.evidence import maps

    asked = measured(scale, sets, weights, runs)
    curves = draw_readings(asked, table, tables)
    with_maps = {spec.name for spec in first_of_each_grid(table, tables)}  # tables of one grid show the same runs
    for spec, matrix in [] if curves and not any_table_at(asked, table, tables) else tables_at(asked, table, tables):
        built = build_table(spec, matrix, tables)
        drawings = figures_module.draw(built)
        drawings += maps.draw(matrix, data_root, cache) if spec.name in with_maps else []
        if not drawings:
            print(f"{spec.name} at scale {matrix.scale}: nothing is measured yet")
        folder = tables / matrix.subfolder / "figures" / spec.name
        print("".join(f"written: {path}\n" for path in figures_module.write(drawings, folder)), end="")


def answer(
    runs: Runs = RUNS,
    tables: Tables = TABLES,
    cache: Cache = CACHE,
) -> None:
    """Write and print the answer: every gain on real data beside the published one, as a table and as a picture."""
    from benchmark.evidence import answer as answer_module
    from benchmark.evidence import figures as figures_module

    shown = answer_module.comparisons(on_real_data(published.load("headline", tables), runs, tables, cache))
    if not shown:
        raise UserError(f"{runs}/ holds no pair of a method and its baseline on real data")
    drawing = figures_module.answer(shown)
    text = answer_module.markdown(shown)
    write_atomic(tables / "answer.md", visible(text).encode())
    paths = [tables / "answer.md", *figures_module.write([drawing], tables)]
    print(f"{text}\n{drawing.caption}\n\nwritten: {', '.join(map(str, paths))}")
    held = measured_controls(runs, tables)
    if held:
        drawing = figures_module.controls(held)
        text = answer_module.controls_markdown(held)
        write_atomic(tables / f"{drawing.name}.md", visible(text).encode())
        paths = [tables / f"{drawing.name}.md", *figures_module.write([drawing], tables)]
        print(f"\n{text}\n{drawing.caption}\n\nwritten: {', '.join(map(str, paths))}")


def measured_controls(runs: Path, tables: Path) -> "list[Control]":
    """The measured lines of every table of controls but mini's, with what is claimed of the same methods and data."""
    from benchmark.evidence import answer as answer_module
    from benchmark.evidence import curve

    lines: list[Control] = []
    abstract = claims_of_the_abstract(tables)
    with_claims = {spec.grid: spec for spec in first_of_each_grid(None, tables)}
    for spec in (published.load(name, tables) for name in published.names(tables)):
        if spec.grid is None or not spec.of_controls:
            continue
        chosen = grid.load(spec.grid)
        for scale in chosen.scales:
            if scale != "mini" and chosen.has_tables(scale) and spec.is_made_at(scale):
                for matrix in in_each_precision(Asked(scale, None, None, runs).matrix(spec.grid)):
                    claimed = curve.claimed(with_claims[spec.grid], matrix, abstract)
                    claimed = {method: gain for method, gain in claimed.items() if method in matrix.methods}
                    lines += answer_module.controls(build_table(spec, matrix, tables), claimed)
    return lines


def in_each_precision(matrix: Matrix) -> list[Matrix]:
    """As the scale has it, and in any other precision that its runs have: that is the machine's choice, no reading of
    the paper, so what was measured in it is not left out."""
    found = set()
    for run in runs_in(matrix.runs / matrix.scale):
        with suppress(UserError):  # a damaged record: `verify` names it
            found.add(run.job().precision)
    others = sorted(found - {job.precision for job in matrix.jobs})
    return [matrix, *(matrix.asked_otherwise(overrides={"precision": other}) for other in others)]


def on_real_data(headline: published.Spec, runs: Path, tables: Path, cache: Path) -> list[Table]:
    """The headline at each scale but mini, in each precision that ran there."""
    from benchmark.tables import locks, summary

    parts = [published.load(name, tables) for name in dict.fromkeys(row.table for row in headline.rows if row.table)]
    scales = dict.fromkeys(scale for name in grid.names() for scale in grid.load(name).scales if scale != "mini")
    shown: dict[str, dict[str, Table]] = {}  # by what was run, the tables that the headline's rows name
    for scale in scales:
        for spec in (part for part in parts if part.is_made_at(scale)):
            if spec.grid and grid.load(spec.grid).has_tables(scale):
                for matrix in in_each_precision(Asked(scale, None, None, runs).matrix(spec.grid)):
                    shown.setdefault(matrix.called, {})[spec.name] = build_table(spec, matrix, tables, None, cache)
    book = locks.read(tables)
    return [summary.headline(headline, by_name, called, book) for called, by_name in shown.items()]


def draw_readings(asked: Asked, table: str | None, tables: Path) -> bool:
    """The specification curve of each grid that has the scale; whether there is one."""
    from benchmark.evidence import curve
    from benchmark.evidence import figures as figures_module

    drawn = False
    for spec in first_of_each_grid(table, tables):
        assert spec.grid is not None, "specs of runs"
        if asked.scale in grid.load(spec.grid).scales:
            matrix = asked.matrix(spec.grid)
            folder = tables / matrix.subfolder / "figures"
            drawings = curve.draw(matrix, spec, claims_of_the_abstract(tables))
            print("".join(f"written: {path}\n" for path in figures_module.write(drawings, folder)), end="")
            drawn = drawn or bool(drawings)
    return drawn


def first_of_each_grid(table: str | None, tables: Path) -> list[published.Spec]:
    """A table of each grid: the one asked for, or the one that the headline looks at."""
    specs = [published.load(name, tables) for name in ([table] if table else published.names(tables))]
    headline = claims_of_the_abstract(tables)
    asked_by = [row.table for row in headline.rows] if headline else []
    ranked = sorted((spec for spec in specs if spec.grid), key=lambda spec: spec.name not in asked_by)
    return list({spec.grid: spec for spec in reversed(ranked)}.values())


def claims_of_the_abstract(tables: Path) -> published.Spec | None:
    specs = (published.load(name, tables) for name in published.names(tables))
    return next((spec for spec in specs if spec.of_gains), None)


def any_table_at(asked: Asked, table: str | None, tables: Path) -> bool:
    names = [table] if table else published.names(tables)
    specs = (published.load(name, tables) for name in names)
    return any(grid.load(spec.grid).has_tables(asked.scale) for spec in specs if spec.grid)


def report(
    table: Annotated[str | None, typer.Option("--table", help="Only this one; default: every table")] = None,
    scale: MeasuredScale = None,
    rounds: Rounds = 10_000,
    sets: Set = None,
    weights: Weights = None,
    data_root: DataRoot = None,
    runs: Runs = RUNS,
    tables: Tables = TABLES,
    cache: Cache = CACHE,
) -> None:
    """Write one self-contained HTML page: the answer, what keeps it open, tables whose cells open their traces,
    figures, assumptions."""
    from benchmark.evidence import answer, curve, maps
    from benchmark.evidence import figures as figures_module
    from benchmark.evidence import report as report_module
    from benchmark.tables import build, collect, locks, summary

    parts = []
    with_curves = {spec.name for spec in first_of_each_grid(table, tables)}
    for spec, matrix in tables_at(measured(scale, sets, weights, runs), table, tables):
        # The first time, before intervals are cached, a table of full runs takes minutes.
        print(f"{spec.name}: intervals, figures and traces", file=sys.stderr, flush=True)
        built = build_table(spec, matrix, tables)
        groups = [group for cell in built.cells.values() for group in build.groups(built, cell)] if rounds else []
        samples = collect.image_samples(matrix, groups, rounds)
        tried = curve.at_scales(matrix, spec, claims_of_the_abstract(tables)) if spec.name in with_curves else []
        drawn = [(d.caption, "image/svg+xml", figures_module.svg(d)) for d in [*figures_module.draw(built), *tried]]
        kept = maps.draw(matrix, data_root, cache) if spec.name in with_curves else []
        drawn += [(d.caption, "image/jpeg", figures_module.jpeg(d)) for d in kept]
        parts.append(report_module.Part(built, matrix, samples, drawn))
    path = tables / parts[0].matrix.subfolder / "report.html"
    by_name = {part.table.spec.name: part.table for part in parts}
    loaded = [] if table else [published.load(name, tables) for name in published.names(tables)]
    scale = parts[0].matrix.scale
    of_claims = [spec for spec in loaded if spec.of_gains]
    headlines = [summary.headline(spec, by_name, scale, locks.read(tables)) for spec in of_claims]
    shown = answer.comparisons([each for spec in of_claims for each in on_real_data(spec, runs, tables, cache)])
    text = report_module.page(parts, headlines, {spec.name: spec for spec in loaded}, shown)
    write_atomic(path, text.encode())
    print(f"written: {path}")


def tables_at(asked: Asked, table: str | None, tables: Path) -> list[tuple[published.Spec, Matrix]]:
    """Tables of runs whose grid has the scale, with their matrix. UserError where there is none."""
    specs = [published.load(name, tables) for name in ([table] if table else published.names(tables))]
    of_runs = [(spec, grid.load(spec.grid)) for spec in specs if spec.grid]
    at_scale = [
        (spec, asked.matrix(chosen.name))
        for spec, chosen in of_runs
        if chosen.has_tables(asked.scale) and spec.is_made_at(asked.scale)
    ]
    if not at_scale:
        scales = dict.fromkeys(name for _, chosen in of_runs for name in chosen.scales)
        raise UserError(
            f"no table of runs has a scale '{asked.scale}'" + (nearest(asked.scale, scales) if scales else "")
        )
    return at_scale
