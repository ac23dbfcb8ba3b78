"""What is measured: the suite's own training step and its own epoch, on random images or on drawn ones."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmark.data import ImageSet, Pixels
from benchmark.matrix import grid
from benchmark.matrix.job import BACKBONES, Job
from benchmark.methods.baseline import Terms
from benchmark.train import batches, loop
from benchmark.train.step import Step


@dataclass(frozen=True)
class Settings:
    """Where, and how much of it."""

    device: torch.device
    cache: Path
    quick: bool = False  # small images and few pairs: shows that the bench works, and little else

    @property
    def on_gpu(self) -> bool:
        return self.device.type == "cuda"

    @property
    def pairs(self) -> int:
        return 2 if self.quick else 5

    @property
    def networks(self) -> tuple[str, ...]:
        return ("resnet18",) if self.quick else ("resnet18", "resnet50")

    @property
    def batch(self) -> int:
        return 16 if self.on_gpu else 2 if self.quick else 4

    def size(self, backbone: str) -> int:
        """Pixels: the paper's for CIFAR, 224 for other data, less where nothing hangs on it."""
        if BACKBONES.index(backbone) in range(BACKBONES.index("resnet8"), BACKBONES.index("resnet110") + 1):
            return 32
        return 64 if self.quick else 80 if "narrow" in backbone else 224


class Side:
    """The suite's own training step on one random batch; `size` (pixels) and `batch` default to the settings'."""

    def __init__(
        self, method: str, backbone: str, precision: str, settings: Settings, recorded: bool | None = None,
        size: int | None = None, batch: int | None = None,
    ) -> None:  # fmt: skip
        size, batch = size or settings.size(backbone), batch or settings.batch
        self.job = job_of(method, backbone=backbone, precision=precision, image_size=size)
        state = loop.start(self.job, 20, execution(settings))
        self.model = state.model.train()
        recorded = settings.on_gpu if recorded is None else recorded
        self._step = Step(state.model, state.optimizer, self.job, recorded)
        self.images, self.labels = random_batch(self.job, 20, batch, settings.device)

    def __call__(self) -> Terms:
        return self._step(self.images, self.labels, 0, 0.0)


def random_batch(job: Job, num_classes: int, batch: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Images as a network sees them and labels as a job's loss takes them, always the same."""
    generator = torch.Generator().manual_seed(0)
    dtype = torch.float64 if job.precision == "float64" else torch.float32
    images = torch.randn(batch, 3, job.image_size, job.image_size, generator=generator).to(device, dtype)
    if job.loss == "cross_entropy":
        labels = torch.randint(0, num_classes, (batch,), generator=generator)
    else:
        labels = torch.randint(0, 2, (batch, num_classes), generator=generator) * 2 - 1
    return images.contiguous(memory_format=torch.channels_last), labels.to(device)


class Loop:
    """The suite's own epoch over `pixels`, data included; returns the mean loss."""

    def __init__(self, job: Job, pixels: Pixels, settings: Settings) -> None:
        self.job, self.pixels = job, pixels
        chosen = batches.training_subset(job, len(pixels))
        self.draws = batches.Draws(job, 0, chosen, len(pixels))
        self.view = batches.View.of(job, pixels, chosen, settings.device)
        state = loop.start(job, len(pixels.images.classes), execution(settings))
        self.model, self._calls = state.model.train(), 0
        self._step = Step(state.model, state.optimizer, job, settings.on_gpu)

    def __call__(self) -> Terms:
        self._calls += 1  # a GPU records anew in each epoch, and that time counts
        total: Any = 0
        for images, labels, *_ in batches.of_epoch(self.job, self.view, self.pixels, self.draws, 0):
            total = total + self._step(images, labels, self._calls, 0.0)["loss"] * len(labels)
        return {"loss": total / len(self.draws.order)}

    def share_waited(self) -> float:
        """Of an epoch's time after its first batch, the part between asking for a batch and having it."""
        self._calls += 1
        coming = batches.of_epoch(self.job, self.view, self.pixels, self.draws, 0)
        self._step(*next(coming)[:2], self._calls, 0.0)
        synchronize(self.view.mean.device)
        began, waited = time.perf_counter(), 0.0
        while True:
            asked = time.perf_counter()
            batch = next(coming, None)
            synchronize(self.view.mean.device)
            if batch is None:
                return waited / (asked - began)
            waited += time.perf_counter() - asked
            self._step(*batch[:2], self._calls, 0.0)
            synchronize(self.view.mean.device)


def seconds(side: Callable[[], Any], device: torch.device) -> tuple[float, float]:
    """Of one call: by the clock, and of this process's processor time."""
    clocks = (time.perf_counter, time.process_time)
    synchronize(device)
    started = [clock() for clock in clocks]
    side()
    synchronize(device)
    wall, processor = (clock() - then for clock, then in zip(clocks, started, strict=True))
    return wall, processor


def job_of(method: str, **changes: Any) -> Job:
    """VOC's job at paper scale with random weights and these fields."""
    return grid.load("voc").jobs("paper", {"weights": "scratch"} | changes, {"method": [method], "seed": [0]})[0]


def execution(settings: Settings) -> loop.Execution:
    """On the bench's device, with the threads that torch has."""
    return loop.Execution(None, None, settings.cache, str(settings.device), torch.get_num_threads())


def cifar(method: str, num_images: int, settings: Settings) -> Loop:
    """CIFAR-100's protocol on random pixels, which take as long."""
    backbone = "resnet110" if settings.on_gpu else "resnet8" if settings.quick else "resnet20"
    job = grid.load("cifar100").jobs("paper", {"backbone": backbone}, {"method": [method], "seed": [0]})[0]
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (num_images, 32, 32, 3), np.uint8)
    names = tuple(map(str, range(100)))
    images = ImageSet(names, tuple(map(str, range(num_images))), pixels, rng.integers(0, 100, num_images))
    return Loop(job, Pixels(images, 32, "none", pixels), settings)


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
