"""From image files to one memory-mapped uint8 array, decoded once and shared by every job that reads it."""

import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import PIL
from PIL import Image

from benchmark.errors import UserError


@dataclass(frozen=True)
class ImageSet:
    """One split. `images`: a file each, or all pixels as (N, H, W, 3) uint8 where the format holds them in one array.
    `targets`: (N,) int64 class numbers, or, multi-label, (N, num_classes) int8 of 1 present, 0 only difficult,
    -1 absent."""

    classes: tuple[str, ...]
    ids: tuple[str, ...]
    images: tuple[Path, ...] | np.ndarray
    targets: np.ndarray


def decode(images: ImageSet, size: int, cache: Path) -> np.ndarray:
    """All images warped to (N, size, size, 3) uint8 RGB, read through a memory map that survives the process.

    The cache file's name is a hash of what went in: each file's path, length and time of change, the size, and
    pillow's version. Two writers write the same bytes to two temporary files; the later rename changes nothing.
    UserError names an image that cannot be decoded.
    """
    key = hashlib.sha256(f"warp {size} pillow {PIL.__version__}".encode())
    for path in images.images:
        stat = path.stat()
        key.update(f"\n{path.absolute()} {stat.st_size} {stat.st_mtime_ns}".encode(errors="surrogateescape"))
    target = cache / "decoded" / f"{key.hexdigest()[:24]}.npy"
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.with_name(f"{target.stem}.{os.getpid()}.tmp")
        try:
            _write(images.images, size, temporary)
            os.replace(temporary, target)
        except OSError as error:
            raise UserError(
                f"{target}: cannot be written ({error.strerror}); free some space or move --cache"
            ) from None
        finally:
            temporary.unlink(missing_ok=True)
    return np.load(target, mmap_mode="r")


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
        array[i] = _read_image(paths[i], size)

    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:  # pillow releases the GIL while it decodes
        list(pool.map(read, range(len(paths))))
    array.flush()


def _read_image(path: Path, size: int) -> np.ndarray:
    try:
        with Image.open(path) as image:
            return np.asarray(image.convert("RGB").resize((size, size), Image.Resampling.BILINEAR))
    except Exception as error:  # pillow raises many kinds for a broken file, SyntaxError among them
        raise UserError(f"{path}: cannot be decoded as an image ({error}); fetch it again") from None
