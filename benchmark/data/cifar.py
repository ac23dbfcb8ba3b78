"""CIFAR-100 in its official layout, the version for Python.

    <root>/cifar-100-python/{train,test}   pickles of Python 2: data (N, 3072) uint8, channel by channel; fine_labels
    <root>/cifar-100-python/meta           pickle: fine_label_names

Source of layout: the README on the data set's page. A pickle can call anything that it names; the unpickler here knows
three names, and none of them reaches numpy or any other module's code.
"""

import io
import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from benchmark.data.loading import ImageSet, incomplete
from benchmark.errors import UserError, nearest

FOLDER = "cifar-100-python"
SIDE, NUM_CLASSES = 32, 100
NUM_IMAGES = {"train": 50000, "test": 10000}
# Parts of the training file, for choices that must not look at the test images. The file is in random order; the sizes
# are those of "Deep Residual Learning for Image Recognition", section 4.2.
NUM_TRAIN = 45000
NUM_TWINS = 10  # of test that train has too, pixel for pixel; validation_5k shares 4 with train_45k
PARTS = {"train_45k": slice(None, NUM_TRAIN), "validation_5k": slice(NUM_TRAIN, None)}


def load(root: Path, split: str, seed: int = 0, partial: bool = False) -> ImageSet:
    """One split with its fine labels: (N, 32, 32, 3) uint8 and (N,) int64; `seed` is not used, the splits are fixed,
    and neither is `partial`: what a file holds is what is there.

    Besides the official splits, the training images in two parts (`PARTS`); an image keeps its id.
    UserError names the file that is missing, damaged, hostile, or holds something else.
    """
    if split in PARTS:
        return _part(load(root, "train"), split, root)
    if split not in NUM_IMAGES:
        raise UserError(f"CIFAR-100 has no split '{split}'" + nearest(split, [*NUM_IMAGES, *PARTS]))
    folder = root / FOLDER
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; the data root must hold {FOLDER}")
    batch, path = unpickle(folder / split), folder / split
    data, labels = batch.get("data"), batch.get("fine_labels")
    if not isinstance(data, np.ndarray) or data.ndim != 2 or data.shape[1] != 3 * SIDE * SIDE or not len(data):
        raise UserError(f"{path}: 'data' is not an array of N x 3072 bytes; fetch it again")
    targets = _targets(labels, path)
    if len(targets) != len(data):
        raise UserError(f"{path}: holds {len(data)} images and {len(targets)} fine labels; fetch it again")
    images = np.ascontiguousarray(data.reshape(-1, 3, SIDE, SIDE).transpose(0, 2, 3, 1))
    ids = tuple(f"{split}_{i:05d}" for i in range(len(data)))
    return ImageSet(classes=_classes(folder / "meta"), ids=ids, images=images, targets=targets)


def _part(train: ImageSet, split: str, root: Path) -> ImageSet:
    if len(train.ids) != NUM_IMAGES["train"]:
        raise UserError(
            f"{root / FOLDER / 'train'}: holds {len(train.ids)} images; split '{split}' is a part of the official "
            f"{NUM_IMAGES['train']}: name another split, or fetch the file again"
        )
    part = PARTS[split]
    return replace(train, ids=train.ids[part], images=train.images[part], targets=train.targets[part])


def verify(root: Path, num_images: dict[str, int] = NUM_IMAGES) -> str:
    """Why the complete data set is not under `root`; empty when it is. Its checksums are the registry's to check."""
    return incomplete(load, root, NUM_CLASSES, num_images)


def _targets(labels: Any, path: Path) -> np.ndarray:
    if not isinstance(labels, list) or not all(type(k) is int and 0 <= k < NUM_CLASSES for k in labels):
        raise UserError(f"{path}: 'fine_labels' is not a list of numbers from 0 to {NUM_CLASSES - 1}; fetch it again")
    return np.array(labels, dtype=np.int64)


def _classes(path: Path) -> tuple[str, ...]:
    names = unpickle(path).get("fine_label_names")
    if not isinstance(names, list) or len(names) != NUM_CLASSES or not all(isinstance(n, str) for n in names):
        raise UserError(f"{path}: 'fine_label_names' is not a list of {NUM_CLASSES} names; fetch it again")
    return tuple(names)


def unpickle(path: Path) -> dict[str, Any]:
    """The dictionary in one of the files, by a reader that builds lists, strings, numbers and byte arrays only."""
    try:
        content = _Unpickler(io.BytesIO(path.read_bytes()), encoding="latin1").load()
    except FileNotFoundError:
        raise UserError(f"{path}: missing; the official archive holds it") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    except _Forbidden as error:
        raise UserError(f"{path}: names {error}, which this format never does; do not trust this file") from None
    except Exception as error:  # whatever a damaged pickle can raise, MemoryError among them
        raise UserError(
            f"{path}: cannot be read as a pickle ({type(error).__name__}: {error}); fetch it again"
        ) from None
    if not isinstance(content, dict):
        raise UserError(f"{path}: holds no dictionary; fetch it again")
    return {key: value.array if isinstance(value, _Array) else value for key, value in content.items()}


class _Forbidden(Exception):
    """A pickle named something that the format does not need."""


class _Dtype:
    """Stands in for numpy.dtype: remembers what was asked for."""

    def __init__(self, code: str, *_: Any) -> None:
        self.code = code

    def __setstate__(self, state: Any) -> None:
        pass  # byte order and the like, which say nothing about bytes


class _Array:
    """Stands in for numpy.ndarray: takes the bytes of a uint8 array and refuses every other kind."""

    array: np.ndarray | None = None

    def __setstate__(self, state: Any) -> None:
        _, shape, dtype, column_major, content = state
        if dtype.code != "u1" or column_major:
            raise ValueError(f"an array of type {dtype.code}, expected unsigned bytes in row order")
        self.array = np.frombuffer(content.encode("latin1"), dtype=np.uint8).reshape(shape)


def _reconstruct(kind: type, *_: Any) -> _Array:
    if kind is not _Array:
        raise ValueError("an array of an unknown kind")
    return _Array()


ALLOWED = {
    ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Dtype,
}


class _Unpickler(pickle._Unpickler):
    """In Python, not in C: there a few damaged bytes make it set 16 GiB aside for a table of what it remembers."""

    # Opcodes of later protocols that set memory aside by a length they only claim, or take it from outside.
    dispatch: ClassVar[dict] = {
        code: load
        for code, load in pickle._Unpickler.dispatch.items()
        if code not in (pickle.BYTEARRAY8[0], pickle.NEXT_BUFFER[0], pickle.READONLY_BUFFER[0])
    }

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in ALLOWED:
            raise _Forbidden(f"{module}.{name}"[:120].replace("\n", " "))
        return ALLOWED[module, name]
