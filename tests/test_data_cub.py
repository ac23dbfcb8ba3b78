"""CUB-200-2011's four lists, and every way in which they can be broken."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from benchmark.data import cub, mini
from benchmark.errors import UserError

CUB = Path(cub.FOLDER)


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    root = tmp_path_factory.mktemp("cub") / "root"
    mini.draw_cub(root, {"train": 2, "test": 1})
    return root


@pytest.fixture
def root(small, tmp_path):
    """A copy to break; its images are links, so they may be removed and not written."""

    def copy(source, target):
        (os.link if source.endswith(".jpg") else shutil.copy2)(source, target)

    return Path(shutil.copytree(small, tmp_path / "root", copy_function=copy))


def test_same_files_and_numbers_as_torchvision_s_image_folder(small):
    from benchmark.methods.torchvision_ops import torchvision

    theirs = torchvision.datasets.ImageFolder(small / CUB / "images")
    train, test = (cub.load(small, split) for split in ("train", "test"))
    ours = {str(p): int(t) for s in (train, test) for p, t in zip(s.images, s.targets, strict=True)}
    assert ours == dict(theirs.samples)
    assert train.classes == tuple(theirs.classes)
    assert np.bincount(train.targets).tolist() == [2] * 200
    assert np.bincount(test.targets).tolist() == [1] * 200


def edit(name, old, new):
    def damage(root):
        path = root / CUB / name
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new, 1))

    return damage


FIRST = "1 001.Number_000/Number_000_0001_0.jpg"
BREAKS = {
    "no folder": (lambda r: shutil.rmtree(r / CUB), "must hold CUB_200_2011"),
    "no list": (lambda r: (r / CUB / "images.txt").unlink(), "images.txt: missing"),
    "empty list": (lambda r: (r / CUB / "classes.txt").write_text("\n"), "classes.txt: names nothing"),
    "not text": (lambda r: (r / CUB / "classes.txt").write_bytes(b"\xff\xfe\x00"), "cannot be read as text"),
    "no value": (edit("images.txt", FIRST, "1"), "images.txt:1: expected a number and a value"),
    "no number": (edit("images.txt", FIRST, "x y"), "images.txt:1: expected a number and a value"),
    "number twice": (edit("images.txt", "\n2 ", "\n1 "), "images.txt:2: number 1 twice"),
    "climbs": (edit("images.txt", FIRST, "1 ../../x.jpg"), "not a path of class folder and image"),
    "absolute": (edit("images.txt", FIRST, "1 /x.jpg"), "not a path of class folder and image"),
    "other folder": (edit("images.txt", FIRST, "1 002.Number_001/Number_000_0001_0.jpg"),
                     "lies in another folder than its class, 001.Number_000"),
    "no label": (edit("image_class_labels.txt", "1 1\n", ""), "image_class_labels.txt: no line for image 1"),
    "no flag": (edit("train_test_split.txt", "\n7 ", "\n9999 "), "split.txt:7: unknown image 9999"),
    "unknown class": (edit("image_class_labels.txt", "1 1\n", "1 201\n"),
                      r"image_class_labels.txt:1: unexpected value '201'; expected one of 1 ... 200"),
    "unknown flag": (lambda r: (r / CUB / "train_test_split.txt").write_text("1 2\n"), "expected one of 0, 1"),
    "image missing": (lambda r: [p.unlink() for p in (r / CUB / "images/003.Number_002").iterdir()],
                      r"missing, though .*images.txt names it \(2 of 400 train images"),
}  # fmt: skip


@pytest.mark.parametrize("name", BREAKS)
def test_broken_layout_is_named(root, name):
    damage, message = BREAKS[name]
    damage(root)
    with pytest.raises(UserError, match=message) as error:
        cub.load(root, "train")
    assert "\n" not in str(error.value)


def test_all_in_one_split(root):
    path = root / CUB / "train_test_split.txt"
    path.write_text(path.read_text().replace(" 0\n", " 1\n"))
    with pytest.raises(UserError, match="names no test image"):
        cub.load(root, "test")


def test_verify(small):
    assert cub.verify(small) == "train has 400 images, the official one 5994"
    assert cub.verify(small, {"train": 400, "test": 200}) == ""


def test_lists_with_a_byte_order_mark(root):
    """As some editors save them."""
    before = cub.load(root, "train")
    for path in (root / CUB).glob("*.txt"):
        path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    after = cub.load(root, "train")
    assert (after.ids, after.classes) == (before.ids, before.classes)
