"""scores.npz: what a run keeps of its test set.

Everything that a metric needs without the data, as arrays:

    ids, labels     of the test images: labels (N, C) of 1 present, 0 only difficult, -1 absent; or (N,) class numbers
    train_ids       the images trained on, where they are few enough to name
    classes         with (N, C) labels: the C names
    scores          with (N, C) labels: logits (N, C)
    top_classes     with (N,) labels: numbers of the TOP classes with the highest logits (N, TOP), the highest first
    top_log_probs   and their natural log-probabilities (N, TOP). All logits of ILSVRC2012 would be 200 MB a run,
                    and hardly compress
    maps_images     a few test images by their place among the ids (M,), the same for all runs on a data set
    maps_grad_cam   maps at the last layer of their TOP classes, the highest first (M, TOP, h, w): 0 ... 255, each
    maps_a_ch       by its own maximum (methods/overlap.py)
"""

import hashlib
import io
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmark.errors import UserError
from benchmark.store.files import read_regular, write_atomic
from benchmark.store.metrics import TOP, top_classes
from benchmark.store.records import Result
from benchmark.store.run import Run


@dataclass(frozen=True)
class Scores:
    """As read. `predicted` is what the labels are compared with: logits (N, C) or class numbers (N, TOP)."""

    ids: np.ndarray
    labels: np.ndarray
    predicted: np.ndarray
    classes: list[str]


@dataclass(frozen=True)
class Maps:
    """Attention maps of a few test images, as kept."""

    at: np.ndarray  # the images' places among the ids (M,)
    classes_MK: np.ndarray  # numbers of the classes with the highest scores, the highest first
    share_MK: np.ndarray  # and what the network gives them: a sigmoid's or a softmax's, 0 ... 1
    by_kind: dict[str, np.ndarray]  # (M, K, h, w) of 0 ... 1, each by its own maximum; 0 everywhere where it is blank


def write(
    run: Run,
    ids: np.ndarray,
    labels: np.ndarray,
    scores_NC: np.ndarray,
    classes: tuple[str, ...],
    train_ids: np.ndarray | None = None,
    maps: dict[str, np.ndarray] | None = None,
) -> str:
    """Save logits (N, C), and maps by the end of their names; returns the file's SHA-256, which result.json names."""
    arrays: dict[str, Any] = {"ids": ids, "labels": labels}
    if labels.ndim == 2:
        arrays |= {"classes": np.array(classes), "scores": scores_NC}
    else:
        top_NK = top_classes(scores_NC, TOP)
        log_probs_NK = np.take_along_axis(log_softmax(scores_NC), top_NK, axis=1)
        arrays |= {"top_classes": top_NK.astype(np.uint16), "top_log_probs": log_probs_NK.astype(np.float32)}
    if train_ids is not None:
        arrays["train_ids"] = train_ids
    arrays |= {f"maps_{name}": array for name, array in (maps or {}).items()}
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    write_atomic(run.path("scores.npz"), buffer.getvalue())
    return hashlib.sha256(buffer.getvalue()).hexdigest()


def log_softmax(scores_NC: np.ndarray) -> np.ndarray:
    """Natural log-probabilities (N, C), float64."""
    shifted_NC = scores_NC - scores_NC.max(axis=1, keepdims=True).astype(np.float64)
    return shifted_NC - np.log(np.exp(shifted_NC).sum(axis=1, keepdims=True))


def digest(ids: np.ndarray, labels: np.ndarray) -> str:
    """SHA-256 of a split's image ids and labels, in order: which images, whatever folder they lie in."""
    content = hashlib.sha256("\n".join(map(str, ids)).encode())
    content.update(np.ascontiguousarray(labels, dtype=np.int64).tobytes())
    return content.hexdigest()


def read(run: Run) -> Scores:
    """The saved test scores. UserError where they are missing, damaged, or not the ones the result was made from."""
    record = run.result()
    return parse(run, content(run, record), record)


def content(run: Run, record: Result | None) -> bytes:
    """scores.npz as it lies there, compared with the digest in the record. UserError as in `read`."""
    path = run.path("scores.npz")
    saved = read_regular(path)
    if saved is None:
        raise UserError(f"{path}: missing")
    digest = record.scores_sha256 if record else None
    if digest not in (None, hashlib.sha256(saved).hexdigest()):
        raise UserError(f"{path}: not the scores that result.json was made from; restore it, or move the folder away")
    return saved


def parse(run: Run, saved: bytes, record: Result | None) -> Scores:
    """UserError as in `read`."""
    try:
        with np.load(io.BytesIO(saved)) as arrays:
            ids, labels = arrays["ids"], arrays["labels"]
            predicted = arrays["scores" if labels.ndim == 2 else "top_classes"]
            if predicted.ndim != 2 or not len(ids) == len(labels) == len(predicted):
                raise ValueError("not as many ids, labels and rows of scores")
            "\n".join(map(str, ids)).encode()  # as `digest` has them: an array can hold letters that there are none of
            if predicted.dtype.kind != ("f" if labels.ndim == 2 else "u"):
                raise ValueError(f"scores of type {predicted.dtype}")
            ap = record.ap if record else None
            classes = _classes(arrays, ap, predicted.shape[1]) if labels.ndim == 2 else []
    except Exception as error:  # whatever a damaged zip can raise, zlib.error and EOFError among them
        path = run.path("scores.npz")
        raise UserError(f"{path}: not a file of scores ({type(error).__name__}: {error})") from None
    return Scores(ids, labels, predicted, classes)


def maps(run: Run) -> Maps | None:
    """None where a run keeps none, as those before November 2026. UserError as in `read`."""
    return parse_maps(run, content(run, run.result()))


def parse_maps(run: Run, saved: bytes) -> Maps | None:
    """As `maps`, of its scores.npz as it lies there."""
    try:
        with np.load(io.BytesIO(saved)) as arrays:
            if "maps_images" not in arrays:
                return None
            at, many = arrays["maps_images"], arrays["labels"].ndim == 2
            if many:
                classes_MK = top_classes(arrays["scores"][at], TOP)
                share_MK = 1 / (1 + np.exp(-np.take_along_axis(arrays["scores"][at], classes_MK, axis=1)))
            else:
                classes_MK, share_MK = arrays["top_classes"][at], np.exp(arrays["top_log_probs"][at])
            kinds = [
                name.removeprefix("maps_") for name in arrays if name.startswith("maps_") and name != "maps_images"
            ]
            by_kind = {kind: arrays[f"maps_{kind}"] / 255 for kind in kinds}
            if any(maps.ndim != 4 or maps.shape[:2] != classes_MK.shape for maps in by_kind.values()):
                raise ValueError("not a map for each image and class")
    except Exception as error:  # as in `parse`
        path = run.path("scores.npz")
        raise UserError(f"{path}: not a file of scores ({type(error).__name__}: {error})") from None
    return Maps(at, classes_MK, share_MK, by_kind)


def _classes(arrays: Any, ap: dict[str, Any] | None, columns: int) -> list[str]:
    # The first records do not name them. Theirs is VOC, whose classes are in the order of a record's sorted keys.
    recorded = next(iter(ap.values())) if ap else {}
    classes = arrays["classes"].tolist() if "classes" in arrays else sorted(recorded)
    if len(classes) != columns:
        raise ValueError(f"{columns} columns for {len(classes)} classes")
    return classes
