"""Average precision against hand-worked cases and scikit-learn."""

import json
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, top_k_accuracy_score

from benchmark.evidence import sensitivity
from benchmark.store import metrics

SCORES, LABELS = np.array([0.9, 0.8, 0.7, 0.6, 0.5]), np.array([1, -1, 1, -1, 1])


@pytest.mark.parametrize(
    ("definition", "expected"),
    [
        # precision 1, 1/2, 2/3, 1/2, 3/5 at recall 1/3, 1/3, 2/3, 2/3, 1
        ("raw_area", (1 + 2 / 3 + 3 / 5) / 3),
        ("area", (1 + 2 / 3 + 3 / 5) / 3),
        ("11_point", (4 * 1 + 3 * 2 / 3 + 4 * 3 / 5) / 11),
    ],
)
def test_by_hand(definition, expected):
    assert metrics.average_precision(SCORES, LABELS, definition) == pytest.approx(expected)


def test_envelope_differs_from_raw_area():
    labels = np.array([-1, 1, 1])  # precision 0, 1/2, 2/3
    assert metrics.average_precision(SCORES[:3], labels, "raw_area") == pytest.approx((1 / 2 + 2 / 3) / 2)
    assert metrics.average_precision(SCORES[:3], labels, "area") == pytest.approx(2 / 3)


DEVKIT = json.loads((Path(__file__).parent / "golden" / "devkit_ap.json").read_text())["cases"]


def devkit_case(case: dict) -> tuple[np.ndarray, np.ndarray]:
    """Scores and labels of a golden case, in an order of the list that keeps that of tied images."""
    groups = case["labels"].split() if case["tied"] else list(case["labels"])
    scores = np.concatenate([np.full(len(group), -float(k)) for k, group in enumerate(groups)])
    return scores, np.array([{"+": 1, "0": 0, "-": -1}[sign] for sign in "".join(groups)])


@pytest.mark.parametrize("case", DEVKIT, ids=lambda case: case["name"])
def test_area_is_the_devkit_s_but_for_the_order_of_ties(case):
    scores, labels = devkit_case(case)
    found, in_list_order = (
        metrics.average_precision(of, labels, "area") for of in (scores, sensitivity.in_list_order(scores))
    )
    if case["area"] is None:
        assert found is in_list_order is None
        return
    assert in_list_order == pytest.approx(case["area"], abs=1e-12)
    assert found == pytest.approx(case["area_negatives_first"], abs=1e-12), "tied images count together"
    assert found - 1e-12 <= case["area"] <= case["area_positives_first"] + 1e-12
    if not case["tied"]:
        assert found == pytest.approx(case["area"], abs=1e-12)


@pytest.mark.parametrize("case", DEVKIT, ids=lambda case: case["name"])
def test_11_point_is_the_devkit_s_but_for_ties_and_rounding(case):
    """In doubles 3, 6 and 7 times 0.1 are above the tenth: the devkit misses a recall that is exactly one of these."""
    scores, labels = devkit_case(case)
    if not (labels == 1).any():
        assert case["11_point"] == 0, "ours has no number there"
        return
    curve = metrics.precision_recall(sensitivity.in_list_order(scores), labels)
    as_octave = [np.max(curve[0], where=curve[1] >= 0.1 * k, initial=0.0) for k in range(11)]
    assert np.mean(as_octave) == pytest.approx(case["11_point"], abs=1e-12)
    ours = metrics.eleven_point(*curve)
    assert ours >= case["11_point"] - 1e-12
    if (labels == 1).sum() % 10:  # no recall is a tenth
        assert ours == pytest.approx(case["11_point"], abs=1e-12)


@pytest.mark.parametrize("seed", range(20))
def test_raw_area_is_scikit_learn_s(seed):
    rng = np.random.default_rng(seed)
    scores = rng.integers(0, 8, 60) / 8 if seed % 2 else rng.normal(size=60)  # odd seeds: many ties
    labels = rng.choice([1, -1], 60, p=[0.3, 0.7])
    ours = metrics.average_precision(scores, labels, "raw_area")
    assert ours == pytest.approx(average_precision_score(labels == 1, scores), abs=1e-12)


@pytest.mark.parametrize("definition", metrics.DEFINITIONS)
def test_order_of_ties_does_not_matter(definition):
    scores, labels = np.array([0.5, 0.5, 0.5, 0.2]), np.array([1, -1, -1, 1])
    values = {
        metrics.average_precision(scores[list(p)], labels[list(p)], definition)
        for p in ([0, 1, 2, 3], [2, 1, 0, 3], [1, 0, 2, 3])
    }
    assert len(values) == 1


@pytest.mark.parametrize("definition", metrics.DEFINITIONS)
def test_difficult_images_are_left_out(definition):
    scores, labels = np.array([0.9, 0.8, 0.7, 0.6]), np.array([0, 1, 0, -1])
    assert metrics.average_precision(scores, labels, definition) == 1.0


@pytest.mark.parametrize("definition", metrics.DEFINITIONS)
def test_perfect_and_worst_ranking(definition):
    assert metrics.average_precision(np.array([3, 2, 1.0]), np.array([1, 1, -1]), definition) == 1
    assert metrics.average_precision(np.array([3, 2, 1.0]), np.array([-1, -1, 1]), definition) == pytest.approx(1 / 3)


@pytest.mark.parametrize("definition", metrics.DEFINITIONS)
@pytest.mark.parametrize("levels", [2, 9, 10**6])
def test_resampled_ap_is_ap_of_the_repeated_images(definition, levels):
    """With many ties, some, none; difficult images among them; rows that repeat, and the images as they are."""
    rng = np.random.default_rng(levels)
    for positives in (0.02, 0.2, 0.9):
        scores, labels = rng.integers(0, levels, 60) / levels, rng.choice([1, -1], 60, p=[positives, 1 - positives])
        labels[rng.random(60) < 0.1] = 0
        counts = np.vstack([np.ones(60, np.uint8), rng.multinomial(60, np.full(60, 1 / 60), 50).astype(np.uint8)])
        for row, ap in zip(counts, metrics.resampled_ap(scores, labels, counts, definition), strict=True):
            repeated = np.repeat(np.arange(60), row)
            expected = metrics.average_precision(scores[repeated], labels[repeated], definition)
            assert ap == pytest.approx(np.nan if expected is None else expected, abs=1e-12, nan_ok=True)


def test_a_sample_without_positives_is_no_number():
    ap = metrics.resampled_ap(np.array([0.9, 0.1]), np.array([1, -1]), np.array([[0, 2], [1, 1]]), "area")
    assert np.isnan(ap[0])
    assert ap[1] == 1
    assert np.isnan(metrics.resampled_ap(np.array([0.9]), np.array([0]), np.array([[1]]), "area")).all()


@pytest.mark.parametrize("labels", [[-1, -1], [0, 0], [0, -1]])
def test_no_positives_is_none_and_left_out_of_the_mean(labels):
    assert metrics.average_precision(np.array([0.1, 0.2]), np.array(labels)) is None
    assert metrics.mean_ap([None, 0.5, 1.0]) == 0.75
    assert metrics.mean_ap([None]) is None


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_scores_that_are_not_numbers_are_an_error(bad):
    with pytest.raises(ValueError, match="diverged"):
        metrics.average_precision(np.array([0.1, bad]), np.array([1, -1]))


def test_eleven_point_hits_recalls_that_float_below_a_tenth():
    labels = np.array([1] * 10)  # recalls 0.1 ... 1.0, of which 0.3 and 0.6 and 0.7 are not exact
    assert metrics.average_precision(np.arange(10.0), labels, "11_point") == 1.0


def test_top_classes_agree_with_scikit_learn():
    rng = np.random.default_rng(0)
    scores, labels = rng.normal(size=(300, 12)), rng.integers(0, 12, 300)
    kept, top = scores.copy(), metrics.top_classes(scores, 5)
    assert (scores == kept).all()
    for k in (1, 5):
        share = metrics.among_top(top, labels, k).mean()
        assert share == top_k_accuracy_score(labels, scores, k=k, labels=range(12))
        assert metrics.summary(scores, labels, ())[f"top{k}"] == share
    assert metrics.headline(scores, labels) == ("top1", (scores.argmax(axis=1) == labels).mean())


def test_of_equal_scores_the_lower_class_ranks_first():
    """So that a constant predictor is right about one class, not about all."""
    scores, labels = np.zeros((10, 10)), np.arange(10)
    assert metrics.top_classes(scores, 5).tolist() == [[0, 1, 2, 3, 4]] * 10
    assert metrics.summary(scores, labels, ()) == {"top1": 0.1, "top5": 0.5}
    assert metrics.top_classes(np.array([[1.0, 2, 2]]), 5).tolist() == [[1, 2, 0]]


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_accuracy_of_scores_that_are_not_numbers_is_an_error(bad):
    with pytest.raises(ValueError, match="diverged"):
        metrics.top_classes(np.array([[0.1, bad]]), 1)
