"""Intervals against closed forms and simulated coverage, verdicts against planted effects."""

import math

import numpy as np
import pytest

from benchmark.stats import intervals

SIMULATIONS = 2000


@pytest.mark.parametrize(("n", "half"), [(3, 2.48), (5, 1.24), (10, 0.72)])
def test_t_half_widths_of_small_samples(n, half):
    values = np.arange(n) / np.std(np.arange(n), ddof=1)  # a spread of one
    low, high = intervals.t_interval(values)
    assert (high - low) / 2 == pytest.approx(half, abs=0.005)


def test_t_interval_by_hand():
    low, high = intervals.t_interval([1.0, 2.0, 3.0])
    assert (low, high) == pytest.approx((2 - 4.302653 / math.sqrt(3), 2 + 4.302653 / math.sqrt(3)))
    assert intervals.t_interval([1.0]) is None
    assert intervals.t_interval([]) is None
    assert intervals.sample_std([1.0]) is None


def test_prediction_interval_covers_a_further_run():
    rng = np.random.default_rng(0)
    drawn = rng.normal(80, 0.5, (SIMULATIONS, 5))
    covered = [low <= run[4] <= high for run in drawn for low, high in [intervals.prediction_interval(run[:4])]]
    assert np.mean(covered) == pytest.approx(0.95, abs=0.015)


@pytest.mark.parametrize("n", [1, 2, 5, 6])
def test_sign_flip_floor(n):
    assert intervals.sign_flip_p(np.arange(1.0, n + 1)) == 2 / 2**n
    assert (2 / 2**n < 0.05) == (n >= 6)
    assert intervals.sign_flip_p([1.0] * 17) is None


def test_sign_flip_by_hand():
    assert intervals.sign_flip_p([3.0, -1.0]) == 1.0  # |2| is reached by +-4 and +-2
    assert intervals.sign_flip_p([0.0, 0.0]) == 1.0


@pytest.mark.parametrize("n", [3, 5, 10])
def test_smallest_detectable_effect_is_found_at_the_promised_rate(n):
    rng = np.random.default_rng(1)
    effect = intervals.smallest_detectable(0.7 / math.sqrt(n), n - 1)
    found = [intervals.t_interval(run)[0] > 0 for run in rng.normal(effect, 0.7, (SIMULATIONS, n))]
    assert np.mean(found) == pytest.approx(intervals.POWER, abs=0.03)


def test_seeds_for_is_the_first_that_is_narrow_enough():
    n = intervals.seeds_for(1.0, 0.5)
    half = [intervals.t_quantile(k - 1, 0.975) / math.sqrt(k) for k in (n - 1, n)]
    assert half[0] > 0.5 >= half[1]
    assert intervals.seeds_for(1.0, 0.0) is None
    assert intervals.seeds_for(1.0, 1e-6) is None


@pytest.mark.parametrize(
    ("share", "images", "points"), [(0.75, 10_000, 0.43), (0.80, 5_794, 0.53), (0.70, 50_000, 0.20)]
)
def test_binomial_sizes(share, images, points):
    assert 100 * intervals.binomial_std(share, images) == pytest.approx(points, abs=0.006)


def test_combined_interval_covers_new_seeds_and_new_images():
    """Truth 0; a seed shifts a run, the drawn test images shift all runs of an experiment alike."""
    rng = np.random.default_rng(5)
    images = rng.normal(0, 0.4, SIMULATIONS)
    runs = images[:, None] + rng.normal(0, 0.6, (SIMULATIONS, 4))
    covered = [low <= 0 <= high for run in runs for low, high in [intervals.combined_interval(run, 0.4)]]
    assert 0.94 <= np.mean(covered) <= 0.99
    seeds_only = [low <= 0 <= high for run in runs for low, high in [intervals.t_interval(run)]]
    assert np.mean(seeds_only) < np.mean(covered)
    assert intervals.combined_interval([1.0], 0.4) is None
    assert intervals.combined_interval([1.0, 2.0], 0.0) == pytest.approx(intervals.t_interval([1.0, 2.0]))
    assert intervals.combined_interval([1.0, 1.0], 0.5) == pytest.approx((1 - 0.98, 1 + 0.98), abs=0.001)


def rates(judge, truth: float, n: int, std: float = 0.5) -> dict[str, float]:
    """How often each outcome falls when the true value is `truth`."""
    rng = np.random.default_rng(6)
    found = [judge(list(run)).outcome for run in rng.normal(truth, std, (SIMULATIONS, n))]
    return {outcome: found.count(outcome) / SIMULATIONS for outcome in intervals.OUTCOMES}


NOISE = 0.012  # three standard errors of a rate of 2.5% over 2,000 simulations


@pytest.mark.parametrize("n", [3, 5, 10])
def test_value_errors_are_rare_whatever_n(n):
    """At the edge of the tolerance either verdict is wrong half of the time; both together stay below 5%."""
    at_edge = rates(lambda run: intervals.judge_value(run, 80.0, 1.0), 81.0, n)
    assert at_edge["reproduced"] <= 0.025 + NOISE
    assert at_edge["not reproduced"] <= 0.025 + NOISE


def test_value_effects_are_found():
    same = rates(lambda run: intervals.judge_value(run, 80.0, 1.0), 80.0, 10)
    far = rates(lambda run: intervals.judge_value(run, 80.0, 1.0), 83.0, 5)
    assert same["reproduced"] > 0.95
    assert same["not reproduced"] == 0
    assert far["not reproduced"] > 0.95
    assert rates(lambda run: intervals.judge_value(run, 80.0, 1.0), 80.0, 2)["inconclusive"] > 0.8


@pytest.mark.parametrize("n", [3, 5, 10])
def test_order_errors_are_rare_whatever_n(n):
    """Three equal methods: best for certain in well under 2.5%, behind or partly in at most 2.5% each."""
    rng = np.random.default_rng(7)
    found = []
    for _ in range(SIMULATIONS):
        runs = rng.normal(0, 0.5, (3, n))
        found.append(intervals.judge_order("a", {"b": runs[0] - runs[1], "c": runs[0] - runs[2]}).outcome)
    for outcome in ("reproduced", "partly", "not reproduced"):
        assert found.count(outcome) / SIMULATIONS <= 0.025 + NOISE
    assert found.count("inconclusive") / SIMULATIONS > 0.9


def test_order_effects_are_found():
    rng = np.random.default_rng(8)
    noise = rng.normal(0, 0.3, (3, 6))
    assert intervals.judge_order("a", {"b": noise[0] + 3, "c": noise[1] + 3}).outcome == "reproduced"
    assert intervals.judge_order("a", {"b": noise[0] + 3, "c": noise[1] - 3}).outcome == "not reproduced"
    assert intervals.judge_order("a", {"b": noise[0] + 3, "c": noise[1] - noise[1].mean()}).outcome == "partly"


def test_an_inconclusive_verdict_says_how_many_seeds_would_do():
    verdict = intervals.judge_value([79.0, 80.0, 81.5], 80.0, 1.0)
    assert verdict.outcome == "inconclusive"
    assert verdict.seeds > 3
    assert f"about {verdict.seeds} seeds would do" in verdict.reason
    assert intervals.judge_value([80.0], 80.0, 1.0).seeds == 2
    assert intervals.judge_order("a", {"b": [1.0]}).outcome == "inconclusive"
    hopeless = intervals.judge_order("a", {"b": [-5.0, 5.0001]})
    assert hopeless.seeds is None
    assert "more than 1000" in hopeless.reason
