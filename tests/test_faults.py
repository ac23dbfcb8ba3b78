"""Faults that users meet, each really made: afterwards one more `run` completes, with an undisturbed one's results.

FAULT_ROUNDS=50 kills as often as docs/reliability.md says (`make test-faults`); the default is a few.
"""

import contextlib
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmark import data
from benchmark.errors import UserError
from benchmark.matrix import grid
from benchmark.matrix.matrix import Matrix
from benchmark.results.results import Results
from benchmark.store import claim as claim_module
from benchmark.store import run as run_module
from benchmark.store import scores as scores_file
from benchmark.store.files import write_json
from benchmark.store.records import Epoch
from benchmark.store.run import Run
from benchmark.tables import build
from benchmark.tables.cells import Table
from benchmark.train import checkpoint, loop, recording
from tests.conftest import MAIN
from tests.evidence import GOLDEN, SPEC, as_published, plant
from tests.test_cli import ROOT, bench, saved_scores, scores, start, wait_for

ROUNDS = int(os.environ.get("FAULT_ROUNDS", "3"))
ROUNDS_A_GRID = 5  # kills that one grid suffers before it may finish
QUICK = [
    "--grid", "cifar100", "--scale", "mini", "--set", "epochs=6", "--set", "milestones=[[3, 5]]", "--set",
    "limit_train=96", "--device", "cpu", "--workers", "3",
]  # fmt: skip
TWO = ["--only", "method=icasc-grad_cam", "--only", "method=icasc-a_ch"]  # jobs of the grid that kills disturb


@pytest.fixture(scope="module")
def cache_option(small_cache) -> list[str]:
    return ["--cache", str(small_cache)]


@pytest.fixture
def workplace(tmp_path) -> Path:
    return _workplace(tmp_path / "place")


def _workplace(folder: Path) -> Path:
    folder.mkdir()
    return folder


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, cache_option) -> tuple[dict[str, np.ndarray], float]:
    """The scores of each job of the grid when nothing happens, and how long that took."""
    folder = _workplace(tmp_path_factory.mktemp("undisturbed") / "place")
    began = time.monotonic()
    ended = bench(folder, "run", *QUICK, *TWO, *cache_option)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return scores(folder / "runs"), time.monotonic() - began


def _assert_equal(runs: Path, expected: dict[str, np.ndarray]) -> None:
    ours = scores(runs)
    assert ours.keys() == expected.keys()
    for job, its_scores in expected.items():
        assert (ours[job] == its_scores).all(), job


def _children(pid: int) -> list[int]:
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            after_name = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(after_name[1]) == pid and after_name[0] != "Z":
            found.append(int(path.parent.name))
    return sorted(found)


# Kills


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("first", range(0, ROUNDS, ROUNDS_A_GRID))
def test_kills_at_random_moments_change_no_result(first, workplace, cache_option, undisturbed):
    expected, seconds = undisturbed
    runs = workplace / "runs"
    for number in range(first, min(first + ROUNDS_A_GRID, ROUNDS)):
        rng = random.Random(number)
        victim = ("worker", "scheduler", "both")[number % 3]
        while not _kill(victim, rng.uniform(0.1, 0.9) * seconds, rng, workplace, cache_option, number):
            _assert_equal(runs, expected)  # the grid was finished first, through earlier kills: a new one
            shutil.rmtree(runs)
    ended = bench(workplace, "run", *QUICK, *TWO, *cache_option)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    _assert_equal(runs, expected)
    assert not list(runs.rglob("*.tmp"))


def _kill(victim: str, moment: float, rng: random.Random, place: Path, cache_option: list[str], number: int) -> bool:
    """Start the grid and kill at the moment; False where it was finished by then. A round hits an unfinished grid."""
    process = start(place, "run", *QUICK, *TWO, *cache_option)
    deadline = time.monotonic() + moment
    while time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.01)
    while victim == "worker" and process.poll() is None and not _children(process.pid):
        time.sleep(0.01)  # too early: no worker yet
    states = sorted(r.state() for r in run_module.all_runs(place / "runs"))
    workers = _children(process.pid)
    killed = {"worker": workers and [rng.choice(workers)], "scheduler": [process.pid], "both": [process.pid, *workers]}
    if not states or set(states) != {"done"}:
        for pid in killed[victim]:
            os.kill(pid, signal.SIGKILL)
        if victim == "worker":
            process.terminate()  # a scheduler that lives would repeat the job and leave the next round nothing
        process.communicate()
        listed = ", ".join(states) or "no run yet"
        print(f"round {number}: {moment:.1f} s, {victim}: {len(killed[victim])} killed; states: {listed}")
        return True
    process.communicate()
    return False


@pytest.mark.slow
def test_a_killed_worker_is_repeated_by_the_same_scheduler(workplace, cache_option, undisturbed):
    process = start(workplace, "run", *QUICK, *TWO[:2], *cache_option)
    wait_for(lambda: list((workplace / "runs").glob("*/*/checkpoint.pt")))
    run = run_module.Run(next((workplace / "runs").glob("*/*/checkpoint.pt")).parent)
    victim = json.loads(run.path("claim.json").read_bytes())["pid"]
    os.kill(victim, signal.SIGKILL)
    printed, _ = process.communicate(timeout=280)
    assert process.returncode == 0, printed
    assert "killed by signal 9 (SIGKILL)" in run.path("log.txt").read_text()
    assert f"{run.id}: killed by signal 9 (SIGKILL); again in 2 s" in printed
    _assert_equal(workplace / "runs", {run.id: undisturbed[0][run.id]})


# One job in this process


SHORT = {"epochs": 2, "milestones": [[1]], "limit_train": 64}


@pytest.fixture(scope="module")
def execution(small_cache) -> loop.Execution:
    return loop.Execution(data_root=None, weights_file=None, cache=small_cache, device="cpu", threads=1)


@pytest.fixture(scope="module")
def job():
    return grid.load("cifar100").jobs("mini", SHORT, {"method": ["icasc-a_ch"]})[0]


@pytest.fixture(scope="module")
def whole(job, execution, tmp_path_factory) -> np.ndarray:
    """Scores of the job when nothing happens."""
    run = run_module.submit(tmp_path_factory.mktemp("whole"), job)
    loop.run_job(run, execution)
    return _scores(run)


def _scores(run: Run) -> np.ndarray:
    return saved_scores(run.path("scores.npz"))


def _completes(run: Run, execution, whole: np.ndarray) -> None:
    """One more run, and the result of the undisturbed job."""
    assert run.state() in ("pending", "failed", "stale", "corrupt")
    loop.run_job(run, execution)
    assert run.state() == "done"
    assert (_scores(run) == whole).all()
    assert not list(run.folder.rglob("*.tmp"))


@pytest.fixture
def disk(tmp_path):
    """disk(kib): a folder on a file system of that size; called again, it is made larger."""
    if os.geteuid() != 0:
        pytest.skip("only root can mount a small tmpfs")
    folder = tmp_path / "disk"
    folder.mkdir()

    def sized(kib: int) -> Path:
        options = f"{'remount,' if folder.is_mount() else ''}size={kib}k"
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
        mounted = subprocess.run(command, capture_output=True, text=True)
        if mounted.returncode:
            pytest.skip(f"no tmpfs can be mounted here: {mounted.stderr.strip()}")
        return folder

    yield sized
    if folder.is_mount():
        subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.slow
# KiB that let the run come as far as: its claim, its records, its first checkpoint, the second beside it.
@pytest.mark.parametrize("kib", [12, 24, 400, 700])
def test_full_disk(kib, disk, job, execution, whole):
    run = run_module.submit(disk(8) / "runs", job)
    disk(kib)
    with pytest.raises(UserError, match=r"cannot be written \(.*No space left.*free some space"):
        loop.run_job(run, execution)
    assert not run.path("result.json").exists()
    assert not list(run.folder.rglob("*.tmp"))
    disk(100_000)
    _completes(run, execution, whole)


@pytest.mark.slow
@pytest.mark.parametrize(("module", "writer"), [(scores_file, "write"), (recording, "result")])
def test_disk_that_is_full_at_the_end(module, writer, disk, job, execution, whole, monkeypatch):
    run, real = run_module.submit(disk(2000) / "runs", job), getattr(module, writer)
    filler = disk(2000) / "filler"

    def fill_first(*arguments):
        with pytest.raises(OSError, match="No space left"):
            filler.write_bytes(bytes(3_000_000))
        return real(*arguments)

    monkeypatch.setattr(module, writer, fill_first)
    with pytest.raises(UserError, match=r"cannot be written \(No space left.*free some space"):
        loop.run_job(run, execution)
    monkeypatch.undo()
    assert not run.path("result.json").exists()
    filler.unlink()
    _completes(run, execution, whole)


@pytest.mark.slow
@pytest.mark.parametrize("limit", [100, 1000, 400_000])
def test_files_that_may_not_grow(limit, tmp_path, job, execution, whole):
    """As a full disk, for whoever may not mount one: the limit strikes in the middle of a write."""
    run = run_module.submit(tmp_path / "runs", job)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        with pytest.raises(UserError, match="cannot be written"):
            loop.run_job(run, execution)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not run.path("result.json").exists()
    _completes(run, execution, whole)


@pytest.mark.slow
@pytest.mark.parametrize("kib", [4, 100, 1000])
def test_full_disk_under_the_cache(kib, disk, tiny_voc):
    images = data.DATASETS["voc2012"].load(tiny_voc, "train")
    with pytest.raises(UserError, match=r"cannot be written \(No space left.*free some space or move --cache"):
        data.decode(images, 224, disk(kib))
    assert not list(disk(kib).rglob("*.tmp"))
    assert data.decode(images, 224, disk(100_000)).shape == (20, 224, 224, 3)


@pytest.mark.slow
def test_full_disk_while_mini_data_are_drawn(disk):
    with pytest.raises(UserError, match=r"cannot be drawn \(No space left.*free some space"):
        data.locate("cifar100-mini", None, disk(2000))
    root = data.locate("cifar100-mini", None, disk(100_000))
    assert len(data.DATASETS["cifar100-mini"].load(root, "test", 0).ids) == 500


@pytest.mark.parametrize("keep", [0, 100, 0.5])
def test_decoded_pictures_that_were_cut_short_are_made_anew(keep, tiny_voc, tmp_path):
    images = data.DATASETS["voc2012"].load(tiny_voc, "train")
    whole = np.array(data.decode(images, 32, tmp_path))
    cached = next(tmp_path.rglob("*.npy"))
    os.truncate(cached, int(keep * cached.stat().st_size) if keep < 1 else keep)
    assert (data.decode(images, 32, tmp_path) == whole).all()


# Records and checkpoints


@pytest.fixture(scope="module")
def crashed(job, execution, tmp_path_factory) -> Path:
    run = run_module.submit(tmp_path_factory.mktemp("crashed"), job)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scores_file, "write", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            loop.run_job(run, execution)
    return run.folder


@pytest.fixture
def unscored(crashed, tmp_path) -> Run:
    """A copy of a run that crashed between its last epoch and its result."""
    return Run(Path(shutil.copytree(crashed, tmp_path / crashed.parent.name / crashed.name)))


@pytest.mark.parametrize("damage", ["empty", "garbage", "cut", "one byte", "another network", "other epochs"])
def test_damaged_checkpoint(damage, unscored, job, execution, whole, capsys):
    run, path = unscored, unscored.path("checkpoint.pt")
    content = path.read_bytes()
    if damage == "another network":
        other = loop.start(job.model_copy(update={"backbone": "resnet20"}), 100, execution)
        torch.save({"model": other.model.state_dict()}, path)
    elif damage == "other epochs":
        saved = torch.load(path, weights_only=True)
        torch.save(saved | {"epochs": ["1", "2", "3"]}, path)
    else:
        middle = len(content) // 2
        flipped = content[:middle] + bytes([content[middle] ^ 0xFF]) + content[middle + 1 :]
        path.write_bytes(
            {"empty": b"", "garbage": os.urandom(5000), "cut": content[:middle], "one byte": flipped}[damage]
        )
    _completes(run, execution, whole)
    assert "corrupt checkpoint" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["metrics.jsonl", "environment.json", "progress.json", "failure.json", "claim.json"])
def test_truncated_record(name, unscored, execution, whole):
    run = unscored
    run.path(name).write_bytes((run.path(name).read_bytes() if run.path(name).exists() else b'{"host": 1')[:9])
    with contextlib.suppress(UserError):
        run.state()
    _completes(run, execution, whole)


@pytest.mark.parametrize("name", ["result.json", "scores.npz"])
def test_truncated_result_is_never_tabulated(name, tmp_path):
    """The cell says that the run is missing, or refuses it; the other runs' mean is untouched."""
    runs = plant(tmp_path, as_published)
    victim = runs[0]
    if name == "result.json":
        victim.path(name).write_bytes(victim.path(name).read_bytes()[:40])
        table = _table(tmp_path)
        assert any("corrupt record" in w for w in table.warnings)
        job = victim.job()
        assert table.cells["mAP", job.method].status == "partial"
        assert victim.state() == "corrupt"
    else:
        victim.path(name).write_bytes(b"PK\x03\x04")
        with pytest.raises(UserError, match=r"scores.npz: not a file of scores"):
            scores_file.read(victim)


def _table(runs: Path) -> Table:
    chosen = grid.load("voc", GOLDEN)
    return build.build(SPEC, Results.read(Matrix(chosen, "paper", runs=runs)))


# Divergence


def test_loss_that_becomes_nan(tmp_path, job, execution, monkeypatch):
    """In the second epoch; the record says so, and holds the first one's numbers."""
    run, real = run_module.submit(tmp_path, job), loop.learning_rate
    monkeypatch.setattr(loop, "learning_rate", lambda job, step, of: 1e30 if step >= of else real(job, step, of))
    with pytest.raises(loop.DivergedError):
        loop.run_job(run, execution)
    failure = json.loads(run.path("failure.json").read_bytes())
    assert (run.state(), failure["kind"], failure["epoch"]) == ("diverged", "diverged", 2)
    assert Epoch(**failure["last_good_epoch"]) == run.metrics()[-1]
    assert failure["last_good_epoch"]["epoch"] == 1
    assert np.isfinite(failure["last_good_epoch"]["train"]["loss"])


def test_diverged_run_is_shown_and_never_averaged(tmp_path):
    runs = plant(tmp_path, as_published)
    of_method = [run for run in runs if run.job().method == "icasc-a_ch"]
    lost = of_method[0]
    lost.path("result.json").unlink()
    write_json(lost.path("failure.json"), {"kind": "diverged", "error": "", "epoch": 2, "last_good_epoch": None})
    cell = _table(tmp_path).cells["mAP", "icasc-a_ch"]
    assert (cell.status, cell.n, cell.planned) == ("partial, 1 diverged", 2, 3)
    assert lost.id not in cell.runs
    assert cell.mean == pytest.approx(np.mean([as_published(r.job(), "mAP") for r in of_method[1:]]))
    for run in of_method[1:]:
        run.path("result.json").rename(run.path("failure.json"))
        write_json(run.path("failure.json"), {"kind": "diverged", "error": ""})
    cell = _table(tmp_path).cells["mAP", "icasc-a_ch"]
    assert (cell.status, cell.mean) == ("diverged", None)


# Data


FROM_FILES = {"weights": "scratch", "image_size": 32, "resize": "random_resized_crop", "epochs": 3, "batch_size": 8}


@pytest.mark.slow
def test_a_picture_that_disappears_in_mid_run(tmp_path, own_lists, small_cache, monkeypatch):
    """Read from its file each time, as ImageNet's are: gone after the first epoch, and back for the last call."""
    root, changes = own_lists, FROM_FILES | {"train_split": "present_train", "test_split": "present_val"}
    job = grid.load("voc").jobs("paper", changes, {"method": ["baseline"], "seed": [0]})[0]
    execution = loop.Execution(root, None, small_cache, "cpu", 1)
    undisturbed = run_module.submit(tmp_path / "undisturbed", job)
    loop.run_job(undisturbed, execution)
    picture, real = next((root / MAIN.parents[1] / "JPEGImages").iterdir()), checkpoint.save
    run = run_module.submit(tmp_path / "runs", job)

    def save_and_remove(*arguments):
        real(*arguments)
        picture.rename(tmp_path / "elsewhere.jpg")

    monkeypatch.setattr(checkpoint, "save", save_and_remove)
    with pytest.raises(UserError, match=rf"{picture.name}: cannot be (read|decoded)"):
        loop.run_job(run, execution)
    monkeypatch.undo()
    assert json.loads(run.path("failure.json").read_bytes())["kind"] == "input"
    with pytest.raises(UserError, match=rf"{picture.name}: missing"):
        loop.run_job(run, execution)
    (tmp_path / "elsewhere.jpg").rename(picture)
    _completes(run, execution, _scores(undisturbed))


@pytest.mark.slow
def test_a_part_that_grows_in_mid_run(tmp_path, tiny_voc, small_cache, monkeypatch):
    """What is there of a data set may be more at the next call; a run is of one part."""
    root = Path(shutil.copytree(tiny_voc, tmp_path / "data"))
    picture, real = root / MAIN.parents[1] / "JPEGImages" / "2008_000005.jpg", checkpoint.save
    picture.rename(tmp_path / "elsewhere.jpg")
    job = grid.load("voc").jobs("paper", FROM_FILES | {"partial": True}, {"method": ["baseline"], "seed": [0]})[0]
    run, execution = run_module.submit(tmp_path / "runs", job), loop.Execution(root, None, small_cache, "cpu", 1)

    def save_and_stop(*arguments):
        real(*arguments)
        raise UserError("stopped")

    monkeypatch.setattr(checkpoint, "save", save_and_stop)
    with pytest.raises(UserError, match="stopped"):
        loop.run_job(run, execution)
    monkeypatch.undo()
    (tmp_path / "elsewhere.jpg").rename(picture)
    with pytest.raises(UserError, match="began with other images than are there now"):
        loop.run_job(run, execution)
    assert len(run.metrics()) == 1
    run.path("checkpoint.pt").unlink()
    loop.run_job(run, execution)
    assert run.result().num_train == 20


# Hosts and folders


@pytest.mark.slow
def test_a_host_that_no_longer_exists(tmp_path, job, monkeypatch):
    """A worker under another host name with process numbers of its own, killed: nobody here can look it up."""
    run = run_module.submit(tmp_path, job)
    held = f"from tests.test_store import _hold; from pathlib import Path; _hold(Path({str(run.folder)!r}), 60)"
    script = f'hostname elsewhere && exec "{sys.executable}" -c "$0"'
    command = ["unshare", "--uts", "--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-c", script, held]
    if os.geteuid() != 0 or shutil.which("unshare") is None:
        pytest.skip("only root can be another host (unshare)")
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT)
    if process.stdout.readline() != "held\n":
        pytest.skip(f"no other host can be made here: {process.communicate()[1].strip()}")
    monkeypatch.setattr(claim_module, "STALE_AFTER_SECONDS", 2.0)
    monkeypatch.setattr(claim_module, "WATCH_SECONDS", 8.0)
    try:
        assert json.loads(run.path("claim.json").read_bytes())["host"].startswith("elsewhere ")
        wait_for(lambda: run.state() == "stale")  # between two beats, with so short a limit
        with pytest.raises(claim_module.Claimed), run.claim():
            pass
    finally:
        process.kill()
        process.communicate()
    wait_for(lambda: run.state() == "stale")
    with run.claim():
        assert run.state() == "running"


def test_read_only_runs(tmp_path, cache_option, disk, call):
    """What is there can be listed and tabulated; what would have to be written is refused in a line."""
    place = _workplace(tmp_path / "place")
    runs = disk(10_000) / "runs"
    one = ["--only", "method=baseline", *QUICK]
    jobs = grid.load("cifar100").jobs("mini", {"epochs": 6, "milestones": [[3, 5]], "limit_train": 96})
    for each in jobs:
        run_module.submit(runs, each)
    subprocess.run(["mount", "-o", "remount,ro", str(runs.parent)], check=True)
    ended = call(place, "run", *one, *cache_option, "--runs", str(runs))
    assert (ended.returncode, len(ended.stderr.strip().splitlines())) == (2, 1), ended.stderr
    assert "Read-only file system" in ended.stderr
    ended = call(place, "status", "--runs", str(runs))
    assert ended.stdout.strip().endswith("3 pending")
    ended = call(place, "tables", "--table", "cifar100", "--runs", str(runs), "--scale", "mini")
    assert ended.returncode == 0, ended.stderr


@pytest.mark.slow
def test_odd_names_of_folders(tmp_path, cache_option, call):
    """Spaces, quotes, other scripts, a line break, bytes that are no character: everywhere where a path is given."""
    place = _workplace(
        tmp_path / os.fsdecode("-two words\n'größe\" $(x) 東京 \U0001f600 \udcff".encode(errors="surrogateescape"))
    )
    cache = place / "cache"
    cache.symlink_to(Path(cache_option[1]))
    one = ["--set", "epochs=1", "--set", "milestones=[[1]]", "--set", "limit_train=32", "--only", "method=baseline"]
    options = ["--grid", "cifar100", "--scale", "mini", "--device", "cpu", "--cache", str(cache), *one]
    ended = bench(place, "run", *options, "--runs", str(place / "runs"))
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert [r.state() for r in run_module.all_runs(place / "runs")] == ["done"]
    (place / "file").touch()
    ended = call(place, "run", *options, "--runs", str(place / "file"))
    assert (ended.returncode, len(ended.stderr.strip().splitlines())) == (2, 1), ended.stderr
