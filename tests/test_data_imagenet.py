"""ILSVRC2012: archives, folders flat and not, and a devkit that disagrees."""

import gzip
import io
import os
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest

from benchmark.data import imagenet, mini
from benchmark.errors import UserError

NUM_CLASSES = 60  # the loader reads how many there are; the whole twin is read in test_data_registry.py


@pytest.fixture(scope="module")
def packed(tmp_path_factory):
    """The three archives, nothing unpacked."""
    root = tmp_path_factory.mktemp("imagenet") / "packed"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(imagenet, "NUM_CLASSES", NUM_CLASSES)
        mini.draw_imagenet(root, {"train": 1, "val": 1})
    return root


@pytest.fixture(scope="module")
def unpacked(packed, tmp_path_factory):
    root = tmp_path_factory.mktemp("imagenet") / "unpacked"
    shutil.copytree(packed, root)
    imagenet.load(root, "train")
    imagenet.load(root, "val")
    for name in (imagenet.TRAIN_TAR, imagenet.VAL_TAR, imagenet.DEVKIT_TAR):
        (root / name).unlink()
    return root


@pytest.fixture
def root(unpacked, tmp_path):
    """A copy to break; its images are links, so they may be moved and not written."""

    def copy(source, target):
        (os.link if source.endswith(".JPEG") else shutil.copy2)(source, target)

    return Path(shutil.copytree(unpacked, tmp_path / "root", copy_function=copy))


def val_into_class_folders(root):
    images = imagenet.load(root, "val")
    for path, target in zip(images.images, images.targets, strict=True):
        folder = root / "val" / images.classes[target]
        folder.mkdir(exist_ok=True)
        path.rename(folder / path.name)


def test_archives_are_read_as_torchvision_reads_them(packed, unpacked, tmp_path, monkeypatch):
    from benchmark.methods.torchvision_ops import torchvision

    shutil.copytree(packed, tmp_path / "theirs")
    monkeypatch.setattr("torchvision.datasets.imagenet._verify_archive", lambda *_: None)  # drawn: other checksums
    for split in ("train", "val"):
        theirs = torchvision.datasets.ImageNet(tmp_path / "theirs", split=split)
        ours = imagenet.load(unpacked, split)
        assert tuple(theirs.wnids) == ours.classes
        assert {Path(p).stem: t for p, t in theirs.samples} == dict(zip(ours.ids, ours.targets.tolist(), strict=True))
        assert np.bincount(ours.targets).tolist() == [1] * NUM_CLASSES


def test_unpacked_once_and_needs_the_archives_no_more(unpacked):
    assert sorted(p.name for p in unpacked.iterdir() if not p.name.startswith(".")) == [
        "ILSVRC2012_devkit_t12", "train", "val",
    ]  # fmt: skip
    assert not list(unpacked.rglob("*.tar"))


@pytest.mark.parametrize("flat", [True, False])
def test_what_systems_leave_is_no_class_and_no_image(flat, root):
    if not flat:
        val_into_class_folders(root)
    before = [imagenet.load(root, split).ids for split in ("train", "val")]
    classes = [path for path in root.glob("*/n*") if path.is_dir()]
    for place in (root / "train", root / "val", *classes):
        for name in (".ipynb_checkpoints", "__MACOSX", "@eaDir"):
            (place / name).mkdir()
            (place / name / "ILSVRC2012_val_00000001.JPEG").touch()
        (place / "._ILSVRC2012_val_00000001.JPEG").touch()
        (place / "Thumbs.db").touch()
    for partial in (False, True):
        assert [imagenet.load(root, split, partial=partial).ids for split in ("train", "val")] == before


def test_a_ground_truth_with_a_byte_order_mark(root):
    path = root / imagenet.DEVKIT / "data" / imagenet.GROUND_TRUTH
    before = imagenet.load(root, "val").targets.tolist()
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert imagenet.load(root, "val").targets.tolist() == before


def test_a_folder_of_its_own_is_found(unpacked, tmp_path):
    (tmp_path / "ILSVRC2012").symlink_to(unpacked)
    assert imagenet.load(tmp_path, "val").ids == imagenet.load(unpacked, "val").ids


def test_class_folders_and_flat_files_are_the_same(root):
    flat = imagenet.load(root, "val")
    val_into_class_folders(root)
    for remove in (None, root / imagenet.DEVKIT):  # the folders say it all
        if remove is not None:
            shutil.rmtree(remove)
        folders = imagenet.load(root, "val")
        assert folders.ids == flat.ids
        assert (folders.targets == flat.targets).all()


def test_devkit_and_class_folders_that_disagree(root):
    val_into_class_folders(root)
    path = next((root / "val" / "n00000003").iterdir())
    path.rename(root / "val" / "n00000004" / path.name)
    (root / "val" / "n00000003" / "ILSVRC2012_val_00000001.JPEG").touch()
    with pytest.raises(UserError, match="devkit and folders disagree"):
        imagenet.load(root, "val")


def truth(root):
    return root / imagenet.DEVKIT / "data" / imagenet.GROUND_TRUTH


def cut(path, num_bytes):
    path.write_bytes(path.read_bytes()[:num_bytes])


BREAKS = {
    "nothing": (lambda r: shutil.rmtree(r / "train"), "no ILSVRC2012_img_train.tar beside it"),
    "no val": (lambda r: shutil.rmtree(r / "val"), "no ILSVRC2012_img_val.tar beside it"),
    "no class": (lambda r: (shutil.rmtree(r / "train"), (r / "train").mkdir()), "train: holds no class folder"),
    "not a class": (lambda r: (r / "train" / "dogs").mkdir(), "dogs: not the name of a class"),
    "class missing": (lambda r: shutil.rmtree(r / "train" / "n00000007"),
                      "devkit and folders disagree: class n00000007 is in the devkit's meta.mat only"),
    "class unknown": (lambda r: (r / "train" / "n12345678").mkdir(),
                      "disagree: class n12345678 is in the folder train only"),
    "label missing": (lambda r: truth(r).write_text("".join(truth(r).read_text().splitlines(True)[:-1])),
                      "disagree: none of the 59 labels is for this image"),
    "label too many": (lambda r: truth(r).write_text(truth(r).read_text() + "5\n"),
                       "disagree: 61 labels for 60 images"),
    "label unknown": (lambda r: truth(r).write_text("99\n"), "ground_truth.txt:1: '99' is not the number"),
    "label no number": (lambda r: truth(r).write_text("1\nx\n"), "ground_truth.txt:2: 'x' is not the number"),
    "no labels": (lambda r: truth(r).unlink(), "ground_truth.txt: cannot be read"),
    "no devkit": (lambda r: shutil.rmtree(r / imagenet.DEVKIT), "need ILSVRC2012_devkit_t12"),
    "no meta": (lambda r: truth(r).with_name("meta.mat").unlink(), "meta.mat: missing"),
    "truncated meta": (lambda r: cut(truth(r).with_name("meta.mat"), 5000), "meta.mat: cannot be read as"),
    "empty meta": (lambda r: cut(truth(r).with_name("meta.mat"), 0), "meta.mat: cannot be read as"),
    "val differs": (lambda r: (val_into_class_folders(r), shutil.rmtree(r / "val" / "n00000007")),
                    "train and val disagree: class n00000007 is in one of them only"),
}  # fmt: skip


@pytest.mark.parametrize("name", BREAKS)
def test_broken_layout_is_named(root, name):
    damage, message = BREAKS[name]
    damage(root)
    with pytest.raises(UserError, match=message) as error:
        imagenet.load(root, "val")
    assert "\n" not in str(error.value)


def test_empty_class_folder_is_named(root):
    next((root / "train" / "n00000007").iterdir()).unlink()
    with pytest.raises(UserError, match="n00000007: holds no image"):
        imagenet.load(root, "train")


def tar_of(name, content):
    member, file = tarfile.TarInfo(name), io.BytesIO()
    member.size = len(content)
    with tarfile.open(fileobj=file, mode="w") as tar:
        tar.addfile(member, io.BytesIO(content))
    return file.getvalue()


@pytest.mark.parametrize("name", [imagenet.TRAIN_TAR, imagenet.VAL_TAR, imagenet.DEVKIT_TAR])
def test_climbing_archive_is_refused(name, packed, tmp_path):
    root = Path(shutil.copytree(packed, tmp_path / "a" / "root"))
    content = tar_of("../../evil", b"evil")
    if name == imagenet.TRAIN_TAR:
        content = tar_of("n00000001.tar", content)
    (root / name).write_bytes(gzip.compress(content) if name == imagenet.DEVKIT_TAR else content)
    with pytest.raises(UserError, match="climbs out of its folder"):
        imagenet.load(root, "val")
    assert not list(tmp_path.rglob("evil"))


def test_verify(unpacked, monkeypatch):
    assert imagenet.verify(unpacked) == "train has 60 classes, the official one 1000"
    monkeypatch.setattr(imagenet, "NUM_CLASSES", NUM_CLASSES)
    assert imagenet.verify(unpacked) == "train has 60 images, the official one 1281167"
    assert imagenet.verify(unpacked, {"train": 60, "val": 60}) == ""
    with pytest.raises(UserError, match="did you mean 'val'"):
        imagenet.load(unpacked, "vall")
