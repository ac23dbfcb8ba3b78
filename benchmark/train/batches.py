"""From stored pixels to the batches that a network sees: which images, in which order, cut and mirrored how."""

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from benchmark.data import Pixels, boxed
from benchmark.errors import UserError
from benchmark.matrix import study
from benchmark.matrix.job import Job
from benchmark.train import distributed

# ImageNet's channel means and standard deviations, which torchvision's weights expect, on the scale of uint8.
MEAN = torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1) * 255
STD = torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1) * 255
RESIDENT_BYTES = 2 * 2**30  # stored pixels of a split up to this size, such as VOC's 1.6 GB, are kept on the GPU


def of_epoch(
    job: Job, view: "View", train: Pixels, draws: "Draws", epoch: int, first: int = 0
) -> Iterator[tuple[Tensor, Tensor, float, int]]:
    """Of each batch of an epoch, from the `first`, this rank's images, as the network sees them, and labels, on the
    view's device; their share of the batch, in [0, 1], and the size of the whole batch."""
    device = view.mean.device
    # What was drawn goes to the device once, in the epoch's order: a copy a batch would make the GPU wait.
    order, mirrored, offsets, labels = (
        torch.from_numpy(drawn).to(device)
        for drawn in (
            draws.order, draws.mirrored[draws.order], draws.offsets[draws.order], train.images.targets[draws.order]
        )
    )  # fmt: skip
    if view.boxed is not None:  # beside the labels, cell by cell
        cells_NHW = view.boxed[order]
        cells_NHW = torch.where(mirrored[:, None, None], cells_NHW.flip(2), cells_NHW)
        labels = torch.cat([labels, cells_NHW.flatten(1)], dim=1)
    whole = [slice(i, min(i + job.batch_size, len(order))) for i in range(0, len(order), job.batch_size)][first:]
    shares = [distributed.share(part) for part in whole]

    def read(part: slice) -> Tensor:
        indices = draws.order[part]
        return loaded(len(indices), train.size, device, lambda out: train.train_batch(indices, job.seed, epoch, out))

    mine, resident = [part for part, _ in shares], view.resident
    pixels = ahead(mine, read) if resident is None else ((part, resident[order[part]]) for part in mine)
    for (part, pixels_NHWC), (_, weight), batch in zip(pixels, shares, whole, strict=True):
        yield view(pixels_NHWC, mirrored[part], offsets[part]), labels[part], weight, batch.stop - batch.start


def ahead(parts: list[Any], read: Callable[[Any], Any]) -> Iterator[tuple[Any, Any]]:
    """Each part with what is read for it, the next two being read meanwhile."""
    with ThreadPoolExecutor(1) as pool:
        coming = deque(pool.submit(read, part) for part in parts[:2])
        for i, part in enumerate(parts):
            pixels = coming.popleft().result()
            coming.extend(pool.submit(read, later) for later in parts[i + 2 : i + 3])
            yield part, pixels


def loaded(count: int, size: int, device: torch.device, read: Callable[[np.ndarray], Any]) -> Tensor:
    """The (count, size, size, 3) uint8 that `read` writes into an array of that shape; for a GPU straight into memory
    that it can fetch without stopping the host."""
    pixels = torch.empty((count, size, size, 3), dtype=torch.uint8, pin_memory=device.type == "cuda")
    read(pixels.numpy())
    return pixels


class Draws:
    """What chance decides in one epoch, from (seed, epoch) alone: baseline and ICASC of a seed see the same data.

    Not independent of all other draws: docs/data.md, "What the seed draws"."""

    def __init__(self, job: Job, epoch: int, chosen: np.ndarray, num_images: int) -> None:
        rng = np.random.default_rng([job.seed, epoch])
        self.order = rng.permutation(chosen)
        self.mirrored = (rng.random(num_images) < 0.5) & job.flip
        self.offsets = rng.integers(0, 2 * (job.pad_crop or 0) + 1, (num_images, 2))


def training_subset(job: Job, num_images: int) -> np.ndarray:
    """Indices to train on: all, or job.limit_train of them drawn from the seed alone, the same for every method; of
    these the share that the method is given, so that a larger share holds a smaller one."""
    whole = min(num_images, job.limit_train or num_images)
    kept = round(study.method(job.method).train_share * whole)
    if kept == num_images:
        return np.arange(num_images)
    return np.sort(np.random.default_rng(job.seed).permutation(num_images)[:kept])


@dataclass(frozen=True)
class View:
    """From uint8 pixels to what the network sees. `mean` and `std` are (1, 3, 1, 1) or (1, 3, H, W), on 0 ... 255.

    resident: all training pixels (N, H, W, 3) where they fit on the GPU, to be picked from by index. boxed: for a
    method that is guided by boxes, (N, CELLS, CELLS) of 1 where an object is.
    """

    mean: Tensor
    std: Tensor
    pad_crop: int
    resident: Tensor | None = None
    boxed: Tensor | None = None

    @classmethod
    def of(cls, job: Job, train: Pixels, chosen: np.ndarray, device: torch.device) -> "View":
        mean, std = MEAN, STD
        if not isinstance(job.normalisation, str):
            given = job.normalisation.mean, job.normalisation.std
            mean, std = (torch.tensor(values).view(1, 3, 1, 1) * 255 for values in given)
        if job.normalisation == "per_pixel_mean":
            total = sum(
                train.test_batch(part).sum(0, dtype=np.int64) for part in np.array_split(chosen, 50) if len(part)
            )
            mean = torch.from_numpy(total / len(chosen)).permute(2, 0, 1)[None]
            std = torch.full((1, 3, 1, 1), 255.0)
        dtype = torch.float64 if job.precision == "float64" else torch.float32
        stored = train.array if train.array is not None and train.array.shape[1] == train.size else None
        fits = device.type == "cuda" and stored is not None and stored.nbytes <= RESIDENT_BYTES
        resident = torch.from_numpy(np.array(stored)).to(device) if fits else None
        guided = study.method(job.method).guided
        if guided and (job.resize != "warp" or job.pad_crop):
            raise UserError(f"{job.method}: boxes are known of whole pictures; set resize=warp and no pad_crop")
        cells = torch.from_numpy(boxed(train.images)).to(device) if guided else None
        return cls(mean.to(device, dtype), std.to(device, dtype), job.pad_crop or 0, resident, cells)

    def __call__(
        self, pixels_NHWC: Tensor | np.ndarray, mirrored_N: Tensor | np.ndarray, offsets_N2: Tensor | np.ndarray
    ) -> Tensor:
        """(N, 3, H, W) in channels_last: normalised, padded with zeros and cropped at the offsets, then mirrored."""
        images, device = self.plain(pixels_NHWC), self.mean.device
        mirrored_N, offsets_N2 = (torch.as_tensor(drawn, device=device) for drawn in (mirrored_N, offsets_N2))
        if self.pad_crop:
            height, width = images.shape[2:]
            padded_NHWC = F.pad(images, [self.pad_crop] * 4).permute(0, 2, 3, 1)
            windows = padded_NHWC.unfold(1, height, 1).unfold(2, width, 1)  # (N, y, x, 3, H, W), a view
            images = windows[torch.arange(len(images), device=device), offsets_N2[:, 0], offsets_N2[:, 1]]
        if mirrored_N.is_cuda or mirrored_N.any():  # to look would make the GPU wait
            images = torch.where(mirrored_N[:, None, None, None], images.flip(3), images)
        return images.contiguous(memory_format=torch.channels_last)

    def plain(self, pixels_NHWC: Tensor | np.ndarray) -> Tensor:
        """As a test image: normalised, and nothing else."""
        images = torch.as_tensor(pixels_NHWC).to(self.mean.device, non_blocking=True).permute(0, 3, 1, 2)
        return ((images.to(self.mean.dtype) - self.mean) / self.std).contiguous(memory_format=torch.channels_last)
