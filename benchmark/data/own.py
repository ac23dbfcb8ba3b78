"""Images of a study's own, as its grid's `data:` describes them:

    imagefolder   <path>/<split>/<class>/**/*.jpg; with drawn splits <path>/<class>/**/*.jpg
    voc           <path>/ImageSets/Main/<split>.txt and <class>_<split>.txt, <path>/JPEGImages (voc.py), any classes
    csv           <path>: a header `file,label` or `file,label,split`, a line an image; files from the table's folder

A class folder is read with its sub-folders, as torchvision's ImageFolder reads it; hidden files and folders are neither
images nor classes. A drawn split is a share of each class's images (csv with several labels an image: of all), in an
order that the job's seed alone decides; the splits of one seed share no image. What a run read is in its record.
"""

import csv
import os
import unicodedata
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np

from benchmark.data import checks, voc
from benchmark.data.loading import SUFFIXES, ImageSet, is_hidden
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
    whole = _whole(data, root, split)
    checks.names(root, whole)
    return _drawn(data, whole, root, split, seed) if data.splits else whole


def _whole(data: Data, root: Path, split: str) -> ImageSet:
    """The images that a split is drawn from, or those of one that the data name."""
    readers = {"imagefolder": _imagefolder, "voc": _voc, "csv": _csv}
    whole = readers[data.layout](data, root, split)
    if not whole.ids:
        raise UserError(f"{root}: split {split} holds no image")
    return whole


def verify(name: str, data: Data, root: Path) -> str:
    """Say what is wrong with the splits that the study's grids read; empty where nothing is.

    Names, labels, classes, and images that are trained on and tested on, by their ids and bytes.
    """
    try:
        for seed, *splits in grid.own_reads(name):
            sets = [(split, load(data, root, split, seed)) for split in splits]
            checks.same_classes(root, sets)
            checks.trained_classes(root, sets[0][1], sets[1][1])
            checks.pair_of_classes(root, sets[1][1])
            if shared := checks.overlap(sets):
                return shared
    except UserError as error:
        return str(error)
    return ""


def all_images(name: str, data: Data, root: Path) -> list[Path]:
    """List the images of the splits that the study's grids read; where splits are drawn, of all that are drawn from."""
    files: dict[Path, None] = {}
    for split in dict.fromkeys(split for _, *splits in grid.own_reads(name) for split in splits):
        with suppress(UserError):  # of a split that is wrong, `verify` says so
            images = _whole(data, root, split).images
            files |= {} if isinstance(images, np.ndarray) else dict.fromkeys(images)
    return list(files)


def _imagefolder(data: Data, root: Path, split: str) -> ImageSet:
    top = root if data.splits else root / split
    if not top.is_dir():
        raise UserError(f"{top}: no such folder; it holds a folder for each class")
    try:
        entries = [path for path in sorted(top.iterdir()) if not is_hidden(path.name)]
    except OSError as error:
        raise UserError(f"{top}: cannot be read ({error.strerror})") from None
    found = sorted(path.name for path in entries if path.is_dir())
    named = _named(data, found, lambda name: top / name)
    images, targets, others = [], [], [path for path in entries if path.is_file()]
    for number, name in enumerate(named.values()):
        files = _files(top / name)
        of_class = [path for path in files if path.suffix.lower() in SUFFIXES]
        if not of_class:
            raise UserError(f"{top / name}: holds no image ({', '.join(SUFFIXES)})")
        images += of_class
        targets += [number] * len(of_class)
        others += [path for path in files if path.suffix.lower() not in SUFFIXES]
    note = f"left out, in no class folder or no image: {len(others):,} files, such as {others[0]}" if others else ""
    return replace(_single(tuple(named), root, images, targets), note=note)


def _named(data: Data, found: list[str], place: Callable[[str], Path]) -> dict[str, str]:
    """Each class as the grid names it, or as it is found, with its name on disk, which may be
    written with other Unicode characters for the same letters (NFC, NFD). place: where a class
    lies. UserError where one is not there."""
    on_disk = {_composed(name): name for name in found}
    if len(on_disk) < len(found):
        twice = next(name for name in found if on_disk[_composed(name)] != name)
        raise UserError(f"{place(twice)}: is there twice, as NFC and as NFD; rename one of them")
    absent = next((name for name in data.classes if _composed(name) not in on_disk), None)
    if absent is not None:
        what = f"missing, though the grid's data.classes name it; classes found: {_some(found)}"
        raise UserError(f"{place(absent)}: {what}")
    return {name: on_disk[_composed(name)] for name in data.classes or found}


def _composed(name: str) -> str:
    return unicodedata.normalize("NFC", name)


def _some(names: Iterable[str]) -> str:
    names = list(names)
    return ", ".join([*names[:20], *(["..."] if len(names) > 20 else [])]) or "none"


def _files(of_class: Path) -> list[Path]:
    """What a class folder and its sub-folders hold, in the order of torchvision's ImageFolder, links
    followed; no hidden file or folder."""

    def refuse(error: OSError) -> None:
        raise UserError(f"{error.filename}: cannot be read ({error.strerror})")

    files_in: dict[str, list[Path]] = {}
    seen: set[str] = set()
    for at, folders, names in os.walk(of_class, onerror=refuse, followlinks=True):
        folders[:] = [name for name in folders if not is_hidden(name)]
        if (real := os.path.realpath(at)) in seen:
            raise UserError(f"{at}: a link leads a second time to {real}; remove it")
        seen.add(real)
        files_in[at] = [Path(at, name) for name in sorted(names) if not is_hidden(name)]
    return [path for at in sorted(files_in) for path in files_in[at]]


def _single(classes: tuple[str, ...], root: Path, images: list[Path], targets: list[int]) -> ImageSet:
    ids = tuple(_id(path, root) for path in images)
    return ImageSet(classes, ids, tuple(images), np.array(targets, np.int64))


def _id(path: Path, root: Path) -> str:
    """The image's path from `root` on, as it is written where it lies under it."""
    return (path.relative_to(root) if path.is_relative_to(root) else Path(os.path.relpath(path, root))).as_posix()


def _voc(data: Data, root: Path, split: str) -> ImageSet:
    if data.splits:
        raise UserError(f"{root}: the voc layout has splits of its own; leave data.splits out")
    main = root / "ImageSets" / "Main"
    found_of = {labelled: _listed(main, labelled) for labelled in (split, "trainval")}
    labelled = split if found_of[split] else "trainval"
    if not (found := found_of[labelled]):
        raise UserError(f"{main}: holds no file CLASS_{split}.txt")
    named = _named(data, found, lambda name: main / f"{name}_{labelled}.txt")
    return replace(voc.load(root, split, classes=tuple(named.values()), folder=root), classes=tuple(named))


def _listed(main: Path, split: str) -> list[str]:
    """The classes of which a split has a file."""
    paths = sorted(path for path in main.glob(f"*_{split}.txt") if not is_hidden(path.name))
    return [path.name.removesuffix(f"_{split}.txt") for path in paths if not voc.is_list(path)]


def _csv(data: Data, root: Path, split: str) -> ImageSet:
    if root.exists() and not root.is_file():  # a pipe or a device may have no end
        raise UserError(f"{root}: is no regular file; data.path names a table of images")
    try:
        with root.open(encoding="utf-8-sig", newline="") as file:
            table = csv.DictReader(file)
            header, rows = list(table.fieldnames or ()), [(table.line_num, row) for row in table]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{root}: cannot be read as a table ({error})") from None
    _check_header(header, (*COLUMNS, *(() if data.splits else ("split",))), root)
    labels_of = {line: _labels(data, row, f"{root}:{line}") for line, row in rows}
    in_table = sorted({name for labels in labels_of.values() for name in labels})
    number_of = _numbers(data.classes or in_table, root)
    images, marked = [], []
    for line, row in rows:
        for name in labels_of[line]:
            if _composed(name) not in number_of:
                raise UserError(f"{root}:{line}: unknown label '{name}'" + nearest(name, data.classes))
        if not data.splits and row["split"] != split:
            continue
        path = root.parent / row["file"]
        if not path.is_file():
            raise UserError(f"{root}:{line}: {path}: no such file")
        images.append(path)
        marked.append([number_of[_composed(name)] for name in labels_of[line]])
    if not images and not data.splits:
        known = sorted({row["split"] for _, row in rows})
        raise UserError(f"{root}: no line of split '{split}'; found in column split: {_some(known)}")
    places = [os.path.normpath(path) for path in images]
    if len(set(places)) != len(places):
        twice = next(path for path, place in zip(images, places, strict=True) if places.count(place) > 1)
        raise UserError(f"{root}: names {twice} twice in one split")
    classes = tuple(data.classes or in_table)
    if not data.multi_label:
        return _single(classes, root.parent, images, [numbers[0] for numbers in marked])
    targets = np.full((len(images), len(classes)), voc.ABSENT, np.int8)
    for row_of_targets, numbers in zip(targets, marked, strict=True):
        row_of_targets[numbers] = voc.PRESENT
    return replace(_single(classes, root.parent, images, [0] * len(images)), targets=targets)


def _check_header(header: list[str], needed: tuple[str, ...], root: Path) -> None:
    """UserError where a column is missing, which says what was found and what is expected."""
    missing = [column for column in needed if column not in header]
    if not missing:
        return
    apart = next((mark for mark in (";", "\t") if len(header) == 1 and mark in header[0]), "")
    do = "separate the columns with commas" if apart else "name them so, in small letters"
    found = ", ".join(f"'{name}'" for name in header) or "nothing"
    raise UserError(f"{root}:1: no column '{missing[0]}'; found: {found}; expected: {', '.join(needed)}; {do}")


def _numbers(classes: list[str], root: Path) -> dict[str, int]:
    """Each class's number, by its name in composed Unicode characters."""
    number_of = {_composed(name): number for number, name in enumerate(classes)}
    if len(number_of) < len(classes):
        twice = next(name for i, name in enumerate(classes) if number_of[_composed(name)] != i)
        raise UserError(f"{root}: class '{twice}' is there twice, as NFC and as NFD; write it in one way")
    return number_of


def _labels(data: Data, row: dict[str, str], at: str) -> list[str]:
    if any(value is None for value in row.values()) or None in row:
        raise UserError(f"{at}: has not as many fields as the header")
    labels = [part.strip() for part in row["label"].split(";")] if data.multi_label else [row["label"].strip()]
    labels = [label for label in labels if label]
    if not labels and not data.multi_label:
        raise UserError(f"{at}: no label")
    return labels


def _drawn(data: Data, whole: ImageSet, root: Path, split: str, seed: int) -> ImageSet:
    """The share of each class that a split has. A class's order is keyed by (seed, class), as an epoch's order is by
    (seed, epoch): numpy gives class k and epoch k one stream (docs/data.md, "What the seed draws")."""
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
