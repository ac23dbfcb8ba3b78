"""Caltech-256 in its official layout, and the splits that the paper draws from it.

    <root>/256_ObjectCategories/001.ak47/001_0001.jpg ... 257.clutter/257_0827.jpg

There is no official split. Following Griffin et al. (2007) and the supplement, section 1.1: the 257th category is left
out; of each other one 25 images are drawn for testing, and 30 or 60 of the rest for training. A draw depends on the
seed, the category's number and its sorted file names alone, so any machine draws the same; `train30` and `train60` of
one seed share their test images, and the one is a part of the other.
"""

import re
from pathlib import Path

import numpy as np

from benchmark.data.loading import ImageSet
from benchmark.errors import UserError

FOLDER = "256_ObjectCategories"
NUM_CLASSES = 256
NUM_TEST = 25  # per category
NUM_IMAGES = 30607  # with the clutter category's
SPLIT = re.compile(r"(train|test)([1-9]\d{0,3})")
# The archive also holds strays (a folder of somebody's copies, a script); an image is what is named like one.
IMAGE = re.compile(r"\d{3}_\d{4}\.jpg")


def load(root: Path, split: str, seed: int = 0, num_test: int = NUM_TEST) -> ImageSet:
    """One split, `train<N>` or `test<N>`: N images of each category, paths and (N,) int64 category numbers from 0.

    `num_test` images of each category are kept for testing, and test<N> is the first N of them. A category with fewer
    than N images left gives a training split all of them (80 images are in the smallest: 55 for train60). UserError
    names the category folder that is missing, empty, or too small.
    """
    kind, count = _parse(split, num_test)
    folders = category_folders(root)
    chosen = [_draw(_images(folder), folder, kind, count, seed, num_test) for folder in folders]
    if kind == "train" and max(map(len, chosen)) < count:
        most = max(map(len, chosen))
        raise UserError(f"{root / FOLDER}: split {split}: no category has more than {most} images beside the test ones")
    paths = [path for category in chosen for path in category]
    targets = np.repeat(np.arange(NUM_CLASSES), [len(category) for category in chosen])
    return ImageSet(
        classes=tuple(folder.name.partition(".")[2] for folder in folders),
        ids=tuple(path.stem for path in paths),
        images=tuple(paths),
        targets=targets.astype(np.int64),
    )


def verify(root: Path, num_images: int = NUM_IMAGES) -> str:
    """Why the complete data set is not under `root`; empty when it is."""
    try:
        folders = category_folders(root)
        clutter = next(iter(sorted((root / FOLDER).glob("257.*"))), None)
        if clutter is None:
            return f"{root / FOLDER}: category 257 (clutter) is missing"
        total = sum(len(_images(folder)) for folder in [*folders, clutter])
    except UserError as error:
        return str(error)
    # Not fewer, rather than equal: copies differ in a stray duplicate.
    return f"{total} images, officially {num_images}" if total < num_images else ""


def count_images(root: Path) -> int:
    """Images of the 256 categories, the clutter's left out."""
    return sum(len(_images(folder)) for folder in category_folders(root))


def category_folders(root: Path) -> list[Path]:
    """The folders of the 256 categories in their order, the clutter left out."""
    folder = root / FOLDER
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; the data root must hold {FOLDER}")
    folders: dict[int, Path] = {}
    for path in sorted(folder.iterdir()):
        number, dot, _ = path.name.partition(".")
        if dot and re.fullmatch(r"\d{3}", number) and path.is_dir():
            if int(number) in folders:
                raise UserError(f"{path}: category {number} is there twice, also as {folders[int(number)].name}")
            folders[int(number)] = path
    missing = [k for k in range(1, NUM_CLASSES + 1) if k not in folders]
    if missing:
        raise UserError(f"{folder}: no folder of category {missing[0]:03d} ({len(missing)} of 256 are missing)")
    return [folders[k] for k in range(1, NUM_CLASSES + 1)]


def _parse(split: str, num_test: int) -> tuple[str, int]:
    match = SPLIT.fullmatch(split)
    if match is None:
        raise UserError(f"Caltech-256 has no split '{split}'; expected train<N> or test<N>, as train30 and test25")
    kind, count = match[1], int(match[2])
    if kind == "test" and count > num_test:
        raise UserError(f"split {split}: {num_test} images of each category are kept for testing, no more")
    return kind, count


def _images(folder: Path) -> list[Path]:
    try:
        paths = sorted(p for p in folder.iterdir() if IMAGE.fullmatch(p.name))
    except OSError as error:
        raise UserError(f"{folder}: cannot be read ({error.strerror})") from None
    if not paths:
        raise UserError(f"{folder}: holds no image (NNN_NNNN.jpg); complete the data")
    return paths


def _draw(paths: list[Path], folder: Path, kind: str, count: int, seed: int, num_test: int) -> list[Path]:
    if len(paths) <= num_test:
        raise UserError(f"{folder}: {len(paths)} images; {num_test} for testing and one for training are the least")
    order = np.random.default_rng([seed, int(folder.name[:3])]).permutation(len(paths))
    chosen = order[:count] if kind == "test" else order[num_test : num_test + count]
    return [paths[i] for i in np.sort(chosen)]
