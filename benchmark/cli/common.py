"""What the commands share: their options, what these mean as jobs, and tables as they are written and printed."""

import re
import shlex
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import typer

from benchmark.errors import UserError, visible
from benchmark.matrix import grid, strict_yaml, study
from benchmark.matrix.grid import Grid
from benchmark.matrix.job import BACKBONES, Job
from benchmark.matrix.matrix import as_yaml
from benchmark.results.results import Reader, Results
from benchmark.store.files import write_atomic
from benchmark.tables import catalogue, published
from benchmark.tables.catalogue import Asked
from benchmark.tables.cells import Table, TableOfRuns


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


def fields(sets: list[str] | None) -> dict[str, Any]:
    """--set as fields of every job."""
    changed: dict[str, Any] = {}
    for text in sets or []:
        key, equals, value = text.partition("=")
        if not equals:
            raise UserError(f"--set {text}: expected key=value")
        changed[key.strip()] = strict_yaml.scalar(value)
    return changed


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


def asked(scale: str, sets: list[str] | None, weights: Path | None, runs: Path, reader: Reader | None = None) -> Asked:
    """What a command was asked of whichever grid. reader: what opens run folders for all of it."""
    return Asked(scale, runs, fields(sets), weights, reader or Reader())


def of_what_is_there(
    asked: Asked, name: str, only: list[str] | None, data_root: Path | None, cache: Path, allow_partial: bool,
    allow_overlap: bool = False,
) -> Asked:  # fmt: skip
    """What was asked of a grid, with partial=true beside it where its data are not whole, and overlap=true where images
    are trained on and tested on. UserError where that was not allowed."""
    from benchmark import data

    jobs = asked.matrix(name, selection(only)).jobs
    seen = look_at_data(jobs, data_root, cache)
    for dataset, missing in seen.lacking.items():
        if not (allow_partial or all(job.partial for job in jobs)):
            raise UserError(data.not_whole(dataset, data.locate(dataset, data_root, cache), missing))
        print(f"note: {dataset} is used as far as it is there ({missing}); tables say so", file=sys.stderr)
    for dataset, shared in seen.overlapping.items():
        if not (allow_overlap or all(job.overlap for job in jobs)):
            raise UserError(data.trained_and_tested(dataset, data.locate(dataset, data_root, cache), shared))
        print(f"note: {dataset}: {shared}; tables say so", file=sys.stderr)
    found = {"partial": seen.lacking, "overlap": seen.overlapping}
    fields = {name: True for name, where in found.items() if where}
    return replace(asked, fields=asked.fields | fields) if fields else asked


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
    kinds: dict[tuple[str, int], tuple[Job, int]] = {}  # seeds are trained alike
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
            kinds[job.model_copy(update={"seed": 0}).canonical_json(), len(train.ids)] = job, len(train.classes)
    for (_, num_images), (job, num_classes) in kinds.items():
        refuse_what_cannot_train(job, num_images, num_classes)
    for note in notes:
        print(note, file=sys.stderr)
    return Seen(lacking, overlapping)


def refuse_what_cannot_train(job: Job, num_images: int, num_classes: int) -> None:
    """UserError where it is known before training that the job's network and batches do not go together; torch is
    imported only where that takes a look at the network."""
    from benchmark.train.batch_sizes import smallest_batch

    if job.backbone not in BACKBONES or smallest_batch(job, num_images) == 1:
        from benchmark.train import before

        before.refuse_single_values(job, num_images, num_classes)
        before.refuse_network(job, num_classes)


def _read_by(job: Job) -> tuple[str, int, str, str]:
    """What the images that a job reads hang on."""
    return job.dataset, job.seed, job.train_split, job.test_split


def measured(
    scale: str | None, sets: list[str] | None, weights: Path | None, runs: Path, reader: Reader | None = None
) -> Asked:
    """Of what has run: without a scale, paper where paper runs are, else mini."""
    return asked(scale or catalogue.default_scale(runs), sets, weights, runs, reader)


@contextmanager
def opened_runs() -> Iterator[Reader]:
    """What opens run folders for a command, each once. In the end each damaged file is named once."""
    reader = Reader()
    try:
        yield reader
    finally:
        for warning in reader.warnings:
            print(f"warning: {warning}", file=sys.stderr)


def warn_of_unverified(reader: Reader) -> None:
    """Where a command prints no notes, which name these."""
    for run, why in reader.unverified.items():
        print(f"warning: {run}: unverified: {why}", file=sys.stderr)


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
            print_readings(asked.results(name), tables)
    for spec in specs:
        if catalogue.why_not(spec, asked.scale, tables):
            continue
        built = catalogue.table_at(spec, asked, tables, data_root, cache)
        if not blank and nothing_ran(built):
            continue
        folder = catalogue.folder(built.matrix, tables) if isinstance(built, TableOfRuns) else tables / asked.scale
        paths = render.write(built, folder, again)
        instead = replace_command(spec, asked, tables)
        kept = f"kept: {folder / spec.name}.*, which are of more runs; these instead: {instead}"
        told = f"written: {one_name(paths)}" if paths else kept
        width = None if wide else shutil.get_terminal_size().columns
        print(f"\n{render.terminal(built, width)}\n\n{told}")


def replace_command(spec: published.Spec, asked: Asked, tables: Path) -> str:
    """The line that writes a table in place of one of more runs."""
    words = ["python", "-m", "benchmark", "tables", "--table", spec.name, "--scale", asked.scale, "--replace"]
    for name, value in asked.fields.items():
        words += ["--set", f"{name}={as_yaml(value)}"]
    words += ["--weights", str(asked.weights)] if asked.weights else []
    words += ["--runs", str(asked.runs)] if asked.runs != RUNS else []
    own = study.at_hand().folder
    words += ["--tables", str(tables)] if tables not in (TABLES, own and own / "tables") else []
    return shlex.join([*words, *(["--study", str(own)] if own else [])])


def nothing_ran(table: Table) -> bool:
    """Whether it is of an overridden matrix and has no more than the scale's table."""
    overridden = isinstance(table, TableOfRuns) and table.matrix.overrides
    return bool(overridden) and all(cell.status in ("not run", "published") for cell in table.cells.values())


def one_name(paths: list[Path]) -> str:
    """`tables/mini/table2.{md,tex}` for files that differ in their ending."""
    return f"{paths[0].with_suffix('')}.{{{','.join(path.suffix[1:] for path in paths)}}}"


def print_readings(results: Results, tables: Path) -> None:
    """Write and print the scale's readings of the method side by side."""
    from benchmark.evidence import sensitivity

    matrix, lines = results.matrix, sensitivity.readings(results)
    path = catalogue.folder(matrix, tables) / f"{matrix.grid.name}-readings.md"
    told = f"kept: {path}, since nothing has run here"
    if any(line["n"] for line in lines) or not path.exists():
        write_atomic(path, visible(sensitivity.readings_text(matrix, lines, "pipe")).encode())
        told = f"written: {path}"
    print(f"\n{sensitivity.readings_text(matrix, lines, 'simple')}\n{told}")


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
