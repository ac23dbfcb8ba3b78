"""ILSVRC2012 (ImageNet-1k) in its official layouts: the tars as they are fetched, or the folders made of them.

    <root>/train/<wnid>/*.JPEG                 or <root>/ILSVRC2012_img_train.tar, a tar of one tar a class
    <root>/val/*.JPEG or val/<wnid>/*.JPEG     or <root>/ILSVRC2012_img_val.tar, flat
    <root>/ILSVRC2012_devkit_t12/data/         or <root>/ILSVRC2012_devkit_t12.tar.gz
        meta.mat, ILSVRC2012_validation_ground_truth.txt

All of it may lie in <root>/ILSVRC2012 instead. A tar is unpacked once, beside itself. Classes are the sorted WordNet
ids of the training folders, as torchvision numbers them; the devkit has another order, and its meta.mat translates.
"""

import json
import os
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import numpy as np

from benchmark.data.archives import unpack
from benchmark.data.loading import ImageSet, incomplete, is_hidden
from benchmark.errors import UserError, nearest

NUM_CLASSES = 1000
NUM_IMAGES = {"train": 1281167, "val": 50000}
TRAIN_TAR, VAL_TAR = "ILSVRC2012_img_train.tar", "ILSVRC2012_img_val.tar"
DEVKIT, DEVKIT_TAR = "ILSVRC2012_devkit_t12", "ILSVRC2012_devkit_t12.tar.gz"
GROUND_TRUTH = "ILSVRC2012_validation_ground_truth.txt"
WNID = re.compile(r"n\d{8}")
VAL_IMAGE = re.compile(r"ILSVRC2012_val_(\d{8})\.JPEG")


def load(root: Path, split: str, seed: int = 0, partial: bool = False) -> ImageSet:
    """One split: paths and (N,) int64 class numbers; `seed` is not used, the split is official.

    Unpacks the official tars first where the folders are not there. `partial`: the images that are there, of the
    classes that have a training image there. UserError names what is missing, and where devkit and folders disagree.
    """
    if split not in NUM_IMAGES:
        raise UserError(f"ILSVRC2012 has no split '{split}'" + nearest(split, NUM_IMAGES))
    folder = root / "ILSVRC2012" if (root / "ILSVRC2012").is_dir() else root
    classes = tuple(class_folders(_unpacked(folder, "train", TRAIN_TAR)))
    if partial:
        classes = tuple(wnid for wnid in classes if _holds_images(folder / "train" / wnid))
    devkit = _devkit(folder)
    if devkit is not None:
        _check_classes(classes, devkit, partial)
    if split == "train":
        paths_of = {wnid: _images(folder / "train" / wnid) for wnid in classes}
    else:
        paths_of = _val_images(_unpacked(folder, "val", VAL_TAR), classes, devkit, partial)
    if not any(paths_of.values()):
        raise UserError(f"{folder / split}: holds no image (*.JPEG) of a class that has a training image")
    paths = [path for wnid in classes for path in paths_of[wnid]]
    return ImageSet(
        classes=classes,
        ids=tuple(path.stem for path in paths),
        images=tuple(paths),
        targets=np.repeat(np.arange(len(classes), dtype=np.int64), [len(paths_of[wnid]) for wnid in classes]),
    )


def verify(root: Path, num_images: dict[str, int] = NUM_IMAGES) -> str:
    """Why the complete train and val are not under `root`; empty when they are."""
    return incomplete(load, root, NUM_CLASSES, num_images)


def _unpacked(folder: Path, name: str, tar: str) -> Path:
    """The folder called `name`, unpacked from `tar` first where only that is there."""
    target = folder / name
    if not target.is_dir():
        if not (folder / tar).is_file():
            raise UserError(f"{target}: no such folder, and no {tar} beside it; the data root must hold one of them")
        unpack(folder / tar, target, nested=name == "train")
    return target


def class_folders(folder: Path) -> list[str]:
    """Sorted names of the class folders. UserError for a folder that is not named by a WordNet id, and for none."""
    with os.scandir(folder) as entries:
        names = sorted(entry.name for entry in entries if entry.is_dir() and not is_hidden(entry.name))
    if not names:
        raise UserError(f"{folder}: holds no class folder (n01440764, ...)")
    wrong = next((name for name in names if not WNID.fullmatch(name)), None)
    if wrong is not None:
        raise UserError(f"{folder / wrong}: not the name of a class (n and 8 digits)")
    return names


def _images(folder: Path) -> list[Path]:
    with os.scandir(folder) as entries:
        names = sorted(entry.name for entry in entries if _is_image(entry.name))
    if not names:
        raise UserError(f"{folder}: holds no image (*.JPEG); complete the data")
    return [folder / name for name in names]


def _holds_images(folder: Path) -> bool:
    with os.scandir(folder) as entries:
        return any(_is_image(entry.name) for entry in entries)


def _is_image(name: str) -> bool:
    return name.endswith(".JPEG") and not is_hidden(name)


def _val_images(folder: Path, classes: tuple[str, ...], devkit: Path | None, partial: bool) -> dict[str, list[Path]]:
    """Paths of each class, from class folders or, where the images lie flat, from the devkit's ground truth."""
    with os.scandir(folder) as entries:
        flat = not any(entry.is_dir() and not is_hidden(entry.name) for entry in entries)
    if flat:
        if devkit is None:
            raise UserError(
                f"{folder}: images without class folders need {DEVKIT} or {DEVKIT_TAR} beside {folder.name}/"
            )
        return _labelled(_images(folder), classes, devkit, partial)
    wnids = class_folders(folder)
    if not partial and (differing := sorted(set(wnids) ^ set(classes))):
        raise UserError(f"{folder}: train and val disagree: class {differing[0]} is in one of them only")
    there = {w for w in classes if not partial or (w in wnids and _holds_images(folder / w))}
    paths_of = {wnid: _images(folder / wnid) if wnid in there else [] for wnid in classes}
    if devkit is not None:
        _check_labels(paths_of, classes, devkit)
    return paths_of


def _labelled(paths: list[Path], classes: tuple[str, ...], devkit: Path, partial: bool) -> dict[str, list[Path]]:
    truth = _ground_truth(devkit)
    paths_of: dict[str, list[Path]] = {wnid: [] for wnid in (_wnids(devkit).values() if partial else classes)}
    for path in paths:
        paths_of[truth[_number(path, len(truth)) - 1]].append(path)
    if partial:
        return {wnid: paths_of[wnid] for wnid in classes}
    if len(paths) != len(truth):
        raise UserError(f"{devkit}: devkit and folders disagree: {len(truth)} labels for {len(paths)} images in val")
    return paths_of


def _check_labels(paths_of: dict[str, list[Path]], classes: tuple[str, ...], devkit: Path) -> None:
    """Class folders made from the flat images say what the devkit says."""
    truth = _ground_truth(devkit)
    for wnid, paths in paths_of.items():
        for path in paths:
            label = truth[_number(path, len(truth)) - 1]
            if label != wnid:
                raise UserError(f"{path}: devkit and folders disagree: {GROUND_TRUTH} calls it {label}")


def _number(path: Path, num_labels: int) -> int:
    match = VAL_IMAGE.fullmatch(path.name)
    if match is None or not 1 <= int(match[1]) <= num_labels:
        raise UserError(f"{path}: devkit and folders disagree: none of the {num_labels} labels is for this image")
    return int(match[1])


def _check_classes(classes: tuple[str, ...], devkit: Path, partial: bool) -> None:
    known = set(_wnids(devkit).values())
    if differing := sorted(set(classes) - known if partial else known ^ set(classes)):
        side = "the folder train only" if differing[0] in classes else "the devkit's meta.mat only"
        raise UserError(f"{devkit}: devkit and folders disagree: class {differing[0]} is in {side}")


def _devkit(folder: Path) -> Path | None:
    if not (folder / DEVKIT).is_dir() and not (folder / DEVKIT_TAR).is_file():
        return None
    if not (folder / DEVKIT).is_dir():
        unpack(folder / DEVKIT_TAR, folder / DEVKIT, top=DEVKIT)
    return folder / DEVKIT / "data"


def _ground_truth(devkit: Path) -> list[str]:
    """WordNet id of each validation image, in the order of their numbers."""
    path, wnids = devkit / GROUND_TRUTH, _wnids(devkit)
    try:
        lines = path.read_text(encoding="utf-8-sig").split()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read as text ({error})") from None
    for number, line in enumerate(lines, start=1):
        if not line.isdecimal() or int(line) not in wnids:
            raise UserError(f"{path}:{number}: {line!r} is not the number of a class in meta.mat")
    return [wnids[int(line)] for line in lines]


READ_META = """
import json, sys
from scipy.io import loadmat
synsets = loadmat(sys.argv[1], squeeze_me=True)["synsets"]
json.dump([[str(v) for v in synsets[k].tolist()] for k in ("ILSVRC2012_ID", "WNID", "num_children")], sys.stdout)
"""


def _wnids(devkit: Path) -> dict[int, str]:
    """The devkit's class numbers and their WordNet ids; synsets with children are no classes."""
    path = devkit / "meta.mat"
    try:
        stat = path.stat()
        return _read_meta(path, stat.st_size, stat.st_mtime_ns)
    except FileNotFoundError:
        raise UserError(f"{path}: missing; the development kit holds it") from None
    except Exception as error:  # scipy raises many kinds for a broken file
        raise UserError(f"{path}: cannot be read as the devkit's meta.mat ({error}); fetch it again") from None


@cache
def _read_meta(path: Path, size: int, mtime_ns: int) -> dict[int, str]:
    # In a process of its own: scipy's compiled reader can take the whole process along where a few bytes are damaged.
    ended = subprocess.run([sys.executable, "-c", READ_META, path], capture_output=True, text=True, timeout=60)
    if ended.returncode != 0:
        raise ValueError((ended.stderr.strip() or f"its reader ended with status {ended.returncode}").splitlines()[-1])
    synsets = zip(*json.loads(ended.stdout), strict=True)
    return {int(float(number)): wnid for number, wnid, children in synsets if float(children) == 0}
