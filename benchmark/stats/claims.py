"""What can be said of a claimed gain: pure functions on numbers. Formulas, sources, limits: docs/statistics.md.

A claim is half right or it is not: *reproduced* where our interval of the gain, over seeds and test images together,
lies beyond half of what was claimed, *not reproduced* where it lies short of it. Gains and claims are in points.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from benchmark.stats import intervals
from benchmark.stats.intervals import LEVEL, ImageParts, Interval, Verdict

LOOKS = (3, 5, 8)  # numbers of seeds at which a verdict may be read
BOUNDS = (-100.0, 100.0)  # of a gain in points
LEAST_P = 1e-12  # below, the quantiles of 1 - p are rounding


@dataclass(frozen=True)
class GainInterval:
    """Interval of a gain, in points. over: "seeds and images", "seeds only" or "images only". level:
    how often such an interval holds the true gain; more than LEVEL where the runs were looked at more than once."""

    low: float
    high: float
    over: str
    estimate: "Estimate | None" = field(default=None, compare=False, repr=False)  # what it was made from
    level: float = LEVEL

    def at(self, level: float) -> "GainInterval":
        """The same interval at another level."""
        assert self.estimate is not None, "an interval that was made, not written down"
        return _around(self.estimate, level, BOUNDS)


@dataclass(frozen=True)
class Estimate:
    """A mean gain over n seeds and what its error is made of; all in points.

    Attributes:
        mean: of the gains.
        n: number of seeds.
        std: sample standard deviation over the seeds; 0 for one.
        images: errors over test images of one seed's gain.
        over: "seeds and images", "seeds only" or "images only".
    """

    mean: float
    n: int
    std: float
    images: ImageParts
    over: str

    @property
    def spread(self) -> float:
        """Of the gain over seeds: the sample's, and no less than what the images of its own runs imply."""
        return max(self.std, self.images.interaction if self.n > 1 else 0.0)

    @property
    def image_error(self) -> float:
        """Standard error of the mean over test images."""
        return math.hypot(self.images.own, self.images.interaction / math.sqrt(self.n))

    def half(self, level: float = LEVEL) -> float:
        return float(intervals.half_width(self.std, self.n, self.images, level))

    def detectable(self) -> float:
        """The smallest true gain that such an interval tells from zero 4 times in 5."""
        return intervals.smallest_detectable(self.std, self.n, self.images)


def estimate(gains: Sequence[float], draws: np.ndarray | ImageParts | None) -> Estimate | None:
    """The mean of gains paired by seed, with what its error is made of.

    Args:
        gains: one a seed, in points.
        draws: the same gains on drawn test sets, (seeds, draws), or what they say; None where none were drawn.

    Returns:
        None without anything to tell an error from: no gain, or one whose test images were not drawn again.
    """
    images = intervals.image_parts(draws) if isinstance(draws, np.ndarray) else draws
    if not len(gains) or (len(gains) == 1 and images is None):
        return None
    over = "seeds only" if images is None else "seeds and images"
    if len(gains) == 1:
        over = "images only"
    std = intervals.sample_std(gains) or 0.0
    return Estimate(float(np.mean(gains)), len(gains), std, images or ImageParts(0.0, 0.0), over)


def gain_interval(
    gains: Sequence[float],
    draws: np.ndarray | ImageParts | None,
    level: float = LEVEL,
    bounds: Interval | None = BOUNDS,
) -> GainInterval | None:
    """The interval of a gain, the one that every table, page and picture shows: for new seeds and new test images
    together, or over the part that is known. See `estimate` and `intervals.half_width`."""
    known = estimate(gains, draws)
    return _around(known, level, bounds) if known else None


def _around(known: Estimate, level: float, bounds: Interval | None) -> GainInterval:
    half = known.half(level)
    low, high = intervals.clip((known.mean - half, known.mean + half), bounds)
    return GainInterval(low, high, known.over, known, level)


def level_of_look(n: int, looks: Sequence[int] | None = LOOKS, level: float = LEVEL) -> float | None:
    """Level of the interval that n seeds are judged by, when each of `looks` may end the experiment (Bonferroni, in
    equal parts); None at a number of seeds that was not declared. Without looks, `level`."""
    if looks is None:
        return level
    return 1 - (1 - level) / len(looks) if n in looks else None


def level_of_looks(taken: Sequence[int]) -> float:
    """Level of the interval of a gain to which seeds were added after a look: the error is shared out in equal parts
    among the looks that were taken (Bonferroni). None or one: LEVEL."""
    return 1 - (1 - LEVEL) / max(1, len(taken))


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
    for _ in range(36):  # p to within one part in a billion
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
