"""What can be said of a claimed gain: pure functions on numbers. Formulas, sources, limits: docs/statistics.md.

A claim is half right or it is not: *reproduced* where our interval of the gain, over seeds and test images together,
lies beyond half of what was claimed, *not reproduced* where it lies short of it. Gains and claims are in points.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from benchmark.stats import intervals
from benchmark.stats.intervals import LEVEL, POWER, Interval, Verdict

LOOKS = (3, 5, 8)  # numbers of seeds at which a verdict may be read
BOUNDS = (-100.0, 100.0)  # of a gain in points
LEAST_P = 1e-12  # below, the quantiles of 1 - p are rounding
ROUNDS = 10_000  # simulated experiments: a rate to within 0.4 points at one half


@dataclass(frozen=True)
class Pooled:
    """A standard deviation over seeds that several methods share, and its degrees of freedom."""

    std: float
    df: int
    alike: bool = True  # whether the methods' own spreads may be of one


@dataclass(frozen=True)
class GainInterval:
    """Interval of a gain, in points. over: "seeds and images", "seeds only" or "images only"."""

    low: float
    high: float
    over: str
    estimate: "Estimate | None" = field(default=None, compare=False, repr=False)  # what it was made from

    def at(self, level: float) -> "GainInterval":
        """The same interval at another level."""
        assert self.estimate is not None, "an interval that was made, not written down"
        return _around(self.estimate, level, BOUNDS)


@dataclass(frozen=True)
class Estimate:
    """A mean gain with the standard errors of its seeds, known to `df` degrees of freedom, and of its test images."""

    mean: float
    seed_error: float
    df: float
    image_error: float
    over: str

    def half(self, level: float = LEVEL) -> float:
        return float(intervals.combined_half(self.seed_error, self.df, self.image_error, level))

    def detectable(self) -> float:
        """The smallest true gain that such an interval tells from zero 4 times in 5."""
        return intervals.smallest_detectable(self.seed_error, self.df, self.image_error)


def pooled_std(gains: Sequence[Sequence[float]]) -> Pooled | None:
    """The spread of paired gains over seeds, from several methods: variances weighted by n - 1, which add up to its
    degrees of freedom; and whether Bartlett's test lets it be one. None where no method has two seeds."""
    gains = [of for of in gains if len(of) > 1]
    if not gains:
        return None
    variances, df = np.array([np.var(of, ddof=1) for of in gains]), np.array([len(of) - 1 for of in gains])
    alike = bool(bartlett_p(variances, df) >= 1 - LEVEL)
    return Pooled(math.sqrt(np.average(variances, weights=df)), int(df.sum()), alike)


def _spread(gains: Sequence[float], pooled: Pooled | None) -> Pooled:
    """The pooled spread; where the methods' spreads are not alike, it or the gains' own, whichever makes the wider
    interval: a quiet method lends a noisy one nothing, and luck with few seeds makes none quiet."""
    own = Pooled(float(np.std(gains, ddof=1)), len(gains) - 1)
    if pooled is None or pooled.alike:
        return pooled or own
    return max((own, pooled), key=lambda spread: spread.std * intervals.t_quantile(spread.df, (1 + LEVEL) / 2))


def bartlett_p(variances: np.ndarray, df: np.ndarray) -> np.ndarray:
    """p of "these M sample variances (..., M) with df (M,) are of one", (...) (Bartlett, 1937)."""
    from scipy.special import chdtrc

    if len(df) < 2:
        return np.ones(variances.shape[:-1])
    with np.errstate(divide="ignore", invalid="ignore"):  # a variance of 0 is like no other but 0
        statistic = df.sum() * np.log(np.average(variances, axis=-1, weights=df)) - np.log(variances) @ df
    statistic = statistic / (1 + (np.sum(1 / df) - 1 / df.sum()) / (3 * (len(df) - 1)))
    return np.where(variances.any(axis=-1), chdtrc(len(df) - 1, np.maximum(0, statistic)), 1.0)


def estimate(
    gains: Sequence[float], images: float | np.ndarray | None, pooled: Pooled | None = None
) -> Estimate | None:
    """The mean of gains paired by seed. images: the standard error of that mean over test images, or its bootstrap
    samples; None where the test images were not resampled. pooled: a spread to use instead of these gains' own.

    A single seed has no error over seeds, whatever others have. None without anything to tell an error from.
    """
    image_error = _image_error(images)
    if len(gains) < 2:
        if not len(gains) or image_error is None:
            return None
        return Estimate(float(gains[0]), 0.0, math.inf, image_error, "images only")
    spread = _spread(gains, pooled)
    over = "seeds only" if image_error is None else "seeds and images"
    return Estimate(float(np.mean(gains)), spread.std / math.sqrt(len(gains)), spread.df, image_error or 0.0, over)


def _image_error(images: float | np.ndarray | None) -> float | None:
    if isinstance(images, np.ndarray):
        return intervals.sample_std(images[np.isfinite(images)])
    return images


def gain_interval(
    gains: Sequence[float],
    images: float | np.ndarray | None,
    pooled: Pooled | None = None,
    level: float = LEVEL,
    bounds: Interval | None = BOUNDS,
) -> GainInterval | None:
    """Interval of the mean gain for new seeds and new test images together, or over the part that is known. See
    `estimate`."""
    known = estimate(gains, images, pooled)
    return _around(known, level, bounds) if known else None


def _around(known: Estimate, level: float, bounds: Interval | None) -> GainInterval:
    half = known.half(level)
    low, high = intervals.clip((known.mean - half, known.mean + half), bounds)
    return GainInterval(low, high, known.over, known)


def level_of_look(n: int, looks: Sequence[int] | None = LOOKS, level: float = LEVEL) -> float | None:
    """Level of the interval that n seeds are judged by, when each of `looks` may end the experiment (Bonferroni, in
    equal parts); None at a number of seeds that was not declared. Without looks, `level`."""
    if looks is None:
        return level
    return 1 - (1 - level) / len(looks) if n in looks else None


def judge_claim(
    gains: Sequence[float], claimed: float, interval: GainInterval | None, looks: Sequence[int] | None = None
) -> Verdict:
    """Is our gain more than half of the claimed one? By the whole interval, whose level is `level_of_look`'s; None
    where that is None. An interval over images only gives no verdict: another seed may say something else."""
    if claimed == 0:
        return Verdict("not comparable", "a claimed gain of zero has no half to be judged by")
    n = len(gains)
    if looks is not None and n not in looks:
        return Verdict("inconclusive", f"n={n} is no declared look ({', '.join(map(str, looks))})")
    if n < 2:
        return Verdict("inconclusive", "one seed has no spread; 2 are the least", 2)
    if interval is None:
        return Verdict("inconclusive", "no interval of the gain is known")
    low, high = _towards(claimed, interval)
    outcome, side = "inconclusive", "across"
    if low > abs(claimed) / 2:
        outcome, side = "reproduced", "beyond"
    elif high < abs(claimed) / 2:
        outcome, side = "not reproduced", "short of"
    shown = f"{np.mean(gains):+.2f} [{interval.low:+.2f}, {interval.high:+.2f}] over {interval.over}"
    return Verdict(outcome, f"gain {shown}, {side} half of the claimed {claimed:+.2f}")


def claim_size(claimed: float, interval: GainInterval) -> str:
    """What the interval says of the claim's size. "of the claimed size" holds the claim and lies within half to one
    and a half of it; "size open" is too wide to say."""
    low, high = _towards(claimed, interval)
    size = abs(claimed)
    if high < size:
        return "smaller than claimed"
    if low > size:
        return "larger than claimed"
    return "of the claimed size" if size / 2 < low and high < 1.5 * size else "size open"


def _towards(claimed: float, interval: GainInterval) -> Interval:
    """The interval's ends as multiples of the claimed direction, so that a claimed loss is judged as a gain is."""
    return (interval.low, interval.high) if claimed >= 0 else (-interval.high, -interval.low)


# Several claims


def claim_p(known: Estimate, claimed: float) -> float:
    """One-sided p of "at most half of the claimed gain": the smallest p whose interval at 1 - 2 p lies beyond half.

    It is small for what is reproduced; 1 - p is that of "at least half". No less than LEAST_P.
    """
    distance = (known.mean - claimed / 2) * math.copysign(1, claimed)
    low, high = math.log(LEAST_P), math.log(0.5)
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if known.half(1 - 2 * math.exp(middle)) > abs(distance) else (low, middle)
    return math.exp(high) if distance > 0 else 1 - math.exp(high)


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusted p values, in the given order: claims at most 0.05 are wrong together in at most 5% (Holm, 1979)."""
    adjusted, largest = [0.0] * len(p_values), 0.0
    for rank, at in enumerate(np.argsort(p_values, kind="stable")):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[at]))
        adjusted[at] = largest
    return adjusted


def effect_ratio(
    known: Estimate, claimed: float, claimed_sd: float = 0.0, level: float = LEVEL
) -> tuple[float, Interval | None] | None:
    """Our gain as a multiple of the claimed one, with its interval (Fieller, 1954).

    claimed_sd: the standard error of the claim, 0 for a bare number. No interval where the claim itself cannot be told
    from zero at this level; None for a claim of zero.
    """
    if claimed == 0:
        return None
    ours, theirs = known.half(level), intervals.t_quantile(math.inf, (1 + level) / 2) * claimed_sd
    square = claimed**2 - theirs**2
    if square <= 0:
        return known.mean / claimed, None
    root = math.sqrt(ours**2 * square + theirs**2 * known.mean**2)
    low, high = (known.mean * claimed - root) / square, (known.mean * claimed + root) / square
    return known.mean / claimed, (low, high)


# Planning


def decision_rates(
    truth: float,
    claimed: float,
    sd_seeds: float,
    sd_images: float,
    looks: Sequence[int] = LOOKS,
    methods: int = 1,
    rounds: int = ROUNDS,
    seed: int = 0,
) -> dict[str, float]:
    """How often each verdict falls when the true gain is `truth`: the first decision at one of `looks` stands.

    sd_seeds is of the paired gain; its spread is pooled over so many methods that share a baseline. sd_images is the
    error of the test set, which no further seed makes smaller.
    """
    last = _verdicts(truth, claimed, sd_seeds, sd_images, looks, looks, methods, rounds, seed)[:, -1]
    outcomes = {"reproduced": 1, "not reproduced": -1, "inconclusive": 0}
    return {outcome: float(np.mean(last == sign)) for outcome, sign in outcomes.items()}


def seeds_to_decide(
    sd_seeds: float,
    sd_images: float,
    claimed: float,
    power: float = POWER,
    looks: Sequence[int] | None = None,
    max_seeds: int = 50,
    methods: int = 1,
    rounds: int = ROUNDS,
) -> int | None:
    """The least number of seeds with which a claim that is exactly right is called reproduced with this probability;
    by symmetry, the least with which a claim without any effect is called not reproduced.

    looks: only these numbers, each at its level, the first decision standing. None: any number to max_seeds, looked at
    once. None is returned where none of them suffices.
    """
    sizes = [n for n in (range(2, max_seeds + 1) if looks is None else looks) if n <= max_seeds]
    if not sizes:
        return None
    verdicts = _verdicts(claimed, claimed, sd_seeds, sd_images, sizes, looks, methods, rounds, seed=0)
    enough = np.mean(verdicts == 1, axis=0) >= power
    return sizes[int(np.argmax(enough))] if enough.any() else None


def _verdicts(
    truth: float, claimed: float, sd_seeds: float, sd_images: float, sizes: Sequence[int],
    looks: Sequence[int] | None, methods: int, rounds: int, seed: int,
) -> np.ndarray:  # fmt: skip
    """Simulated verdicts (rounds, len(sizes)): 1 reproduced, -1 not reproduced, 0 neither. With looks, a decision
    stays."""
    rng = np.random.default_rng(seed)
    of_seeds = rng.normal(0, sd_seeds / math.sqrt(2), (methods + 1, rounds, max(sizes)))
    gains_MRN = of_seeds[1:] - of_seeds[0]  # a seed's baseline is every method's
    shift_R = truth - claimed / 2 + rng.normal(0, sd_images, rounds)
    by_size, standing = [], np.zeros(rounds, int)
    for n in sizes:
        variances_RM = gains_MRN[:, :, :n].var(axis=2, ddof=1).T
        level, df = level_of_look(n, looks), n - 1
        assert level is not None, "sizes are looks"
        own_R = intervals.combined_half(np.sqrt(variances_RM[:, 0] / n), df, sd_images, level)
        pooled_R = intervals.combined_half(np.sqrt(variances_RM.mean(axis=1) / n), methods * df, sd_images, level)
        half_R = np.where(
            bartlett_p(variances_RM, np.full(methods, df)) < 1 - LEVEL, np.maximum(own_R, pooled_R), pooled_R
        )
        mean_R = (gains_MRN[0, :, :n].mean(axis=1) + shift_R) * np.sign(claimed)
        decided = np.where(np.abs(mean_R) > half_R, np.sign(mean_R), 0).astype(int)
        standing = np.where(standing == 0, decided, standing) if looks else decided
        by_size.append(standing)
    return np.stack(by_size, axis=1)
