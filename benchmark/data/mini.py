"""Embedded twins: numbers written with scanned digits over photographs, in each data set's official layout.

Class k of any data set is the number k. Digits are scikit-learn's (scans of handwriting), backgrounds its two
photographs; both come inside its package, so nothing is downloaded. A test image uses no digit scan that a training
image uses. The same seed draws the same pixels.
"""

import fcntl
import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image

from benchmark.data import voc
from benchmark.errors import UserError

SCENE_SIZE = 80  # pixels, square
NUM_SCENES = {"train": 1200, "val": 400}
VERSION = 1  # raised whenever what is drawn changes; part of the folder's name


def drawn(name: str, draw: Callable[[Path], None], cache_folder: Path) -> Path:
    """The drawn data set's root, drawn first if it is not there; safe against two callers."""
    root = cache_folder / "drawn" / f"{name}-{VERSION}"
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


def number_alpha(number: int, height: int, test: bool, rng: np.random.Generator) -> np.ndarray:
    """`number` written in decimal: opacity in [0, 1], `height` rows and as many columns as its digits need."""
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
    canvas: np.ndarray, number: int, box: tuple[int, int, int], opacity: float, test: bool, rng: np.random.Generator
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
    """One number anywhere on a photograph, (80, 80, 3) uint8, and its class in 0 ... 99.

    The numbers are 20 to 119, none of them a class of mini VOC, as ImageNet's classes are not VOC's.
    """
    rng = np.random.default_rng([VERSION, 2, index])
    canvas, label, height = background(SCENE_SIZE, rng), int(rng.integers(100)), int(rng.integers(18, 30))
    width = height * 6 * len(str(label + 20)) // 8
    corner = int(rng.integers(max(1, SCENE_SIZE - width))), int(rng.integers(SCENE_SIZE - height))
    write_number(canvas, label + 20, (*corner, height), float(rng.uniform(0.5, 1.0)), False, rng)
    return canvas.clip(0, 255).astype(np.uint8), label


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
