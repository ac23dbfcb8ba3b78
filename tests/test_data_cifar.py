"""CIFAR-100's pickles: as torchvision reads them, and what must not be read."""

import os
import pickle
import shutil
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from benchmark import data
from benchmark.data import cifar, mini
from benchmark.errors import UserError

PACK = Path(__file__).parents[2] / "shared" / "data" / "unpack_cifar100.py"


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    root = tmp_path_factory.mktemp("cifar") / "root"
    mini.draw_cifar(root, {"train": 2, "test": 1})
    return root


@pytest.fixture
def root(small, tmp_path):
    """A copy to break."""
    return Path(shutil.copytree(small, tmp_path / "root"))


def same_as_torchvision(root, monkeypatch, splits=("train", "test")):
    from benchmark.methods.torchvision_ops import torchvision

    theirs_of = torchvision.datasets.CIFAR100
    monkeypatch.setattr(theirs_of, "_check_integrity", lambda self: True)  # drawn files have other checksums
    monkeypatch.setattr("torchvision.datasets.cifar.check_integrity", lambda *_: True)
    for split in splits:
        theirs, ours = theirs_of(root, train=split == "train"), cifar.load(root, split)
        assert (theirs.data == ours.images).all()
        assert theirs.targets == ours.targets.tolist()
        assert tuple(theirs.classes) == ours.classes
        assert len(set(ours.ids)) == len(ours.ids) == len(ours.images)


def test_drawn_is_what_torchvision_reads(small, monkeypatch):
    same_as_torchvision(small, monkeypatch)
    train = cifar.load(small, "train")
    assert (train.images.shape, train.images.dtype, train.targets.dtype) == ((200, 32, 32, 3), np.uint8, np.int64)
    assert np.bincount(train.targets).tolist() == [2] * 100


@pytest.mark.skipif(not PACK.is_file(), reason="the real CIFAR-100 is not at hand")
def test_real_cifar_is_what_torchvision_reads(tmp_path, monkeypatch):
    import subprocess
    import sys

    subprocess.run([sys.executable, str(PACK), str(tmp_path)], check=True, stdout=subprocess.DEVNULL)
    assert data.verified("cifar100", tmp_path, tmp_path / "cache") == ""
    same_as_torchvision(tmp_path, monkeypatch, ["test"])
    first, held_out = (cifar.load(tmp_path, split) for split in cifar.PARTS)
    assert (len(first.ids), len(held_out.ids), held_out.ids[0]) == (45000, 5000, "train_45000")
    assert np.bincount(held_out.targets, minlength=100).min() >= 25  # in random order: 50 of a class, give or take 7
    with open(tmp_path / "cifar-100-python/test", "r+b") as file:
        file.seek(5_000_000)
        file.write(b"\0\1")
    assert "test has MD5" in data.verified("cifar100", tmp_path, tmp_path / "cache")


def test_parts_divide_the_training_images(small, monkeypatch):
    monkeypatch.setattr(cifar, "NUM_IMAGES", {"train": 200, "test": 100})
    monkeypatch.setattr(cifar, "PARTS", {"train_45k": slice(None, 180), "validation_5k": slice(180, None)})
    whole, first, held_out = (cifar.load(small, s) for s in ("train", "train_45k", "validation_5k"))
    assert first.ids + held_out.ids == whole.ids
    assert not set(first.ids) & set(held_out.ids)
    for name in ("images", "targets"):
        parts = [getattr(first, name), getattr(held_out, name)]
        assert (np.concatenate(parts) == getattr(whole, name)).all()
        assert [len(part) for part in parts] == [180, 20]


def test_part_of_a_file_that_is_not_the_official_one_is_refused(small):
    with pytest.raises(UserError, match=r"holds 200 images; split 'validation_5k' is a part of the official 50000"):
        cifar.load(small, "validation_5k")


class Hostile:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("protocol", range(6))
def test_hostile_pickle_is_refused_and_leaves_no_trace(root, protocol, tmp_path):
    trace = tmp_path / "trace"
    content = pickle.dumps({"data": Hostile(trace)}, protocol)
    (root / "cifar-100-python/train").write_bytes(content)
    with pytest.raises(UserError, match="do not trust this file"):
        cifar.load(root, "train")
    assert not trace.exists()
    pickle.loads(content)
    assert trace.exists(), "the pickle was hostile indeed"


@pytest.mark.parametrize(
    "content",
    [
        b"cbuiltins\neval\n(S'1'\ntR.",
        b"cnumpy\nload\n(S'x'\ntR.",
        b"cnumpy.core.multiarray\nfromfile\n.",
        b"cnumpy\nndarray.tofile\n.",
        b"\x80\x04\x8c\x05numpy\x8c\x10ndarray.__init__\x93.",
    ],
)
def test_names_beyond_the_format_are_refused(root, content):
    (root / "cifar-100-python/train").write_bytes(content)
    with pytest.raises(UserError, match="do not trust this file"):
        cifar.load(root, "train")


def rewrite(name, **changes):
    def damage(root):
        path = root / cifar.FOLDER / name
        path.write_bytes(mini._python2_pickle(cifar.unpickle(path) | changes))

    return damage


def truncate(root):
    path = root / cifar.FOLDER / "train"
    path.write_bytes(path.read_bytes()[:300_000])


BREAKS = {
    "no folder": (lambda r: shutil.rmtree(r / cifar.FOLDER), "must hold cifar-100-python"),
    "no batch": (lambda r: (r / cifar.FOLDER / "train").unlink(), "train: missing"),
    "no meta": (lambda r: (r / cifar.FOLDER / "meta").unlink(), "meta: missing"),
    "truncated": (truncate, "train: cannot be read as a pickle"),
    "empty": (lambda r: (r / cifar.FOLDER / "train").write_bytes(b""), "train: cannot be read as a pickle"),
    "not a pickle": (lambda r: (r / cifar.FOLDER / "train").write_bytes(b"<html>"), "cannot be read as a pickle"),
    "no dictionary": (lambda r: (r / cifar.FOLDER / "train").write_bytes(b"]."), "holds no dictionary"),
    "a folder": (lambda r: ((r / cifar.FOLDER / "train").unlink(), (r / cifar.FOLDER / "train").mkdir()),
                 "train: cannot be read"),
    "wrong number of images": (rewrite("train", data=np.zeros((7, 3072), np.uint8)),
                               "train: holds 7 images and 200 fine labels"),
    "no images": (rewrite("train", data=np.zeros((0, 3072), np.uint8)), "not an array of N x 3072 bytes"),
    "wrong width": (rewrite("train", data=np.zeros((200, 3071), np.uint8)), "not an array of N x 3072 bytes"),
    "no array": (rewrite("train", data=[1, 2]), "not an array of N x 3072 bytes"),
    "label out of range": (rewrite("train", fine_labels=[100] * 200), "'fine_labels' is not a list of numbers"),
    "label no number": (rewrite("train", fine_labels=["7"] * 200), "'fine_labels' is not a list of numbers"),
    "too few names": (rewrite("meta", fine_label_names=["a"]), "'fine_label_names' is not a list of 100 names"),
}  # fmt: skip


@pytest.mark.parametrize("name", BREAKS)
def test_broken_layout_is_named(root, name):
    damage, message = BREAKS[name]
    damage(root)
    with pytest.raises(UserError, match=message) as error:
        cifar.load(root, "train")
    assert "\n" not in str(error.value)


def test_other_arrays_than_bytes_are_refused(root):
    path = root / cifar.FOLDER / "train"
    content = path.read_bytes()
    for old, new in ((b"\x02\x00\x00\x00u1", b"\x02\x00\x00\x00O8"), (b"K\x00tb\x89T", b"K\x00tb\x88T")):
        assert content.count(old) == 1
        path.write_bytes(content.replace(old, new))
        with pytest.raises(UserError, match="expected unsigned bytes"):
            cifar.load(root, "train")


def test_unknown_split_is_named(root):
    with pytest.raises(UserError, match="did you mean 'train'"):
        cifar.load(root, "trian")


def test_verify_counts(small):
    assert cifar.verify(small) == "train has 200 images, the official one 50000"
    assert cifar.verify(small, {"train": 200, "test": 100}) == ""


LARGE = (2**34).to_bytes(8, "little")


NUMBER = b"\x80\x02}r\xff\xff\xff\x3f."


@pytest.mark.parametrize("content", [NUMBER, b"\x80\x05\x96" + LARGE, b"\x80\x04\x95" + LARGE])
def test_a_few_bytes_do_not_ask_for_gigabytes(content, root):
    """A number of 2^30 to be remembered under, a byte array or a frame of 16 GiB: refused, in little memory."""
    (root / cifar.FOLDER / "train").write_bytes(content)
    tracemalloc.start()
    try:
        with pytest.raises(UserError):
            cifar.load(root, "train")
        assert tracemalloc.get_traced_memory()[1] < 2**24
    finally:
        tracemalloc.stop()
