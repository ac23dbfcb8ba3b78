"""PASCAL VOC 2012 image classification in its official layout.

    <root>/VOCdevkit/VOC2012/JPEGImages/<id>.jpg
    <root>/VOCdevkit/VOC2012/ImageSets/Main/<split>.txt           one id a line
    <root>/VOCdevkit/VOC2012/ImageSets/Main/<class>_<split>.txt   id and 1 (present), 0 (only difficult), -1 (absent)

Source of layout and meaning: the VOC 2012 development kit. Boxes (Annotations/) are not needed to classify.
"""

from pathlib import Path

import numpy as np

from benchmark.data.loading import ImageSet, incomplete
from benchmark.errors import UserError

CLASSES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow",
    "diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip
NUM_IMAGES = {"train": 5717, "val": 5823}
PRESENT, DIFFICULT, ABSENT = 1, 0, -1


def load(
    root: Path, split: str, seed: int = 0, classes: tuple[str, ...] = CLASSES, folder: Path | None = None,
    partial: bool = False,
) -> ImageSet:  # fmt: skip
    """One split: paths and targets (N, num_classes) of 1, 0, -1. UserError names the file (and line) that is missing
    or wrong.

    A split without class files of its own (a part of the official ones) takes its labels from `trainval`'s. `seed` is
    not used, the splits are official. `partial`: the images that are there, of those that the split names.
    """
    folder = folder or _folder(root)
    main = folder / "ImageSets" / "Main"
    ids = _read_ids(main / f"{split}.txt")
    labelled = split if (main / f"{classes[0]}_{split}.txt").exists() else "trainval"
    known = ids if labelled == split else _read_ids(main / f"{labelled}.txt")
    row_of = {image_id: i for i, image_id in enumerate(known)}
    unlabelled = next((i for i in ids if i not in row_of), None)
    if unlabelled is not None:
        raise UserError(f"{main / f'{split}.txt'}: id {unlabelled} is not in {labelled}.txt, so it has no labels")
    columns = [_read_labels(main / f"{name}_{labelled}.txt", row_of) for name in classes]
    targets = np.stack(columns, axis=1)[[row_of[i] for i in ids]]
    paths = [folder / "JPEGImages" / f"{i}.jpg" for i in ids]
    missing = [p for p in paths if not p.is_file()]
    if missing and partial and len(missing) < len(paths):
        there = [i for i, path in enumerate(paths) if path.is_file()]
        ids, paths, targets = [ids[i] for i in there], [paths[i] for i in there], targets[there]
    elif missing:
        raise UserError(
            f"{missing[0]}: missing, though {main / f'{split}.txt'} names it "
            f"({len(missing)} of {len(paths)} images are missing); complete the data or name another split"
        )
    return ImageSet(classes=classes, ids=tuple(ids), images=tuple(paths), targets=targets)


def verify(root: Path, num_images: dict[str, int] = NUM_IMAGES) -> str:
    """Why the complete official train and val are not under `root`; empty when they are."""
    return incomplete(load, root, len(CLASSES), num_images)


def _folder(root: Path) -> Path:
    folder = root / "VOCdevkit" / "VOC2012"
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; the data root must hold VOCdevkit/VOC2012")
    return folder


def _read_lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        raise UserError(f"{path}: missing; VOC 2012's ImageSets/Main holds it") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read as text ({error})") from None


def _read_ids(path: Path) -> list[str]:
    # Real split files hold one id a line; some copies append a label, which is not needed here.
    ids = [line.split()[0] for line in _read_lines(path) if line.strip()]
    if not ids:
        raise UserError(f"{path}: names no image")
    if len(set(ids)) != len(ids):
        twice = next(i for i in ids if ids.count(i) > 1)
        raise UserError(f"{path}: names image {twice} twice")
    unsafe = next((i for i in ids if Path(i).name != i), None)
    if unsafe is not None:
        raise UserError(f"{path}: {unsafe!r} is not an image id")
    return ids


def _read_labels(path: Path, row_of: dict[str, int]) -> np.ndarray:
    labels = np.full(len(row_of), 99, dtype=np.int8)
    for number, line in enumerate(_read_lines(path), start=1):
        if not line.strip():
            continue
        image_id, *rest = line.split()
        if image_id not in row_of:
            raise UserError(f"{path}:{number}: unknown id {image_id}; the split does not name it")
        if len(rest) != 1 or rest[0] not in ("1", "0", "-1"):
            raise UserError(f"{path}:{number}: expected an id and 1, 0 or -1, found {line.strip()!r}")
        labels[row_of[image_id]] = int(rest[0])
    if (labels == 99).any():
        image_id = next(i for i, row in row_of.items() if labels[row] == 99)
        raise UserError(f"{path}: no label for image {image_id}")
    return labels
