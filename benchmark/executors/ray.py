"""A Ray cluster: one task a job. Ray finds the place, and repeats a task elsewhere when its node dies."""

import logging
import os
import secrets
import signal
import socket
import threading
import time
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from benchmark.errors import UserError
from benchmark.executors import launch
from benchmark.executors.outcome import (
    ALREADY_CLAIMED,
    HeldElsewhere,
    How,
    Outcome,
    View,
    final,
    held_elsewhere,
    recorded,
)
from benchmark.executors.patience import Patience
from benchmark.matrix.job import Float
from benchmark.store.code import ROOT
from benchmark.store.run import Run

POLL_SECONDS = 0.2
CONNECT_SECONDS = 10.0
ON_LOOPBACK = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"  # 0: its own address is the loopback one, as by default on macOS
SMALLEST_SHARE = 0.0001  # of a CPU or GPU: Ray counts them in such steps
RETRIES = 5  # of a job whose node dies: each goes on from the checkpoint


def _that_ray_can_give(share: float) -> float:
    if 0 < share < SMALLEST_SHARE:
        raise ValueError(f"Ray gives no less than {SMALLEST_SHARE} of one")
    return share


Share = Annotated[Float, AfterValidator(_that_ray_can_give)]


class Settings(BaseModel):
    """What `run --executor ray --settings FILE` reads."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    address: str | None = None  # HOST:PORT of the head node, or auto; without one, a cluster on this machine
    cpus: Annotated[Share, Field(gt=0)] = 1.0  # for each rank of a job
    gpus: Annotated[Share, Field(ge=0)] = 0.0  # for each rank; 0.5 puts two jobs on one


def execute(runs: list[Run], arguments: list[str], settings: Settings, view: View) -> dict[str, Outcome]:
    """As local's. The tasks end with the command that started them, their claims released and checkpoints kept."""
    ray = _connect(settings)
    waiting = [Patience(run) for run in runs if run.state() != "done"]
    outcomes: dict[str, Outcome] = {}
    active: dict[Any, Patience] = {}
    try:
        while waiting or active:
            elsewhere: dict[str, HeldElsewhere] = {}
            for job in list(waiting):
                run, state = job.run, job.run.state()
                if outcome := final(run, state):
                    outcomes[run.id] = outcome
                    waiting.remove(job)
                elif state != "running" and job.over():
                    active[_submit(ray, run, arguments, settings)] = job
                    waiting.remove(job)
                elif holder := held_elsewhere(run):
                    elsewhere[run.id] = holder
            _collect(ray, active, waiting, outcomes)
            view(runs, {**elsewhere, **outcomes})
            if waiting and not active:
                time.sleep(POLL_SECONDS)
    finally:
        for task in active:
            ray.cancel(task)
        if active:
            ray.wait(list(active), num_returns=len(active), timeout=2 * launch.GRACE_SECONDS)
        ray.shutdown()
    view(runs, outcomes)
    return outcomes


def _collect(ray: Any, active: dict[Any, Patience], waiting: list[Patience], outcomes: dict[str, Outcome]) -> None:
    """Active -> ended, or waiting again where another process has the run; waits a moment for that."""
    for task in ray.wait(list(active), num_returns=len(active), timeout=POLL_SECONDS)[0] if active else []:
        job = active.pop(task)
        outcome = _outcome(ray, task, job.run)
        if outcome is None:
            job.turned_away()
            waiting.append(job)
        else:
            outcomes[job.run.id] = outcome


def _connect(settings: Settings) -> Any:
    if not settings.address:  # all of it is read while Ray is imported
        # Its processes run what they are sent: only for who has this cluster's token, and from this machine.
        if "RAY_AUTH_MODE" not in os.environ:
            os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
        os.environ.setdefault(ON_LOOPBACK, "0")
    try:
        import ray
    except ImportError:
        raise UserError("--executor ray: Ray is not installed; pip install .[ray]") from None
    _answers(settings.address)
    # A cluster of this machine's own needs no dashboard; another one has its own settings.
    local = {"address": "local", "include_dashboard": False}
    options: dict[str, Any] = {"address": settings.address} if settings.address else local
    # Workers find the suite where this process does, on a file system that all nodes share.
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    options["runtime_env"] = {"env_vars": {"PYTHONPATH": path}}
    on_main_thread = threading.current_thread() is threading.main_thread()
    handler = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(**options, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise UserError(
            f"--executor ray: no cluster answers at address {settings.address} ({str(error).splitlines()[0]}); "
            "'ray start --head' starts one, and without an address one is started here"
        ) from None
    finally:
        if on_main_thread:
            signal.signal(signal.SIGTERM, handler)  # Ray has put its own in place, which ends without unwinding
    return ray


def _answers(address: str | None) -> None:
    """UserError where nothing listens at HOST:PORT: Ray itself would try for minutes."""
    host, colon, port = (address or "").rpartition(":")
    if not colon or not port.isdecimal() or "/" in host:  # `auto`, ray://..., which Ray looks into
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_SECONDS).close()
    except (OSError, OverflowError) as error:
        raise UserError(
            f"--executor ray: no cluster answers at address {address} ({error}); 'ray start --head' starts one, and "
            "without an address one is started here"
        ) from None


def _submit(ray: Any, run: Run, arguments: list[str], settings: Settings) -> Any:
    ranks = launch.ranks(run)
    cpus, gpus = settings.cpus * ranks, settings.gpus * ranks
    if gpus > 1 and gpus != int(gpus):
        raise UserError(
            f"{run.id}: {ranks} ranks with gpus: {settings.gpus:g} each; above one GPU, Ray takes whole ones"
        )
    task = ray.remote(_work).options(name=run.id, num_cpus=cpus, num_gpus=gpus, max_retries=RETRIES)
    return task.remote(str(run.folder), arguments, max(1, int(cpus)), os.getcwd(), gpus == 0)


def _work(folder: str, arguments: list[str], threads: int, cwd: str, hide_gpus: bool) -> int:
    """In a worker of Ray's: the exit status of the run's process, which is ended when the task is cancelled."""
    process = launch.start(folder, arguments, threads, cwd, hide_gpus)
    try:
        while process.poll() is None:
            time.sleep(POLL_SECONDS)  # where a cancelled task gets its KeyboardInterrupt
        return process.returncode
    finally:
        launch.end(process)


def _outcome(ray: Any, task: Any, run: Run) -> Outcome | None:
    """How the run ended; None where another process has it."""
    try:
        status = ray.get(task)
    except ray.exceptions.RayError as error:
        return Outcome(How.LOST_BY_RAY, reason=str(error).splitlines()[-1])
    state = run.state()
    if state != "done" and status == ALREADY_CLAIMED:
        return None
    if outcome := recorded(run, state):
        return outcome
    if status < 0 or status > 128:
        return Outcome(How.KILLED, signal=-status if status < 0 else status - 128)
    return Outcome(How.NO_RECORD, status=status, log=run.path("log.txt"))
