"""A run as a process of an engine's worker: the same command that the local executor starts, which does not outlive
the worker."""

import os
import signal
import subprocess
import sys
from pathlib import Path

from benchmark.errors import UserError
from benchmark.store.run import Run

GRACE_SECONDS = 10.0
# Linux ends a process so started when the one that started it ends, however that ends: a worker that is killed leaves
# no run behind on a GPU that the engine takes for free. It is prctl(PR_SET_PDEATHSIG, SIGTERM), and outlasts exec.
LEASH = "import ctypes, os, sys; ctypes.CDLL(None).prctl(1, 15); os.execv(sys.argv[1], sys.argv[1:])"

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
