"""Intervals and verdicts on cells: pure functions on numbers. Formulas, sources, limits: docs/statistics.md. What is
said of a paper's claim stands in claims.py.

Two uncertainties, never mixed without a word: the spread over seeds (would the same code, run again, say the same on
this test set?) and the sampling of test images (would it say so on other images of the same kind?).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import product

import numpy as np

LEVEL = 0.95  # of every interval, so that what is shown is what is judged
POWER = 0.8
MAX_SEEDS = 1000  # beyond this many "more seeds" is no advice
SPREADS = 4000  # of samples, one at each of as many equal shares

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


def combined_half(
    seed_error: float | np.ndarray, df: float, image_error: float, level: float = LEVEL
) -> float | np.ndarray:
    """Half-width for new seeds and new test images together: those of the two parts add in squares.

    MOVER (Zou and Donner, 2008). seed_error: standard error of the mean, known to `df` degrees of freedom.
    """
    of_images = t_quantile(math.inf, (1 + level) / 2) * image_error
    return np.hypot(t_quantile(df, (1 + level) / 2) * seed_error, of_images)


def combined_interval(
    values: Numbers, image_std: float, level: float = LEVEL, bounds: Interval | None = None
) -> Interval | None:
    """Interval of the mean for new seeds and new test images together; None for fewer than two values.

    Never narrower than either part (`combined_half`). What seeds and images do together is in both parts: it errs on
    the wide side.
    """
    if len(values) < 2:
        return None
    half = float(combined_half(_std(values) / math.sqrt(len(values)), len(values) - 1, image_std, level))
    return clip((float(np.mean(values)) - half, float(np.mean(values)) + half), bounds)


def smallest_detectable(
    seed_error: float, df: float, image_error: float = 0.0, level: float = LEVEL, power: float = POWER
) -> float:
    """The true effect that the interval of `combined_half` excludes zero for with probability `power`.

    Mean and sample spread of normal values are independent: the power is the normal one, averaged over the spreads that
    a sample can have. With df = n - 1 and no error over images it is the noncentral t's (Cohen, 1988).
    """
    from scipy.special import chdtri, ndtr

    error = math.hypot(seed_error, image_error)
    if not error:
        return 0.0
    shares = (np.arange(SPREADS) + 0.5) / SPREADS
    spreads = np.ones(1) if math.isinf(df) else np.sqrt(chdtri(df, shares) / df)  # a sample's, of the true one
    half = np.asarray(combined_half(seed_error * spreads, df, image_error, level))
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
    return _undecided("inconclusive", f"{shown}, across the tolerance of {tolerance:g}", values, margin)


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
