"""Which tables there are, which scale has which, and how each is made: one answer for notebooks and for commands."""

import hashlib
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from benchmark.errors import UserError, nearest
from benchmark.matrix import grid, study
from benchmark.matrix.grid import Grid
from benchmark.matrix.job import IMAGENET1K_V1
from benchmark.matrix.matrix import Matrix
from benchmark.results import same_data
from benchmark.results.results import SINGLE_LABEL, Reader, Results
from benchmark.store.files import read_regular
from benchmark.tables import build, locks, published, summary
from benchmark.tables.cells import Table, TableOfRuns
from benchmark.tables.published import Spec


@dataclass(frozen=True)
class Asked:
    """What was asked of whichever grid.

    Args:
        scale: A name of a grid's scales.
        runs: Folder of the run folders.
        fields: Of every job, instead of the grid's.
        weights: A file of pretrained weights, or a folder of them.
        reader: What opens the run folders, each once.
    """

    scale: str
    runs: Path
    fields: dict[str, Any] = field(default_factory=dict)
    weights: Path | None = None
    reader: Reader = field(default_factory=Reader, compare=False, repr=False)

    def matrix(self, name: str, selection: dict[str, list[Any]] | None = None) -> Matrix:
        """The grid called `name` as asked. A field that has the asked value anyway is no override: it makes no table
        of its own."""
        chosen = grid.load(name)
        changed = overrides(chosen, self.scale, self.fields, self.weights)
        asked = Matrix(chosen, self.scale, changed, selection or {}, self.runs)
        as_it_is = asked.asked_otherwise(overrides={})
        return as_it_is if changed and asked.whole.jobs == as_it_is.whole.jobs else asked

    def results(self, name: str) -> Results:
        """What the runs of that matrix hold."""
        return Results.read(self.matrix(name), self.reader)


def overrides(chosen: Grid, scale: str, fields: dict[str, Any], weights: Path | None) -> dict[str, Any]:
    """The fields, with the weights' hash where the file is not the one that the grid names: other weights are other
    jobs."""
    if weights is not None and not weights.exists():
        raise UserError(f"--weights {weights}: no such file or folder")
    if weights is None or weights.is_dir() or "weights" in fields or scale not in chosen.scales:
        return dict(fields)
    declared = (chosen.base | chosen.scales[scale].set)["weights"]
    digest = hashlib.sha256(read_regular(weights) or b"").hexdigest()
    named = {f"sha256:{digest}"} | {
        "imagenet1k_v1" for name in IMAGENET1K_V1.values() if digest.startswith(name.rpartition("-")[2][:8])
    }
    return dict(fields) if declared in named else fields | {"weights": f"sha256:{digest}"}


def look_at(runs: Path) -> None:
    """Raise UserError where there is no folder of runs: a table of nothing would look like one of runs that failed."""
    if not runs.is_dir():
        raise UserError(f"{runs.absolute()}: no such folder; name that of the runs, with runs=, or --runs in a command")


def default_scale(runs: Path) -> str:
    """The scale that is meant where none is named: paper where it has run, else mini."""
    return "paper" if any((runs / "paper").glob("*/job.json")) else "mini"


def default_scale_of(spec: Spec, tables: Path) -> str:
    """The scale of a table where none is named: mini, or paper where it has no mini, or the first that it names."""
    scales = ["mini", "paper", *(spec.scales or ())]
    return next((scale for scale in scales if not why_not(spec, scale, tables)), "paper")


def _grids(spec: Spec) -> list[str]:
    """The grids that a table of runs or of words rests on; none for a headline, which rests on tables."""
    if spec.grid:
        return [spec.grid]
    return [] if spec.of_gains else [column.key for column in spec.columns]


def _parts(spec: Spec) -> list[str]:
    """The tables that a headline's rows name."""
    return list(dict.fromkeys(row.table for row in spec.rows if row.table))


def every(tables: Path) -> dict[str, Spec]:
    """All tables by name: those of the folder and, beside a study's own, the built-in ones."""
    return {name: published.load(name, tables) for name in published.every_name(tables)}


def of_grid(name: str, tables: Path) -> list[Spec]:
    """The tables of a grid's runs."""
    return [spec for spec in every(tables).values() if spec.grid == name]


def why_not(spec: Spec, scale: str, tables: Path) -> str:
    """Why a scale has no such table; empty where it has.

    Returns:
        A sentence for an error.
    """
    if spec.grid and scale in (chosen := grid.load(spec.grid)).scales and not chosen.has_tables(scale):
        return (
            f"scale '{scale}' of grid {spec.grid} puts readings side by side, and has no table {spec.name}; "
            f"'python -m benchmark sensitivity --grid {spec.grid} --scale {scale}' prints them"
        )
    if not spec.is_made_at(scale):
        if spec.scales is None:
            return f"table {spec.name}: none of its methods runs at scale '{scale}'"
        return f"table {spec.name} is made at scale {', '.join(spec.scales)}, not at '{scale}'"
    if spec.of_gains:
        parts = [published.load(name, tables) for name in _parts(spec)]
        none = all(why_not(part, scale, tables) for part in parts)
        return f"table {spec.name}: none of the tables that it is made of has a scale '{scale}'" if none else ""
    lacking = [name for name in _grids(spec) if scale not in grid.load(name).scales]
    if lacking:
        scales = grid.load(lacking[0]).scales
        return f"table {spec.name}: grid {lacking[0]} has no scale '{scale}'" + nearest(scale, scales)
    return ""


def build_table(
    spec: Spec, results: Results, tables: Path, data_root: Path | None = None, cache: Path = Path(".cache")
) -> TableOfRuns:
    """A table of runs; its departures say where these are of other data than lie here. UserError without a folder of
    runs."""
    look_at(results.matrix.runs)
    other = same_data.departure(same_data.others_of(results, data_root, cache))
    return build.build(spec, results, locks.read(base(results.matrix.grid, tables)), other_data=other)


def table_at(
    spec: Spec, asked: Asked, tables: Path, data_root: Path | None = None, cache: Path = Path(".cache")
) -> Table:
    """The table of runs, of other tables or of words that `spec` describes.

    Raises:
        UserError: The scale has no such table, as `why_not` says.
    """
    if problem := why_not(spec, asked.scale, tables):
        raise UserError(problem)
    if spec.grid:
        return build_table(spec, asked.results(spec.grid), tables, data_root, cache)
    if spec.of_gains:
        sources = sources_of(spec, asked, tables, data_root, cache)
        return summary.headline(spec, sources, asked.scale, locks.read(tables))
    return summary.protocol(spec, asked.scale, data_root, cache)


def sources_of(
    spec: Spec, asked: Asked, tables: Path, data_root: Path | None = None, cache: Path = Path(".cache")
) -> dict[str, TableOfRuns]:
    """The tables that a headline's rows name, by name, as their grids have them: those that have this scale."""
    plain = replace(asked, fields={}, weights=None)
    parts = [published.load(name, tables) for name in _parts(spec)]
    return {
        part.name: build_table(part, plain.results(part.grid), tables, data_root, cache)
        for part in parts
        if part.grid and not why_not(part, asked.scale, tables)
    }


def at_scale(asked: Asked, table: str | None, tables: Path) -> list[tuple[Spec, Matrix]]:
    """Tables of runs that the scale has, or the one named, each with its matrix. UserError where there is none."""
    if table:
        spec = published.load(table, tables)
        if spec.grid is None:
            raise UserError(f"table {table} is not of runs; name one of those that it is made of")
        if problem := why_not(spec, asked.scale, tables):
            raise UserError(problem)
        return [(spec, asked.matrix(spec.grid))]
    found = [spec for spec in shown(asked, tables) if spec.grid and not why_not(spec, asked.scale, tables)]
    if not found:
        grids = [grid.load(spec.grid) for spec in shown(asked, tables) if spec.grid]
        scales = dict.fromkeys(name for chosen in grids for name in chosen.scales)
        hint = nearest(asked.scale, scales) if scales else ""
        raise UserError(f"no table of runs has a scale '{asked.scale}'{hint}")
    return [(spec, asked.matrix(spec.grid)) for spec in found if spec.grid]


def shown(asked: Asked, tables: Path) -> list[Spec]:
    """The tables that are meant where none is named: those of the folder and, beside a study's own, the built-in ones
    of grids in which a method or network of the study has run."""
    own, specs = published.names(tables), every(tables)
    return [spec for name, spec in specs.items() if name in own or _has_run_beside(spec, asked)]


def _has_run_beside(spec: Spec, asked: Asked) -> bool:
    here = study.at_hand()
    if spec.grid is None or asked.scale not in grid.load(spec.grid).scales:
        return False
    jobs = asked.matrix(spec.grid).jobs
    beside = [job for job in jobs if job.method in here.own or job.backbone in here.backbones]
    return any((asked.runs / asked.scale / job.id).is_dir() for job in beside)


def first_of_each_grid(specs: list[Spec], tables: Path) -> list[Spec]:
    """A table of each grid: the one that the headline looks at, else the first."""
    abstract = claims_of_the_abstract(tables)
    asked_by = [row.table for row in abstract.rows] if abstract else []
    ranked = sorted((spec for spec in specs if spec.grid), key=lambda spec: spec.name not in asked_by)
    return list({spec.grid: spec for spec in reversed(ranked)}.values())


def headlines(tables: Path) -> list[Spec]:
    """The tables of other tables' gains."""
    specs = (published.load(name, tables) for name in published.names(tables))
    return [spec for spec in specs if spec.of_gains]


def claims_of_the_abstract(tables: Path) -> Spec | None:
    """The first of them, if there is one."""
    return next(iter(headlines(tables)), None)


def in_each_precision(results: Results) -> list[Results]:
    """As the scale has it, and in any other precision that its runs have: that is the machine's choice, no reading of
    the paper, so what was measured in it is not left out."""
    matrix = results.matrix
    found = {job.precision for job in results.reader.jobs(matrix.runs / matrix.scale)}
    others = sorted(found - {job.precision for job in matrix.jobs})
    return [results, *(results.asked_otherwise(overrides={"precision": other}) for other in others)]


def on_real_data(spec: Spec, runs: Path, tables: Path, cache: Path, reader: Reader) -> list[Table]:
    """A headline at each scale but mini, in each precision that ran there."""
    parts = [published.load(name, tables) for name in _parts(spec)]
    scales = dict.fromkeys(scale for name in grid.names() for scale in grid.load(name).scales if scale != "mini")
    by_run: dict[str, dict[str, TableOfRuns]] = {}  # by what was run, the tables that the headline's rows name
    for scale in scales:
        for part in (part for part in parts if part.grid and not why_not(part, scale, tables)):
            for results in in_each_precision(Asked(scale, runs, reader=reader).results(part.grid or "")):
                sources = by_run.setdefault(results.matrix.called, {})
                sources[part.name] = build_table(part, results, tables, None, cache)
    return [summary.headline(spec, sources, called, locks.read(tables)) for called, sources in by_run.items()]


def controls(runs: Path, tables: Path, reader: Reader) -> list[tuple[Spec, Results]]:
    """Every table of controls with its runs, at each scale but mini, in each precision that ran there."""
    found = []
    for spec in (published.load(name, tables) for name in published.names(tables)):
        if spec.grid is None or not spec.of_controls:
            continue
        for scale in grid.load(spec.grid).scales:
            if scale != "mini" and not why_not(spec, scale, tables):
                asked = Asked(scale, runs, reader=reader)
                found += [(spec, results) for results in in_each_precision(asked.results(spec.grid))]
    return found


def base(chosen: Grid, tables: Path) -> Path:
    """The folder for what is made of a grid's runs: that of the tables, but where it is a study's own, whose methods
    stand beside those of a built-in grid: what is made of these lies beside that grid's tables."""
    own = study.at_hand().folder
    beside = own is not None and tables == own / "tables" and not chosen.of_study
    return Path("tables") if beside else tables


def folder(matrix: Matrix, tables: Path) -> Path:
    """The folder for what is made of a matrix."""
    return base(matrix.grid, tables) / matrix.subfolder


def unshown(specs: list[Spec], matrix: Matrix, tables: Path) -> list[str]:
    """Ids of the matrix's jobs that are in no row of these tables."""
    made = [spec for spec in specs if not why_not(spec, matrix.scale, tables)]
    columns = {spec.name: {column.key for column in spec.columns} for spec in made}
    seen = {
        job.id
        for spec in made
        for row in spec.rows
        for job in matrix.whole.jobs_of(row.where)
        if job.method in columns[spec.name]
    }
    return [job.id for job in matrix.jobs if job.id not in seen]


def refuse_unmeasured(specs: list[Spec], matrix: Matrix, tables: Path) -> None:
    """Raise UserError for a row whose number the runs of its jobs do not hold: top-1 of several labels an image, or
    average precision of one."""
    for spec in (spec for spec in specs if not why_not(spec, matrix.scale, tables)):
        for row in spec.rows:
            item = row.item or row.key
            losses = {job.loss for job in matrix.jobs_of(row.where)}
            of_one_label = item in SINGLE_LABEL
            wrong = "multilabel_soft_margin" if of_one_label else "cross_entropy"
            if losses == {wrong}:
                what = "mAP, or a class" if of_one_label else " or ".join(SINGLE_LABEL)
                raise UserError(
                    f"{published.file(spec.name, tables)}: row '{row.key}': runs with loss {wrong} have no "
                    f"'{item}'; its item is {what}, as 'item: {what.split(',')[0].split(' ')[0]}'"
                )
