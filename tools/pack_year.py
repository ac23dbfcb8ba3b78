"""Pack what one year of PASCAL VOC 2012 is trained with on a machine that reaches nothing, in parts of a limited size.

    python tools/pack_year.py VOC_ROOT FOLDER --year 2008 --weights FILE [--part-mib 48]

FOLDER/<n>of<N>.tar, each of them readable by itself, hold the year's photographs and annotations, the official lists
and labels, the weights, and a clone of this repository at its commit, so that records name it. tools/year_gpu.sh
unpacks them and trains.
"""

import argparse
import re
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
CODE = ("/benchmark/", "/tools/", "/tables/*.yaml")  # of the repository; its records stay where they are
OFFICIAL = re.compile(r"([a-z]+_)?(train|val)")  # lists of a split, and of a class in it
TAR_BLOCK = 512
TAR_END = 20 * TAR_BLOCK  # what an archive is filled up to


def voc_files(root: Path, year: str) -> Iterator[tuple[Path, str]]:
    """Each file of the year under `root`, and its name in the pack: pictures, annotations, train's and val's lists."""
    voc = root / "VOCdevkit" / "VOC2012"
    lists = voc.glob("ImageSets/Main/*.txt")
    official = [path for path in lists if OFFICIAL.fullmatch(path.stem) and "present" not in path.stem]
    pictures = voc.glob(f"JPEGImages/{year}_*.jpg")
    for path in sorted([*official, *pictures, *voc.glob(f"Annotations/{year}_*.xml")]):
        yield path, f"data/{path.relative_to(root)}"


def clone(into: Path) -> None:
    """A clone of the last commit alone, with the code's files. Ends the program where the code differs from it."""
    asked = ["git", "status", "--porcelain", "--", "benchmark"]
    changed = subprocess.run(asked, cwd=ROOT, capture_output=True, text=True, check=True)
    if changed.stdout:
        sys.exit("error: benchmark/ differs from its commit, which runs would name: commit the changes first")
    serve = "git -c uploadpack.allowFilter=true upload-pack"
    depth = ["--depth", "1", "--filter=blob:none", "--sparse", "--no-checkout"]
    subprocess.run(["git", "clone", "-q", *depth, "--upload-pack", serve, f"file://{ROOT}", into], check=True)
    subprocess.run(["git", "sparse-checkout", "set", "--no-cone", *CODE], cwd=into, check=True)
    subprocess.run(["git", "-c", f"remote.origin.uploadpack={serve}", "checkout", "-q"], cwd=into, check=True)


def shared_out(files: list[tuple[Path, str]], limit: int) -> list[list[tuple[Path, str]]]:
    """The files in order, in parts whose archives stay below `limit` bytes."""
    parts: list[list[tuple[Path, str]]] = [[]]
    size = 0
    for path, name in files:
        needed = 2 * TAR_BLOCK + path.stat().st_size  # a header, and what fills up the last block
        if needed + TAR_END > limit:
            sys.exit(f"error: {path} alone is larger than a part; make parts larger with --part-mib")
        if size + needed + TAR_END > limit:
            parts.append([])
            size = 0
        parts[-1].append((path, name))
        size += needed
    return parts


def plain(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    """Without what says when and by whom: the same files make the same archive."""
    entry.mtime, entry.uid, entry.gid, entry.uname, entry.gname = 0, 0, 0, "", ""
    return entry


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", type=Path, help="folder that holds VOCdevkit/VOC2012")
    parser.add_argument("folder", type=Path, help="where the parts are written")
    parser.add_argument("--year", default="2008")
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--part-mib", type=int, default=48)
    asked = parser.parse_args()
    files = [*voc_files(asked.root, asked.year), (asked.weights, f"weights/{asked.weights.name}")]
    if sum(name.endswith(".jpg") for _, name in files) == 0:
        sys.exit(f"error: {asked.root}: no photograph of {asked.year} under VOCdevkit/VOC2012/JPEGImages")
    asked.folder.mkdir(parents=True, exist_ok=True)
    if before := [path.name for path in asked.folder.glob("*of*.tar")]:
        sys.exit(f"error: {asked.folder} holds parts already, such as {before[0]}: name an empty folder")
    with tempfile.TemporaryDirectory() as work:
        clone(Path(work, "suite"))
        with tarfile.open(Path(work, "suite.tar"), "w") as tar:
            tar.add(Path(work, "suite"), "suite")
        parts = shared_out([(Path(work, "suite.tar"), "suite.tar"), *files], asked.part_mib * 2**20)
        for number, part in enumerate(parts, start=1):
            with tarfile.open(asked.folder / f"{number}of{len(parts)}.tar", "w") as tar:
                for path, name in part:
                    tar.add(path, name, filter=plain)
    for path in sorted(asked.folder.glob("*of*.tar")):
        print(f"{path}: {path.stat().st_size / 2**20:.1f} MiB")


if __name__ == "__main__":
    main()
