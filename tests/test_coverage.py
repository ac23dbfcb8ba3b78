"""How often the interval of a gain holds the true gain where its errors are estimated from drawn test images, and how
often a claim's verdict is wrong, in every regime that docs/statistics.md lists.

    python -m tests.test_coverage       # prints its tables
"""

from dataclasses import dataclass

import numpy as np
import pytest

from benchmark.stats import claims, power
from benchmark.stats.claims import LOOKS
from benchmark.store import metrics

SIZES = (2, 3, 5, 8)  # numbers of seeds
EXPERIMENTS = {"top-1": 8000, "mAP": 2000}  # a coverage of 95% to within 0.24 and 0.49 points
IMAGES = {"top-1": 1000, "mAP": 300}
CLASSES = 2  # of the mAP, each in 20% of the images
DRAWS = 200  # test sets of a bootstrap
SPREADS = {
    "equal": (0.4, 0.4, 0.4),
    "method 1.0, others 0.3": (1.0, 0.3, 0.3),
    "method 0.1, others 0.5": (0.1, 0.5, 0.5),
}


@dataclass(frozen=True)
class Regime:
    """Networks of two methods on drawn test images. Each image has a difficulty that all share, each method one of its
    own (its deviation: own), each network another (1), and each network a skill (seeds: of method and baseline)."""

    metric: str
    own: float
    seeds: tuple[float, float]

    def __str__(self) -> str:
        method, baseline = self.seeds
        effect = "seed effect" if method == baseline else "seed effect 3 times the baseline's"
        effect = effect if method else "no other seed effect"
        return f"{self.metric}, {effect}, {'' if self.own else 'no '}own part"


REGIMES = [
    Regime(metric, own, seeds)
    for metric, seed in (("top-1", 0.05), ("mAP", 0.15))
    for own in (0.0, 0.25)
    for seeds in ((0.0, 0.0), (seed, seed), (3 * seed, seed))
]


def experiment(regime: Regime, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Gains of the most seeds in points, (8,), and the same on drawn test sets, (8, draws)."""
    images, seeds = IMAGES[regime.metric], max(SIZES)
    shape = (images, CLASSES if regime.metric == "mAP" else 1)
    skill_MS = rng.normal(0, 1, (2, seeds)) * np.array(regime.seeds)[:, None]
    of_images_MNC = rng.normal(size=shape) + regime.own * rng.normal(size=(2, *shape))
    latent_MSNC = of_images_MNC[:, None] + rng.normal(size=(2, seeds, *shape))
    if regime.metric == "top-1":
        hits_MSN = latent_MSNC[..., 0] + skill_MS[..., None] > -0.8
        gain_SN = 100 * (hits_MSN[0].astype(float) - hits_MSN[1])
        # Endless draws: the variances of a mean over drawn images are those of its terms, over their number.
        return gain_SN.mean(axis=1), gain_SN / np.sqrt(images)
    labels_NC = np.where(rng.random(shape) < 0.2, 1, -1)
    scores_MSNC = latent_MSNC + np.where(labels_NC == 1, 1.5 + skill_MS[..., None, None], 0)
    drawn_RN = rng.integers(images, size=(DRAWS, images)) + images * np.arange(DRAWS)[:, None]
    counts_RN = np.bincount(drawn_RN.ravel(), minlength=DRAWS * images).reshape(DRAWS, images)
    counts_RN = np.concatenate([np.ones((1, images), int), counts_RN]).astype(np.uint8)  # as they are, then drawn

    def mean_ap(scores_NC):
        columns = zip(scores_NC.T, labels_NC.T, strict=True)
        return np.mean([metrics.resampled_ap(scores, labels, counts_RN, "area") for scores, labels in columns], axis=0)

    method_SR, baseline_SR = (np.array([mean_ap(scores) for scores in of]) for of in scores_MSNC)
    gain_SR = 100 * (method_SR - baseline_SR)
    return gain_SR[:, 0], gain_SR[:, 1:]


def coverage(regime: Regime, experiments: int) -> dict[int, float]:
    """By number of seeds. The truth is the mean of all gains drawn, known far better than by any one experiment."""
    rng = np.random.default_rng(1)
    made = [experiment(regime, rng) for _ in range(experiments)]
    truth = np.mean([gains for gains, _ in made])
    covered = dict.fromkeys(SIZES, 0)
    for gains, draws in made:
        for n in SIZES:
            found = claims.gain_interval(gains[:n], draws[:n], bounds=None)
            covered[n] += found.low <= truth <= found.high
    return {n: float(count / experiments) for n, count in covered.items()}


@pytest.mark.slow
@pytest.mark.parametrize("regime", REGIMES, ids=str)
def test_intervals_hold_the_truth_in_94_to_96_percent(regime):
    found = coverage(regime, EXPERIMENTS[regime.metric])
    assert all(0.94 <= share <= 0.96 for share in found.values()), found


@pytest.mark.parametrize("regime", [REGIMES[0], REGIMES[-1]], ids=str)
def test_intervals_hold_the_truth_about_as_often_as_they_say(regime):
    """The quick form: three standard errors of so few experiments about 94 to 96%."""
    experiments = 600 if regime.metric == "top-1" else 60
    noise = 3 * (0.05 * 0.95 / experiments) ** 0.5
    found = coverage(regime, experiments)
    assert all(0.94 - noise <= share <= 0.96 + noise for share in found.values()), found


def wrong(spreads: tuple[float, float, float], own: float, share: float, experiments: int) -> tuple[float, float]:
    """How often a claim of 3.33, of which this share is true, is called reproduced and not reproduced over the declared
    looks, where the runs of a method, of another and of their baseline have these spreads."""
    method, _, baseline = spreads  # nobody borrows the other's
    design = power.Design(float(np.hypot(method, baseline)), own)
    found = power.decision_rates(share * 3.33, 3.33, design, LOOKS, experiments)
    return found["reproduced"], found["not reproduced"]


@pytest.mark.parametrize("own", [0.0, 0.1, 0.3])
@pytest.mark.parametrize("spreads", SPREADS.values(), ids=SPREADS)
def test_a_claim_that_is_half_right_gets_each_verdict_in_at_most_2_5_percent(spreads, own):
    assert max(wrong(spreads, own, 0.5, 40_000)) <= 0.025
    assert wrong(spreads, own, 1.0, 40_000)[1] <= 0.025
    assert wrong(spreads, own, 0.0, 40_000)[0] <= 0.025


if __name__ == "__main__":
    print("coverage at n =", *SIZES)
    for regime in REGIMES:
        print(
            f"| {regime} |",
            *(f"{100 * share:.1f} |" for share in coverage(regime, EXPERIMENTS[regime.metric]).values()),
            flush=True,
        )
    print("a claim half right: reproduced, not reproduced")
    for name, spreads in SPREADS.items():
        for own in (0.0, 0.1, 0.3):
            print(f"| {name}, own part {own} |", *(f"{100 * rate:.1f} |" for rate in wrong(spreads, own, 0.5, 40_000)))
