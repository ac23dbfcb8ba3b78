"""A grid's YAML becomes a list of jobs: axes, ties, exclusions, scales, assumptions, overrides."""

import hashlib
import itertools
from collections.abc import Iterator
from functools import cache, cached_property, lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, ValidationError

from benchmark.errors import UserError, nearest
from benchmark.matrix import strict_yaml, study
from benchmark.matrix.job import (
    BACKBONES,
    FIELDS,
    METHOD_DEFAULTS,
    Float,
    Int,
    Job,
    Name,
    explain,
    first_problem,
    in_job,
    make_job,
    settable,
    unread_fields,
)

GRIDS = Path(__file__).parents[1] / "grids"
MINI_WEIGHTS = Path(__file__).parents[1] / "mini_weights"  # <backbone>.safetensors

# Which images a job takes of the data set; the paper takes all.
OF_DATA = ("limit_train", "limit_test", "partial", "overlap")
# What is decided outside of a job: when tables are made from saved scores, or by a loader.
EVALUATION = {
    "ap_definition": ("area", "raw_area", "11_point"),
    "difficult_test": ("ignored",),
    "checkpoint": ("last_epoch",),
    "small_categories": ("all_remaining",),  # decided by the Caltech-256 loader
}


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Assumption(_Strict):
    """What the paper leaves open: the value used here, what else it could be, and why this one."""

    value: Any
    alternatives: list[Any]
    why: str


class Plan(_Strict):
    """Declaration of how a scale's gains are read, made before its first run and written down by `lock`: at these
    numbers of seeds alone, at their level, for each set of fields that is a table of its own."""

    looks: list[Annotated[Int, Field(ge=2)]] = Field(min_length=1)
    variants: list[dict[str, Any]] = [{}]


class Scale(_Strict):
    """A named overlay: axes and fields that differ from the paper's protocol, and why its cells cannot be compared.

    `stand_ins` replaces values of axes by smaller ones; a table's row for the one shows the other, and says so.
    `readings`: sets of fields, of which each repeats the matrix, so that readings of the paper can be compared.
    `min_positives`: classes with fewer images in either split are left out of tables, and of mAP.
    `plan`: at what numbers of seeds its gains may be read, declared before any run.
    `looks_taken`: methods to which seeds were added after a look, and the numbers of seeds at which their gain was
    looked at; its interval is that of so many looks.
    """

    why: str
    axes: dict[str, list[Any]] = {}
    set: dict[str, Any] = {}
    stand_ins: dict[str, str] = {}
    readings: list[dict[str, Any]] = []
    min_positives: int = 1
    plan: Plan | None = None
    looks_taken: dict[str, list[Int]] = {}


class Data(_Strict):
    """Images of a study's own (data/own.py reads them). path: from the study's folder. classes: none named are those
    found. splits: shares of each class's images, drawn by the job's seed; none are those that the data name."""

    layout: Literal["imagefolder", "voc", "csv"]
    path: str
    classes: list[str] = []
    splits: dict[Name, Annotated[Float, Field(gt=0, le=1)]] = {}
    multi_label: bool = False  # csv: several labels an image, with semicolons between


WHOLE = Scale(why="the protocol as the grid states it")


class Grid(_Strict):
    """One file of benchmark/grids, checked. subject: what its paper is about. options: of a method, by their names,
    where they are not its defaults."""

    name: str
    title: str
    subject: str = "the paper"
    protocol: dict[str, Any]
    axes: dict[str, list[Any]]
    ties: list[dict[str, list[Any]]] = []
    exclude: list[dict[str, Any]] = []
    scales: dict[str, Scale] = {"paper": WHOLE}
    assumptions: dict[str, Assumption] = {}
    data: Data | None = None
    of_study: bool = False  # whether it lies in the folder of --study
    options: dict[str, dict[str, Any]] = {}
    # What `_made` made, by grid (a copy of one shares this), study and what was asked; the grid, so that it lives on.
    _known: dict[tuple[int, study.Study, str], tuple["Grid", list[Job]]] = PrivateAttr(default_factory=dict)

    @cached_property
    def base(self) -> dict[str, Any]:
        """The paper's protocol with every assumption at its default."""
        assumed = {k: a.value for k, a in self.assumptions.items() if k in settable()}
        defaults = {name: field.default for name, field in Job.model_fields.items() if not field.is_required()}
        defaults |= METHOD_DEFAULTS
        if self.data and self.data.layout != "voc":  # alone in marking objects as difficult
            defaults["difficult_train"] = "positive"
        return defaults | self.protocol | assumed | self.scale_of("paper").set

    def scale_of(self, name: str) -> Scale:
        if name not in self.scales:
            raise UserError(f"grid {self.name} has no scale '{name}'" + nearest(name, self.scales))
        return self.scales[name]

    def has_tables(self, scale: str) -> bool:
        """Whether the paper's tables can be made at `scale`: readings side by side have a table of their own."""
        return scale in self.scales and not self.scales[scale].readings

    def matrix_axes(self, scale: str) -> dict[str, list[Any]]:
        """The axes at `scale`, stand-ins in their places."""
        overlay = self.scale_of(scale)
        axes = self.axes | overlay.axes
        axes = {k: [overlay.stand_ins.get(v, v) if isinstance(v, str) else v for v in axes[k]] for k in axes}
        if not self.of_study and "method" in axes:  # a study's methods stand beside those of a built-in grid
            axes["method"] = [*axes["method"], *study.at_hand().own]
        return axes

    def jobs(
        self,
        scale: str,
        overrides: dict[str, Any] | None = None,
        only: dict[str, list[Any]] | None = None,
        readings: list[dict[str, Any]] | None = None,
    ) -> list[Job]:
        """The matrix: product of the axes, ties applied, exclusions and `only` taken out. Order is the YAML's. It is
        repeated for each of the scale's readings, or of those given.

        An override of an axis replaces the axis; an override of a field wins over scale, tie and assumption.
        """
        overrides, only = overrides or {}, only or {}
        source = f"grid {self.name}, scale {scale}"
        for key in [*overrides, *only]:
            if key not in settable():
                raise UserError(f"{source}: unknown field '{key}'" + nearest(key, settable()))
        jobs = self._made(scale, overrides, readings or self.scale_of(scale).readings or [{}], source)
        stand_ins = self.scale_of(scale).stand_ins
        # `--only backbone=resnet18` means the network's stand-in where the scale has one.
        only = {k: [*v, *(stand_ins[x] for x in v if isinstance(x, str) and x in stand_ins)] for k, v in only.items()}
        selected = [j for j in jobs if all(j.value(k) in v for k, v in only.items())]
        for key, values in only.items():
            known = sorted({str(j.value(key)) for j in jobs})
            for value in values:
                if str(value) not in known and value not in stand_ins:
                    raise UserError(f"{source}: no job has {key}={value}" + nearest(value, known))
        return selected

    def _made(
        self, scale: str, overrides: dict[str, Any], readings: list[dict[str, Any]], source: str
    ) -> list[Job]:  # fmt: skip
        """All of them. A table asks for the same ones many times: they are made once for each study at hand."""
        asked_for = id(self), study.at_hand(), repr((scale, overrides, readings))
        if asked_for not in self._known:
            self._known[asked_for] = self, list(self._jobs(scale, overrides, readings, source).values())
        return self._known[asked_for][1]

    def _jobs(
        self, scale: str, overrides: dict[str, Any], readings: list[dict[str, Any]], source: str
    ) -> dict[str, Job]:  # fmt: skip
        """By id. UserError for a combination that is no job."""
        axes, overrides = self.matrix_axes(scale), dict(overrides)
        lists = [k for k, v in overrides.items() if isinstance(v, list) and not (k == "milestones" and _of_numbers(v))]
        axes |= {k: overrides.pop(k) for k in lists}
        axes |= {k: [overrides.pop(k)] for k in list(overrides) if k in axes}
        fields = self.base | self.scale_of(scale).set | {"scale": scale}

        jobs: dict[str, Job] = {}
        for reading, *values in itertools.product(readings, *axes.values()):
            point = dict(zip(axes, values, strict=True))
            for tied in self.ties:
                point = self._tied(tied, point) | point
            if any(all(point.get(k) == v for k, v in rule.items()) for rule in self.exclude):
                continue
            asked = fields | point | reading | overrides
            options = self.options.get(asked["method"], {}) if isinstance(asked.get("method"), str) else {}
            job = make_job(_resolve_weights(options | asked), source)
            jobs[job.id] = job  # a baseline that an axis or reading repeats that it does not read is one job
        return jobs

    def _tied(self, tied: dict[str, list[Any]], point: dict[str, Any]) -> dict[str, Any]:
        """Columns of a tie vary together with its first key, which is an axis."""
        axis = next(iter(tied))
        if point.get(axis) not in tied[axis]:
            return {}
        i = tied[axis].index(point[axis])
        return {key: column[i] for key, column in tied.items()}

    def deviations(self, job: Job) -> list[str]:
        """Fields in which `job` departs from the paper's protocol, as `epochs: 2 (paper: 20)` where the paper prints
        it, and `precision: tf32 (default: float32)` where this suite assumes it.

        An assumption at one of its named alternatives is a reading of the paper, not a departure from it.
        """
        original = {new: old for old, new in self.scale_of(job.scale).stand_ins.items()}
        departures = []
        unread = {"scale", "seed", "method", "options"} | unread_fields(job.method, job.loss, job.schedule)
        options = study.method(job.method).option_names
        base = self.base | (type(job.options)().model_dump() | self.options.get(job.method, {}) if options else {})
        for name in (*FIELDS, *options):
            value = job.value(name)
            if name in unread:
                continue
            accepted = self.axes.get(name) or [base.get(name)]
            if name in self.assumptions:
                accepted = [self.assumptions[name].value, *self.assumptions[name].alternatives]
            accepted = [in_job(v) for v in accepted]
            if value not in accepted:
                instead_of = original.get(value, accepted[0]) if isinstance(value, str) else accepted[0]
                nothing = "whole set" if name in OF_DATA else "none"
                whose = "paper" if name in (*self.protocol, *self.axes, *OF_DATA) else "default"
                departures.append(f"{name}: {_short(value, nothing)} ({whose}: {_short(instead_of, nothing)})")
        return departures


def _of_numbers(values: list[Any]) -> bool:
    return not any(isinstance(value, list) for value in values)


def _short(value: Any, nothing: str) -> str:
    text = nothing if value is None else "/".join(map(str, value)) if isinstance(value, tuple) else str(value)
    return text[:19] if text.startswith("sha256:") else text


def mini_weights(backbone: str) -> Path:
    """The packaged weights of a narrow backbone. UserError where it has none."""
    path = MINI_WEIGHTS / f"{backbone}.safetensors"
    if not path.is_file():
        packaged = [p.stem for p in sorted(MINI_WEIGHTS.glob("*.safetensors"))]
        raise UserError(
            f"weights=mini: there are none for {backbone}, only for {', '.join(packaged)}; "
            f"'python -m benchmark pretrain-mini {backbone}' makes them"
        )
    return path


def _resolve_weights(fields: dict[str, Any]) -> dict[str, Any]:
    """`mini` becomes `mini@<hash of the packaged file>`: other weights are another job."""
    backbone = fields.get("backbone")
    if fields.get("weights") != "mini" or backbone not in BACKBONES:  # Job names an unknown one
        return fields
    path = mini_weights(backbone)
    return fields | {"weights": f"mini@{_digest(path, path.stat().st_mtime_ns)[:12]}"}


@cache
def _digest(path: Path, mtime_ns: int) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def names() -> list[str]:
    """The study's grids; the built-in ones where it has none."""
    return [path.stem for path in files()]


def built_in_names() -> list[str]:
    """The package's, whichever study is at hand."""
    return list(_files(GRIDS))


def files() -> list[Path]:
    """Theirs."""
    return list((_files(_own_folder()) or _files(GRIDS)).values())


def _own_folder() -> Path | None:
    folder = study.at_hand().folder
    return folder / "grids" if folder else None


def _files(folder: Path | None) -> dict[str, Path]:
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))} if folder else {}


def own_data() -> dict[str, Data]:
    """The data sets that the study's grids describe, by the name that their protocol gives them."""
    return {one.protocol["dataset"]: one.data for one in _of_study() if one.data}


def is_official(dataset: str) -> bool:
    """Whether it is one of the sets that somebody must fetch: not a study's own, and no drawn twin, as which
    data.DATASETS has each name that ends in -mini."""
    return dataset not in own_data() and not dataset.endswith("-mini")


def own_reads(dataset: str) -> list[tuple[int, str, str]]:
    """What the study's grids read of a data set of its own: seed, training split and test split of their jobs; the seed
    is 0 where splits are not drawn, since it then decides nothing."""
    jobs = [job for one in _of_study() for job in one.jobs("paper") if job.dataset == dataset]
    drawn = bool(own_data()[dataset].splits)
    return list(dict.fromkeys((job.seed if drawn else 0, job.train_split, job.test_split) for job in jobs))


def _of_study() -> list[Grid]:
    return [load(name) for name in _files(_own_folder())]


def load(name: str, folder: Path | None = None) -> Grid:
    """The grid called `name`, of `folder`, or of the study or the built-in ones. UserError with file, line and the
    nearest valid name for anything wrong in it."""
    own = {} if folder else _files(_own_folder())
    known = _files(folder or GRIDS) | own
    if name not in known:
        raise UserError(f"unknown grid '{name}'" + nearest(name, known))
    return _checked(name, known[name], strict_yaml.read(known[name]), name in own, study.at_hand())


@lru_cache(maxsize=32)  # a command asks for a grid again for each table and claim
def _checked(name: str, path: Path, text: str, of_study: bool, _: study.Study) -> Grid:
    """The grid that `text` is, for the study at hand."""
    document, lines = strict_yaml.parse(text, path)
    if not isinstance(document, dict):
        raise UserError(f"{path}: a grid is a mapping with the keys {', '.join(Grid.model_fields)}")
    try:
        keys = {str(k): v for k, v in document.items() if k not in ("name", "of_study")}
        grid = Grid(name=name, of_study=of_study, **keys)
    except ValidationError as error:
        line = strict_yaml.line_of(lines, first_problem(error)["loc"])
        valid = (
            *Grid.model_fields, *Data.model_fields, *Scale.model_fields, *Plan.model_fields, *Assumption.model_fields
        )  # fmt: skip
        raise UserError(f"{path}:{line}: {explain(error, valid)}") from None
    _check_names(grid, path, lines)
    return grid


def _check_names(grid: Grid, path: Path, lines: strict_yaml.Lines) -> None:
    """Every key that should be a Job field is one; so a typo is found at its line, before any job is made."""
    for loc, valid in _named(grid):
        if loc[-1] not in valid:
            line, inside = strict_yaml.line_of(lines, loc), ".".join(map(str, loc[:-1]))
            raise UserError(f"{path}:{line}: unknown key '{loc[-1]}' in {inside}" + nearest(loc[-1], valid))
    for key, assumption in grid.assumptions.items():
        for value in (assumption.value, *assumption.alternatives):
            if value not in EVALUATION.get(key, (value,)):
                line = strict_yaml.line_of(lines, ("assumptions", key))
                raise UserError(f"{path}:{line}: {key}: {value!r} is not known" + nearest(value, EVALUATION[key]))
    if grid.data and not isinstance(grid.protocol.get("dataset"), str):
        raise UserError(f"{path}:{strict_yaml.line_of(lines, ('data',))}: data: name them in protocol, dataset: NAME")
    if "paper" not in grid.scales:
        raise UserError(f"{path}:{lines[('scales',)]}: scales: 'paper' is missing")
    _check_jobs(grid, path, lines)


def _named(grid: Grid) -> Iterator[tuple[tuple, list[str]]]:
    """Where a name is given, and the names that it may be."""
    fields = settable()
    yield from ((("protocol", key), fields) for key in grid.protocol)
    yield from ((("axes", key), fields) for key in grid.axes)
    for section in ("ties", "exclude"):
        yield from (((section, i, key), fields) for i, entry in enumerate(getattr(grid, section)) for key in entry)
    yield from ((("assumptions", key), [*fields, *EVALUATION]) for key in grid.assumptions)
    for method, options in grid.options.items():
        yield ("options", method), list(study.at_hand().methods)
        yield from ((("options", method, key), list(study.method(method).option_names)) for key in options)
    of_readings = [*grid.assumptions, *study.at_hand().option_names]
    for name, scale in grid.scales.items():
        yield from ((("scales", name, "axes", key), fields) for key in scale.axes)
        yield from ((("scales", name, "set", key), fields) for key in scale.set)
        readings = [(i, key) for i, reading in enumerate(scale.readings) for key in reading]
        yield from ((("scales", name, "readings", i, key), of_readings) for i, key in readings)


def _check_jobs(grid: Grid, path: Path, lines: strict_yaml.Lines) -> None:
    """Each scale's jobs can be made; what cannot is found at the line of the field that the error is about."""
    for name in grid.scales:
        try:
            grid.jobs(name)
        except UserError as error:
            key = str(error).partition(": ")[2].partition(":")[0]
            of_scale = [("scales", name, "set", key), ("scales", name, "axes", key)]
            spots = [*of_scale, ("axes", key), ("protocol", key), ("assumptions", key)]
            line = next((lines[spot] for spot in spots if spot in lines), 1)
            raise UserError(f"{path}:{line}: {error}") from None
