"""Caltech-256's folders, and the splits that are drawn from them."""

import dataclasses
import functools
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from benchmark import data
from benchmark.data import caltech, mini
from benchmark.errors import UserError

NUM_IMAGES = 4


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    root = tmp_path_factory.mktemp("caltech") / "root"
    mini.draw_caltech(root, NUM_IMAGES)
    return root


@pytest.fixture
def root(small, tmp_path):
    """A copy to break; its files are links, so they may be removed and not written."""
    return Path(shutil.copytree(small, tmp_path / "root", copy_function=os.link))


@pytest.fixture(scope="module")
def big(tmp_path_factory):
    """Empty files in the numbers that matter for the draw: 90 in most categories, 80 in the third, 85 in the fourth."""
    folder = tmp_path_factory.mktemp("caltech") / caltech.FOLDER
    for k in range(1, 258):
        (folder / f"{k:03d}.c").mkdir(parents=True)
        for i in range({3: 80, 4: 85}.get(k, 90)):
            (folder / f"{k:03d}.c" / f"{k:03d}_{i + 1:04d}.jpg").touch()
    return folder.parent


def named(root, names):
    """The drawn folders, called by these names."""
    for path in (root / caltech.FOLDER).iterdir():
        if (number := int(path.name[:3])) <= caltech.NUM_CLASSES:
            path.rename(path.with_name(f"{number:03d}.{names[number - 1]}"))


def test_the_official_names_are_asked_for_where_the_set_is_the_official_one(root):
    names = caltech.CATEGORIES
    assert (len(set(names)), names[0], names[181], names[255]) == (256, "ak47", "self-propelled-lawn-mower", "toad")
    dataset = data.DATASETS["caltech256"]
    assert "001.number-000: is not Caltech-256's; its category 001 is ak47" in dataset.verify(root)
    for partial in (False, True):
        with pytest.raises(UserError, match=r"001.number-000: is not Caltech-256's"):
            dataset.load(root, "train1", partial=partial)
    named(root, names)
    assert len(dataset.load(root, "train1", num_test=1).ids) == 256
    assert "images, officially 30607" in dataset.verify(root)
    path = root / caltech.FOLDER / "007.bat"
    path.rename(path.with_name("007.accordion"))
    with pytest.raises(UserError, match=r"007.accordion: is not Caltech-256's; its category 007 is bat"):
        dataset.load(root, "test1", num_test=1)


def test_a_name_that_is_no_utf_8_is_said_before_a_record_cannot_hold_it(root, monkeypatch):
    load = functools.partial(caltech.load, num_test=1)
    small = dataclasses.replace(data.DATASETS["caltech256-mini"], load=load)
    monkeypatch.setitem(data.DATASETS, "caltech256-mini", small)
    category = root / caltech.FOLDER / "007.number-006"
    for path in category.iterdir():
        os.rename(path, os.fsencode(category) + b"/caf\xe9 " + os.fsencode(path.name))
    with pytest.raises(UserError, match=r"the name 007.number-006/caf\\xe9 007_000\d.jpg is not UTF-8; rename it"):
        data.present("caltech256-mini", root, ["train1"])


def test_what_systems_leave_is_no_category_and_no_image(root):
    before = caltech.load(root, "train1", num_test=1).ids
    for place in (root / caltech.FOLDER, *(root / caltech.FOLDER).glob("*.*")):
        for name in (".ipynb_checkpoints", "__MACOSX", "@eaDir"):
            (place / name).mkdir()
            (place / name / "001_0001.jpg").touch()
        (place / "._001_0001.jpg").touch()
        (place / "Thumbs.db").touch()
    assert caltech.load(root, "train1", num_test=1).ids == before


def test_same_files_and_numbers_as_torchvision(small):
    from benchmark.methods.torchvision_ops import torchvision

    theirs = torchvision.datasets.Caltech256.__new__(torchvision.datasets.Caltech256)
    # Its constructor puts the files into a folder caltech256/; what it lists there is what counts.
    linked = small.parent / "caltech256"
    if not linked.exists():
        linked.symlink_to(small)
    theirs.__init__(small.parent)
    listed = {f"{k + 1:03d}_{i:04d}": k for k, i in zip(theirs.y, theirs.index, strict=True) if k < caltech.NUM_CLASSES}
    ours = [caltech.load(small, split, num_test=1) for split in ("train3", "test1")]
    assert {i: int(t) for images in ours for i, t in zip(images.ids, images.targets, strict=True)} == listed
    assert theirs.categories[255] == "256.number-255"
    with pytest.raises(UserError, match="kept for testing"):
        caltech.load(small, "test2", num_test=1)


def test_draw_is_the_paper_s(big):
    test, train30, train60 = (caltech.load(big, split, seed=1) for split in ("test25", "train30", "train60"))
    assert (len(test.ids), len(train30.ids)) == (6400, 7680)
    assert np.bincount(train60.targets).tolist() == [60, 60, 55] + [60] * 253
    assert set(train30.ids) < set(train60.ids)
    assert not set(test.ids) & set(train60.ids)
    assert len({*test.ids, *train60.ids}) == 6400 + 15355
    assert not any(i.startswith("257") for i in train60.ids)


def test_seeds_draw_differently_and_each_the_same(big):
    first, again, other = (caltech.load(big, "test25", seed) for seed in (0, 0, 1))
    assert first.ids == again.ids
    assert first.ids != other.ids


def test_draw_is_golden(big):
    """The same on every machine: a change of it would orphan every run that was made from it."""
    assert caltech.load(big, "test25", seed=0).ids[:5] == GOLDEN


GOLDEN = ("001_0001", "001_0002", "001_0003", "001_0009", "001_0010")


def test_one_category_s_files_do_not_move_another_s_draw(root):
    before = caltech.load(root, "test1", num_test=1).ids
    (root / caltech.FOLDER / "001.number-000" / "001_0002.jpg").unlink()
    assert caltech.load(root, "test1", num_test=1).ids[1:] == before[1:]


def test_strays_are_no_images(root):
    before = caltech.load(root, "train3", num_test=1).ids
    (root / caltech.FOLDER / "001.number-000" / "RENAME2").write_text("mv")
    (root / caltech.FOLDER / "002.number-001" / "greg").mkdir()
    (root / caltech.FOLDER / ".DS_Store").write_text("")
    assert caltech.load(root, "train3", num_test=1).ids == before


def test_images_of_any_name_are_read(root):
    """A copy whose images were renamed is drawn from like any other; ids stay apart."""
    folders = caltech.category_folders(root)[:2]
    for folder in folders:
        for i, path in enumerate(sorted(folder.iterdir())):
            path.rename(folder / f"photo {i}.{('JPG', 'jpeg', 'png', 'webp')[i]}")
    images = caltech.load(root, "train3", num_test=1)
    assert np.bincount(images.targets).tolist() == [3] * 256
    assert len(set(images.ids)) == len(images.ids)
    assert images.ids[0].startswith("001.number-000/photo ")
    assert images.ids[6].startswith("003_000")


def test_an_image_in_another_category_s_folder_has_an_id_of_its_own(root):
    first, second = caltech.category_folders(root)[:2]
    (first / "001_0002.jpg").rename(second / "001_0001.jpg")
    ids = [i for split in ("train4", "test1") for i in caltech.load(root, split, num_test=1).ids]
    assert {"001_0001", "002.number-001/001_0001.jpg"} <= set(ids)
    assert len(set(ids)) == len(ids)


def test_categories_of_fewer_images_than_asked_for_are_named(big):
    assert caltech.load(big, "train60").note == "of 1 categories fewer than 60 images: 003.c (55)"
    assert caltech.load(big, "train30").note == caltech.load(big, "test25").note == ""


def test_a_category_with_nothing_to_train_on_is_left_out_of_a_part_and_named(root):
    for i in (1, 2, 3):
        (root / caltech.FOLDER / f"017.number-016/017_000{i}.jpg").unlink()
    part = caltech.load(root, "train3", num_test=1, partial=True)
    assert len(part.classes) == 255
    assert part.note == "left out, with nothing to train on: 017.number-016"


def remove_all(folder):
    for path in folder.iterdir():
        path.unlink()


BREAKS = {
    "no folder": (lambda r: shutil.rmtree(r / caltech.FOLDER), "must hold 256_ObjectCategories"),
    "category missing": (lambda r: shutil.rmtree(r / caltech.FOLDER / "017.number-016"),
                         r"no folder of category 017 \(1 of 256"),
    "category twice": (lambda r: (r / caltech.FOLDER / "017.other").mkdir(), "category 017 is there twice"),
    "category empty": (lambda r: remove_all(r / caltech.FOLDER / "017.number-016"), "017.number-016: holds no image"),
    "category too small": (lambda r: [(r / caltech.FOLDER / f"017.number-016/017_000{i}.jpg").unlink()
                                      for i in (1, 2, 3)], "017.number-016: 1 images; 1 for testing"),
}  # fmt: skip


@pytest.mark.parametrize("name", BREAKS)
def test_broken_layout_is_named(root, name):
    damage, message = BREAKS[name]
    damage(root)
    with pytest.raises(UserError, match=message) as error:
        caltech.load(root, "train3", num_test=1)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("split", "message"),
    [
        ("train", "no split 'train'; expected train<N> or test<N>"),
        ("train0", "no split"),
        ("test99", "no more"),
        ("train9", "no category has more than 3 images"),
    ],
)
def test_split_names(small, split, message):
    with pytest.raises(UserError, match=message):
        caltech.load(small, split, num_test=1)


def test_verify(root):
    assert caltech.verify(root) == "1028 images, officially 30607"
    assert caltech.verify(root, 257 * NUM_IMAGES) == ""
    shutil.rmtree(root / caltech.FOLDER / "257.clutter")
    assert "clutter" in caltech.verify(root, 256 * NUM_IMAGES)
