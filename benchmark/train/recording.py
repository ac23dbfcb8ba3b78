"""What a run writes down about itself: its result, what it ran on, why it failed. None of it changes a number."""

import os
import traceback
from collections.abc import Iterator

import numpy as np
import torch

from benchmark.data import Pixels
from benchmark.errors import UserError
from benchmark.matrix import study
from benchmark.matrix.job import Job
from benchmark.store import environment, metrics, scores
from benchmark.store.code import code_version, training_digest
from benchmark.store.records import (
    BestOnTest,
    Code,
    Cuda,
    Environment,
    Failure,
    FailureKind,
    Read,
    Result,
    Split,
    Splits,
)
from benchmark.store.run import Run
from benchmark.train.checkpoint import State

# What torch says where its exceptions have no type of their own. A device-side assert or an illegal access is missing
# on purpose: those are errors of the code.
OUT_OF_MEMORY = (
    "DefaultCPUAllocator: ",
    "CUDA error: out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
)
LOST_DEVICE = (
    "uncorrectable ECC error", "uncorrectable NVLink error", "busy or unavailable", "no CUDA-capable device",
    "hardware stack error", "unspecified launch failure", "launch timed out", "CUDA error: unknown error",
)  # fmt: skip


class DivergedError(Exception):
    """The loss stopped being a number: an outcome of the method, not a fault of the machine."""


def result(
    run: Run, job: Job, state: State, train: Pixels, chosen: np.ndarray, test: Pixels, scores_NC: np.ndarray,
    scores_sha256: str,
) -> Result:  # fmt: skip
    """The record that tables are made of. chosen: indices of the images trained on; scores_NC: logits of the test."""
    headline, _ = metrics.headline(scores_NC, test.images.targets)
    best = max(state.epochs, key=lambda e: e[f"test_{headline}"] or 0)
    measured = metrics.summary(scores_NC, test.images.targets, test.images.classes)
    if job.loss != "cross_entropy":
        shown_C = (train.images.targets[chosen] == 1).sum(axis=0)
        measured["num_positive_train"] = dict(zip(train.images.classes, shown_C.tolist(), strict=True))
    return Result(
        job=run.id,
        checkpoint="last_epoch",
        epoch=state.epochs[-1]["epoch"],
        best_on_test=BestOnTest(**{"epoch": best["epoch"], headline: best[f"test_{headline}"]}),
        num_train=len(chosen),
        num_test=len(test),
        seconds=round(sum(e["seconds"] for e in state.epochs), 3),
        code=Code(**code_version(), training=training_digest()).model_copy(update=_of_study(job)),
        scores_sha256=scores_sha256,
        data=Read(train=_split(train, chosen), test=_split(test, np.arange(len(test)))),
        **measured,
    )


def _of_study(job: Job) -> dict[str, str | None]:
    """The hash of the study's file, where that decides the number."""
    here = study.at_hand()
    return {"study": here.sha256} if job.method in here.own or job.backbone in here.backbones else {}


def _split(pixels: Pixels, chosen: np.ndarray) -> Split:
    ids, targets = np.array(pixels.images.ids)[chosen], pixels.images.targets[chosen]
    return Split(num_images=len(chosen), sha256=scores.digest(ids, targets))


def describe(device: torch.device, cuda_graph: bool, state: State, train: Pixels, test: Pixels) -> Environment:
    """What the run runs on; cuda_graph: whether its step is recorded and replayed."""
    return Environment(
        **environment.describe(),
        device=torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        threads=state.threads,
        memory_format="channels_last",
        cuda_graph=cuda_graph,
        tf32=torch.backends.cudnn.allow_tf32 if device.type == "cuda" else None,
        data_sha256=Splits(train=train.digest(), test=test.digest()),
        cuda=_cuda(device) if device.type == "cuda" else None,
    )


def _cuda(device: torch.device) -> Cuda:
    """What a result on a GPU can hang on, beside the GPU's name."""
    properties = torch.cuda.get_device_properties(device)
    return Cuda(
        version=torch.version.cuda,
        cudnn=torch.backends.cudnn.version(),
        driver=environment.nvidia_driver(),
        capability=f"{properties.major}.{properties.minor}",
        memory_bytes=properties.total_memory,
        cudnn_benchmark=torch.backends.cudnn.benchmark,
        cudnn_deterministic=torch.backends.cudnn.deterministic,
        deterministic_algorithms=torch.are_deterministic_algorithms_enabled(),
        allocator=os.environ.get("PYTORCH_ALLOC_CONF") or os.environ.get("PYTORCH_CUDA_ALLOC_CONF"),
    )


def failure(error: Exception, state: State | None) -> Failure:
    """Why the run ended, while `error` is being handled. state: None before the first step."""
    last = state.epochs[-1] if state is not None and state.epochs else None
    return Failure(
        kind=failure_kind(error),
        error=str(error),
        traceback=traceback.format_exc(),
        epoch=1 if last is None else last["epoch"] + 1,
        last_good_epoch=last,
    )


def failure_kind(error: Exception) -> FailureKind:
    """diverged, input or crash, which repeating would not mend; out_of_memory or lost_device, which it may."""
    if isinstance(error, DivergedError | UserError):
        return "diverged" if isinstance(error, DivergedError) else "input"
    kinds = {_machine_s(each) for each in _chain(error)} - {None}
    return "out_of_memory" if "out_of_memory" in kinds else "lost_device" if kinds else "crash"


def _machine_s(error: BaseException) -> FailureKind | None:
    """Which fault of the machine the exception tells of, if any."""
    text = str(error)
    if isinstance(error, MemoryError | torch.OutOfMemoryError) or any(t in text for t in OUT_OF_MEMORY):
        return "out_of_memory"
    return "lost_device" if isinstance(error, RuntimeError) and any(t in text for t in LOST_DEVICE) else None


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The exception and those that it came of: a capture that memory ran out in ends with an error of its own."""
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__ or (None if cause.__suppress_context__ else cause.__context__)
