"""Do the maps of the true and of the most confusing class come apart? Measured the same way for every method, on the
same test images after every epoch, so that one sees whether ICASC does what it says even where accuracy stays. And what
is kept of a finished network's maps, so that they can be looked at without training it again."""

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from benchmark.data import ImageSet
from benchmark.matrix.job import Job
from benchmark.methods import attention, baseline, icasc
from benchmark.methods.models import Backbone

LAYERS = ("inner", "last")
AT_ONCE = {"cpu": 64, "cuda": 16}  # images: the maps' gradients of 64 need more memory than training, on a GPU
KEPT = 8  # images of those held out: chosen by no network's success
HELD_OUT = 64  # test images; which ones depends on no seed, so that all runs on a data set measure the same


def held_out(images: ImageSet) -> np.ndarray:
    """Indices of at most HELD_OUT test images that show a class and lack one, in the data set's order."""
    shown_NC, absent_NC = shown(images.targets, len(images.classes))
    usable = np.flatnonzero((shown_NC.any(dim=1) & absent_NC.any(dim=1)).numpy())
    return np.sort(np.random.default_rng(0).permutation(usable)[:HELD_OUT])


def spread_over_classes(images: ImageSet, held_out: np.ndarray) -> np.ndarray:
    """Choose KEPT of the held-out images so that their first classes differ as far as they can.

    Args:
        images: The test set.
        held_out: Indices into it, in its order.

    Returns:
        Indices in the data set's order: the first image of every class, then the second, and so on.
    """
    shown_NC, _ = shown(images.targets[held_out], len(images.classes))
    first_class_N = shown_NC.int().argmax(dim=1).tolist()
    turns = [first_class_N[:i].count(number) for i, number in enumerate(first_class_N)]
    order = sorted(range(len(held_out)), key=lambda i: (turns[i], i))
    return held_out[np.sort(order[:KEPT])]


def shown(targets: np.ndarray, num_classes: int) -> tuple[Tensor, Tensor]:
    """Which classes a test image shows and which it does not, two (N, C) of bool; a difficult one counts as neither."""
    if targets.ndim == 1:
        shown_NC = F.one_hot(torch.from_numpy(targets.astype(np.int64)), num_classes).bool()
        return shown_NC, ~shown_NC
    return torch.from_numpy(targets == baseline.PRESENT), torch.from_numpy(targets < baseline.DIFFICULT)


def measure(model: Backbone, images_BCHW: Tensor, targets: np.ndarray, job: Job) -> dict[str, float]:
    """Mean overlap (attention.overlap, 0 ... 1) of the true and the confusing class's maps at both layers, as Grad-CAM
    and as A_ch, and the share of blank true maps: a network whose maps are blank has no overlap either.

    In evaluation mode, where BatchNorm couples no images; of logits, whatever the job's own maps are made of.
    """
    model.eval()
    size = AT_ONCE[images_BCHW.device.type]
    parts = [slice(i, i + size) for i in range(0, len(images_BCHW), size)]
    per_image = [_per_image(model, images_BCHW[part], targets[part], job) for part in parts]
    return {name: round(float(torch.cat([values[name] for values in per_image]).mean()), 6) for name in per_image[0]}


def _per_image(model: Backbone, images_BCHW: Tensor, targets: np.ndarray, job: Job) -> dict[str, Tensor]:
    """What `measure` is the mean of, (B,) each."""

    def true_and_confusing(logits_BC: Tensor) -> tuple[Tensor, ...]:
        present_BC, absent_BC = (x.to(logits_BC.device) for x in shown(targets, logits_BC.shape[1]))
        return attention.cotangents(logits_BC, present_BC, absent_BC, "all_present")

    measured = {}
    for (kind, layer), (true, confusing) in _maps(model, images_BCHW, job, true_and_confusing).items():
        measured[f"{kind}_{layer}"] = attention.overlap(true, confusing)
        measured[f"{kind}_{layer}_blank"] = (true.amax(dim=(1, 2)) == 0).float()
    return measured


def kept(model: Backbone, images_BCHW: Tensor, classes_BK: Tensor, job: Job) -> dict[str, Tensor]:
    """Maps of K classes of each image at the last layer, of both kinds: (B, K, h, w) of 0 ... 255, each by its own
    maximum, coarse enough to be kept with a run. In evaluation mode, of logits, as in `measure`."""
    model.eval()
    maps = class_maps(model, images_BCHW, classes_BK, job, layers=("last",))
    result = {}
    for kind in attention.KINDS:
        maps_BKHW = maps[kind, "last"]
        scaled_BKHW = maps_BKHW / maps_BKHW.amax(dim=(2, 3), keepdim=True).clamp_min(attention.EPS)
        result[kind] = (255 * scaled_BKHW).round().to(torch.uint8)
    return result


def class_maps(
    model: Backbone,
    images_BCHW: Tensor,
    classes_BK: Tensor,
    job: Job,
    layers: tuple[str, ...] = LAYERS,
) -> dict[tuple[str, str], Tensor]:
    """By kind and layer, maps (B, K, h, w) of K classes of each image, as they are; trains nothing. One pass up for
    all. In evaluation mode each map is its image's own."""

    def each(logits_BC: Tensor) -> tuple[Tensor, ...]:
        return tuple(F.one_hot(of_images, logits_BC.shape[1]).to(logits_BC.dtype) for of_images in classes_BK.T)

    maps = _maps(model, images_BCHW, job, each, layers)
    return {key: torch.stack(of_classes, dim=1) for key, of_classes in maps.items()}


def _maps(
    model: Backbone,
    images_BCHW: Tensor,
    job: Job,
    cotangents_of: Callable[[Tensor], tuple[Tensor, ...]],
    layers: tuple[str, ...] = LAYERS,
) -> dict[tuple[str, str], list[Tensor]]:
    """By kind and layer, a map (B, h, w) for each (B, C) that cotangents_of gives for the logits (B, C)."""
    with baseline.autocast(images_BCHW.device, job):
        with torch.no_grad():
            inner = model.to_inner(images_BCHW)
        inner.requires_grad_()
        last = model.to_last(inner)
        logits_BC = model.head(last)
    cotangents, gradients = cotangents_of(logits_BC.detach()), {}
    if "inner" in layers:
        gradients["inner"] = [attention.gradient(logits_BC, inner, c, second_order=False) for c in cotangents]
    gradients["last"] = [icasc.last_gradient(model, last, logits_BC, c, second_order=False) for c in cotangents]
    feats = {"inner": inner, "last": last}
    return {
        (kind, layer): [
            attention.attention_map(baseline.wide(feats[layer]).detach(), baseline.wide(g).detach(), kind)
            for g in gradients[layer]
        ]
        for kind in attention.KINDS
        for layer in layers
    }
