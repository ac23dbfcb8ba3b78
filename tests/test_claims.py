"""What is said of a claim, against closed forms and against simulated truths: how often each verdict is wrong."""

import math

import numpy as np
import pytest

from benchmark.stats import claims, intervals
from benchmark.stats.claims import LOOKS, GainInterval
from benchmark.stats.intervals import ImageParts

IMAGES = ImageParts(0.2, 0.3)  # errors over test images of one seed's gain, in points
SIMULATIONS = 4000
NOISE = 0.01  # three standard errors of a rate of 5% over as many


# Intervals of a gain


def ends(interval: claims.GainInterval) -> tuple[float, float, str]:
    return interval.low, interval.high, interval.over


def test_gain_interval_is_that_of_its_own_seeds_and_images():
    gains, images = [1.0, 2.0, 4.0], ImageParts(0.3, 0.5)
    found = claims.gain_interval(gains, images)
    half = intervals.half_width(np.std(gains, ddof=1), 3, images)
    assert ends(found) == (pytest.approx(7 / 3 - half), pytest.approx(7 / 3 + half), "seeds and images")
    rng = np.random.default_rng(0)
    draws = rng.normal(0, 0.3, 100_000) + rng.normal(0, 0.5, (3, 100_000))
    draws[1, 7] = np.nan  # a draw that lacks a class
    assert claims.gain_interval(gains, draws).low == pytest.approx(found.low, abs=0.01)
    assert ends(claims.gain_interval(gains, None)) == (*map(pytest.approx, intervals.t_interval(gains)), "seeds only")


def test_gain_interval_of_one_seed_says_that_it_is_over_images_only():
    draws = np.random.default_rng(0).normal(3.0, 0.5, (1, 100_000))
    assert ends(claims.gain_interval([3.0], draws)) == (
        pytest.approx(2.02, abs=0.01),
        pytest.approx(3.98, abs=0.01),
        "images only",
    )
    assert claims.gain_interval([3.0], None) is None
    assert claims.gain_interval([], ImageParts(0.5, 0.0)) is None


def test_a_spread_is_no_less_than_its_own_images_imply():
    lucky = claims.estimate([1.0, 1.01, 0.99], ImageParts(0.0, 0.9))
    assert lucky.spread == 0.9
    assert claims.estimate([1.0, 3.0], ImageParts(0.0, 0.9)).spread == pytest.approx(2**0.5)
    assert claims.estimate([1.0], ImageParts(0.9, 0.0)).spread == 0, "one seed has none"


@pytest.mark.parametrize("images", [ImageParts(0.0, 0.0), ImageParts(0.3, 0.5), ImageParts(3.0, 0.2)])
def test_smallest_detectable_gain_is_found_at_the_promised_rate(images):
    rng = np.random.default_rng(2)
    effect = claims.Estimate(0.0, 5, 0.7, images, "seeds and images").detectable()
    drawn = rng.normal(effect, 0.7, (SIMULATIONS, 5)) + rng.normal(0, images.own, (SIMULATIONS, 1))
    found = [claims.gain_interval(gains, images).low > 0 for gains in drawn]
    assert np.mean(found) == pytest.approx(intervals.POWER, abs=0.03)


def test_gain_interval_stays_in_bounds():
    wide = claims.gain_interval([-50.0, 99.0], ImageParts(1.0, 0.0))
    assert (wide.low, wide.high) == (-100, 100)
    assert intervals.t_interval([-50.0, 99.0], bounds=(-100, 100)) == (-100, 100)
    assert claims.gain_interval([-50.0, 99.0], ImageParts(1.0, 0.0), bounds=None).high > 100


# The half-claim rule


@pytest.mark.parametrize(
    ("low", "high", "outcome", "size"),
    [
        (1.1, 1.9, "reproduced", "smaller than claimed"),
        (1.1, 2.9, "reproduced", "of the claimed size"),
        (1.1, 3.1, "reproduced", "size open"),
        (2.1, 9.0, "reproduced", "larger than claimed"),
        (0.9, 2.5, "inconclusive", "size open"),
        (0.5, 1.5, "inconclusive", "smaller than claimed"),
        (-1.0, 0.9, "not reproduced", "smaller than claimed"),
        (1.0, 2.5, "inconclusive", "size open"),  # half of the claim is not beyond half
    ],
)
@pytest.mark.parametrize("sign", [1, -1])
def test_half_claim_rule(low, high, outcome, size, sign):
    interval = GainInterval(*sorted((sign * low, sign * high)), "seeds and images")
    verdict = claims.judge_claim([sign * 1.5] * 3, sign * 2.0, interval)
    assert verdict.outcome == outcome
    assert "over seeds and images" in verdict.reason
    assert f"half of the claimed {sign * 2:+.2f}" in verdict.reason
    assert claims.claim_size(sign * 2.0, interval) == size


def test_what_keeps_a_claim_from_being_judged():
    interval = GainInterval(2.0, 3.0, "images only")
    assert claims.judge_claim([2.5], 2.0, interval).outcome == "inconclusive"
    assert claims.judge_claim([2.5] * 3, 0.0, interval).outcome == "not comparable"
    assert claims.judge_claim([2.5] * 3, 2.0, None).outcome == "inconclusive"
    undeclared = claims.judge_claim([2.5] * 4, 2.0, None, LOOKS)
    assert (undeclared.outcome, undeclared.reason) == ("inconclusive", "n=4 is no declared look (3, 5, 8)")
    assert claims.judge_claim([2.5] * 5, 2.0, interval, LOOKS).outcome == "reproduced"


def test_levels_of_looks():
    assert [claims.level_of_look(n) for n in (3, 5, 8)] == [pytest.approx(1 - 0.05 / 3)] * 3
    assert claims.level_of_look(4) is None
    assert claims.level_of_look(4, None) == intervals.LEVEL
    assert claims.level_of_look(5, (5,)) == pytest.approx(intervals.LEVEL)


def test_seeds_added_after_a_look_cost_a_look():
    assert claims.level_of_looks(()) == claims.level_of_looks((5,)) == intervals.LEVEL
    assert claims.level_of_looks((3, 4)) == pytest.approx(0.975)
    rng = np.random.default_rng(8)
    wrong = 0
    for gains in rng.normal(0, 0.7, (SIMULATIONS, 5)):  # seeds 3 and 4 where three do not tell zero
        looks = [claims.gain_interval(gains[:n], None, claims.level_of_looks((3, 5))) for n in (3, 5)]
        wrong += any(look.low > 0 or look.high < 0 for look in looks)
    assert wrong / SIMULATIONS <= 0.05 + NOISE


# p values and ratios


@pytest.mark.parametrize("claimed", [2.0, -2.0])
def test_p_agrees_with_the_interval(claimed):
    rng = np.random.default_rng(2)
    for gains in rng.normal(np.sign(claimed) * 2.0, 0.6, (50, 4)):
        interval = claims.gain_interval(gains, IMAGES)
        p = claims.claim_p(claims.estimate(gains, IMAGES), claimed)
        outcome = claims.judge_claim(gains, claimed, interval).outcome
        assert (p < 0.025) == (outcome == "reproduced")
        assert (p > 0.975) == (outcome == "not reproduced")


def test_p_without_images_is_student_s():
    from scipy.special import stdtr

    gains = np.array([1.0, 2.0, 2.5])
    t = (gains.mean() - 0.75) / (gains.std(ddof=1) / math.sqrt(3))
    assert claims.claim_p(claims.estimate(gains, None), 1.5) == pytest.approx(1 - stdtr(2, t), rel=1e-6)
    assert claims.claim_p(claims.estimate(gains, None), 20.0) == pytest.approx(
        stdtr(2, (10 - gains.mean()) / (gains.std(ddof=1) / math.sqrt(3))), rel=1e-6
    )
    assert claims.claim_p(claims.estimate([2.0, 2.0], None), 1.0) == pytest.approx(claims.LEAST_P)


@pytest.mark.parametrize(("images", "experiments"), [(ImageParts(0.2, 0.0), 2000), (IMAGES, 300)])
def test_p_is_uniform_at_the_border(images, experiments):
    """Half of the claim is true: p below 5% in at most 5%, within three standard errors, and not never."""
    rng = np.random.default_rng(4)
    runs = rng.normal(1.0, 0.5, (experiments, 4)) + rng.normal(0, images.own, (experiments, 1))
    p = np.array([claims.claim_p(claims.estimate(run, images), 2.0) for run in runs])
    noise = 3 * math.sqrt(0.05 * 0.95 / experiments)
    assert 0.015 <= np.mean(p < 0.05) <= 0.05 + noise
    assert 0.015 <= np.mean(p > 0.95) <= 0.05 + noise


def test_holm_by_hand():
    assert claims.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert claims.holm([0.5, 0.9]) == [1.0, 1.0]
    assert claims.holm([0.02]) == [0.02]
    assert claims.holm([]) == []


def test_holm_keeps_the_family_s_error():
    """Five empty claims: any confirmed at 5% in at most 5%, where uncorrected ones reach 23%."""
    p = np.random.default_rng(5).uniform(size=(SIMULATIONS, 5))
    assert np.mean([min(claims.holm(of)) <= 0.05 for of in p]) <= 0.05 + NOISE
    assert np.mean(p.min(axis=1) <= 0.05) > 0.2


def test_ratio_to_a_bare_number_scales_the_interval():
    gains = [1.0, 2.0, 2.4]
    interval = claims.gain_interval(gains, IMAGES)
    for claimed in (4.0, -4.0):
        ratio, (low, high) = claims.effect_ratio(claims.estimate(gains, IMAGES), claimed)
        assert ratio == pytest.approx(1.8 / claimed)
        assert (low, high) == pytest.approx(tuple(sorted((interval.low / claimed, interval.high / claimed))))
    assert claims.effect_ratio(claims.estimate(gains, IMAGES), 0.0) is None
    assert claims.effect_ratio(claims.estimate(gains, IMAGES), 1.0, claimed_sd=0.6) == (pytest.approx(1.8), None)


def test_ratio_to_a_spread_claim_covers_the_true_ratio():
    """Fieller's set, both errors normal: 95%, within three standard errors."""
    rng, covered = np.random.default_rng(6), []
    for ours, theirs in rng.normal((1.5, 3.0), (0.5, 0.4), (SIMULATIONS, 2)):
        found = claims.Estimate(ours, 1, 0.0, ImageParts(0.5, 0.0), "images only")
        _, (low, high) = claims.effect_ratio(found, theirs, 0.4)
        covered.append(low <= 0.5 <= high)
    assert np.mean(covered) == pytest.approx(0.95, abs=NOISE)
