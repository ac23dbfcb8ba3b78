"""From image files to batches of square uint8 pixels: one decoder, four ways of cutting the square.

`none`: the data set holds its pixels in one array already (CIFAR). `warp`: the whole picture to the square, aspect
ratio given up. `warp_crop`: warped to a square larger by 256/224, then a crop of it, random in training and central in
testing. `random_resized_crop`: torchvision's reference for ImageNet, a random area and aspect ratio in training; the
shorter side to 256/224 of the size, then the central crop, in testing. Mirroring is the training loop's.
"""

import hashlib
import math
import os
import warnings
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import PIL
from PIL import Image

from benchmark.data.archives import locked
from benchmark.errors import UserError, nearest

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff")
JUNK = ("__MACOSX", "@eaDir", "Thumbs.db", "desktop.ini")  # that systems leave in folders, beside names with a dot
RESIZES = ("none", "warp", "warp_crop", "random_resized_crop")
SCALE, RATIO = (0.08, 1.0), (3 / 4, 4 / 3)  # of a random resized crop: share of the area, width by height
MAX_MAP_BYTES = 8 * 2**30  # a larger split is decoded anew each time it is read, and fills no disk
EXIF_ORIENTATION, TIFF_BITS = 0x0112, 258
DARKEST_MAXIMUM = 2**12  # of 16 bits: a picture of no higher value is one of fewer bits, or as good as black
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_270, 7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}  # fmt: skip

# A picture beyond pillow's limit is refused, as its manual advises, rather than warned about and decoded.
warnings.simplefilter("error", Image.DecompressionBombWarning)


@dataclass(frozen=True)
class ImageSet:
    """One split. `images`: a file each, or all pixels as (N, H, W, 3) uint8 where the format holds them in one array.
    `targets`: (N,) int64 class numbers, or, multi-label, (N, num_classes) int8 of 1 present, 0 only difficult,
    -1 absent. `note`: what a user is to be told of it."""

    classes: tuple[str, ...]
    ids: tuple[str, ...]
    images: tuple[Path, ...] | np.ndarray
    targets: np.ndarray
    note: str = ""


class ScaleError(ValueError):
    """A picture whose values do not tell what is black and what is white."""


def is_hidden(name: str) -> bool:
    """Whether a file or folder of this name is no class and no image: hidden (`.ipynb_checkpoints`, the `._*` of a
    Macintosh), or left by a system (`__MACOSX`, `Thumbs.db`)."""
    return name.startswith(".") or name in JUNK


def limited(images: ImageSet, limit: int | None) -> ImageSet:
    """So many images of it, in its order, all where there is no limit. Which ones hangs on how many there are alone:
    runs of all seeds are tested on the same."""
    if limit is None or limit >= len(images.ids):
        return images
    kept = np.sort(np.random.default_rng(0).permutation(len(images.ids))[:limit])
    pixels = images.images[kept] if isinstance(images.images, np.ndarray) else tuple(images.images[i] for i in kept)
    return replace(images, ids=tuple(images.ids[i] for i in kept), images=pixels, targets=images.targets[kept])


def incomplete(load: Callable[[Path, str], ImageSet], root: Path, num_classes: int, num_images: dict[str, int]) -> str:
    """Why the splits under `root` are not whole, by the counts of each one's images; empty when they are."""
    try:
        for split, count in num_images.items():
            images = load(root, split)
            if len(images.classes) != num_classes:
                return f"{split} has {len(images.classes)} classes, the official one {num_classes}"
            if len(images.ids) != count:
                return f"{split} has {len(images.ids)} images, the official one {count}"
    except UserError as error:
        return str(error)
    return ""


@dataclass(frozen=True)
class Pixels:
    """One split as the network sees it, but for mirroring and normalising. Made by open_pixels.

    `array`: (N, side, side, 3) uint8, mostly a memory map, with side >= size; None where every read decodes the files.
    """

    images: ImageSet
    size: int
    resize: str
    array: np.ndarray | None

    def __len__(self) -> int:
        return len(self.images.ids)

    def train_batch(self, indices: np.ndarray, seed: int, epoch: int, out: np.ndarray | None = None) -> np.ndarray:
        """Images `indices` as (B, size, size, 3) uint8, written into `out` where it is given; each crop is drawn from
        (seed, epoch, index) alone, so it is the same in any batch, order, or number of threads. Index 0's is the stream
        of the epoch's order, since numpy fills a key up with zeros (docs/data.md). UserError names an image that cannot
        be decoded."""
        rngs = [np.random.default_rng([seed, epoch, int(i)]) for i in indices]
        return self._batch([int(i) for i in indices], rngs, out)

    def test_batch(self, indices: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        """Images `indices` as (B, size, size, 3) uint8, nothing drawn; `out` and UserError as train_batch."""
        return self._batch([int(i) for i in indices], [None] * len(indices), out)

    def digest(self) -> str:
        """SHA-256 of all test-view pixels in the split's order; where they are decoded at each read, of the files'
        names and sizes instead."""
        digest = hashlib.sha256()
        if self.array is None:
            for path in self.images.images:
                digest.update(f"{path.name} {_stat(path).st_size}\n".encode(errors="surrogateescape"))
        else:
            for i in range(0, len(self), 256):
                digest.update(np.ascontiguousarray(self.test_batch(np.arange(i, min(i + 256, len(self))))))  # type: ignore[arg-type]
        return digest.hexdigest()

    def _batch(
        self, indices: list[int], generators: Sequence[np.random.Generator | None], out: np.ndarray | None
    ) -> np.ndarray:
        out_BHWC = np.empty((len(indices), self.size, self.size, 3), np.uint8) if out is None else out
        if self.array is not None and self.array.shape[1] == self.size:
            return np.take(self.array, indices, axis=0, out=out_BHWC, mode="wrap")  # as indexing; "raise" would copy

        def put(at: int) -> None:
            index, rng = indices[at], generators[at]
            out_BHWC[at] = self._decode(index, rng) if self.array is None else crop(self.array[index], self.size, rng)

        list((map if self.array is not None else self._pool.map)(put, range(len(indices))))
        return out_BHWC

    def _decode(self, index: int, rng: np.random.Generator | None) -> np.ndarray:
        path = self.images.images[index]
        if self.resize != "random_resized_crop":
            return crop(read_warped(path, stored_side(self.size, self.resize)), self.size, rng)
        if rng is None:
            return read_centre(path, self.size)
        return read_random_resized_crop(path, self.size, rng)

    @cached_property
    def _pool(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(max_workers=num_threads(), thread_name_prefix="decode")


def open_pixels(images: ImageSet, size: int, resize: str, cache: Path) -> Pixels:
    """One split ready to read at `size` pixels. Decodes it into `cache` first where a memory map serves.

    UserError for an image that cannot be decoded, and for a `resize` that does not fit the data set.
    """
    if resize not in RESIZES:
        raise UserError(f"unknown resize '{resize}'" + nearest(resize, RESIZES))
    if isinstance(images.images, np.ndarray):
        _check_stored_pixels(images.images, size, resize)
        return Pixels(images, size, resize, images.images)
    if resize == "none":
        raise UserError("resize 'none' is for data sets that store pixels; this one stores files: take another resize")
    side = stored_side(size, resize)
    mapped = resize != "random_resized_crop" and len(images.ids) * side * side * 3 <= MAX_MAP_BYTES
    return Pixels(images, size, resize, decode(images, side, cache) if mapped else None)


def _check_stored_pixels(array: np.ndarray, size: int, resize: str) -> None:
    if resize != "none" or array.shape[1:] != (size, size, 3):
        raise UserError(
            f"image_size {size} with resize '{resize}': this data set stores pixels of "
            f"{array.shape[2]} x {array.shape[1]}; set image_size={array.shape[1]} and resize=none"
        )


def stored_side(size: int, resize: str) -> int:
    """Side of the square, or length of the shorter side, that a crop of `size` is taken from in testing."""
    return size if resize in ("none", "warp") else round(size * 256 / 224)


def num_threads() -> int:
    """Cores that this process may use; pillow releases the GIL while it decodes."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def decode(images: ImageSet, size: int, cache: Path) -> np.ndarray:
    """All images warped to (N, size, size, 3) uint8 RGB, read through a memory map that survives the process.

    The cache file's name is a hash of what went in: each file's path, length and time of change, the size, and
    pillow's version. UserError names an image that cannot be decoded.
    """
    assert not isinstance(images.images, np.ndarray)
    # "in scale": what was decoded before pictures of another scale were refused may hold black ones.
    key = hashlib.sha256(f"warp upright in scale {size} pillow {PIL.__version__}".encode())
    for path in images.images:
        stat = _stat(path)
        key.update(f"\n{path.absolute()} {stat.st_size} {stat.st_mtime_ns}".encode(errors="surrogateescape"))
    target = cache / "decoded" / f"{key.hexdigest()[:24]}.npy"
    shape = (len(images.images), size, size, 3)
    array = _opened(target, shape)
    if array is not None:
        return array
    temporary = target.with_name(f"{target.stem}.{os.getpid()}.tmp")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with locked(target):  # workers that start together need the same pictures
            if _opened(target, shape) is None:
                for unfinished in target.parent.glob(f"{target.stem}.*.tmp"):  # of a process that was killed
                    unfinished.unlink(missing_ok=True)
                _write(images.images, size, temporary)
                os.replace(temporary, target)
        return np.load(target, mmap_mode="r")
    except OSError as error:
        raise UserError(f"{target}: cannot be written ({error.strerror}); free some space or move --cache") from None
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def _stat(path: Path) -> os.stat_result:
    try:
        return path.stat()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); complete the data") from None


def _opened(target: Path, shape: tuple[int, ...]) -> np.ndarray | None:
    """The decoded pictures; None where they are not there, or a crash of the machine cut them short."""
    try:
        array = np.load(target, mmap_mode="r")
    except (OSError, ValueError, EOFError):
        return None
    return array if array.shape == shape and array.dtype == np.uint8 else None


def _write(paths: tuple[Path, ...], size: int, target: Path) -> None:
    shape = (len(paths), size, size, 3)
    # Reserved before it is mapped: a full disk is then an error here, and no SIGBUS in the middle of a write.
    with open(target, "wb") as file:
        header = np.lib.format.header_data_from_array_1_0(np.empty((0, *shape[1:]), np.uint8)) | {"shape": shape}
        np.lib.format.write_array_header_1_0(file, header)
        file.flush()
        os.posix_fallocate(file.fileno(), file.tell(), int(np.prod(shape)))
    array = np.load(target, mmap_mode="r+")

    def read(i: int) -> None:
        array[i] = read_warped(paths[i], size)

    with ThreadPoolExecutor(max_workers=num_threads()) as pool:
        list(pool.map(read, range(len(paths))))
    array.flush()


def undecodable(paths: Iterable[Path]) -> list[str]:
    """A line for each image that cannot be decoded to its last pixel."""

    def problem(path: Path) -> str:
        try:
            with Image.open(path) as image:
                upright_rgb(image)
            return ""
        except Exception as error:
            return str(_undecodable(path, error))

    with ThreadPoolExecutor(max_workers=num_threads()) as pool:
        return [text for text in pool.map(problem, paths) if text]


def read_warped(path: Path, size: int) -> np.ndarray:
    """The whole picture as (size, size, 3) uint8 RGB, aspect ratio given up."""
    try:
        with Image.open(path) as image:
            return np.asarray(upright_rgb(image).resize((size, size), Image.Resampling.BILINEAR))
    except Exception as error:  # pillow raises many kinds for a broken file, SyntaxError among them
        raise _undecodable(path, error) from None


def read_random_resized_crop(path: Path, size: int, rng: np.random.Generator) -> np.ndarray:
    """A random part of the picture, resized to (size, size, 3) uint8 RGB."""
    try:
        with Image.open(path) as image:
            width, height = upright_size(image)
            x, y, w, h = draw_resized_crop(width, height, rng)
            shrink(image, size / min(w, h))
            picture = upright_rgb(image)
            fx, fy = picture.width / width, picture.height / height
            box = (round(x * fx), round(y * fy), max(round((x + w) * fx), 1), max(round((y + h) * fy), 1))
            return np.asarray(picture.crop(box).resize((size, size), Image.Resampling.BILINEAR))
    except Exception as error:
        raise _undecodable(path, error) from None


def read_centre(path: Path, size: int) -> np.ndarray:
    """The shorter side to round(size * 256 / 224), then the central (size, size, 3) uint8 RGB: torchvision's Resize and
    CenterCrop, bit for bit. So the JPEG decoder halves nothing here: `shrink` would change pixels of a picture whose
    shorter side is four times the resized one or more."""
    side = stored_side(size, "random_resized_crop")
    try:
        with Image.open(path) as image:
            width, height = upright_size(image)
            short = min(width, height)
            longer = int(side * max(width, height) / short)  # rounded down, as torchvision's Resize does
            assert Image.MAX_IMAGE_PIXELS is not None
            if side * longer > Image.MAX_IMAGE_PIXELS:
                raise ValueError(f"{width} x {height} is too elongated to resize")
            resized = (side, longer) if width <= height else (longer, side)
            return crop(np.asarray(upright_rgb(image).resize(resized, Image.Resampling.BILINEAR)), size, None)
    except Exception as error:
        raise _undecodable(path, error) from None


def _undecodable(path: Path, error: Exception) -> UserError:
    if isinstance(error, ScaleError):
        return UserError(f"{path}: {error}; save it with 8 bits a pixel")
    return UserError(f"{path}: cannot be decoded as an image ({error}); fetch it again")


def upright_size(image: Image.Image) -> tuple[int, int]:
    """(width, height) after the EXIF rotation, known before anything is decoded."""
    return (image.height, image.width) if orientation(image) >= 5 else image.size


def orientation(image: Image.Image) -> int:
    """1 (upright) to 8, as EXIF numbers them. A damaged EXIF block spoils no picture: it counts as upright."""
    try:
        value = image.getexif().get(EXIF_ORIENTATION)
    except Exception:  # pillow's reader of it raises SyntaxError, struct.error and others
        return 1
    return value if value in UPRIGHT else 1


def shrink(image: Image.Image, factor: float) -> None:
    """Let the JPEG decoder halve the picture while at least twice as many pixels as needed stay, the margin that
    pillow's manual calls visually lossless (reducing_gap=2); does nothing for other formats, or a small picture."""
    if 2 * factor < 1:
        image.draft(None, (math.ceil(image.width * 2 * factor), math.ceil(image.height * 2 * factor)))


def upright_rgb(image: Image.Image) -> Image.Image:
    """Any kind of picture as 8-bit RGB, rotated as its EXIF data ask. Transparency is given up, not blended.

    Integers of more than 8 bits have 0 ... 65535 as black and white, and lose their lower bits; floating point has
    0 ... 255.

    Raises:
        ScaleError: values that are beyond that range, or so low that the picture would be read as black: shares from 0
            to 1, 8 or 12 bits in 16.
    """
    deep = not image.mode.startswith(("I", "F")) and bits(image) > 8
    turned = orientation(image)
    if turned != 1:
        image = image.transpose(UPRIGHT[turned])
    if image.mode.startswith("I"):  # 16 bits a pixel; pillow's own conversion would clip them at 255
        values = np.asarray(image).astype(np.int64)
        _check_scale(values, DARKEST_MAXIMUM, 65535)
        image = Image.fromarray((values >> 8).astype(np.uint8))
    elif image.mode == "F":
        _check_scale(np.asarray(image), 1 + 1e-6, 255)
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")  # straight to RGB, pillow warns
    image = image.convert("RGB")
    if deep and np.asarray(image).max() < DARKEST_MAXIMUM >> 8:  # pillow gives the upper 8 bits
        raise ScaleError("has 16 bits a channel and hardly a value in the upper ones, so it would be read as black")
    return image


def bits(image: Image.Image) -> int:
    """How many bits a channel has in the file; pillow's modes tell it of gray pictures only.
    8 where it cannot be 16."""
    if image.format == "PNG":
        with open(image.filename, "rb") as file:  # type: ignore[attr-defined]
            return file.read(25)[24]  # of IHDR, the first chunk
    return int(np.max(getattr(image, "tag_v2", {}).get(TIFF_BITS, 8)))


def _check_scale(values: np.ndarray, least: float, most: float) -> None:
    """ScaleError where values are not numbers from 0 to `most`, or all below `least` and yet not all 0."""
    low, high = values.min(), values.max()
    if not (low >= 0 and high <= most) or 0 < high < least:
        raise ScaleError(
            f"holds values from {low:g} to {high:g}, of which nobody can tell what is black and what is white "
            f"(expected: 0 ... {most}, not all up to {least:.0f})"
        )


def draw_resized_crop(width: int, height: int, rng: np.random.Generator) -> tuple[int, int, int, int]:
    """(x, y, w, h) within width x height: area uniform in SCALE, log aspect ratio uniform in RATIO, ten attempts, then
    the largest central crop within RATIO (torchvision, RandomResizedCrop.get_params)."""
    for _ in range(10):
        area = width * height * rng.uniform(*SCALE)
        ratio = math.exp(rng.uniform(math.log(RATIO[0]), math.log(RATIO[1])))
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            return int(rng.integers(width - w + 1)), int(rng.integers(height - h + 1)), w, h
    w = min(width, max(round(height * RATIO[1]), 1))
    h = min(height, max(round(width / RATIO[0]), 1))
    return (width - w) // 2, (height - h) // 2, w, h


def crop(pixels_HWC: np.ndarray, size: int, rng: np.random.Generator | None) -> np.ndarray:
    """(size, size, 3) of a picture that is no smaller: anywhere, or the centre where no generator is given."""
    spare = pixels_HWC.shape[0] - size, pixels_HWC.shape[1] - size
    if rng is None:
        y, x = (round(s / 2) for s in spare)  # torchvision's CenterCrop rounds so too
    else:
        y, x = (int(rng.integers(s + 1)) for s in spare)
    return pixels_HWC[y : y + size, x : x + size]
