"""Shared by the tests: small jobs, data sets that are drawn once, networks that are made once, commands called here."""

import copy
import dataclasses
import os
import shutil
import signal
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest

from benchmark import __main__, data
from benchmark.data import mini
from benchmark.matrix import grid
from benchmark.matrix.job import Job
from benchmark.results import resampling
from benchmark.store import verify

MAIN = Path("VOCdevkit/VOC2012/ImageSets/Main")
RESAMPLED = Path(__file__).parents[1] / ".cache" / "tests" / "bootstrap"
NUM_TINY = {"train": 20, "val": 10}


def _of_all_workers(name: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of the session, the same in each of pytest-xdist's processes."""
    if "PYTEST_XDIST_WORKER" not in os.environ:
        return tmp_path_factory.mktemp(name)
    folder = tmp_path_factory.getbasetemp().parent / name
    folder.mkdir(exist_ok=True)
    return folder


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Drawing, unpacking and decoding into it are safe against two callers."""
    return _of_all_workers("cache", tmp_path_factory)


@pytest.fixture(scope="session")
def small_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache in which VOC and CIFAR-100 are drawn smaller, for tests that train and do not ask how well."""
    folder = _of_all_workers("small-cache", tmp_path_factory)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mini, "NUM_SCENES", {"train": 64, "val": 40})
        mini.drawn("voc2012-mini", mini.draw_voc, folder)
    mini.drawn("cifar100-mini", partial(mini.draw_cifar, num_images={"train": 1, "test": 1}), folder)
    return folder


@pytest.fixture(scope="session", autouse=True)
def a_run_is_resampled_once():
    """What would be kept in the folder at hand, which is a new one for each test, is kept for all of them, and for the
    next session: a key holds all that its samples depend on, the code that draws them included."""
    folder, cached = RESAMPLED, resampling.cached

    def kept(asked: Path | None, *arguments):
        return cached(folder if asked == resampling.CACHE else asked, *arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(resampling, "cached", kept)
        yield


@pytest.fixture
def few_images(monkeypatch) -> Callable[[int], None]:
    """few_images(40): in this process each split holds so many of its images, taken evenly."""

    def cut(load: Callable[..., data.ImageSet], num: int, *arguments, **options) -> data.ImageSet:
        whole = load(*arguments, **options)
        kept = range(0, len(whole.ids), max(1, len(whole.ids) // num))[:num]
        images = whole.images[list(kept)] if hasattr(whole.images, "shape") else tuple(whole.images[i] for i in kept)
        ids = tuple(whole.ids[i] for i in kept)
        return dataclasses.replace(whole, ids=ids, images=images, targets=whole.targets[list(kept)])

    def set_up(num: int) -> None:
        monkeypatch.setattr(data, "DIGESTS", f"digests of {num}")
        for name, dataset in data.DATASETS.items():
            monkeypatch.setitem(data.DATASETS, name, dataclasses.replace(dataset, load=partial(cut, dataset.load, num)))

    return set_up


@pytest.fixture
def call(monkeypatch, capsys) -> Callable[..., SimpleNamespace]:
    """call(folder, "plan", ...): `python -m benchmark plan ...` as typed in `folder`, but in this process, which has
    imported everything already; its returncode, stdout and stderr."""

    def called(folder: Path, *arguments: str) -> SimpleNamespace:
        handler = signal.getsignal(signal.SIGTERM)
        with monkeypatch.context() as patch:
            patch.chdir(folder)
            patch.setenv("CUDA_VISIBLE_DEVICES", "")
            patch.setattr("sys.argv", ["benchmark", *map(str, arguments)])
            capsys.readouterr()
            try:
                with pytest.raises(SystemExit) as ended:
                    __main__.main()
            finally:
                signal.signal(signal.SIGTERM, handler)
        printed = capsys.readouterr()
        return SimpleNamespace(returncode=ended.value.code or 0, stdout=printed.out, stderr=printed.err)

    return called


@pytest.fixture(scope="session", autouse=True)
def narrow_vgg_is_made_once():
    """torchvision draws the 124 million numbers of VGG's own head before the narrow one takes its place: a second each
    time. What is copied instead is the same network, and torch's generator stands where making it leaves it."""
    if "torch" not in sys.modules:  # nothing that was collected makes a network
        yield
        return
    import torch

    from benchmark.methods import models

    made, build = {}, models.build

    def build_or_copy(backbone: str, num_classes: int, seed: int, inner_layer: str | None = None):
        if backbone != "vgg11_narrow" or torch.get_default_device().type == "meta":
            return build(backbone, num_classes, seed, inner_layer)
        key = num_classes, seed, inner_layer
        if key not in made:
            made[key] = build(backbone, *key), torch.get_rng_state()
        network, generator = made[key]
        torch.set_rng_state(generator)
        return copy.deepcopy(network)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(models, "build", build_or_copy)
        yield


@pytest.fixture
def planted_numbers(monkeypatch):
    """For tests that plant a record's numbers and its scores apart: they are read as if these gave those."""
    monkeypatch.setattr(verify, "_compare", lambda *_: None)
    for reader in (verify.opened, verify.checked):
        monkeypatch.setattr(reader, "__defaults__", (None,))


@pytest.fixture(scope="session")
def mini_voc(cache: Path) -> Path:
    """Root of the drawn VOC."""
    return data.locate("voc2012-mini", None, cache)


@pytest.fixture(scope="session")
def tiny_voc(tmp_path_factory) -> Path:
    """The drawn VOC's first scenes alone: what a test breaks is copied many times."""
    root = tmp_path_factory.mktemp("tiny")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mini, "NUM_SCENES", NUM_TINY)
        mini.draw_voc(root)
    return root


@pytest.fixture
def own_lists(tiny_voc, tmp_path) -> Path:
    """A copy to break, whose splits are somebody's own lists, present_train and present_val, and whole as they are."""
    root = Path(shutil.copytree(tiny_voc, tmp_path / "data"))
    for split in ("train", "val"):
        (root / MAIN / f"{split}.txt").rename(root / MAIN / f"present_{split}.txt")
    return root


@pytest.fixture
def make_job():
    """make_job("icasc-a_ch", sigma=0.25): a mini job, one of its fields changed."""

    def make(method: str = "baseline", seed: int = 0, **changes) -> Job:
        return grid.load("voc").jobs("mini", changes | {"method": method}, {"seed": [seed]})[0]

    return make
