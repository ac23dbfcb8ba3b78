"""How often the interval of a gain holds the true gain, and how often a claim's verdict is wrong, in every regime that
docs/statistics.md lists. `python -m tests.test_coverage` prints its tables; `slow` tests hold them."""

import sys
from dataclasses import dataclass

import numpy as np

from benchmark.stats import claims
from benchmark.store import metrics

SIZES = (2, 3, 5, 8)  # numbers of seeds
DRAWN = 3000  # experiments with drawn test images, each with its own bootstrap
COUNTED = 40_000  # experiments on numbers: a rate of 5% to within 0.1 points
DRAWS = 200  # test sets of each bootstrap


@dataclass(frozen=True)
class Drawn:
    """Networks of two methods on drawn test images: each image has a difficulty that all share, each method one of its
    own (`own`), each network another (1), and each network a skill (`seeds`, of method and baseline)."""

    metric: str
    own: float = 0.0
    seeds: tuple[float, float] = (0.0, 0.0)
    images: int = 200
    classes: int = 2  # of the mAP, each in 20% of the images

    def __str__(self) -> str:
        method, baseline = self.seeds
        spread = "no other seed effect" if not method else "seed effect"
        spread += f" {method / baseline:.0f} : 1" if method != baseline else ""
        return f"{self.metric}, {spread}, {'' if self.own else 'no '}own part"


DRAWN_REGIMES = [
    Drawn(metric, own, seeds)
    for metric, seed in (("top-1", 0.08), ("mAP", 0.15))
    for own in (0.0, 0.25)
    for seeds in ((0.0, 0.0), (seed, seed), (3 * seed, seed))
]


def experiment(regime: Drawn, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Gains of the most seeds in points, (8,), and the same on drawn test sets, (8, DRAWS)."""
    images, seeds = regime.images, max(SIZES)
    drawn_RN = rng.integers(images, size=(DRAWS, images)) + images * np.arange(DRAWS)[:, None]
    counts_RN = np.bincount(drawn_RN.ravel(), minlength=DRAWS * images).reshape(DRAWS, images).astype(np.uint8)
    skill_MS = rng.normal(0, 1, (2, seeds)) * np.array(regime.seeds)[:, None]
    shape = (images, regime.classes if regime.metric == "mAP" else 1)
    shared_NC, own_MNC = rng.normal(size=shape), regime.own * rng.normal(size=(2, *shape))
    noise_MSNC = rng.normal(size=(2, seeds, *shape))
    latent_MSNC = shared_NC + own_MNC[:, None] + noise_MSNC
    if regime.metric == "top-1":
        hits_MSN = latent_MSNC[..., 0] + skill_MS[..., None] > -0.8
        gain_SN = 100 * (hits_MSN[0].astype(np.float32) - hits_MSN[1])
        return gain_SN.mean(axis=1), gain_SN @ counts_RN.T.astype(np.float32) / images
    labels_NC = np.where(rng.random(shape) < 0.2, 1, -1)
    scores_MSNC = latent_MSNC + np.where(labels_NC == 1, 1.5 + skill_MS[..., None, None], 0)
    counts_RN = np.concatenate([np.ones((1, images), np.uint8), counts_RN])  # as they are, then drawn

    def mean_ap(scores_NC):
        columns = zip(scores_NC.T, labels_NC.T, strict=True)
        return np.mean([metrics.resampled_ap(scores, labels, counts_RN, "area") for scores, labels in columns], axis=0)

    method_SR, baseline_SR = (np.array([mean_ap(scores) for scores in of]) for of in scores_MSNC)
    gain_SR = 100 * (method_SR - baseline_SR)
    return gain_SR[:, 0], gain_SR[:, 1:]


def coverage(regime: Drawn, experiments: int = DRAWN, sizes=SIZES) -> dict[int, float]:
    """By number of seeds. The truth is the mean of all gains drawn, known 100 times as well as an interval's own."""
    rng = np.random.default_rng(1)
    made = [experiment(regime, rng) for _ in range(experiments)]
    truth = np.mean([gains for gains, _ in made])
    covered = dict.fromkeys(sizes, 0)
    for gains, draws in made:
        for n in sizes:
            found = claims.gain_interval(gains[:n], draws[:n], bounds=None)
            covered[n] += found.low <= truth <= found.high
    return {n: count / experiments for n, count in covered.items()}


if __name__ == "__main__":
    for regime in DRAWN_REGIMES:
        if not sys.argv[1:] or str(regime).startswith(sys.argv[1]):
            print(regime, coverage(regime, *map(int, sys.argv[2:])), flush=True)
