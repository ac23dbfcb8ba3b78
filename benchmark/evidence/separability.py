"""What the method claims to change: how far apart maps of trained networks are, over the whole test set."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from benchmark.data import Pixels
from benchmark.errors import UserError
from benchmark.evidence import maps
from benchmark.matrix import study
from benchmark.matrix.job import Job
from benchmark.matrix.matrix import Matrix
from benchmark.methods import attention, icasc, models, overlap
from benchmark.methods.models import Backbone
from benchmark.store.metrics import TOP
from benchmark.store.run import Run
from benchmark.tables import stats
from benchmark.train import batches, loop

WEIGHTS = "model.safetensors"  # state of Backbone.net, in a run folder; float16 will do
BATCH = 32


@dataclass(frozen=True)
class Pair:
    """A baseline and a run of a method that moves maps, of one seed, tested on the same images."""

    baseline: Run
    ours: Run
    job: Job  # of the method: its options are read for both networks
    test: Pixels
    view: batches.View


def missing(matrix: Matrix) -> list[Job]:
    """The jobs whose weights were not kept."""
    return [job for job in matrix.jobs if not (matrix.folder(job) / WEIGHTS).exists()]


def load_pairs(matrix: Matrix, data_root: Path | None, cache: Path) -> list[Pair]:
    """Each run of a method that says which maps it moves, with the baseline of its network, split and seed."""
    return [
        load_pair(matrix, baseline, ours, data_root, cache)
        for baseline, ours in maps.pairs(matrix)
        if ours.map_scale is not None  # whose terms `measure` can compute
    ]


def load_pair(matrix: Matrix, baseline: Job, ours: Job, data_root: Path | None, cache: Path) -> Pair:
    """The two runs and the images that both were tested on."""
    trained_on, test = loop.open_splits(ours, loop.Execution(data_root, None, cache, "cpu", 1))
    view = batches.View.of(ours, trained_on, batches.training_subset(ours, len(trained_on)), _device())
    return Pair(Run(matrix.folder(baseline)), Run(matrix.folder(ours)), ours, test, view)


def load_model(run: Run, pair: Pair) -> Backbone:
    """The trained network in evaluation mode, cut where `pair.job` cuts it. UserError where its weights were not kept
    or do not fit."""
    job, path = run.job(), run.path(WEIGHTS)
    if not path.exists():
        raise UserError(
            f"{path}: missing, and maps need trained weights: move the folder away and train anew with --keep-weights"
        )
    model = models.build(job.backbone, len(pair.test.images.classes), job.seed, pair.job.inner_layer)
    try:
        model.net.load_state_dict({name: tensor.float() for name, tensor in load_file(path).items()}, strict=True)
    except Exception as error:  # a damaged or foreign file fails in many ways
        raise UserError(f"{path}: not the weights of {job.backbone} ({str(error).splitlines()[0]})") from None
    return model.to(_device()).eval()


def _device() -> torch.device:
    return torch.device(loop.resolve("auto"))


def top_maps(model: Backbone, images_BCHW: Tensor, job: Job) -> Tensor:
    """Maps of the highest classes at the last layer (B, TOP, h, w), each scaled to its own maximum: those that `job`'s
    method trains."""
    with torch.no_grad():
        logits_BC = model(images_BCHW)
    top_BK = logits_BC.topk(min(TOP, logits_BC.shape[1]), dim=1).indices
    _, maps_BKHW = icasc.class_maps(model, images_BCHW, top_BK, kind(job))
    return maps_BKHW / maps_BKHW.amax(dim=(2, 3), keepdim=True).clamp_min(attention.EPS)


def kind(job: Job) -> str:
    """Of the method's maps."""
    return study.method(job.method).maps or ""


def overlap_of_maps(maps_BKHW: Tensor) -> Tensor:
    """Mean over the pairs of an image's maps of sum min / sum max, (B,) in [0, 1]; 1 where all are the same."""
    count = maps_BKHW.shape[1]
    pairs = [attention.overlap(maps_BKHW[:, i], maps_BKHW[:, j]) for i in range(count) for j in range(i)]
    return torch.stack(pairs).mean(dim=0)


def measure(run: Run, pair: Pair) -> dict[str, float]:
    """Means over the test set of the attention terms, unweighted, and of the overlap of the highest maps.

    In evaluation mode: BatchNorm couples no images, so a map belongs to its image alone.
    """
    model = load_model(run, pair)
    job = pair.job.model_copy(update={"attention_weight": 1.0, "second_order": False})
    shown_NC, absent_NC = (
        p.to(_device()) for p in overlap.shown(pair.test.images.targets, len(pair.test.images.classes))
    )
    sums: dict[str, float] = {}
    for at in np.split(np.arange(len(pair.test)), range(BATCH, len(pair.test), BATCH)):
        batch = pair.view.plain(pair.test.test_batch(at))
        inner = model.to_inner(batch).detach().requires_grad_()
        last = model.to_last(inner)
        logits = model.head(last)
        terms = icasc.attention_terms(model, inner, last, logits, shown_NC[at], absent_NC[at], job, kind(pair.job))
        means = {name: float(term.detach()) for name, term in terms.items()}
        means["overlap_top5"] = float(overlap_of_maps(top_maps(model, batch, job)).mean())
        for name, value in means.items():
            sums[name] = sums.get(name, 0.0) + value * len(batch)
    return {name: total / len(pair.test) for name, total in sums.items()}


def overlap_table(pairs: list[Pair]) -> list[dict[str, Any]]:
    """For each method that moves maps a line for the baseline's maps and one for its own: mean and sample standard
    deviation over seeds of each number of `measure`. Both networks are measured by the job of the method."""
    lines = []
    for method in dict.fromkeys(pair.job.method for pair in pairs):
        of_method = [pair for pair in pairs if pair.job.method == method]
        for network, runs in (("baseline", [p.baseline for p in of_method]), (method, [p.ours for p in of_method])):
            measured = [measure(run, pair) for run, pair in zip(runs, of_method, strict=True)]
            line: dict[str, Any] = {"maps": kind(of_method[0].job), "network": network, "n": len(measured)}
            for name in measured[0]:
                values = [means[name] for means in measured]
                line |= {name: float(np.mean(values)), f"{name}_std": stats.sample_std(values)}
            lines.append(line)
    return lines
