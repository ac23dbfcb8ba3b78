"""What the method claims to change: attention maps of trained networks, drawn and measured over the whole test set.

As the supplement's Figures 1 and 2: for an image the five highest classes' maps of the baseline above those of ICASC.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from safetensors.torch import load_file
from torch import Tensor

from benchmark.data import Pixels
from benchmark.errors import UserError
from benchmark.evidence.figures import Drawing, literal, settings
from benchmark.matrix import study
from benchmark.matrix.job import Job
from benchmark.matrix.matrix import Matrix
from benchmark.methods import attention, icasc, models, overlap
from benchmark.methods.models import Backbone
from benchmark.store.run import Run
from benchmark.tables import stats
from benchmark.train import batches, loop

WEIGHTS = "model.safetensors"  # state of Backbone.net, in a run folder; float16 will do
TOP = 5  # maps an image and network
BATCH = 32


@dataclass(frozen=True)
class Pair:
    """A baseline and an ICASC run of one seed, tested on the same images."""

    baseline: Run
    ours: Run
    job: Job  # the ICASC job: its options are read for both networks
    test: Pixels
    view: batches.View


def missing(matrix: Matrix) -> list[Job]:
    """The jobs whose weights were not kept."""
    return [job for job in matrix.jobs if not (matrix.folder(job) / WEIGHTS).exists()]


def load_pairs(matrix: Matrix, data_root: Path | None, cache: Path) -> list[Pair]:
    """Each run of a method that says which maps it moves, with the baseline of its network, split and seed."""
    first, *_ = matrix.methods
    baselines = {(j.backbone, j.train_split, j.seed): j for j in matrix.jobs if j.method == first}
    return [
        load_pair(matrix, baselines[job.backbone, job.train_split, job.seed], job, data_root, cache)
        for job in matrix.jobs
        if job.method != first and job.map_scale is not None  # whose terms `measure` can compute
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


def top_maps(model: Backbone, images_BCHW: Tensor, job: Job) -> tuple[Tensor, Tensor, Tensor]:
    """Logits (B, C), the highest classes (B, TOP), and their maps at the last layer (B, TOP, h, w), each scaled to its
    own maximum. The maps are those that `job`'s method trains."""
    with torch.no_grad():
        logits_BC = model(images_BCHW)
    top_BK = logits_BC.topk(min(TOP, logits_BC.shape[1]), dim=1).indices
    _, maps_BKHW = icasc.class_maps(model, images_BCHW, top_BK, kind(job))
    return logits_BC, top_BK, maps_BKHW / maps_BKHW.amax(dim=(2, 3), keepdim=True).clamp_min(attention.EPS)


def kind(job: Job) -> str:
    """Of the method's maps."""
    return study.method(job.method).maps or ""


def overlap_of_maps(maps_BKHW: Tensor) -> Tensor:
    """Mean over the pairs of an image's maps of sum min / sum max, (B,) in [0, 1]; 1 where all are the same."""
    count = maps_BKHW.shape[1]
    pairs = [attention.overlap(maps_BKHW[:, i], maps_BKHW[:, j]) for i in range(count) for j in range(i)]
    return torch.stack(pairs).mean(dim=0)


def measure(run: Run, pair: Pair) -> dict[str, float]:
    """Means over the test set of the terms that ICASC trains, unweighted, and of the overlap of the highest maps.

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
        means["overlap_top5"] = float(overlap_of_maps(top_maps(model, batch, job)[2]).mean())
        for name, value in means.items():
            sums[name] = sums.get(name, 0.0) + value * len(batch)
    return {name: total / len(pair.test) for name, total in sums.items()}


def overlap_table(pairs: list[Pair]) -> list[dict[str, Any]]:
    """For each ICASC method a line for the baseline's maps and one for its own: mean and sample standard deviation
    over seeds of each number of `measure`. Both networks are measured by the ICASC job's options."""
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


def choose(right_NM: np.ndarray, count: int) -> dict[str, list[int]]:
    """Images by a stated rule, never by their looks: of each kind the first `count` in the test set's order.

    right_NM (N, 2): whether the highest class of the baseline and of ICASC is present.
    """
    kinds = {"ICASC right, baseline wrong": (False, True), "baseline right, ICASC wrong": (True, False)}
    return {
        name: np.flatnonzero((right_NM == np.array(wanted)).all(axis=1))[:count].tolist()
        for name, wanted in kinds.items()
    }


def right(model: Backbone, pair: Pair) -> np.ndarray:
    """Whether the highest class is one that the image shows, (N,) bool."""
    logits = loop.predict(model, pair.test, pair.view, pair.job)
    shown_NC, _ = overlap.shown(pair.test.images.targets, len(pair.test.images.classes))
    return shown_NC.numpy()[np.arange(len(logits)), logits.argmax(axis=1)]


def draw(pair: Pair, count: int = 4) -> list[Drawing]:
    """A figure for each kind of image that `choose` names; its caption says how many there are of each."""
    networks = [load_model(run, pair) for run in (pair.baseline, pair.ours)]
    right_NM = np.stack([right(model, pair) for model in networks], axis=1)
    chosen = choose(right_NM, count)
    totals = choose(right_NM, len(right_NM))
    drawings = []
    for (name, images), stem in zip(chosen.items(), ("attention-ours-right", "attention-baseline-right"), strict=True):
        if not images:
            continue
        caption = (
            f"{name}: the first {len(images)} of {len(totals[name])} such test images (of {len(right_NM)}; the reverse "
            f"holds for {sum(len(v) for k, v in totals.items() if k != name)}). Maps ({kind(pair.job)}) of the "
            f"{TOP} highest classes with their probabilities, baseline above ICASC; a true class is framed in red."
        )
        with settings():
            drawings.append(Drawing(stem, caption, _figure(pair, networks, images)))
    return drawings


def _figure(pair: Pair, networks: list[Backbone], chosen: list[int]) -> Figure:
    figure = Figure(figsize=(1.35 * (TOP + 1), 2.9 * len(chosen)), layout="constrained")
    grid = figure.subplots(2 * len(chosen), TOP + 1, squeeze=False)
    for axes in grid.ravel():
        axes.axis("off")
    pixels = pair.test.test_batch(np.array(chosen))
    shown_NC, _ = overlap.shown(pair.test.images.targets[chosen], len(pair.test.images.classes))
    for m, model in enumerate(networks):
        images = pair.view.plain(pixels)
        logits, top, maps = (x.cpu() for x in top_maps(model, images, pair.job))
        share = logits.sigmoid() if pair.test.images.targets.ndim == 2 else logits.softmax(dim=1)
        large = F.interpolate(maps, pixels.shape[1:3], mode="bilinear", align_corners=False).numpy()
        for i in range(len(chosen)):
            for k in range(top.shape[1]):
                c = int(top[i, k])
                title = f"{pair.test.images.classes[c]} {float(share[i, c]):.2f}"
                _overlay(grid[2 * i + m, k + 1], pixels[i], large[i, k], title, bool(shown_NC[i, c]))
    for i, of_image in enumerate(shown_NC):
        names = ", ".join(pair.test.images.classes[c] for c in np.flatnonzero(of_image.numpy()))
        grid[2 * i, 0].imshow(pixels[i])
        grid[2 * i, 0].set_title(f"true: {literal(names)}", fontsize=7, wrap=True)
        grid[2 * i + 1, 0].text(0.5, 0.5, "above: baseline\nbelow: ICASC", ha="center", va="center", fontsize=7)
    return figure


def _overlay(axes: Any, pixels: np.ndarray, map_HW: np.ndarray, title: str, true: bool) -> None:
    """The image in grey under its map; a frame and a star, which survive grey print, mark a true class."""
    axes.imshow(pixels.mean(axis=2), cmap="gray", vmin=0, vmax=255)
    axes.imshow(map_HW, cmap="inferno", alpha=0.55, vmin=0, vmax=1)
    axes.set_title(literal(title) + (" *" if true else ""), fontsize=7)
    if true:
        axes.axis("on")
        axes.set(xticks=[], yticks=[])
        for spine in axes.spines.values():
            spine.set(visible=True, color="red", linewidth=2.5)
