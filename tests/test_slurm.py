"""Small grids through submitit: on its stand-in for a cluster everywhere, and on a real SLURM where one answers
(`tests/slurm_node.sh start DIR`, then SLURM_CONF)."""

import json
import os
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from benchmark.store import run as run_module
from tests.test_cli import bench, scores, start, wait_for

pytest.importorskip("submitit", reason="submitit is not installed: pip install .[slurm]")

QUICK = ["--grid", "voc", "--set", "epochs=3", "--set", "limit_train=32", "--set", "image_size=32", "--set", "seed=0"]
TWO_JOBS = ["--only", "method=baseline", "--only", "method=icasc-a_ch"]
ONE_JOB = ["--only", "method=icasc-a_ch"]
OPTIONS = ["--device", "cpu", "--tables", "none"]


def _slurm_answers() -> bool:
    if shutil.which("sinfo") is None:
        return False
    return subprocess.run(["sinfo", "--noheader"], capture_output=True, timeout=60).returncode == 0


ON_SLURM = pytest.mark.skipif(not _slurm_answers(), reason="no SLURM answers: tests/slurm_node.sh brings one up")
CLUSTERS = ["local", pytest.param("slurm", marks=ON_SLURM)]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, cache, mini_voc) -> Path:
    """What the local executor makes of the same jobs."""
    folder = tmp_path_factory.mktemp("undisturbed")
    ended = bench(folder, "run", *QUICK, *TWO_JOBS, *OPTIONS, "--cache", str(cache))
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return folder / "runs"


@pytest.fixture
def options(tmp_path, cache):
    """options("slurm"): of `run` on that cluster."""

    def make(cluster: str) -> list[str]:
        (tmp_path / "settings.yaml").write_text(f"cluster: {cluster}\ntime_limit: 10\nsetup: [export FROM_SETUP=1]\n")
        return [*QUICK, *OPTIONS, "--cache", str(cache), "--executor", "slurm", "--settings", "settings.yaml"]

    return make


def _same(runs: Path, undisturbed: Path) -> None:
    ours, expected = scores(runs), scores(undisturbed)
    assert ours
    for job in ours:
        assert (ours[job] == expected[job]).all()


def _slurm_ids(runs: Path) -> list[str]:
    return sorted(json.loads(path.read_text())["id"] for path in runs.glob("*/*/slurm.json"))


def _submitted(runs: Path) -> int:
    return len(list(runs.glob("*/.slurm/*/*_submitted.pkl")))


def _parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def _in_queue() -> list[str]:
    listed = subprocess.run(["squeue", "--noheader", "--array", "--format=%i"], capture_output=True, text=True)
    return listed.stdout.split()


def _requeued_starts_now(job: str) -> None:
    """SLURM lets a job that it requeues wait for two minutes."""
    command = ["squeue", "--noheader", "--format=%r", f"--jobs={job}"]
    wait_for(lambda: "BeginTime" in subprocess.run(command, capture_output=True, text=True).stdout)
    # In the second of its requeueing slurmd would refuse it: a killed job's credentials are told apart by the second.
    subprocess.run(["scontrol", "update", f"JobId={job}", "StartTime=now+3"], check=True)


@pytest.mark.parametrize("cluster", CLUSTERS)
def test_driver_is_killed_and_comes_back(cluster, options, tmp_path, undisturbed):
    driver = start(tmp_path, "run", *options(cluster), *TWO_JOBS)
    runs = tmp_path / "runs"
    wait_for(lambda: len(list(runs.glob("*/*/slurm.json"))) == 2 and list(runs.glob("*/*/claim.json")))
    ids = _slurm_ids(runs)
    driver.kill()
    driver.communicate()
    ended = bench(tmp_path, "run", *options(cluster), *TWO_JOBS)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert [r.state() for r in run_module.all_runs(runs)] == ["done"] * 2
    assert _slurm_ids(runs) == ids
    assert _submitted(runs) == 2
    if cluster == "slurm":
        assert [i.partition("_")[2] for i in ids] == ["0", "1"], "one array"
    _same(runs, undisturbed)


@pytest.mark.parametrize("cluster", CLUSTERS)
def test_notice_of_the_time_limit_requeues_from_the_checkpoint(cluster, options, tmp_path, undisturbed):
    driver = start(tmp_path, "run", *options(cluster), *ONE_JOB)
    runs = tmp_path / "runs"
    wait_for(lambda: list(runs.glob("*/*/checkpoint.pt")))
    pid = json.loads(next(runs.glob("*/*/claim.json")).read_text())["pid"]
    if cluster == "slurm":  # what slurmctld does when --signal asks for notice: to every process of the step
        subprocess.run(["scancel", "--signal=USR2", *_slurm_ids(runs)], check=True)
        _requeued_starts_now(*_slurm_ids(runs))
    else:
        os.kill(_parent(pid), signal.SIGUSR2)
    printed, _ = driver.communicate(timeout=280)
    assert driver.returncode == 0, printed
    log = next(runs.glob("*/.slurm/*/*_log.out")).read_text()
    # "Requeued job" may be missing: SLURM ends a job that it requeues, at times before submitit has printed that line.
    assert "Calling checkpoint method" in log
    assert log.count("Starting with JobEnvironment") == 2, log
    assert _submitted(runs) == 1
    _same(runs, undisturbed)


@ON_SLURM
@pytest.mark.parametrize("how", [["scontrol", "requeue"], ["scancel"]])
def test_job_that_slurm_ends_loses_nothing(how, options, tmp_path, undisturbed):
    """requeue: as preemption does it, SLURM starts the job again. scancel: whoever cancelled it calls again."""
    driver = start(tmp_path, "run", *options("slurm"), *ONE_JOB)
    runs = tmp_path / "runs"
    wait_for(lambda: list(runs.glob("*/*/checkpoint.pt")))
    subprocess.run([*how, *_slurm_ids(runs)], check=True)
    if how != ["scancel"]:
        _requeued_starts_now(*_slurm_ids(runs))
    printed, _ = driver.communicate(timeout=280)
    if how == ["scancel"]:
        assert driver.returncode == 1, printed
        assert "ended without a record" in printed
        assert not _in_queue()
        ended = bench(tmp_path, "run", *options("slurm"), *ONE_JOB)
        assert ended.returncode == 0, ended.stdout + ended.stderr
        assert _submitted(runs) == 2
    else:
        assert driver.returncode == 0, printed
        assert _submitted(runs) == 1
    _same(runs, undisturbed)


@ON_SLURM
def test_what_sbatch_refuses_is_told(options, tmp_path):
    arguments = options("slurm")
    (tmp_path / "settings.yaml").write_text("partition: gpu\n")
    ended = bench(tmp_path, "run", *arguments, *ONE_JOB)
    assert ended.returncode == 2, ended.stdout + ended.stderr
    assert "invalid partition" in ended.stderr
    assert len(ended.stderr.strip().splitlines()) == 1


@ON_SLURM
def test_two_drivers_submit_a_job_once(options, tmp_path, undisturbed):
    arguments = options("slurm")
    both = [start(tmp_path, "run", *arguments, *ONE_JOB) for _ in range(2)]
    printed = [driver.communicate(timeout=280)[0] for driver in both]
    assert [driver.returncode for driver in both] == [0, 0], printed
    assert _submitted(tmp_path / "runs") == 1
    _same(tmp_path / "runs", undisturbed)
