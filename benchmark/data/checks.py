"""What is wrong with a pair of splits, one to train and one to test on, that each alone does not show: looked at before
anything is trained. Also what a sample of a data set looks like."""

import hashlib
import os
import unicodedata
from collections.abc import Callable, Hashable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmark.data.loading import ImageSet, read_warped
from benchmark.errors import UserError

TAIL = 4096  # bytes at a file's end, which tell most photographs of one size apart
SAMPLE, SAMPLE_SIDE = 100, 64


Splits = list[tuple[str, ImageSet]]  # by name


class Sample(NamedTuple):
    """Of `images` pictures, as 8-bit RGB: the mean of their values, the lowest and the highest."""

    images: int
    mean: float
    lowest: int
    highest: int


def names(root: Path, images: ImageSet) -> None:
    """UserError for a file or class whose name is not UTF-8: a record could not hold it."""
    for name in (*images.classes, *images.ids):
        try:
            name.encode()
        except UnicodeEncodeError:
            shown = os.fsencode(name).decode(errors="backslashreplace")
            raise UserError(f"{root}: the name {shown} is not UTF-8; rename it") from None


def same_classes(root: Path, sets: Splits) -> None:
    """UserError where splits number different classes, with what only one of them has."""
    (first, one), *others = sets
    for split, other in others:
        if one.classes == other.classes:
            continue
        of_one, of_other = (set(map(_composed, images.classes)) for images in (one, other))
        if of_one == of_other and set(one.classes) != set(other.classes):
            name = next(name for name in other.classes if name not in one.classes)
            raise UserError(
                f"{root}: class {name} is written with other Unicode characters (NFC, NFD) in {first} and {split}; "
                "rename it in one of them"
            )
        sides = ((first, of_one - of_other), (split, of_other - of_one))
        differing = [f"only in {name}: {', '.join(sorted(classes)[:10])}" for name, classes in sides if classes]
        raise UserError(
            f"{root}: {first} and {split} do not have the same classes ({'; '.join(differing) or 'another order'}); "
            "make them alike, or name those to use with data.classes"
        )


def trained_classes(root: Path, train: ImageSet, test: ImageSet) -> None:
    """UserError where test images, of one label each, show a class that no training image shows."""
    if train.targets.ndim == 1 and (missing := sorted(set(test.targets.tolist()) - set(train.targets.tolist()))):
        shown = ", ".join(test.classes[number] for number in missing[:10])
        raise UserError(
            f"{root}: no training image shows class {shown}, and test images do; train on it, or leave it out"
        )


def pair_of_classes(root: Path, test: ImageSet) -> None:
    """UserError where no test image shows one class and lacks another: nothing could be told apart."""
    if len(test.classes) < 2:
        raise UserError(f"{root}: there is one class only, {test.classes[0]}; name a second one to tell it from")
    if test.targets.ndim == 2 and not ((test.targets == 1).any(axis=1) & (test.targets < 0).any(axis=1)).any():
        raise UserError(f"{root}: no test image shows one class and lacks another, so there is nothing to tell apart")


def overlap(sets: Splits, known: int = 0, content: bool = True) -> str:
    """Say which images both the training and the test split have, by their ids, else by content; empty where there are
    none.

    Args:
        sets: the training split and the test split.
        known: so many test images of equal content are officially there, and are accepted.
        content: whether to compare content too: pixels that are stored in one array, else the files' bytes.
    """
    (train_split, train), (test_split, test) = sets
    trained = set(train.ids)
    shared = [name for name in test.ids if name in trained]
    such = f"such as {shared[0]}" if shared else ""
    if content and not shared:
        twin_of = _of_equal_content(train, test)
        shared = list(twin_of) if len(twin_of) > known else []
        such = f"such as {shared[0]}, whose content is that of {twin_of[shared[0]]}" if shared else ""
    if not shared:
        return ""
    return f"{len(shared):,} of {len(test.ids):,} images of {test_split} are also in {train_split}, {such}"


def _of_equal_content(train: ImageSet, test: ImageSet) -> dict[str, str]:
    """Ids of test images whose content a training image has too, and that one's id."""
    stored = isinstance(test.images, np.ndarray)
    ours, theirs = list(range(len(test.ids))), list(range(len(train.ids)))
    first: dict[Hashable, int] = {}
    key_of: dict[int, Hashable] = {}
    steps: tuple[Callable[[Any], Hashable], ...] = (_of_array,) if stored else (_size, _tail, _of_file)
    for key in steps:  # each reads more, of the files that the one before could not tell apart
        key_of, first = {i: key(test.images[i]) for i in ours}, {}
        wanted, alike = set(key_of.values()), []
        for i in theirs:
            if (value := key(train.images[i])) in wanted:
                alike.append(i)
                first.setdefault(value, i)
        ours, theirs = [i for i in ours if key_of[i] in first], alike
    return {test.ids[i]: train.ids[first[key_of[i]]] for i in ours}


def _of_array(pixels: np.ndarray) -> Hashable:
    return hashlib.sha256(pixels.tobytes()).digest()


def _size(path: Path) -> Hashable:
    return _read(path, lambda: path.stat().st_size)


def _tail(path: Path) -> Hashable:
    def read() -> bytes:
        with open(path, "rb") as file:
            file.seek(max(0, path.stat().st_size - TAIL))
            return hashlib.sha256(file.read(TAIL)).digest()

    return _read(path, read)


def _of_file(path: Path) -> Hashable:
    return _read(path, lambda: hashlib.sha256(path.read_bytes()).digest())


def _read(path: Path, read: Callable[[], Hashable]) -> Hashable:
    try:
        return read()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); complete the data") from None


def sample(sets: list[ImageSet]) -> Sample:
    """Look at SAMPLE images, taken evenly from the splits, as a network would be given them but for their size.

    UserError names an image that cannot be decoded.
    """
    where = [(images, i) for images in sets for i in range(len(images.ids))]
    pixels = [_looked_at(images, i) for images, i in where[:: max(1, len(where) // SAMPLE)][:SAMPLE]]
    mean = float(np.mean([picture.mean() for picture in pixels]))
    return Sample(len(pixels), mean, int(min(map(np.min, pixels))), int(max(map(np.max, pixels))))


def _looked_at(images: ImageSet, i: int) -> np.ndarray:
    image = images.images[i]
    return image if isinstance(image, np.ndarray) else read_warped(image, SAMPLE_SIDE)


def _composed(name: str) -> str:
    return unicodedata.normalize("NFC", name)
