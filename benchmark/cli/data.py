"""`python -m benchmark data ...`: what data are there, whether they are whole, and how to get the rest."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import typer

from benchmark.cli.common import CACHE, AsJson, Cache, DataRoot
from benchmark.errors import UserError

Name = Annotated[str, typer.Argument(metavar="NAME", help="A data set, as 'data list' names it")]


def list_command(data_root: DataRoot = None, cache: Cache = CACHE, as_json: AsJson = False) -> None:
    """Say what is there and what is not, and how to get it. Nothing is read, drawn or fetched."""
    from tabulate import tabulate

    from benchmark import data
    from benchmark.matrix import grid

    if data_root is not None and not data_root.is_dir():
        raise UserError(f"--data-root {data_root}: no such folder")
    rows = [describe(name, data_root, cache) for name in [*data.DATASETS, *grid.own_data()]]
    if as_json:
        print(json.dumps(rows, indent=1))
        return
    keys = ("name", "state", "root", "command")
    print(tabulate([[row[key] or "–" for key in keys] for row in rows], headers=keys, tablefmt="simple"))
    for row in rows:
        if row["address"]:
            print(f"{row['name']}: {row['address']} ({', '.join(row['archives'])})\n    {row['terms']}")


def verify(
    name: Name,
    data_root: DataRoot = None,
    cache: Cache = CACHE,
    decode: Annotated[bool, typer.Option("--decode", help="Decode every image too, which takes a while")] = False,
    as_json: AsJson = False,
) -> None:
    """Check a data set by counts, names and official checksums, a study's own also for images that
    are both trained on and tested on; say how many images and classes each split has, and the mean
    and range of a sample. Exit status 0: complete; 1: not complete, or an image cannot be decoded."""
    from benchmark import data
    from benchmark.data import checks

    root = data.locate(name, data_root, cache)
    problem, sample = data.verified(name, root, cache), None
    sets, official = data.splits_of(name, root), data.find(name).official_counts
    for split in data.find(name).parts:
        if not problem and (split not in sets or len(sets[split].ids) != official[split]):
            problem = f"of {split} there are not the official {official[split]:,} images"
    try:
        sample = checks.sample(list(sets.values())) if sets else None
    except UserError as error:  # an image that is cut short, say; --decode names all of them
        problem = problem or str(error)
    files = data.image_files(name, root) if decode else []
    if decode:
        print(f"decoding {len(files):,} images", file=sys.stderr, flush=True)
    undecodable = data.undecodable(files) if decode else None
    looked_at = Looked({split: counts(images, official.get(split)) for split, images in sets.items()}, sample)
    for split, images in sets.items():
        if images.note:
            print(f"note: {name}, {split}: {images.note}", file=sys.stderr)
    report(name, root, problem, as_json, undecodable, looked_at)


def counts(images: Any, official: int | None) -> dict[str, int | None]:
    """How many images of a split are there, how many officially, and how many classes these show."""
    targets = images.targets
    shown = len(set(targets.tolist())) if targets.ndim == 1 else int((targets == 1).any(axis=0).sum())
    return {"images": len(images.ids), "official": official, "classes": shown}


def draw(name: Name, cache: Cache = CACHE, as_json: AsJson = False) -> None:
    """Write an embedded twin in its official layout. Runs draw what they need by themselves."""
    from benchmark import data

    if data.find(name).folder:
        raise UserError(f"{name} is the study's own, which nothing draws; its grid's data.path says where it lies")
    if data.find(name).draw is None:
        raise UserError(f"{name} is real data, which nothing draws; did you mean '{name}-mini'?")
    root = data.locate(name, None, cache)
    report(name, root, data.verified(name, root, cache), as_json)


def get(name: Name, data_root: DataRoot = None, cache: Cache = CACHE, as_json: AsJson = False) -> None:
    """Download, check and unpack a data set whose terms allow that unattended."""
    from benchmark import data
    from benchmark.data import sources

    source = data.find(name).source
    if data.find(name).folder:
        raise UserError(f"{name} is the study's own, which nothing fetches; its grid's data.path says where it lies")
    if source is None:
        raise UserError(f"{name} is embedded, there is nothing to fetch; 'data draw {name}' writes it")
    if data_root is None:
        raise UserError(f"say where {name} shall lie with --data-root DIR")
    if data_root.exists() and not data_root.is_dir():
        raise UserError(f"--data-root {data_root}: not a folder")
    if data.verified(name, data_root, cache):
        sources.fetch(name, source, data_root)
    report(name, data_root, data.verified(name, data_root, cache), as_json)


class Looked(NamedTuple):
    """What a data set holds: images and classes of each split, and a data.checks.Sample."""

    splits: dict[str, dict[str, int | None]]
    sample: Any


def report(
    name: str, root: Path, problem: str, as_json: bool, undecodable: list[str] | None = None,
    looked: Looked | None = None,
) -> None:  # fmt: skip
    """Print what was found; exit status 1 where the data set is not whole. undecodable: None where none was decoded."""
    splits, sample = looked or ({}, None)
    if as_json:
        found = {"name": name, "root": str(root), "complete": not problem, "problem": problem or None}
        found |= {"splits": splits, "sample": sample and sample._asdict()} if looked else {}
        print(json.dumps(found | ({} if undecodable is None else {"undecodable": undecodable})))
    else:
        print(f"{name} under {root}: {f'not complete: {problem}' if problem else 'complete'}")
        for split, count in splits.items():
            whole = "" if count["official"] in (None, count["images"]) else f" of {count['official']:,}"
            print(f"{split}: {count['images']:,}{whole} images, which show {count['classes']:,} classes")
        if sample:
            print(
                f"a sample of {sample.images} images, as 8-bit RGB: mean {sample.mean:.1f}, "
                f"from {sample.lowest} to {sample.highest}"
            )
        for line in undecodable or []:
            print(line)
        if undecodable is not None:
            print(f"{len(undecodable):,} images cannot be decoded")
    if problem or undecodable:
        sys.exit(1)


def describe(name: str, data_root: Path | None, cache: Path) -> dict[str, Any]:
    """One line of the list, as plain values."""
    from benchmark import data
    from benchmark.data import mini
    from benchmark.matrix import study

    dataset = data.find(name)
    root = dataset.folder or (data_root if dataset.draw is None else mini.drawn_root(name, cache))
    state = data.state(name, root, cache)
    option = f" --data-root {data_root or 'DIR'}" if dataset.source else ""
    option = f" --study {study.at_hand().folder}" if dataset.folder else option
    command = {"verified": "", "not verified": f"data verify {name}{option}"}.get(state)
    source = dataset.source
    if command is None and dataset.folder is None:
        # What only a person may fetch is not for `get`: the address below says where, and then it is to be verified.
        verb = "draw" if source is None else "get" if source.unattended else "verify"
        command = f"data {verb} {name}{option}"
    return {
        "name": name,
        "state": state,
        "root": str(root) if root and state != "absent" else None,
        "command": f"python -m benchmark {command}" if command else None,
        "splits": dataset.num_images,
        "num_classes": dataset.num_classes,
        "address": source.address if source else None,
        "archives": [archive.name for archive in source.archives] if source else [],
        "urls": [archive.url for archive in source.archives] if source else [],
        "terms": source.terms if source else None,
        "unattended": source.unattended if source else None,
    }


COMMANDS: dict[str, Callable[..., None]] = {"list": list_command, "verify": verify, "draw": draw, "get": get}
