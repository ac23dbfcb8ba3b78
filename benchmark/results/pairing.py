"""Runs of one seed, tested on the same images: their gains, and their samples."""

from collections.abc import Iterable
from itertools import combinations
from typing import NamedTuple

import numpy as np

from benchmark.store.code import same_code
from benchmark.store.records import Result

Group = tuple[str, ...]  # run ids
Samples = dict[Group, dict[str, np.ndarray]]  # -> item -> the runs' mean in each sample (rounds,), in percent


class Pairs(NamedTuple):
    """Gains of runs of one seed over the baseline's.

    unpaired: pairs that were not made, and why. crosses: not all of these runs, within a pair or from seed to seed,
    were trained by one version of the training code.
    """

    seeds: tuple[int, ...]
    gains: tuple[float, ...]
    unpaired: tuple[str, ...]
    crosses: bool

    @property
    def mean(self) -> float | None:
        return float(np.mean(self.gains)) if self.gains else None


def pair(
    ours: dict[int, tuple[str, float]], theirs: dict[int, tuple[str, float]], records: dict[str, Result],
    images: dict[str, str | None],
) -> Pairs:  # fmt: skip
    """Pair runs of one seed that were tested on the same images: the only pairing there is.

    Args:
        ours: seed -> run id and value in percent.
        theirs: The same of what the gains are over.
        records: Of each of these runs, by id.
        images: A digest of each run's test images, by id; None where it is not known.
    """
    gains, unpaired, codes = {}, [], []
    for seed in (seed for seed in ours if seed in theirs):
        (run, value), (other, its_value) = ours[seed], theirs[seed]
        if None in (images[run], images[other]):
            unpaired.append(f"{run} or {other} does not say which images it was tested on")
        elif images[run] != images[other]:
            unpaired.append(f"{run} and {other} were tested on different images")
        else:
            gains[seed] = value - its_value
            codes += [records[run].code, records[other].code]
    crosses = any(same_code(one, other) is False for one, other in combinations(dict.fromkeys(codes), 2))
    files = {code and code.study for code in codes[::2]}  # a baseline may need none
    return Pairs(tuple(gains), tuple(gains.values()), tuple(unpaired), crosses or len(files) > 1)


def each_over(samples: Samples, ids: Iterable[str], item: str) -> np.ndarray | None:
    """Each run's number in each sample of images, (runs, rounds); None without runs, or where one has none. The runs
    are to be groups of their own in `samples`: `alone`."""
    found = [samples.get((run,), {}).get(item) for run in ids]
    known = [values for values in found if values is not None]
    return np.stack(known) if known and len(known) == len(found) else None


def alone(ids: Iterable[str]) -> list[Group]:
    """Each run as a group of its own, as `Results.resample` is asked for what `each_over` needs."""
    return [(run,) for run in ids]


def sides(ours: dict[int, str], theirs: dict[int, str]) -> tuple[Group, Group]:
    """The runs (seed -> run id) of the seeds that both have."""
    shared = [seed for seed in ours if seed in theirs]
    return tuple(ours[seed] for seed in shared), tuple(theirs[seed] for seed in shared)


def paired_over(samples: Samples, ours: dict[int, str], theirs: dict[int, str], item: str) -> np.ndarray | None:
    """The difference of the runs of each seed (seed -> run id) in each sample of images, both on the same ones:
    (seeds, rounds)."""
    mine, its = (each_over(samples, side, item) for side in sides(ours, theirs))
    return None if mine is None or its is None else mine - its
