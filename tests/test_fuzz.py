"""Damaged input of every kind, drawn from a seed: a valid result or a UserError of one line, never anything else.

FUZZ=100 feeds a hundred times as much as the default.
"""

import contextlib
import copy
import io
import json
import os
import random
import shutil
import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmark.data import caltech, cifar, cub, imagenet, loading, mini, voc
from benchmark.errors import UserError
from benchmark.executors import view
from benchmark.matrix import grid, strict_yaml
from benchmark.results.results import items
from benchmark.store import run as run_module
from benchmark.store import scores
from benchmark.store.files import write_json
from benchmark.store.run import Run
from benchmark.tables import published
from tests.conftest import MAIN

TIMES = int(os.environ.get("FUZZ", "1"))
SECONDS = 20  # for one input: much more than any takes, so that only a hang is caught
ROOT = Path(__file__).parents[1]
TOKENS = (
    b"null", b"true", b"-1", b"0", b"1e999", b"NaN", b"Infinity", b"99999999999999999999", b"[]", b"{}", b"[[]]",
    b'""', b"*a", b"&a ", b"!!python/object:os.system ", b"<<: ", b"? ", b"- ", b": ", b"\t", b"\x00", b"\xff\xfe",
    b"\n", b"\r", b"\xed\xa0\x80", "\u0663".encode(), "\u2028".encode(), b"..", b"/", b"../../etc/passwd", b"~",
    b"2026-01-01", b"0x10", b"1_0",
)  # fmt: skip


def mutate(content: bytes, rng: random.Random) -> bytes:
    """One to four changes: bytes flipped, cut, repeated, moved, or replaced by what parsers stumble over."""
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        content = rng.choice((_span_changed, _span_changed, _span_changed, _line_changed, _word_changed))(content, rng)
    return content


def _span_changed(content: bytes, rng: random.Random) -> bytes:
    at, length = rng.randrange(len(content) + 1), rng.choice((1, 1, 2, 8, 64, 1000))
    before, part, after = content[:at], content[at : at + length], content[at + length :]
    noise = bytes(rng.randrange(256) for _ in part)
    token = rng.choice(TOKENS)
    inserted, repeated = before + token + part + after, before + part * 50 + after
    return rng.choice((before + noise + after, before + token + after, before + after, before, inserted, repeated))


def _line_changed(content: bytes, rng: random.Random) -> bytes:
    lines = content.split(b"\n")
    i, j = rng.randrange(len(lines)), rng.randrange(len(lines))
    lines[i : i + 1] = rng.choice(([], [lines[i]] * 2, [lines[j]], [lines[i].lstrip()], [b"  " + lines[i]]))
    return b"\n".join(lines)


def _word_changed(content: bytes, rng: random.Random) -> bytes:
    words = content.split(b" ")
    words[rng.randrange(len(words))] = rng.choice((*TOKENS, rng.choice(words)))
    return b" ".join(words)


class Hang(BaseException):
    """Not an Exception, so that no reader can take it for a broken file."""


def feed(
    read: Callable[[], object], path: Path, content: bytes, rounds: int, name: str, times: int = TIMES
) -> tuple[int, int]:
    """Mutations of `content` under `path`, each read: how many were valid, and how many were refused."""
    rng, valid, refused = random.Random(name), 0, 0

    def alarm(*_):
        raise Hang

    before = signal.signal(signal.SIGALRM, alarm)
    try:
        for number in range(rounds * times):
            mutated = mutate(content, rng)
            path.write_bytes(mutated)
            signal.alarm(SECONDS)
            try:
                read()
                valid += 1
            except UserError as error:
                refused += bool(str(error))
            except (Exception, Hang) as error:
                kept = Path(os.environ.get("FUZZ_KEEP", path.parent)) / f"fuzz-{name.replace('/', '-')}-{number}"
                kept.write_bytes(mutated)
                pytest.fail(f"{name} {number}: {type(error).__name__}: {error}; input kept as {kept}")
            finally:
                signal.alarm(0)
    finally:
        signal.signal(signal.SIGALRM, before)
        path.write_bytes(content)
    print(f"{name}: {valid} valid, {refused} refused")
    return valid, refused


# YAML


@pytest.mark.parametrize("name", grid.names())
def test_grids(name, tmp_path):
    content = (grid.GRIDS / f"{name}.yaml").read_bytes()

    def read():
        loaded = grid.load(name, tmp_path)
        return [job.id for scale in loaded.scales for job in loaded.jobs(scale)]

    assert feed(read, tmp_path / f"{name}.yaml", content, 6, f"grid/{name}")[1]


@pytest.mark.parametrize("name", published.names(published.BUILT_IN))
def test_tables(name, tmp_path):
    content = (published.BUILT_IN / f"{name}.yaml").read_bytes()
    feed(
        lambda: published.cells(published.load(name, tmp_path)), tmp_path / f"{name}.yaml", content, 6, f"table/{name}"
    )


def test_values_of_the_command_line():
    rng = random.Random(0)
    for _ in range(300 * TIMES):
        text = mutate(b"[0, 1, 2, {a: b}, 5e-4, no]", rng).decode("utf-8", "surrogateescape")
        with contextlib.suppress(UserError):
            strict_yaml.scalar(text)


# Records


@pytest.fixture
def run(tmp_path) -> Run:
    """A finished run with every record that there can be."""
    job = grid.load("voc").jobs("mini", {"seed": 0})[0]
    run = run_module.submit(tmp_path / "runs", job)
    classes = [f"c{k}" for k in range(3)]
    share = dict.fromkeys(classes, 0.5)
    run.write_metrics([{"epoch": k + 1, "train": {"loss": 1.0}, "test_mAP": 0.5, "seconds": 1.0} for k in range(3)])
    write_json(run.path("progress.json"), {"epoch": 1, "epochs": 3, "done": 0.5})
    buffer = io.BytesIO()
    np.savez_compressed(
        buffer, ids=np.array(["a", "b"]), labels=np.array([[1, -1, 0]] * 2, np.int8), scores=np.ones((2, 3), np.float32)
    )
    run.path("scores.npz").write_bytes(buffer.getvalue())
    record = {"ap": dict.fromkeys(grid.EVALUATION["ap_definition"], share)}
    record["mAP"] = dict.fromkeys(record["ap"], 0.5)
    write_json(run.path("result.json"), {"job": run.id, "epoch": 3, "seconds": 3.0, **record})
    return run


def _look(run: Run) -> None:
    """What status, tables, plan and a scheduler do with a run."""
    view._progress(run, view._state(run))
    run.job()
    run.state()
    run.metrics()
    run.failure()
    if (record := run.result()) is not None:
        items(record, "area")


@pytest.mark.parametrize("name", ["job.json", "result.json", "metrics.jsonl", "progress.json"])
def test_records(name, run):
    feed(lambda: _look(run), run.path(name), run.path(name).read_bytes(), 80, f"record/{name}")


@pytest.mark.parametrize("name", ["failure.json", "claim.json"])
def test_records_of_unfinished_runs(name, run):
    run.path("result.json").unlink()
    record = {"kind": "crash", "error": "x", "traceback": "y", "last_good_epoch": {"epoch": 1}}
    if name == "claim.json":
        with run.claim():
            record = json.loads(run.path("claim.json").read_bytes())
    write_json(run.path(name), record)
    feed(lambda: _look(run), run.path(name), run.path(name).read_bytes(), 80, f"record/{name}")


def test_scores(run):
    """Without the digest in result.json, which refuses every change, the reader itself has to."""
    valid, refused = feed(
        lambda: scores.read(run),
        run.path("scores.npz"),
        run.path("scores.npz").read_bytes(),
        150,
        "record/scores",
    )
    assert refused > valid


# Label files


def _feed_labels(load: Callable[[], object], paths: list[Path], rounds: int, name: str) -> None:
    refused = sum(feed(load, path, path.read_bytes(), rounds, f"{name}/{path.name}")[1] for path in paths)
    assert refused


def test_voc_splits_and_labels(tiny_voc, tmp_path):
    root = Path(shutil.copytree(tiny_voc, tmp_path / "voc"))
    paths = [root / MAIN / name for name in ("train.txt", "trainval.txt", "cat_train.txt", "cow_train.txt")]
    _feed_labels(lambda: voc.load(root, "train"), paths, 30, "voc")


def test_cub_text_files(tmp_path):
    root, folder = tmp_path, tmp_path / cub.FOLDER
    lines = {"images.txt": [], "image_class_labels.txt": [], "train_test_split.txt": [], "classes.txt": []}
    for k in range(6):
        name = f"{k // 2 + 1:03d}.Bird_{k // 2}/{k}.jpg"
        path = folder / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        lines["images.txt"].append(f"{k + 1} {name}")
        lines["image_class_labels.txt"].append(f"{k + 1} {k // 2 + 1}")
        lines["train_test_split.txt"].append(f"{k + 1} {k % 2}")
    lines["classes.txt"] = [f"{k + 1} {k + 1:03d}.Bird_{k}" for k in range(3)]
    for name, text in lines.items():
        (folder / name).write_text("\n".join(text) + "\n")
    assert len(cub.load(root, "train").ids) == 3
    _feed_labels(lambda: cub.load(root, "train"), [folder / name for name in lines], 40, "cub")


def test_cifar_pickles(tmp_path):
    folder = tmp_path / cifar.FOLDER
    folder.mkdir()
    rng = np.random.default_rng(0)
    batch = {"data": rng.integers(0, 256, (3, 3072), np.uint8), "fine_labels": [1, 2, 3]}
    (folder / "train").write_bytes(mini._python2_pickle(batch))
    (folder / "meta").write_bytes(mini._python2_pickle({"fine_label_names": [f"c{k}" for k in range(100)]}))
    assert len(cifar.load(tmp_path, "train").ids) == 3
    _feed_labels(lambda: cifar.load(tmp_path, "train"), [folder / "train", folder / "meta"], 100, "cifar")


def test_imagenet_s_devkit(tmp_path):
    from scipy.io import savemat

    wnids = ["n00000001", "n00000002", "n00000003"]
    for number, wnid in enumerate(wnids, start=1):
        for name in (f"train/{wnid}/{wnid}_1.JPEG", f"val/ILSVRC2012_val_{number:08d}.JPEG"):
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).touch()
    devkit = tmp_path / imagenet.DEVKIT / "data"
    devkit.mkdir(parents=True)
    synsets = np.array(
        [(k + 1, w, 0) for k, w in enumerate(wnids)],
        dtype=[("ILSVRC2012_ID", object), ("WNID", object), ("num_children", object)],
    )
    savemat(devkit / "meta.mat", {"synsets": synsets})
    (devkit / imagenet.GROUND_TRUTH).write_text("1\n3\n2\n")
    assert imagenet.load(tmp_path, "val").targets.tolist() == [0, 1, 2]

    _feed_labels(lambda: imagenet.load(tmp_path, "val"), [devkit / imagenet.GROUND_TRUTH], 80, "devkit")

    def load():
        imagenet._read_meta.cache_clear()
        return imagenet.load(tmp_path, "val")

    meta = devkit / "meta.mat"
    assert feed(load, meta, meta.read_bytes(), 12, "devkit/meta.mat")[1]  # each is read in a process of its own


def test_caltech_s_folders(tmp_path):
    """Names instead of a label file."""
    rng = random.Random(0)
    folder = tmp_path / caltech.FOLDER
    for k in range(1, 258):
        (folder / f"{k:03d}.c").mkdir(parents=True)
        for i in range(3):
            (folder / f"{k:03d}.c" / f"{k:03d}_{i:04d}.jpg").touch()
    for _ in range(40 * TIMES):
        victim = rng.choice(sorted(folder.iterdir()))
        name = mutate(victim.name.encode(), rng).replace(b"/", b"").replace(b"\0", b"")[:200]
        renamed = folder / os.fsdecode(name if name not in (b"", b".", b"..") else b"x")
        if renamed.exists():
            continue
        victim.rename(renamed)
        with contextlib.suppress(UserError):
            caltech.load(tmp_path, "train1", 0, num_test=1)
        renamed.rename(victim)


# Pictures


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP"])
@pytest.mark.parametrize("resize", ["warp", "random_resized_crop"])
def test_pictures(kind, resize, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (40, 30, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, **({"exif": Image.Exif()} if kind == "JPEG" else {}))
    path = tmp_path / "picture.jpg"
    read = (
        partial(loading.read_warped, path, 16)
        if resize == "warp"
        else lambda: loading.read_random_resized_crop(path, 16, np.random.default_rng(0))
    )

    def whole():
        assert read().shape == (16, 16, 3)
        assert loading.read_centre(path, 16).shape == (16, 16, 3)

    feed(whole, path, buffer.getvalue(), 40, f"picture/{kind}/{resize}")


def test_checkpoints_are_refused_by_their_checksums(tmp_path):
    """Every mutation that changes a tensor's bytes is found; what is left reads as what was saved."""
    import torch

    from benchmark.train import checkpoint, loop

    job = grid.load("cifar100").jobs("mini", {}, {"method": ["baseline"]})[0]
    run = run_module.submit(tmp_path, job)
    execution = loop.Execution(None, None, tmp_path, "cpu", 1)
    state = loop.start(job, 100, execution)
    state.epochs.append({"epoch": 1, "test_top1": 0.5})
    saved = {name: tensor.clone() for name, tensor in state.model.state_dict().items()}
    checkpoint.save(run, state)
    path, fresh = run.path("checkpoint.pt"), loop.start(job, 100, execution).model.state_dict()

    def resume():
        resumed = checkpoint.resume(run, lambda: loop.start(job, 100, execution))
        expected = saved if resumed.epochs else fresh
        assert all(torch.equal(t, expected[n]) for n, t in resumed.model.state_dict().items())
        for aside in run.folder.glob("checkpoint.corrupt-*"):
            aside.unlink()

    feed(resume, path, path.read_bytes(), 30, "checkpoint")


def test_json_of_any_shape_is_no_result(run):
    """Well-formed records with values of the wrong kind, which byte mutations seldom make."""
    rng = random.Random(0)
    values = (
        None,
        True,
        -1,
        0.5,
        1e308,
        2,
        "x",
        "",
        [],
        [1],
        {},
        {"x": 1},
        {"area": None},
        {"area": {"c0": "x"}},
        10**400,
    )
    whole = json.loads(run.path("result.json").read_bytes())
    for _ in range(300 * TIMES):
        record = json.loads(json.dumps(whole))
        for _ in range(rng.randint(1, 3)):
            target = rng.choice([record, record["ap"]] if isinstance(record.get("ap"), dict) else [record])
            value = copy.deepcopy(rng.choice(values))  # one that is changed next is drawn again as it was
            target[rng.choice([*target, "top1", "scores_sha256"])] = value
        run.path("result.json").write_text(json.dumps(record))
        for read in (_look, scores.read):
            with contextlib.suppress(UserError):
                read(run)
