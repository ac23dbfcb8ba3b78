"""Data sets in their official on-disk layouts. Registry: name -> how to find it, read it, draw it."""

import hashlib
import json
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np

from benchmark.data import caltech, checks, cifar, cub, imagenet, mini, own, sources, voc
from benchmark.data.loading import ImageSet, Pixels, decode, limited, open_pixels, undecodable
from benchmark.data.voc import boxed
from benchmark.errors import UserError, nearest
from benchmark.matrix import grid
from benchmark.matrix.job import Job
from benchmark.store import scores
from benchmark.store.files import write_json

__all__ = [
    "DATASETS", "Dataset", "ImageSet", "Pixels", "boxed", "comparable", "decode", "digest", "find",
    "image_files", "limited", "locate", "most_images", "not_whole", "one_split", "open_pixels",
    "overlap", "present", "read", "splits_of", "state", "trained_and_tested", "undecodable",
    "verified", "within",
]  # fmt: skip

DIGESTS = "digests"  # folder in a cache
UNKNOWN = 5_000  # images, where nobody knows before they are read: an assumption


@dataclass(frozen=True)
class Dataset:
    """`load(root, split, seed=0, partial=False)` reads one split, or what is there of it; `verify(root)` says why the
    whole set is not there, by counts and names, or nothing; `num_images`: the splits and how many images the paper's
    Table 1 gives them, or the drawing; `parts`: splits made by rule from these, and their counts; `evidence`: patterns
    under the root of what was looked at, so that a change of it is noticed. Real data have a `source`; an embedded twin
    has `draw(root)`, which writes it."""

    load: Callable[..., ImageSet]
    verify: Callable[[Path], str]
    num_classes: int
    num_images: dict[str, int]
    evidence: tuple[str, ...]
    source: sources.Source | None = None
    draw: Callable[[Path], None] | None = None
    all_images: Callable[[Path], list[Path]] | None = None  # that are there, where the splits are not all of them
    total: int = 0  # of all_images, officially
    folder: Path | None = None  # where a study's own lie, whatever the data root
    parts: dict[str, int] = field(default_factory=dict)
    twins: int = 0  # test images at most that a training split officially has too, pixel for pixel

    @property
    def official_counts(self) -> dict[str, int]:
        """Number of images of each split, those made by rule included."""
        return self.num_images | self.parts


CIFAR_FILES = (f"{cifar.FOLDER}/*", "cifar-100-python.tar.gz")
CALTECH_FILES = (f"{caltech.FOLDER}/*", "256_ObjectCategories.tar")
CUB_FILES = (f"{cub.FOLDER}/*.txt", f"{cub.FOLDER}/images/*", "CUB_200_2011.tgz")
VOC_FILES = ("VOCdevkit/VOC2012/ImageSets/Main/*", "VOCdevkit/VOC2012/JPEGImages", "VOCtrainval_11-May-2012.tar")
IMAGENET_FILES = tuple(
    folder + pattern
    for folder in ("", "ILSVRC2012/")
    for pattern in ("ILSVRC2012*.tar*", "train", "train/*", "val", "val/*", "ILSVRC2012_devkit_t12/data/*")
)

DATASETS = {
    "cifar100": Dataset(
        load=cifar.load, verify=cifar.verify, num_classes=100, num_images=cifar.NUM_IMAGES, evidence=CIFAR_FILES,
        source=sources.CIFAR100, twins=cifar.NUM_TWINS,
    ),
    "caltech256": Dataset(
        # Categories of fewer than 85 images give train60 what they have, so it may hold less than Table 1 says.
        load=partial(caltech.load, names=caltech.CATEGORIES), verify=partial(caltech.verify, names=caltech.CATEGORIES),
        num_classes=256,
        num_images={"train30": 7680, "train60": 15360, "test25": 6400}, evidence=CALTECH_FILES,
        all_images=caltech.all_images, total=caltech.NUM_WITHOUT_CLUTTER, source=sources.CALTECH256,
    ),
    "ilsvrc2012": Dataset(
        load=imagenet.load, verify=imagenet.verify, num_classes=1000, num_images=imagenet.NUM_IMAGES,
        evidence=IMAGENET_FILES, source=sources.ILSVRC2012,
    ),
    "cub200": Dataset(
        load=cub.load, verify=cub.verify, num_classes=200, num_images=cub.NUM_IMAGES, evidence=CUB_FILES,
        source=sources.CUB200,
    ),
    "voc2012": Dataset(
        load=voc.load, verify=voc.verify, num_classes=20, num_images=voc.NUM_IMAGES, evidence=VOC_FILES,
        source=sources.VOC2012, parts=voc.NUM_IMAGES_OF_YEAR,
    ),
    "cifar100-mini": Dataset(
        load=cifar.load, verify=partial(cifar.verify, num_images={k: 100 * n for k, n in mini.NUM_CIFAR.items()}),
        num_classes=100, num_images={k: 100 * n for k, n in mini.NUM_CIFAR.items()}, evidence=CIFAR_FILES,
        draw=mini.draw_cifar,
    ),
    "caltech256-mini": Dataset(
        load=partial(caltech.load, num_test=mini.NUM_CALTECH_TEST),
        verify=partial(caltech.verify, num_images=257 * mini.NUM_CALTECH), num_classes=256,
        num_images={"train6": 6 * 256, "train8": 8 * 256, "test4": 4 * 256}, evidence=CALTECH_FILES,
        all_images=caltech.all_images,
        draw=mini.draw_caltech,
    ),
    "ilsvrc2012-mini": Dataset(
        load=imagenet.load,
        verify=partial(imagenet.verify, num_images={k: 1000 * n for k, n in mini.NUM_IMAGENET.items()}),
        num_classes=1000, num_images={k: 1000 * n for k, n in mini.NUM_IMAGENET.items()}, evidence=IMAGENET_FILES,
        draw=mini.draw_imagenet,
    ),
    "cub200-mini": Dataset(
        load=cub.load, verify=partial(cub.verify, num_images={k: 200 * n for k, n in mini.NUM_CUB.items()}),
        num_classes=200, num_images={k: 200 * n for k, n in mini.NUM_CUB.items()}, evidence=CUB_FILES,
        draw=mini.draw_cub,
    ),
    "voc2012-mini": Dataset(
        load=voc.load, verify=partial(voc.verify, num_images=mini.NUM_SCENES), num_classes=20,
        num_images=mini.NUM_SCENES, evidence=VOC_FILES, draw=mini.draw_voc,
    ),
}  # fmt: skip


def find(name: str) -> Dataset:
    """The registry's entry. UserError with the nearest name for an unknown one."""
    if name in DATASETS:
        return DATASETS[name]
    described = grid.own_data()
    if name not in described:
        raise UserError(f"unknown data set '{name}'" + nearest(name, [*DATASETS, *described]))
    return Dataset(
        load=partial(own.load, described[name]), verify=partial(own.verify, name, described[name]),
        num_classes=len(described[name].classes),
        num_images={}, evidence=(), folder=own.folder(described[name]),
        all_images=partial(own.all_images, name, described[name]),
    )  # fmt: skip


def most_images(name: str, split: str) -> int:
    """Number of images of a data set's split, before any is read.

    Of a part of the official splits whose list lies with the data, as VOC's `present_train`: as many as the largest of
    them, which is more than it can have. Of one's own data: UNKNOWN.
    """
    dataset = find(name)
    parts = {part: len(range(cifar.NUM_IMAGES["train"])[of]) for part, of in cifar.PARTS.items()}
    known = dataset.official_counts | (parts if name == "cifar100" else {})
    return known.get(split) or max(dataset.num_images.values(), default=UNKNOWN)


def locate(name: str, data_root: Path | None, cache: Path) -> Path:
    """The folder that holds data set `name`: drawn under `cache` for a mini one, `data_root` for a real one."""
    dataset = find(name)
    if dataset.folder is not None:
        return dataset.folder
    if dataset.draw is not None:
        return mini.drawn(name, dataset.draw, cache)
    if data_root is None:
        raise UserError(f"{name} is not embedded: say where it lies with --data-root DIR (make: DATA=DIR)")
    if not data_root.is_dir():
        raise UserError(f"--data-root {data_root}: no such folder")
    return data_root


def present(name: str, root: Path, splits: Iterable[str], seed: int = 0) -> tuple[list[ImageSet], str]:
    """What is there of the splits, and what the official ones have beyond it, by counts; nothing where these are whole,
    drawn, or of a study's own. UserError where nothing can be read, and where the splits have other classes."""
    dataset, splits, why = find(name), list(splits), ""
    try:
        sets = _loaded(dataset, root, splits, seed, partial=False)
    except UserError as error:
        if dataset.source is None:
            raise
        why = str(error)
        sets = _loaded(dataset, root, splits, seed, partial=True)
    return sets, _missing(dataset, root, dict(zip(splits, sets, strict=True))) or why


def _missing(dataset: Dataset, root: Path, sets: dict[str, ImageSet]) -> str:
    if dataset.source is None:
        return ""
    shown = {label for of in sets.values() if of.targets.ndim == 1 for label in np.unique(of.targets).tolist()}
    counts = [(len(shown), dataset.num_classes, "classes")] if shown else []
    if dataset.all_images is not None:
        there = len(dataset.all_images(root))
        counts += [(there, dataset.total, "images")] if there < dataset.total else []  # some copies hold one twice
    else:
        official = dataset.official_counts
        counts += [(len(of.ids), official[s], f"images of {s}") for s, of in sets.items() if s in official]
    return ", ".join(f"{there:,} of {whole:,} {what}" for there, whole, what in counts if there != whole)


def _loaded(dataset: Dataset, root: Path, splits: Iterable[str], seed: int, partial: bool) -> list[ImageSet]:
    sets = [(split, _load(dataset, root, split, seed, partial)) for split in splits]
    checks.same_classes(root, sets)
    for _, images in sets:
        checks.names(root, images)
    return [images for _, images in sets]


def _load(dataset: Dataset, root: Path, split: str, seed: int, partial: bool) -> ImageSet:
    """What is drawn, or of a study's own, is whole or cannot be read."""
    return dataset.load(root, split, seed, **({"partial": True} if partial and dataset.source is not None else {}))


def read(job: Job, root: Path) -> tuple[ImageSet, ImageSet]:
    """What a job is trained on, but for its limit_train, and tested on.

    Raises:
        UserError: these cannot be read; are not whole, and the job is not `partial`; share images
            by their ids, and the job has no `overlap`; hold fewer images than the job asks for.
    """
    splits = job.train_split, job.test_split
    if job.partial:
        train, test = _loaded(find(job.dataset), root, splits, job.seed, partial=True)
    else:
        (train, test), missing = present(job.dataset, root, splits, job.seed)
        if missing:
            raise UserError(not_whole(job.dataset, root, missing))
    shared = checks.overlap(list(zip(splits, (train, test), strict=True)), content=False)
    if shared and not job.overlap:
        raise UserError(trained_and_tested(job.dataset, root, shared))
    within(job, train, test)
    return train, limited(test, job.limit_test)


def one_split(job: Job, root: Path) -> ImageSet:
    """The split that a job is tested on, or what is there of it where the job took no more. UserError where it cannot
    be read."""
    return _load(find(job.dataset), root, job.test_split, job.seed, job.partial)


def within(job: Job, train: ImageSet, test: ImageSet) -> None:
    """UserError where a job asks for more images than a split has."""
    for name, split, images in (("limit_train", job.train_split, train), ("limit_test", job.test_split, test)):
        limit, count = getattr(job, name), len(images.ids)
        if limit is not None and limit > count:
            raise UserError(f"{name} {limit:,}: split {split} of {job.dataset} has {count:,} images; ask for no more")


def not_whole(name: str, root: Path, missing: str) -> str:
    """What is wrong, and what a user can do."""
    what = missing.partition("; ")[0]  # a reader's own advice is part of the one that follows
    return (
        f"{name} under {root} is not complete ({what}); complete it, use what is there with --allow-partial, or "
        "train drawn data with --scale mini"
    )


def overlap(name: str, splits: Iterable[str], sets: list[ImageSet]) -> str:
    """Say which images a training and a test split share; empty where they share none, but for those that the official
    files share."""
    dataset = find(name)
    # Official sets of files hold a photograph twice here and there, and are what they are.
    content = dataset.folder is not None or isinstance(sets[0].images, np.ndarray)
    return checks.overlap(list(zip(splits, sets, strict=True)), dataset.twins, content)


def comparable(name: str, root: Path, train: ImageSet, test: ImageSet) -> None:
    """UserError where test images show nothing that could be told apart, or a study's own what it never trains on."""
    checks.pair_of_classes(root, test)
    if find(name).folder is not None:
        checks.trained_classes(root, train, test)


def trained_and_tested(name: str, root: Path, shared: str) -> str:
    """What is wrong, and what a user can do."""
    return (
        f"{name} under {root}: {shared}; take splits that share no image, or let it run with "
        "--allow-overlap, which tables tell"
    )


def image_files(name: str, root: Path) -> list[Path]:
    """The data set's images that are there, but for pixels that are stored in one array."""
    dataset, files = find(name), dict[Path, None]()
    if dataset.all_images is not None:
        return dataset.all_images(root)
    for split in dataset.num_images:
        with suppress(UserError):  # nothing of the split is there
            images = present(name, root, [split])[0][0].images
            files |= {} if isinstance(images, np.ndarray) else dict.fromkeys(images)
    return list(files)


def splits_of(name: str, root: Path) -> dict[str, ImageSet]:
    """Read what is there of the official splits, those made by rule included, or of those that the study's grids read,
    by their first seed; a split of which nothing can be read is left out."""
    dataset, seed_of = find(name), {}
    if dataset.folder is None:
        seed_of = dict.fromkeys(dataset.official_counts, 0)
    for seed, *splits in grid.own_reads(name) if dataset.folder is not None else []:
        seed_of = seed_of | {split: seed for split in splits if split not in seed_of}
    sets = {}
    for split, seed in seed_of.items():
        with suppress(UserError):
            sets[split] = _load(dataset, root, split, seed, partial=True)
    return sets


def verified(name: str, root: Path, cache: Path) -> str:
    """Why the whole of `name` is not under `root`, by counts, names and official checksums; empty when it is.

    A whole set is remembered in `cache` until a file or folder of it changes path, size or time.
    """
    dataset = find(name)
    if dataset.folder is None and _note(name, root, cache).is_file():
        return ""
    problem = dataset.verify(root) or (sources.wrong_checksum(dataset.source, root) if dataset.source else "")
    if (
        not problem and dataset.folder is None
    ):  # noted under what lies there now: verifying may have unpacked an archive
        write_json(_note(name, root, cache), {"dataset": name, "root": str(root.absolute())})
    return problem


def state(name: str, root: Path | None, cache: Path) -> str:
    """`verified`, `not verified` (something is there), or `absent`, without reading, drawing or unpacking anything."""
    if own_folder := find(name).folder:
        return "not verified" if own_folder.exists() else "absent"
    if root is None or not any(_evidence(name, root)):
        return "absent"
    return "verified" if _note(name, root, cache).is_file() else "not verified"


def digest(
    name: str, split: str, seed: int, data_root: Path | None, cache: Path, partial: bool = False,
    limit: int | None = None,
) -> str | None:  # fmt: skip
    """Which images and labels a split here has (store.scores.digest), without decoding, drawing or unpacking anything;
    None where it is not here, whole or `partial`. limit: of so many of its images. Kept in `cache` until a file of the
    set changes."""
    dataset = find(name)
    root = dataset.folder or (mini.drawn_root(name, cache) if dataset.draw else data_root)
    if root is None or not (dataset.folder or _evidence(name, root)):
        return None
    if dataset.folder:  # nothing says which of its files were looked at, so nothing is kept
        return _digest(dataset, root, split, seed, partial, limit)
    of = f"{split} {seed}" + (" partial" if partial else "") + (f" {limit}" if limit else "")
    key = hashlib.sha256(f"{_note(name, root, cache).name} {of}".encode()).hexdigest()[:24]
    kept = cache / DIGESTS / f"{name}-{key}.json"
    try:
        return str(json.loads(kept.read_bytes())["sha256"])
    except (OSError, ValueError, KeyError):
        pass
    found = _digest(dataset, root, split, seed, partial, limit)
    with suppress(UserError, OSError):  # a cache that cannot be written is done without
        if found is not None:
            write_json(kept, {"sha256": found})
    return found


def _digest(dataset: Dataset, root: Path, split: str, seed: int, partial: bool, limit: int | None) -> str | None:
    try:
        images = limited(_load(dataset, root, split, seed, partial), limit)
    except UserError:
        return None
    return scores.digest(np.array(images.ids), images.targets)


def _evidence(name: str, root: Path) -> list[Path]:
    return sorted(path for pattern in find(name).evidence for path in root.glob(pattern))


def _note(name: str, root: Path, cache: Path) -> Path:
    dataset = find(name)
    place = f"{name} {dataset.official_counts} {dataset.source} {root.absolute()}"
    key = hashlib.sha256(place.encode(errors="surrogateescape"))
    for path in _evidence(name, root):
        stat = path.lstat()
        key.update(f"\n{path.relative_to(root)} {stat.st_size} {stat.st_mtime_ns}".encode(errors="surrogateescape"))
    return cache / "verified" / f"{name}-{key.hexdigest()[:24]}.json"
