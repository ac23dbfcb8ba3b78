"""Shared by the tests: small jobs, small networks, a drawn data set that is made once."""

import shutil
from pathlib import Path

import pytest

from benchmark import data
from benchmark.data import voc
from benchmark.matrix import grid
from benchmark.matrix.job import Job

MAIN = Path("VOCdevkit/VOC2012/ImageSets/Main")


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="session")
def mini_voc(cache: Path) -> Path:
    """Root of the drawn VOC."""
    return data.locate("voc2012-mini", None, cache)


@pytest.fixture(scope="session")
def tiny_voc(mini_voc, tmp_path_factory) -> Path:
    """The first 20 train and 10 val scenes: what a test breaks is copied many times."""
    root = tmp_path_factory.mktemp("tiny")
    (root / MAIN).mkdir(parents=True)
    (root / MAIN.parents[1] / "JPEGImages").mkdir()
    kept = {}
    for split, count in (("train", 20), ("val", 10)):
        kept[split] = (mini_voc / MAIN / f"{split}.txt").read_text().split()[:count]
    kept["trainval"] = kept["train"] + kept["val"]
    for split, ids in kept.items():
        for path in (mini_voc / MAIN).glob(f"*{split}.txt"):
            if path.name == f"{split}.txt" or path.name.removesuffix(f"_{split}.txt") in voc.CLASSES:
                lines = [line for line in path.read_text().splitlines() if line.split()[0] in ids]
                (root / MAIN / path.name).write_text("\n".join(lines) + "\n")
    for image_id in kept["trainval"]:
        image = MAIN.parents[1] / "JPEGImages" / f"{image_id}.jpg"
        shutil.copy(mini_voc / image, root / image)
    return root


@pytest.fixture
def make_job():
    """make_job("icasc-a_ch", sigma=0.25): a mini job, one of its fields changed."""

    def make(method: str = "baseline", seed: int = 0, **changes) -> Job:
        jobs = grid.load("voc").jobs("mini", changes, {"method": [method], "seed": [seed]})
        return jobs[0]

    return make
