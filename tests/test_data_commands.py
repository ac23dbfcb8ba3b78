"""`python -m benchmark data ...` as a person calls it."""

import dataclasses
import json
import re
from pathlib import Path

import pytest

from benchmark.data import DATASETS, cub, mini, voc


@pytest.fixture
def data(call, tmp_path):
    return lambda *arguments, cache=tmp_path / "cache": call(
        Path(__file__).parents[1], "data", *arguments, "--cache", cache
    )


def test_list_says_how_to_get_what_is_not_there(data, tmp_path):
    text = data("list").stdout
    for name, dataset in DATASETS.items():
        assert name in text
        if dataset.source:
            assert dataset.source.address in text
    rows = {row["name"]: row for row in json.loads(data("list", "--json", "--data-root", tmp_path).stdout)}
    assert list(rows) == list(DATASETS)
    assert {row["state"] for row in rows.values()} == {"absent"}
    assert rows["cub200"]["command"] == f"python -m benchmark data get cub200 --data-root {tmp_path}"
    assert rows["cub200-mini"]["command"] == "python -m benchmark data draw cub200-mini"
    assert not (tmp_path / "cache").exists()


def test_draw_then_verify_then_list(data, cache):
    done = data("draw", "cifar100-mini", cache=cache)
    assert done.returncode == 0, done.stderr
    done = data("verify", "cifar100-mini", "--json", cache=cache)
    found = json.loads(done.stdout)
    assert (done.returncode, found["complete"]) == (0, True)
    assert found["splits"]["test"] == {"images": 500, "official": 500, "classes": 100}
    assert (found["sample"]["images"], found["sample"]["lowest"] < 50 < found["sample"]["highest"]) == (100, True)
    rows = {row["name"]: row for row in json.loads(data("list", "--json", cache=cache).stdout)}
    assert (rows["cifar100-mini"]["state"], rows["cifar100-mini"]["command"]) == ("verified", None)


def test_not_complete_is_exit_status_1(data, tmp_path):
    done = data("verify", "voc2012", "--data-root", tmp_path)
    assert done.returncode == 1
    assert "not complete" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["verify", "cifar10"], "did you mean 'cifar100'"),
        (["verify", "cifar100"], "--data-root DIR"),
        (["verify", "cifar100", "--data-root", "no/such/folder"], "no such folder"),
        (["list", "--data-root", "no/such/folder"], "no such folder"),
        (["get", "cifar100", "--data-root", "README.md"], "README.md: not a folder"),
        (["draw", "cifar100"], "did you mean 'cifar100-mini'"),
        (["get", "cub200-mini"], "'data draw cub200-mini'"),
        (["get", "cub200"], "--data-root DIR"),
        (["get", "ilsvrc2012", "--data-root", "."], "needs an account at image-net.org"),
    ],
)
def test_what_a_user_does_wrong_is_exit_status_2(data, arguments, message):
    done = data(*arguments)
    assert done.returncode == 2
    assert message in done.stderr
    assert done.stderr.count("\n") == 1


def test_list_recommends_nothing_that_will_refuse(data, tmp_path):
    """Each command that it prints does something, or says what is missing; only a network may be lacking."""
    rows = {row["name"]: row for row in json.loads(data("list", "--json", "--data-root", tmp_path).stdout)}
    assert rows["ilsvrc2012"]["command"] == f"python -m benchmark data verify ilsvrc2012 --data-root {tmp_path}"
    for row in rows.values():
        assert row["command"].split()[4] in {True: ("get",), False: ("verify",), None: ("draw",)}[row["unattended"]]


def test_verify_decodes_every_image_when_asked(data, tmp_path):
    """CUB's lists and 20 of its images; one is cut short, as by a full disk, and its header is whole."""
    mini.draw_cub(tmp_path / "root", {"train": 2, "test": 1})
    images = sorted((tmp_path / "root" / cub.FOLDER / "images").glob("*/*.jpg"))
    for path in images[20:]:
        path.unlink()
    broken = images[7]
    broken.write_bytes(broken.read_bytes()[:-200])
    command = ["verify", "cub200", "--data-root", tmp_path / "root"]
    assert "cannot be decoded" not in data(*command).stdout
    done = data(*command, "--decode")
    assert done.returncode == 1
    assert "decoding 20 images" in done.stderr
    assert f"{broken}: cannot be decoded as an image" in done.stdout
    assert "1 images cannot be decoded" in done.stdout
    (line,) = json.loads(data(*command, "--decode", "--json").stdout)["undecodable"]
    assert str(broken) in line


def test_verify_counts_what_is_there_of_each_split_and_of_the_parts_by_rule(data, tiny_voc):
    text = data("verify", "voc2012", "--data-root", tiny_voc).stdout
    assert "voc2012 under" in text
    assert re.search(r"^train: 20 of 5,717 images, which show \d+ classes$", text, re.MULTILINE)
    assert re.search(r"^train_2008: \d+ of 2,111 images", text, re.MULTILINE)
    assert re.search(r"^a sample of \d+ images, as 8-bit RGB: mean \d+\.\d, from \d+ to \d+$", text, re.MULTILINE)


def test_a_part_by_rule_that_is_not_the_official_one_is_not_complete(data, tiny_voc, monkeypatch):
    few = {"train": 20, "val": 10}
    whole = dataclasses.replace(
        DATASETS["voc2012"], num_images=few, verify=lambda root: voc.verify(root, few), parts={"train_2008": 7}
    )
    monkeypatch.setitem(DATASETS, "voc2012", whole)
    done = data("verify", "voc2012", "--data-root", tiny_voc)
    assert done.returncode == 1
    assert "not complete: of train_2008 there are not the official 7 images" in done.stdout


@pytest.mark.parametrize(("name", "count"), [("caltech256-mini", 256 * 12), ("cifar100-mini", 0)])
def test_verify_decodes_what_is_whole(name, count, data, cache):
    done = data("verify", name, "--decode", cache=cache)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"decoding {count:,} images" in done.stderr
    assert "0 images cannot be decoded" in done.stdout
