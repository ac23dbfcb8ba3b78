"""Images of a study's own, as its grid's `data:` describes them:

    imagefolder   <path>/<split>/<class>/*.jpg; with drawn splits <path>/<class>/*.jpg
    voc           <path>/ImageSets/Main/<split>.txt and <class>_<split>.txt, <path>/JPEGImages (voc.py), any classes
    csv           <path>: a header `file,label` or `file,label,split`, a line an image; files from the table's folder

A drawn split is a share of each class's images (csv with several labels an image: of all), in an order that the job's
seed alone decides; the splits of one seed share no image. What a run read is in its record.
"""

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np

from benchmark.data import voc
from benchmark.data.loading import SUFFIXES, ImageSet
from benchmark.errors import UserError, nearest
from benchmark.matrix import grid, study
from benchmark.matrix.grid import Data

COLUMNS = ("file", "label")


def folder(data: Data) -> Path:
    """Where the data lie: `path`, from the study's folder on."""
    return (study.at_hand().folder or Path()) / Path(data.path).expanduser()


def load(data: Data, root: Path, split: str, seed: int = 0) -> ImageSet:
    """One split. UserError names the file, and the line, that is missing or wrong."""
    if not root.exists():
        raise UserError(f"{root}: no such folder or file; the grid's data.path names it")
    if data.splits and split not in data.splits:
        raise UserError(f"{root}: unknown split '{split}'" + nearest(split, data.splits))
    if sum(data.splits.values()) > 1 + 1e-9:
        raise UserError(f"{root}: the shares of data.splits are together more than 1")
    readers = {"imagefolder": _imagefolder, "voc": _voc, "csv": _csv}
    whole = readers[data.layout](data, root, split)
    if not whole.ids:
        raise UserError(f"{root}: split {split} holds no image")
    return _drawn(data, whole, root, split, seed) if data.splits else whole


def verify(name: str, data: Data, root: Path) -> str:
    """What is wrong with the names and labels of the splits that the study's grids read; empty where nothing is."""
    try:
        for split in grid.own_splits(name):
            load(data, root, split)
    except UserError as error:
        return str(error)
    return ""


def _imagefolder(data: Data, root: Path, split: str) -> ImageSet:
    top = root if data.splits else root / split
    if not top.is_dir():
        raise UserError(f"{top}: no such folder; it holds a folder for each class")
    found = sorted(path.name for path in top.iterdir() if path.is_dir())
    classes, images, targets = tuple(data.classes or found), [], []
    for number, name in enumerate(classes):
        if name not in found:
            raise UserError(f"{top / name}: no such folder, though the grid's classes name it" + nearest(name, found))
        of_class = sorted(path for path in (top / name).iterdir() if path.suffix.lower() in SUFFIXES)
        if not of_class:
            raise UserError(f"{top / name}: holds no image ({', '.join(SUFFIXES)})")
        images += of_class
        targets += [number] * len(of_class)
    return _single(classes, root, images, targets)


def _single(classes: tuple[str, ...], root: Path, images: list[Path], targets: list[int]) -> ImageSet:
    ids = tuple(path.relative_to(root).as_posix() for path in images)
    return ImageSet(classes, ids, tuple(images), np.array(targets, np.int64))


def _voc(data: Data, root: Path, split: str) -> ImageSet:
    if data.splits:
        raise UserError(f"{root}: the voc layout has splits of its own; leave data.splits out")
    main = root / "ImageSets" / "Main"
    found = sorted(path.name.removesuffix(f"_{split}.txt") for path in main.glob(f"*_{split}.txt"))
    if not (classes := tuple(data.classes or found)):
        raise UserError(f"{main}: holds no file CLASS_{split}.txt")
    return voc.load(root, split, classes=classes, folder=root)


def _csv(data: Data, root: Path, split: str) -> ImageSet:
    if root.exists() and not root.is_file():  # a pipe or a device may have no end
        raise UserError(f"{root}: is no regular file; data.path names a table of images")
    try:
        with root.open(encoding="utf-8-sig", newline="") as file:
            table = csv.DictReader(file)
            header, rows = list(table.fieldnames or ()), [(table.line_num, row) for row in table]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{root}: cannot be read as a table ({error})") from None
    for column in (*COLUMNS, *(() if data.splits else ("split",))):
        if column not in header:
            raise UserError(f"{root}:1: no column '{column}'" + nearest(column, header or COLUMNS))
    labels_of = {line: _labels(data, row, f"{root}:{line}") for line, row in rows}
    classes = tuple(data.classes or sorted({name for labels in labels_of.values() for name in labels}))
    images, marked = [], []
    for line, row in rows:
        for name in labels_of[line]:
            if name not in classes:
                raise UserError(f"{root}:{line}: unknown label '{name}'" + nearest(name, classes))
        if not data.splits and row["split"] != split:
            continue
        path = root.parent / row["file"]
        if not path.is_file():
            raise UserError(f"{root}:{line}: {path}: no such file")
        images.append(path)
        marked.append([classes.index(name) for name in labels_of[line]])
    if len(set(images)) != len(images):
        twice = next(path for path in images if images.count(path) > 1)
        raise UserError(f"{root}: names {twice} twice in one split")
    if not data.multi_label:
        return _single(classes, root.parent, images, [numbers[0] for numbers in marked])
    targets = np.full((len(images), len(classes)), voc.ABSENT, np.int8)
    for row_of_targets, numbers in zip(targets, marked, strict=True):
        row_of_targets[numbers] = voc.PRESENT
    return replace(_single(classes, root.parent, images, [0] * len(images)), targets=targets)


def _labels(data: Data, row: dict[str, str], at: str) -> list[str]:
    if any(value is None for value in row.values()) or None in row:
        raise UserError(f"{at}: has not as many fields as the header")
    labels = [part.strip() for part in row["label"].split(";")] if data.multi_label else [row["label"].strip()]
    labels = [label for label in labels if label]
    if not labels and not data.multi_label:
        raise UserError(f"{at}: no label")
    return labels


def _drawn(data: Data, whole: ImageSet, root: Path, split: str, seed: int) -> ImageSet:
    ends = dict(zip(data.splits, np.cumsum(list(data.splits.values())), strict=True))
    start = ends[split] - data.splits[split]
    groups = [np.arange(len(whole.ids))]
    if whole.targets.ndim == 1:
        groups = [np.flatnonzero(whole.targets == number) for number in range(len(whole.classes))]
    kept = []
    for number, group in enumerate(groups):
        order = np.random.default_rng([seed, number]).permutation(group)
        of_group = order[round(start * len(order)) : round(ends[split] * len(order))]
        if not len(of_group):
            of = f"class {whole.classes[number]}" if whole.targets.ndim == 1 else "the table"
            raise UserError(f"{root}: {of} has too few images ({len(order)}) for split {split}")
        kept.append(np.sort(of_group))
    rows = np.concatenate(kept)
    assert not isinstance(whole.images, np.ndarray)
    return replace(
        whole, ids=tuple(whole.ids[i] for i in rows), images=tuple(whole.images[i] for i in rows),
        targets=whole.targets[rows],
    )  # fmt: skip
