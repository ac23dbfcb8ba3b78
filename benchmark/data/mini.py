"""Embedded twins: numbers written with scanned digits over photographs, in each data set's official layout.

Class k of any data set is the number k, with leading noughts where all classes have as many digits. Digits are
scikit-learn's (scans of handwriting), backgrounds its two photographs; both come inside its package, so nothing is
downloaded. A test image uses no digit scan that a training image uses; but Caltech-256, whose splits are drawn at each
seed from all images, cannot promise that. The same seed draws the same pixels.
"""

import fcntl
import gzip
import io
import shutil
import tarfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmark.data import caltech, cifar, cub, imagenet, voc
from benchmark.errors import UserError

SCENE_SIZE = 80  # pixels, square
NUM_SCENES = {"train": 1200, "val": 400}
NUM_CIFAR = {"train": 20, "test": 5}  # per class
NUM_CALTECH, NUM_CALTECH_TEST = 12, 4  # per category; and how many of them are kept for testing
NUM_IMAGENET = {"train": 4, "val": 1}  # per class
NUM_CUB = {"train": 10, "test": 3}  # per class
IMAGENET_SIZE = 64
VERSION = 1  # raised whenever what is drawn changes; part of the folder's name


def drawn_root(name: str, cache_folder: Path) -> Path:
    """Where `drawn` puts it."""
    return cache_folder / "drawn" / f"{name}-{VERSION}"


def drawn(name: str, draw: Callable[[Path], None], cache_folder: Path) -> Path:
    """The drawn data set's root, drawn first if it is not there; safe against two callers."""
    root = drawn_root(name, cache_folder)
    try:
        root.parent.mkdir(parents=True, exist_ok=True)
        with open(root.with_suffix(".lock"), "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not root.is_dir():
                unfinished = root.with_suffix(".unfinished")
                shutil.rmtree(unfinished, ignore_errors=True)
                draw(unfinished)
                unfinished.rename(root)
    except OSError as error:
        raise UserError(f"{root}: cannot be drawn ({error.strerror}); free some space or move --cache") from None
    return root


@cache
def _digits() -> tuple[np.ndarray, np.ndarray]:
    from sklearn.datasets import load_digits  # two seconds to import, and only for drawing

    digits = load_digits()
    return (digits.images / 16.0).astype(np.float32), digits.target


@cache
def _photographs() -> list[Image.Image]:
    from sklearn.datasets import load_sample_images

    return [Image.fromarray(image) for image in load_sample_images().images]


def _scan(digit: int, test: bool, rng: np.random.Generator) -> np.ndarray:
    """One 8x8 scan of `digit` in [0, 1]; every fifth scan of a digit is kept for testing."""
    images, labels = _digits()
    scans = np.flatnonzero(labels == digit)
    held_out = np.arange(len(scans)) % 5 == 0
    return images[rng.choice(scans[held_out if test else ~held_out])]


def number_alpha(number: int | str, height: int, test: bool, rng: np.random.Generator) -> np.ndarray:
    """`number` in decimal, a string with its leading noughts: opacity in [0, 1], `height` rows and as many columns as
    the digits need."""
    ink = [_scan(int(d), test, rng)[:, 1:7] for d in str(number)]  # the outer columns are nearly always blank
    small = Image.fromarray((np.concatenate(ink, axis=1) * 255).astype(np.uint8))
    width = round(height * small.width / small.height)
    return np.asarray(small.resize((width, height), Image.Resampling.BICUBIC), dtype=np.float32) / 255


def background(size: int, rng: np.random.Generator) -> np.ndarray:
    """A random crop of one of the two photographs as (size, size, 3) float32 in [0, 255]."""
    photo = _photographs()[rng.integers(2)]
    side = int(rng.integers(size, min(photo.size)))
    x, y = int(rng.integers(photo.width - side + 1)), int(rng.integers(photo.height - side + 1))
    crop = photo.crop((x, y, x + side, y + side)).resize((size, size), Image.Resampling.BILINEAR)
    return np.asarray(crop, dtype=np.float32)


def write_number(
    canvas: np.ndarray,
    number: int | str,
    box: tuple[int, int, int],
    opacity: float,
    test: bool,
    rng: np.random.Generator,
) -> tuple[int, int, int, int]:
    """Write `number` on `canvas` (in place) with its corner at box = (x, y, height); its box (x0, y0, x1, y1)."""
    x, y, height = box
    alpha = number_alpha(number, height, test, rng)[: canvas.shape[0] - y, : canvas.shape[1] - x, None] * opacity
    h, w = alpha.shape[:2]
    patch = canvas[y : y + h, x : x + w]
    ink = rng.uniform(0, 60, 3) if patch.mean() > 127 else rng.uniform(195, 255, 3)
    patch[:] = patch * (1 - alpha) + ink * alpha
    return x, y, x + w, y + h


def _scene(index: int, split: str) -> tuple[np.ndarray, list[dict]]:
    """One VOC scene: 1 to 3 numbers below 20 in different quarters; about one in eight faint, marked difficult."""
    rng = np.random.default_rng([VERSION, ("train", "val").index(split), index])
    canvas = background(SCENE_SIZE, rng)
    half, objects = SCENE_SIZE // 2, []
    for quarter in rng.permutation(4)[: rng.choice([1, 2, 3], p=[0.3, 0.4, 0.3])]:
        number, difficult = int(rng.integers(len(voc.CLASSES))), bool(rng.random() < 0.125)
        height = int(rng.integers(20, 27))
        width = height * 6 * len(str(number)) // 8
        x = half * int(quarter % 2) + int(rng.integers(max(1, half - width)))
        y = half * int(quarter // 2) + int(rng.integers(half - height))
        opacity = 0.35 if difficult else float(rng.uniform(0.8, 1.0))
        box = write_number(canvas, number, (x, y, height), opacity, split == "val", rng)
        objects.append({"name": voc.CLASSES[number], "box": box, "difficult": difficult})
    return canvas.clip(0, 255).astype(np.uint8), objects


def pretraining_image(index: int) -> tuple[np.ndarray, int]:
    """One number anywhere on a photograph, (80, 80, 3) uint8, and the number.

    It is one of 20 to 119, none of them a class of mini VOC, as ImageNet's classes are not VOC's.
    """
    rng = np.random.default_rng([VERSION, 2, index])
    canvas, number, height = background(SCENE_SIZE, rng), int(rng.integers(100)) + 20, int(rng.integers(18, 30))
    width = height * 6 * len(str(number)) // 8
    corner = int(rng.integers(max(1, SCENE_SIZE - width))), int(rng.integers(SCENE_SIZE - height))
    write_number(canvas, number, (*corner, height), float(rng.uniform(0.5, 1.0)), False, rng)
    return canvas.clip(0, 255).astype(np.uint8), number


def pretraining_faded(index: int) -> tuple[np.ndarray, int]:
    """One number in the middle of a faded photograph, as mini Caltech-256 and CUB show theirs, and the number.

    It is one of 300 to 999, none of them a class of those two.
    """
    number = int(np.random.default_rng([VERSION, 3, index]).integers(300, 1000))
    return numbered(str(number), SCENE_SIZE, False, [4, index]), number


def numbered(text: str, size: int, test: bool, key: list[int]) -> np.ndarray:
    """One number (none where `text` is empty) on a faded photograph: (size, size, 3) uint8, drawn from `key` alone.

    It is legible at 32 pixels, and stands near enough to the centre to survive a random crop by an eighth of the size.
    """
    rng = np.random.default_rng([VERSION, *key])
    canvas = 0.35 * background(size, rng) + 0.65 * rng.choice([20.0, 235.0])
    if text:
        height = int(size * rng.uniform(0.68, 0.8)) * 8 // (6 * len(text))
        width = height * 6 * len(text) // 8
        jitter = rng.uniform(-size / 16, size / 16, 2)
        x, y = (int((size - length) / 2 + j) for length, j in zip((width, height), jitter, strict=True))
        write_number(canvas, text, (x, y, height), float(rng.uniform(0.8, 1.0)), test, rng)
    return canvas.clip(0, 255).astype(np.uint8)


def draw_cifar(root: Path, num_images: dict[str, int] = NUM_CIFAR) -> None:
    """Mini CIFAR-100 under `root`: the official pickles, `num_images` of each class in each."""
    folder = root / cifar.FOLDER
    folder.mkdir(parents=True)
    names = [f"number_{k:02d}" for k in range(cifar.NUM_CLASSES)]
    for split, count in num_images.items():
        test = split == "test"
        order = np.random.default_rng([VERSION, 10, test]).permutation(cifar.NUM_CLASSES * count)
        labels = [int(i) % cifar.NUM_CLASSES for i in order]
        images = [numbered(f"{i % cifar.NUM_CLASSES:02d}", cifar.SIDE, test, [11, test, int(i)]) for i in order]
        batch = {
            "filenames": [f"number_s_{i:06d}.png" for i in order],
            "batch_label": f"{split}ing batch 1 of 1",
            "fine_labels": labels,
            "coarse_labels": [k // 5 for k in labels],
            "data": np.stack(images).transpose(0, 3, 1, 2).reshape(len(images), -1),
        }
        (folder / split).write_bytes(_python2_pickle(batch))
    meta = {"fine_label_names": names, "coarse_label_names": [f"numbers_{5 * k:02d}" for k in range(20)]}
    (folder / "meta").write_bytes(_python2_pickle(meta))


def _python2_pickle(content: dict) -> bytes:
    """Protocol 2 as Python 2 and its numpy wrote it, opcode by opcode: Python 3 would mark its bytes otherwise."""

    def string(text: bytes) -> bytes:
        return b"T" + len(text).to_bytes(4, "little") + text

    def value(thing: str | int | list | np.ndarray) -> bytes:
        if isinstance(thing, str):
            return string(thing.encode())
        if isinstance(thing, int):
            return b"J" + thing.to_bytes(4, "little", signed=True)
        if isinstance(thing, list):
            return b"](" + b"".join(map(value, thing)) + b"e"
        dtype = (
            b"cnumpy\ndtype\n("
            + string(b"u1")
            + b"K\x00K\x01tR(K\x03"
            + string(b"|")
            + b"NNN"
            + value(-1) * 2
            + b"K\x00tb"
        )
        empty = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(K\x00t" + string(b"b") + b"tR"
        shape = b"(" + b"".join(map(value, thing.shape)) + b"t"
        return empty + b"(K\x01" + shape + dtype + b"\x89" + string(thing.tobytes()) + b"tb"

    return b"\x80\x02}(" + b"".join(string(k.encode()) + value(v) for k, v in content.items()) + b"u."


def draw_caltech(root: Path, num_images: int = NUM_CALTECH) -> None:
    """Mini Caltech-256 under `root`: its 257 folders, `num_images` in each; the clutter's show no number."""
    for k in range(caltech.NUM_CLASSES + 1):
        clutter = k == caltech.NUM_CLASSES
        folder = root / caltech.FOLDER / (f"{k + 1:03d}.clutter" if clutter else f"{k + 1:03d}.number-{k:03d}")
        folder.mkdir(parents=True)
        for i in range(num_images):
            pixels = numbered("" if clutter else f"{k:03d}", SCENE_SIZE, False, [20, k, i])
            (folder / f"{k + 1:03d}_{i + 1:04d}.jpg").write_bytes(_jpeg(pixels))


def draw_cub(root: Path, num_images: dict[str, int] = NUM_CUB) -> None:
    """Mini CUB-200-2011 under `root`: its 200 folders and four lists."""
    folder = root / cub.FOLDER
    lines: dict[str, list[str]] = {"images": [], "image_class_labels": [], "train_test_split": [], "classes": []}
    for k in range(cub.NUM_CLASSES):
        name = f"{k + 1:03d}.Number_{k:03d}"
        lines["classes"].append(f"{k + 1} {name}")
        (folder / "images" / name).mkdir(parents=True)
        flags = [cub.FLAG[split] for split, count in num_images.items() for _ in range(count)]
        for i, flag in enumerate(np.random.default_rng([VERSION, 30, k]).permutation(flags)):
            number, path = len(lines["images"]) + 1, f"{name}/Number_{k:03d}_{i + 1:04d}_{k * len(flags) + i}.jpg"
            pixels = numbered(f"{k:03d}", SCENE_SIZE, flag == cub.FLAG["test"], [31, k, i])
            (folder / "images" / path).write_bytes(_jpeg(pixels))
            lines["images"].append(f"{number} {path}")
            lines["image_class_labels"].append(f"{number} {k + 1}")
            lines["train_test_split"].append(f"{number} {flag}")
    for name, content in lines.items():
        (folder / f"{name}.txt").write_text("".join(f"{line}\n" for line in content))


def draw_imagenet(root: Path, num_images: dict[str, int] = NUM_IMAGENET) -> None:
    """Mini ILSVRC2012 under `root`: the three official archives, 1000 classes; the loader unpacks them."""
    root.mkdir(parents=True)
    wnids = [f"n{k:08d}" for k in range(imagenet.NUM_CLASSES)]
    with tarfile.open(root / imagenet.TRAIN_TAR, "w") as outer:
        for k, wnid in enumerate(wnids):
            inner = io.BytesIO()
            with tarfile.open(fileobj=inner, mode="w") as tar:
                for i in range(num_images["train"]):
                    _add(tar, f"{wnid}_{i}.JPEG", _jpeg(numbered(f"{k:03d}", IMAGENET_SIZE, False, [40, k, i])))
            _add(outer, f"{wnid}.tar", inner.getvalue())
    rng = np.random.default_rng([VERSION, 41])
    truth = rng.permutation(np.repeat(np.arange(imagenet.NUM_CLASSES), num_images["val"]))
    with tarfile.open(root / imagenet.VAL_TAR, "w") as tar:
        for i, k in enumerate(truth):
            pixels = numbered(f"{k:03d}", IMAGENET_SIZE, True, [42, i])
            _add(tar, f"ILSVRC2012_val_{i + 1:08d}.JPEG", _jpeg(pixels))
    # The devkit's numbers are in another order than the sorted ids, as the official ones are.
    ilsvrc_id = rng.permutation(imagenet.NUM_CLASSES) + 1
    _write_devkit(root / imagenet.DEVKIT_TAR, wnids, ilsvrc_id, ilsvrc_id[truth])


def _write_devkit(path: Path, wnids: list[str], ilsvrc_id: np.ndarray, truth: np.ndarray) -> None:
    from scipy.io import savemat

    fields = [("ILSVRC2012_ID", "f8"), ("WNID", "O"), ("words", "O"), ("gloss", "O"), ("num_children", "f8"),
              ("children", "O"), ("wordnet_height", "f8"), ("num_train_images", "f8")]  # fmt: skip
    rows: list[tuple[Any, ...]] = [
        (ilsvrc_id[k], wnids[k], f"number {k}", "drawn", 0, [], 0, 0) for k in np.argsort(ilsvrc_id)
    ]
    rows.append((len(rows) + 1, "n99999999", "number", "any of them", len(rows), list(ilsvrc_id), 1, 0))
    synsets = np.empty((len(rows), 1), dtype=fields)
    for i, row in enumerate(rows):
        synsets[i, 0] = row
    content = io.BytesIO()
    savemat(content, {"synsets": synsets})
    # The header's text holds the time of writing; without it the same bytes come out each time.
    mat = b"MATLAB 5.0 MAT-file".ljust(116) + content.getvalue()[116:]
    with gzip.GzipFile(path, "wb", mtime=0) as packed, tarfile.open(fileobj=packed, mode="w") as tar:
        _add(tar, f"{imagenet.DEVKIT}/data/meta.mat", mat)
        _add(tar, f"{imagenet.DEVKIT}/data/{imagenet.GROUND_TRUTH}", "".join(f"{i}\n" for i in truth).encode())


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    tar.addfile(member, io.BytesIO(content))


def _jpeg(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=92)
    return buffer.getvalue()


def draw_voc(root: Path) -> None:
    """Mini VOC 2012 under `root`, as the development kit lays it out, with boxes, trainval and all class files."""
    folder = root / "VOCdevkit" / "VOC2012"
    main = folder / "ImageSets" / "Main"
    for sub in (folder / "JPEGImages", folder / "Annotations", main):
        sub.mkdir(parents=True)
    labels: dict[str, dict[str, np.ndarray]] = {"train": {}, "val": {}}
    for split, count in NUM_SCENES.items():
        for index in range(count):
            image_id = f"{2008 if split == 'train' else 2009}_{index:06d}"
            pixels, objects = _scene(index, split)
            Image.fromarray(pixels).save(folder / "JPEGImages" / f"{image_id}.jpg", quality=92)
            (folder / "Annotations" / f"{image_id}.xml").write_text(_annotation(image_id, objects))
            labels[split][image_id] = _labels(objects)
    labels["trainval"] = labels["train"] | labels["val"]
    for split, label_of in labels.items():
        (main / f"{split}.txt").write_text("".join(f"{i}\n" for i in label_of))
        for k, name in enumerate(voc.CLASSES):
            (main / f"{name}_{split}.txt").write_text("".join(f"{i} {v[k]:2d}\n" for i, v in label_of.items()))


def _labels(objects: list[dict]) -> np.ndarray:
    labels = np.full(len(voc.CLASSES), voc.ABSENT)
    for thing in sorted(objects, key=lambda o: not o["difficult"]):  # a plain object outranks a difficult one
        labels[voc.CLASSES.index(thing["name"])] = voc.DIFFICULT if thing["difficult"] else voc.PRESENT
    return labels


def _annotation(image_id: str, objects: list[dict]) -> str:
    things = "".join(
        f"\t<object>\n\t\t<name>{o['name']}</name>\n\t\t<pose>Unspecified</pose>\n\t\t<truncated>0</truncated>\n"
        f"\t\t<difficult>{int(o['difficult'])}</difficult>\n\t\t<bndbox>\n"
        + "".join(f"\t\t\t<{k}>{v}</{k}>\n" for k, v in zip(("xmin", "ymin", "xmax", "ymax"), o["box"], strict=True))
        + "\t\t</bndbox>\n\t</object>\n"
        for o in objects
    )
    return (
        f"<annotation>\n\t<folder>VOC2012</folder>\n\t<filename>{image_id}.jpg</filename>\n\t<size>\n"
        f"\t\t<width>{SCENE_SIZE}</width>\n\t\t<height>{SCENE_SIZE}</height>\n\t\t<depth>3</depth>\n\t</size>\n"
        f"{things}</annotation>\n"
    )
