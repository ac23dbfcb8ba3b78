"""A run as a process of an engine's worker: the same command that the local executor starts, which does not outlive
the worker. And the ranks of a run, as processes of this machine."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

from benchmark.errors import UserError
from benchmark.store.run import Run

GRACE_SECONDS = 10.0
# Linux ends a process so started when the one that started it ends, however that ends: a worker that is killed leaves
# no run behind on a GPU that the engine takes for free. It is prctl(PR_SET_PDEATHSIG, SIGTERM), and outlasts exec.
LEASH = "import ctypes, os, sys; ctypes.CDLL(None).prctl(1, 15); os.execv(sys.argv[1], sys.argv[1:])"

MEETING = "BENCHMARK_RANKS_MEET_IN"  # the file in which a job's ranks tell each other their addresses
LOOPBACK = "lo0" if sys.platform == "darwin" else "lo"  # the interface that no other machine reaches
POLL_SECONDS = 0.05

# A training step frees hundreds of megabytes that the next one asks for again. By default glibc hands large blocks
# back, and the kernel must find and clear each of their pages anew. Nothing that is computed depends on it, and other C
# libraries do not read it (docs/performance.md).
KEEP_FREED_MEMORY = {
    "MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(2**63 - 1), "MALLOC_TOP_PAD_": str(2**26),
}  # fmt: skip


def ranks(run: Run) -> int:
    """How many processes share the run's job."""
    try:
        return run.job().ranks
    except UserError:
        return 1  # run-job says what is wrong with it


def environment(threads: int) -> dict[str, str]:
    """Of a process that runs a job."""
    count = str(threads)
    return (
        KEEP_FREED_MEMORY | os.environ | {"OMP_NUM_THREADS": count, "MKL_NUM_THREADS": count, "PYTHONUNBUFFERED": "1"}
    )


def start(
    folder: str, arguments: list[str], threads: int, cwd: str, hide_gpus: bool, ignored: tuple[int, ...] = ()
) -> subprocess.Popen:
    """`run-job folder` in a process group of its own, its output in the folder's log.txt. `hide_gpus`: it sees none,
    whatever the worker sees; `ignored`: signals to the worker that reach its whole container and are not for the run.
    """
    command = [sys.executable, "-m", "benchmark", "run-job", folder, "--threads", str(threads), *arguments]
    if sys.platform == "linux":
        command = [sys.executable, "-c", LEASH, *command]
    variables = environment(threads) | ({"CUDA_VISIBLE_DEVICES": ""} if hide_gpus else {})
    before = {number: signal.signal(number, signal.SIG_IGN) for number in ignored}  # which the new process inherits
    try:
        with open(Path(cwd, folder, "log.txt"), "ab") as log:
            return subprocess.Popen(
                command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, env=variables, cwd=cwd,
                start_new_session=True,
            )  # fmt: skip
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def started_ranks() -> int:
    """How many ranks share the job, this process being one; 1 where `in_ranks` has not started it."""
    return int(os.environ.get("WORLD_SIZE", 1)) if MEETING in os.environ else 1


def in_ranks(ranks: int, arguments: list[str]) -> int:
    """`python` with `arguments` in `ranks` processes of this machine; the exit status, which is the first one's that
    failed. They meet in a folder that only this user can enter, and listen on the loopback interface alone."""
    command = [sys.executable, *arguments]
    if sys.platform == "linux":
        command = [sys.executable, "-c", LEASH, *command]
    with tempfile.TemporaryDirectory(prefix="ranks-") as private:  # mode 0700
        shared = os.environ | {"WORLD_SIZE": str(ranks), MEETING: str(Path(private, "meeting"))}
        shared |= {"GLOO_SOCKET_IFNAME": LOOPBACK, "NCCL_SOCKET_IFNAME": LOOPBACK}
        processes: list[subprocess.Popen] = []
        try:
            for rank in range(ranks):
                variables = shared | {"RANK": str(rank)}
                processes.append(subprocess.Popen(command, env=variables, start_new_session=True))
            while True:
                ended = [process.poll() for process in processes]
                if failed := [status for status in ended if status]:
                    return failed[0] if failed[0] > 0 else 128 - failed[0]
                if None not in ended:
                    return 0
                time.sleep(POLL_SECONDS)
        finally:
            _end_together(processes)


def _end_together(processes: list[subprocess.Popen]) -> None:
    """Asked once: a second SIGTERM would interrupt what the first one has a rank do."""
    for process in processes:
        _signal(process, signal.SIGTERM)
    deadline = time.monotonic() + GRACE_SECONDS
    for process in processes:
        try:
            process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            _signal(process, signal.SIGKILL)
            process.wait()


def _signal(process: subprocess.Popen, number: int) -> None:
    if process.poll() is None:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, number)


def end(process: subprocess.Popen) -> None:
    """End its whole group: politely first, so that the claim is released."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        if process.poll() is None:
            os.killpg(process.pid, number)
        try:
            process.wait(GRACE_SECONDS)
            return
        except subprocess.TimeoutExpired:
            continue
