"""Matrix: a grid at a scale as somebody asked for it, and everything that follows from that. The command line makes it
once; tables, evidence and executors are given it instead of its parts."""

import hashlib
import re
import shlex
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from benchmark.matrix import grid, study
from benchmark.matrix.grid import Grid, Scale
from benchmark.matrix.job import Job

NAME_BYTES = 200  # of a folder's name; file systems take 255


@dataclass(frozen=True)
class Matrix:
    """overrides: fields that every job has instead of the grid's (`--set`). selection: field -> values, the jobs that
    are meant (`--only`). runs: where run folders lie. readings: those to repeat the matrix for; none: the scale's own.
    average_precision: its definition, where it is not the grid's. least_positives: `min_positives`, where it is not the
    scale's."""

    grid: Grid
    scale: str
    overrides: dict[str, Any] = field(default_factory=dict)
    selection: dict[str, list[Any]] = field(default_factory=dict)
    runs: Path = Path("runs")
    readings: tuple[dict[str, Any], ...] = ()
    average_precision: str | None = None
    least_positives: int | None = None

    @cached_property
    def overlay(self) -> Scale:
        return self.grid.scale_of(self.scale)

    @cached_property
    def jobs(self) -> list[Job]:
        """In the YAML's order. UserError for an override or a selection that fits no job."""
        return self.grid.jobs(self.scale, self.overrides, self.selection, list(self.readings))

    def folder(self, job: Job) -> Path:
        return self.runs / self.scale / job.id

    @property
    def min_positives(self) -> int:
        """Classes that fewer images of either split show are left out of tables, and of mAP."""
        return self.overlay.min_positives if self.least_positives is None else self.least_positives

    @property
    def definition(self) -> str:
        """Of average precision; a grid of single-label runs reads none."""
        assumed = self.grid.assumptions.get("ap_definition")
        return self.average_precision or (assumed.value if assumed else "area")

    @property
    def methods(self) -> list[str]:
        return list(dict.fromkeys(job.method for job in self.jobs))

    @property
    def seeds(self) -> list[int]:
        """That were planned, before anything ran."""
        return sorted({job.seed for job in self.jobs})

    def asked_otherwise(self, **changes: Any) -> "Matrix":
        """The same with other fields, such as `overrides=` or `readings=`."""
        return replace(self, **changes)

    @property
    def whole(self) -> "Matrix":
        """Without the selection: tables show every job, whichever were asked for this time."""
        return self.asked_otherwise(selection={})

    def of_methods(self, names: list[str]) -> "Matrix":
        """Without the jobs of other methods, such as a scale's controls in a table that has no column of them."""
        return self.asked_otherwise(selection=self.selection | {"method": [n for n in names if n in self.methods]})

    def row_filter(self, fields: dict[str, Any]) -> dict[str, Any]:
        """A table row's job fields with stand-ins in their places. Where an axis has a single value, an override of it
        belongs to that row too: the departures say so."""
        named = {name: self.overlay.stand_ins.get(value, value) for name, value in fields.items()}
        return {
            name: value
            for name, value in named.items()
            if any(job.value(name) == value for job in self.jobs) or len(self.grid.axes.get(name, ())) != 1
        }

    def jobs_of(self, fields: dict[str, Any], method: str | None = None) -> list[Job]:
        """The jobs that a table's row shows, in one column or in all."""
        wanted = self.row_filter(fields) | ({} if method is None else {"method": method})
        return [job for job in self.jobs if all(job.value(name) == value for name, value in wanted.items())]

    @cached_property
    def departures(self) -> dict[str, set[str]]:
        """What departs from the paper's protocol, each with the methods whose jobs do."""
        texts: dict[str, set[str]] = {}
        for job in self.jobs:
            for text in self.grid.deviations(job):
                texts.setdefault(text, set()).add(job.method)
        return texts

    @property
    def has_the_paper_s_test_set(self) -> bool:
        """Whether every job is tested on the images that the paper's numbers are of."""
        paper = self.grid.base["dataset"], self.grid.base["test_split"]
        return all(
            (job.dataset, job.test_split) == paper and job.limit_test is None and not job.partial for job in self.jobs
        )

    @property
    def called(self) -> str:
        """`reduced`, or with overrides `reduced, precision float32`."""
        return self.scale + "".join(f", {name} {as_yaml(value)}" for name, value in self.overrides.items())

    @property
    def subfolder(self) -> Path:
        """For what is made of it, inside a folder of tables: the scale's; a study that adds columns to a built-in grid,
        and overrides, have one of their own in it."""
        beside = study.at_hand()
        parts = [beside.folder.resolve().name] if beside.folder and beside.own and not self.grid.of_study else []
        return Path(self.scale, *parts, *([_folder_name(self.overrides)] if self.overrides else []))

    def command(self, methods: list[str], fields: dict[str, Any] | None = None) -> str:
        """The line that makes the numbers of these methods' jobs, of a table's row or of all, again."""
        fields = fields or {}
        words = ["python", "-m", "benchmark", "run", "--grid", self.grid.name, "--scale", self.scale]
        words += ["--study", str(study.at_hand().folder)] if study.at_hand().folder else []
        for key, value in self.overrides.items():
            words += ["--set", f"{key}={as_yaml(value)}"]
        named = {key: self.overlay.stand_ins.get(value, value) for key, value in fields.items()}
        only = [f"method={m}" for m in dict.fromkeys(methods)] + [f"{key}={value}" for key, value in named.items()]
        words += ["--only", ",".join(only)]
        jobs = [job for method in methods for job in self.jobs_of(fields, method)]
        if any(grid.is_official(job.dataset) for job in jobs):
            words += ["--data-root", "DIR"]
        if any(job.weights.startswith("sha256:") for job in jobs):
            words += ["--weights", "FILE"]
        return shlex.join(words)


def as_yaml(value: Any) -> str:
    """A value as `--set` takes it."""
    if isinstance(value, list):
        return f"[{','.join(map(as_yaml, value))}]"
    return str(value).lower() if isinstance(value, bool) else str(value)


def _folder_name(overrides: dict[str, Any]) -> str:
    text = ",".join(f"{key}={overrides[key]}" for key in sorted(overrides))
    name = re.sub(r"[^\w.,=\-]+", "-", re.sub(r"(sha256:\w{12})\w*", r"\1", text))
    return name if len(name) <= NAME_BYTES else f"{name[:180]}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"
