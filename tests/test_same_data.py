"""A record whose data are not the ones at hand: told by what looks, refused by what trains."""

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from benchmark import cli, data
from benchmark.errors import UserError
from benchmark.matrix import grid
from benchmark.matrix.matrix import Matrix
from benchmark.results import same_data
from benchmark.store import scores
from benchmark.store.run import submit
from benchmark.tables import published
from tests.conftest import MAIN


@pytest.fixture
def two_folders(tiny_voc, tmp_path, monkeypatch):
    """The same data set twice, one image of whose test split has another label; and a finished run of the first."""
    first, second = tmp_path / "first", tmp_path / "second"
    for root in (first, second):
        shutil.copytree(tiny_voc, root)
    path = second / MAIN / "dog_val.txt"
    lines = path.read_text().splitlines()
    name, label = lines[0].split()
    path.write_text("\n".join([f"{name} {-int(label) or 1}", *lines[1:]]) + "\n")
    matrix = Matrix(grid.load("voc"), "paper", runs=tmp_path / "runs")
    sets = {split: data.find("voc2012").load(first, name) for split, name in (("train", "train"), ("test", "val"))}
    digests = {
        split: {"num_images": len(of.ids), "sha256": scores.digest(np.array(of.ids), of.targets)}
        for split, of in sets.items()
    }
    ap = dict.fromkeys(sets["test"].classes, 0.5)
    for job in matrix.jobs[:2]:
        record = {"job": job.id, "ap": {"area": ap}, "mAP": {"area": 0.5}, "data": digests}
        submit(matrix.runs, job).path("result.json").write_text(json.dumps(record))
    return matrix, first, second


def files(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*")}


def test_only_the_other_folder_makes_a_record_stale(two_folders, tmp_path):
    matrix, first, second = two_folders
    before = files(matrix.runs)
    assert same_data.others(matrix.jobs, matrix.runs, first, tmp_path / "cache") == {}
    found = same_data.others(matrix.jobs, matrix.runs, second, tmp_path / "cache")
    assert found == {job.id: ["test"] for job in matrix.jobs[:2]}
    assert same_data.others(matrix.jobs, matrix.runs, None, tmp_path / "cache") == {}
    assert files(matrix.runs) == before


def test_digests_are_kept_until_the_files_change(two_folders, tmp_path, monkeypatch):
    _, first, _ = two_folders
    cache = tmp_path / "cache"
    known = data.digest("voc2012", "val", 0, first, cache)
    with monkeypatch.context() as patch:
        patch.setattr(data, "DATASETS", {"voc2012": dataclasses.replace(data.find("voc2012"), load=None)})
        assert data.digest("voc2012", "val", 0, first, cache) == known
    path = first / MAIN / "val.txt"
    path.write_text("\n".join(path.read_text().split()[:-1]) + "\n")
    assert data.digest("voc2012", "val", 0, first, cache) != known


def test_commands_say_it_and_run_refuses(two_folders, call, tmp_path):
    matrix, first, second = two_folders
    words = ("--runs", str(matrix.runs), "--cache", str(tmp_path / "cache"))
    here = published.BUILT_IN
    for root, said in ((first, False), (second, True)):
        plan = call(
            tmp_path, "plan", "--grid", "voc", "--scale", "paper", "--data-root", root, "--tables", here, *words
        )
        assert ("done, of other data" in plan.stdout) == said
        status = call(tmp_path, "status", "--data-root", root, *words)
        assert ("done, of other data" in status.stdout) == said
    (tmp_path / "made").mkdir()
    shutil.copy(here / "voc.yaml", tmp_path / "made")
    shutil.copy(here / "table2.yaml", tmp_path / "made")
    made = ("tables", "--scale", "paper", "--table", "table2", "--tables", tmp_path / "made", *words)
    printed = call(tmp_path, *made, "--data-root", second).stdout
    assert "data: 2 runs are of other test images than lie here" in printed
    assert "other test images" not in call(tmp_path, *made, "--data-root", first, "--replace").stdout
    with pytest.raises(UserError, match=r"2 runs are of other test images than lie here.*or other --runs"):
        cli.run.refuse_other_data(matrix, second, tmp_path / "cache")
    cli.run.refuse_other_data(matrix, first, tmp_path / "cache")
