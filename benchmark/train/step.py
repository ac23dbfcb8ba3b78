"""One training step: forward, losses, backward, update. On a GPU it can be recorded, then replayed.

A small network's step is thousands of kernels, each shorter than Python needs to launch it; a CUDA graph launches them
all at once. It reads its batch and its learning rate from tensors that stay where they are, so each step first copies
into these.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from benchmark.matrix import study
from benchmark.matrix.job import Job
from benchmark.methods import METHODS
from benchmark.methods.baseline import Terms
from benchmark.methods.models import Backbone
from benchmark.train import distributed

# Before a recording, so that libraries have chosen their algorithms and the optimiser has its buffers. These are steps
# of the training like all others: nothing is computed that does not count.
EAGER_STEPS = 3


def phase_of(job: Job, epoch: int) -> int:
    """All of an epoch that a method's step depends on: a recording serves as long as it stays. Of the methods here it
    is whether the warm-up is over; others may read the epoch itself."""
    return int(epoch >= (job.warmup_epochs or 0)) if job.method in METHODS else epoch


class Step:
    """step(images, labels, epoch, rate) -> loss terms and their sum, `loss`, detached, after one update of the model.

    The terms hold until the next call. weight: of these images in the whole batch, where ranks share it; each rank's
    terms are its own images'.

    recorded: from the fourth full batch on a recording is replayed, made anew where an epoch changes what the method
    computes. A full batch is the largest so far; a smaller one, the epoch's last or the first after a resumption, is
    computed as it comes. On the CPU, where there is nothing to record, the same function runs on the same buffers
    instead: the tests cover there all but the recording itself.
    """

    def __init__(self, model: Backbone, optimizer: torch.optim.SGD, job: Job, recorded: bool = False) -> None:
        self._model, self._optimizer, self._job = model, optimizer, job
        self._recorded = recorded
        device = next(model.parameters()).device
        self._aside = torch.cuda.Stream(device) if recorded and device.type == "cuda" else None
        # A recording reads the rate from a tensor, where a number would stay what it was; float32 is what the fused
        # optimiser reads.
        self._rate = torch.zeros((), device=device) if recorded else None
        self._buffers: tuple[Tensor, Tensor] | None = None
        self._phase: int | None = None
        self._taken = 0
        self._replay: Callable[[], None] | None = None
        self._terms: Terms = {}

    def __call__(self, images_BCHW: Tensor, labels: Tensor, epoch: int, rate: float, weight: float = 1.0) -> Terms:
        if self._rate is not None:
            self._rate.fill_(rate)
        for group in self._optimizer.param_groups:
            group["lr"] = rate if self._rate is None else self._rate
        if not self._recorded:
            return self._compute(images_BCHW, labels, epoch, weight)
        if self._buffers is None or len(images_BCHW) > len(self._buffers[0]):
            self._buffers, self._phase = (torch.empty_like(images_BCHW), torch.empty_like(labels)), None
        if self._phase != (phase := phase_of(self._job, epoch)):
            self._phase, self._taken, self._replay, self._terms = phase, 0, None, {}
        if images_BCHW.shape != self._buffers[0].shape:
            return self._compute(images_BCHW, labels, epoch)
        for buffer, given in zip(self._buffers, (images_BCHW, labels), strict=True):
            buffer.copy_(given)
        self._taken += 1
        if self._taken <= EAGER_STEPS:
            with self._off_the_default_stream():
                return self._compute(*self._buffers, epoch)
        if self._replay is None:
            self._replay = self._record(epoch)
        self._replay()
        return self._terms

    def _compute(self, images_BCHW: Tensor, labels: Tensor, epoch: int, weight: float = 1.0) -> Terms:
        _, terms = study.method(self._job.method)(self._model, images_BCHW, labels, self._job, epoch)
        loss = torch.stack(list(terms.values())).sum()
        self._optimizer.zero_grad(set_to_none=True)
        (loss if weight == 1.0 else loss * weight).backward()
        distributed.sum_gradients(self._model)
        self._optimizer.step()
        return {name: term.detach() for name, term in (terms | {"loss": loss}).items()}

    def _record(self, epoch: int) -> Callable[[], None]:
        """What replays the step. Recording queues nothing: the model is changed by the first replay."""

        def compute() -> None:
            assert self._buffers is not None
            self._terms = self._compute(*self._buffers, epoch)

        if self._aside is None:
            return compute
        graph = torch.cuda.CUDAGraph()
        # thread_local: the thread that reads the next batch may allocate and copy meanwhile.
        with torch.cuda.graph(graph, capture_error_mode="thread_local"):
            compute()
        return graph.replay

    @contextmanager
    def _off_the_default_stream(self) -> Iterator[None]:
        """Autograd remembers the stream that a parameter was first used on, and a recording cannot wait for the
        default one (PyTorch's notes on CUDA graphs)."""
        if self._aside is None:
            yield
            return
        self._aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._aside):
            yield
        torch.cuda.current_stream().wait_stream(self._aside)
