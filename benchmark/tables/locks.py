"""Locks: what a claim will be judged by, written down with date and commit before its runs.

published/locks.jsonl has a line for each time that `lock` was called: the claims that were new or had changed, each
with its terms and their SHA-256. Terms are what a verdict rests on and nothing else: the claimed gain, the looks, the
tolerance, the frozen readings, the definition of the metric, and the ids of every job that may be counted, in which a
grid's protocol and assumptions are hashed. So a comment, another grid, another scale or another table breaks no lock.
"""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from benchmark.errors import UserError
from benchmark.matrix import grid
from benchmark.matrix.grid import Grid
from benchmark.matrix.job import Job
from benchmark.matrix.matrix import Matrix
from benchmark.store import code
from benchmark.store.files import write_atomic
from benchmark.store.records import Result
from benchmark.tables import published
from benchmark.tables.published import Row, Spec

FILE = "locks.jsonl"
NOT_LOCKED = "not locked"


class Terms(BaseModel):
    """What one claim is judged by. jobs: a SHA-256 of the ids of all that may be counted."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    claimed: float
    item: str
    definition: str
    min_positives: int
    tolerance: float | None
    looks: list[int]
    readings: list[dict[str, Any]]
    jobs: str

    @property
    def sha256(self) -> str:
        return hashlib.sha256(json.dumps(self.model_dump(), sort_keys=True).encode()).hexdigest()

    def changed_in(self, other: "Terms") -> list[str]:
        """The terms that are other there."""
        ours, theirs = self.model_dump(), other.model_dump()
        return [name for name in ours if ours[name] != theirs[name]]


class Locked(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    sha256: str
    terms: Terms


class Lock(BaseModel):
    """A line of the file. commit: the checkout whose grids and tables these terms are of."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    date: str
    commit: str
    claims: dict[str, Locked]  # by address, as table2:mAP:mine

    @property
    def name(self) -> str:
        return f"the lock of {self.date[:10]} (commit {self.commit[:12]})"


@dataclass(frozen=True)
class Book:
    """The locks beside a folder's tables, oldest first, and each as its line stands in the file."""

    path: Path | None = None
    locks: tuple[Lock, ...] = ()
    lines: tuple[str, ...] = ()

    def last(self, address: str) -> int | None:
        """Number of the newest lock of a claim."""
        return next((i for i in reversed(range(len(self.locks))) if address in self.locks[i].claims), None)


def place(folder: Path) -> Path:
    """The book's file: of a folder of tables or, where these are the package's, of the package."""
    return (folder if (folder / FILE).exists() else published.home(folder)) / FILE


def read(folder: Path) -> Book:
    """The book of a folder of tables. UserError where a line is no lock, or not as it was written."""
    path = place(folder)
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    locks = []
    for number, line in enumerate(lines, 1):
        try:
            lock = Lock.model_validate_json(line)
        except ValidationError as error:
            problem = error.errors()[0]
            at = ".".join(map(str, problem["loc"]))
            raise UserError(f"{path}:{number}: {at}: {problem['msg']}; restore the line from git") from None
        for address, locked in lock.claims.items():
            if locked.terms.sha256 != locked.sha256:
                raise UserError(f"{path}:{number}: {address}: not the terms of its hash; restore the line from git")
        locks.append(lock)
    return Book(path, tuple(locks), tuple(lines))


@dataclass(frozen=True)
class Claim:
    """A published gain of one method. source, of: the table of runs and its row that it is judged by."""

    spec: Spec
    row: str
    column: str
    claimed: float
    source: Spec
    of: Row

    @property
    def address(self) -> str:
        return f"{self.spec.name}:{self.row}:{self.column}"


def claims_of(spec: Spec, by_name: dict[str, Spec]) -> Iterator[Claim]:
    """A table's claims; `by_name` holds the tables that a headline's rows name."""
    for row in spec.rows:
        source = by_name.get(row.table or "") if spec.of_gains else spec
        of = next((r for r in source.rows if r.key == row.of), None) if source and spec.of_gains else row
        for i, column in enumerate(spec.columns):
            claimed = row.published[i] if spec.of_gains else _gain(row, i)
            if (
                not column.published_only
                and isinstance(claimed, int | float)
                and source
                and of
                and (row.claim or spec.of_gains)
            ):
                yield Claim(spec, row.key, column.key, float(claimed), source, of)


def _gain(row: Row, i: int) -> float | None:
    value, first = row.published[i], row.published[0]
    known = i and isinstance(value, int | float) and isinstance(first, int | float)
    return round(float(value) - float(first), 6) if known else None  # type: ignore[arg-type]


def terms(claim: Claim, chosen: Grid | None = None, scale: str = "paper") -> Terms:
    """What a claim is judged by at a scale, as grids and tables have it now.

    Scale paper has its looks and readings from the claim's table, another scale has both from its plan.
    """
    source = claim.source
    assert source.grid is not None, "a table of runs"
    chosen = chosen or grid.load(source.grid)
    looks, readings = claim.spec.looks or [], source.readings
    if plan := chosen.scale_of(scale).plan:
        looks, readings = plan.looks, plan.variants
    methods = (source.columns[0].key, claim.column)
    matrix = Matrix(chosen, scale)
    ids = sorted({
        job.id
        for reading in readings
        for job in frozen_jobs(chosen, reading, max(looks, default=0), scale)
        if job.method in methods and all(getattr(job, k) == v for k, v in matrix.row_filter(claim.of.where).items())
    })  # fmt: skip
    return Terms(
        claimed=claim.claimed, item=claim.of.item or claim.of.key, definition=matrix.definition,
        min_positives=matrix.min_positives, tolerance=claim.spec.tolerance, looks=looks, readings=readings,
        jobs=hashlib.sha256("\n".join(ids).encode()).hexdigest(),
    )  # fmt: skip


def frozen_jobs(chosen: Grid, reading: dict[str, Any], num_seeds: int, scale: str = "paper") -> list[Job]:
    """The jobs of a reading at a scale, for the first seeds."""
    return chosen.jobs(scale, reading | {"seed": list(range(num_seeds))})


def frozen_reading(spec: Spec, matrix: Matrix) -> dict[str, Any] | None:
    """The frozen reading whose jobs a matrix has, for seeds 0, 1, 2, ...; None where it has others: exploratory."""
    seeds, columns = matrix.seeds, {column.key for column in spec.columns}
    if matrix.scale != "paper" or seeds != list(range(len(seeds))):
        return None
    ids = {job.id for job in matrix.whole.jobs if job.method in columns}
    for reading in spec.readings:
        if ids <= {job.id for job in frozen_jobs(matrix.grid, reading, len(seeds))}:
            return reading
    return None


def standing(claim: Claim, chosen: Grid, records: list[Result], book: Book) -> tuple[bool, str]:
    """Whether a claim's verdict is confirmatory, and what is to be said of its lock: it is where its terms are locked
    and every run came after that. A run did when its commit holds the lock."""
    number = book.last(claim.address)
    if number is None:
        return False, NOT_LOCKED
    lock = book.locks[number]
    changed = lock.claims[claim.address].terms.changed_in(terms(claim, chosen))
    if changed:
        return False, f"{NOT_LOCKED} as it is now: {', '.join(changed)} changed since {lock.name}"
    came_after = [_holds(record, book, number) for record in records]
    if False in came_after:
        return False, f"not confirmatory: run before {lock.name}"
    if None in came_after:
        return False, f"not confirmatory: not known whether the runs came after {lock.name}"
    return True, f"confirmatory: run after {lock.name}"


def _holds(record: Result, book: Book, number: int) -> bool | None:
    """Whether the run's commit holds the lock; None where git cannot tell."""
    assert book.path is not None, "a book with locks was read"
    if record.code is None or record.code.commit is None:
        return None
    held = code.text_at(record.code.commit, book.path)
    return None if held is None else book.lines[number] in held.splitlines()


def unlocked(specs: dict[str, Spec], book: Book) -> dict[str, tuple[Terms, str]]:
    """The claims that have no lock as they are now, with their terms and what is missing or changed."""
    found = {}
    for address, claim, scale in _lockable(specs):
        now, number = terms(claim, scale=scale), book.last(address)
        if number is None:
            found[address] = now, NOT_LOCKED
        elif changed := book.locks[number].claims[address].terms.changed_in(now):
            before = book.locks[number].claims[address].terms.model_dump()
            told = [f"{name} {before[name]} -> {now.model_dump()[name]}" for name in changed]
            found[address] = now, f"changed since {book.locks[number].name}: {'; '.join(told)}"
    return found


def _lockable(specs: dict[str, Spec]) -> Iterator[tuple[str, Claim, str]]:
    """Each claim at scale paper and at each scale that has a plan, by its address: `year2008/table2:mAP:mine`."""
    for spec in specs.values():
        for claim in claims_of(spec, specs):
            yield claim.address, claim, "paper"
            assert claim.source.grid is not None, "a table of runs"
            planned = [name for name, scale in grid.load(claim.source.grid).scales.items() if scale.plan]
            yield from ((f"{name}/{claim.address}", claim, name) for name in planned)


def append(book: Book, claims: dict[str, Terms], commit: str) -> Lock:
    """Add a lock of these claims, dated now, to the book's file."""
    assert book.path is not None, "a book that was read"
    lock = Lock(
        date=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        commit=commit,
        claims={address: Locked(sha256=of.sha256, terms=of) for address, of in claims.items()},
    )
    lines = [*book.lines, json.dumps(lock.model_dump(), sort_keys=True)]
    write_atomic(book.path, "".join(f"{line}\n" for line in lines).encode())
    return lock
