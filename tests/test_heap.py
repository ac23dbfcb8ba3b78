"""Memory that was freed is used again instead of being asked of the kernel anew."""

import ctypes
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from benchmark import cli
from benchmark.matrix import grid
from benchmark.store import run as run_module
from benchmark.train import heap

GLIBC = sys.platform == "linux" and hasattr(ctypes.CDLL(None), "gnu_get_libc_version")
FAULTS = """
import resource, sys
import numpy as np
from benchmark.train import heap

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10):
        np.ones(2**23)  # 64 MiB, 16,384 pages, written and freed
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

given_back = faults()
assert heap.keep_freed_memory()
faults()
print(given_back, faults())
"""


@pytest.mark.skipif(not GLIBC, reason="the C library is not glibc")
def test_pages_are_kept():
    ended = subprocess.run([sys.executable, "-c", FAULTS], capture_output=True, text=True, check=True)
    given_back, kept = map(int, ended.stdout.split())
    assert kept < given_back / 10
    assert given_back > 100  # far fewer than 163,840 where the kernel's pages are huge


def test_another_c_library_is_left_alone(monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    assert heap.keep_freed_memory() is False


def test_a_job_s_process_keeps_them(tmp_path, monkeypatch):
    called = []
    monkeypatch.setattr(heap, "keep_freed_memory", lambda: called.append(True))
    run = run_module.submit(tmp_path, grid.load("voc").jobs("paper")[0])
    CliRunner().invoke(cli.app, ["run-job", str(run.folder), "--cache", str(tmp_path)])  # there is no such data
    assert called == [True]
