"""The answer: every comparison stands in it at its place, and says no more than its tables do."""

import dataclasses
import itertools
import json
import math
import shutil

import pytest
from typer.testing import CliRunner

from benchmark import cli
from benchmark.evidence import answer, figures
from benchmark.matrix import grid
from benchmark.matrix.matrix import Matrix
from benchmark.results.results import Reader, Results
from benchmark.stats import pooled
from benchmark.stats.claims import Estimate, GainInterval
from benchmark.stats.intervals import ImageParts, Verdict
from benchmark.store.run import submit
from benchmark.tables import published
from benchmark.tables.catalogue import in_each_precision, on_real_data
from benchmark.tables.treatment import Change, Treatment
from tests.evidence import golden_table, plant

SETTING = answer.Setting(None, 112, 8, "bfloat16", 0.3, 12, None)


@pytest.fixture
def shown():
    """Two methods at one claim, one in two settings; the other, and one of these, did not move its maps."""
    table = golden_table()
    of = [
        ("icasc-grad_cam", (-2.0, -1.0, 0.0), "applied, effect", SETTING),
        ("icasc-a_ch", (1.0, 2.0, 3.0), "not applied", SETTING),
        ("icasc-grad_cam", (-3.0, -2.0), "not applied", SETTING._replace(pixels=299, weight=0.2)),
    ]
    made = []
    for method, gains, moved, setting in of:
        gain = sum(gains) / len(gains)
        known = Estimate(gain, len(gains), 0.3, ImageParts(0.2, 0.9), "seeds and images")
        interval = GainInterval(gain - 1, gain + 1, known.over, known)
        cell = dataclasses.replace(
            table.cells["mAP", method], published=4.0, gain=gain, gains=gains, paired_seeds=tuple(range(len(gains))),
            gain_interval=interval, treatment=Treatment(moved, "", {}),
            gain_verdict=Verdict("not reproduced", "planted"),
        )  # fmt: skip
        made.append(answer.Comparison(table, cell, 4.0, gain, interval, setting))
    return made


def test_a_claim_pools_its_pairs_by_seed(shown):
    """-2, -1, 0 and -3, -2: clusters (-2, -3), (-1, -2), (0)."""
    grad_cam, a_ch = answer.claims(shown)
    assert (grad_cam.number, a_ch.number) == (1, 2)
    assert grad_cam.seeds == [0, 1, 2, 0, 1]
    assert grad_cam.mean == pytest.approx(-1.6)
    known = pooled.clustered_mean([-2, -1, 0, -3, -2], [0, 1, 2, 0, 1])
    assert known.error == pytest.approx(math.sqrt(1.8**2 / 0.6 + 0.2**2 / 0.6 + 1.6**2 / 0.8) / 5)
    half = known.half(0.2)
    assert grad_cam.interval == pytest.approx((-1.6 - half, -1.6 + half))
    assert grad_cam.ahead == 0.5, "a tie is half a pair"
    assert grad_cam.share_interval == pooled.share_interval([0, 0, 0.5, 0, 0], grad_cam.seeds)


def test_a_claim_of_one_setting_has_that_one_s_interval(shown):
    (_, a_ch) = answer.claims(shown)
    assert a_ch.interval == (1.0, 3.0)
    assert a_ch.mean == 2.0


def test_each_pair_weighs_the_same_in_the_claimed_improvement_too(shown):
    """A setting over other classes has another claim."""
    first, _, other = shown
    (claim,) = answer.claims([first, other._replace(claim=9.0)])
    assert claim.claimed == pytest.approx((3 * 4 + 2 * 9) / 5)


def test_where_no_maps_moved_an_absence_is_no_evidence_and_an_effect_stays_one(shown):
    grad_cam, a_ch = answer.claims(shown)
    assert a_ch.word == "supported in part"
    assert answer.claims(shown[:1])[0].word == "not supported"
    still = dataclasses.replace(shown[0].cell, treatment=shown[2].cell.treatment)
    assert answer.claims([shown[0]._replace(cell=still)])[0].word == "no evidence"
    assert grad_cam.word == "not supported"
    assert grad_cam.moved.settings == shown[:1]
    assert a_ch.moved is None


def test_pairs_of_one_seed_have_no_interval_and_are_no_evidence(shown):
    first, _, other = shown
    cells = [dataclasses.replace(c.cell, gains=c.cell.gains[:1], paired_seeds=(0,)) for c in (first, other)]
    (claim,) = answer.claims([c._replace(cell=cell) for c, cell in zip((first, other), cells, strict=True)])
    assert claim.interval is None
    assert claim.word == "no evidence"
    assert claim.difference == "-2.50"
    assert answer.values([c._replace(cell=cell) for c, cell in zip((first, other), cells, strict=True)])
    assert figures.answer([claim]).figure.axes


def _rows(text):
    lines = [line for line in text.splitlines() if line.startswith("| ")][1:]
    return [[part.strip() for part in line.strip("|").split("|")] for line in lines]


def test_the_table_has_each_claim_with_its_word_and_its_settings_below(shown):
    text = answer.markdown(shown)
    assert text.startswith("No published number has been tested")
    rows = _rows(text)
    assert rows[0][0] == "**1. mAP, + Grad-CAM: not supported**"
    low, high = pooled.share_interval([0, 0, 0.5, 0, 0], [0, 1, 2, 0, 1])
    assert rows[0][1:3] == ["**5**", f"**0.5 of 5: 10% [{100 * low:.0f}, {100 * high:.0f}]**"]
    assert rows[1] == [
        "112 px, 8 epochs, bfloat16, 30% of images, 12 classes (scale mini)", "3", "0.5 of 3", "-1.00 [-2.00, +0.00]",
        "+4.00",
    ]  # fmt: skip
    assert rows[2][0].startswith(
        "299 px, 8 epochs, bfloat16, 30% of images, 12 classes, weight 0.2 (scale mini); map change"
    )
    assert rows[3][0] == "**2. mAP, + A\\_ch: supported in part**"
    assert rows[4][0].endswith("; map change not detected")
    assert "Without the settings with a map change not detected: mAP, + Grad-CAM: -1.00 [-2.00, +0.00], 3 pairs" in text


def test_the_values_for_machines_are_the_table_s(shown):
    told = answer.values(shown)
    assert told == json.loads(json.dumps(told)) | {"claims": told["claims"]}
    for claim, of_claim in zip(told["claims"], answer.claims(shown), strict=True):
        assert f"{claim['difference']:+.2f} [{claim['low']:+.2f}, {claim['high']:+.2f}]" == of_claim.difference
        assert (claim["word"], claim["pairs"]) == (of_claim.word, len(of_claim.differences))
        assert [each["difference"] for each in claim["settings"]] == [c.gain for c in of_claim.settings]


def test_seeds_that_are_missing_are_told(shown):
    cells = [dataclasses.replace(c.cell, planned=len(c.cell.gains)) for c in shown[:2]]
    shown = [c._replace(cell=cell) for c, cell in zip(shown, cells, strict=False)]
    assert "Not all planned seeds" not in answer.markdown(shown)
    cell = dataclasses.replace(shown[0].cell, status="partial", planned=4)
    text = answer.markdown([shown[0]._replace(cell=cell), shown[1]])
    assert "Not all planned seeds have run: mAP, mini, + Grad-CAM (3 of 4)." in text


def test_a_verdict_is_told_where_there_is_one(shown):
    table = dataclasses.replace(shown[0].table, comparable=True)
    text = answer.markdown([c._replace(table=table) for c in shown[:2]])
    assert text.startswith("mAP, mini, + Grad-CAM: not reproduced; mAP, mini, + A\\_ch: not reproduced.")


@pytest.fixture
def controls():
    """Two controls, one of them far off, and a method over its placebo; the method moved its maps."""
    table = golden_table()
    spec = table.spec.model_copy(
        update={"rows": [r.model_copy(update={"over": {"icasc-a_ch": "icasc-grad_cam"}}) for r in table.spec.rows]}
    )
    treated = Treatment("applied, no effect", "", {"a_ch_last": Change(-0.2, (-0.3, -0.1), 3)})
    made = {}
    for method, gain, treatment in (("icasc-grad_cam", -30.0, None), ("icasc-a_ch", 2.0, treated)):
        interval = GainInterval(gain - 1, gain + 1, "seeds and images")
        made["aeroplane", method] = dataclasses.replace(
            table.cells["aeroplane", method], gain=gain, gains=(gain,) * 3, gain_interval=interval, treatment=treatment
        )
    blank = {at: dataclasses.replace(cell, gain=None) for at, cell in table.cells.items()}
    return answer.controls(dataclasses.replace(table, spec=spec, cells=blank | made), {"icasc-a_ch": 6.9})


def test_controls_say_what_they_are_over_and_what_became_of_the_maps(controls):
    lines = [line for line in answer.controls_markdown(controls).splitlines() if "ICASC" in line or "+ " in line]
    cells = [[part.strip() for part in line.split("|")[1:-1]] for line in lines if line.startswith("|")]
    assert cells[0] == ["+ ICASC Grad-CAM", "3", "-30.00 [-31.00, -29.00]", "–", "–", "–"]
    over = "+ ICASC A\\_ch, over + ICASC Grad-CAM"
    assert cells[1] == [over, "3", "+2.00 [+1.00, +3.00]", "–", "-0.200 [-0.300, -0.100]", "applied, no effect"]


def test_controls_in_another_precision_stand_under_a_heading_of_their_own(controls):
    (control, *_) = controls
    results = control.table.results.asked_otherwise(overrides={"precision": "bfloat16"})
    other = control._replace(table=dataclasses.replace(control.table, results=results))
    assert other.data == f"{control.data}, precision bfloat16"
    assert answer.controls_markdown([control, other]).count("| + ICASC Grad-CAM ") == 2


def test_every_precision_that_ran_is_looked_at(tmp_path):
    matrix = Matrix(grid.load("voc"), "reduced", runs=tmp_path)
    assert [each.matrix.overrides for each in in_each_precision(Results.read(matrix))] == [{}]
    submit(tmp_path, matrix.jobs[0])
    for precision in ("float32", "tf32"):
        submit(tmp_path, matrix.asked_otherwise(overrides={"precision": precision}).jobs[0])
    damaged = submit(tmp_path, matrix.jobs[1])
    damaged.path("job.json").write_text("{")
    submit(tmp_path, Matrix(grid.load("voc"), "subset", {"precision": "float64"}).jobs[0])
    results = Results.read(matrix)
    found = [each.matrix.overrides.get("precision") for each in in_each_precision(results)]
    assert found == [None, "float32", "tf32"]
    assert [str(damaged.path("job.json")) in line for line in results.reader.warnings] == [True]


def _measured(runs, **planted):
    """What stands in the answer of runs that were planted so; A_ch a point above the baseline."""
    plant(runs, lambda job, item: 50.0 + job.seed + (job.method == "icasc-a_ch"), of=grid.load("voc"), **planted)
    home = published.BUILT_IN
    return answer.comparisons(on_real_data(published.load("headline", home), runs, home, runs, Reader()))


def test_the_command_prints_the_same_for_machines(tmp_path):
    shown = _measured(tmp_path / "runs", scale="year2008")
    for path in published.BUILT_IN.glob("*.yaml"):
        shutil.copy(path, tmp_path)
    words = ["answer", "--json", "--runs", str(tmp_path / "runs"), "--tables", str(tmp_path)]
    printed = json.loads(CliRunner().invoke(cli.app, words, catch_exceptions=False).stdout)
    assert printed == json.loads(json.dumps(answer.values(shown)))
    assert (tmp_path / "answer.md").read_text() == answer.markdown(shown)


def test_every_precision_and_every_scale_enters_by_itself(tmp_path):
    _measured(tmp_path)
    _measured(tmp_path, scale="paper", precision="tf32")
    shown = _measured(tmp_path, scale="year2008")
    assert [(c.table.scale, c.cell.column) for c in shown] == [
        (scale, method)
        for scale in ("paper", "paper, precision tf32", "year2008")
        for method in ("icasc-grad_cam", "icasc-a_ch")
    ]
    assert [c.table.comparable for c in shown] == [True, True, False, False, False, False]
    (a_ch,) = answer.claims([c for c in shown if c.cell.column == "icasc-a_ch"])
    assert len(a_ch.settings) == 3
    assert len(a_ch.differences) == 3 + 3 + 5
    assert a_ch.mean == pytest.approx(1)
    assert [c.setting.text for c in a_ch.settings] == [
        "299 px, 20 epochs, float32", "299 px, 20 epochs, tf32", "299 px, 20 epochs, bfloat16",
    ]  # fmt: skip


@pytest.mark.parametrize("variant", [{"attention_weight": 1.0}, {"second_order": False}, {"epochs": 3}])
def test_a_variant_never_enters(variant, tmp_path):
    assert _measured(tmp_path, scale="year2008", **variant) == []
    entered = _measured(tmp_path, scale="year2008")
    assert [c.setting.epochs for c in entered] == [20, 20]
    assert [c.setting.weight for c in entered] == [None, None]


def test_a_control_beyond_the_axis_is_an_arrow(controls):
    drawing = figures.controls(controls)
    axes = drawing.figure.axes[0]
    low, high = axes.get_xlim()
    assert -13 < low < 0
    assert 6.9 < high < 9
    marks = {line.get_marker(): line.get_xdata()[0] for line in axes.lines if line.get_marker() in "<s"}
    assert marks == {"<": low, "s": 2.0}
    assert any(list(line.get_xdata()) == [6.9, 6.9] for line in axes.lines), "the claim"
    assert "An arrow: beyond the axis." in drawing.caption
    assert "An arrow" not in figures.controls(controls[1:]).caption


def test_a_control_of_one_seed_says_that_its_interval_is_over_images_only(controls):
    one = controls[1]
    interval = dataclasses.replace(one.interval, over="images only")
    one = one._replace(cell=dataclasses.replace(one.cell, gains=(2.0,)), interval=interval)
    assert "+2.00 [+1.00, +3.00] (images only)" in answer.controls_markdown([one])
    drawing = figures.controls([one, controls[1]])
    styles = [line.get_linestyle() for line in drawing.figure.axes[0].lines if list(line.get_xdata()) == [1.0, 3.0]]
    assert styles == [":", "-"]
    assert "Dotted: one seed, over test images only." in drawing.caption
    assert "Dotted" not in figures.controls(controls).caption


def test_the_picture_has_a_line_a_setting_and_a_diamond_a_claim(shown):
    drawing = figures.answer(answer.claims(shown))
    axes = drawing.figure.axes[0]
    squares = [line for line in axes.lines if line.get_marker() == "s"]
    assert [line.get_xdata()[0] for line in squares] == [-1.0, -2.5, 2.0]
    assert [line.get_color() for line in squares] == ["black", "0.6", "0.6"]
    heights = [line.get_ydata()[0] for line in squares]
    bars = {line.get_ydata()[0]: list(line.get_xdata()) for line in axes.lines if line.get_marker() == "None"}
    assert [bars[y] for y in heights] == [[-2.0, 0.0], [-3.5, -1.5], [1.0, 3.0]]
    diamonds = [patch.get_xy() for patch in axes.patches]
    ends = [(xy[:, 0].min(), xy[:, 0].max()) for xy in diamonds]
    assert ends == [pytest.approx(claim.interval) for claim in answer.claims(shown)]
    assert heights == sorted(heights)
    assert heights[1] < diamonds[0][0, 1] < heights[2] < diamonds[1][0, 1]
    assert {tuple(line.get_xdata()) for line in axes.lines if line.get_linestyle() == "--"} == {(4.0, 4.0)}
    texts = [text.get_text() for text in axes.texts]
    assert "1. mAP, + Grad-CAM: not supported" in texts
    assert "pooled over 5 pairs\nahead in 0.5 of them" in texts
    assert sum("map change not detected" in text for text in texts) == 2
    assert "None follows the paper's protocol" in drawing.caption


def test_no_texts_of_the_picture_overlap(shown):
    """Nor do any leave it: every setting has a row of its own height."""
    long = SETTING._replace(network="ResNet-20", pixels=None, epochs=100, weight=0.2)
    drawing = figures.answer(answer.claims([*shown, shown[0]._replace(setting=long)]))
    drawing.figure.draw_without_rendering()
    boxes = [text.get_window_extent() for text in drawing.figure.axes[0].texts]
    assert not [(a, b) for a, b in itertools.combinations(boxes, 2) if a.overlaps(b)]
    assert all(drawing.figure.bbox.contains(*corner) for box in boxes for corner in box.corners())


def test_an_interval_beyond_the_axis_is_an_arrow(shown):
    wide = shown[0]._replace(interval=dataclasses.replace(shown[0].interval, low=-60.0))
    axes = figures.answer(answer.claims([wide, *shown[1:]])).figure.axes[0]
    (arrow,) = [line for line in axes.lines if line.get_marker() == "<"]
    assert arrow.get_xdata()[0] == axes.get_xlim()[0] > -13


def test_the_picture_has_the_same_bytes_each_time(shown, tmp_path):
    paths = [figures.write([figures.answer(answer.claims(shown))], tmp_path / name) for name in ("one", "other")]
    for one, other in zip(*paths, strict=True):
        assert one.read_bytes() == other.read_bytes()
