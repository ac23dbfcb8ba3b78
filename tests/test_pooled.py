"""A pooled effect: closed forms, known intervals of a share, and what both cover with as few clusters as there are."""

import itertools
import math

import numpy as np
import pytest
from scipy.stats import beta

from benchmark.stats import pooled
from benchmark.stats.intervals import t_interval, t_quantile

SIZES = ([3, 3, 3, 2, 2], [4, 4, 4, 3, 3], [2, 2, 2], [1, 1, 1])  # pairs by seed number, as VOC's and CIFAR-100's are


def _interval(known: pooled.ClusteredMean, image_error: float = 0.0) -> tuple[float, float]:
    half = known.half(image_error)
    return known.mean - half, known.mean + half


def test_clusters_of_one_are_student_s_interval():
    values = [-2.1, 0.4, -1.3, -0.2]
    known = pooled.clustered_mean(values, [7, 3, 5, 1])
    assert _interval(known) == pytest.approx(t_interval(values))
    assert known.df == pytest.approx(3)


def test_clusters_of_one_size_are_student_s_interval_of_their_means():
    values = np.random.default_rng(0).normal(size=(5, 4))
    known = pooled.clustered_mean(values.T.ravel(), [0, 1, 2, 3, 4] * 4)
    assert _interval(known) == pytest.approx(t_interval(values.mean(axis=1)))
    assert known.df == pytest.approx(4)


def test_uneven_clusters_are_the_matrices_of_bell_and_mccaffrey():
    """The definition with whole matrices: A = (I - H)^(-1/2) by cluster, and P of Pustejovsky and Tipton."""
    cluster = np.repeat([0, 1, 2, 3], [1, 4, 2, 3])
    values, n = np.random.default_rng(1).normal(size=10), 10
    hat = np.full((n, n), 1 / n)
    variance, columns = 0.0, []
    for g in range(4):
        of_g = np.flatnonzero(cluster == g)
        eigenvalues, vectors = np.linalg.eigh((np.eye(n) - hat)[np.ix_(of_g, of_g)])
        root = vectors @ np.diag(eigenvalues**-0.5) @ vectors.T
        columns.append((np.eye(n) - hat)[:, of_g] @ root @ np.ones(len(of_g)) / n)
        variance += (columns[-1] @ values) ** 2
    form = np.array(columns) @ np.array(columns).T
    known = pooled.clustered_mean(values, cluster)
    assert known.error == pytest.approx(math.sqrt(variance))
    assert known.df == pytest.approx(np.trace(form) ** 2 / np.sum(form**2))


def test_one_cluster_has_no_error():
    assert pooled.clustered_mean([1.0, 2.0], [0, 0]) is None


def _coverage(sizes, correlation, is_covered, rounds=3000):
    """Pairs of one seed number correlate by this much; half of the settings' seeds spread three times as far."""
    rng = np.random.default_rng(2)
    cluster = np.repeat(range(len(sizes)), sizes)
    setting = np.concatenate([np.arange(size) for size in sizes])
    spread = np.where(setting % 2, 3.0, 1.0)
    own, shared = rng.normal(size=(rounds, len(cluster))), rng.normal(size=(rounds, len(sizes)))
    drawn = spread * (math.sqrt(correlation) * shared[:, cluster] + math.sqrt(1 - correlation) * own)
    return np.mean([is_covered(values, cluster) for values in drawn])


@pytest.mark.parametrize(("sizes", "correlation"), list(itertools.product(SIZES, (0.0, 0.3, 0.8))))
def test_a_pooled_effect_s_interval_covers_what_it_says(sizes, correlation):
    def holds_zero(values, cluster):
        low, high = _interval(pooled.clustered_mean(values, cluster))
        return low <= 0 <= high

    assert 0.935 < _coverage(sizes, correlation, holds_zero) < 0.965


@pytest.mark.parametrize("image_error", [0.2, 1.0])
def test_it_covers_what_it_says_of_new_test_images_too(image_error):
    """Every pair of an experiment is tested on the same images, drawn anew for the next."""
    shifts = iter(np.random.default_rng(3).normal(0, image_error, 3000))

    def holds_zero(values, cluster):
        low, high = _interval(pooled.clustered_mean(values + next(shifts), cluster), image_error)
        return low <= 0 <= high

    assert 0.935 < _coverage(SIZES[0], 0.3, holds_zero) < 0.97


def test_the_half_width_is_both_parts_in_squares():
    known = pooled.ClusteredMean(0.0, 0.3, 4.0)
    parts = t_quantile(4, 0.975) * 0.3, 1.959964 * 0.4
    assert known.half(0.4) == pytest.approx(math.hypot(*parts))
    assert known.half() == pytest.approx(parts[0])
    assert known.half(0.4, level=0.5) < known.half(0.4)


@pytest.mark.parametrize(("sizes", "correlation"), list(itertools.product(SIZES, (0.0, 0.8))))
def test_a_share_s_interval_covers_at_least_what_it_says(sizes, correlation):
    def holds_half(values, cluster):
        low, high = pooled.share_interval((values > 0).astype(float), cluster)
        return low <= 0.5 <= high

    assert _coverage(sizes, correlation, holds_half, rounds=1000) > 0.945


def test_a_share_of_pairs_that_are_as_independent_ones_is_clopper_and_pearson_s():
    low, high = pooled.share_interval([1, 0, 0, 0, 0, 0, 0, 0], range(8))
    assert (low, high) == pytest.approx((beta.ppf(0.025, 1, 8), beta.ppf(0.975, 2, 7)))


def test_a_share_of_nothing_counts_each_cluster_once():
    assert pooled.share_interval([0] * 10, [0, 1, 2, 3, 4] * 2) == pytest.approx((0, beta.ppf(0.975, 1, 5)))
    assert pooled.share_interval([1] * 10, [0, 1, 2, 3, 4] * 2) == pytest.approx((beta.ppf(0.025, 5, 1), 1))


def test_pairs_that_agree_within_a_seed_number_say_less_of_a_share():
    apart = pooled.share_interval([1, 0, 1, 0, 1, 0, 1, 0], [0, 0, 1, 1, 2, 2, 3, 3])
    alike = pooled.share_interval([1, 1, 0, 0, 1, 1, 0, 0], [0, 0, 1, 1, 2, 2, 3, 3])
    assert alike[1] - alike[0] > apart[1] - apart[0]
    assert apart == pytest.approx((beta.ppf(0.025, 4, 5), beta.ppf(0.975, 5, 4)))


@pytest.mark.parametrize(
    ("interval", "word"),
    [
        ((0.5, 6.0), "supported"), ((6.0, 8.0), "supported"), ((0.5, 4.0), "supported in part"),
        ((-1.0, 4.0), "not supported"), ((-3.0, -1.0), "contradicted"), ((-1.0, 6.0), "no evidence"),
        (None, "no evidence"),
    ],
)  # fmt: skip
def test_the_word_is_where_the_interval_lies(interval, word):
    assert pooled.claim_word(interval, 5.0) == word
    mirrored = interval and (-interval[1], -interval[0])
    assert pooled.claim_word(mirrored, -5.0) == word
    untested = "no evidence" if word == "not supported" else word
    assert pooled.claim_word(interval, 5.0, is_tested=False) == untested, "an absence alone needs a test"
    assert word in pooled.WORDS
