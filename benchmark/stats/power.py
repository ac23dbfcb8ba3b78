"""How often each verdict on a claim falls, by simulation of the rule itself, and how many seeds decide it.

Pure functions on numbers, in points. Formulas, sources, limits: docs/statistics.md.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from benchmark.stats import intervals
from benchmark.stats.claims import LOOKS, level_of_look
from benchmark.stats.intervals import LEVEL, POWER, ImageParts

ROUNDS = 10_000  # simulated experiments: a rate to within 0.4 points at one half
GATE_LEVEL = 1 - (1 - LEVEL) / 2  # of the interval of one of two layers


@dataclass(frozen=True)
class Gate:
    """By how much a method moves the overlap of its maps at one layer, and its standard deviation over seeds.

    A claim is "not reproduced" only where the overlap is seen to have fallen, whatever the gain's interval says.
    """

    change: float
    std: float


@dataclass(frozen=True)
class Design:
    """What is assumed of a paired gain.

    Attributes:
        spread: its standard deviation over seeds on a fixed test set.
        own: the images' own part of its error.
        interaction: the part of the spread that images imply; None: all of it.
        gate: None where the method moves no maps, so that nothing keeps a verdict.
    """

    spread: float
    own: float = 0.0
    interaction: float | None = None
    gate: Gate | None = None

    @property
    def images(self) -> ImageParts:
        return ImageParts(self.own, self.spread if self.interaction is None else self.interaction)


def decision_rates(
    truth: float,
    claimed: float,
    design: Design,
    looks: Sequence[int] = LOOKS,
    rounds: int = ROUNDS,
    seed: int = 0,
) -> dict[str, float]:
    """How often each verdict falls when the true gain is `truth`: the first decision at one of `looks` stands."""
    last = verdicts(truth, claimed, design, looks, looks, rounds, seed)[:, -1]
    outcomes = {"reproduced": 1, "not reproduced": -1, "inconclusive": 0}
    return {outcome: float(np.mean(last == sign)) for outcome, sign in outcomes.items()}


def seeds_to_decide(
    design: Design,
    claimed: float,
    power: float = POWER,
    looks: Sequence[int] | None = None,
    max_seeds: int = 50,
    rounds: int = ROUNDS,
    truth: float | None = None,
) -> int | None:
    """The least number of seeds that decide a claim with this probability.

    Args:
        design: what is assumed of the gain.
        claimed: the claimed gain, not 0.
        power: the probability.
        looks: only these numbers, each at its level, the first decision standing. None: any number to max_seeds, looked
            at once.
        max_seeds: no more are tried.
        rounds: simulated experiments.
        truth: the true gain; None: the claim is exactly right, and to be called reproduced. 0: it is empty, and to be
            called not reproduced, which the gate may keep from being said.

    Returns:
        None where none of them suffices.
    """
    sizes = [n for n in (range(2, max_seeds + 1) if looks is None else looks) if n <= max_seeds]
    if not sizes:
        return None
    truth = claimed if truth is None else truth
    right = 1 if abs(truth) > abs(claimed) / 2 else -1
    if looks is not None:
        enough = np.mean(verdicts(truth, claimed, design, sizes, looks, rounds, seed=0) == right, axis=0) >= power
        return sizes[int(np.argmax(enough))] if enough.any() else None
    chances = (np.mean(verdicts(truth, claimed, design, (n,), None, rounds, seed=0) == right) for n in sizes)
    return next((n for n, chance in zip(sizes, chances, strict=True) if chance >= power), None)


def verdicts(
    truth: float, claimed: float, design: Design, sizes: Sequence[int], looks: Sequence[int] | None, rounds: int,
    seed: int,
) -> np.ndarray:  # fmt: skip
    """Simulated verdicts (rounds, len(sizes)): 1 reproduced, -1 not reproduced, 0 neither. With looks, a decision
    stays."""
    rng = np.random.default_rng(seed)
    gains_RN = rng.normal(0, design.spread, (rounds, max(sizes)))
    shift_R = truth - claimed / 2 + rng.normal(0, design.own, rounds)
    gate = design.gate
    changes_RN = rng.normal(gate.change, gate.std, (rounds, max(sizes))) if gate else None
    by_size, standing = [], np.zeros(rounds, int)
    for n in sizes:
        level = level_of_look(n, looks)
        assert level is not None, "sizes are looks"
        half_R = intervals.half_width(gains_RN[:, :n].std(axis=1, ddof=1), n, design.images, level)
        mean_R = (gains_RN[:, :n].mean(axis=1) + shift_R) * np.sign(claimed)
        decided = np.where(np.abs(mean_R) > half_R, np.sign(mean_R), 0).astype(int)
        if changes_RN is not None:
            decided[(decided < 0) & ~_fell(changes_RN[:, :n])] = 0
        standing = np.where(standing == 0, decided, standing) if looks else decided
        by_size.append(standing)
    return np.stack(by_size, axis=1)


def _fell(changes_RN: np.ndarray) -> np.ndarray:
    """Whether Student's interval of a layer's change of overlap lies below zero, (R,)."""
    n = changes_RN.shape[1]
    error_R = changes_RN.std(axis=1, ddof=1) / math.sqrt(n)
    return changes_RN.mean(axis=1) + intervals.t_quantile(n - 1, (1 + GATE_LEVEL) / 2) * error_R < 0
