"""Bootstraps against the metric itself and the binomial; the interval of an AP against simulated truth; the cache."""

import itertools
from pathlib import Path

import numpy as np
import pytest

from benchmark.matrix import grid
from benchmark.matrix.matrix import Matrix
from benchmark.results import resampling
from benchmark.results import results as results_module
from benchmark.results.results import Results
from benchmark.stats import intervals
from benchmark.store import metrics, scores
from benchmark.store.run import Run

RUNS = Path(__file__).parents[1] / "runs"
MATRIX = Matrix(grid.load("cifar100"), "reduced", runs=RUNS)


def test_draws_are_seeded_and_of_the_test_set_s_size():
    first = resampling.draws(50, 40)
    assert (first.sum(axis=1) == 50).all()
    assert (first == resampling.draws(50, 40, seed=0)).all()
    assert (first != resampling.draws(50, 40, seed=1)).any()
    assert first.mean(axis=0) == pytest.approx(1, abs=0.6)  # four standard errors of 40 Poisson counts


def test_bootstrap_of_accuracy_has_the_binomial_spread():
    rng = np.random.default_rng(3)
    labels = rng.integers(0, 10, 1500)
    scores = rng.normal(size=(1500, 10))
    scores[np.arange(1500), labels] += 2
    found = resampling.resampled(metrics.top_classes(scores, 5), labels, [], "area", rounds=3000)
    assert set(found) == {"top1", "top5"}
    share = (scores.argmax(axis=1) == labels).mean()
    assert found["top1"].mean() == pytest.approx(share, abs=0.002)
    assert found["top1"].std() == pytest.approx(intervals.binomial_std(share, 1500), rel=0.05)
    assert (found["top5"] >= found["top1"]).all()


def test_accuracy_is_that_of_the_repeated_images():
    rng = np.random.default_rng(5)
    labels, predicted = rng.integers(0, 6, 40), np.argsort(rng.normal(size=(40, 6)))[:, :5]
    found = resampling.resampled(predicted, labels, [], "area", rounds=150)
    for row, counts in enumerate(resampling.draws(40, 150)):
        images = np.repeat(np.arange(40), counts)
        expected = metrics.among_top(predicted[images], labels[images], 1).mean()
        assert found["top1"][row] == pytest.approx(expected, abs=1e-6)


def test_multi_label_bootstrap_has_each_class_and_the_mean():
    rng = np.random.default_rng(4)
    labels = rng.choice([1, -1], (80, 3))
    labels[:, 2] = -1  # no positives
    found = resampling.resampled(rng.normal(size=(80, 3)), labels, ["cat", "dog", "cow"], "area", rounds=30)
    assert list(found) == ["cat", "dog", "mAP"]
    assert found["mAP"] == pytest.approx((found["cat"] + found["dog"]) / 2)


def recorded(method: str) -> tuple[np.ndarray, np.ndarray]:
    """Scores and labels of the first VOC run at scale reduced, of classes with 15 images or more."""
    run = Run(next(RUNS.glob(f"reduced/voc2012-resnet18-{method}-s0-*")))
    saved, names = scores.read(run), run.result().frequent(15)
    kept = [c for c, name in enumerate(saved.classes) if name in names]
    return saved.predicted[:, kept], saved.labels[:, kept]


def coverage(
    constructions: dict, experiments: int = 200, rounds: int = 300, smooth: bool = False
) -> dict[tuple[str, str], float]:
    """How often each interval of a class's AP, and of mAP, holds the truth: test sets are drawn from a recorded one,
    whose values are the truth, and resampled.

    smooth: drawn scores are moved by Gaussian noise (Silverman's bandwidth, of positives and others), as no new image
    repeats a score; the truth is then that of 400,000 images.
    """
    predicted, labels = recorded("baseline")
    classes, rng, covered = [str(c) for c in range(labels.shape[1])], np.random.default_rng(0), {}
    widths = [
        np.array(
            [0.9 * x[y == sign].std() * (y == sign).sum() ** -0.2 for x, y in zip(predicted.T, labels.T, strict=True)]
        )
        for sign in (1, -1)
    ]

    def draw(size):
        of = rng.integers(len(labels), size=size)
        noise = rng.normal(size=(size, len(classes))) * np.where(labels[of] == 1, *widths) if smooth else 0
        return predicted[of] + noise, labels[of]

    def values(predicted, labels):
        ap = metrics.per_class_ap(predicted, labels)
        return dict(zip(classes, ap, strict=True)) | {"mAP": metrics.mean_ap(ap)}

    truth = values(*draw(400_000)) if smooth else values(predicted, labels)
    for experiment in range(experiments):
        drawn = draw(len(labels))
        points = values(*drawn)
        samples = resampling.resampled(*drawn, classes, "area", rounds, seed=experiment)
        for (item, values_R), (name, interval) in itertools.product(samples.items(), constructions.items()):
            low, high = interval(points[item], values_R)
            found = covered.setdefault((name, "mAP" if item == "mAP" else "class"), [])
            found.append(low <= truth[item] <= high)
    return {key: float(np.mean(found)) for key, found in covered.items()}


def _middle(samples):
    low, high = np.quantile(samples[np.isfinite(samples)], [0.025, 0.975])
    return float(low), float(high)


def percentile(point, samples):
    return _middle(samples)


def basic(point, samples):
    low, high = _middle(samples)
    return 2 * point - high, 2 * point - low


@pytest.mark.slow
def test_image_interval_covers_as_promised_where_the_percentile_interval_does_not():
    """Tolerances: 0.92 to 0.97 for the mean over classes, 0.90 to 0.98 for mAP (three standard errors: 0.046)."""
    found = coverage({"percentile": percentile, "bias-corrected": intervals.image_interval})
    assert 0.92 <= found["bias-corrected", "class"] <= 0.97
    assert 0.90 <= found["bias-corrected", "mAP"] <= 0.98
    assert found["percentile", "mAP"] < 0.90


def test_image_interval_by_hand():
    samples = np.append(np.linspace(0, 100, 10_001), np.nan)
    assert intervals.image_interval(50.0, samples) == pytest.approx(
        (2.5, 97.5), abs=0.02
    )  # half below: the percentiles
    # 84.13% below: one standard deviation of bias, moved twice: quantiles at Phi(2 -+ 1.96)
    assert intervals.image_interval(84.134, samples) == pytest.approx((51.60, 99.996), abs=0.02)
    assert intervals.image_interval(84.134, samples, bounds=(60, 90)) == (60, 90)
    assert np.isfinite(intervals.image_interval(200.0, samples)).all()
    assert intervals.image_interval(1.0, np.array([np.nan, 1.0])) is None


def test_image_interval_counts_a_tie_as_half_below():
    samples = np.repeat(np.float32([10.1, 20.2, 30.3]), 100)
    assert intervals.image_interval(20.2, samples) == pytest.approx(_middle(samples))


def test_cached_samples_are_the_made_ones(tmp_path):
    made = {"cat": np.arange(3, dtype=np.float32), "mAP": np.float32([0.5, np.nan, 1])}
    for _ in range(2):
        found = resampling.cached(tmp_path / "new", "key", lambda: made)
        assert list(found) == ["cat", "mAP"]
        assert all(np.array_equal(found[item], made[item], equal_nan=True) for item in made)
    assert resampling.cached(tmp_path / "new", "key", lambda: pytest.fail("made again")).keys() == made.keys()
    assert resampling.cached(tmp_path / "new", "other", dict) == {}
    assert resampling.cached(tmp_path / "new", "other", lambda: pytest.fail("made again")) == {}


@pytest.mark.parametrize("damage", [lambda data: b"", lambda data: data[:-30], lambda data: b"x" * len(data)])
def test_a_corrupt_cache_is_made_again(tmp_path, damage):
    made = {"top1": np.float32([0.25, 0.5])}
    resampling.cached(tmp_path, "key", lambda: made)
    (path,) = tmp_path.iterdir()
    path.write_bytes(damage(whole := path.read_bytes()))
    assert resampling.cached(tmp_path, "key", lambda: made) == made
    assert path.read_bytes() == whole


def test_a_cache_that_cannot_be_written_is_no_error(tmp_path):
    (tmp_path / "file").write_text("in the way")
    made = {"top1": np.float32([0.25])}
    assert resampling.cached(tmp_path / "file", "key", lambda: made) == made
    assert resampling.cached(None, "key", lambda: made) == made


def test_a_key_knows_scores_definition_classes_and_rounds():
    known = (b"scores", "area", ["cat"], 10)
    others = [(b"others", *known[1:]), (b"scores", "raw_area", ["cat"], 10), (*known[:2], [], 10), (*known[:3], 11)]
    assert len({resampling.cache_key(*key) for key in [known, *others, known]}) == 5


def test_runs_of_the_same_images_are_paired_and_a_second_call_reads_them(tmp_path, monkeypatch):
    ids = [(next(RUNS.glob(f"reduced/cifar100-resnet20-{m}-s0-*")).name,) for m in ("baseline", "icasc-a_ch")]
    first = Results.read(MATRIX).resample(ids, 200, cache=tmp_path)
    left, right = (first[name]["top1"] for name in ids)
    assert np.std(left - right) < np.hypot(left.std(), right.std())
    assert resampling.draws.cache_info().currsize == 0
    monkeypatch.setattr(resampling, "resampled", lambda *_: pytest.fail("made again"))
    again = Results.read(MATRIX).resample(ids, 200, "top1", cache=tmp_path)
    assert all(list(again[name]) == ["top1"] and (again[name]["top1"] == first[name]["top1"]).all() for name in ids)


def test_a_run_is_read_once_for_all_its_groups_and_a_group_that_lacks_one_is_left_out(tmp_path, monkeypatch):
    one, two = (next(RUNS.glob(f"reduced/cifar100-resnet20-{m}-s0-*")).name for m in ("baseline", "icasc-a_ch"))
    read, original = [], results_module._resampled
    monkeypatch.setattr(results_module, "_resampled", lambda run, *rest: (read.append(run.id), original(run, *rest))[1])
    found = Results.read(MATRIX).resample([[one], [one, two], (two,), [one, "no-such-run"]], 50, "top1", cache=tmp_path)
    assert sorted(read) == sorted([one, two])
    assert set(found) == {(one,), (one, two), (two,)}
    mean = (found[one,]["top1"] + found[two,]["top1"]) / 2
    assert found[one, two]["top1"] == pytest.approx(mean, abs=1e-4)
    assert found[one,]["top1"].std() > 0
