"""PASCAL VOC 2012 image classification in its official layout.

    <root>/VOCdevkit/VOC2012/JPEGImages/<id>.jpg
    <root>/VOCdevkit/VOC2012/ImageSets/Main/<split>.txt           one id a line
    <root>/VOCdevkit/VOC2012/ImageSets/Main/<class>_<split>.txt   id and 1 (present), 0 (only difficult), -1 (absent)

    <root>/VOCdevkit/VOC2012/Annotations/<id>.xml                 boxes; only a method that is guided by them reads them

A split `<split>_<year>`, such as `train_2008`, is made by rule: the ids of the official list that begin with the year.

Source of layout and meaning: the VOC 2012 development kit.
"""

import re
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
from PIL import Image

from benchmark.data.loading import ImageSet, incomplete, orientation, upright_size
from benchmark.errors import UserError

CLASSES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow",
    "diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip
NUM_IMAGES = {"train": 5717, "val": 5823}
NUM_IMAGES_OF_YEAR = {"train_2008": 2111, "val_2008": 2221}  # counted in the official lists
OF_YEAR = re.compile(r"(train|val|trainval)_(20\d\d)")
PRESENT, DIFFICULT, ABSENT = 1, 0, -1
SIDES = ("xmin", "ymin", "xmax", "ymax")
CELLS = 16  # a side, of what `boxed` tells of an image
Extents = tuple[tuple[float, float], tuple[float, float]]
# What EXIF's number does to cells (y, x) of the stored picture, as loading.UPRIGHT to the picture.
TURNED: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    1: lambda cells: cells, 2: np.fliplr, 3: lambda cells: np.rot90(cells, 2), 4: np.flipud, 5: np.transpose,
    6: lambda cells: np.rot90(cells, -1), 7: lambda cells: np.rot90(cells, 2).T, 8: np.rot90,
}  # fmt: skip


def load(
    root: Path, split: str, seed: int = 0, classes: tuple[str, ...] = CLASSES, folder: Path | None = None,
    partial: bool = False,
) -> ImageSet:  # fmt: skip
    """One split: paths and targets (N, num_classes) of 1, 0, -1. UserError names the file (and line) that is missing
    or wrong.

    A split of a year is that part of the official one, whatever list lies beside it. Another split without class files
    of its own (a part of the official ones) takes its labels from `trainval`'s. `seed` is not used, the splits are
    official. `partial`: the images that are there, of those that the split names.
    """
    folder = folder or _folder(root)
    main = folder / "ImageSets" / "Main"
    split, year = match.groups() if (match := OF_YEAR.fullmatch(split)) else (split, "")
    ids = _read_ids(main / f"{split}.txt", year)
    labelled = split if (main / f"{classes[0]}_{split}.txt").exists() else "trainval"
    known = ids if labelled == split and not year else _read_ids(main / f"{labelled}.txt")
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


def boxed(images: ImageSet) -> np.ndarray:
    """Where objects are that are not difficult: (N, CELLS, CELLS) int8, 1 where a cell's centre lies in a box of the
    whole picture (resize: warp), as it is seen: boxes turn where EXIF turns the picture. A picture may be smaller or
    larger than the one that was annotated.

    Raises:
        UserError: an annotation is missing, wrong, or of a picture of other proportions.
    """
    if isinstance(images.images, np.ndarray):
        raise UserError("a method that is guided by boxes needs data in VOC 2012's layout, with Annotations")
    cells = np.zeros((len(images.ids), CELLS, CELLS), np.int8)
    centres = (np.arange(CELLS) + 0.5) / CELLS
    for inside, image in zip(cells, images.images, strict=True):
        annotation = image.parents[1] / "Annotations" / f"{image.stem}.xml"
        size, boxes = _read_boxes(annotation)
        turned = _turned(image, annotation, size) if boxes else 1
        for (x0, x1), (y0, y1) in boxes:
            held = np.outer((y0 <= centres) & (centres <= y1), (x0 <= centres) & (centres <= x1))
            inside |= TURNED[turned](held)
    return cells


def _turned(image: Path, annotation: Path, size: tuple[float, float]) -> int:
    """How boxes of a picture of (width, height) `size` are to be turned, as EXIF numbers it, to lie in
    the picture as it is seen: as the picture is, or not at all (1) where only the picture as it is
    seen has their proportions."""
    try:
        with Image.open(image) as picture:
            stored, seen, turned = picture.size, upright_size(picture), orientation(picture)
    except Exception as error:  # pillow raises many kinds for a broken file
        raise UserError(f"{image}: cannot be decoded as an image ({error}); fetch it again") from None
    if _alike(stored, size):
        return turned
    if _alike(seen, size):
        return 1
    raise UserError(
        f"{annotation}: is of a picture of {size[0]:g} x {size[1]:g}, {image.name} has {seen[0]} x {seen[1]}, which "
        "are other proportions; take the annotation of this picture"
    )


def _alike(picture: tuple[int, int], annotated: tuple[float, float]) -> bool:
    """Whether sizes (width, height) have the same proportions, but for the rounding of one side to a whole pixel."""
    (w, h), (aw, ah) = picture, annotated
    return abs(h - w * ah / aw) <= 1 or abs(w - h * aw / ah) <= 1


def _read_boxes(path: Path) -> tuple[tuple[float, float], list[Extents]]:
    """The (width, height) of the picture that was annotated, and horizontal and vertical extent of each object that is
    not difficult, as shares of it."""
    try:
        tree = ElementTree.parse(path)
        width, height = (float(tree.findtext(f"size/{side}", "")) for side in ("width", "height"))
        boxes = [thing.find("bndbox") for thing in tree.iter("object") if thing.findtext("difficult") != "1"]
        extents = [[float(box.findtext(side, "")) for side in SIDES] for box in boxes if box is not None]
        shares = [((x0 / width, x1 / width), (y0 / height, y1 / height)) for x0, y0, x1, y1 in extents]
        return (width, height), shares
    except FileNotFoundError:
        raise UserError(f"{path}: missing; a method that is guided by boxes needs VOC 2012's Annotations") from None
    except (OSError, ElementTree.ParseError, ValueError, ZeroDivisionError) as error:
        raise UserError(f"{path}: not an annotation of VOC 2012 ({error})") from None


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
        return path.read_text(encoding="utf-8-sig").splitlines()
    except FileNotFoundError:
        raise UserError(f"{path}: missing; VOC 2012's ImageSets/Main holds it") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read as text ({error})") from None


def is_list(path: Path) -> bool:
    """Whether a file of ImageSets/Main names images and says nothing of them: such as `small_train.txt`, a split, which
    is no file of a class `small`."""
    fields = {len(line.split()) for line in _read_lines(path) if line.strip()}
    return fields == {1}


def _read_ids(path: Path, year: str = "") -> list[str]:
    """The ids that a list names, or those of one year. UserError where there is none, or one twice."""
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
    of_year = [i for i in ids if not year or i.startswith(f"{year}_")]
    if not of_year:
        raise UserError(f"{path}: names no image of the year {year}, whose ids begin with {year}_")
    return of_year


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
        if labels[row_of[image_id]] not in (99, int(rest[0])):
            raise UserError(f"{path}:{number}: image {image_id} twice, with different labels")
        labels[row_of[image_id]] = int(rest[0])
    if (labels == 99).any():
        image_id = next(i for i, row in row_of.items() if labels[row] == 99)
        raise UserError(f"{path}: no label for image {image_id}")
    return labels
