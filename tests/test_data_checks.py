"""Splits of official sets that share images: refused before anything trains, and told where they are allowed."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from benchmark import data
from benchmark.data import checks, cifar
from benchmark.errors import UserError
from benchmark.matrix import grid
from benchmark.matrix.job import Job

PACK = Path(__file__).parents[2] / "shared" / "data" / "unpack_cifar100.py"


def stored(seed: int, count: int, start: str) -> data.ImageSet:
    pixels = np.random.default_rng(seed).integers(0, 256, (count, 4, 4, 3), dtype=np.uint8)
    ids = tuple(f"{start}_{i}" for i in range(count))
    return data.ImageSet(("a", "b"), ids, pixels, np.arange(count) % 2)


def test_stored_pixels_are_compared_but_for_the_twins_of_the_official_files():
    train, test = stored(0, 9, "train"), stored(1, 5, "test")
    sets = [("train", train), ("test", test)]
    assert checks.overlap(sets) == ""
    test.images[3:] = train.images[[8, 2]]
    assert checks.overlap(sets, known=2) == ""
    assert checks.overlap(sets, content=False) == ""
    said = "2 of 5 images of test are also in train, such as test_3, whose content is that of train_8"
    assert checks.overlap(sets, known=1) == said
    named = dataclasses.replace(test, ids=("train_4", *test.ids[1:]))
    said = "1 of 5 images of test are also in train, such as train_4"
    assert checks.overlap([("train", train), ("test", named)], known=9) == said


@pytest.mark.parametrize(
    ("grid_name", "fields", "said"),
    [
        ("voc", {"train_split": "trainval"}, "images of val are also in trainval, such as "),
        ("voc", {"test_split": "train"}, "images of train are also in train, such as "),
        ("cifar100", {"test_split": "train"}, "images of train are also in train, such as train_0"),
    ],
)
def test_a_grid_that_is_set_to_train_on_its_test_is_refused(grid_name, fields, said, call, tmp_path, small_cache):
    sets = [text for name, value in fields.items() for text in ("--set", f"{name}={value}")]
    few = "--set", "limit_train=20", "--set", "limit_test=20"
    asked = "--grid", grid_name, "--scale", "mini", *sets, *few, "--cache", small_cache
    ran = call(tmp_path, "run", *asked)
    assert (ran.returncode, said in ran.stderr, ran.stderr.count("\n")) == (2, True, 1), ran.stderr
    assert "take splits that share no image, or let it run with --allow-overlap" in ran.stderr
    assert not list(tmp_path.glob("runs/*/*"))
    allowed = call(tmp_path, "plan", *asked, "--allow-overlap", "--json")
    assert allowed.returncode == 0, allowed.stderr
    assert said in allowed.stderr
    assert all(job["overlap"] for job in json.loads(allowed.stdout))
    job = Job(**{name: json.loads(allowed.stdout)[0][name] for name in Job.model_fields})
    root = data.locate(job.dataset, None, small_cache)
    data.read(job, root)
    with pytest.raises(UserError, match=said):
        data.read(job.model_copy(update={"overlap": False}), root)


def test_a_job_that_overlaps_has_an_id_of_its_own_and_is_a_departure():
    chosen = grid.load("voc")
    plain, allowed = (chosen.jobs("paper", {"overlap": overlap})[0] for overlap in (False, True))
    assert plain.id != allowed.id
    assert "overlap" not in plain.canonical_json()
    assert chosen.deviations(plain) == []
    assert chosen.deviations(allowed) == ["overlap: True (paper: False)"]


def test_no_built_in_grid_trains_on_its_test():
    """By name alone, without data: a split of no grid is another's own or a part of it."""
    parts = {"trainval": {"train", "val"}, "train": {"train_45k", "validation_5k"}}
    for name in grid.names():
        for scale in grid.load(name).scales:
            for job in grid.load(name).jobs(scale):
                pair = job.train_split, job.test_split
                assert pair[0] != pair[1]
                assert not any(pair[1 - i] in parts.get(pair[i], ()) for i in (0, 1))


@pytest.mark.skipif(not PACK.is_file(), reason="the real CIFAR-100 is not at hand")
def test_the_official_files_of_cifar_share_as_many_pictures_as_is_said(tmp_path):
    import subprocess
    import sys

    subprocess.run([sys.executable, str(PACK), str(tmp_path)], check=True, stdout=subprocess.DEVNULL)
    train, test = (cifar.load(tmp_path, split) for split in ("train", "test"))
    known = f"{cifar.NUM_TWINS} of 10,000 images of test are also in train, such as test_01100"
    assert checks.overlap([("train", train), ("test", test)]).startswith(known)
    assert data.overlap("cifar100", ["train", "test"], [train, test]) == ""
    part, validation = (cifar.load(tmp_path, split) for split in cifar.PARTS)
    assert checks.overlap([("a", part), ("b", validation)]).startswith("4 of 5,000 images")
    assert data.overlap("cifar100", list(cifar.PARTS), [part, validation]) == ""
    assert "5,000 of 5,000" in data.overlap("cifar100", ["train", "validation_5k"], [train, validation])
