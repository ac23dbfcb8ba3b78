"""Figures: what they show, fonts embedded, same bytes; attention maps against hand-made ones."""

import dataclasses
import json
import shutil

import numpy as np
import pytest
from PIL import Image

from benchmark import data
from benchmark.evidence import figures, maps
from benchmark.matrix import grid
from benchmark.methods import overlap
from benchmark.stats.claims import GainInterval
from benchmark.store import run as run_module
from benchmark.store import scores
from tests.evidence import GOLDEN, RUNS, SPEC, as_published, golden_results, golden_table, plant


def drawn():
    return figures.draw(golden_table())


def test_names_and_captions():
    assert [d.name for d in drawn()] == ["gains", "values", "curves-resnet18_narrow"]
    assert "not comparable" in drawn()[0].caption
    assert "n = 2" in drawn()[0].caption


def test_captions_tell_only_what_is_drawn():
    told = [drawing.caption for drawing in drawn()]
    assert all("hollow" in caption for caption in told[:2])
    assert "the band" in told[2]
    rows = [row.model_copy(update={"published": [None] * 3, "mean_of": None}) for row in SPEC.rows]
    unpublished = figures.draw(golden_table(spec_changes={"rows": rows}))
    assert not any("hollow" in drawing.caption for drawing in unpublished)
    one_seed = figures.draw(golden_table(seed=0))
    assert "the band" not in one_seed[2].caption


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
    assert ("an arrow at the edge" in drawing.caption) == (arrows > 0)
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
        none_blank = {"grad_cam_inner_blank": 0.0, "a_ch_inner_blank": 0.0}
        overlaps = [dict.fromkeys(names, low + 0.01 * e) | none_blank for e in (1, 2)]
        epochs = [{"epoch": e, "attention_overlap": overlap} for e, overlap in enumerate(overlaps, 1)]
        run.write_metrics([epoch | {"train": {"classification": 1.0}, "test_mAP": 0.5} for epoch in epochs])
    plain, overlaps = figures.curves(golden_table(runs=tmp_path), jobs)
    assert (plain.name, overlaps.name) == ("curves-resnet18_narrow", "overlap-resnet18_narrow")
    assert len(overlaps.figure.axes) == 6, "none of no blank map"
    ours = overlaps.figure.axes[0].lines[2]
    assert ours.get_ydata() == pytest.approx([0.2 + 0.05 + 0.01 * e for e in (1, 2)]), "the mean over two seeds"


def test_curves_are_of_the_runs_that_tables_show(tmp_path):
    """A seed that is not through stops no line early and moves no mean; who has how many is said."""
    for run in plant(tmp_path, as_published):
        if "icasc-a_ch-s2" in run.id:
            run.path("result.json").unlink()
            run.path("metrics.jsonl").write_text(
                json.dumps({"epoch": 1, "attention_overlap": {"a_ch_inner": 9.0}}) + "\n"
            )
    table = golden_table("paper", tmp_path)
    *_, overlaps = figures.curves(table, grid.load("voc", GOLDEN).jobs("paper"))
    lines = overlaps.figure.axes[1].lines
    assert [line.get_label()[-5:] for line in lines] == ["n = 3", "n = 3", "n = 2"]
    assert lines[2].get_ydata() == pytest.approx([0.5 + 0.0005 - 0.1005]), "of seeds 0 and 1"
    assert "mean over seeds (n = 2/3)" in overlaps.caption


def test_an_interval_of_one_seed_is_dotted():
    table = golden_table()
    styles = {}
    for over in ("seeds and images", "images only"):
        cells = {
            at: dataclasses.replace(cell, gain_interval=dataclasses.replace(cell.gain_interval, over=over))
            for at, cell in table.cells.items()
            if cell.gain_interval
        }
        drawing = figures.forest(dataclasses.replace(table, cells=table.cells | cells))
        lines = [line for line in drawing.figure.axes[0].lines if line.get_linewidth() == 1.2]
        styles[over] = {line.get_linestyle() for line in lines}
        assert ("(dotted)" in drawing.caption) == (over == "images only")
    assert styles == {"seeds and images": {"-"}, "images only": {":"}}


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


# Maps that runs keep


def keep_maps(runs, methods=("baseline", "icasc-a_ch"), seeds=(0, 1), many=True):
    """Scores of six images and maps of the second and the last, in the golden runs of these methods and seeds. The
    highest class of both is 3, their true one is 3 in the second and 7 in the last."""
    rng = np.random.default_rng(0)
    labels = np.full((6, 20), -1, np.int8)
    labels[np.arange(6), [0, 3, 1, 2, 4, 7]] = 1
    for run in run_module.all_runs(runs):
        if run.job().method in methods and run.job().seed in seeds:
            logits = rng.normal(size=(6, 20))
            logits[[1, 5], 3] = 5.0
            ids = [scores.read(run).ids[i] for i in (0, 1, 2, 3, 4, 5)]
            kept = {kind: rng.integers(0, 256, (2, 5, 3, 3)).astype(np.uint8) for kind in ("grad_cam", "a_ch")}
            targets = labels if many else labels.argmax(axis=1)
            classes = tuple(scores.read(run).classes)
            digest = scores.write(
                run, np.array(ids), targets, logits, classes, None, {"images": np.array([1, 5])} | kept
            )
            record = json.loads(run.path("result.json").read_text()) | {"scores_sha256": digest}
            run.path("result.json").write_text(json.dumps(record))


@pytest.fixture
def kept(tmp_path, planted_numbers):
    runs = tmp_path / "runs"
    shutil.copytree(RUNS, runs)
    return runs


def test_kept_maps_are_drawn_with_their_images(kept, cache, mini_voc):
    keep_maps(kept)
    drawing, *others = maps.draw(golden_results(runs=kept), None, cache)
    assert others == []  # of the other method no run keeps any
    assert drawing.name == "maps-resnet18_narrow-train-icasc-a_ch"
    assert "The first 2 of the held-out test images" in drawing.caption
    assert "seed 0" in drawing.caption
    assert "not at hand" not in drawing.caption
    grid = np.array(drawing.figure.axes).reshape(4, 6)
    assert [len(axes.images) for axes in grid[:, 0]] == [1, 0, 1, 0], "the photograph, once an image"
    assert all(len(axes.images) == 2 for axes in grid[:, 1:].ravel()), "each map over its image"
    run = next(r for r in run_module.all_runs(kept) if "a_ch-s0" in r.id)
    stored = scores.maps(run).by_kind["a_ch"]
    assert (np.asarray(grid[3, 5].images[1].get_array()) == stored[1, 4]).all(), "below: the method's own"


def test_true_classes_are_framed_and_starred(kept, cache, mini_voc):
    keep_maps(kept)
    (drawing,) = maps.draw(golden_results(runs=kept), None, cache)
    grid = np.array(drawing.figure.axes).reshape(4, 6)
    titles = [axes.get_title() for axes in grid[:, 1]]
    assert titles == ["boat 0.99 *", "boat 0.99 *", "boat 0.99", "boat 0.99"]
    red = (1.0, 0.0, 0.0, 1.0)
    assert {spine.get_edgecolor() for spine in grid[0, 1].spines.values()} == {red}
    assert not grid[2, 1].axison
    assert "true: boat" in grid[1, 0].texts[0].get_text()
    assert "below: icasc-a_ch" in grid[1, 0].texts[0].get_text()


def test_without_the_photographs_the_maps_alone(kept, tmp_path, monkeypatch):
    """And class numbers where nothing names the classes."""
    keep_maps(kept, many=False)
    monkeypatch.setattr(maps, "_at_hand", lambda *_: None)
    (drawing,) = maps.draw(golden_results(runs=kept), None, tmp_path)
    assert "The photographs are not at hand" in drawing.caption
    grid = np.array(drawing.figure.axes).reshape(4, 6)
    assert [len(axes.images) for axes in grid[0]] == [0, 1, 1, 1, 1, 1]
    assert grid[0, 1].get_title().startswith("class 3 ")
    assert grid[0, 1].get_title().endswith("*")


def test_photographs_are_at_hand_where_their_ids_are(make_job, cache, mini_voc, tmp_path):
    job = make_job()
    split = data.find(job.dataset).load(mini_voc, job.test_split, 0)
    some = maps._at_hand(job, [split.ids[7], split.ids[2]], None, cache)
    assert some.ids == (split.ids[7], split.ids[2])
    assert some.images == (split.images[7], split.images[2])
    assert maps._at_hand(job, ["of another set"], None, cache) is None
    real = job.model_copy(update={"dataset": "voc2012"})
    assert maps._at_hand(real, list(some.ids), None, cache) is None
    assert maps._at_hand(real, list(some.ids), tmp_path, cache) is None  # a data root without them


def test_the_first_seed_that_keeps_maps_is_drawn(kept, cache, mini_voc):
    keep_maps(kept, seeds=(1,))
    (drawing,) = maps.draw(golden_results(runs=kept), None, cache)
    assert "seed 1" in drawing.caption
    assert maps.draw(golden_results(), None, cache) == []


def test_present_of_single_labels():
    shown, absent = overlap.shown(np.array([1, 0]), 3)
    assert shown.tolist() == [[False, True, False], [True, False, False]]
    assert (shown ^ absent).all()
