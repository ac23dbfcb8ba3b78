"""The commands that show what a number rests on: explain, sensitivity, figures, report."""

import json
from pathlib import Path
from typing import Annotated, Any

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
    build_table,
    default_scale,
    overrides,
    print_rows,
    slug,
    texts,
)
from benchmark.errors import UserError, nearest
from benchmark.matrix import grid, strict_yaml
from benchmark.store.run import write_atomic, write_json
from benchmark.tables import published


def explain(
    address: Annotated[str, typer.Argument(help="table:row:column, such as table2:mAP:icasc-a_ch")],
    scale: MeasuredScale = None,
    rounds: Annotated[int, typer.Option(min=0, help="Bootstrap samples of the test images; 0: none")] = 400,
    sets: Set = None,
    weights: Weights = None,
    runs: Runs = RUNS,
    tables: Tables = TABLES,
    as_json: AsJson = False,
) -> None:
    """Where a cell's number comes from: runs, seeds, code, uncertainty, assumptions, and the command to make it."""
    from benchmark.evidence import explain as explain_module
    from benchmark.tables import collect
    from benchmark.tables.build import default_definition

    specs = {spec.name: spec for spec in (published.load(n, tables) for n in published.names(tables)) if spec.grid}
    spec, row, column = explain_module.locate(address, specs)
    chosen, scale = grid.load(spec.grid), scale or default_scale(runs)
    changed = overrides(chosen, scale, sets, weights)
    built, jobs = build_table(spec, chosen, scale, changed, runs), chosen.jobs(scale, changed)
    cell, baseline = built.cells[row, column], built.cells[row, spec.columns[0].key]
    item = next(r.item or r.key for r in spec.rows if r.key == row)
    definition = default_definition(chosen)
    ids = list(dict.fromkeys([*cell.runs, *baseline.runs])) if rounds else []
    samples = collect.image_samples(runs, scale, ids, definition, rounds, item, chosen.scales[scale].min_positives)
    found = explain_module.trace(built, chosen, jobs, runs, cell, samples, definition, changed)
    print(json.dumps(found, indent=1, ensure_ascii=False) if as_json else explain_module.text(found))


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

    chosen, scale = grid.load(grid_name), scale or default_scale(runs)
    if vary is None:
        if scale not in chosen.scales or chosen.has_tables(scale):
            having = [name for name, s in chosen.scales.items() if s.readings]
            raise UserError(
                f"sensitivity: scale {scale} of grid {grid_name} has no readings to compare; "
                f"{'--scale ' + having[0] + ' has, or ' if having else ''}name an assumption with --vary"
            )
        lines = sensitivity_module.readings(chosen, scale, runs)
        text = sensitivity_module.readings_text(chosen, scale, lines, "simple")
        print(json.dumps(lines, indent=1) if as_json else text)
        return
    name, equals, given = vary.partition("=")
    values = sensitivity_module.values_of(chosen, name)
    if equals:
        values = strict_yaml.scalar(given)
        values = values if isinstance(values, list) else [values]
    changed = overrides(chosen, scale, sets, weights)
    lines = sensitivity_module.table(chosen, scale, name, values, changed, runs, item)
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
    attention: Annotated[
        bool, typer.Option("--attention", help="Also maps and their overlap; needs the trained weights")
    ] = False,
    images: Annotated[int, typer.Option(min=1, help="With --attention: images of each kind")] = 4,
    sets: Set = None,
    weights: Weights = None,
    data_root: DataRoot = None,
    runs: Runs = RUNS,
    tables: Tables = TABLES,
    cache: Cache = CACHE,
) -> None:
    """Draw gains, values and training curves as PNG and PDF; --attention: the maps of baseline and ICASC too."""
    from benchmark.evidence import figures as figures_module

    scale = scale or default_scale(runs)
    for spec, chosen in specs_at(scale, table, tables):
        changed = overrides(chosen, scale, sets, weights)
        built, jobs = build_table(spec, chosen, scale, changed, runs), chosen.jobs(scale, changed)
        drawings = figures_module.draw(built, jobs, runs)
        if not drawings:
            print(f"{spec.name} at scale {scale}: nothing is measured yet")
        folder = output_folder(tables, scale, changed) / "figures" / spec.name
        print("".join(f"written: {path}\n" for path in figures_module.write(drawings, folder)), end="")
        if attention:
            draw_attention(chosen, scale, changed, jobs, runs, images, data_root, cache, folder)


def draw_attention(
    chosen: grid.Grid, scale: str, changed: dict[str, Any], jobs: list[Any], runs: Path, images: int,
    data_root: Path | None, cache: Path, folder: Path,
) -> None:  # fmt: skip
    """The maps of the first seed, and the overlap over all seeds and the whole test set."""
    from benchmark.evidence import explain, maps
    from benchmark.evidence import figures as figures_module

    lacking = maps.missing(runs, jobs)
    if lacking:
        command = explain.command(chosen, scale, changed, lacking, list(dict.fromkeys(j.method for j in lacking)), {})
        raise UserError(
            f"{runs / scale / lacking[0].id / maps.WEIGHTS}: missing, with {len(lacking) - 1} more; "
            f"move these folders away, then: {command} --keep-weights"
        )
    baselines = {(j.backbone, j.train_split, j.seed): j for j in jobs if j.method == jobs[0].method}
    pairs = [
        maps.load_pair(runs, baselines[job.backbone, job.train_split, job.seed], job, data_root, cache)
        for job in jobs
        if job.method != jobs[0].method
    ]
    for pair in {(p.job.backbone, p.job.train_split, p.job.method): p for p in reversed(pairs)}.values():
        at = folder / f"{pair.job.backbone}-{pair.job.train_split}-{pair.job.method}-s{pair.job.seed}"
        drawings = maps.draw(pair, images)
        write_json(at / "captions.json", {drawing.name: drawing.caption for drawing in drawings})
        print("".join(f"{drawing.caption}\n" for drawing in drawings), end="")
        print("".join(f"written: {path}\n" for path in figures_module.write(drawings, at)), end="")
    lines = maps.overlap_table(pairs)
    write_json(folder / "attention.json", lines)
    print_rows(texts(lines, 4), tuple(lines[0]))
    print(f"written: {folder / 'attention.json'}; lower separability terms and overlap mean maps further apart")


def report(
    table: Annotated[str | None, typer.Option("--table", help="Only this one; default: every table")] = None,
    scale: MeasuredScale = None,
    rounds: Annotated[int, typer.Option(min=0, help="Bootstrap samples of the test images; 0: none")] = 400,
    sets: Set = None,
    weights: Weights = None,
    runs: Runs = RUNS,
    tables: Tables = TABLES,
) -> None:
    """Write one self-contained HTML page: verdicts, tables whose cells open their traces, figures, assumptions."""
    from benchmark.evidence import figures as figures_module
    from benchmark.evidence import report as report_module
    from benchmark.tables import collect
    from benchmark.tables.build import default_definition

    scale, parts = scale or default_scale(runs), []
    for spec, chosen in specs_at(scale, table, tables):
        changed = overrides(chosen, scale, sets, weights)
        jobs, built = chosen.jobs(scale, changed), build_table(spec, chosen, scale, changed, runs)
        ids = list(dict.fromkeys(name for cell in built.cells.values() for name in cell.runs)) if rounds else []
        samples = collect.image_samples(
            runs, scale, ids, default_definition(chosen), rounds, min_positives=chosen.scales[scale].min_positives
        )
        drawn = [(d.caption, "image/svg+xml", figures_module.svg(d)) for d in figures_module.draw(built, jobs, runs)]
        seen, attention = drawn_attention(output_folder(tables, scale, changed) / "figures" / spec.name)
        parts.append(report_module.Part(built, chosen, jobs, changed, samples, drawn + seen, attention))
    path = output_folder(tables, scale, parts[0].changed) / "report.html"
    write_atomic(path, report_module.page(parts, scale, runs).encode())
    print(f"written: {path}")


def drawn_attention(folder: Path) -> tuple[list[tuple[str, str, bytes]], list[dict[str, Any]]]:
    """What `figures --attention` left for the report: pictures with their captions, and the measured overlap."""
    pictures = []
    for path in sorted(folder.glob("*/captions.json")):
        for name, caption in json.loads(path.read_bytes()).items():
            pictures.append((caption, "image/png", (path.parent / f"{name}.png").read_bytes()))
    path = folder / "attention.json"
    return pictures, json.loads(path.read_bytes()) if path.exists() else []


def specs_at(scale: str, table: str | None, tables: Path) -> list[tuple[published.Spec, grid.Grid]]:
    """Tables of runs whose grid has this scale, with the grid. UserError where there is none."""
    specs = [published.load(name, tables) for name in ([table] if table else published.names(tables))]
    found = [(spec, grid.load(spec.grid)) for spec in specs if spec.grid]
    at_scale = [(s, chosen) for s, chosen in found if chosen.has_tables(scale)]
    if not at_scale:
        scales = dict.fromkeys(name for _, chosen in found for name in chosen.scales)
        raise UserError(f"no table of runs has a scale '{scale}'" + (nearest(scale, scales) if scales else ""))
    return at_scale


def output_folder(tables: Path, scale: str, changed: dict[str, Any]) -> Path:
    """Beside the scale's tables; what an override changed has a folder of its own."""
    return tables / scale / slug(changed) if changed else tables / scale
