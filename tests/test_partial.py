"""Data that are not whole: every reader says what is missing, nothing trains on a part that was not allowed, and what
does is marked."""

import dataclasses
import functools
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from benchmark import data
from benchmark.data import caltech, cifar, cub, imagenet, mini, voc
from benchmark.errors import UserError
from benchmark.matrix import grid
from benchmark.matrix.matrix import Matrix
from benchmark.store.run import all_runs
from tests.conftest import MAIN

ROOT = Path(__file__).parents[1]
GRID_OF = {"cifar100": "cifar100", "caltech256": "caltech256", "ilsvrc2012": "ilsvrc2012", "cub200": "cub200",
           "voc2012": "voc"}  # fmt: skip


def draw_imagenet(root: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(imagenet, "NUM_CLASSES", 60)
        mini.draw_imagenet(root, {"train": 1, "val": 1})
    for split in imagenet.NUM_IMAGES:
        imagenet.load(root, split)


DRAW = {
    "cifar100": lambda root: mini.draw_cifar(root, {"train": 2, "test": 1}),
    "caltech256": lambda root: mini.draw_caltech(root, 3),
    "ilsvrc2012": draw_imagenet,
    "cub200": lambda root: mini.draw_cub(root, {"train": 2, "test": 1}),
}
# As the registry's, but for how many images the official set has.
SMALL = {
    "cifar100": {"num_images": {"train": 200, "test": 100}},
    "caltech256": {"num_images": {"train2": 512, "test1": 256}, "load": functools.partial(caltech.load, num_test=1),
                   "total": 3 * 256},
    "ilsvrc2012": {"num_images": {"train": 60, "val": 60}, "num_classes": 60},
    "cub200": {"num_images": {"train": 400, "test": 200}},
    "voc2012": {"num_images": {"train": 20, "val": 10}},
}  # fmt: skip


def halve_cifar(root: Path) -> None:
    for split in ("train", "test"):
        path = root / cifar.FOLDER / split
        batch = cifar.unpickle(path)
        labels = batch["fine_labels"]
        kept = [i for i, label in enumerate(labels) if label < 50]
        batch |= {"data": batch["data"][kept], "fine_labels": [labels[i] for i in kept]}
        path.write_bytes(mini._python2_pickle({key: batch[key] for key in ("fine_labels", "data")}))


def keep_folders(folder: Path, count: int) -> None:
    for path in sorted(path for path in folder.iterdir() if path.is_dir())[count:]:
        shutil.rmtree(path)


def halve_imagenet(root: Path) -> None:
    keep_folders(root / "train", 30)
    next((root / "train" / "n00000007").iterdir()).unlink()  # a class folder that is there, and empty


def halve_voc(root: Path) -> None:
    for path in sorted((root / MAIN.parents[1] / "JPEGImages").glob("*.jpg"))[::2]:
        path.unlink()


HALVE = {
    "cifar100": (halve_cifar, "50 of 100 classes, 100 of 200 images of train, 50 of 100 images of test", 100),
    "caltech256": (lambda root: keep_folders(root / caltech.FOLDER, 50), "50 of 256 classes, 150 of 768 images", 50),
    "ilsvrc2012": (halve_imagenet, "29 of 60 classes, 29 of 60 images of train, 29 of 60 images of val", 29),
    "cub200": (lambda root: keep_folders(root / cub.FOLDER / "images", 50),
               "50 of 200 classes, 100 of 400 images of train, 50 of 200 images of test", 50),
    "voc2012": (halve_voc, "10 of 20 images of train, 5 of 10 images of val", 20),
}  # fmt: skip


def test_every_real_data_set_is_tried():
    assert sorted(SMALL) == sorted(HALVE) == sorted(name for name, of in data.DATASETS.items() if of.source)


@pytest.fixture(scope="module")
def drawn(tmp_path_factory, tiny_voc):
    """drawn("cub200"): a root of it, drawn once."""

    @functools.cache
    def draw(name: str) -> Path:
        root = tmp_path_factory.mktemp(name) / "root"
        DRAW.get(name, lambda to: shutil.copytree(tiny_voc, to))(root)
        return root

    return draw


@pytest.fixture(params=SMALL)
def small(request, drawn, tmp_path, monkeypatch) -> tuple[str, Path]:
    """A data set's name and a copy of it to break, which is whole."""
    name = request.param
    monkeypatch.setitem(data.DATASETS, name, dataclasses.replace(data.DATASETS[name], **SMALL[name]))
    return name, Path(shutil.copytree(drawn(name), tmp_path / "root"))


def job_of(name: str, **changes):
    train, test = SMALL[name]["num_images"]
    fields = {"train_split": train, "test_split": test, "method": "baseline", "seed": 0} | changes
    return grid.load(GRID_OF[name]).jobs("paper", fields)[0]


def test_what_is_whole_is_read_and_lacks_nothing(small):
    name, root = small
    assert data.present(name, root, SMALL[name]["num_images"])[1] == ""
    for job in (job_of(name), job_of(name, partial=True)):
        assert [len(images.ids) for images in data.read(job, root)] == list(SMALL[name]["num_images"].values())


def test_a_part_is_refused_and_read_where_it_is_allowed(small):
    name, root = small
    halve, said, num_classes = HALVE[name]
    halve(root)
    with pytest.raises(UserError, match=r"--allow-partial") as error:
        data.read(job_of(name), root)
    assert f"{name} under {root} is not complete ({said})" in str(error.value)
    assert "\n" not in str(error.value)
    train, test = data.read(job_of(name, partial=True), root)
    assert train.classes == test.classes
    assert len(train.classes) == num_classes
    for images in (train, test):
        assert len(set(images.ids)) == len(images.ids) == len(images.images) == len(images.targets) > 0
        if images.targets.ndim == 1:
            assert images.targets.max() < num_classes
        if not isinstance(images.images, np.ndarray):
            assert all(path.is_file() for path in images.images)
    if train.targets.ndim == 1:
        assert set(test.targets) <= set(train.targets), "no class is tested that was never trained"


def test_nothing_there_is_no_part(small):
    name, root = small
    shutil.rmtree(root)
    root.mkdir()
    with pytest.raises(UserError, match=r"must hold|no such folder"):
        data.read(job_of(name, partial=True), root)


def test_the_images_of_a_part_are_those_of_the_whole(small):
    """So that what a class means, and which images of a category are tested, does not hang on what else is there."""
    name, root = small
    by_id = [dict(zip(s.ids, label_names(s), strict=True)) for s in data.read(job_of(name), root)]
    if name == "cifar100":
        return  # whose ids are places in the file
    HALVE[name][0](root)
    for whole, part in zip(by_id, data.read(job_of(name, partial=True), root), strict=True):
        assert dict(zip(part.ids, label_names(part), strict=True)).items() <= whole.items()


def label_names(images: data.ImageSet) -> list:
    if images.targets.ndim == 2:
        return [tuple(row) for row in images.targets.tolist()]
    return [images.classes[k] for k in images.targets]


def test_folders_of_validation_images_are_read_in_part(drawn, tmp_path):
    """ILSVRC's in class folders, of which some are missing, and without a devkit."""
    root = Path(shutil.copytree(drawn("ilsvrc2012"), tmp_path / "root"))
    val = imagenet.load(root, "val")
    for path, target in zip(val.images, val.targets, strict=True):
        (root / "val" / val.classes[target]).mkdir(exist_ok=True)
        path.rename(root / "val" / val.classes[target] / path.name)
    shutil.rmtree(root / imagenet.DEVKIT)
    (root / imagenet.DEVKIT_TAR).unlink()
    keep_folders(root / "val", 20)
    keep_folders(root / "train", 10)
    with pytest.raises(UserError, match="train and val disagree"):
        imagenet.load(root, "val")
    assert imagenet.load(root, "val", partial=True).targets.tolist() == list(range(10))
    for path in (root / "val").glob("*/*"):
        path.unlink()
    with pytest.raises(UserError, match="holds no image"):
        imagenet.load(root, "val", partial=True)


def test_a_class_without_a_training_image_is_left_out(drawn, tmp_path):
    root = Path(shutil.copytree(drawn("cub200"), tmp_path / "root"))
    for path in cub.load(root, "train").images[:2]:
        path.unlink()
    train, test = (cub.load(root, split, partial=True) for split in ("train", "test"))
    assert train.classes == test.classes == cub.load(drawn("cub200"), "test").classes[1:]
    assert len(test.ids) == 199


def test_a_list_of_somebody_s_own_is_whole_by_itself(tiny_voc, tmp_path):
    """VOC's `present_train` needs no other images than it names; of these, all."""
    root = Path(shutil.copytree(tiny_voc, tmp_path / "root"))
    halve_voc(root)
    for split in ("train", "val"):
        there = voc.load(root, split, partial=True).ids
        (root / MAIN / f"present_{split}.txt").write_text("\n".join(there))
    job = grid.load("voc").jobs("subset")[0]
    assert [len(images.ids) for images in data.read(job, root)] == [10, 5]
    next((root / MAIN.parents[1] / "JPEGImages").glob("*.jpg")).unlink()
    with pytest.raises(UserError, match=r"present_train.txt names it \(1 of 10 images are missing\)\); complete it"):
        data.read(job, root)


def test_more_images_than_there_are_is_said(cache):
    root = data.locate("voc2012-mini", None, cache)
    for field, split, count in (("limit_train", "train", "1,200"), ("limit_test", "val", "400")):
        job = grid.load("voc").jobs("mini", {field: 5000})[0]
        with pytest.raises(UserError, match=f"{field} 5,000: split {split} of voc2012-mini has {count} images"):
            data.read(job, root)


def test_a_limited_test_is_of_the_same_images_for_all_seeds(cache):
    root = data.locate("voc2012-mini", None, cache)
    jobs = grid.load("voc").jobs("mini", {"limit_test": 30})
    assert len({job.seed for job in jobs}) > 1
    tested = {data.read(job, root)[1].ids for job in jobs}
    assert [len(ids) for ids in tested] == [30]
    whole = data.find("voc2012-mini").load(root, "val")
    assert list(*tested) != list(whole.ids[:30])
    assert {*tested} == {tuple(i for i in whole.ids if i in set(*tested))}, "in the order of the whole"


def test_limits_and_parts_are_other_jobs_and_departures(tmp_path):
    voc_grid = grid.load("voc")
    plain = voc_grid.jobs("paper")[0]
    for changes, said in (
        ({"limit_test": 500}, "limit_test: 500 (paper: whole set)"),
        ({"partial": True}, "partial: True (paper: False)"),
    ):
        job = voc_grid.jobs("paper", changes)[0]
        assert job.id != plain.id
        assert voc_grid.deviations(job) == [said]
        matrix = Matrix(voc_grid, "paper", changes, runs=tmp_path)
        assert said in matrix.departures
        assert not matrix.has_the_paper_s_test_set
    assert voc_grid.jobs("paper", {"partial": False})[0].id == plain.id


@pytest.fixture(scope="module")
def first_classes(tmp_path_factory) -> Path:
    """20 of CUB's classes, with the lists of 200."""
    root = tmp_path_factory.mktemp("first") / "data"
    mini.draw_cub(root, {"train": 2, "test": 1})
    keep_folders(root / cub.FOLDER / "images", 20)
    return root


QUICK = [
    "--grid", "cub200", "--set", "backbone=resnet8", "--set", "weights=scratch", "--set", "image_size=16",
    "--set", "epochs=1", "--set", "seed=0",
]  # fmt: skip
LACKS = "20 of 200 classes, 40 of 5,994 images of train, 20 of 5,794 images of test"


def test_a_part_trains_where_it_is_allowed_and_its_table_says_so(first_classes, call, tmp_path):
    here = ["--data-root", first_classes, "--cache", tmp_path / "cache"]
    quick = [*QUICK, "--only", "method=baseline", "--device", "cpu"]
    for scale in ("auto", "paper"):
        refused = call(tmp_path, "run", *quick, "--scale", scale, *here)
        assert refused.returncode == 2
        assert "--allow-partial" in refused.stderr
        assert "is not complete" in refused.stderr
    assert LACKS in refused.stderr
    assert not all_runs(tmp_path / "runs")
    planned = call(tmp_path, "plan", *QUICK, "--scale", "paper", "--allow-partial", "--json", *here)
    assert {row["partial"] for row in json.loads(planned.stdout)} == {True}
    done = call(tmp_path, "run", *quick, "--allow-partial", *here)
    assert done.returncode == 0, done.stderr
    assert f"note: cub200 is used as far as it is there ({LACKS}); tables say so" in done.stderr
    (run,) = all_runs(tmp_path / "runs")
    assert run.job().partial
    assert (run.result().num_train, run.result().num_test) == (40, 20)
    assert "partial: True (paper: False)" in done.stdout
    assert "data: 20 of 200 classes, 40 of 5,994 training images, 20 of 5,794 test images" in done.stdout
    assert "not comparable with the published cells" in done.stdout
    again = call(tmp_path, "run", *quick, "--set", "partial=true", "--scale", "paper", *here)
    assert "1 jobs, 1 done, 0 to run" in again.stdout, "the command that tables print finds it"


def test_plan_stops_as_run_does(first_classes, call, tmp_path):
    here = ["--data-root", first_classes, "--cache", tmp_path / "cache", "--tables", ROOT / "tables"]
    refused = call(tmp_path, "plan", *QUICK, *here)
    assert refused.returncode == 2
    assert "--allow-partial" in refused.stderr
    of_all = call(tmp_path, "plan", *here)
    assert of_all.returncode == 0
    assert "warning: cub200 is left out: cub200 under" in of_all.stderr
    assert call(tmp_path, "plan", "--allow-partial", *here).returncode == 2


def test_what_a_reader_notes_is_printed_once(drawn, tmp_path, monkeypatch, capsys):
    """For all seeds and networks of a grid."""
    from benchmark.cli.common import look_at_data

    small = SMALL["caltech256"] | {"total": 0, "verify": lambda root: ""}
    monkeypatch.setitem(data.DATASETS, "caltech256", dataclasses.replace(data.DATASETS["caltech256"], **small))
    root = Path(shutil.copytree(drawn("caltech256"), tmp_path / "root"))
    (root / caltech.FOLDER / "017.number-016" / "017_0002.jpg").unlink()
    jobs = [job_of("caltech256", seed=seed) for seed in (0, 1)]
    assert look_at_data(jobs, root, tmp_path / "cache") == ({}, {})
    said = "note: caltech256, train2: of 1 categories fewer than 2 images: 017.number-016 (1)\n"
    assert capsys.readouterr().err == said


def test_a_part_that_is_not_official_by_its_checksum_is_no_whole(small, monkeypatch, tmp_path):
    """Counts may be right and the files somebody's own."""
    from benchmark.cli.common import look_at_data

    name, root = small
    monkeypatch.setattr(data, "verified", lambda *_: "x has MD5 1, the official one is 2")
    assert look_at_data([job_of(name)], root, tmp_path).lacking == {name: "x has MD5 1, the official one is 2"}
