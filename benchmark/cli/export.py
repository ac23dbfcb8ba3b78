"""export: what was measured, as files for other programs."""

import importlib.util
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

import benchmark
from benchmark.cli.common import RUNS, TABLES, Runs, Tables
from benchmark.errors import UserError, visible
from benchmark.matrix import grid
from benchmark.tables import published


class What(StrEnum):
    runs = "runs"
    epochs = "epochs"
    cells = "cells"


class Format(StrEnum):
    csv = "csv"
    json = "json"
    parquet = "parquet"


NEEDS = {Format.parquet: "pyarrow"}


def export(
    out: Annotated[Path, typer.Option("--out", help="The file to write")],
    what: Annotated[What, typer.Option("--what", help="A line a run, an epoch of a run, or a cell")] = What.runs,
    file_format: Annotated[Format, typer.Option("--format")] = Format.csv,
    scale: Annotated[
        str | None, typer.Option("--scale", help="Default: all; of cells: mini, or paper where there is no mini")
    ] = None,
    runs: Runs = RUNS,
    tables: Tables = TABLES,
) -> None:
    """Write runs, epochs or cells as a table for other programs."""
    import pandas as pd

    from benchmark.tables import render

    needed = NEEDS.get(file_format, "pandas")
    if importlib.util.find_spec(needed) is None:
        raise UserError(f"--format {file_format}: pip install {needed}, or take csv or json")
    if what == "cells":
        specs = [published.load(name, tables) for name in published.names(tables)]
        made = [benchmark.table(spec.name, scale, runs, tables) for spec in specs if is_made(spec, scale)]
        frames = [one.to_frame() for one in made]
    elif what == "epochs":
        listed = benchmark.runs(scale, runs)
        folders = zip(listed["scale"], listed["id"], strict=True) if len(listed) else ()
        frames = [benchmark.epochs(runs / at / job).assign(id=job, scale=at) for at, job in folders]
    else:
        frames = [benchmark.runs(scale, runs)]
    frame = pd.concat([one for one in frames if len(one)]) if any(map(len, frames)) else pd.DataFrame()
    if frame.empty:
        raise UserError(f"{runs}: holds nothing to export" + (f" at scale {scale}" if scale else ""))
    try:
        if file_format == "csv":
            text = frame.map(render.inert).rename(columns=render.inert).to_csv(index=False, lineterminator="\n")
            out.write_text(visible(text), encoding="utf-8")
        elif file_format == "json":
            frame.to_json(out, orient="records", indent=1)
        else:
            frame.to_parquet(out, index=False)
    except OSError as error:
        raise UserError(f"--out {out}: cannot be written ({error.strerror or error})") from None
    print(f"written: {out}, {len(frame)} lines")


def is_made(spec: published.Spec, scale: str | None) -> bool:
    """Whether it is a table of runs that exists at the scale."""
    if spec.grid is None:
        return False
    return scale is None or (spec.is_made_at(scale) and grid.load(spec.grid).has_tables(scale))
