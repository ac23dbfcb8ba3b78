"""One effect over several settings: means of pairs that are not independent, and the word for a claim.

Runs of one seed number share initialisation and order of images from setting to setting, so pairs are clustered by
seed number: any dependence within a cluster is allowed for. Runs of one test set share its images, whose error adds in
squares (`ClusteredMean.half`). The settings are fixed: the effect is their pairs' mean, not that of settings yet
to be tried. Sources, limits and what the intervals cover: docs/statistics.md.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from benchmark.stats.intervals import LEVEL, Interval, t_quantile

WORDS = ("supported", "supported in part", "not supported", "contradicted", "no evidence")


class ClusteredMean(NamedTuple):
    """A mean with its standard error, cluster-robust, and the degrees of freedom of that error."""

    mean: float
    error: float
    df: float

    def half(self, image_error: float = 0.0, level: float = LEVEL) -> float:
        """Half-width of the mean's interval for new seeds and new test images: both parts in squares.

        Args:
            image_error: The standard error of the mean that all seeds share, since their test images are the same.
            level: Of the interval.
        """
        upper = (1 + level) / 2
        return math.hypot(t_quantile(self.df, upper) * self.error, t_quantile(math.inf, upper) * image_error)


def clustered_mean(values: Sequence[float], clusters: Sequence[int]) -> ClusteredMean | None:
    """The mean of values that may depend on each other within a cluster.

    The error is CR2's (Bell and McCaffrey, 2002), unbiased where values are independent, and the degrees of freedom are
    Satterthwaite's, which hold with few and uneven clusters (Pustejovsky and Tipton, 2018). For a mean, both have
    closed forms; with clusters of one size they are the t interval of the clusters' means.

    Args:
        values: One a pair, each of the same weight.
        clusters: The cluster of each value, such as its seed number.

    Returns:
        The mean, its error and its degrees of freedom; None for fewer than two clusters.
    """
    values_N = np.asarray(values, float)
    _, cluster_N = np.unique(np.asarray(clusters), return_inverse=True)
    sizes_G = np.bincount(cluster_N)
    if len(sizes_G) < 2:
        return None
    n, mean = len(values_N), float(values_N.mean())
    residuals_G = np.bincount(cluster_N, values_N - mean)
    adjusted_G = 1 / np.sqrt(1 - sizes_G / n)  # (I - H)^(-1/2) within a cluster, on a constant
    error = float(np.sqrt(np.sum((adjusted_G * residuals_G) ** 2))) / n
    form_GG = np.outer(adjusted_G, adjusted_G) * (np.diag(sizes_G) - np.outer(sizes_G, sizes_G) / n)
    return ClusteredMean(mean, error, float(np.trace(form_GG) ** 2 / np.sum(form_GG**2)))


def share_interval(is_ahead: Sequence[float], clusters: Sequence[int], level: float = LEVEL) -> Interval:
    """Interval of a share of pairs that may depend on each other within a cluster.

    Clopper and Pearson's at the effective number of pairs (Korn and Graubard, 1998): as many independent ones as would
    give the clustered error, corrected for its degrees of freedom and never more than there are. Where all pairs agree,
    nothing tells how alike those of a cluster are, and each cluster counts once.

    Args:
        is_ahead: 1 where the method was ahead in a pair, 0 where it was behind, 0.5 for a tie.
        clusters: The cluster of each pair.
        level: Of the interval.

    Returns:
        Both ends, within [0, 1].
    """
    from scipy.special import betaincinv

    share, n, num_clusters = float(np.mean(is_ahead)), len(is_ahead), len(set(clusters))
    known = clustered_mean(is_ahead, clusters)
    upper = (1 + level) / 2
    if known is None or share in (0, 1):
        effective = float(num_clusters)
    elif known.error == 0:
        effective = float(n)
    else:
        few = t_quantile(n - 1, upper) / t_quantile(known.df, upper)
        of_independent = share * (1 - share) / (n - 1)  # the same error's square, were each pair a cluster
        effective = min(n, n * of_independent / known.error**2 * few**2)
    ahead, behind = share * effective, (1 - share) * effective
    low = 0.0 if ahead == 0 else float(betaincinv(ahead, behind + 1, 1 - upper))
    high = 1.0 if behind == 0 else float(betaincinv(ahead + 1, behind, upper))
    return low, high


def claim_word(interval: Interval | None, claimed: float, is_tested: bool = True) -> str:
    """What an interval of an effect says of a claimed one, as one of WORDS.

    Args:
        interval: Of our effect, in the claim's unit; None where nothing ran, or too little for one.
        claimed: The published effect.
        is_tested: Whether the method is known to have done what it is for in anything that went in. Where it is
            not, an absence of the effect says nothing; an effect that is there stays one.

    Returns:
        "supported" where the interval lies on the claim's side of 0 and reaches the claim, "supported in part" where it
        falls short of it there, "not supported" where it holds 0 and falls short of the claim, "contradicted" where it
        lies beyond 0; "no evidence" where it holds both, or holds 0 and nothing was tested.
    """
    if interval is None or claimed == 0:
        return "no evidence"
    low, high = interval if claimed > 0 else (-interval[1], -interval[0])
    reaches = high >= abs(claimed)
    if low > 0:
        return "supported" if reaches else "supported in part"
    if high < 0:
        return "contradicted"
    return "no evidence" if reaches or not is_tested else "not supported"
