"""export: what was measured, as files for other programs."""

import importlib.util
import json
import types
import typing
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

import benchmark
from benchmark.cli.common import RUNS, TABLES, Runs, Tables
from benchmark.errors import UserError, visible
from benchmark.matrix.job import Job
from benchmark.tables import catalogue, published


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

    needed = NEEDS.get(file_format, "pandas")
    if importlib.util.find_spec(needed) is None:
        raise UserError(f"--format {file_format}: pip install {needed}, or take csv or json")
    catalogue.look_at(runs)
    if what == "cells":
        made = [
            benchmark.table(spec.name, scale, runs, tables)
            for spec in catalogue.shown(catalogue.Asked(scale or "mini", runs), tables)
            if spec.grid and not catalogue.why_not(spec, scale or _usual_scale(spec, tables), tables)
        ]
        lines = [line for one in made for line in one.records()]
    elif what == "epochs":
        listed = benchmark.runs(scale, runs)
        folders = list(zip(listed["scale"], listed["id"], strict=True))
        frames = [benchmark.epochs(runs / at / job).assign(id=job, scale=at) for at, job in folders]
        lines = [line for frame in frames for line in frame.to_dict("records")]
    else:
        lines = benchmark.runs(scale, runs).to_dict("records")
    if not lines:
        raise UserError(f"{runs}: holds nothing to export" + (f" at scale {scale}" if scale else ""))
    kinds = kinds_of(what, lines)
    try:
        write(out, file_format, kinds, [{name: plain(line.get(name), kinds[name]) for name in kinds} for line in lines])
    except OSError as error:
        raise UserError(f"--out {out}: cannot be written ({error.strerror or error})") from None
    print(f"written: {out}, {len(lines)} lines")


def _usual_scale(spec: published.Spec, tables: Path) -> str:
    """mini, or paper where there is no mini."""
    return "paper" if catalogue.why_not(spec, "mini", tables) else "mini"


def kinds_of(what: str, lines: list[dict[str, Any]]) -> dict[str, str]:
    """The columns and what each holds, of which only an epoch's loss terms depend on the lines: files of the same kind
    can be put below each other, whatever ran.

    Returns:
        By column its kind: `text`, `whole` (numbers), `number`, `truth`, `numbers` or `texts` (lists).
    """
    if what == "cells":
        return CELLS
    if what == "epochs":
        terms = dict.fromkeys(name for line in lines for name in line if name not in EPOCHS)
        return EPOCHS | dict.fromkeys(terms, "number")
    fields = {name: _kind(about.annotation) for name, about in Job.model_fields.items()}
    return {"id": "text", "scale": "text", "state": "text"} | fields | RESULTS


RESULTS = {
    "mAP": "number", "num_classes": "text", "mAP (all classes)": "number", "top1": "number", "top5": "number",
    "seconds": "number",
}  # fmt: skip
EPOCHS = {
    "id": "text", "scale": "text", "epoch": "whole", "test_mAP": "number", "test_top1": "number", "seconds": "number"
}  # fmt: skip
CELLS = (
    dict.fromkeys(("table", "scale", "row", "column"), "text")
    | dict.fromkeys(("published", "mean", "std"), "number")
    | {"n": "whole"}
    | dict.fromkeys(("low", "high", "delta", "gain", "gain_low", "gain_high"), "number")
    | {"gain_over": "text", "published_gain": "number", "published_over": "whole", "crosses": "truth"}
    | {"status": "text", "comparable": "truth"}
    | dict.fromkeys(("verdict", "gain_verdict", "order_verdict"), "text")
    | {"values": "numbers", "runs": "texts"}
)


def _kind(annotation: Any) -> str:
    """Of a field of Job."""
    while typing.get_origin(annotation) is Annotated:
        annotation = typing.get_args(annotation)[0]
    origin = typing.get_origin(annotation)
    if origin in (typing.Union, types.UnionType):
        known = [each for each in typing.get_args(annotation) if each is not type(None)]
        return _kind(known[0])
    if origin is tuple:
        return "numbers"
    if origin is Literal:
        return "text"
    return {bool: "truth", int: "whole", float: "number"}.get(annotation, "text")


def plain(value: Any, kind: str) -> Any:
    """A value as JSON has it, with every digit; a mapping, as of options, as its JSON text."""
    if isinstance(value, dict):
        return json.dumps(value, sort_keys=True)
    if kind in ("numbers", "texts"):
        is_list = isinstance(value, list | tuple)
        return [plain(each, kind.removesuffix("s")) for each in value] if is_list else None
    if value is None or value != value:  # a frame has NaN where a run has no such number
        return None
    return {"whole": int, "number": float, "truth": bool}.get(kind, str)(value)


def write(out: Path, file_format: Format, kinds: dict[str, str], lines: list[dict[str, Any]]) -> None:
    """The lines as a file, each column of its kind whatever it holds."""
    import pandas as pd

    from benchmark.tables import render

    if file_format == "json":
        out.write_text(visible(json.dumps(lines, indent=1, ensure_ascii=False)) + "\n", encoding="utf-8")
        return
    dtypes = {"text": "object", "whole": "Int64", "number": "Float64", "truth": "boolean"}
    columns = {
        name: pd.Series([line[name] for line in lines], dtype=dtypes.get(kind, "object"))
        for name, kind in kinds.items()
    }
    frame = pd.DataFrame(columns)
    if file_format == "csv":
        lists = [name for name, kind in kinds.items() if kind in ("numbers", "texts")]
        frame = frame.assign(**{name: frame[name].map(json.dumps, na_action="ignore") for name in lists})
        text = frame.map(render.inert).rename(columns=render.inert).to_csv(index=False, lineterminator="\n")
        out.write_text(visible(text), encoding="utf-8")
        return
    import pyarrow as arrow

    arrows = {
        "text": arrow.string(), "whole": arrow.int64(), "number": arrow.float64(), "truth": arrow.bool_(),
        "numbers": arrow.list_(arrow.float64()), "texts": arrow.list_(arrow.string()),
    }  # fmt: skip
    frame.to_parquet(out, index=False, schema=arrow.schema([(name, arrows[kind]) for name, kind in kinds.items()]))
