"""The gate before every gain: did the method move the maps that it is to move?"""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from benchmark.matrix import grid
from benchmark.matrix.matrix import Matrix
from benchmark.results import treatment as reading
from benchmark.results.results import Results
from benchmark.stats import intervals
from benchmark.store.records import Epoch
from benchmark.store.run import submit
from benchmark.store.scores import Scores
from benchmark.tables import treatment
from benchmark.tables.treatment import Change
from tests.evidence import GOLDEN, save_scores

METHOD = "icasc-a_ch"
RNG = np.random.default_rng(0)


def _runs(
    folder: Path, moved: dict[str, list[float]], blank: float = 0.0
) -> tuple[Matrix, dict[int, str], dict[int, str]]:
    """Finished pairs whose overlap at the last layer is the baseline's and so much more; by method, run ids by seed."""
    matrix = Matrix(grid.load("voc", GOLDEN), "paper", runs=folder)
    ids: dict[str, dict[int, str]] = {"baseline": {}, METHOD: {}}
    for job in matrix.jobs:
        if job.method not in ids or job.seed >= len(moved["a_ch_last"]):
            continue
        run = submit(folder, job)
        ids[job.method][job.seed] = run.id
        overlap = {}
        for name, by in moved.items():
            overlap[name] = (0.6 + 0.01 * job.seed + (by[job.seed] if job.method == METHOD else 0)) * (1 - blank)
            overlap[f"{name}_blank"] = blank
        train = {"classification": 0.3} | ({"separability_last": 0.1} if job.method == METHOD else {})
        epochs = [{"epoch": 1, "attention_overlap": dict.fromkeys(overlap, 0.5)}]
        epochs.append({"epoch": 2, "train": train, "attention_overlap": overlap})
        run.path("metrics.jsonl").write_text("".join(json.dumps(e) + "\n" for e in epochs))
    return matrix, ids[METHOD], ids["baseline"]


def _treated(matrix: Matrix, *arguments) -> treatment.Treatment:
    return treatment.treatment(Results.read(matrix), *arguments)


def _of(folder: Path, effect: bool | None = False, **moved: list[float]) -> treatment.Treatment:
    return _treated(*_runs(folder, moved), effect, "a_ch")


def test_maps_that_come_apart_in_every_seed_are_a_treatment(tmp_path):
    found = _of(tmp_path, a_ch_inner=[0.0, 0.01, -0.01], a_ch_last=[-0.10, -0.11, -0.09])
    assert found.answer == "applied, no effect"
    assert "a_ch_last" in found.reason
    assert "a_ch_inner" not in found.reason
    assert found.changes["a_ch_last"].mean == pytest.approx(-0.10)
    assert found.share == pytest.approx(0.25)


def test_an_effect_is_the_gain_s(tmp_path):
    moved = {"a_ch_inner": [0.0, 0.01, -0.01], "a_ch_last": [-0.10, -0.11, -0.09]}
    assert _of(tmp_path, True, **moved).answer == "applied, effect"
    assert _of(tmp_path, None, **moved).answer == "not known"


@pytest.mark.parametrize("last", [[0.0, 0.01, -0.01], [-0.2, 0.0, -0.05], [0.1, 0.11, 0.09]])
def test_maps_that_moved_no_more_than_seeds_do_or_came_closer_are_none(tmp_path, last):
    found = _of(tmp_path, True, a_ch_inner=[0.0, 0.01, -0.01], a_ch_last=last)
    assert found.answer == "not applied"


def test_two_layers_share_the_level(tmp_path):
    """At 95% alone this fall would count; looking at two layers, it may be luck."""
    last = [-0.05, -0.10, -0.15]
    half = 4.303 * np.std(last, ddof=1) / np.sqrt(3)
    assert np.mean(last) + half > -0.03  # just beyond zero or within: the level decides
    found = _of(tmp_path, a_ch_inner=[0.0, 0.0, 0.001], a_ch_last=[x - 0.026 for x in last])
    assert np.mean(last) - 0.026 + half < 0
    assert found.answer == "not applied"


def test_blank_maps_do_not_count_as_apart(tmp_path):
    """A network whose maps are blank has no overlap either: what is left is compared."""
    matrix, ours, theirs = _runs(tmp_path, {"a_ch_last": [-0.1, -0.11, -0.09]}, blank=0.5)
    found = treatment.treatment(Results.read(matrix), ours, theirs, False, "a_ch")
    assert found.changes["a_ch_last"].mean == pytest.approx(-0.1)
    matrix, ours, theirs = _runs(tmp_path / "blank", {"a_ch_last": [-0.1, -0.11, -0.09]}, blank=1.0)
    assert treatment.treatment(Results.read(matrix), ours, theirs, False, "a_ch").answer == "not known"


def _one_sided(folder: Path, blank: float, fall: float) -> treatment.Treatment:
    """Maps of which this share is blank under the method alone, while the others' overlap falls by so much."""
    matrix, ours, theirs = _runs(folder, {"a_ch_last": [-fall, -fall - 0.01, -fall + 0.01]})
    for run in ours.values():
        path = matrix.runs / "paper" / run / "metrics.jsonl"
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        for line in lines:
            line["attention_overlap"] |= {
                "a_ch_last": line["attention_overlap"]["a_ch_last"] * (1 - blank), "a_ch_last_blank": blank,
            }  # fmt: skip
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return treatment.treatment(Results.read(matrix), ours, theirs, False, "a_ch")


@pytest.mark.parametrize(("blank", "fall", "answer"), [
    (0.0, 0.1, "applied, no effect"), (0.05, 0.1, "applied, no effect"), (0.3, 0.1, "not known"),
    (0.3, 0.55, "applied, no effect"), (0.3, -0.1, "not applied"),
])  # fmt: skip
def test_a_fall_that_dropping_blank_maps_could_make_is_not_known(tmp_path, blank, fall, answer):
    """The baseline's 0.6: had the 30% that became blank an overlap of 1, the others' were 0.43."""
    found = _one_sided(tmp_path, blank, fall)
    assert found.answer == answer
    assert ("on the same images it may be" in found.reason) == (answer == "not known")
    change = found.changes["a_ch_last"]
    assert change.mean == pytest.approx(-fall)
    assert (change.least_fall == pytest.approx(change.interval)) == (blank == 0)


def test_the_bound_is_reached_by_images_that_could_be():
    """Overlaps of 20 images, of which 4 and 2 others are blank on one side: no choice of the overlaps that keeps the
    recorded means falls less on the images that both show."""
    rng = np.random.default_rng(3)
    for _ in range(200):
        ours, theirs = rng.uniform(0, 1, (2, 20)) ** rng.uniform(0.2, 5)
        ours[:4], theirs[4:6] = 0, 0
        epochs = [
            Epoch(epoch=1, attention_overlap={"a_ch_last": of.mean(), "a_ch_last_blank": blank})
            for of, blank in ((ours, 0.2), (theirs, 0.1))
        ]
        assert ours[6:].mean() - theirs[6:].mean() <= treatment._least_fall(*epochs, "a_ch_last") + 1e-9
    ours[4:6], theirs[:4] = 0, 1
    epochs = [
        Epoch(epoch=1, attention_overlap={"a_ch_last": of.mean(), "a_ch_last_blank": blank})
        for of, blank in ((ours, 0.2), (theirs, 0.1))
    ]
    assert treatment._least_fall(*epochs, "a_ch_last") == pytest.approx(ours[6:].mean() - theirs[6:].mean())


def test_a_method_that_moves_nothing_is_called_applied_in_2_4_percent():
    """Of two layers, each told at 97.5% in one direction."""
    rng = np.random.default_rng(4)
    fell = [
        any(intervals.t_interval(layer, treatment.LAYER_LEVEL)[1] < 0 for layer in changes)
        for changes in rng.normal(0, 0.03, (8000, 2, 3))
    ]
    assert np.mean(fell) == pytest.approx(0.0248, abs=0.005)


def test_the_share_of_blank_maps_is_ours_then_theirs(tmp_path):
    """Mean over the pairs in which both have it; a layer without a blank map is not named."""
    matrix, ours, theirs = _runs(tmp_path, {"a_ch_inner": [0.0, 0.0, 0.0], "a_ch_last": [0.0, 0.0, 0.0]})
    shares = dict(zip([*ours.values(), *theirs.values()], (0.5, 0.25, None, 0.125, 0.125, 0.9), strict=True))
    for run, share in shares.items():
        path = tmp_path / "paper" / run / "metrics.jsonl"
        *epochs, last = (json.loads(line) for line in path.read_text().splitlines())
        del last["attention_overlap"]["a_ch_last_blank"]
        last["attention_overlap"] |= {} if share is None else {"a_ch_last_blank": share}
        path.write_text("".join(json.dumps(epoch) + "\n" for epoch in [*epochs, last]))
    assert treatment.treatment(Results.read(matrix), ours, theirs, False, "a_ch").blank == {"a_ch_last": (0.375, 0.125)}


def test_one_seed_or_no_measurement_says_nothing(tmp_path):
    assert _of(tmp_path, a_ch_inner=[-0.1], a_ch_last=[-0.1]).changes["a_ch_last"] == Change(
        pytest.approx(-0.1), None, 1
    )
    assert _of(tmp_path / "one", a_ch_inner=[-0.1], a_ch_last=[-0.1]).answer == "not known"
    matrix, ours, theirs = _runs(tmp_path / "none", {"a_ch_last": [-0.1, -0.1, -0.2]})
    for run in (tmp_path / "none").rglob("metrics.jsonl"):
        run.unlink()
    assert (
        treatment.treatment(Results.read(matrix), ours, theirs, False, "a_ch").reason
        == "the overlap of the maps was not measured"
    )
    told = _treated(*_runs(tmp_path / "blank", {"a_ch_last": [-0.1] * 3}, blank=1.0), False, "a_ch")
    assert (told.answer, told.reason) == ("not known", "every map is blank on one side")


@pytest.mark.parametrize(("inner", "answer"), [(-0.2, "applied, no effect"), (0.0, "not known")])
def test_a_layer_that_one_pair_can_tell_of_does_not_hide_the_other(tmp_path, inner, answer):
    """Two of three pairs have only blank maps at the last layer."""
    matrix, ours, theirs = _runs(tmp_path, {"a_ch_inner": [inner, inner - 0.01, inner], "a_ch_last": [-0.1] * 3})
    for seed in (0, 1):
        path = tmp_path / "paper" / ours[seed] / "metrics.jsonl"
        epochs = [json.loads(line) for line in path.read_text().splitlines()]
        epochs[-1]["attention_overlap"] |= {"a_ch_last": 0.0, "a_ch_last_blank": 1.0}
        path.write_text("".join(json.dumps(epoch) + "\n" for epoch in epochs))
    found = treatment.treatment(Results.read(matrix), ours, theirs, False, "a_ch")
    assert found.answer == answer
    assert ("of 3 pairs one has an overlap of a_ch_last" in found.reason) == (answer == "not known")


@pytest.mark.parametrize("damage", ["{", '{"epoch": "x"}'])
def test_a_damaged_record_is_no_evidence(tmp_path, damage):
    matrix, ours, theirs = _runs(tmp_path, {"a_ch_last": [-0.1, -0.11, -0.09]})
    (tmp_path / "paper" / ours[0] / "metrics.jsonl").write_text(damage + "\n")
    assert treatment.treatment(Results.read(matrix), ours, theirs, False, "a_ch").changes["a_ch_last"].num_seeds == 2


@pytest.mark.usefixtures("planted_numbers")
def test_agreement_of_scores_is_by_class_and_of_ranks(tmp_path):
    matrix, ours, theirs = _runs(tmp_path, {"a_ch_last": [-0.1, -0.11, -0.09]})
    labels = np.where(RNG.random((50, 20)) < 0.3, 1, -1).astype(np.int8)
    ap = {"ap": {"area": dict.fromkeys(map(chr, range(97, 117)), 0.5)}, "mAP": {"area": 0.5}}
    base = {seed: RNG.normal(size=(50, 20)).astype(np.float32) for seed in theirs}
    for job in matrix.jobs:
        if job.id in ours.values():
            save_scores(submit(tmp_path, job), labels, np.exp(base[job.seed]), **ap)  # the same order
        elif job.id in theirs.values():
            save_scores(submit(tmp_path, job), labels, base[job.seed], **ap)
    found = treatment.treatment(Results.read(matrix), ours, theirs, False, "a_ch")
    assert found.agreement == pytest.approx(1)
    assert abs(found.agreement_of_seeds) < 0.1


def test_tied_scores_agree_no_more_than_they_say():
    """In an order of their own they would look alike, being stored in the same one."""
    a, b = (RNG.integers(0, 2, (400, 3)).astype(np.float32) for _ in range(2))
    labels = np.ones((400, 3), np.int8)
    alike = reading.agreement(*(reading.comparable(Scores(np.arange(400), labels, x, list("abc"))) for x in (a, b)))
    assert alike == pytest.approx(np.mean([np.corrcoef(a[:, c], b[:, c])[0, 1] for c in range(3)]))


def test_many_seeds_are_not_all_held_against_each_other(monkeypatch):
    """10,000 runs would have 5 million pairs."""
    compared = []
    monkeypatch.setattr(reading, "agreement", lambda a, b: compared.append((a, b)) or 0.5)
    assert reading._between_seeds(list(range(1000))) == 0.5
    assert len(compared) == 190


def test_what_a_placebo_is_held_against_is_named(tmp_path):
    matrix, ours, theirs = _runs(tmp_path, {"a_ch_last": [-0.1, -0.1, -0.1]})
    found = treatment.treatment(Results.read(matrix), ours, theirs, False, "a_ch", "placebo-a_ch")
    found = dataclasses.replace(found, agreement=0.9, agreement_of_seeds=0.7)
    assert "test scores agree with placebo-a_ch's by 0.90, two of its seeds 0.70" in found.told
    found = dataclasses.replace(found, over=None)
    assert "test scores agree with the baseline's by 0.90, two baseline seeds 0.70" in found.told
