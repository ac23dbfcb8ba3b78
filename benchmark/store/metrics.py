"""Average precision by its three definitions, and top-k accuracy, from saved scores. NumPy alone: no GPU is needed to
check a run."""

from collections.abc import Callable
from typing import Any

import numpy as np

TOP = 5  # classes an image that accuracy looks at, at most
BLOCK = 256  # rows of counts at once: their curves stay in a processor's cache


def precision_recall(scores_N: np.ndarray, labels_N: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Precision and recall at each distinct score, from the highest down.

    labels: 1 present, 0 only difficult (left out, as the VOC development kit does), -1 absent. Images with the same
    score come in together, so the order in which ties are stored does not matter. ValueError for a score that is
    not a number: no ranking contains it.
    """
    if not np.isfinite(scores_N).all():
        raise ValueError("scores contain NaN or infinity: the network diverged")
    kept = labels_N != 0
    scores_N, positive_N = scores_N[kept], labels_N[kept] == 1
    order = np.argsort(-scores_N, kind="stable")
    scores_N, positive_N = scores_N[order], positive_N[order]
    last_of_tie = np.append(np.flatnonzero(np.diff(scores_N)), len(scores_N) - 1)
    true_positives = np.cumsum(positive_N)[last_of_tie]
    return true_positives / (last_of_tie + 1), true_positives / max(1, positive_N.sum())


def area(precision: np.ndarray, recall: np.ndarray) -> np.ndarray:
    """VOC 2010 and later: area under the curve whose precision is made to fall monotonically (devkit, VOCap.m).

    The devkit counts tied images in the order of the list; ours come in together, the lowest AP of any order."""
    return raw_area(np.maximum.accumulate(precision[..., ::-1], axis=-1)[..., ::-1], recall)


def raw_area(precision: np.ndarray, recall: np.ndarray) -> np.ndarray:
    """Area under the curve as it is, by steps; scikit-learn's average_precision_score."""
    return np.sum(np.diff(recall, prepend=0.0, axis=-1) * precision, axis=-1)


def eleven_point(precision: np.ndarray, recall: np.ndarray) -> np.ndarray:
    """VOC 2007: the mean, over recall 0, 0.1, ..., 1, of the best precision at that recall or beyond.

    The devkit misses a recall that is exactly 0.3, 0.6 or 0.7, by rounding; ours does not."""
    # Recalls are multiples of 1/P; a tenth that floats a rounding error above one must not miss it.
    at = [np.max(precision, axis=-1, where=recall >= t - 1e-9, initial=0.0) for t in np.linspace(0, 1, 11)]
    return np.mean(np.stack(at, axis=-1), axis=-1)


# Of a curve (..., M), its points from the highest score down, to (...).
DEFINITIONS: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "area": area,
    "raw_area": raw_area,
    "11_point": eleven_point,
}


def average_precision(scores_N: np.ndarray, labels_N: np.ndarray, definition: str = "area") -> float | None:
    """AP in [0, 1] of one class, or None where no image shows it. See `precision_recall` for labels and errors."""
    if not (labels_N == 1).any():
        return None
    return float(DEFINITIONS[definition](*precision_recall(scores_N, labels_N)))


def resampled_ap(scores_N: np.ndarray, labels_N: np.ndarray, counts_RN: np.ndarray, definition: str) -> np.ndarray:
    """AP (R,) in [0, 1] of one class where image n counts counts_RN[r, n] times; NaN where a row holds no positive.

    `average_precision` of the repeated images to within rounding, without sorting R times. It looks at the curve only
    where positives come in: between them precision falls and recall stays, which no definition can see. That is three
    times faster, and sums in another order: recorded numbers are `average_precision`'s, to the last bit.
    """
    kept = np.flatnonzero(labels_N != 0)
    order = kept[np.argsort(-scores_N[kept], kind="stable")]
    positive = np.flatnonzero(labels_N[order] == 1)
    if not len(positive):
        return np.full(len(counts_RN), np.nan)
    tie_N = np.concatenate([[0], np.cumsum(np.diff(scores_N[order]) != 0)])
    seen, first = np.unique(tie_N[positive], return_index=True)
    starts = np.append(0, np.searchsorted(tie_N, seen, side="right"))  # a tie with positives ends each stretch
    order, of_positives, ap = order[: starts[-1]], order[positive], []
    for start in range(0, len(counts_RN), BLOCK):
        counts = counts_RN[start : start + BLOCK]
        retrieved = np.add.reduceat(counts[:, order], starts[:-1], axis=1, dtype=np.int32).cumsum(axis=1)
        hits = np.add.reduceat(counts[:, of_positives], first, axis=1, dtype=np.int32).cumsum(axis=1)
        curve = hits / np.maximum(1, retrieved), hits / np.maximum(1, hits[:, -1:])
        ap.append(np.where(hits[:, -1] > 0, DEFINITIONS[definition](*curve), np.nan))
    return np.concatenate(ap)


def per_class_ap(scores_NC: np.ndarray, labels_NC: np.ndarray, definition: str = "area") -> list[float | None]:
    """AP of each of the C columns."""
    return [average_precision(scores_NC[:, c], labels_NC[:, c], definition) for c in range(labels_NC.shape[1])]


def mean_ap(ap: list[float | None]) -> float | None:
    """Mean over the classes that have positives; None where none has."""
    values = [value for value in ap if value is not None]
    return sum(values) / len(values) if values else None


def top_classes(scores_NC: np.ndarray, k: int) -> np.ndarray:
    """Numbers of the k classes with the highest scores (N, min(k, C)), the highest first.

    Of equal scores the lower class number ranks first, as argmax has it, so that a constant predictor is not right
    everywhere. ValueError for scores that are not numbers.
    """
    if not np.isfinite(scores_NC).all():
        raise ValueError("scores contain NaN or infinity: the network diverged")
    left_NC, ranked = scores_NC.copy(), []
    for _ in range(min(k, scores_NC.shape[1])):
        ranked.append(left_NC.argmax(axis=1))
        np.put_along_axis(left_NC, ranked[-1][:, None], -np.inf, axis=1)
    return np.stack(ranked, axis=1)


def among_top(top_NK: np.ndarray, labels_N: np.ndarray, k: int) -> np.ndarray:
    """Whether the true class is among the first k of `top_classes`, (N,) of bool; its mean is top-k accuracy."""
    return (top_NK[:, :k] == labels_N[:, None]).any(axis=1)


def headline(scores_NC: np.ndarray, labels: np.ndarray) -> tuple[str, float | None]:
    """Name and value, in [0, 1], of what the paper reports: mAP for (N, C) labels, top1 for (N,) class numbers."""
    if labels.ndim == 2:
        return "mAP", mean_ap(per_class_ap(scores_NC, labels))
    return "top1", float(among_top(top_classes(scores_NC, 1), labels, 1).mean())


def summary(scores_NC: np.ndarray, labels: np.ndarray, classes: tuple[str, ...]) -> dict[str, Any]:
    """All metrics of a run as plain data, in [0, 1]; an AP is None where no test image shows the class."""
    if labels.ndim == 1:
        top_NK = top_classes(scores_NC, TOP)
        return {f"top{k}": float(among_top(top_NK, labels, k).mean()) for k in (1, TOP)}
    ap = {definition: per_class_ap(scores_NC, labels, definition) for definition in DEFINITIONS}
    return {
        "ap": {definition: dict(zip(classes, values, strict=True)) for definition, values in ap.items()},
        "mAP": {definition: mean_ap(values) for definition, values in ap.items()},
        "num_positive": dict(zip(classes, (labels == 1).sum(0).tolist(), strict=True)),
    }
