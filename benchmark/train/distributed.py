"""One job in several processes, its ranks: each takes its share of every batch, and their gradients are summed.

Gradients are summed explicitly, after `backward`, rather than by DistributedDataParallel. Its default is right for
ICASC too: `autograd.grad` inside the loss, second order or not, accumulates nothing, so it sees no gradient before the
final backward. But with `static_graph` or `find_unused_parameters` it hands out views of the outputs, which raises
where a map's gradient is taken outside `forward`. Pieces called past `forward`, as methods call a network's, keep a
rank's own gradients without a word. It divides by the number of ranks, which is the batch's mean only where all shares
are of one size, and gives every rank the first one's BatchNorm statistics before each step. FSDP2 of a stage raises:
the first-order gradient frees the weights that the second order needs (torch 2.14.1, two processes over gloo).

The sum over ranks of weight x loss, with a rank's share of the batch as its weight, is the loss of the whole batch,
for every term is a mean over images. BatchNorm is the exception: in training it normalises by a rank's own images, so
a job of two ranks is another job than one of one. Its running statistics are averaged over the ranks at each epoch's
end, whereupon all ranks are equal and the first one's checkpoint is the state of all.

Where a job has one rank everything here does nothing.
"""

import ctypes
import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from datetime import timedelta
from typing import Any, NoReturn

import torch
import torch.distributed as dist
from torch import Tensor, nn

from benchmark.errors import UserError
from benchmark.executors import launch

# How long ranks wait for each other: the first one may decode a whole data set. One that ends is noticed at once.
TIMEOUT = timedelta(hours=6)
LINGER_SECONDS = 30.0
PR_SET_PDEATHSIG = 1  # prctl(2)


def rank() -> int:
    return dist.get_rank() if dist.is_initialized() else 0


def size() -> int:
    return dist.get_world_size() if dist.is_initialized() else 1


def leads() -> bool:
    """Whether this is the rank that holds the claim and writes the records."""
    return rank() == 0


@contextmanager
def group(ranks: int, device: str) -> Iterator[str]:
    """Join the job's ranks, one of which `launch.in_ranks` has made this process; the device of this one.

    They meet in a file of a folder that is theirs alone: torch's store on a port, any process here could write to.

    UserError where the processes or the GPUs are not as many as `ranks`.
    """
    if ranks == 1:
        yield device
        return
    started = launch.started_ranks()
    if started != ranks:
        raise UserError(f"the job has ranks={ranks}, but {started} started; 'python -m benchmark run' starts as many")
    if device.startswith("cuda"):
        local = int(os.environ["RANK"])
        if torch.cuda.device_count() <= local:
            raise UserError(
                f"the job has ranks={ranks}, a GPU each, but torch sees {torch.cuda.device_count()}; "
                "--device cpu runs it without"
            )
        device = f"cuda:{local}"
        torch.cuda.set_device(device)
    _end_with_parent()
    # Tensors on the CPU, such as scores and signals between ranks, go through gloo in any case.
    store = dist.FileStore(os.environ[launch.MEETING], ranks)
    store.set_timeout(TIMEOUT)
    backends = "gloo" if device == "cpu" else "cpu:gloo,cuda:nccl"
    dist.init_process_group(backends, store=store, rank=int(os.environ["RANK"]), world_size=ranks, timeout=TIMEOUT)
    try:
        yield device
    finally:
        dist.destroy_process_group()


@contextmanager
def held_by_leader(claim: AbstractContextManager[Any]) -> Iterator[None]:
    """The first rank enters `claim` for all."""
    with ExitStack() as stack:
        if leads():
            try:
                stack.enter_context(claim)
            except BaseException:
                _tell(0)
                raise
        if not _tell(int(leads())):
            _linger("the first rank could not begin")
        yield


@contextmanager
def leader_first() -> Iterator[None]:
    """The others run the block after the first rank has."""
    if not leads():
        _tell(0)
    yield
    if leads():
        _tell(1)


def share(batch: slice) -> tuple[slice, float]:
    """This rank's part of a batch, and the part's share of it in [0, 1].

    Where ranks outnumber the images, as in a short last batch, one without any takes the first and a weight of 0: so
    every rank takes every step.
    """
    count = batch.stop - batch.start
    start, stop = (batch.start + count * r // size() for r in (rank(), rank() + 1))
    return (slice(start, stop), (stop - start) / count) if stop > start else (slice(batch.start, batch.start + 1), 0.0)


def in_turns(batches: list[slice]) -> list[slice]:
    """This rank's of the batches; over all ranks each is taken once."""
    return batches[rank() :: size()]


def sum_gradients(model: nn.Module) -> None:
    """Each parameter's gradient becomes the sum over the ranks, in one message."""
    if size() == 1:
        return
    parameters = [p for p in model.parameters() if p.requires_grad]
    for p in parameters:
        if p.grad is None:
            p.grad = torch.zeros_like(p)
    flat = torch.cat([p.grad.flatten() for p in parameters])  # type: ignore[union-attr]
    _all_reduce(flat)
    for p, part in zip(parameters, flat.split([p.numel() for p in parameters]), strict=True):
        assert p.grad is not None
        p.grad.copy_(part.view_as(p))


def average_buffers(model: nn.Module) -> None:
    """BatchNorm's running statistics become their means over the ranks."""
    if size() == 1:
        return
    for buffer in model.buffers():
        if buffer.is_floating_point():
            _all_reduce(buffer)
            buffer /= size()


def summed(values: dict[str, Tensor]) -> dict[str, Tensor]:
    """The values, all of one shape, added up over the ranks; every rank gets the sums."""
    if size() == 1:
        return values
    stacked = torch.stack(list(values.values()))
    _all_reduce(stacked)
    return dict(zip(values, stacked, strict=True))


def any_rank(flag: bool) -> bool:
    """Whether it holds in any rank; all get the same answer, so that they stop together."""
    return _tell(int(flag))


def _tell(flag: int) -> bool:
    """Say `flag`; whether any rank said 1."""
    if size() == 1:
        return bool(flag)
    said = torch.tensor([flag])
    _all_reduce(said)
    return bool(said)


def _all_reduce(tensor: Tensor) -> None:
    try:
        dist.all_reduce(tensor)
    except RuntimeError as error:
        _linger(f"another rank is gone ({str(error).splitlines()[0]})")


def _linger(why: str) -> NoReturn:
    """Wait for the launcher to end this rank. The rank that ended first records why, and its exit status is the job's;
    what others then meet is no outcome of the run."""
    time.sleep(LINGER_SECONDS)
    sys.exit(f"rank {rank()}: {why}")


def _end_with_parent() -> None:
    """The launcher puts ranks into sessions of their own: without this, they would outlive it when it is killed."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
