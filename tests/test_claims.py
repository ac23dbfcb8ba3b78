"""What is said of a claim, against closed forms and against simulated truths: how often each verdict is wrong."""

import math

import numpy as np
import pytest

from benchmark.stats import claims, intervals
from benchmark.stats.claims import LOOKS, GainInterval

CLAIMS = {"CIFAR-100": 3.33, "Caltech-256": 1.64, "ILSVRC2012": 0.92, "CUB-200-2011": 4.8, "VOC 2012": 5.73}
SD_SEEDS = (0.3, 0.7, 1.1)  # of a gain paired by seed, in points
SD_IMAGES = 0.4
SIMULATIONS = 4000
NOISE = 0.01  # three standard errors of a rate of 5% over as many


# Intervals of a gain


def test_pooled_std_by_hand():
    pooled = claims.pooled_std([[1.0, 3.0], [0.0, 0.0, 3.0], [7.0], []])  # squares 2 and 6, degrees of freedom 1 and 2
    assert (pooled.std, pooled.df) == (pytest.approx(math.sqrt(8 / 3)), 3)
    assert claims.pooled_std([[1.0], []]) is None


def ends(interval: claims.GainInterval) -> tuple[float, float, str]:
    return interval.low, interval.high, interval.over


def test_gain_interval_is_the_combined_one():
    gains = [1.0, 2.0, 4.0]
    found = claims.gain_interval(gains, 0.5)
    assert ends(found) == (*map(pytest.approx, intervals.combined_interval(gains, 0.5)), "seeds and images")
    samples = np.append(np.random.default_rng(0).normal(2.3, 0.5, 200_000), np.nan)
    assert claims.gain_interval(gains, samples).low == pytest.approx(found.low, abs=0.01)
    assert ends(claims.gain_interval(gains, None)) == (*map(pytest.approx, intervals.t_interval(gains)), "seeds only")


def test_gain_interval_of_one_seed_says_that_it_is_over_images_only():
    assert ends(claims.gain_interval([3.0], 0.5)) == (
        pytest.approx(2.02, abs=0.001),
        pytest.approx(3.98, abs=0.001),
        "images only",
    )
    assert claims.gain_interval([3.0], 0.5, claims.Pooled(1.0, 4)).over == "images only"
    assert claims.gain_interval([3.0], None) is None
    assert claims.gain_interval([], 0.5) is None


@pytest.mark.parametrize("image_error", [0.0, 0.3, 3.0])
def test_smallest_detectable_gain_is_found_at_the_promised_rate(image_error):
    rng = np.random.default_rng(2)
    effect = claims.Estimate(0.0, 0.7 / math.sqrt(5), 4, image_error, "seeds and images").detectable()
    drawn = rng.normal(effect, 0.7, (SIMULATIONS, 5)) + rng.normal(0, image_error, (SIMULATIONS, 1))
    found = [claims.gain_interval(gains, image_error).low > 0 for gains in drawn]
    assert np.mean(found) == pytest.approx(intervals.POWER, abs=0.03)


def test_gain_interval_is_pooled_and_stays_in_bounds():
    found = claims.gain_interval([1.0, 3.0], 0.0, claims.Pooled(0.7, 4))
    half = 2.776445 * 0.7 / math.sqrt(2)
    assert (found.low, found.high) == (pytest.approx(2 - half), pytest.approx(2 + half))
    wide = claims.gain_interval([-50.0, 99.0], 1.0)
    assert (wide.low, wide.high) == (-100, 100)
    assert intervals.t_interval([-50.0, 99.0], bounds=(-100, 100)) == (-100, 100)
    assert intervals.combined_interval([1.0, 99.0], 1.0, bounds=(0, 100)) == (0, 100)
    assert claims.gain_interval([-50.0, 99.0], 1.0, bounds=None).high > 100


def pooled_coverage(n: int, ours: float, theirs: float, baseline: float, sd_images: float, pool=claims.pooled_std):
    """How often the pooled interval of a method's true gain of 0 holds it. The runs of the method, of another one and
    of their baseline have these spreads."""
    rng, covered = np.random.default_rng(1), []
    for _ in range(SIMULATIONS):
        gains = rng.normal(0, [[ours], [theirs]], (2, n)) - rng.normal(0, baseline, n) + rng.normal(0, sd_images)
        found = claims.gain_interval(gains[0], sd_images, pool(gains))
        covered.append(found.low <= 0 <= found.high)
    return float(np.mean(covered))


def pooled_in_any_case(gains):
    return claims.Pooled(math.sqrt(np.mean(np.var(gains, axis=1, ddof=1))), gains.size - len(gains))


@pytest.mark.parametrize("n", [2, 3, 5])
@pytest.mark.parametrize("sd_images", [0.0, SD_IMAGES])
def test_pooled_interval_covers_where_spreads_are_equal(n, sd_images):
    """Within 0.93 to 0.98: below 0.95 as the variances share a baseline and were found alike, above as parts add."""
    assert 0.93 <= pooled_coverage(n, 0.5, 0.5, 0.5, sd_images) <= 0.98


def test_a_noisy_method_does_not_borrow_a_quiet_one_s_spread():
    """Spreads as 5 : 1, 5 seeds: 0.90 at least, where pooling without a look at them falls to 0.83."""
    assert pooled_coverage(5, 0.5, 0.1, 0.05, 0.0) >= 0.89
    assert pooled_coverage(5, 0.5, 0.1, 0.05, 0.0, pooled_in_any_case) < 0.86


def test_bartlett_p():
    from scipy.stats import bartlett

    rng = np.random.default_rng(8)
    for samples in ([rng.normal(0, s, n) for s, n in ((1, 4), (2, 6), (1, 3))] for _ in range(20)):
        found = claims.bartlett_p(np.array([[x.var(ddof=1) for x in samples]] * 2), np.array([3, 5, 2]))
        assert found == pytest.approx([bartlett(*samples).pvalue] * 2)
    assert claims.pooled_std([[1.0, 1.0], [2.0, 2.0]]) == claims.Pooled(0.0, 2)
    assert not claims.pooled_std([[1.0, 1.0], [2.0, 3.0]]).alike
    quiet, noisy = [-0.13, -0.13, -0.11, -0.1, 0.09], [-0.71, -1.06, -3.69, -0.46, 0.01]  # A_ch and Grad-CAM on VOC
    pooled = claims.pooled_std([quiet, noisy])
    assert not pooled.alike
    for gains in (quiet, noisy):  # neither earns a narrower interval from the other, nor from luck
        low, high, _ = ends(claims.gain_interval(gains, None, pooled))
        own = intervals.t_interval(gains)
        shared = intervals.t_quantile(8, 0.975) * pooled.std / 5**0.5
        assert high - low == pytest.approx(max(own[1] - own[0], 2 * shared))


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


# Rates of verdicts


@pytest.mark.parametrize("methods", [1, 2])
@pytest.mark.parametrize("sd", SD_SEEDS)
@pytest.mark.parametrize("dataset", CLAIMS)
def test_wrong_verdicts_are_rare(dataset, sd, methods):
    """A right claim is refused, an empty one confirmed, in at most 5%; at the border, half of the claim, each decision
    falls in at most 5%. After one look at 3 or at 5 seeds, and after all declared looks."""
    claimed = CLAIMS[dataset]
    for looks in ((3,), (5,), LOOKS):
        true, half, zero = (
            claims.decision_rates(truth, claimed, sd, SD_IMAGES, looks, methods, SIMULATIONS)
            for truth in (claimed, claimed / 2, 0)
        )
        assert true["not reproduced"] <= 0.05
        assert zero["reproduced"] <= 0.05
        assert max(half["reproduced"], half["not reproduced"]) <= 0.05


def test_an_undeclared_look_at_every_number_of_seeds_errs_more_often():
    """What declared looks are for, and that the rates above can fail: looking at 2, 3, ..., 12 at the plain level."""
    sizes = range(2, 13)
    found = claims._verdicts(1.0, 2.0, 0.7, 0.0, sizes, None, 1, SIMULATIONS, 0)
    first = found[np.arange(SIMULATIONS), np.argmax(found != 0, axis=1)]
    assert np.mean(first == 1) > 0.05 + NOISE
    assert np.mean(found[:, -1] == 1) <= 0.025 + NOISE


def test_right_claims_are_found():
    assert claims.decision_rates(3.33, 3.33, 0.3, SD_IMAGES)["reproduced"] > 0.9
    assert claims.decision_rates(0, 5.73, 0.7, SD_IMAGES)["not reproduced"] > 0.95
    assert claims.decision_rates(0.92, 0.92, 1.1, SD_IMAGES)["inconclusive"] > 0.9


def test_simulated_verdicts_are_the_rule_s():
    """The simulation judges arrays at once; the rule, one experiment. Both must be one."""
    sizes, rounds, claimed, sd_images = (3, 5), 300, -2.0, 0.3
    found = claims._verdicts(-2.0, claimed, 0.7, sd_images, sizes, sizes, 2, rounds, seed=3)
    rng = np.random.default_rng(3)
    seeds = rng.normal(0, 0.7 / math.sqrt(2), (3, rounds, 5))
    images = rng.normal(0, sd_images, rounds)
    of = {"reproduced": 1, "not reproduced": -1, "inconclusive": 0}
    for r in range(rounds):
        standing = []
        for n in sizes:
            gains = (seeds[1:, r] - seeds[0, r])[:, :n]
            pooled = claims.pooled_std(gains)
            ours = gains[0] + images[r] - 2.0
            interval = claims.gain_interval(ours, sd_images, pooled, claims.level_of_look(n, sizes))
            standing.append(of[claims.judge_claim(ours, claimed, interval, sizes).outcome])
        assert found[r].tolist() == [standing[0], standing[0] or standing[1]]
    assert {-1, 0, 1} > set(found[:, 0].tolist()) > {0}


def test_seeds_to_decide_are_the_least_that_do():
    n = claims.seeds_to_decide(0.7, 0.4, 3.33)
    assert n == claims.seeds_to_decide(0.7, 0.4, -3.33)
    reached = [claims.decision_rates(3.33, 3.33, 0.7, 0.4, (k,))["reproduced"] for k in (n - 1, n)]
    refused = claims.decision_rates(0.0, 3.33, 0.7, 0.4, (n,))["not reproduced"]
    assert reached[0] < 0.8 <= reached[1] + 0.012
    assert refused == pytest.approx(reached[1], abs=0.02)
    assert claims.seeds_to_decide(0.7, 0.4, 3.33, looks=LOOKS) in LOOKS
    assert claims.seeds_to_decide(0.7, 0.4, 0.92) is None  # the test images alone do not tell 0.92 from 0.46
    assert claims.seeds_to_decide(0.3, 0.0, 3.33, looks=(60,)) is None


def test_seeds_to_decide_agrees_with_the_noncentral_t():
    """Without an image part: power at the noncentral t's P(T > t) with half of the claim in standard errors."""
    from scipy.special import nctdtr

    def power(n):
        return 1 - nctdtr(n - 1, 0.82 / 0.7 * math.sqrt(n), intervals.t_quantile(n - 1, 0.975))

    n = claims.seeds_to_decide(0.7, 0.0, 1.64)
    assert power(n - 1) < 0.8 <= power(n)


# p values and ratios


@pytest.mark.parametrize("claimed", [2.0, -2.0])
def test_p_agrees_with_the_interval(claimed):
    rng = np.random.default_rng(2)
    for gains in rng.normal(np.sign(claimed) * 2.0, 0.6, (50, 4)):
        interval = claims.gain_interval(gains, 0.2)
        p = claims.claim_p(claims.estimate(gains, 0.2), claimed)
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


def test_p_is_uniform_at_the_border():
    """Half of the claim is true: p below 5% in at most 5%, and not never."""
    rng = np.random.default_rng(4)
    runs = rng.normal(1.0, 0.5, (2000, 4)) + rng.normal(0, 0.2, (2000, 1))
    p = np.array([claims.claim_p(claims.estimate(run, 0.2), 2.0) for run in runs])
    assert 0.02 <= np.mean(p < 0.05) <= 0.05 + 0.015
    assert 0.02 <= np.mean(p > 0.95) <= 0.05 + 0.015


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
    interval = claims.gain_interval(gains, 0.3)
    for claimed in (4.0, -4.0):
        ratio, (low, high) = claims.effect_ratio(claims.estimate(gains, 0.3), claimed)
        assert ratio == pytest.approx(1.8 / claimed)
        assert (low, high) == pytest.approx(tuple(sorted((interval.low / claimed, interval.high / claimed))))
    assert claims.effect_ratio(claims.estimate(gains, 0.3), 0.0) is None
    assert claims.effect_ratio(claims.estimate(gains, 0.3), 1.0, claimed_sd=0.6) == (pytest.approx(1.8), None)


def test_ratio_to_a_spread_claim_covers_the_true_ratio():
    """Fieller's set, both errors normal: 95%, within three standard errors."""
    rng, covered = np.random.default_rng(6), []
    for ours, theirs in rng.normal((1.5, 3.0), (0.5, 0.4), (SIMULATIONS, 2)):
        found = claims.Estimate(ours, 0.0, math.inf, 0.5, "images only")
        _, (low, high) = claims.effect_ratio(found, theirs, 0.4)
        covered.append(low <= 0.5 <= high)
    assert np.mean(covered) == pytest.approx(0.95, abs=NOISE)
