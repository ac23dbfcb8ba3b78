"""Data sets in their official on-disk layouts. Registry: name -> how to find it, read it, draw it."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from benchmark.data import mini, voc
from benchmark.data.loading import ImageSet, decode
from benchmark.errors import UserError, nearest

__all__ = ["DATASETS", "Dataset", "ImageSet", "decode", "locate"]


@dataclass(frozen=True)
class Dataset:
    """`load(root, split)` reads one split; `verify(root)` says why the whole set is not there, or nothing;
    `draw(root)` writes an embedded twin (None for real data)."""

    load: Callable[[Path, str], ImageSet]
    verify: Callable[[Path], str]
    draw: Callable[[Path], None] | None = None


DATASETS = {
    "voc2012": Dataset(load=voc.load, verify=voc.verify),
    "voc2012-mini": Dataset(load=voc.load, verify=voc.verify, draw=mini.draw_voc),
}


def locate(name: str, data_root: Path | None, cache: Path) -> Path:
    """The folder that holds data set `name`: drawn under `cache` for a mini one, `data_root` for a real one."""
    if name not in DATASETS:
        raise UserError(f"unknown data set '{name}'" + nearest(name, DATASETS))
    dataset = DATASETS[name]
    if dataset.draw is not None:
        return mini.drawn(name, dataset.draw, cache)
    if data_root is None:
        raise UserError(f"{name} is not embedded: say where it lies with --data-root DIR (make: DATA=DIR)")
    if not data_root.is_dir():
        raise UserError(f"--data-root {data_root}: no such folder")
    return data_root
