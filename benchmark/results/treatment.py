"""What runs say about whether their method was applied: epochs, and how far their test scores agree."""

from collections.abc import Callable, Iterable
from itertools import combinations
from typing import NamedTuple

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
    return Measured(
        [(_last(one.epochs), _last(other.epochs)) for one, other in pairs],
        _mean_agreement((one.scores, other.scores) for one, other in pairs),
        _between_seeds([other.scores for _, other in pairs[:MOST_SEEDS]]),
    )


def _last(epochs: list[Epoch]) -> Epoch | None:
    return epochs[-1] if epochs else None


def _mean_agreement(pairs: Iterable[tuple[Scores | None, Scores | None]]) -> float | None:
    found = [agreement(a, b) for a, b in pairs if a is not None and b is not None]
    return float(np.mean(found)) if found else None


def _between_seeds(saved: list[Scores | None]) -> float | None:
    """Of every two of the first seeds: of all of many, there are too many pairs."""
    return _mean_agreement(combinations(saved[:MOST_SEEDS], 2))


def agreement(a: Scores, b: Scores) -> float:
    """Of two networks on the same test images: Spearman's correlation of a class's scores, mean over the classes; or,
    of one label an image, the share of images whose first class is the same."""
    measure: Callable[[np.ndarray, np.ndarray], float] = _spearman if a.labels.ndim == 2 else _same_first
    return measure(a.predicted, b.predicted)


def _same_first(a_NK: np.ndarray, b_NK: np.ndarray) -> float:
    return float(np.mean(a_NK[:, 0] == b_NK[:, 0]))


def _spearman(a_NC: np.ndarray, b_NC: np.ndarray) -> float:
    """Tied scores share their mean rank: a bfloat16 network's logits are often equal."""
    import pandas as pd

    a, b = (pd.DataFrame(x_NC).rank() for x_NC in (a_NC, b_NC))
    return float(a.corrwith(b).mean())
