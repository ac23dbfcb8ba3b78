"""Settings of the executors are read strictly, and a job never holds them."""

import ctypes
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from threading import Timer
from types import SimpleNamespace

import pytest

from benchmark.errors import UserError
from benchmark.executors import EXECUTORS, SETTINGS, launch, local, ray, read_settings, slurm
from benchmark.matrix.job import FIELDS
from benchmark.store import run as run_module
from benchmark.store.run import Run
from tests.test_cli import ROOT, bench, wait_for

BAD = {
    "executor": ("rai", None, "--executor rai: there is no such executor; did you mean 'ray'?"),
    "local": ("local", "cpus: 1", "--settings {path}: the local executor has none; name --executor ray or slurm"),
    "key": ("slurm", "gpus: 1\npartitoin: a", "{path}:2: unknown key 'partitoin'; did you mean 'partition'?"),
    "other executor's key": ("ray", "cpus: 2\ntime_limit: 5", "{path}:2: unknown key 'time_limit'; expected one of: "),
    "number": ("slurm", "time_limit: '60'", "{path}:1: time_limit: expected a number (got '60')"),
    "range": ("ray", "gpus: -1", "{path}:1: gpus: Input should be greater than or equal to 0 (got -1)"),
    "whole": ("slurm", "gpus: 0.5", "{path}:1: gpus: Input should be a valid integer"),
    "text": ("slurm", "partition: [a]", "{path}:1: partition: Input should be a valid string (got ['a'])"),
    "list": ("slurm", "- gpus", "{path}: settings are a mapping with the keys time_limit, "),
    "twice": ("ray", "cpus: 1\ncpus: 2", "{path}:2: duplicate key 'cpus'; keep one of the two"),
    "no YAML": ("ray", "cpus: [", "{path}:1: not valid YAML: "),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_settings_are_named_with_their_line(name, tmp_path):
    executor, text, message = BAD[name]
    path = tmp_path / "settings.yaml" if text is not None else None
    if path is not None:
        path.write_text(text)
    with pytest.raises(UserError, match=re.escape(message.format(path=path))) as error:
        read_settings(executor, path)
    assert "\n" not in str(error.value)


def test_settings_have_defaults_and_are_no_part_of_a_job(tmp_path):
    (tmp_path / "empty.yaml").write_text("# nothing yet\n")
    for name, model in SETTINGS.items():
        assert read_settings(name, None) == read_settings(name, tmp_path / "empty.yaml") == model()
        assert not set(model.model_fields) & set(FIELDS)
    assert set(EXECUTORS) == {"local", *SETTINGS}
    assert read_settings("local", None) is None


def test_options_of_another_executor_are_refused(tmp_path, cache, mini_voc):
    ended = bench(tmp_path, "run", "--grid", "voc", "--executor", "ray", "--workers", "2", "--cache", str(cache))
    assert ended.returncode == 2
    assert ended.stderr == "error: --workers is the local executor's; --executor ray is told in --settings FILE\n"


@pytest.mark.parametrize(("executor", "package", "extra"), [("ray", "ray", "ray"), ("slurm", "submitit", "slurm")])
def test_engine_that_is_not_installed_is_named(executor, package, extra, tmp_path, make_job, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.setattr(slurm, "_queued", lambda *_: set())
    runs = [run_module.submit(tmp_path, make_job())]
    with pytest.raises(UserError, match=rf"--executor {executor}: .* is not installed; pip install \.\[{extra}\]"):
        EXECUTORS[executor](runs, [], SETTINGS[executor](), lambda *_: None)


def test_examples_of_the_documents_are_valid(tmp_path):
    examples = re.findall(r"```yaml\n# (ray|slurm)\.yaml(.*?)```", (ROOT / "docs" / "run.md").read_text(), re.DOTALL)
    assert [name for name, _ in examples] == ["ray", "slurm"]
    for name, text in examples:
        (tmp_path / "example.yaml").write_text(f"#{text}")
        named = read_settings(name, tmp_path / "example.yaml").model_fields_set
        assert named == set(SETTINGS[name].model_fields) - {"cluster"}


def test_job_of_several_ranks_has_as_many_gpus_to_itself():
    slots = local.make_slots(8, None, ("0", "1", "2", "5"), ranks=2)
    assert slots.workers == 2
    assert [slots.gpus_of(slot) for slot in (0, 1)] == ["0,1", "2,5"]
    with pytest.raises(UserError, match="ranks=2 needs a GPU each, here are 1"):
        local.make_slots(1, None, ("0",), ranks=2)


def test_process_on_a_leash_ends_with_the_one_that_started_it(tmp_path):
    """Even where that is killed: an engine's worker must not leave a run behind on its GPU."""
    code = f"from benchmark.executors.launch import LEASH; import subprocess, sys; \
print(subprocess.Popen([sys.executable, '-c', LEASH, '{shutil.which('sleep')}', '300']).pid, flush=True); input()"
    worker = subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    child = int(worker.stdout.readline())
    wait_for(lambda: "sleep" in Path(f"/proc/{child}/comm").read_text())
    worker.kill()
    worker.communicate()
    wait_for(lambda: not Path(f"/proc/{child}").exists() or "Z" in Path(f"/proc/{child}/stat").read_text().split()[2])


FAULTS = """
import resource
import numpy as np

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10):
        np.ones(2**23)  # 64 MiB, 16,384 pages, written and freed
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

faults()
print(faults())
"""


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "gnu_get_libc_version"), reason="the C library is not glibc")
def test_a_run_s_process_keeps_the_pages_that_it_frees():
    given_back, kept = (
        int(subprocess.run([sys.executable, "-c", FAULTS], env=env, capture_output=True, check=True).stdout)
        for env in ({k: v for k, v in os.environ.items() if not k.startswith("MALLOC_")}, launch.environment(1))
    )
    assert kept < given_back / 10
    assert given_back > 100  # far fewer than 163,840 where the kernel's pages are huge


def test_what_the_user_sets_for_malloc_stands(monkeypatch):
    monkeypatch.setenv("MALLOC_TOP_PAD_", "131072")
    monkeypatch.setenv("OMP_NUM_THREADS", "64")
    made = launch.environment(2)
    assert (made["MALLOC_TOP_PAD_"], made["MALLOC_MMAP_MAX_"], made["OMP_NUM_THREADS"]) == ("131072", "0", "2")


# A claim of another host, which looks stale from here and turns workers away


@pytest.fixture
def claimed(tmp_path, make_job) -> Run:
    run = run_module.submit(tmp_path, make_job())
    run_module.write_json(run.path("claim.json"), {"host": "alpha boot pid:[1]", "pid": 7, "started": 1.0})
    os.utime(run.path("claim.json"), (1e9, 1e9))
    return run


def test_ray_starts_no_task_while_the_claim_stands(claimed, monkeypatch):
    submitted, told, deadline = [], [], time.monotonic() + 2
    engine = SimpleNamespace(
        get=lambda task: 3, wait=lambda tasks, **_: (tasks, []), cancel=print, shutdown=print,
        exceptions=SimpleNamespace(RayError=RuntimeError),
    )  # fmt: skip
    monkeypatch.setattr(ray, "_connect", lambda _: engine)
    monkeypatch.setattr(ray, "_submit", lambda *_: submitted.append(1) or len(submitted))

    def view(runs, its):
        told.extend(map(str, its.values()))
        if time.monotonic() > deadline:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ray.execute([claimed], [], ray.Settings(), view)
    assert submitted == [], "nor a first one, which the claim would turn away"
    assert set(told) == {"waiting for process 7 on alpha, which holds it"}


def test_a_slurm_job_starts_no_second_process_while_the_claim_stands(claimed, monkeypatch):
    started = []

    def run_job(task, folder):
        started.append(claimed.path("claim.json").exists())
        return 3 if started[-1] else 0

    monkeypatch.setattr(slurm.Task, "_run", run_job)
    monkeypatch.setattr(slurm, "QUEUE_SECONDS", 0.05)
    release = Timer(2, claimed.path("claim.json").unlink)
    release.start()
    slurm.Task([], 1, os.getcwd(), True)(str(claimed.folder))
    release.join()
    assert started == [True, False]
