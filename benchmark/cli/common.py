"""What the commands share: their options, what these mean as jobs, and tables as they are written and printed."""

import hashlib
import re
import shutil
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import typer

from benchmark.errors import UserError, visible
from benchmark.matrix import grid, strict_yaml
from benchmark.matrix.grid import Grid
from benchmark.matrix.job import IMAGENET1K_V1, Job
from benchmark.matrix.matrix import Matrix
from benchmark.store.files import read_regular, write_atomic
from benchmark.tables import published
from benchmark.tables.cells import Table


def home(path: Path | None) -> Path | None:
    """`~` as the shell means it, which leaves it in `--runs=~/x`."""
    return path.expanduser() if path else path


def _tables(folder: Path) -> Path:
    """The study's own, where it has them and no other was named."""
    return published.of_study(folder).expanduser()


GridName = Annotated[str, typer.Option("--grid", help="A file of benchmark/grids, without .yaml")]
ScaleName = Annotated[
    str, typer.Option("--scale", help="A scale of the grid; auto: paper where the data are, else mini")
]
Set = Annotated[list[str] | None, typer.Option("--set", help="key=value, overrides a field of every job (repeatable)")]
Only = Annotated[list[str] | None, typer.Option("--only", help="key=value[,key=value]: only these jobs")]
DataRoot = Annotated[
    Path | None, typer.Option("--data-root", help="Folder of the real data; mini data needs none", callback=home)
]
Weights = Annotated[
    Path | None, typer.Option("--weights", "--weights-dir", help="Pretrained weights: file, or folder", callback=home)
]
AllowPartial = Annotated[
    bool, typer.Option("--allow-partial", help="Use what is there of data that are not whole; sets partial=true")
]
AllowOverlap = Annotated[
    bool, typer.Option("--allow-overlap", help="Test on images that are trained on too; sets overlap=true")
]
Runs = Annotated[Path, typer.Option("--runs", help="Folder of the run records", callback=home)]
Tables = Annotated[
    Path, typer.Option("--tables", help="Folder of the table files, and of what is generated", callback=_tables)
]
Cache = Annotated[Path, typer.Option("--cache", help="Folder for drawn data and decoded images", callback=home)]
Wide = Annotated[bool, typer.Option("--wide", help="Print whole tables, wider than the terminal if need be")]
AsJson = Annotated[bool, typer.Option("--json", help="Machine-readable output")]
MeasuredScale = Annotated[str | None, typer.Option("--scale", help="Default: paper, or mini where no paper run is")]

RUNS, TABLES, CACHE = Path("runs"), Path("tables"), Path(".cache")


def resolve_scale(
    grid_name: str, scale: str, data_root: Path | None, cache: Path, allow_partial: bool = False
) -> tuple[Grid, str, str]:
    """The grid, its scale and why that one; auto looks whether the real data set is complete under `data_root`.

    UserError where it is not, and a part was not allowed: who names real data wants no drawn ones.
    """
    chosen = grid.load(grid_name)
    if scale != "auto":
        return chosen, scale, chosen.scale_of(scale).why
    dataset = chosen.base["dataset"]
    if chosen.data or "mini" not in chosen.scales:
        return chosen, "paper", chosen.scale_of("paper").why
    if data_root is None:
        return (
            chosen,
            "mini",
            f"no data root is given (--data-root, make: DATA=), so no {dataset}; embedded data instead",
        )
    from benchmark.data import not_whole, verified

    problem = verified(dataset, data_root, cache)
    if problem and not allow_partial:
        raise UserError(not_whole(dataset, data_root, problem))
    return chosen, "paper", f"{dataset} is {'not ' if problem else ''}complete under {data_root}"


def overrides(chosen: Grid, scale: str, sets: list[str] | None, weights: Path | None) -> dict[str, Any]:
    """--set and --weights as fields. A weights file that is not the one the grid names makes other jobs."""
    changed: dict[str, Any] = {}
    for text in sets or []:
        key, equals, value = text.partition("=")
        if not equals:
            raise UserError(f"--set {text}: expected key=value")
        changed[key.strip()] = strict_yaml.scalar(value)
    if weights is not None and not weights.exists():
        raise UserError(f"--weights {weights}: no such file or folder")
    if weights is None or weights.is_dir() or "weights" in changed or scale not in chosen.scales:
        return changed
    declared = (chosen.base | chosen.scales[scale].set)["weights"]
    digest = hashlib.sha256(read_regular(weights) or b"").hexdigest()
    named = {f"sha256:{digest}"} | {
        "imagenet1k_v1" for name in IMAGENET1K_V1.values() if digest.startswith(name.rpartition("-")[2][:8])
    }
    return changed if declared in named else changed | {"weights": f"sha256:{digest}"}


def duration(option: str, text: str) -> float:
    """Seconds of `90s`, `10m` or `2h`."""
    match = re.fullmatch(r"([1-9][0-9]{0,5})([smh])", text)
    if not match:
        raise UserError(f"{option} {text}: expected a whole number and a unit, as 90s, 10m or 2h")
    return int(match[1]) * {"s": 1, "m": 60, "h": 3600}[match[2]]


def selection(only: list[str] | None) -> dict[str, list[Any]]:
    chosen: dict[str, list[Any]] = {}
    for pair in ",".join(only or []).split(","):
        key, equals, value = pair.partition("=")
        if equals:
            wanted = strict_yaml.scalar(value)
            if isinstance(wanted, list | dict):
                raise UserError(f"--only {pair}: expected one value; several are --only {key}=a,{key}=b")
            chosen.setdefault(key.strip(), []).append(wanted)
        elif pair.strip():
            raise UserError(f"--only {pair}: expected key=value[,key=value]")
    return chosen


@dataclass(frozen=True)
class Asked:
    """What a command was asked of whichever grid: the scale, --set, --weights, and where the runs are."""

    scale: str
    sets: list[str] | None
    weights: Path | None
    runs: Path

    def matrix(self, name: str, only: list[str] | None = None) -> Matrix:
        """What is set to the value that it has there anyway is no override, and makes no table of its own."""
        chosen = grid.load(name)
        changed = overrides(chosen, self.scale, self.sets, self.weights)
        asked = Matrix(chosen, self.scale, changed, selection(only), self.runs)
        as_it_is = asked.asked_otherwise(overrides={})
        return as_it_is if changed and asked.whole.jobs == as_it_is.whole.jobs else asked


def of_what_is_there(
    asked: Asked, name: str, only: list[str] | None, data_root: Path | None, cache: Path, allow_partial: bool,
    allow_overlap: bool = False,
) -> Asked:  # fmt: skip
    """What was asked of a grid, with partial=true beside it where its data are not whole, and overlap=true where images
    are trained on and tested on. UserError where that was not allowed."""
    from benchmark import data

    jobs = asked.matrix(name, only).jobs
    seen = look_at_data(jobs, data_root, cache)
    for dataset, missing in seen.lacking.items():
        if not (allow_partial or all(job.partial for job in jobs)):
            raise UserError(data.not_whole(dataset, data.locate(dataset, data_root, cache), missing))
        print(f"note: {dataset} is used as far as it is there ({missing}); tables say so", file=sys.stderr)
    for dataset, shared in seen.overlapping.items():
        if not (allow_overlap or all(job.overlap for job in jobs)):
            raise UserError(data.trained_and_tested(dataset, data.locate(dataset, data_root, cache), shared))
        print(f"note: {dataset}: {shared}; tables say so", file=sys.stderr)
    found = [("partial=true", seen.lacking), ("overlap=true", seen.overlapping)]
    sets = [field for field, where in found if where]
    return replace(asked, sets=[*(asked.sets or []), *sets]) if sets else asked


class Seen(NamedTuple):
    """What is to be told of data sets, by name: what they lack, by counts, else what is not official in them; and which
    images are both trained on and tested on."""

    lacking: dict[str, str]
    overlapping: dict[str, str]


def look_at_data(jobs: list[Job], data_root: Path | None, cache: Path) -> Seen:
    """Look at what the jobs will read before any of them trains. What is drawn is drawn, what a
    reader notes is printed.

    Raises:
        UserError: data cannot be read; splits have other classes, or nothing to tell apart;
            labels or limits do not fit.
    """
    from benchmark import data

    lacking: dict[str, str] = {}
    overlapping: dict[str, str] = {}
    notes: dict[str, None] = {}
    for key in dict.fromkeys(map(_read_by, jobs)):
        name, seed, *splits = key
        root = data.locate(name, data_root, cache)
        (train, test), missing = data.present(name, root, splits, seed)
        if not missing and data.find(name).source and set(splits) & set(data.find(name).num_images):
            missing = data.verified(name, root, cache)
        lacking |= {name: missing} if missing else {}
        shared = data.overlap(name, splits, [train, test])
        overlapping |= {name: shared} if shared else {}
        data.comparable(name, root, train, test)
        noted = [
            f"note: {name}, {split}: {of.note}" for split, of in zip(splits, (train, test), strict=True) if of.note
        ]
        notes |= dict.fromkeys(noted)
        for job in (job for job in jobs if _read_by(job) == key):
            if (train.targets.ndim == 2) != (job.loss == "multilabel_soft_margin"):
                labels = "several labels" if train.targets.ndim == 2 else "one label"
                raise UserError(f"{name} gives an image {labels}, which is not for loss: {job.loss}")
            data.within(job, train, test)
    for note in notes:
        print(note, file=sys.stderr)
    return Seen(lacking, overlapping)


def _read_by(job: Job) -> tuple[str, int, str, str]:
    """What the images that a job reads hang on."""
    return job.dataset, job.seed, job.train_split, job.test_split


def measured(scale: str | None, sets: list[str] | None, weights: Path | None, runs: Path) -> Asked:
    """Of what has run: without a scale, paper where paper runs are, else mini."""
    return Asked(scale or default_scale(runs), sets, weights, runs)


def build_table(
    spec: published.Spec, matrix: Matrix, tables: Path, data_root: Path | None = None, cache: Path = CACHE
) -> Table:
    from benchmark.tables import at_hand, build, locks

    other = at_hand.told(at_hand.others(matrix.jobs, matrix.runs, data_root, cache))
    built = build.build(spec, matrix, locks.read(tables), other_data=other)
    for warning in built.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    return built


def render_tables(
    specs: list[published.Spec], asked: Asked, data_root: Path | None, tables: Path, cache: Path, again: bool = False,
    wide: bool = False, blank: bool = True,
) -> None:  # fmt: skip
    """Write and print the tables of `specs` that exist at the scale, and the readings that it puts side by side. An
    overridden matrix has a folder of its own inside its scale's. again: also in place of a table of more runs. wide:
    print the whole of each, else what fits the terminal. blank: also those of an overridden matrix that nothing ran of.
    """
    from benchmark.tables import render

    for name in dict.fromkeys(spec.grid for spec in specs if spec.grid):
        if asked.scale in (chosen := grid.load(name)).scales and not chosen.has_tables(asked.scale):
            print_readings(asked.matrix(name), tables)
    for spec in specs:
        if len(specs) == 1 and not spec.is_made_at(asked.scale):
            if spec.scales is None:
                raise UserError(f"table {spec.name}: none of its methods runs at scale '{asked.scale}'")
            raise UserError(f"table {spec.name} is made at scale {', '.join(spec.scales)}, not at '{asked.scale}'")
        built = table_at(spec, asked, data_root, tables, cache)
        if built is None or (not blank and nothing_ran(built)):
            continue
        folder = built.matrix.subfolder if built.matrix else Path(asked.scale)
        paths = render.write(built, tables / folder, again)
        kept = f"kept: {tables / folder / spec.name}.*, which are of more runs; 'tables --replace' writes these"
        told = f"written: {one_name(paths)}" if paths else kept
        width = None if wide else shutil.get_terminal_size().columns
        print(f"\n{render.terminal(built, width)}\n\n{told}")


def nothing_ran(table: Table) -> bool:
    """Whether it is of an overridden matrix and has no more than the scale's table."""
    overridden = table.matrix is not None and table.matrix.overrides
    return bool(overridden) and all(cell.status in ("not run", "published") for cell in table.cells.values())


def one_name(paths: list[Path]) -> str:
    """`tables/mini/table2.{md,tex}` for files that differ in their ending."""
    return f"{paths[0].with_suffix('')}.{{{','.join(path.suffix[1:] for path in paths)}}}"


def table_at(spec: published.Spec, asked: Asked, data_root: Path | None, tables: Path, cache: Path) -> Table | None:
    """The table of runs, of other tables or of words that `spec` describes; None where the scale has no such table."""
    from benchmark.tables import locks, summary

    if not spec.is_made_at(asked.scale):
        return None
    if spec.grid:
        has = grid.load(spec.grid).has_tables(asked.scale)
        return build_table(spec, asked.matrix(spec.grid), tables, data_root, cache) if has else None
    if spec.of_gains:
        by_name = sources_of(spec, asked, data_root, tables, cache)
        return summary.headline(spec, by_name, asked.scale, locks.read(tables)) if by_name else None
    if all(grid.load(column.key).has_tables(asked.scale) for column in spec.columns):
        return summary.protocol(spec, asked.scale, data_root, cache)
    return None


def sources_of(
    spec: published.Spec, asked: Asked, data_root: Path | None, tables: Path, cache: Path
) -> dict[str, Table]:
    """The tables that a headline's rows name, by name, as their grids have them: those that have this scale."""
    plain = replace(asked, sets=None, weights=None)
    names = dict.fromkeys(row.table for row in spec.rows if row.table)
    parts = [published.load(name, tables) for name in names]
    return {p.name: built for p in parts if (built := table_at(p, plain, data_root, tables, cache))}


def print_readings(matrix: Matrix, tables: Path) -> None:
    """Write and print the scale's readings of the method side by side."""
    from benchmark.evidence import sensitivity

    lines = sensitivity.readings(matrix)
    path = tables / matrix.subfolder / f"{matrix.grid.name}-readings.md"
    told = f"kept: {path}, since nothing has run here"
    if any(line["n"] for line in lines) or not path.exists():
        write_atomic(path, visible(sensitivity.readings_text(matrix, lines, "pipe")).encode())
        told = f"written: {path}"
    print(f"\n{sensitivity.readings_text(matrix, lines, 'simple')}\n{told}")


def default_scale(runs: Path) -> str:
    return "paper" if any((runs / "paper").glob("*/job.json")) else "mini"


def texts(rows: list[dict[str, Any]], decimals: int = 2) -> list[dict[str, Any]]:
    """Rows for print_rows: numbers rounded, and a dash for what is not there."""
    return [
        {k: f"{v:.{decimals}f}" if isinstance(v, float) else ("–" if v is None else v) for k, v in row.items()}
        for row in rows
    ]


def print_rows(rows: list[dict[str, Any]], keys: tuple[str, ...]) -> None:
    from tabulate import tabulate

    if rows:
        print(
            tabulate(
                [[row[key] for key in keys] for row in rows], headers=keys, tablefmt="simple", disable_numparse=True
            )
        )
