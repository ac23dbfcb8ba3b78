"""What run folders hold, as a value: every file is read once and checked once, and what is wrong with one is a warning
beside the numbers. Tables, figures and reports are functions of it and open no run folder."""

import hashlib
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from benchmark.errors import UserError
from benchmark.matrix import grid, study
from benchmark.matrix.job import FIELDS, Job
from benchmark.matrix.matrix import Matrix
from benchmark.results import pairing, resampling
from benchmark.results.pairing import Group, Pairs, Samples
from benchmark.store import metrics, scores, verify
from benchmark.store.files import read_regular
from benchmark.store.records import Environment, Epoch, Failure, Origin, Result
from benchmark.store.run import Run, epochs_of
from benchmark.store.scores import Maps, Scores

if TYPE_CHECKING:
    import pandas as pd

SINGLE_LABEL = ("top1", "top5")
ROUNDS = resampling.ROUNDS
KEPT_BYTES = 256 * 2**20  # of score files: what lies beyond is read anew where it is needed again
# What a method's run shares with the run of its baseline.
SAME_SPLIT = ("dataset", "backbone", "train_split", "test_split", "seed", "limit_train")

T = TypeVar("T")


@dataclass(eq=False)
class Opened:
    """A run folder, each file of it read at most once, when it is first asked for.

    Attributes:
        run: The folder.
        damage: By file name, a line for each file that cannot be read. What it holds is None, or empty.
    """

    run: Run
    damage: dict[str, str] = field(default_factory=dict)

    @property
    def id(self) -> str:
        return self.run.id

    @property
    def epochs(self) -> list[Epoch]:
        """Those that are logged, in order. The file is kept, and not what it says: that takes ten times the memory."""
        return epochs_of(self._metrics or b"")

    @cached_property
    def _metrics(self) -> bytes | None:
        return self._read("metrics.jsonl", lambda: read_regular(self.run.path("metrics.jsonl")))

    @cached_property
    def environment(self) -> Environment | None:
        return self._read("environment.json", self.run.environment)

    @cached_property
    def origin(self) -> Origin | None:
        """Whose run it is; None for one made here."""
        return self._read("origin.json", self.run.origin)

    @property
    def failure(self) -> Failure | None:
        """Why there is no result, where the last attempt failed."""
        return None

    @property
    def scores(self) -> Scores | None:
        """The test scores after the last epoch; None where there are none to be read."""
        return None

    @property
    def maps(self) -> Maps | None:
        """The attention maps that it keeps of a few test images; None where it keeps none."""
        return None

    def _read(self, name: str, read: Callable[[], T]) -> T | None:
        try:
            return read()
        except UserError as error:
            self.damage.setdefault(name, str(error))
            return None


@dataclass(eq=False)
class Finished(Opened):
    """A run with a result that its scores do not contradict.

    Attributes:
        record: result.json.
        unverified: Why its numbers could not be computed again from its scores; empty where they were.
    """

    record: Result = field(kw_only=True)
    unverified: str = field(kw_only=True)
    reader: "Reader" = field(kw_only=True, repr=False)
    kept: bytes | None = field(default=None, kw_only=True, repr=False)  # of scores.npz
    parsed: Scores | None = field(default=None, kw_only=True, repr=False)
    state = "done"

    @property
    def saved(self) -> bytes | None:
        """scores.npz as it lies there; None where the run keeps none, or another than its record names."""
        if self.kept is None and os.path.lexists(self.run.path("scores.npz")):
            found = self._read("scores.npz", lambda: scores.content(self.run, self.record))
            self.kept = found if self.reader.has_room_for(found) else None
            return found
        return self.kept

    @property
    def scores(self) -> Scores | None:
        if self.parsed is not None or "scores.npz" in self.damage:
            return self.parsed
        saved = self.saved
        if saved is None:
            return None
        found = self._read("scores.npz", lambda: scores.parse(self.run, saved, self.record))
        self.parsed = found if self.kept is not None else None
        return found

    @cached_property
    def maps(self) -> Maps | None:
        saved = self.saved
        return None if saved is None else self._read("scores.npz", lambda: scores.parse_maps(self.run, saved))

    @cached_property
    def images(self) -> str | None:
        """A digest of the images and labels that it was tested on: as recorded, or from its scores, as records before
        that need it. None where it is not known."""
        if self.record.data is not None:
            return self.record.data.test.sha256
        saved = self.scores
        return None if saved is None else scores.digest(saved.ids, saved.labels)


@dataclass(eq=False)
class Missing(Opened):
    """A run without a result that can be shown.

    Attributes:
        state: One of store.run.STATES but `done`.
        reason: What is wrong with its records; empty where it just has no result.
    """

    state: str = field(kw_only=True)
    reason: str = field(kw_only=True)
    failed: Failure | None = field(default=None, kw_only=True)

    @property
    def failure(self) -> Failure | None:
        return self.failed


class Reader:
    """Opens run folders, each once: what several tables of a command show is shared between them."""

    def __init__(self) -> None:
        self._opened: dict[Path, Finished | Missing] = {}
        self._jobs: dict[Path, Job | UserError] = {}
        self._listed: dict[Path, list[Path]] = {}
        self._room = KEPT_BYTES

    def open(self, folder: Path) -> Finished | Missing:
        """What the run folder holds, its numbers compared with its scores."""
        if folder not in self._opened:
            self._opened[folder] = self._open(Run(folder))
        return self._opened[folder]

    def _open(self, run: Run) -> Finished | Missing:
        try:
            checked = verify.opened(run)
        except UserError as error:
            return Missing(run, {"result.json": str(error)}, state="corrupt", reason=str(error))
        if checked.record is None:
            state, failure, reason = run.outcome()
            damage = {"failure.json": reason} if reason else {}
            return Missing(run, damage, state=state, reason=reason, failed=failure)
        is_kept = self.has_room_for(checked.saved)
        return Finished(
            run, record=checked.record, unverified=checked.unverified, reader=self,
            kept=checked.saved if is_kept else None, parsed=checked.parsed if is_kept else None,
        )  # fmt: skip

    def has_room_for(self, saved: bytes | None) -> bool:
        """Whether a file of scores is to be kept, which then counts."""
        if saved is None or len(saved) > self._room:
            return False
        self._room -= len(saved)
        return True

    def job(self, folder: Path) -> Job | None:
        """The run folder's job.json; None where it is damaged."""
        if folder not in self._jobs:
            try:
                self._jobs[folder] = Run(folder).job()
            except UserError as error:
                self._jobs[folder] = error
        found = self._jobs[folder]
        return found if isinstance(found, Job) else None

    def jobs(self, scale: Path) -> list[Job]:
        """The jobs of all run folders in a scale's folder, by id; one whose job.json is damaged is left out."""
        if scale not in self._listed:
            self._listed[scale] = [path.parent for path in sorted(scale.glob("*/job.json"))]
        return [job for folder in self._listed[scale] if (job := self.job(folder))]

    @property
    def warnings(self) -> list[str]:
        """A line for each file that was read and is damaged, each once."""
        lines = [line for found in self._opened.values() for line in found.damage.values()]
        lines += [str(error) for error in self._jobs.values() if isinstance(error, UserError)]
        return list(dict.fromkeys(lines))

    @property
    def unverified(self) -> dict[str, str]:
        """By run id, why a result could not be computed again from its scores."""
        opened = self._opened.values()
        return {found.id: found.unverified for found in opened if isinstance(found, Finished) and found.unverified}


class Results:
    """What the runs of a matrix hold, each opened once.

    Attributes:
        matrix: Whose jobs these are.
        jobs: These, by id.
        reader: What opened them; other matrices' results share it.
    """

    def __init__(self, matrix: Matrix, reader: Reader) -> None:
        self.matrix, self.reader = matrix, reader
        self.jobs = {job.id: job for job in matrix.jobs}
        self._by_id = {job: reader.open(matrix.runs / matrix.scale / job) for job in self.jobs}
        self._without_numbers: dict[str, str] = {}

    @classmethod
    def read(cls, matrix: Matrix, reader: Reader | None = None) -> "Results":
        """Open the run folder of each job.

        Args:
            matrix: Whose jobs.
            reader: Where several matrices share run folders, what reads each once for all of them.
        """
        return cls(matrix, reader or Reader())

    def asked_otherwise(self, **changes: Any) -> "Results":
        """Of the same matrix with other fields; what was read is not read again."""
        return Results(self.matrix.asked_otherwise(**changes), self.reader)

    def of_methods(self, names: list[str]) -> "Results":
        """Without the jobs of other methods."""
        return Results(self.matrix.of_methods(names), self.reader)

    def of(self, job: Job) -> Finished | Missing:
        return self.by_id(job.id)

    def by_id(self, run: str) -> Finished | Missing:
        """Of a job of the matrix, by its id."""
        return self._by_id[run]

    def finished(self, runs: Iterable[str]) -> list[Finished]:
        """Of these run ids those that have a result, in their order."""
        return [found for run in runs if isinstance(found := self._by_id[run], Finished)]

    @property
    def warnings(self) -> list[str]:
        """A line for each file of these runs that was read and is damaged, each once."""
        lines = [line for found in self._by_id.values() for line in found.damage.values()]
        return list(dict.fromkeys([*lines, *self._without_numbers.values()]))

    @property
    def unverified(self) -> dict[str, str]:
        """By run id, why a result could not be computed again from its scores."""
        return {found.id: found.unverified for found in self.finished(self._by_id) if found.unverified}

    @cached_property
    def records(self) -> dict[str, Result]:
        """The results that tables show, by run id."""
        shown = self.frame[self.frame["state"] == "done"]["job"]
        return {found.id: found.record for found in self.finished(dict.fromkeys(shown))}

    @cached_property
    def frame(self) -> "pd.DataFrame":
        """A line for each job and each measured number, in percent.

        Columns: job (its id), state, every field of Job, every option of a method, item, value. `item` is a class name,
        `mAP`, `top1` or `top5`; `value` is NaN where too few images show the class (see `items`). A job without a
        result has one line whose item is NaN.
        """
        import pandas as pd  # half a second, which commands without a table need not wait

        lines: list[tuple[Any, ...]] = []
        named = [*(name for name in FIELDS if name != "options"), *study.at_hand().option_names]
        for job in self.matrix.jobs:
            state = self.of(job).state
            try:
                values = self.items(job)
            except UserError as error:
                self._without_numbers[job.id] = str(error)
                state, values = "corrupt", {}
            head = (job.id, state, *(job.value(name) for name in named))
            lines += [(*head, item, value) for item, value in values.items()] or [(*head, np.nan, np.nan)]
        return pd.DataFrame(lines, columns=["job", "state", *named, "item", "value"])

    def items(self, job: Job) -> dict[str, float | None]:
        """The job's numbers in percent, by the matrix's definition and over its classes; empty without a result.

        Raises:
            UserError: Its record has none by this definition.
        """
        found = self.of(job)
        if not isinstance(found, Finished):
            return {}
        return items(found.record, self.matrix.definition, self.classes_in_mean(job))

    def classes_in_mean(self, job: Job) -> set[str] | None:
        """Return the classes of which both splits have `min_positives` images; None means all.

        By the record of the baseline of the same seed: a method that is given half of the images would else be averaged
        over the frequent ones of fewer classes. By the job's own record where that baseline has none.
        """
        found = self.of(job)
        if self.matrix.min_positives <= 1 or not isinstance(found, Finished) or found.record.single_label:
            return None
        baseline = self._baselines.get(_split(job), found)
        counted = baseline if isinstance(baseline, Finished) else found
        return counted.record.frequent(self.matrix.min_positives)

    @cached_property
    def _baselines(self) -> dict[tuple[Any, ...], Finished | Missing]:
        """By what its methods' runs share with it; the first where several do."""
        first = self.matrix.methods[0]
        return {_split(job): self.of(job) for job in reversed(self.matrix.jobs) if job.method == first}

    def pairs(self, ours: dict[int, tuple[str, float]], theirs: dict[int, tuple[str, float]]) -> Pairs:
        """Pair runs of one seed that were tested on the same images.

        Args:
            ours: seed -> run id and value in percent.
            theirs: The same of what the gains are over.
        """
        named = dict.fromkeys(run for side in (ours, theirs) for run, _ in side.values())
        found = {one.id: one for one in self.finished(named)}
        records = {run: one.record for run, one in found.items()}
        return pairing.pair(ours, theirs, records, {run: one.images for run, one in found.items()})

    def resample(
        self, groups: Iterable[Iterable[str]], rounds: int = ROUNDS, item: str | None = None,
        cache: Path | None = resampling.CACHE,
    ) -> Samples:  # fmt: skip
        """The mean number of each group of runs on bootstrap samples of their test images, in percent; only `item`
        where one is named. Classes that the matrix leaves out are left out, as in `items`. A group one of whose runs
        has no sample is left out, and an item that one lacks.

        Runs tested on the same images get the same samples, so their differences are paired; others independent ones.
        Each run's samples are made once and not kept: 100,000 would be 8 GB.
        """
        within: dict[str, list[Group]] = {}
        for group in dict.fromkeys(map(tuple, groups)):
            for name in group:
                within.setdefault(name, []).append(group)
        totals: Samples = {}
        lacking: set[Group] = set()
        for name, containing in within.items():
            found = self._by_id.get(name)
            drawn = None
            if isinstance(found, Finished):
                drawn = _resampled(found, self.classes_in_mean(self.jobs[name]), self.matrix.definition, rounds, cache)
            if drawn is None:
                lacking.update(containing)
                continue
            drawn = {name: 100 * values for name, values in drawn.items() if item in (None, name)}
            for group in containing:
                known = totals.setdefault(group, {name: np.zeros_like(values) for name, values in drawn.items()})
                totals[group] = {
                    name: np.add(known[name], drawn[name], out=known[name]) for name in known if name in drawn
                }
        resampling.draws.cache_clear()
        return {
            group: {name: total / np.float32(len(group)) for name, total in by_item.items()}
            for group, by_item in totals.items()
            if group not in lacking
        }


def _split(job: Job) -> tuple[Any, ...]:
    return tuple(getattr(job, name) for name in SAME_SPLIT)


def headline_classes(found: list[tuple[Job, Result]]) -> list[set[str] | None]:
    """For each run the classes that tables average its AP over, as `Results.classes_in_mean`, of the grid that has its
    data set and scale; None means all."""
    presets = {key: _preset(*key) for key in dict.fromkeys((job.dataset, job.scale) for job, _ in found)}
    baselines: dict[tuple[Any, ...], Result] = {}
    for job, record in found:
        if job.method == presets[job.dataset, job.scale][0]:
            baselines.setdefault((job.scale, _split(job)), record)
    kept: list[set[str] | None] = []
    for job, record in found:
        least = presets[job.dataset, job.scale][1]
        counted = baselines.get((job.scale, _split(job)), record)
        kept.append(None if least <= 1 or record.single_label else counted.frequent(least))
    return kept


def _preset(dataset: str, scale: str) -> tuple[str, int]:
    """The first method and the `min_positives` of the grid that has the scale of this data set; none is left out where
    there is no such grid."""
    for chosen in map(grid.load, grid.names()):
        if scale in chosen.scales:
            matrix = Matrix(chosen, scale)
            if any(job.dataset == dataset for job in matrix.jobs):
                return matrix.methods[0], matrix.min_positives
    return "", 1


def items(record: Result, definition: str, kept: set[str] | None = None) -> dict[str, float | None]:
    """Every measured number of a finished run, in percent. UserError where the record has none by this definition.

    kept: where given, any other class is None, and not in mAP.
    """
    if record.ap is None or record.mAP is None:
        shares = {"top1": record.top1, "top5": record.top5}
        values: dict[str, float | None] = {item: share for item, share in shares.items() if share is not None}
    else:
        if definition not in record.ap or definition not in record.mAP:
            raise UserError(f"{record.job}: result.json holds no average precision by the definition '{definition}'")
        ap, mean = record.ap[definition], record.mAP[definition]
        if kept is not None:
            ap = {name: value if name in kept else None for name, value in ap.items()}
            mean = metrics.mean_ap(list(ap.values()))
        values = ap | {"mAP": mean}
    return {item: None if value is None else 100 * value for item, value in values.items()}


def _resampled(
    found: Finished, wanted: set[str] | None, definition: str, rounds: int, cache: Path | None
) -> dict[str, np.ndarray] | None:
    """Shares, by item, in each bootstrap sample; None where the run has no scores that can be read."""
    content, saved = found.saved, found.scores
    if content is None or saved is None:
        return None
    labels, predicted, classes = saved.labels, saved.predicted, saved.classes
    if wanted is not None:
        kept = [c for c, name in enumerate(classes) if name in wanted]
        labels, predicted, classes = labels[:, kept], predicted[:, kept], [classes[c] for c in kept]
    key = resampling.cache_key(content, definition, classes, rounds)
    seed = int.from_bytes(hashlib.sha256("\n".join(map(str, saved.ids)).encode()).digest()[:8])
    return resampling.cached(
        cache, key, lambda: resampling.resampled(predicted, labels, classes, definition, rounds, seed)
    )
