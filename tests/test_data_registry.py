"""Whatever DATASETS promises, for each data set in it; and the twins' drawing."""

import hashlib
import re
import subprocess
import sys

import numpy as np
import pytest

from benchmark import data
from benchmark.data import DATASETS, caltech, cifar, cub, imagenet, loading, mini
from benchmark.errors import UserError

REAL = [name for name, dataset in DATASETS.items() if dataset.source]
MINI = [name for name, dataset in DATASETS.items() if dataset.draw]


def test_every_data_set_is_real_or_drawn_and_every_real_one_has_a_twin():
    assert sorted([*REAL, *MINI]) == sorted(DATASETS)
    assert [f"{name}-mini" for name in REAL] == MINI


@pytest.mark.parametrize("name", DATASETS)
def test_nothing_there_is_said_in_one_line(name, tmp_path):
    dataset = DATASETS[name]
    assert dataset.verify(tmp_path)
    assert "\n" not in dataset.verify(tmp_path)
    for split in dataset.num_images:
        with pytest.raises(UserError, match=str(tmp_path)):
            dataset.load(tmp_path, split)
    with pytest.raises(UserError):
        dataset.load(tmp_path, "no-such-split")
    assert data.state(name, tmp_path, tmp_path) == "absent"
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", REAL)
def test_source(name):
    source = DATASETS[name].source
    assert source.address.startswith("https://")
    assert source.terms
    assert source.unattended == (name != "ilsvrc2012")
    for md5 in [archive.md5 for archive in source.archives] + list(source.checksums.values()):
        assert re.fullmatch(r"[0-9a-f]{32}", md5)
    for archive in source.archives:
        assert archive.url is None or archive.url.endswith(f"/{archive.name}")


def test_checksums_are_torchvision_s():
    from benchmark.methods.torchvision_ops import torchvision

    sets = torchvision.datasets
    cifar_md5 = {f"cifar-100-python/{n}": m for n, m in sets.CIFAR100.train_list + sets.CIFAR100.test_list}
    meta = {"cifar-100-python/meta": sets.CIFAR100.meta["md5"]}
    assert DATASETS["cifar100"].source.checksums == cifar_md5 | meta
    archive = DATASETS["cifar100"].source.archives[0]
    assert (archive.url, archive.md5) == (sets.CIFAR100.url, sets.CIFAR100.tgz_md5)
    voc = sets.voc.DATASET_YEAR_DICT["2012"]
    archive = DATASETS["voc2012"].source.archives[0]
    assert (archive.url, archive.md5, archive.name) == (voc["url"], voc["md5"], voc["filename"])
    theirs = set(sets.imagenet.ARCHIVE_META.values())
    assert {(a.name, a.md5) for a in DATASETS["ilsvrc2012"].source.archives} == theirs


@pytest.mark.parametrize("name", MINI)
def test_twin(name, cache):
    dataset, root = DATASETS[name], data.locate(name, None, cache)
    assert dataset.num_classes == DATASETS[name.removesuffix("-mini")].num_classes
    assert data.verified(name, root, cache) == ""
    assert data.state(name, root, cache) == "verified"
    seen: dict[str, set] = {}
    for split, count in dataset.num_images.items():
        images = dataset.load(root, split, seed=3)
        assert len(images.ids) == len(set(images.ids)) == len(images.images) == len(images.targets) == count
        assert len(images.classes) == dataset.num_classes
        if images.targets.ndim == 1:
            assert images.targets.dtype == np.int64
            assert set(np.unique(images.targets)) == set(range(dataset.num_classes)), "every class is in every split"
        seen.setdefault("train" if split.startswith("train") else "test", set()).update(images.ids)
    assert not seen["train"] & seen["test"]


@pytest.mark.parametrize("name", MINI)
def test_twin_is_read_by_some_resize(name, cache, tmp_path):
    images = DATASETS[name].load(data.locate(name, None, cache), list(DATASETS[name].num_images)[-1])
    few = data.ImageSet(images.classes, images.ids[:9], images.images[:9], images.targets[:9])
    stored = isinstance(images.images, np.ndarray)
    for resize in ["none"] if stored else loading.RESIZES[1:]:
        pixels = data.open_pixels(few, 32, resize, tmp_path)
        assert pixels.train_batch(np.arange(9), 0, 0).shape == (9, 32, 32, 3)
        assert pixels.test_batch(np.arange(9)).std() > 10


SMALL = {
    "cifar100": (cifar, lambda root: mini.draw_cifar(root, {"train": 1, "test": 1})),
    "cub200": (cub, lambda root: mini.draw_cub(root, {"train": 1, "test": 1})),
    "ilsvrc2012": (imagenet, lambda root: mini.draw_imagenet(root, {"train": 1, "val": 1})),
    "caltech256": (caltech, lambda root: mini.draw_caltech(root, 1)),
}


@pytest.mark.parametrize("name", SMALL)
def test_drawing_is_repeatable(name, tmp_path, monkeypatch):
    monkeypatch.setattr(SMALL[name][0], "NUM_CLASSES", 40)
    for root in (tmp_path / "a", tmp_path / "b"):
        SMALL[name][1](root)
    digests = [
        {p.relative_to(r).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest() for p in r.rglob("*") if p.is_file()}
        for r in (tmp_path / "a", tmp_path / "b")
    ]
    assert digests[0] == digests[1]


@pytest.mark.parametrize("name", ["cifar100", "cub200", "ilsvrc2012"])
def test_only_test_images_use_the_scans_kept_for_testing(name, tmp_path, monkeypatch):
    def shade(text, size, test, key):
        return np.full((size, size, 3), 200 if test else 50, np.uint8)

    monkeypatch.setattr(mini, "numbered", shade)
    module, draw = SMALL[name]
    monkeypatch.setattr(module, "NUM_CLASSES", 100)
    draw(tmp_path / "root")
    for split, expected in zip(module.NUM_IMAGES, (50, 200), strict=True):
        images = module.load(tmp_path / "root", split)
        if not isinstance(images.images, np.ndarray):
            images = data.ImageSet(
                images.classes, images.ids, np.stack([loading.read_warped(p, 2) for p in images.images]), images.targets
            )
        assert (images.images == expected).all()


def test_drawn_numbers_are_golden():
    """What is drawn is part of what a mini job's id stands for: raise mini.VERSION when this changes."""
    sums = [int(mini.numbered(*case).sum()) for case in (
        ("07", 32, False, [11, False, 7]), ("255", 80, False, [20, 255, 0]), ("999", 64, True, [42, 0]),
        ("", 80, False, [20, 256, 0]),
    )]  # fmt: skip
    assert sums == GOLDEN_SUMS


GOLDEN_SUMS = [572895, 3242516, 632319, 1244007]


def test_a_number_survives_a_crop_by_an_eighth(monkeypatch):
    """An eighth of the picture taken off one side takes at most an eighth of the number's width with it."""
    boxes = []
    monkeypatch.setattr(mini, "write_number", lambda canvas, text, box, *_: boxes.append((len(text), *box)))
    for size, text in ((32, "42"), (64, "420"), (80, "420")):
        boxes.clear()
        for i in range(200):
            mini.numbered(text, size, False, [99, i])
        for n, x, y, height in boxes:
            width = height * 6 * n // 8
            assert min(x, y, size - x - width, size - y - height) >= size / 8 - width / 8


def test_verification_is_remembered_until_something_changes(tmp_path, monkeypatch):
    root, cache = tmp_path / "root", tmp_path / "cache"
    mini.draw_cub(root, {"train": 1, "test": 1})
    calls = []
    dataset = data.Dataset(
        load=cub.load, verify=lambda r: calls.append(r) or cub.verify(r, {"train": 200, "test": 200}), num_classes=200,
        num_images={"train": 200, "test": 200}, evidence=data.CUB_FILES, draw=mini.draw_cub,
    )  # fmt: skip
    monkeypatch.setitem(DATASETS, "cub200-mini", dataset)
    assert data.state("cub200-mini", root, cache) == "not verified"
    assert [data.verified("cub200-mini", root, cache) for _ in range(3)] == [""] * 3
    assert len(calls) == 1
    assert data.state("cub200-mini", root, cache) == "verified"
    next((root / cub.FOLDER / "images" / "017.Number_016").iterdir()).unlink()
    for _ in range(2):  # what is not whole is looked at again each time
        assert "missing" in data.verified("cub200-mini", root, cache)
    assert len(calls) == 3


def test_an_archive_with_a_wrong_checksum_is_not_official(tmp_path):
    (tmp_path / "CUB_200_2011.tgz").write_bytes(b"x")
    problem = data.sources.wrong_checksum(DATASETS["cub200"].source, tmp_path)
    assert "CUB_200_2011.tgz has MD5 9dd4e461268c8034f5c8564e155c67a6, the official one is 97eceeb" in problem


def test_an_archive_at_hand_is_unpacked_without_a_network(tmp_path, monkeypatch):
    import tarfile

    mini.draw_cub(tmp_path / "drawn", {"train": 1, "test": 1})
    root = tmp_path / "root"
    root.mkdir()
    with tarfile.open(root / "CUB_200_2011.tgz", "w:gz") as tar:
        tar.add(tmp_path / "drawn" / cub.FOLDER, cub.FOLDER)
    source = DATASETS["cub200"].source
    with pytest.raises(UserError, match="remove it and call again"):
        data.sources.fetch("cub200", source, root)
    monkeypatch.setattr(data.sources, "md5_of", lambda _: source.archives[0].md5)
    data.sources.fetch("cub200", source, root)
    assert len(cub.load(root, "train").ids) == 200


def test_the_data_side_loads_neither_torch_nor_what_only_drawing_needs():
    code = "import sys, benchmark.data, benchmark.cli; print({'torch', 'sklearn', 'scipy'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
