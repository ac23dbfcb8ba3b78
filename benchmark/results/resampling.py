"""A run's numbers on test sets drawn again from its test images (Efron, 1979), and a cache of them."""

import hashlib
import io
import json
from collections.abc import Callable
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

import numpy as np

from benchmark.errors import UserError
from benchmark.store import metrics
from benchmark.store.files import write_atomic

ROUNDS = 10_000  # ends of a 95% interval to within 2.7% of a standard deviation
CACHE = Path(".cache/bootstrap")
BLOCK = 64  # rows turned to floats at once for a matrix product; they stay in a processor's cache


@lru_cache(maxsize=1)  # runs tested on the same images follow each other
def draws(num_images: int, rounds: int = ROUNDS, seed: int = 0) -> np.ndarray:
    """How often each image is in each test set of `num_images` drawn with replacement: (rounds, N), read-only.

    The same seed and sizes give the same draws, so two runs resampled alike stay paired by image. One byte an image:
    10,000 rounds of ILSVRC2012 are 500 MB.
    """
    rng = np.random.default_rng(seed)
    counts_RN = np.empty((rounds, num_images), np.uint8)  # one of many images is not drawn 256 times
    for row in counts_RN:
        row[:] = np.bincount(rng.integers(num_images, size=num_images, dtype=np.uint32), minlength=num_images)
    counts_RN.flags.writeable = False
    return counts_RN


def resampled(
    predicted: np.ndarray, labels: np.ndarray, classes: list[str], definition: str, rounds: int = ROUNDS, seed: int = 0
) -> dict[str, np.ndarray]:
    """Every measured number of a run in each drawn test set: item -> (rounds,) float32 in [0, 1].

    labels (N, C) of 1, 0 and -1, predicted their scores (N, C): the AP of each class, and mAP over those that the draw
    shows. labels (N,) of class numbers, predicted the best class numbers (N, TOP): top1 and top5.
    """
    counts_RN = draws(len(labels), rounds, seed)
    if labels.ndim == 1:
        hits_N2 = np.stack([metrics.among_top(predicted, labels, k) for k in (1, metrics.TOP)], axis=1)
        starts = range(0, rounds, BLOCK)  # float32 counts to 2^24 exactly
        hits_R2 = [counts_RN[i : i + BLOCK].astype(np.float32) @ hits_N2.astype(np.float32) for i in starts]
        return dict(zip(("top1", f"top{metrics.TOP}"), (np.concatenate(hits_R2) / len(labels)).T, strict=True))
    values = {
        name: metrics.resampled_ap(predicted[:, c], labels[:, c], counts_RN, definition)
        for c, name in enumerate(classes)
        if (labels[:, c] == 1).any()
    }
    values |= {"mAP": np.nanmean(list(values.values()), axis=0)} if values else {}
    return {name: value.astype(np.float32) for name, value in values.items()}


def cache_key(scores: bytes, definition: str, classes: list[str], rounds: int) -> str:
    """Of all that a run's samples depend on, the code that makes them included; `scores` is its scores.npz."""
    code = [Path(module).read_bytes() for module in (__file__, metrics.__file__)]
    parts = [*(hashlib.sha256(data).hexdigest() for data in (scores, *code)), definition, classes, rounds]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def cached(folder: Path | None, key: str, make: Callable[[], dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """What `make` returns, from folder/key.npz if that is whole. A cache that cannot be used costs time only."""
    if folder is None:
        return make()
    path = folder / f"{key}.npz"
    with suppress(Exception), np.load(io.BytesIO(path.read_bytes())) as saved:  # whatever a damaged zip can raise
        return dict(zip(saved["items"].tolist(), saved["values"], strict=True))
    values, buffer = make(), io.BytesIO()
    np.savez(buffer, items=np.array(list(values), str), values=np.array(list(values.values()), np.float32))
    with suppress(UserError):
        write_atomic(path, buffer.getvalue())
    return values
