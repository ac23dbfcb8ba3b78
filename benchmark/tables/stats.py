"""Intervals and verdicts: pure functions on numbers. Formulas, sources and limits stand in docs/statistics.md.

Two uncertainties, never mixed without a word: the spread over seeds (would the same code, run again, say the same on
this test set?) and the sampling of test images (would it say so on other images of the same kind?). Verdicts on the
paper's cells rest on seeds alone, since the paper's test images are ours.
"""

import math
from dataclasses import dataclass
from functools import cache
from itertools import product

import numpy as np

from benchmark.store import metrics

LEVEL = 0.95  # of every interval, so that what is shown is what is judged
POWER = 0.8
MAX_SEEDS = 1000  # beyond this many "more seeds" is no advice
ROUNDS = 1000  # of a bootstrap
CHUNK = 2**22  # drawn images at once; bounds the memory of a bootstrap to some hundred MB

Interval = tuple[float, float]

OUTCOMES = ("reproduced", "partly", "not reproduced", "inconclusive", "not comparable", "diverged", "not run")


@dataclass(frozen=True)
class Verdict:
    """One of OUTCOMES and why, in a sentence. `seeds`: about how many would decide what is still open."""

    outcome: str
    reason: str
    seeds: int | None = None


# Spread over seeds


def sample_std(values: list[float] | np.ndarray) -> float | None:
    """Sample standard deviation (n - 1); None for fewer than two values."""
    return float(np.std(values, ddof=1)) if len(values) > 1 else None


@cache
def t_quantile(df: float, probability: float) -> float:
    from scipy.special import stdtrit  # a fifth of scipy.stats' import time

    return float(stdtrit(df, probability))


def t_interval(values: list[float] | np.ndarray, level: float = LEVEL) -> Interval | None:
    """Student's interval of the mean; None for fewer than two values."""
    n = len(values)
    if n < 2:
        return None
    half = t_quantile(n - 1, (1 + level) / 2) * sample_std(values) / math.sqrt(n)
    return float(np.mean(values)) - half, float(np.mean(values)) + half


def prediction_interval(values: list[float] | np.ndarray, level: float = LEVEL) -> Interval | None:
    """Where one further run would fall, as a published number is one; None for fewer than two values."""
    n = len(values)
    if n < 2:
        return None
    half = t_quantile(n - 1, (1 + level) / 2) * sample_std(values) * math.sqrt(1 + 1 / n)
    return float(np.mean(values)) - half, float(np.mean(values)) + half


def sign_flip_p(differences: list[float] | np.ndarray) -> float | None:
    """Two-sided exact p of paired differences under random signs; at least 2 / 2^n. None above n = 16, or below 1."""
    n = len(differences)
    if not 1 <= n <= 16:
        return None
    signs = np.array(list(product((1, -1), repeat=n)))
    sums = np.abs(signs @ np.asarray(differences, float))
    return float(np.mean(sums >= abs(np.sum(differences)) - 1e-12))


def smallest_detectable(std: float, n: int, level: float = LEVEL, power: float = POWER) -> float | None:
    """The true effect that a t interval of n values with this spread excludes zero for, with probability `power`.

    Solves the noncentral t; None for n < 2.
    """
    if n < 2:
        return None
    from scipy.special import nctdtr

    critical = t_quantile(n - 1, (1 + level) / 2)
    low, high = 0.0, critical + 20.0  # in standard errors; the power at the upper end is 1 for any n
    while high - low > 1e-6:
        middle = (low + high) / 2
        if 1 - nctdtr(n - 1, middle, critical) < power:
            low = middle
        else:
            high = middle
    return high * std / math.sqrt(n)


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


def wilson_interval(share: float, num_images: int, level: float = LEVEL) -> Interval:
    """Wilson's score interval of an accuracy in [0, 1]; never leaves [0, 1], even at 0 or 1."""
    z = t_quantile(math.inf, (1 + level) / 2)
    shrink = 1 + z**2 / num_images
    center = (share + z**2 / (2 * num_images)) / shrink
    half = z / shrink * math.sqrt(share * (1 - share) / num_images + z**2 / (4 * num_images**2))
    return max(0.0, center - half), min(1.0, center + half)


def draws(num_images: int, rounds: int = ROUNDS, seed: int = 0) -> list[np.ndarray]:
    """Bootstrap samples of the test set as chunks (r, N) of how often each image was drawn; `rounds` rows in all.

    The same seed and sizes give the same samples, so two runs resampled alike stay paired by image.
    """
    rng = np.random.default_rng(seed)
    chunks = []
    for start in range(0, rounds, step := max(1, CHUNK // num_images)):
        rows = min(step, rounds - start)
        drawn = rng.integers(0, num_images, (rows, num_images)) + num_images * np.arange(rows)[:, None]
        counts = np.bincount(drawn.ravel(), minlength=rows * num_images)
        chunks.append(counts.reshape(rows, num_images).astype(np.uint8 if counts.max() < 256 else np.int64))
    return chunks


def resampled_ap(scores_N: np.ndarray, labels_N: np.ndarray, counts_RN: np.ndarray, definition: str) -> np.ndarray:
    """AP (R,) in [0, 1] of one class in each bootstrap sample; NaN where a sample holds no positive.

    The same as metrics.average_precision on the images repeated `counts` times, without sorting again.
    """
    kept = labels_N != 0
    order = np.argsort(-scores_N[kept], kind="stable")
    scores_N, positive_N = scores_N[kept][order], (labels_N[kept] == 1)[order]
    counts_RN = counts_RN[:, np.flatnonzero(kept)[order]].astype(np.int32)
    last_of_tie = np.append(np.flatnonzero(np.diff(scores_N)), len(scores_N) - 1)
    retrieved_RN = np.cumsum(counts_RN, axis=1, dtype=np.int32)[:, last_of_tie]
    hits_RN = np.cumsum(counts_RN * positive_N, axis=1, dtype=np.int32)[:, last_of_tie]
    precision_RN = hits_RN / np.maximum(1, retrieved_RN)
    recall_RN = hits_RN / np.maximum(1, hits_RN[:, -1:])
    if definition == "area":
        precision_RN = np.maximum.accumulate(precision_RN[:, ::-1], axis=1)[:, ::-1]
    if definition == "11_point":
        # Recall only grows: the best precision from there on stands where it first reaches the threshold.
        ap_R = np.mean(
            [np.max(precision_RN, axis=1, where=recall_RN >= t - 1e-9, initial=0.0) for t in np.linspace(0, 1, 11)],
            axis=0,
        )
    else:
        assert definition in metrics.DEFINITIONS
        ap_R = np.sum(np.diff(recall_RN, prepend=0.0, axis=1) * precision_RN, axis=1)
    return np.where(hits_RN[:, -1] > 0, ap_R, np.nan)


def resampled(
    predicted: np.ndarray, labels: np.ndarray, classes: list[str], definition: str, rounds: int = ROUNDS, seed: int = 0
) -> dict[str, np.ndarray]:
    """Every measured number of a run in each bootstrap sample of its test images: item -> (rounds,) in [0, 1].

    labels (N, C) of 1, 0 and -1, predicted their scores (N, C): the AP of each class, and mAP. labels (N,) of class
    numbers, predicted the best class numbers (N, TOP): top1 and top5.
    """
    chunks = draws(len(labels), rounds, seed)
    if labels.ndim == 1:
        hits = {k: metrics.among_top(predicted, labels, k).astype(np.float64) for k in (1, metrics.TOP)}
        return {f"top{k}": np.concatenate([counts @ hits[k] / len(labels) for counts in chunks]) for k in hits}
    values = {
        name: np.concatenate([resampled_ap(predicted[:, c], labels[:, c], counts, definition) for counts in chunks])
        for c, name in enumerate(classes)
        if (labels[:, c] == 1).any()
    }
    return values | ({"mAP": np.nanmean(list(values.values()), axis=0)} if values else {})


def percentile_interval(samples: np.ndarray, level: float = LEVEL) -> Interval | None:
    """The middle `level` of bootstrap samples; None where fewer than two are numbers."""
    samples = samples[np.isfinite(samples)]
    if len(samples) < 2:
        return None
    low, high = np.quantile(samples, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def combined_interval(values: list[float] | np.ndarray, image_std: float, level: float = LEVEL) -> Interval | None:
    """Interval of the mean for new seeds and new test images together; None for fewer than two values.

    The half-widths of the two intervals add in squares (MOVER: Zou and Donner, 2008), so it is never narrower than
    either. What seeds and images do together is in both parts: it errs on the wide side.
    """
    of_seeds = t_interval(values, level)
    if of_seeds is None:
        return None
    of_images = t_quantile(math.inf, (1 + level) / 2) * image_std
    half = math.hypot((of_seeds[1] - of_seeds[0]) / 2, of_images)
    return float(np.mean(values)) - half, float(np.mean(values)) + half


# Verdicts


def judge_value(values: list[float], published: float, tolerance: float) -> Verdict:
    """Is our mean the published number, within the tolerance? By the whole t interval, in the table's unit."""
    interval = t_interval(values)
    if interval is None:
        return Verdict("inconclusive", "one seed has no spread; 2 are the least", 2)
    low, high = interval[0] - published, interval[1] - published
    shown = f"ours - paper is {_span(np.mean(values) - published, (low, high))}"
    if -tolerance <= low and high <= tolerance:
        return Verdict("reproduced", f"{shown}, all within {tolerance:g}")
    if low > tolerance or high < -tolerance:
        return Verdict("not reproduced", f"{shown}, all outside {tolerance:g}")
    margin = abs(abs(float(np.mean(values)) - published) - tolerance)
    return _undecided("inconclusive", f"{shown}, across the tolerance of {tolerance:g}", values, margin)


def judge_gain(gains: list[float], published: float, tolerance: float) -> Verdict:
    """Is our gain over the baseline the published one? `gains` are paired by seed.

    partly: a gain in the published direction is established, its size is another or open.
    """
    interval = t_interval(gains)
    if interval is None:
        return Verdict("inconclusive", "one seed has no spread; 2 are the least", 2)
    mean, (low, high) = float(np.mean(gains)), interval
    shown = f"gain {_span(mean, interval)}, the paper's {published:+.2f}"
    if published - tolerance <= low and high <= published + tolerance:
        return Verdict("reproduced", f"{shown}, all within {tolerance:g}")
    outside = low > published + tolerance or high < published - tolerance
    if (published > 0 and low > 0) or (published < 0 and high < 0):
        if outside:
            return Verdict("partly", f"{shown}: the direction is established, of another size")
        margin = abs(abs(mean - published) - tolerance)
        return _undecided("partly", f"{shown}: the direction is established, its size still open", gains, margin)
    if outside:
        return Verdict("not reproduced", f"{shown}: the published size is excluded, the direction not established")
    return _undecided("inconclusive", f"{shown}: neither excluded nor established", gains, abs(mean))


def judge_order(best: str, leads: dict[str, list[float]]) -> Verdict:
    """Is the method that is best in the paper best here? `leads`: its paired leads over each other method, by seed.

    reproduced: each lead's interval is above zero (all must be, so none needs a correction). not reproduced: some
    lead's is below zero; partly: some are above; both at a level corrected for the number of methods (Bonferroni).
    """
    if any(len(lead) < 2 for lead in leads.values()):
        return Verdict("inconclusive", "one seed has no spread; 2 are the least", 2)
    corrected = 1 - (1 - LEVEL) / len(leads)
    if all(t_interval(lead)[0] > 0 for lead in leads.values()):
        return Verdict("reproduced", f"{best} leads every other method")
    behind = [name for name, lead in leads.items() if t_interval(lead, corrected)[1] < 0]
    if behind:
        return Verdict("not reproduced", f"{best} is behind {', '.join(behind)}")
    ahead = [name for name, lead in leads.items() if t_interval(lead, corrected)[0] > 0]
    if ahead:
        return Verdict("partly", f"{best} leads {', '.join(ahead)}, but not every other method for certain")
    closest = min(leads.values(), key=lambda lead: abs(np.mean(lead)))
    margin = abs(float(np.mean(closest)))
    return _undecided("inconclusive", f"{best} and the others cannot be told apart", closest, margin)


def _undecided(outcome: str, reason: str, values: list[float], margin: float) -> Verdict:
    """A verdict that more seeds would change: when their interval's half-width is down to `margin`."""
    seeds = seeds_for(sample_std(values), margin)
    if seeds is not None:
        seeds = max(seeds, len(values) + 1)
    would_do = f"about {seeds} seeds would do" if seeds else f"more than {MAX_SEEDS} seeds would be needed"
    return Verdict(outcome, f"{reason}; {would_do}", seeds)


def _span(mean: float, interval: Interval) -> str:
    return f"{mean:+.2f} [{interval[0]:+.2f}, {interval[1]:+.2f}]"
