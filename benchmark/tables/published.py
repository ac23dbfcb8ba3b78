"""Table files: layout and published cells side by side, each cell with where it was printed."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from benchmark.errors import UserError, nearest
from benchmark.matrix import grid, strict_yaml, study
from benchmark.matrix.job import Float, Int, explain, first_problem, settable


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Source(_Strict):
    document: str
    place: str


class Column(_Strict):
    """A method's column; `header` may hold one subscript, as in `Mine_{last}`. published_only: numbers that others
    published of a method that is not here; nothing runs, and nothing is judged."""

    key: str
    header: str
    published_only: bool = False


class Row(_Strict):
    """A row and its published cells, one a column in the columns' order; null where no number is at hand.

    `item` is the measured number that the row shows (a class, mAP, top1; default: the key), `where` the job fields
    that its runs have, such as {backbone: resnet18}, or `table` and `of` the table and its row whose gains it shows.
    `published_gain`: the gains as printed, to be held against the cells. `mean_of`: the table whose class rows this row
    is the mean of, from which `class_cells` is filled. `claim`: its gains are what the paper claims, and get a verdict;
    other rows are descriptive. `over`: what the gains of its columns are over, where that is not the first column, as
    {mine: placebo}; its other columns then have none.
    """

    key: str
    published: list[int | float | str | None]
    published_gain: list[int | float | None] | None = None
    item: str | None = None
    where: dict[str, Any] = {}
    table: str | None = None
    of: str | None = None
    unit: str | None = None
    mean_of: str | None = None
    class_cells: dict[str, list[float | None]] = {}
    claim: bool = False
    over: dict[str, str] = {}

    def mean_over(self, classes: set[str], column: int) -> float | None:
        """The published mean over these classes alone, so that it can stand beside a mean that leaves others out."""
        cells = [cells[column] for name, cells in self.class_cells.items() if name in classes]
        known = [cell for cell in cells if cell is not None]
        return sum(known) / len(known) if known and len(known) == len(classes) == len(cells) else None


class Spec(_Strict):
    """One file of published/. Without a `grid` it is a summary: of other tables, where its rows name them, or text to
    be compared with the grids. `missing`: why published cells are null. `scales`: those that it is made at; none: all
    that run one of its methods."""

    name: str
    title: str
    source: Source
    columns: list[Column]
    rows: list[Row]
    row_header: str = "class"
    missing: str | None = None
    discrepancies: list[str] = []  # what does not add up inside the paper; printed with the table
    grid: str | None = None
    unit: str | None = None
    lower_is_better: bool = False
    decimals: Annotated[int, Field(ge=0, le=12)] | None = None  # of its numbers; a table of words has none
    tolerance: Annotated[Float, Field(ge=0)] | None = None  # of a value, in the unit; declared before any run
    looks: list[Int] | None = None  # numbers of seeds at which a claim may be judged, declared before any run
    readings: list[dict[str, Any]] = [{}]  # job fields under which a claim is judged; {}: as the grid has it
    scales: list[str] | None = None

    def is_made_at(self, scale: str) -> bool:
        """Whether it says so, or says nothing and the scale runs one of its methods beside the first."""
        if self.scales is not None:
            return scale in self.scales
        if self.grid is None or scale not in (chosen := grid.load(self.grid)).scales:
            return True
        runs = chosen.matrix_axes(scale).get("method", [])
        return len(self.columns) == 1 or any(column.key in runs for column in self.columns[1:])

    @property
    def of_gains(self) -> bool:
        """Whether its cells are other tables' gains."""
        return any(row.table for row in self.rows)

    @property
    def of_controls(self) -> bool:
        """Whether nothing is published that it could be held against, nor to be judged: what gains are judged by."""
        blank = all(value is None for row in self.rows for value in row.published)
        return self.grid is not None and self.tolerance is None and blank

    def runs(self, column: str) -> bool:
        """Whether it is a method's that runs here."""
        return not next(c.published_only for c in self.columns if c.key == column)

    def published(self, row: str, column: str) -> Any:
        index = [c.key for c in self.columns].index(column)
        return next(r.published[index] for r in self.rows if r.key == row)


FRACTION = "fraction"  # the unit of papers that print 0.47 for 47%
MEASURES = ("mAP", "top1", "top5")  # of a run as a whole
KEYS = (*Spec.model_fields, *Row.model_fields, *Column.model_fields)
BUILT_IN = Path(__file__).parents[1] / "published"


def home(folder: Path) -> Path:
    """Where the table files are that are meant by `folder`: there; where it has none, in the study at hand; else in the
    package. So what is generated may go to an empty folder."""
    own = study.at_hand().folder
    places = [folder, *([own / "tables"] if own else [])]
    return next((place for place in places if any(place.glob("*.yaml"))), BUILT_IN)


def of_study(folder: Path) -> Path:
    """The tables of the study at hand, where it has any and `folder` is the one that nobody named."""
    own = study.at_hand().folder
    return own / "tables" if folder == Path("tables") and own and (own / "tables").is_dir() else folder


def names(folder: Path) -> list[str]:
    return sorted(path.stem for path in home(folder).glob("*.yaml"))


def every_name(folder: Path) -> list[str]:
    """The names and, beside a study's own tables, those of the package, whose grids the study may add a method to."""
    beside = names(BUILT_IN) if study.at_hand().folder else []
    return list(dict.fromkeys([*names(folder), *beside]))


def file(name: str, folder: Path) -> Path:
    """The file of the table called `name`. UserError where there is none."""
    known = every_name(folder)
    if name not in known:
        raise UserError(f"unknown table '{name}'{nearest(name, known)} (tables of {home(folder)}/)")
    return (home(folder) if name in names(folder) else BUILT_IN) / f"{name}.yaml"


def load(name: str, folder: Path) -> Spec:
    """The table called `name`. UserError with file, line and the nearest valid name for anything wrong in it."""
    path = file(name, folder)
    document, lines = strict_yaml.load(path)
    try:
        spec = Spec(**{**(document or {}), "name": name})
    except ValidationError as error:
        line = strict_yaml.line_of(lines, first_problem(error)["loc"])
        raise UserError(f"{path}:{line}: {explain(error, KEYS)}") from None
    except TypeError:
        raise UserError(f"{path}: a table is a mapping with the keys {', '.join(Spec.model_fields)}") from None
    _check_lengths(spec, path, lines)
    _check_numbers(spec, path, lines)
    if spec.columns and spec.columns[0].published_only:
        raise UserError(
            f"{path}:{strict_yaml.line_of(lines, ('columns', 0))}: gains are over the first column; it runs"
        )
    for loc, what, name, valid in _named(spec):
        if name not in valid:
            raise UserError(f"{path}:{strict_yaml.line_of(lines, loc)}: {what} '{name}'" + nearest(name, valid))
    spec = _as_measured(spec)
    if "row_header" not in spec.model_fields_set and {row.item or row.key for row in spec.rows} <= set(MEASURES):
        spec = spec.model_copy(update={"row_header": "measure"})
    spec = _with_columns_of_the_study(spec)
    rows = [row.model_copy(update={"class_cells": _class_cells(row, spec, folder)}) for row in spec.rows]
    return spec.model_copy(update={"rows": rows})


def _check_lengths(spec: Spec, path: Path, lines: strict_yaml.Lines) -> None:
    for i, row in enumerate(spec.rows):
        lengths = {len(cells) for cells in (row.published, row.published_gain) if cells is not None}
        if lengths != {len(spec.columns)}:
            raise UserError(
                f"{path}:{strict_yaml.line_of(lines, ('rows', i))}: row '{row.key}' has "
                f"{len(row.published)} published cells for {len(spec.columns)} columns"
            )


def _named(spec: Spec) -> Iterator[tuple[tuple, str, str, list[str]]]:
    """Where a name is given, what an unknown one is called, the name, and the names that it may be."""
    columns, fields = [column.key for column in spec.columns], settable()
    for i, row in enumerate(spec.rows):
        yield from ((("rows", i, "over"), "no column", key, columns) for pair in row.over.items() for key in pair)
        yield from ((("rows", i, "where"), "unknown job field", field, fields) for field in row.where)
    for i, reading in enumerate(spec.readings):
        yield from ((("readings", i), "unknown job field", field, fields) for field in reading)
    known = list(study.at_hand().methods)
    ours = [(i, column.key) for i, column in enumerate(spec.columns) if spec.grid and not column.published_only]
    yield from ((("columns", i), "unknown method", key, known) for i, key in ours)


def _with_columns_of_the_study(spec: Spec) -> Spec:
    """The study's own methods beside those of a table of a built-in grid; nothing is published of them."""
    here = study.at_hand()
    if spec.grid is None or grid.load(spec.grid).of_study:
        return spec
    added = [name for name in here.own if name not in {column.key for column in spec.columns}]
    blank: list[None] = [None] * len(added)
    columns = [*spec.columns, *(Column(key=name, header=here.methods[name].title or name) for name in added)]
    rows = [
        row.model_copy(
            update={
                "published": [*row.published, *blank],
                "published_gain": row.published_gain and [*row.published_gain, *blank],
            }
        )
        for row in spec.rows
    ]
    return spec.model_copy(update={"columns": columns, "rows": rows})


def _class_cells(row: Row, spec: Spec, folder: Path) -> dict[str, list[float | None]]:
    if row.mean_of is None:
        return {}
    rows = spec.rows if row.mean_of == spec.name else load(row.mean_of, folder).rows
    return {
        other.key: [value if isinstance(value, int | float) else None for value in other.published]
        for other in rows
        if other.mean_of is None
    }


def _check_numbers(spec: Spec, path: Path, lines: strict_yaml.Lines) -> None:
    """A table of runs holds numbers, in range, with the declared decimals: a slip in typing is found at its line."""
    if spec.decimals is None:
        if spec.grid or spec.of_gains:
            raise UserError(f"{path}: a table of numbers says how many decimals they have, as 'decimals: 2'")
        return
    if spec.grid and spec.unit not in ("%", FRACTION):
        line = strict_yaml.line_of(lines, ("unit",))
        raise UserError(f"{path}:{line}: unit: {spec.unit!r} is not that of a table of runs; it is '%' or '{FRACTION}'")
    most = 1.0 if spec.unit == FRACTION else 100.0
    low, high = (-most, most) if spec.of_gains else (0.0, most)
    for i, row in enumerate(spec.rows):
        for value in (value for value in row.published if value is not None):
            at = f"{path}:{strict_yaml.line_of(lines, ('rows', i))}: row '{row.key}'"
            if isinstance(value, str):
                raise UserError(f"{at}: {value!r} is no number; null where none is published")
            if not low <= value <= high:
                raise UserError(f"{at}: {value:g} is not between {low:g} and {high:g} {spec.unit}")
            if round(value, spec.decimals) != value:
                raise UserError(f"{at}: {value:g} has more than {spec.decimals} decimals")
    numbers = [value for row in spec.rows for value in row.published if isinstance(value, int | float)]
    if spec.grid and spec.unit == "%" and numbers and 0 < max(numbers) <= 1:
        line = strict_yaml.line_of(lines, ("unit",))
        raise UserError(
            f"{path}:{line}: unit: no published number is above {max(numbers):g}, which in % is a hundred times less "
            f"than such papers print; type percent, as 47.12 for 0.4712, or say 'unit: {FRACTION}'"
        )


def _as_measured(spec: Spec) -> Spec:
    """The published cells as ours are measured: in percent, and higher is better."""
    factor = 100 if spec.unit == FRACTION else 1
    if spec.decimals is None or (factor == 1 and not spec.lower_is_better):
        return spec
    decimals = max(0, spec.decimals - 2) if factor > 1 else spec.decimals
    whole = 0 if spec.of_gains else 100

    def percent(value: int | float | str | None, whole: int = whole) -> Any:
        if not isinstance(value, int | float):
            return value
        return round(whole - factor * value if spec.lower_is_better else factor * value, decimals)

    def gain(value: int | float | None) -> Any:
        return percent(value, 0)

    printed = "error rates" if spec.lower_is_better else "numbers"
    told = f"{printed} as fractions, shown here in percent" if factor > 1 else f"{printed} in percent"
    told += ", as 100 minus the rate; a lead over the baseline is a gain" if spec.lower_is_better else ""
    rows = [
        row.model_copy(
            update={
                "published": [percent(value) for value in row.published],
                "published_gain": row.published_gain and [gain(value) for value in row.published_gain],
            }
        )
        for row in spec.rows
    ]
    changes: dict[str, Any] = {"rows": rows, "decimals": decimals, "discrepancies": [*spec.discrepancies, f"{told}."]}
    changes["unit"] = "%" if spec.grid else spec.unit
    changes["tolerance"] = None if spec.tolerance is None else factor * spec.tolerance
    return spec.model_copy(update=changes)


def place(spec: Spec, row: str, header: str) -> str:
    """Where in the paper a cell stands."""
    return f"{spec.source.document}, {spec.source.place}, row '{row}', column '{header}'"


def cells(spec: Spec) -> list[dict[str, Any]]:
    """Every published cell as plain data, with its unit and its place in the paper."""
    return [
        {
            "table": spec.name,
            "row": row.key,
            "column": column.key,
            "value": value,
            "unit": row.unit or spec.unit,
            "decimals": spec.decimals,
            "source": place(spec, row.key, column.header),
        }
        for row in spec.rows
        for column, value in zip(spec.columns, row.published, strict=True)
    ]
