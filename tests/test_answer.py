"""The answer: every comparison stands in it at its place, and says no more than its tables do."""

import dataclasses

import pytest

from benchmark.cli.evidence import in_each_precision, on_real_data
from benchmark.evidence import answer, figures
from benchmark.matrix import grid
from benchmark.matrix.matrix import Matrix
from benchmark.store.run import submit
from benchmark.tables import published
from benchmark.tables.claims import Estimate, GainInterval
from benchmark.tables.stats import Verdict
from benchmark.tables.treatment import Change, Treatment
from tests.evidence import golden_table, plant


@pytest.fixture
def shown():
    """Two methods at one claim, with other gains; the second did not move its maps."""
    table = golden_table()
    made = []
    for method, gain, moved in (("icasc-grad_cam", -1.0, "applied, effect"), ("icasc-a_ch", 2.0, "not applied")):
        known = Estimate(gain, 0.3, 4.0, 0.2, "seeds and images")
        interval = GainInterval(gain - 1, gain + 1, known.over, known)
        cell = dataclasses.replace(
            table.cells["mAP", method], published=4.0, gain=gain, gains=(gain,) * 3, gain_interval=interval,
            treatment=Treatment(moved, "", {}), gain_verdict=Verdict("not reproduced", "planted"),
        )  # fmt: skip
        made.append(answer.Comparison(table, cell, 4.0, gain, interval))
    return made


def test_only_what_can_be_compared_is_shown(shown):
    table = shown[0].table
    cells = {
        ("mAP", "icasc-grad_cam"): shown[0].cell,
        ("mAP", "icasc-a_ch"): dataclasses.replace(shown[1].cell, gain=None),
    }
    assert answer.comparisons([dataclasses.replace(table, cells=cells)])[0][1:] == shown[0][1:]
    assert len(answer.comparisons([dataclasses.replace(table, cells=cells)])) == 1


def test_the_table_says_what_is_no_test(shown):
    text = answer.markdown(shown)
    assert text.startswith("No published number has been tested")
    first, second = (line for line in text.splitlines() if line.startswith("| mAP"))
    assert "mAP, mini, + Grad-CAM |" in first
    assert "A\\_ch ‡" in second
    assert [part.strip() for part in second.split("|")[2:5]] == ["3", "+2.00 [+1.00, +3.00]†", "+4.00"]
    assert "‡: the method is not known to have moved its maps" in text


def test_seeds_that_are_missing_are_told(shown):
    assert "Not all planned seeds" not in answer.markdown(shown)
    cell = dataclasses.replace(shown[0].cell, status="partial", gains=(-1.0,))
    text = answer.markdown([shown[0]._replace(cell=cell), shown[1]])
    assert f"Not all planned seeds have run: mAP, mini, + Grad-CAM (1 of {cell.planned})." in text


def test_a_verdict_is_told_where_there_is_one(shown):
    table = dataclasses.replace(shown[0].table, comparable=True)
    text = answer.markdown([c._replace(table=table) for c in shown])
    assert text.startswith("mAP, mini, + Grad-CAM: not reproduced; mAP, mini, + A\\_ch: not reproduced.")
    assert "†: not the paper's protocol" not in text


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
    matrix = control.matrix.asked_otherwise(overrides={"precision": "bfloat16"})
    other = control._replace(table=dataclasses.replace(control.table, matrix=matrix))
    assert other.data == f"{control.data}, precision bfloat16"
    assert answer.controls_markdown([control, other]).count("| + ICASC Grad-CAM ") == 2


def test_every_precision_that_ran_is_looked_at(tmp_path):
    matrix = Matrix(grid.load("voc"), "reduced", runs=tmp_path)
    assert [each.overrides for each in in_each_precision(matrix)] == [{}]
    submit(tmp_path, matrix.jobs[0])
    for precision in ("float32", "tf32"):
        submit(tmp_path, matrix.asked_otherwise(overrides={"precision": precision}).jobs[0])
    damaged = submit(tmp_path, matrix.jobs[1])
    damaged.path("job.json").write_text("{")
    submit(tmp_path, Matrix(grid.load("voc"), "subset", {"precision": "float64"}).jobs[0])
    assert [each.overrides.get("precision") for each in in_each_precision(matrix)] == [None, "float32", "tf32"]


def test_a_claim_has_a_row_in_each_precision_that_its_methods_ran_in(tmp_path):
    voc = grid.load("voc")
    plant(tmp_path, lambda job, item: 50.0 + job.seed + (job.method == "icasc-a_ch"), of=voc)
    plant(tmp_path, lambda job, item: 50.0 + job.seed - (job.method == "icasc-a_ch"), of=voc, precision="tf32")
    home = published.BUILT_IN
    tables = on_real_data(published.load("headline", home), tmp_path, home, tmp_path)
    told = [c.line[0].removesuffix(" ‡") for c in answer.comparisons(tables)]
    voc_at = "PASCAL VOC 2012, ResNet-18, paper"
    assert len(told) == 4
    assert [text.startswith(voc_at + ", precision tf32, ") for text in told] == [False, False, True, True], told
    gains = {(c.table.scale, c.cell.column): c.gain for c in answer.comparisons(tables)}
    assert gains["paper", "icasc-a_ch"] == pytest.approx(1)
    assert gains["paper, precision tf32", "icasc-a_ch"] == pytest.approx(-1)
    assert [table.comparable for table in tables if table.scale.startswith("paper")] == [True, False]


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


def test_the_picture_has_each_point_at_its_place(shown):
    drawing = figures.answer(shown)
    axes = drawing.figure.axes[0]
    diagonal, zero = axes.lines[:2]
    assert list(diagonal.get_xdata()) == list(diagonal.get_ydata())
    assert list(zero.get_ydata()) == [0, 0]
    points = {line.get_label(): line for line in axes.lines if "n = " in str(line.get_label())}
    assert list(points) == ["mAP, mini, + Grad-CAM, n = 3", "mAP, mini, + A_ch, n = 3 ‡"]
    at = [(line.get_xdata()[0], line.get_ydata()[0]) for line in points.values()]
    assert [y for _, y in at] == [-1.0, 2.0]
    assert sum(x for x, _ in at) / 2 == pytest.approx(4.0)
    assert 0 < at[1][0] - at[0][0] < 0.2
    bars = [(list(line.get_ydata()), line.get_linestyle()) for line in axes.lines[2:] if len(line.get_xdata()) == 2]
    assert bars == [([-2.0, 0.0], "-"), ([1.0, 3.0], ":")]
    assert len({line.get_fillstyle() for line in points.values()}) == 2  # told apart without colour
    assert "None follows the paper's protocol" in drawing.caption
