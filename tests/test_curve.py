"""The specification curve: no reading is left out, controls and claims are told apart, worth is by pairs."""

import numpy as np
import pytest

from benchmark.evidence import curve, sensitivity
from benchmark.matrix import grid
from benchmark.matrix.matrix import Matrix
from benchmark.results.results import Results
from benchmark.store.run import submit
from tests.evidence import GOLDEN, SPEC, golden_matrix, golden_results


def line(gain, method="icasc-a_ch", gains=(), mean=50.0, image_error=0.5, **choices):
    return {
        "reading": choices, "method": method, "backbone": "resnet18", "n": max(1, len(gains)), "gain": gain,
        "gains": list(gains) or [gain], "seeds": list(range(max(1, len(gains)))), "mean": mean, "low": gain - 1,
        "high": gain + 1, "over": "images only",
        "image_error": image_error, "untrained": False, "choices": choices | {"method": method},
    }  # fmt: skip


def test_a_reading_that_was_tried_is_found_among_the_runs(tmp_path):
    matrix = golden_matrix(runs=tmp_path)
    tried = [{}, {"sigma": 0.25}, {"sigma": 0.25, "second_order": False}]
    for reading in tried:
        for job in matrix.asked_otherwise(readings=(reading,)).jobs:
            submit(tmp_path, job)
    for job in matrix.asked_otherwise(overrides={"epochs": 9}).jobs:
        submit(tmp_path, job)  # another protocol, and so no reading
    found = curve.tried(Results.read(matrix)).matrix.readings
    assert len(found) == len(tried)
    assert all(reading in found for reading in tried)


def test_an_option_of_a_method_is_a_choice_like_another(tmp_path, monkeypatch):
    matrix = Matrix(grid.load("voc"), "reduced", runs=tmp_path)
    reading = {"consistency": 0.0}
    for job in matrix.asked_otherwise(readings=(reading,)).jobs:
        submit(tmp_path, job)
    found = curve.tried(Results.read(matrix))
    assert found.matrix.readings == (reading,)
    given = [line(-1.0, **reading), line(-2.0)]
    monkeypatch.setattr(sensitivity, "readings", lambda results: given)
    assert [each["choices"]["consistency"] for each in curve.measured(found)] == [1.0, 0.0]


def test_what_was_declared_is_there_whether_it_ran_or_not(tmp_path):
    matrix = Matrix(grid.load("voc"), "study", runs=tmp_path)
    assert list(curve.tried(Results.read(matrix)).matrix.readings) == matrix.overlay.readings


def test_worth_is_of_pairs_that_differ_in_one_choice_alone():
    lines = [
        line(-1.0, sigma=0.5, weight=1), line(-4.0, sigma=0.2, weight=1), line(-9.0, sigma=0.2, weight=2),
        line(-2.5, "icasc-grad_cam", sigma=0.5, weight=1),
    ]  # fmt: skip
    found = {worth.name: worth.differences for worth in curve.worths(lines, [line(0, gains=(1.0, 2.0, 4.0))])}
    assert found == {
        "sigma": (3.0,), "weight": (5.0,), "method": (1.5,), "another seed": (1.0, 3.0, 2.0),
        "other test images": (curve.GAP * 0.5,) * 4,
    }  # fmt: skip


def test_readings_are_held_against_each_other_on_the_seeds_that_both_have():
    """Else a lucky seed that one of them lacks would be taken for what the choice is worth."""
    lines = [line(2.0, gains=(1.0, 2.0, 3.0), sigma=0.5), line(2.5, sigma=0.2) | {"seeds": [1]}]
    assert {worth.name: worth.differences for worth in curve.worths(lines, [])}["sigma"] == (0.5,)
    lines[1]["seeds"] = [7]
    assert {worth.name for worth in curve.worths(lines, [])} == {"other test images"}


def test_gap_is_the_mean_distance_of_two_draws():
    drawn = np.random.default_rng(0).normal(scale=3.0, size=(2, 200_000))
    assert np.abs(drawn[0] - drawn[1]).mean() == pytest.approx(curve.GAP * 3.0, rel=0.01)


def test_a_gain_over_a_baseline_that_does_not_train_is_told_apart(monkeypatch):
    given = [line(-0.7, mean=11.5, sigma=0.25), line(-1.0, mean=46.0, sigma=0.55)]
    monkeypatch.setattr(sensitivity, "readings", lambda results: given)
    found = curve.measured(golden_results().asked_otherwise(readings=({"sigma": 0.25},)))
    assert [(line["gain"], line["untrained"]) for line in found] == [(-1.0, False), (-0.7, True)]
    assert {worth.name for worth in curve.worths(found, [])} == {"other test images"}


@pytest.mark.parametrize(
    ("given", "control"),
    [
        (line(0, attention_weight=0.05), False), (line(0), False), (line(0, attention_weight=1e-6), True),
        (line(0, method="icasc-placebo"), True), (line(0, method="port-a_ch"), False),
    ],
)  # fmt: skip
def test_controls(given, control):
    assert curve.is_control(given, SPEC) is control


def test_the_claim_is_over_the_same_classes(monkeypatch):
    monkeypatch.setattr(curve, "_classes", lambda matrix: {"cow", "sheep"})
    row = SPEC.rows[-1].model_copy(update={"claim": True, "class_cells": {
        "cow": [57.41, 67.85, 71.12], "sheep": [78.79, 84.93, 86.15], "cat": [93.91, 95.63, 96.28],
    }})  # fmt: skip
    spec = SPEC.model_copy(update={"rows": [row]})
    found = curve.claimed(spec, golden_results(), None)
    assert found == pytest.approx({"icasc-grad_cam": (10.44 + 6.14) / 2, "icasc-a_ch": (13.71 + 7.36) / 2})


def test_every_line_is_drawn_and_every_choice_that_varies_has_a_row(monkeypatch):
    lines = [line(gain, sigma=sigma, theta=0.8) for gain, sigma in ((-30.0, 0.5), (-1.0, 0.2), (0.2, 0.3))]
    lines[0]["low"] = None  # no interval is known of it
    lines += [line(0.1, "icasc-placebo", sigma=0.5, theta=0.8)]
    figure = curve._curve(lines, SPEC, {"icasc-a_ch": 5.73})
    above, below = figure.axes
    rows = [label.get_text() for label in below.get_yticklabels()]
    assert rows == ["sigma  0.5", "sigma  0.2", "sigma  0.3", "method  icasc-a_ch", "method  icasc-placebo"]
    dots = sum(len(drawn.get_xdata()) for drawn in below.lines if drawn.get_marker() == "o")
    assert dots == 2 * len(lines), "one for each choice that varies"
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    assert legend == ["ICASC A_ch", "icasc-placebo", "claimed +5.73: ICASC A_ch", "circled: a control"]
    assert above.get_yscale() == "symlog"


def test_controls_are_drawn_but_are_worth_nothing(monkeypatch):
    """Two readings that differ by 3 points, whose seeds differ by 2; a placebo that differs by more of both."""
    lines = [line(gain, gains=(gain - 1, gain + 1), precision=kind) for gain, kind in ((-4.0, "a"), (-1.0, "b"))]
    lines += [line(8.0, "icasc-placebo", gains=(0.0, 16.0), precision="b")]
    monkeypatch.setattr(curve, "measured", lambda results: lines)
    monkeypatch.setattr(curve, "tried", lambda results: results)
    readings, worth = curve.draw(golden_results(), SPEC, None)
    assert "icasc-placebo" in [text.get_text() for text in readings.figure.legends[0].get_texts()]
    (axes,) = worth.figure.axes
    ticks = [sorted(drawn.get_xdata()) for drawn in axes.lines if drawn.get_marker() == "|"]
    assert ticks == [[3.0], [2.0, 2.0], [curve.GAP * 0.5] * 2]
    monkeypatch.setattr(
        curve, "measured", lambda results: [line(1.0, "icasc-placebo", precision=kind) for kind in "ab"]
    )
    assert curve.draw(golden_results(), SPEC, None) == [], "no reading of the paper"


def test_one_reading_is_no_curve(tmp_path):
    assert curve.draw(Results.read(Matrix(grid.load("voc", GOLDEN), "mini", runs=tmp_path)), SPEC, None) == []


def test_the_caption_tells_of_a_claim_only_where_one_is_drawn():
    lines = [line(1.0, sigma=0.5)]
    told = [curve._told(golden_matrix(), lines, any_claim) for any_claim in (True, False)]
    assert ["Dashed" in caption for caption in told] == [True, False]
