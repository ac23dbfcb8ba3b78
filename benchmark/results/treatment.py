"""What runs say about whether their method was applied: epochs, and how far their test scores agree."""

from collections.abc import Iterable
from itertools import chain, combinations
from typing import Any, NamedTuple

import numpy as np

from benchmark.results.results import Results
from benchmark.store.records import Epoch
from benchmark.store.scores import Scores

MOST_SEEDS = 20  # whose scores are held against each other's


class Measured(NamedTuple):
    """Of pairs of one seed, a method's run and the one that it is compared with.

    Attributes:
        last_epochs: Their last logged epochs; None where none is logged.
        agreement: Of the two runs' test scores, mean over the pairs, in [-1, 1]; None where they were not saved.
        agreement_of_seeds: The same of every two seeds of what is compared with.
    """

    last_epochs: list[tuple[Epoch | None, Epoch | None]]
    agreement: float | None
    agreement_of_seeds: float | None


def measured(results: Results, ours: dict[int, str], theirs: dict[int, str]) -> Measured:
    """Read the pairs of a method's runs (seed -> run id) and of what it is compared with."""
    pairs = [(results.by_id(ours[seed]), results.by_id(theirs[seed])) for seed in ours if seed in theirs]
    first = [comparable(other.scores) for _, other in pairs[:MOST_SEEDS]]  # ranked once for all that look at them
    later = (comparable(other.scores) for _, other in pairs[MOST_SEEDS:])
    return Measured(
        [(_last(one.epochs), _last(other.epochs)) for one, other in pairs],
        _mean_agreement(zip((comparable(one.scores) for one, _ in pairs), chain(first, later), strict=True)),
        _between_seeds(first),
    )


def _last(epochs: list[Epoch]) -> Epoch | None:
    return epochs[-1] if epochs else None


def comparable(saved: Scores | None) -> Any:
    """What scores are compared by: ranks of each class's among the images, a DataFrame (N, C); or, of one label an
    image, the first classes (N,). Tied scores share their mean rank: a bfloat16 network's logits are often equal."""
    import pandas as pd

    if saved is None:
        return None
    return pd.DataFrame(saved.predicted).rank() if saved.labels.ndim == 2 else saved.predicted[:, 0]


def _mean_agreement(pairs: Iterable[tuple[Any, Any]]) -> float | None:
    found = [agreement(a, b) for a, b in pairs if a is not None and b is not None]
    return float(np.mean(found)) if found else None


def _between_seeds(compared: list[Any]) -> float | None:
    """Of every two of the first seeds: of all of many, there are too many pairs."""
    return _mean_agreement(combinations(compared[:MOST_SEEDS], 2))


def agreement(a: Any, b: Any) -> float:
    """Of two networks on the same test images, by what `comparable` says: Spearman's correlation of a class's scores,
    mean over the classes; or the share of images whose first class is the same."""
    if isinstance(a, np.ndarray):
        return float(np.mean(a == b))
    return float(a.corrwith(b).mean())
