"""CUB-200-2011 in its official layout.

    <root>/CUB_200_2011/images/<class>/<image>.jpg
    <root>/CUB_200_2011/images.txt               number, path within images/
    <root>/CUB_200_2011/image_class_labels.txt   number, class number
    <root>/CUB_200_2011/train_test_split.txt     number, 1 (training) or 0 (test)
    <root>/CUB_200_2011/classes.txt              class number, class

Source of layout: the README in the archive. Boxes, parts and attributes are not needed to classify.
"""

from pathlib import Path, PurePosixPath

import numpy as np

from benchmark.data.loading import ImageSet, incomplete
from benchmark.errors import UserError, nearest

FOLDER = "CUB_200_2011"
NUM_CLASSES = 200
NUM_IMAGES = {"train": 5994, "test": 5794}
FLAG = {"train": "1", "test": "0"}


def load(root: Path, split: str, seed: int = 0, partial: bool = False) -> ImageSet:
    """One split: paths and (N,) int64 class numbers from 0; `seed` is not used, the split is official.
    `partial`: the images that are there, of the classes that have a training image there.

    UserError names the file (and line) that is missing or wrong.
    """
    if split not in FLAG:
        raise UserError(f"CUB-200-2011 has no split '{split}'" + nearest(split, FLAG))
    folder = root / FOLDER
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; the data root must hold {FOLDER}")
    names = _read_pairs(folder / "images.txt")
    classes = _read_pairs(folder / "classes.txt")
    label_of = _read_pairs(folder / "image_class_labels.txt", of=names, values=classes)
    flag_of = _read_pairs(folder / "train_test_split.txt", of=names, values={"0": "", "1": ""})
    for number, name in names.items():
        _check_name(folder, name, classes[label_of[number]])
    if partial:
        names = {number: name for number, name in names.items() if (folder / "images" / name).is_file()}
        trained = {label_of[number] for number in names if flag_of[number] == FLAG["train"]}
        names = {number: name for number, name in names.items() if label_of[number] in trained}
        classes = {number: name for number, name in classes.items() if number in trained}
    chosen = [number for number in names if flag_of[number] == FLAG[split]]
    if not chosen and partial:
        raise UserError(f"{folder / 'images'}: holds no {split} image of a class that has a training image")
    if not chosen:
        raise UserError(f"{folder / 'train_test_split.txt'}: names no {split} image")
    paths = [folder / "images" / names[number] for number in chosen]
    missing = [path for path in paths if not path.is_file()]
    if missing:
        raise UserError(
            f"{missing[0]}: missing, though {folder / 'images.txt'} names it "
            f"({len(missing)} of {len(paths)} {split} images are missing); complete the data"
        )
    row_of = {number: row for row, number in enumerate(classes)}
    return ImageSet(
        classes=tuple(classes.values()),
        ids=tuple(path.stem for path in paths),
        images=tuple(paths),
        targets=np.array([row_of[label_of[number]] for number in chosen], dtype=np.int64),
    )


def verify(root: Path, num_images: dict[str, int] = NUM_IMAGES) -> str:
    """Why the complete data set is not under `root`; empty when it is."""
    return incomplete(load, root, NUM_CLASSES, num_images)


def _read_pairs(path: Path, of: dict[str, str] | None = None, values: dict[str, str] | None = None) -> dict[str, str]:
    """A file of `number value` lines. `of`: every number of it must have a line, and no other; `values`: what the
    value may be."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except FileNotFoundError:
        raise UserError(f"{path}: missing; the official archive holds it") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read as text ({error})") from None
    value_of: dict[str, str] = {}
    for line_number, line in enumerate(lines, start=1):
        number, _, value = line.strip().partition(" ")
        if not line.strip():
            continue
        if not number.isdecimal() or not value:
            raise UserError(f"{path}:{line_number}: expected a number and a value, found {line.strip()!r}")
        if number in value_of:
            raise UserError(f"{path}:{line_number}: number {number} twice")
        if of is not None and number not in of:
            raise UserError(f"{path}:{line_number}: unknown image {number}; images.txt does not name it")
        if values is not None and value not in values:
            raise UserError(f"{path}:{line_number}: unexpected value {value!r}; expected one of {_some(values)}")
        value_of[number] = value
    if not value_of:
        raise UserError(f"{path}: names nothing")
    absent = next((number for number in of or () if number not in value_of), None)
    if absent is not None:
        raise UserError(f"{path}: no line for image {absent}")
    return value_of


def _some(values: dict[str, str]) -> str:
    names = list(values)
    return ", ".join(names) if len(names) <= 3 else f"{names[0]} ... {names[-1]}"


def _check_name(folder: Path, name: str, class_name: str) -> None:
    parts = PurePosixPath(name).parts
    if len(parts) != 2 or ".." in parts or parts[0] == "/":
        raise UserError(f"{folder / 'images.txt'}: {name!r} is not a path of class folder and image")
    if parts[0] != class_name:
        raise UserError(f"{folder / 'images.txt'}: {name} lies in another folder than its class, {class_name}")
