"""The commands that show what a number rests on: explain, sensitivity, figures, report."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from benchmark.cli.common import (
    CACHE,
    RUNS,
    TABLES,
    AsJson,
    Cache,
    DataRoot,
    GridName,
    MeasuredScale,
    Runs,
    Set,
    Tables,
    Weights,
    measured,
    opened_runs,
    print_rows,
    warn_of_unverified,
)
from benchmark.errors import UserError, visible
from benchmark.matrix import grid, strict_yaml
from benchmark.results.results import Reader, Results
from benchmark.store.files import write_atomic
from benchmark.store.run import Run
from benchmark.tables import catalogue, published
from benchmark.tables.catalogue import Asked
from benchmark.tables.cells import TableOfRuns

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
    from benchmark.tables import build, locks, summary

    specs = {name: spec for name, spec in catalogue.every(tables).items() if spec.grid or spec.of_gains}
    spec, row, column = explain_module.locate(address, specs)
    if run and not as_it_was:
        raise UserError("--run: goes with --as-it-was; 'python -m benchmark run' trains by the code as it is now")
    if as_it_was:
        if spec.grid is None:
            raise UserError(f"{address}: shows another table's gain; name the cell that it shows")
        asked = measured(scale, sets, weights, runs)
        matrix, where = asked.matrix(spec.grid), next(r.where for r in spec.rows if r.key == row)
        folders = [Run(matrix.folder(job)) for job in matrix.jobs_of(where, column)]
        make_as_it_was([each for each in folders if each.state() == "done"], run, data_root, weights)
        return

    def traced(built: TableOfRuns, row: str) -> dict[str, Any]:
        cell = built.cells[row, column]
        groups = build.groups(built, cell) if rounds else []
        samples = built.results.resample(groups, rounds, built.item(cell))
        return explain_module.trace(built, cell, samples)

    with opened_runs() as reader:
        asked = measured(scale, sets, weights, runs, reader)
        if spec.grid:
            cell_trace = traced(catalogue.build_table(spec, asked.results(spec.grid), tables), row)
        else:
            shows = next(r for r in spec.rows if r.key == row)
            grid_of = specs[shows.table].grid if shows.table in specs else None
            if grid_of and shows.of and asked.scale in grid.load(grid_of).scales and asked.matrix(grid_of).overrides:
                other = f"{shows.table}:{shows.of}:{column}"
                raise UserError(f"{address}: shows the gain as its grid has it; with --set or --weights name {other}")
            by_name = catalogue.sources_of(spec, asked, tables)
            if shows.table not in by_name or shows.of is None:
                raise UserError(
                    f"{address}: untested at scale {asked.scale}, which {shows.table} does not have; name another"
                )
            whole = summary.headline(spec, by_name, asked.scale, locks.read(tables))
            shown = traced(by_name[shows.table], shows.of)
            cell_trace = explain_module.trace_claim(whole, whole.cells[row, column], shown)
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
        with opened_runs() as reader:
            lines = sensitivity_module.readings(Results.read(matrix, reader))
            warn_of_unverified(reader)
        text = sensitivity_module.readings_text(matrix, lines, "simple")
        print(json.dumps(lines, indent=1) if as_json else text)
        return
    name, equals, given = vary.partition("=")
    values = sensitivity_module.values_of(matrix, name)
    if equals:
        values = strict_yaml.scalar(given)
        values = values if isinstance(values, list) else [values]
    with opened_runs() as reader:
        lines = sensitivity_module.table(Results.read(matrix, reader), name, values, item)
        warn_of_unverified(reader)
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

    with opened_runs() as reader:
        question = measured(scale, sets, weights, runs, reader)
        curves = draw_readings(question, table, tables)
        specs = named(table, question, tables)
        if curves and all(catalogue.why_not(spec, question.scale, tables) for spec in specs):
            return
        # Tables of one grid show the same runs, and so the same maps.
        with_maps = {spec.name for spec in catalogue.first_of_each_grid(specs, tables)}
        for spec, matrix in catalogue.at_scale(question, table, tables):
            results = Results.read(matrix, reader)
            drawings = figures_module.draw(catalogue.build_table(spec, results, tables))
            drawings += maps.draw(results, data_root, cache) if spec.name in with_maps else []
            if not drawings:
                print(f"{spec.name} at scale {matrix.scale}: nothing is measured yet")
            folder = catalogue.folder(matrix, tables) / "figures" / spec.name
            print("".join(f"written: {path}\n" for path in figures_module.write(drawings, folder)), end="")


def named(table: str | None, asked: Asked, tables: Path) -> list[published.Spec]:
    """The table of this name; without one, those that are meant."""
    return [published.load(table, tables)] if table else catalogue.shown(asked, tables)


def answer(
    runs: Runs = RUNS,
    tables: Tables = TABLES,
    cache: Cache = CACHE,
    as_json: AsJson = False,
) -> None:
    """Write and print the answer: every claim that has pairs on real data, pooled and by setting, as a table and as a
    picture; and every control."""
    from benchmark.evidence import answer as answer_module
    from benchmark.evidence import figures as figures_module

    catalogue.look_at(runs)
    headlines = catalogue.headlines(tables)
    if not headlines:
        raise UserError(
            f"{published.home(tables)}: holds no table whose rows show other tables' gains, as 'answer' does; "
            "'python -m benchmark tables' prints what there is"
        )
    with opened_runs() as reader:
        built = [each for spec in headlines for each in catalogue.on_real_data(spec, runs, tables, cache, reader)]
        shown = answer_module.comparisons(built)
        if not shown:
            raise UserError(f"{runs}/ holds no pair of a method and its baseline on real data")
        held = measured_controls(runs, tables, reader)
    made = [(answer_module.markdown(shown), figures_module.answer(answer_module.claims(shown)))]
    if held:
        made.append((answer_module.controls_markdown(held), figures_module.controls(held)))
    told = []
    for text, drawing in made:
        write_atomic(tables / f"{drawing.name}.md", visible(text).encode())
        paths = [tables / f"{drawing.name}.md", *figures_module.write([drawing], tables)]
        told.append(f"{text}\n{drawing.caption}\n\nwritten: {', '.join(map(str, paths))}")
    print(json.dumps(answer_module.values(shown), indent=1) if as_json else "\n\n".join(told))


def measured_controls(runs: Path, tables: Path, reader: Reader) -> "list[Control]":
    """The measured lines of every table of controls but mini's, with what is claimed of the same methods and data."""
    from benchmark.evidence import answer as answer_module
    from benchmark.evidence import curve

    lines: list[Control] = []
    abstract = catalogue.claims_of_the_abstract(tables)
    specs = [published.load(name, tables) for name in published.names(tables)]
    with_claims = {spec.grid: spec for spec in catalogue.first_of_each_grid(specs, tables)}
    for spec, results in catalogue.controls(runs, tables, reader):
        claimed = curve.claimed(with_claims[spec.grid], results, abstract)
        claimed = {method: gain for method, gain in claimed.items() if method in results.matrix.methods}
        lines += answer_module.controls(catalogue.build_table(spec, results, tables), claimed)
    return lines


def draw_readings(asked: Asked, table: str | None, tables: Path) -> bool:
    """The specification curve of each grid that has the scale; whether there is one."""
    from benchmark.evidence import curve
    from benchmark.evidence import figures as figures_module

    drawn = False
    for spec in catalogue.first_of_each_grid(named(table, asked, tables), tables):
        assert spec.grid is not None, "specs of runs"
        if asked.scale in grid.load(spec.grid).scales:
            matrix = asked.matrix(spec.grid)
            folder = catalogue.folder(matrix, tables) / "figures"
            drawings = curve.draw(Results.read(matrix, asked.reader), spec, catalogue.claims_of_the_abstract(tables))
            print("".join(f"written: {path}\n" for path in figures_module.write(drawings, folder)), end="")
            drawn = drawn or bool(drawings)
    return drawn


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
    from benchmark.tables import build, locks, summary

    parts = []
    with opened_runs() as reader:
        question = measured(scale, sets, weights, runs, reader)
        specs = named(table, question, tables)
        with_curves = {spec.name for spec in catalogue.first_of_each_grid(specs, tables)}
        abstract = catalogue.claims_of_the_abstract(tables)
        for spec, matrix in catalogue.at_scale(question, table, tables):
            # The first time, before intervals are cached, a table of full runs takes minutes.
            print(f"{spec.name}: intervals, figures and traces", file=sys.stderr, flush=True)
            results = Results.read(matrix, reader)
            built = catalogue.build_table(spec, results, tables)
            groups = [group for cell in built.cells.values() for group in build.groups(built, cell)] if rounds else []
            samples = results.resample(groups, rounds)
            tried = curve.at_scales(results, spec, abstract) if spec.name in with_curves else []
            drawn = [(d.caption, "image/svg+xml", figures_module.svg(d)) for d in [*figures_module.draw(built), *tried]]
            kept = maps.draw(results, data_root, cache) if spec.name in with_curves else []
            drawn += [(d.caption, "image/jpeg", figures_module.jpeg(d)) for d in kept]
            parts.append(report_module.Part(built, results, samples, drawn))
        loaded = [] if table else specs
        of_claims = [spec for spec in loaded if spec.of_gains]
        on_data = [each for spec in of_claims for each in catalogue.on_real_data(spec, runs, tables, cache, reader)]
    path = catalogue.folder(parts[0].matrix, tables) / "report.html"
    by_name = {part.table.spec.name: part.table for part in parts}
    book = locks.read(tables)
    headlines = [summary.headline(spec, by_name, parts[0].matrix.scale, book) for spec in of_claims]
    shown = answer.comparisons(on_data)
    text = report_module.page(parts, headlines, {spec.name: spec for spec in loaded}, shown)
    write_atomic(path, text.encode())
    print(f"written: {path}")
