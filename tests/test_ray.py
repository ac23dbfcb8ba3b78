"""Small grids on Ray: a cluster of this machine's own, and one of two nodes of which one dies."""

import json
import os
import re
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from benchmark.executors.ray import ON_LOOPBACK
from benchmark.store import claim as claim_module
from tests.sockets import descendants, is_loopback, listening
from tests.test_cli import bench, scores, start, wait_for

pytest.importorskip("ray", reason="Ray is not installed: pip install .[ray]")

QUICK = ["--grid", "voc", "--set", "epochs=40", "--set", "limit_train=32", "--set", "image_size=32", "--set", "seed=0"]
TWO_JOBS = ["--only", "method=baseline", "--only", "method=icasc-a_ch"]
ONE_JOB = ["--only", "method=icasc-a_ch"]
OPTIONS = ["--device", "cpu", "--tables", "none"]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, cache, mini_voc) -> Path:
    """What the local executor makes of the same jobs."""
    folder = tmp_path_factory.mktemp("undisturbed")
    ended = bench(folder, "run", *QUICK, *TWO_JOBS, *OPTIONS, "--cache", str(cache))
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return folder / "runs"


@pytest.fixture
def cluster():
    """A head without a place for a job, and two nodes with one each."""
    from ray.cluster_utils import Cluster

    small = {"object_store_memory": 80 * 2**20}
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False, **small})
    for _ in range(2):
        made.add_node(num_cpus=1, **small)
    yield made
    made.shutdown()


def _settings(folder: Path, text: str) -> list[str]:
    (folder / "settings.yaml").write_text(text)
    return ["--executor", "ray", "--settings", "settings.yaml"]


def _same(runs: Path, undisturbed: Path) -> None:
    ours, expected = scores(runs), scores(undisturbed)
    assert ours
    for job in ours:
        assert (ours[job] == expected[job]).all()


def _ancestors(runs: Path) -> tuple[int, list[int]]:
    """The process that holds the one claim, and those above it; 0 and none where there is no claim."""
    with suppress(OSError, ValueError, StopIteration):
        pid = json.loads(next(runs.glob("*/*/claim.json")).read_text())["pid"]
        above = [pid]
        while above[-1] > 1:
            above.append(int(Path(f"/proc/{above[-1]}/stat").read_text().rpartition(")")[2].split()[1]))
        return pid, above[1:]
    return 0, []


@pytest.mark.slow
def test_stopped_driver_releases_all_and_the_next_one_ends_the_same(tmp_path, cache, undisturbed):
    """On a cluster of its own, both jobs on one core at once."""
    options = [*QUICK, *TWO_JOBS, *OPTIONS, "--cache", str(cache), *_settings(tmp_path, "cpus: 0.5\n")]
    driver = start(tmp_path, "run", *options)
    runs = tmp_path / "runs"
    wait_for(lambda: len(list(runs.glob("*/*/claim.json"))) == 2 and list(runs.glob("*/*/checkpoint.pt")))
    pids = [json.loads(c.read_text())["pid"] for c in runs.glob("*/*/claim.json")]
    driver.send_signal(signal.SIGINT)
    printed, _ = driver.communicate(timeout=100)
    assert driver.returncode == 130, printed
    assert "Traceback" not in printed
    wait_for(lambda: all(claim_module.process_start(pid) is None for pid in pids))
    assert not list(runs.glob("*/*/claim.json"))
    ended = bench(tmp_path, "run", *options)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    _same(runs, undisturbed)


def _proc(pid: int, name: str) -> bytes:
    with suppress(OSError):
        return Path(f"/proc/{pid}/{name}").read_bytes() + b"\0"
    return b""


def _joins(address: str, mode: dict[str, str]) -> bool:
    """Whether a process that was not started by the cluster gets in; Ray tries for minutes where it does not."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")} | mode
    join = f"import ray; ray.init(address={address!r}, log_to_driver=False); print('joined')"
    command = [sys.executable, "-c", join]
    try:
        ended = subprocess.run(
            command, env=environment | {ON_LOOPBACK: "0"}, capture_output=True, text=True, timeout=40
        )
    except subprocess.TimeoutExpired:
        return False
    return "joined" in ended.stdout


@pytest.mark.slow
def test_a_cluster_of_our_own_is_for_this_machine_and_its_token_alone(tmp_path, cache, mini_voc):
    """What its processes listen on, from their first to the first epoch's end; and a stranger who finds its address."""
    longer = [word.replace("epochs=40", "epochs=4000") for word in QUICK]  # than strangers are waited for
    driver = start(
        tmp_path, "run", *longer, *ONE_JOB, *OPTIONS, "--cache", str(cache), *_settings(tmp_path, "cpus: 1\n")
    )
    seen: set[str] = set()

    def began() -> bool:
        seen.update(listening(driver.pid))
        return bool(list((tmp_path / "runs").glob("*/*/checkpoint.pt"))) or driver.poll() is not None

    try:
        wait_for(began)
        assert driver.poll() is None
        assert len(seen) > 0
        assert all(map(is_loopback, seen)), seen
        raylet = next(pid for pid in descendants(driver.pid) if b"--gcs-address=" in _proc(pid, "cmdline"))
        address = re.search(rb"--gcs-address=([^\0 ]+)", _proc(raylet, "cmdline"))[1].decode()
        token = re.search(rb"RAY_AUTH_TOKEN=([0-9a-f]{64})\0", _proc(raylet, "environ"))[1].decode()
        assert _joins(address, {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token}), "who has it can"
        assert not _joins(address, {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "0" * 64})
        assert not _joins(address, {"RAY_AUTH_MODE": "disabled"})
        assert driver.poll() is None
    finally:
        driver.send_signal(signal.SIGINT)
        driver.communicate(timeout=100)


@pytest.mark.slow
@pytest.mark.parametrize("victim", ["node", "driver"])
def test_death_of_a_part_of_the_cluster_loses_nothing(victim, cluster, tmp_path, cache, undisturbed):
    options = [*QUICK, *ONE_JOB, *OPTIONS, "--cache", str(cache), *_settings(tmp_path, f"address: {cluster.address}\n")]
    driver = start(tmp_path, "run", *options)
    runs = tmp_path / "runs"
    wait_for(lambda: list(runs.glob("*/*/checkpoint.pt")))
    first, above = _ancestors(runs)
    (node,) = [n for n in cluster.worker_nodes if n.all_processes["raylet"][0].process.pid in above]
    if victim == "node":
        (other,) = [n.all_processes["raylet"][0].process.pid for n in cluster.worker_nodes if n is not node]
        cluster.remove_node(node, allow_graceful=False)
        wait_for(lambda: other in _ancestors(runs)[1])
        assert claim_module.process_start(first) is None
        printed, _ = driver.communicate(timeout=200)
        assert driver.returncode == 0, printed
    else:
        driver.kill()
        driver.communicate()
        ended = bench(tmp_path, "run", *options)
        assert ended.returncode == 0, ended.stdout + ended.stderr
    _same(runs, undisturbed)


def test_address_where_no_cluster_answers_is_named(tmp_path, cache, mini_voc):
    options = [*QUICK, *ONE_JOB, "--cache", str(cache), *_settings(tmp_path, "address: 127.0.0.1:1\n")]
    ended = bench(tmp_path, "run", *options)
    assert ended.returncode == 2, ended.stdout + ended.stderr
    assert ended.stderr.startswith("error: --executor ray: no cluster answers at address 127.0.0.1:1 (")
    assert len(ended.stderr.strip().splitlines()) == 1
