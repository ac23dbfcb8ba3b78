"""How many seeds each claim takes, by simulation of the rule that judges it (claims.decision_rates).

Spreads are the measured ones of a claim's own runs, at any scale, where two seeds ran; else the ASSUMED. An interval
over test images is assumed to shrink with the root of their number: 18 / sqrt(N) points is what was measured for a gain
of top-1 on CIFAR-100 (0.18, N = 10,000) and of mAP on VOC (0.42 and 0.44, N = 1,729).
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

from benchmark import data
from benchmark.matrix import grid
from benchmark.stats import claims
from benchmark.tables.cells import Cell
from benchmark.tables.locks import Claim, claims_of
from benchmark.tables.published import Spec

ASSUMED = (0.3, 0.7, 1.1)  # standard deviations over seeds of a paired gain, in points
PER_ROOT_IMAGE = 18.0  # points: standard error of a gain over test images, times the root of their number
NUM_IMAGES = 5_000  # of a test set whose size is not known before it is read: one's own
MAX_SEEDS = 30
ROUNDS = 2_000  # a chance to within 0.9 points


@dataclass(frozen=True)
class Need:
    """What it takes to judge a claim with a chance of 80%, at a spread over seeds and an error over test images, in
    points. at_looks: the declared look at which it is reached; once: seeds looked at once, undeclared. None: more than
    the last look, or than MAX_SEEDS."""

    spread: float
    image_error: float
    measured: bool
    at_looks: int | None
    once: int | None

    def __str__(self) -> str:
        once = f"{self.once} in one undeclared look" if self.once else f"over {MAX_SEEDS}"
        return (
            f"{self.at_looks or f'no look ({once})'} at {'measured' if self.measured else 'assumed'} sd {self.spread:g}"
        )


@cache
def need(spread: float, image_error: float, claimed: float, looks: tuple[int, ...], measured: bool = False) -> Need:
    """Two methods share the spread, as in every table here."""
    at, once = (
        claims.seeds_to_decide(spread, image_error, claimed, looks=of, methods=2, rounds=ROUNDS, max_seeds=MAX_SEEDS)
        for of in (looks, None)
    )
    return Need(spread, image_error, measured, at, once)


def assumed(claim: Claim) -> list[Need]:
    """At each of the assumed spreads, for the paper's test set."""
    error = assumed_image_error(claim.source)
    return [need(spread, error, abs(claim.claimed), tuple(claim.spec.looks or ())) for spread in ASSUMED]


def assumed_image_error(spec: Spec) -> float:
    assert spec.grid is not None, "a table of runs"
    base = grid.load(spec.grid).base
    return PER_ROOT_IMAGE / math.sqrt(data.find(base["dataset"]).num_images.get(base["test_split"], NUM_IMAGES))


def measured(claim: Claim, cell: Cell) -> Need | None:
    """At the spread and the error that its own runs have; None with fewer than two seeds."""
    known = cell.gain_interval.estimate if cell.gain_interval else None
    if known is None or len(cell.gains) < 2:
        return None
    spread = round(known.seed_error * math.sqrt(len(cell.gains)), 2)
    error = round(known.image_error, 2) if known.over == "seeds and images" else assumed_image_error(claim.source)
    return need(spread, error, abs(claim.claimed), tuple(claim.spec.looks or ()), True)


def needs(claim: Claim, cell: Cell | None) -> list[Need]:
    """At the measured spread, or at each of the assumed ones."""
    found = measured(claim, cell) if cell else None
    return [found] if found else assumed(claim)


def text(found: list[Need]) -> str:
    return "; ".join(map(str, found))


def short(found: list[Need]) -> str:
    """As `text`, without what an undeclared look would take: `8 / none / none at assumed sd 0.3 / 0.7 / 1.1`."""
    seeds, spreads = (
        " / ".join(of) for of in zip(*((str(n.at_looks or "none"), f"{n.spread:g}") for n in found), strict=True)
    )
    return f"{seeds} at {'measured' if found[0].measured else 'assumed'} sd {spreads}"


def claims_of_grid(name: str, specs: dict[str, Spec]) -> Iterator[Claim]:
    """The claims that a grid's runs decide, the headline's first."""
    for spec in sorted(specs.values(), key=lambda spec: not spec.of_gains):
        yield from (claim for claim in claims_of(spec, specs) if claim.source.grid == name)
