"""Intervals and verdicts on cells: pure functions on numbers. Formulas, sources, limits: docs/statistics.md. What is
said of a paper's claim stands in claims.py.

Two uncertainties: the spread over seeds (would the same code, run again, say the same on this test set?) and the
sampling of test images (would it say so on other images of the same kind?). `half_width` is the one interval of both.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from itertools import product

import numpy as np

LEVEL = 0.95  # of every interval, so that what is shown is what is judged
POWER = 0.8
MAX_SEEDS = 1000  # beyond this many "more seeds" is no advice
SPREADS = 4000  # of samples, one at each of as many equal shares
STEPS = 50  # of the ratio of both errors over images, in a calibration
TRUE_SPREADS = 12  # at which a calibration looks
MARGIN = 0.1  # of the error that a bound on the spread may save: 95% become 95.5% where it binds

Interval = tuple[float, float]
Numbers = Sequence[float] | np.ndarray
SHARES: Interval = (0.0, 100.0)  # what a share in percent can be

OUTCOMES = (
    "reproduced", "partly", "not reproduced", "inconclusive", "exploratory", "not comparable", "diverged", "not run",
)  # fmt: skip
DECIDED = ("reproduced", "not reproduced")
JUDGED = (*DECIDED, "inconclusive")


@dataclass(frozen=True)
class Verdict:
    """One of OUTCOMES and why, in a sentence. `seeds`: about how many would decide what is still open."""

    outcome: str
    reason: str
    seeds: int | None = None


# Spread over seeds


def sample_std(values: Numbers) -> float | None:
    """Sample standard deviation (n - 1); None for fewer than two values."""
    return _std(values) if len(values) > 1 else None


def _std(values: Numbers) -> float:
    return float(np.std(values, ddof=1))


@cache
def t_quantile(df: float, probability: float) -> float:
    from scipy.special import stdtrit  # a fifth of scipy.stats' import time

    return float(stdtrit(df, probability))


def clip(interval: Interval, bounds: Interval | None) -> Interval:
    """The interval within what the quantity can be: (0, 100) for a share in percent, (-100, 100) for a gain."""
    return interval if bounds is None else (max(interval[0], bounds[0]), min(interval[1], bounds[1]))


def t_interval(values: Numbers, level: float = LEVEL, bounds: Interval | None = None) -> Interval | None:
    """Student's interval of the mean; None for fewer than two values."""
    return clip(_interval(values, level), bounds) if len(values) > 1 else None


def _interval(values: Numbers, level: float = LEVEL) -> Interval:
    n, mean = len(values), float(np.mean(values))
    half = t_quantile(n - 1, (1 + level) / 2) * _std(values) / math.sqrt(n)
    return mean - half, mean + half


def prediction_interval(values: Numbers, level: float = LEVEL) -> Interval | None:
    """Where one further run would fall, as a published number is one; None for fewer than two values."""
    n = len(values)
    if n < 2:
        return None
    half = t_quantile(n - 1, (1 + level) / 2) * _std(values) * math.sqrt(1 + 1 / n)
    return float(np.mean(values)) - half, float(np.mean(values)) + half


def sign_flip_p(differences: Numbers) -> float | None:
    """Two-sided exact p of paired differences under random signs; at least 2 / 2^n. None above n = 16, or below 1."""
    n = len(differences)
    if not 1 <= n <= 16:
        return None
    signs = np.array(list(product((1, -1), repeat=n)))
    sums = np.abs(signs @ np.asarray(differences, float))
    return float(np.mean(sums >= abs(np.sum(differences)) - 1e-12))


def seeds_for(std: float, margin: float, level: float = LEVEL) -> int | None:
    """The smallest n whose t interval has a half-width of at most `margin`, should the spread stay; None above
    MAX_SEEDS or without a margin."""
    if margin <= 0:
        return None
    for n in range(2, MAX_SEEDS + 1):
        if t_quantile(n - 1, (1 + level) / 2) * std / math.sqrt(n) <= margin:
            return n
    return None


# Sampling of test images


def binomial_std(share: float, num_images: int) -> float:
    """Standard error of an accuracy in [0, 1] measured on this many images."""
    return math.sqrt(share * (1 - share) / num_images)


def image_interval(
    point: float, samples: np.ndarray, level: float = LEVEL, bounds: Interval | None = None
) -> Interval | None:
    """Bias-corrected bootstrap interval (Efron, 1987, without acceleration) of a number measured as `point`.

    Quantiles of the samples, moved by twice the normal quantile of the share of samples below `point`: an AP is higher
    in a drawn test set than in the one it is drawn from, and the plain percentile interval has that bias twice. None
    where fewer than two samples are numbers.
    """
    from scipy.special import ndtr, ndtri

    samples = samples[np.isfinite(samples)]
    if len(samples) < 2:
        return None
    tied = np.isclose(samples, point, rtol=1e-6, atol=0)  # samples are float32
    below = np.mean(np.where(tied, 0.5, samples < point))
    bias = ndtri(np.clip(below, 0.5 / len(samples), 1 - 0.5 / len(samples)))
    low, high = np.quantile(samples, ndtr(2 * bias + ndtri([(1 - level) / 2, (1 + level) / 2])))
    return clip((float(low), float(high)), bounds)


# Seeds and test images together


@dataclass(frozen=True)
class ImageParts:
    """What the sampling of test images adds to a number of each seed: two standard errors, in the number's unit.

    Attributes:
        own: of what all seeds share. No further seed makes it smaller.
        interaction: of what each seed has for itself. It is in the spread over seeds too, which it bounds below.
    """

    own: float
    interaction: float


def image_parts(draws_NR: np.ndarray) -> ImageParts:
    """The parts of the error over test images, from numbers of N seeds on the same R drawn test sets (N, R).

    The variance of the seeds' mean over the draws is own + interaction / N, the mean of their variances own +
    interaction; the own part is the covariance between seeds, averaged over pairs, and no less than 0. Draws that lack
    a number of a seed are left out. One seed cannot tell the parts apart: all is own.
    """
    draws_NR = draws_NR[:, np.isfinite(draws_NR).all(axis=0)].astype(float)
    n = len(draws_NR)
    if draws_NR.shape[1] < 2:
        return ImageParts(0.0, 0.0)
    each = float(draws_NR.var(axis=1, ddof=1).mean())
    if n == 1:
        return ImageParts(math.sqrt(each), 0.0)
    own = (n * float(draws_NR.mean(axis=0).var(ddof=1)) - each) / (n - 1)
    own = min(max(own, 0.0), each)
    return ImageParts(math.sqrt(own), math.sqrt(each - own))


def half_width(
    std: float | np.ndarray, n: int, images: ImageParts = ImageParts(0.0, 0.0), level: float = LEVEL
) -> float | np.ndarray:
    """Half-width of the interval of a mean over n seeds, for new seeds and new test images together.

    max(hypot(t std / sqrt(n), w), k), with w and k as `calibrated`: for every spread over seeds of at least
    `images.interaction` the interval holds the truth in at least `level` of cases. Derived in docs/statistics.md.

    Args:
        std: sample standard deviation over the seeds, or an array of such; one seed has none, and 0 is given.
        n: number of seeds. One: the interval is over test images only.
        images: the errors over test images of one seed's number.
        level: in (0, 1).
    """
    if n < 2:
        return normal_quantile(level) * math.hypot(images.own, images.interaction)
    unit = images.interaction / math.sqrt(n)
    if unit:
        share = math.ceil(images.own / unit * STEPS) / STEPS  # rounded up: many gains share a calibration
        addend, least = calibrated(n, level, share)
        addend, least = unit * addend, unit * least
    else:
        addend = least = normal_quantile(level) * images.own
    seeds = t_quantile(n - 1, (1 + level) / 2) * std / math.sqrt(n)
    half = np.maximum(np.hypot(seeds, addend), least)
    return half if isinstance(std, np.ndarray) else float(half)


def normal_quantile(level: float) -> float:
    return -t_quantile(math.inf, (1 - level) / 2)  # of the lower tail, which has no rounding near a level of 1


@lru_cache(maxsize=4096)
def calibrated(n: int, level: float, own: float) -> tuple[float, float]:
    """The addend w and the least half-width k of `half_width`, for an interaction of sqrt(n), whose share in the error
    of the mean is 1: all is in units of that, `own` too.

    w is the smallest with which hypot(t s / sqrt(n), w) misses in at most 1 - level of cases whatever the spread over
    seeds is, from the interaction's up. k is the largest with which it still misses in 1 - MARGIN of that where the
    spread is least; where w is already as wide, k adds nothing. By numerical integration over the sample spread.
    """
    df, error = n - 1, 1 - level
    t, z = t_quantile(df, (1 + level) / 2), normal_quantile(level)
    chi_X, weight_X = _sample_spreads(df, t)
    truth_S = np.geomspace(1, 60, TRUE_SPREADS)  # standard errors of the seeds' mean; beyond, the t part is all
    seeds_SX = t * truth_S[:, None] * chi_X
    total_S1 = np.hypot(truth_S, own)[:, None]

    def misses(addend: float, least: float, spreads: int = TRUE_SPREADS) -> np.ndarray:
        half_SX = np.maximum(np.hypot(seeds_SX[:spreads], addend), least)
        return 2 * (_below(-half_SX / total_S1[:spreads]) @ weight_X)

    def largest(bad: Callable[[float], bool], low: float, high: float) -> float:
        for _ in range(18):  # to 4e-6 of the range
            middle = (low + high) / 2
            low, high = (middle, high) if bad(middle) else (low, middle)
        return high

    addend = largest(lambda w: misses(w, 0.0).max() > error * 1.002, 0.0, z * own) if own else 0.0
    least = largest(lambda k: misses(addend, k, 1)[0] > error * (1 - MARGIN), addend, z * math.hypot(1, own))
    return addend, least


def _below(x: np.ndarray) -> np.ndarray:
    from scipy.special import ndtr

    return ndtr(x)


@cache
def _sample_spreads(df: float, t: float) -> tuple[np.ndarray, np.ndarray]:
    """What a sample's standard deviation can be, in true ones, and the weight of each: (X,), (X,).

    Equal steps of its logarithm, by the density of a chi: the small spreads, of which an interval misses most, are
    resolved whatever the level.
    """
    step = min(0.12, 0.6 / math.sqrt(2 * df))
    log_x = np.arange(math.log(1e-3 / max(t, 1.0)), math.log(1 + 8 / math.sqrt(df)), step)
    log_density = df * log_x - df * np.exp(2 * log_x) / 2
    weight = np.exp(log_density - log_density.max())
    return np.exp(log_x), weight / weight.sum()


def smallest_detectable(
    std: float, n: int, images: ImageParts = ImageParts(0.0, 0.0), level: float = LEVEL, power: float = POWER
) -> float:
    """The true effect that the interval of `half_width` excludes zero for with probability `power`.

    std: the true spread over seeds, as it was measured; no less than the interaction is taken. Mean and sample spread
    of normal values are independent: the power is the normal one, averaged over the spreads that a sample can have.
    Without an error over images it is the noncentral t's (Cohen, 1988).
    """
    from scipy.special import chdtri, ndtr

    spread = max(std, images.interaction)
    error = math.hypot(spread / math.sqrt(n), images.own)
    if not error:
        return 0.0
    shares = (np.arange(SPREADS) + 0.5) / SPREADS
    half = np.asarray(half_width(spread * np.sqrt(chdtri(n - 1, shares) / (n - 1)), n, images, level))
    low, high = 0.0, float(half.max()) + 20 * error  # the power at the upper end is 1
    while high - low > 1e-6 * error:
        middle = (low + high) / 2
        low, high = (middle, high) if np.mean(ndtr((middle - half) / error)) < power else (low, middle)
    return high


# Verdicts


def judge_value(values: list[float], published: float, tolerance: float) -> Verdict:
    """Is our mean the published number, within the tolerance? By the whole t interval, in the table's unit."""
    interval = t_interval(values)
    if interval is None:
        return Verdict("inconclusive", "one seed has no spread; 2 are the least", 2)
    low, high = interval[0] - published, interval[1] - published
    shown = f"ours - paper is {span(float(np.mean(values)) - published, (low, high))}"
    if -tolerance <= low and high <= tolerance:
        return Verdict("reproduced", f"{shown}, all within {tolerance:g}")
    if low > tolerance or high < -tolerance:
        return Verdict("not reproduced", f"{shown}, all outside {tolerance:g}")
    margin = abs(abs(float(np.mean(values)) - published) - tolerance)
    exact = value_rate(len(values), _std(values), tolerance)
    reason = (
        f"{shown}, across the tolerance of {tolerance:g}; with {len(values)} seeds of this spread an exact match is "
        f"called reproduced in {exact:.0%}"
    )
    return _undecided("inconclusive", reason, values, margin)


def value_rate(n: int, spread: float, tolerance: float, difference: float = 0.0) -> float:
    """How often a value whose true difference from the published one is `difference` is called reproduced: the whole
    95% t interval of n seeds of this spread lies within the tolerance.

    All but the difference are known up to chance: by numerical integration over the sample spread.
    """
    from scipy.special import chdtri, ndtr

    if n < 2:
        return 0.0
    shares = (np.arange(SPREADS) + 0.5) / SPREADS
    error = spread / math.sqrt(n)
    half = t_quantile(n - 1, (1 + LEVEL) / 2) * error * np.sqrt(chdtri(n - 1, shares) / (n - 1))
    room = np.maximum(tolerance - half, 0.0)  # for the mean, on either side
    if not error:
        return float(abs(difference) <= tolerance)
    within = ndtr((room - difference) / error) - ndtr((-room - difference) / error)
    return float(np.mean(np.where(half < tolerance, within, 0.0)))


def judge_order(best: str, leads: dict[str, list[float]]) -> Verdict:
    """Is the method that is best in the paper best here? `leads`: its paired leads over each other method, by seed.

    reproduced: each lead's interval is above zero (all must be, so none needs a correction). not reproduced: some
    lead's is below zero; partly: some are above; both at a level corrected for the number of methods (Bonferroni).
    """
    if any(len(lead) < 2 for lead in leads.values()):
        return Verdict("inconclusive", "one seed has no spread; 2 are the least", 2)
    corrected = 1 - (1 - LEVEL) / len(leads)
    if all(_interval(lead)[0] > 0 for lead in leads.values()):
        return Verdict("reproduced", f"{best} leads every other method")
    behind = [name for name, lead in leads.items() if _interval(lead, corrected)[1] < 0]
    if behind:
        return Verdict("not reproduced", f"{best} is behind {', '.join(behind)}")
    ahead = [name for name, lead in leads.items() if _interval(lead, corrected)[0] > 0]
    if ahead:
        return Verdict("partly", f"{best} leads {', '.join(ahead)}, but not every other method for certain")
    closest = min(leads.values(), key=lambda lead: abs(np.mean(lead)))
    margin = abs(float(np.mean(closest)))
    return _undecided("inconclusive", f"{best} and the others cannot be told apart", closest, margin)


def _undecided(outcome: str, reason: str, values: list[float], margin: float) -> Verdict:
    """A verdict that more seeds would change: when their interval's half-width is down to `margin`."""
    seeds = seeds_for(_std(values), margin)
    if seeds is not None:
        seeds = max(seeds, len(values) + 1)
    would_do = f"about {seeds} seeds would do" if seeds else f"more than {MAX_SEEDS} seeds would be needed"
    return Verdict(outcome, f"{reason}; {would_do}", seeds)


def span(mean: float, interval: Interval) -> str:
    """`-0.35 [-1.16, +0.46]`"""
    return f"{mean:+.2f} [{interval[0]:+.2f}, {interval[1]:+.2f}]"
