"""Figures: what they show, fonts embedded, same bytes; attention maps against hand-made ones."""

import dataclasses
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from typer.testing import CliRunner

from benchmark import cli
from benchmark.errors import UserError
from benchmark.evidence import figures, maps
from benchmark.matrix import grid
from benchmark.methods import models, overlap
from benchmark.store import run as run_module
from benchmark.tables.claims import GainInterval
from tests.evidence import GOLDEN, RUNS, TABLES, golden_matrix, golden_table, plant


def drawn():
    return figures.draw(golden_table())


def test_names_and_captions():
    assert [d.name for d in drawn()] == ["gains", "values", "curves-resnet18_narrow"]
    assert "not comparable" in drawn()[0].caption
    assert "n = 2" in drawn()[0].caption


def test_nothing_measured_nothing_drawn(tmp_path):
    assert figures.draw(golden_table("paper", tmp_path)) == []


def test_forest_shows_the_gains_and_the_published_ones(tmp_path):
    plant(tmp_path, lambda job, item: 70.0 + 2 * (job.method == "icasc-a_ch") + 0.1 * job.seed)
    axes = figures.forest(golden_table("paper", tmp_path)).figure.axes[0]
    by_label = [line.get_xdata() for line in axes.lines if line.get_label().endswith("A_ch, ours")]
    assert by_label[0] == pytest.approx([2.0] * 21)
    labels = [text.get_text() for text in axes.get_yticklabels()]
    assert (labels[0], labels[-1]) == ("aeroplane", "mAP")
    low, high = axes.get_xlim()
    assert low < 0 < 13.71 < high


@pytest.mark.parametrize(("width", "arrows"), [(3.0, 0), (1000.0, 2)])
def test_forest_shows_intervals_and_where_they_are_cut(width, arrows):
    """The one that tables print; an arrow at an edge that it goes beyond."""
    table = golden_table()
    at = "mAP", "icasc-a_ch"
    one_seed = {key: dataclasses.replace(c, gain_interval=None) for key, c in table.cells.items()}
    one_seed[at] = dataclasses.replace(one_seed[at], gain_interval=GainInterval(-width, width, "images only"))
    drawing = figures.forest(dataclasses.replace(table, cells=one_seed))
    axes = drawing.figure.axes[0]
    assert "95% intervals over images only" in drawing.caption
    drawn = [line.get_xdata() for line in axes.lines if list(line.get_xdata()) == [-width, width]]
    assert len(drawn) == 1
    assert sum(line.get_marker() in ("<", ">") for line in axes.lines) == arrows
    assert (axes.get_xlim()[1] > width) == (arrows == 0)


def test_overlap_by_epoch_where_it_was_recorded(tmp_path):
    jobs = grid.load("voc", GOLDEN).jobs("mini")
    names = [f"{kind}_{key}" for kind in ("grad_cam", "a_ch") for key in ("inner", "last", "last_blank")]
    for job in jobs:
        run = run_module.submit(tmp_path, job)
        low = 0.2 * (job.method != "baseline") + 0.1 * job.seed
        epochs = [{"epoch": e, "attention_overlap": dict.fromkeys(names, low + 0.01 * e)} for e in (1, 2)]
        run.write_metrics([epoch | {"train": {"classification": 1.0}, "test_mAP": 0.5} for epoch in epochs])
    plain, overlaps = figures.curves(golden_table(runs=tmp_path), jobs)
    assert (plain.name, overlaps.name) == ("curves-resnet18_narrow", "overlap-resnet18_narrow")
    assert len(overlaps.figure.axes) == 6
    ours = overlaps.figure.axes[0].lines[2]
    assert ours.get_ydata() == pytest.approx([0.2 + 0.05 + 0.01 * e for e in (1, 2)]), "the mean over two seeds"


def test_methods_differ_without_colour():
    markers = {marker for _, marker, _ in figures.STYLES}
    lines = {line for *_, line in figures.STYLES[:4]}
    grey = [0.299 * int(c[1:3], 16) + 0.587 * int(c[3:5], 16) + 0.114 * int(c[5:], 16) for c, *_ in figures.STYLES[:3]]
    assert (len(markers), len(lines)) == (len(figures.STYLES), 4)
    assert np.diff(grey).min() > 40


@pytest.mark.slow
def test_files_embed_fonts_and_repeat(tmp_path):
    first, second = drawn(), drawn()
    paths = figures.write(first, tmp_path / "a")
    again = figures.write(second, tmp_path / "b")
    for path, other in zip(paths, again, strict=True):
        assert path.read_bytes() == other.read_bytes()
        if path.suffix == ".pdf":
            assert b"/FontFile2" in path.read_bytes()  # TrueType, embedded
            assert b"/Type3" not in path.read_bytes()
        else:
            assert np.asarray(Image.open(path)).std() > 5
    assert figures.svg(first[0]) == figures.svg(second[0])


# Attention


def test_overlap_of_maps():
    same = torch.rand(1, 1, 4, 4).expand(2, 3, 4, 4)
    assert maps.overlap_of_maps(same).tolist() == pytest.approx([1.0, 1.0])
    apart = torch.zeros(1, 2, 2, 2)
    apart[0, 0, 0], apart[0, 1, 1] = 1.0, 1.0
    assert maps.overlap_of_maps(apart).tolist() == [0.0]
    half = torch.zeros(1, 2, 1, 3)
    half[0, 0, 0, :2], half[0, 1, 0, 1:] = 1.0, 1.0
    assert maps.overlap_of_maps(half).tolist() == pytest.approx([1 / 3])


def test_images_are_chosen_by_the_rule_and_both_ways():
    right = np.array([[1, 1], [0, 1], [1, 0], [0, 0], [0, 1], [0, 1]], bool)
    assert list(maps.choose(right, 2).values()) == [[1, 4], [2]]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The golden runs with weights, random ones, kept beside them."""
    runs = tmp_path_factory.mktemp("trained") / "runs"
    shutil.copytree(RUNS, runs)
    for run in run_module.all_runs(runs):
        job = run.job()
        net = models.build(job.backbone, 20, job.seed + 10 * len(job.method)).net
        halves = {name: t.half() if t.is_floating_point() else t for name, t in net.state_dict().items()}
        save_file(halves, run.path(maps.WEIGHTS))
    return runs


def small_pair(runs, cache):
    baseline, ours = (
        next(r.job() for r in run_module.all_runs(runs) if m in r.id) for m in ("baseline-s0", "icasc-a_ch-s0")
    )
    pair = maps.load_pair(golden_matrix(runs=runs), baseline, ours, None, cache)
    images = pair.test.images
    few = dataclasses.replace(images, ids=images.ids[:40], images=images.images[:40], targets=images.targets[:40])
    return dataclasses.replace(pair, test=dataclasses.replace(pair.test, images=few, array=pair.test.array[:40]))


def test_maps_and_overlap_of_a_pair(trained, cache, mini_voc):
    pair = small_pair(trained, cache)
    found = maps.measure(pair.ours, pair)
    assert set(found) == {"separability_inner", "separability_last", "consistency", "overlap_top5"}
    assert 0 < found["overlap_top5"] <= 1
    assert 0 <= found["separability_last"] <= 1
    drawings = maps.draw(pair, 2)
    assert 1 <= len(drawings) <= 2
    assert "the first" in drawings[0].caption
    figure = drawings[0].figure
    assert len(figure.axes) % (2 * (maps.TOP + 1)) == 0
    lines = maps.overlap_table([pair])
    assert [line["network"] for line in lines] == ["baseline", "icasc-a_ch"]


def test_a_true_class_is_framed_in_red():
    axes = figures.Figure().subplots()
    maps._overlay(axes, np.zeros((4, 4, 3)), np.zeros((4, 4)), "cow 0.91", True)
    assert axes.get_title() == "cow 0.91 *"
    assert {spine.get_edgecolor() for spine in axes.spines.values()} == {(1.0, 0.0, 0.0, 1.0)}


def test_present_of_single_labels():
    shown, absent = overlap.shown(np.array([1, 0]), 3)
    assert shown.tolist() == [[False, True, False], [True, False, False]]
    assert (shown ^ absent).all()


def test_missing_weights_name_the_command(monkeypatch, tmp_path):
    monkeypatch.setattr(grid.load, "__defaults__", (GOLDEN,))
    (tmp_path / "table2.yaml").write_bytes((TABLES / "table2.yaml").read_bytes())
    words = ["figures", "--attention", "--runs", str(RUNS), "--tables", str(tmp_path)]
    with pytest.raises(UserError, match="python -m benchmark run --grid voc --scale mini"):
        CliRunner().invoke(cli.app, words, catch_exceptions=False)


def test_foreign_weights_are_an_error(trained, cache, mini_voc, tmp_path):
    shutil.copytree(trained, tmp_path / "runs")
    pair = small_pair(tmp_path / "runs", cache)
    save_file({"x": torch.zeros(1)}, pair.ours.path(maps.WEIGHTS))
    with pytest.raises(UserError, match="not the weights of resnet18_narrow"):
        maps.load_model(pair.ours, pair)
