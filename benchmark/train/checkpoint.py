"""Stopping a run in time without a loss, and going on from where it stopped."""

import os
import signal
import sys
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NoReturn

import torch
from torch import Tensor

from benchmark.errors import UserError
from benchmark.methods.models import Backbone
from benchmark.store.run import Run
from benchmark.train import distributed

SAVE_SECONDS = 3.0  # before the deadline, for the checkpoint


class OutOfTimeError(Exception):
    """The budget does not hold what comes next; the run goes on from its last checkpoint when it is called again."""


@dataclass
class State:
    """What a checkpoint holds."""

    model: Backbone
    optimizer: torch.optim.SGD
    threads: int  # sums depend on how they are split, so a resumed run keeps the number that it began with
    epochs: list[dict[str, Any]]  # metrics of the whole epochs done
    partial: dict[str, Any] | None = None  # of the epoch that was stopped: steps done, loss sums, seconds, rng


def clock() -> float:
    return time.time()


class Stop:
    """Ends the run in time and without a loss: on SIGTERM, or so long before the deadline that a checkpoint can be
    written. Ranks stop together, and where there are several, only between epochs: what each has seen of one that is
    cut short is in no checkpoint."""

    def __init__(self, run: Run, state: State, deadline: float) -> None:
        self._run, self._state, self._deadline = run, state, deadline
        self._asked = threading.Event()
        self.position: tuple[int, dict[str, Tensor], float] = (0, {}, 0.0)  # in the epoch: steps, loss sums, seconds

    @contextmanager
    def listening(self) -> Iterator[None]:
        """SIGTERM waits for the end of the step; elsewhere it unwinds at once."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = signal.signal(signal.SIGTERM, lambda *_: self._asked.set())
        try:
            yield
        finally:
            signal.signal(signal.SIGTERM, before)

    def before_epoch(self) -> None:
        """With several ranks, also where the next epoch, taken to last a tenth longer than the last one, would end
        after the deadline. How long a first epoch lasts is not known: it is begun, and dropped at the deadline."""
        last = self._state.epochs[-1]["seconds"] if self._state.epochs and distributed.size() > 1 else 0.0
        left = self._deadline - clock()
        if distributed.any_rank(self._asked.is_set() or left < max(1.1 * last, SAVE_SECONDS)):
            self._end(f"an epoch takes {last:.0f} s, {max(left, 0):.0f} s are left" if last else "no time is left")

    def after_step(self, done: int, sums: dict[str, Tensor], seconds: float) -> None:
        self.position = done, sums, seconds
        if distributed.any_rank(self._due()):
            self._keep()
            self._end(f"in epoch {len(self._state.epochs) + 1}, after {done} steps")

    def in_test(self) -> None:
        """Between test batches: the epoch's steps are kept, and the test begins anew."""
        if distributed.size() == 1 and self._due():
            self._keep()
            self._end(f"in the test after epoch {len(self._state.epochs) + 1}")

    def _due(self) -> bool:
        return self._asked.is_set() or self._deadline - clock() < SAVE_SECONDS

    def _keep(self) -> None:
        if distributed.size() == 1:
            done, sums, seconds = self.position
            device = _device(self._state)
            rng = {"cpu": torch.get_rng_state()}
            rng |= {"cuda": torch.cuda.get_rng_state(device)} if device.type == "cuda" else {}
            self._state.partial = {"done": done, "sums": sums, "seconds": seconds, "rng": rng}
            save(self._run, self._state)

    def _end(self, reason: str) -> NoReturn:
        if distributed.any_rank(self._asked.is_set()):
            sys.exit(143)
        raise OutOfTimeError(reason)


def resume_epoch(state: State) -> tuple[int, dict[str, Tensor], float]:
    """Steps done, loss sums and seconds of the epoch that begins: none, or where a stopped one goes on."""
    partial, state.partial = state.partial, None
    if partial is None:
        return 0, {}, 0.0
    torch.set_rng_state(partial["rng"]["cpu"])
    device = _device(state)
    if device.type == "cuda" and "cuda" in partial["rng"]:
        torch.cuda.set_rng_state(partial["rng"]["cuda"], device)
    return partial["done"], {name: total.to(device) for name, total in partial["sums"].items()}, partial["seconds"]


def _device(state: State) -> torch.device:
    return next(state.model.parameters()).device


def save(run: Run, state: State) -> None:
    path = run.path("checkpoint.pt")
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    try:
        saved: dict[str, Any] = {"model": state.model.state_dict(), "optimizer": state.optimizer.state_dict()}
        saved |= {"threads": state.threads, "epochs": state.epochs, "partial": state.partial}
        torch.save(saved, temporary)
        os.replace(temporary, path)
    except (OSError, RuntimeError) as error:  # torch reports a full disk as a RuntimeError
        raise UserError(
            f"{path}: cannot be written ({str(error).splitlines()[0]}); free some space and call again; "
            "the run goes on from its last checkpoint"
        ) from None
    finally:
        temporary.unlink(missing_ok=True)


def resume(run: Run, start: Callable[[], State]) -> State:
    """The state of the checkpoint: after an epoch, or within the one that was stopped. Without a checkpoint, what
    `start` makes; one that cannot be read is set aside, and the run starts anew."""
    state, path = start(), run.path("checkpoint.pt")
    if not path.exists():
        return state
    try:
        with zipfile.ZipFile(path) as archive:  # torch.load does not look at the checksums that torch.save wrote
            if (damaged := archive.testzip()) is not None:
                raise zipfile.BadZipFile(f"wrong checksum of {damaged}")
        saved = torch.load(path, map_location="cpu", weights_only=True)
        state.model.load_state_dict(saved["model"])
        _load_optimizer(state.optimizer, saved["optimizer"])
        if [epoch["epoch"] for epoch in saved["epochs"]] != list(range(1, len(saved["epochs"]) + 1)):
            raise ValueError("its epochs are not 1, 2, ...")
        return State(state.model, state.optimizer, int(saved["threads"]), list(saved["epochs"]), saved.get("partial"))
    except Exception as error:  # whatever a damaged pickle or zip can raise
        aside = path.with_name(f"checkpoint.corrupt-{time.time_ns()}")
        path.rename(aside)
        print(f"{path}: corrupt checkpoint ({type(error).__name__}); set aside as {aside.name}, starting anew")
        return start()


def _load_optimizer(optimizer: torch.optim.SGD, saved: dict[str, Any]) -> None:
    """Its state and settings, but those of the device: which kernels step is the device's that it steps on now."""
    of_device = [{name: group[name] for name in ("fused", "foreach")} for group in optimizer.param_groups]
    optimizer.load_state_dict(saved)
    for group, own in zip(optimizer.param_groups, of_device, strict=True):
        group.update(own)
