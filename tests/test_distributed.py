"""Two ranks do what one does where BatchNorm is not involved, and a job in two ranks is claimed, killed and resumed as
any other."""

import os
import signal
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmark.errors import UserError
from benchmark.executors import launch
from benchmark.store import claim as claim_module
from benchmark.store import run as run_module
from benchmark.train import distributed, loop
from tests import ranks
from tests.networks import PAPER_METHODS
from tests.sockets import is_loopback, listened_on
from tests.test_cli import saved_scores, scores, start, wait_for

QUICK = ["--grid", "voc", "--set", "epochs=2", "--set", "image_size=32", "--device", "cpu"]
ONE_JOB = ["--set", "seed=0", "--only", "method=icasc-a_ch"]


@pytest.fixture(scope="module")
def of_two_ranks(tmp_path_factory) -> dict[str, dict[str, torch.Tensor]]:
    path = tmp_path_factory.mktemp("ranks") / "found.pt"
    assert launch.in_ranks(2, ["-m", "tests.ranks", str(path)]) == 0
    return torch.load(path, weights_only=True)


@pytest.fixture(scope="module")
def of_one() -> dict[str, dict[str, torch.Tensor]]:
    return ranks.everything()


@pytest.mark.parametrize("num_images", ranks.BATCHES)
@pytest.mark.parametrize("method", PAPER_METHODS)
def test_two_ranks_equal_one_process_on_the_joined_batch(method, num_images, of_two_ranks, of_one):
    two, one = (found[f"{method} {num_images}"] for found in (of_two_ranks, of_one))
    assert two.keys() == one.keys()
    for name in one:
        assert torch.allclose(two[name], one[name], rtol=1e-9, atol=1e-13), name


def test_the_attention_terms_are_a_part_of_what_is_compared(of_one):
    plain = of_one["baseline 6"]
    for method in PAPER_METHODS:
        if method != "baseline":
            moved = sum((of_one[f"{method} 6"][n] - plain[n]).norm() for n in plain if n.startswith("net."))
            assert moved > 0.01 * sum(plain[n].norm() for n in plain if n.startswith("net."))


def test_ranks_take_each_test_batch_once_and_agree_on_the_statistics(of_two_ranks):
    assert of_two_ranks["test images"]["seen"].tolist() == [1] * 5
    assert of_two_ranks["buffers"]["running_mean"].tolist() == [0.5]


def test_one_process_shares_with_nobody():
    assert distributed.share(slice(3, 8)) == (slice(3, 8), 1.0)


def test_ranks_that_were_not_started_are_named():
    with pytest.raises(UserError, match="ranks=3, but 1 started"), distributed.group(3, "cpu"):
        pass


# In float64 and without BatchNorm. 18 images in batches of 16: the last one has 2.
SMOOTH = [
    "--set", "backbone=vgg11_narrow", "--set", "weights=scratch", "--set", "precision=float64", "--set",
    "limit_train=18",
]  # fmt: skip
LONGER = ["--set", "limit_train=50"]


def start_two_ranks(folder: Path, cache: Path, *options: str) -> subprocess.Popen:
    folder.mkdir(exist_ok=True)
    more = ["--set", "ranks=2", "--cache", str(cache), "--tables", "none"]
    return start(folder, "run", *QUICK, *ONE_JOB, *options, *more)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, small_cache):
    """The folder of a job in two ranks, and what was listened on while it ran."""
    folder = tmp_path_factory.mktemp("two")
    process = start_two_ranks(folder, small_cache, *SMOOTH)
    seen = listened_on(process) if Path("/proc/net/tcp").exists() else None
    printed, _ = process.communicate(timeout=200)
    assert process.returncode == 0, printed
    return folder, seen


@pytest.mark.slow
def test_nothing_but_the_loopback_interface_is_listened_on(undisturbed):
    """By the scheduler, its worker and two ranks, from the start to the end."""
    if undisturbed[1] is None:
        pytest.skip("no /proc/net/tcp here")
    assert undisturbed[1], "ranks talk to each other"
    assert all(map(is_loopback, undisturbed[1])), undisturbed[1]


def test_ranks_meet_in_a_folder_that_only_this_user_can_enter(capfd):
    code = f"import os; print(oct(os.stat(os.path.dirname(os.environ[{launch.MEETING!r}])).st_mode))"
    assert launch.in_ranks(2, ["-c", code]) == 0
    assert capfd.readouterr().out.splitlines() == ["0o40700"] * 2


@pytest.mark.parametrize(("code", "status"), [("sys.exit(3)", 3), ("os.kill(os.getpid(), 9)", 137)])
def test_the_first_rank_that_fails_ends_the_others(code, status):
    code = f"import os, sys, time\nif os.environ['RANK'] == '1': {code}\ntime.sleep(60)"
    assert launch.in_ranks(2, ["-c", code]) == status


@pytest.mark.slow
def test_whole_job_in_two_ranks_equals_one(undisturbed, tmp_path, small_cache):
    (of_two,) = run_module.all_runs(undisturbed[0] / "runs")
    of_one = run_module.submit(tmp_path / "one", of_two.job().model_copy(update={"ranks": 1}))
    loop.run_job(of_one, loop.Execution(None, None, small_cache, "cpu", 1))
    one, two = (saved_scores(run.path("scores.npz")) for run in (of_one, of_two))
    assert np.abs(one - one[0]).max() > 1e-4, "images differ, so their order matters"
    assert np.allclose(one, two, rtol=1e-6, atol=1e-7)
    for a, b in zip(of_one.metrics(), of_two.metrics(), strict=True):
        assert a.train == pytest.approx(b.train, rel=1e-9)


@pytest.mark.slow
def test_killed_job_of_two_ranks_goes_on_and_ends_the_same(tmp_path, small_cache):
    """Its first rank is killed, and, when the scheduler has started it again, the launcher of both."""
    whole = start_two_ranks(tmp_path / "whole", small_cache, *LONGER)
    printed, _ = whole.communicate(timeout=200)
    assert whole.returncode == 0, printed
    process = start_two_ranks(tmp_path / "killed", small_cache, *LONGER)
    runs, ranks_seen = tmp_path / "killed" / "runs", []

    def claimed_anew() -> int | None:
        """The process that holds the claim, where it is none that was killed, and its first checkpoint is there."""
        holders = [run_module.Run(path.parent).holder() for path in runs.glob("*/*/checkpoint.pt")]
        return next((holder.pid for holder in holders if holder and holder.pid not in ranks_seen), None)

    for victim in ("first rank", "launcher"):
        wait_for(claimed_anew)
        pid = claimed_anew()
        launcher = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
        siblings = [int(p) for p in Path(f"/proc/{launcher}/task/{launcher}/children").read_text().split()]
        assert len(siblings) == 2
        ranks_seen += siblings
        os.kill(pid if victim == "first rank" else launcher, signal.SIGKILL)
    out, err = process.communicate(timeout=280)
    assert process.returncode == 0, out + err
    assert all(claim_module.process_start(p) is None for p in ranks_seen)
    log = run_module.all_runs(runs)[0].path("log.txt").read_text()
    assert log.count("killed by signal 9") == 2
    assert "attempt 3 on CPU" in log, "the scheduler repeats it"
    (ours,), (expected,) = scores(runs).values(), scores(tmp_path / "whole" / "runs").values()
    assert (ours == expected).all()


@pytest.mark.slow
def test_job_of_two_ranks_that_another_process_runs_is_left_to_it(undisturbed, tmp_path, call):
    run = next(iter(run_module.all_runs(undisturbed[0] / "runs")))
    other = run_module.submit(tmp_path, run.job())
    with other.claim():
        ended = call(tmp_path, "run-job", str(other.folder), "--device", "cpu")
    assert ended.returncode == 3, ended.stdout + ended.stderr
    assert other.state() == "pending"
