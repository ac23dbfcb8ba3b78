"""Whether a record's numbers are those of its scores: every reader of results asks here before it shows one. No torch.

What cannot be found out from the files of one run: that somebody wrote scores and record to fit each other. Training
the job again would show it.
"""

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from benchmark.errors import UserError
from benchmark.store import metrics, scores
from benchmark.store.records import Result
from benchmark.store.run import Run
from benchmark.store.scores import Scores

CACHE = Path(".cache/verified-scores")  # a line for each pair of scores and numbers that agree
NOISE = 1e-9  # of a share: sums are rounded in another order by another processor
MEASURED = {"top1", "top5", "ap", "mAP", "num_positive"}
RESTORE = "restore it, or move the folder away and run the job anew"


class Checked(NamedTuple):
    """A run as it was read.

    Attributes:
        record: Its result.
        unverified: Why its numbers are unverified; empty where they were computed again and are the same.
        saved: Its scores.npz; None where the record was not compared with it.
        parsed: Its scores; None too where an earlier comparison is known.
    """

    record: Result | None
    unverified: str
    saved: bytes | None = None
    parsed: Scores | None = None


def opened(run: Run, known: Path | None = CACHE) -> Checked:
    """Read the run's result and scores, each once, and compare the two.

    Args:
        run: Its folder.
        known: The file of what was verified before; None computes in any case.

    Raises:
        UserError: The record or its scores are corrupt, or they contradict each other.
    """
    record = run.result()
    if record is None or not record.model_dump(include=MEASURED, exclude_none=True):
        return Checked(record, "")
    if not os.path.lexists(run.path("scores.npz")):
        return Checked(record, "it keeps no scores")
    saved = scores.content(run, record)
    key, parsed = _key(saved, record), None
    if known is None or key not in _lines(known):
        parsed = scores.parse(run, saved, record)
        _compare(run, record, parsed)
        if known is not None:
            _remember(known, key)
    return Checked(record, "" if record.scores_sha256 else "it does not name its scores", saved, parsed)


def checked(run: Run, known: Path | None = CACHE) -> tuple[Result | None, str]:
    """The run's result and why its numbers are unverified; UserError as in `opened`."""
    found = opened(run, known)
    return found.record, found.unverified


def recomputed(saved: Scores) -> dict[str, Any]:
    """The measured part of a result, from the scores alone. ValueError for scores that are not numbers."""
    if saved.labels.ndim == 2:
        return metrics.summary(saved.predicted, saved.labels, tuple(saved.classes))
    return {f"top{k}": float(metrics.among_top(saved.predicted, saved.labels, k).mean()) for k in (1, metrics.TOP)}


def _compare(run: Run, record: Result, saved: Scores) -> None:
    path = run.path("result.json")
    try:
        computed = recomputed(saved)
    except Exception as error:  # labels of any shape, scores that are not numbers
        raise UserError(f"{run.path('scores.npz')}: no scores to compute from ({error}); {RESTORE}") from None
    said = record.model_dump(include=MEASURED, exclude_none=True)
    for name, theirs, ours in _differences(said, {k: v for k, v in computed.items() if k in said}):
        raise UserError(f"{path}: says {name} {theirs}, its scores give {ours}; {RESTORE}")
    if record.num_test not in (None, len(saved.ids)):
        raise UserError(f"{path}: says {record.num_test} test images, its scores are of {len(saved.ids)}; {RESTORE}")
    if record.data is not None and record.data.test.sha256 != scores.digest(saved.ids, saved.labels):
        raise UserError(f"{path}: its scores are of other test images or labels than it says; {RESTORE}")


def _differences(said: Any, computed: Any, name: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Each number's name, as said and as computed, where these differ."""
    if isinstance(said, dict) and isinstance(computed, dict):
        for key in dict.fromkeys([*computed, *said]):
            yield from _differences(said.get(key), computed.get(key), f"{name}.{key}".lstrip("."))
    elif isinstance(said, float) and isinstance(computed, float):
        if abs(said - computed) > NOISE:
            yield name, f"{said:.6g}", f"{computed:.6g}"
    elif said != computed:
        yield name, said, computed


def _key(saved: bytes, record: Result) -> str:
    """Of all that the comparison depends on, its own code included."""
    parts = [*(hashlib.sha256(data).hexdigest() for data in (saved, record.model_dump_json().encode())), _code()]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


@cache
def _code() -> str:
    files = (Path(str(module)).read_bytes() for module in (__file__, metrics.__file__, scores.__file__))
    return hashlib.sha256(b"\0".join(files)).hexdigest()


@cache
def _lines(known: Path) -> set[str]:
    try:
        return set(known.read_text("ascii").splitlines())
    except (OSError, ValueError):
        return set()


def _remember(known: Path, key: str) -> None:
    """A cache that cannot be written costs time only."""
    _lines(known).add(key)
    with suppress(OSError):
        known.parent.mkdir(parents=True, exist_ok=True)
        with open(known, "a", encoding="ascii") as file:
            file.write(f"{key}\n")
