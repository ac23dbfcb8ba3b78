"""The saved test scores are what the result was made from, whole or refused."""

import json

import numpy as np
import pytest
import torch

from benchmark.errors import UserError
from benchmark.results import resampling
from benchmark.store import metrics, scores
from benchmark.store import run as run_module
from tests import evidence

RNG = np.random.default_rng(0)
LOGITS = RNG.normal(size=(40, 7)).astype(np.float32)
NAMES = tuple("gfedcba")


@pytest.fixture
def run(tmp_path):
    return evidence.plant(tmp_path, evidence.as_published)[0]


def test_multi_label_scores_come_back(run):
    labels = RNG.choice([1, 0, -1], (40, 7)).astype(np.int8)
    digest = scores.write(run, np.arange(40).astype(str), labels, LOGITS, NAMES, np.array(["t1", "t2"]))
    run.path("result.json").write_text(json.dumps({"job": run.id, "scores_sha256": digest}))
    saved = scores.read(run)
    assert (saved.predicted == LOGITS).all()
    assert (saved.labels == labels).all()
    assert saved.classes == list(NAMES)
    with np.load(run.path("scores.npz")) as arrays:
        assert arrays["train_ids"].tolist() == ["t1", "t2"]


def test_single_label_scores_are_the_best_classes_and_their_log_probabilities(run):
    labels = RNG.integers(0, 7, 40)
    logits = LOGITS.round(0)  # with ties, as bfloat16 logits have
    scores.write(run, np.arange(40).astype(str), labels, logits * 1000, NAMES)
    saved = scores.read(run)
    recorded = metrics.summary(logits, labels, NAMES)
    assert recorded == {f"top{k}": metrics.among_top(saved.predicted, labels, k).mean() for k in (1, 5)}
    drawn = resampling.resampled(saved.predicted, saved.labels, saved.classes, "area", rounds=400)
    assert all(drawn[item].mean() == pytest.approx(value, abs=0.01) for item, value in recorded.items())
    expected = torch.from_numpy(logits * 1000).double().log_softmax(dim=1).topk(5).values
    with np.load(run.path("scores.npz")) as arrays:
        assert np.allclose(arrays["top_log_probs"], expected, rtol=1e-6)


@pytest.mark.parametrize("many", [True, False])
def test_maps_come_back_with_the_classes_that_they_are_of(run, many):
    labels = RNG.choice([1, -1], (40, 7)).astype(np.int8) if many else RNG.integers(0, 7, 40)
    at, kept = np.array([3, 9]), RNG.integers(0, 256, (2, 5, 3, 3)).astype(np.uint8)
    ids = np.arange(40).astype(str)
    scores.write(run, ids, labels, LOGITS, NAMES, maps={"images": at, "grad_cam": kept, "a_ch": 255 - kept})
    maps, logits = scores.maps(run), torch.from_numpy(LOGITS[at])
    assert maps.at.tolist() == [3, 9]
    assert maps.classes_MK.tolist() == logits.topk(5).indices.tolist()
    share = (logits.sigmoid() if many else logits.softmax(dim=1)).topk(5).values
    assert np.allclose(maps.share_MK, share, rtol=1e-5)
    assert (maps.by_kind["grad_cam"] * 255 == kept).all()
    assert np.allclose(maps.by_kind["a_ch"] + maps.by_kind["grad_cam"], 1)
    assert len(scores.read(run).ids) == 40, "the scores are read as before"


def test_maps_of_other_classes_than_the_scores_are_refused(run):
    kept = np.zeros((2, 4, 3, 3), np.uint8)
    ids, labels = np.arange(40).astype(str), RNG.integers(0, 7, 40)
    scores.write(run, ids, labels, LOGITS, NAMES, maps={"images": np.array([3, 9]), "a_ch": kept})
    with pytest.raises(UserError, match="not a map for each image and class"):
        scores.maps(run)


def test_records_from_before_maps_were_kept():
    assert [scores.maps(run) for run in run_module.all_runs(evidence.RUNS)] == [None] * len(
        run_module.all_runs(evidence.RUNS)
    )


def test_records_from_before_classes_were_saved():
    for run in run_module.all_runs(evidence.RUNS):
        saved, ap = scores.read(run), run.result().ap["area"]
        found = metrics.per_class_ap(saved.predicted, saved.labels, "area")
        assert dict(zip(saved.classes, found, strict=True)) == pytest.approx(ap)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: path.write_bytes(b"PK"), "not the scores that result.json was made from"),
        (lambda path: path.unlink(), "missing"),
    ],
)
def test_scores_that_are_not_the_result_s(run, damage, message):
    evidence.save_scores(run, RNG.integers(0, 7, 40), LOGITS)
    damage(run.path("scores.npz"))
    with pytest.raises(UserError, match=message):
        scores.read(run)


@pytest.mark.parametrize(
    "arrays",
    [
        {"labels": np.zeros(2, int), "top_classes": np.zeros((3, 5), np.uint16)},
        {"labels": np.zeros(2, int), "top_classes": np.zeros((2, 5))},
        {"labels": np.zeros(2, int), "scores": np.zeros((2, 10))},
        {"labels": np.zeros((2, 3), np.int8), "top_classes": np.zeros((2, 5), np.uint16)},
        {"labels": np.zeros((2, 3), np.int8), "scores": np.zeros((2, 3)), "classes": np.array(["a", "b"])},
    ],
)
def test_arrays_that_do_not_fit(run, arrays):
    np.savez_compressed(run.path("scores.npz"), ids=np.array(["a", "b"]), **arrays)
    with pytest.raises(UserError, match="not a file of scores"):
        scores.read(run)


@pytest.mark.parametrize("letter", [0xD800, 0x7FFFFFFF])
def test_ids_of_letters_that_there_are_none_of_are_refused(letter, tmp_path):
    run = run_module.Run(tmp_path)
    ids = np.full(2, letter, np.uint32).view("<U1")
    scores.write(run, ids, np.array([[1], [-1]], np.int8), np.zeros((2, 1), np.float32), ("a",))
    with pytest.raises(UserError, match="not a file of scores"):
        scores.read(run)
