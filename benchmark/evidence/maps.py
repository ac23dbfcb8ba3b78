"""The attention maps that finished runs keep, drawn as the supplement's Figures 1 and 2: for an image the five highest
classes' maps of the baseline above those of a method. Neither weights nor training are needed."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from textwrap import fill
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from benchmark import data
from benchmark.errors import UserError
from benchmark.evidence.figures import Drawing, literal, settings
from benchmark.matrix import study
from benchmark.matrix.job import Job
from benchmark.matrix.matrix import Matrix
from benchmark.results.results import Results
from benchmark.store.metrics import TOP
from benchmark.store.scores import Maps, Scores

KINDS = {"grad_cam": "Grad-CAM", "a_ch": "A_ch"}


@dataclass(frozen=True)
class Images:
    """The images that maps are kept of; labels as in scores.npz: (M, C), 1 where present, or (M,) class numbers."""

    ids: list[str]
    labels: np.ndarray
    classes: list[str]
    pixels_MHWC: np.ndarray | None  # uint8, as the network sees them; None where the photographs are not at hand

    def shows(self, i: int, c: int) -> bool:
        return bool(self.labels[i, c] == 1 if self.labels.ndim == 2 else self.labels[i] == c)

    def name(self, c: int) -> str:
        return self.classes[c] if self.classes else f"class {c}"

    def true(self, i: int) -> str:
        present = np.flatnonzero(self.labels[i] == 1) if self.labels.ndim == 2 else [self.labels[i]]
        return ", ".join(self.name(int(c)) for c in present)


def pairs(matrix: Matrix) -> Iterator[tuple[Job, Job]]:
    """Each job of a method that says which maps it moves, after the baseline of its network, split and seed."""
    first, *_ = matrix.methods
    baselines = {(j.backbone, j.train_split, j.seed): j for j in matrix.jobs if j.method == first}
    for job in matrix.jobs:
        baseline = baselines.get((job.backbone, job.train_split, job.seed))
        if job.method != first and baseline and study.method(job.method).maps:
            yield baseline, job


def draw(results: Results, data_root: Path | None, cache: Path) -> list[Drawing]:
    """For each network, split and method the first seed whose runs keep maps: all images that they keep, in their
    order, none chosen by what it shows. Photographs are drawn where the data are at hand."""
    drawings: dict[str, Drawing] = {}
    for jobs in pairs(results.matrix):
        name = f"maps-{jobs[1].backbone}-{jobs[1].train_split}-{jobs[1].method}"
        if name in drawings:
            continue
        runs = [results.of(job) for job in jobs]
        kept = [found.maps if found.state == "done" else None for found in runs]
        kind = study.method(jobs[1].method).maps or ""
        saved = runs[1].scores
        if saved is not None and all(maps is not None and kind in maps.by_kind for maps in kept):
            images = _images(jobs[1], saved, kept[1].at, data_root, cache)  # type: ignore[union-attr]
            drawings[name] = _drawing(name, kind, jobs, kept, images)  # type: ignore[arg-type]
    return list(drawings.values())


def _images(job: Job, saved: Scores, at: np.ndarray, data_root: Path | None, cache: Path) -> Images:
    ids = [str(saved.ids[i]) for i in at]
    split = _at_hand(job, ids, data_root, cache)
    if split is None:
        return Images(ids, saved.labels[at], saved.classes, None)
    pixels = data.open_pixels(split, job.image_size, job.resize, cache).test_batch(np.arange(len(ids)))
    return Images(ids, saved.labels[at], list(split.classes), pixels)


def _at_hand(job: Job, ids: list[str], data_root: Path | None, cache: Path) -> data.ImageSet | None:
    """These images of the job's test split; None where they are not here."""
    dataset = data.find(job.dataset)
    if data_root is None and dataset.draw is None and dataset.folder is None:
        return None
    root = data.locate(job.dataset, data_root, cache)
    try:
        split = data.one_split(job, root)
        places = [split.ids.index(name) for name in ids]
    except (UserError, ValueError):  # another data set lies there, or less of this one than the run had
        return None
    images = split.images
    some = images[places] if isinstance(images, np.ndarray) else tuple(images[i] for i in places)
    return replace(split, ids=tuple(ids), images=some, targets=split.targets[places])


def _drawing(name: str, kind: str, jobs: tuple[Job, Job], kept: list[Maps], images: Images) -> Drawing:
    ours = jobs[1]
    caption = (
        f"Maps ({KINDS.get(kind, kind)}) of the {TOP} classes that each network ranks highest, with their shares: "
        f"the baseline above {ours.method}, {ours.backbone}, seed {ours.seed}. The first {len(images.ids)} of the "
        "held-out test images, chosen by no network's success. A true class is framed and has a star. Each map by its "
        "own maximum, with a line at half of it; a blank one is dark."
    )
    if images.pixels_MHWC is None:
        caption += " The photographs are not at hand: these are the maps alone."
    with settings():
        return Drawing(name, caption, _figure(kind, ["baseline", ours.method], kept, images))


def _figure(kind: str, names: list[str], kept: list[Maps], images: Images) -> Figure:
    """Two rows an image, the networks'; its photograph and true classes, then a map a column."""
    count = len(images.ids)
    figure = Figure(figsize=(1.35 * (TOP + 1), 3.0 * count))
    figure.subplots_adjust(left=0.01, right=0.99, bottom=0.005, top=1 - 0.18 / (3.0 * count), wspace=0.06, hspace=0.2)
    grid = figure.subplots(2 * count, TOP + 1, squeeze=False)
    for axes in grid.ravel():
        axes.axis("off")
    for i in range(count):
        pixels = None if images.pixels_MHWC is None else images.pixels_MHWC[i]
        if pixels is not None:
            grid[2 * i, 0].imshow(pixels)
        true = fill(f"true: {images.true(i)}", 22)
        said = f"{fill(images.ids[i], 22)}\n{true}\n\nabove: {names[0]}\nbelow: {names[1]}"
        grid[2 * i + 1, 0].text(0.0, 0.95, literal(said), va="top", fontsize=7.5)
        for m, maps in enumerate(kept):
            for k, c in enumerate(maps.classes_MK[i].tolist()):
                title = f"{images.name(c)} {maps.share_MK[i, k]:.2f}"
                _overlay(grid[2 * i + m, k + 1], pixels, maps.by_kind[kind][i, k], title, images.shows(i, c))
    return figure


def _overlay(axes: Any, pixels: np.ndarray | None, map_HW: np.ndarray, title: str, true: bool) -> None:
    """The map over the image in grey, with a line at half of its maximum; a frame and a star mark a true class. Both
    survive grey print."""
    extent = (0.0, 1.0, 0.0, 1.0)
    if pixels is not None:
        axes.imshow(pixels.mean(axis=2), cmap="gray", vmin=0, vmax=255, extent=extent)
    over = 1.0 if pixels is None else 0.55
    axes.imshow(map_HW, cmap="inferno", alpha=over, vmin=0, vmax=1, extent=extent, interpolation="bilinear")
    if map_HW.min() < 0.5 < map_HW.max():
        for color, width in (("black", 2.0), ("white", 1.0)):
            axes.contour(map_HW, [0.5], colors=color, linewidths=width, extent=extent, origin="upper")
    axes.set_title(
        literal(title) + (" *" if true else ""), fontsize=7.5, pad=3.5, fontweight="bold" if true else "normal"
    )
    if true:
        axes.axis("on")
        axes.set(xticks=[], yticks=[])
        for spine in axes.spines.values():
            spine.set(visible=True, color="red", linewidth=2.5)
