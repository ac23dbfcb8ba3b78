"""How many seeds each claim takes, by simulation of the rule that judges it (stats/power.py).

Spreads are the measured ones of a claim's own runs, at any scale, where two seeds ran; else the ASSUMED, all of it what
test images imply. What stands for itself is in docs/statistics.md, with the records that the other assumptions are
read off.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

from benchmark import data
from benchmark.matrix import grid, study
from benchmark.stats import power
from benchmark.stats.power import Design, Gate
from benchmark.tables.cells import Cell
from benchmark.tables.locks import Claim, claims_of
from benchmark.tables.published import Spec

ASSUMED = (0.3, 0.7, 1.1)  # standard deviations over seeds of a paired gain, in points
# The images' own part of the error of a gain of g points on N images, over sqrt(g / N), in points: 6 gives 0.13 and
# 0.24 for the known gains of 4.5 and 16 points of top-1 on CIFAR-100 (N = 10,000), of which 0.11 and 0.23 are measured.
OWN_PART = 6.0
MOVED = Gate(-0.05, 0.03)  # Grad-CAM's inner maps on VOC at scale reduced, the least that is seen to move there
MAX_SEEDS = 30
ROUNDS = 2_000  # a chance to within 0.9 points


@dataclass(frozen=True)
class Need:
    """What it takes to judge a claim with a chance of 80%: to confirm one that is right, to refute one that is empty.

    Attributes:
        spread: over seeds, in points.
        measured: whether the spread is.
        confirmed: the declared look at which it is reached; None: more than the last look.
        refuted: likewise, where the method's maps have to be seen to have moved.
        once: seeds that do both when looked at once, undeclared; None: more than MAX_SEEDS.
    """

    spread: float
    measured: bool
    confirmed: int | None
    refuted: int | None
    once: int | None

    def __str__(self) -> str:
        once = (
            "" if self.confirmed and self.refuted else f" ({self.once or f'over {MAX_SEEDS}'} in one undeclared look)"
        )
        looks = f"{self.confirmed or 'no look'} to confirm, {self.refuted or 'no look'} to refute"
        return f"{looks}{once} at {'measured' if self.measured else 'assumed'} sd {self.spread:g}"


@cache
def need(design: Design, claimed: float, looks: tuple[int, ...], measured: bool = False) -> Need:

    def seeds(truth: float, sizes: tuple[int, ...] | None) -> int | None:
        return power.seeds_to_decide(design, claimed, looks=sizes, rounds=ROUNDS, max_seeds=MAX_SEEDS, truth=truth)

    confirmed, refuted = seeds(claimed, None), seeds(0.0, None)
    once = max(confirmed, refuted) if confirmed and refuted else None
    return Need(design.spread, measured, seeds(claimed, looks), seeds(0.0, looks), once)


def assumed(claim: Claim) -> list[Need]:
    """At each of the assumed spreads, for the paper's test set."""
    return [
        need(Design(spread, assumed_own(claim), gate=_gate(claim, None)), abs(claim.claimed), _looks(claim))
        for spread in ASSUMED
    ]


def assumed_own(claim: Claim) -> float:
    """The images' own part of the error of the claimed gain, in points, on the claim's test set."""
    return OWN_PART * math.sqrt(abs(claim.claimed) / num_images(claim.source))


def num_images(spec: Spec) -> int:
    """Test images of the paper's protocol."""
    assert spec.grid is not None, "a table of runs"
    base = grid.load(spec.grid).base
    return data.most_images(base["dataset"], base["test_split"])


def measured(claim: Claim, cell: Cell) -> Need | None:
    """At the spread and the errors that its own runs have; None with fewer than two seeds."""
    known = cell.gain_interval.estimate if cell.gain_interval else None
    if known is None or len(cell.gains) < 2:
        return None
    images = known.images
    own = round(images.own, 2) if known.over == "seeds and images" else assumed_own(claim)
    design = Design(round(known.spread, 2), own, round(images.interaction, 2), _gate(claim, cell))
    return need(design, abs(claim.claimed), _looks(claim), True)


def _looks(claim: Claim) -> tuple[int, ...]:
    return tuple(claim.spec.looks or ())


def _gate(claim: Claim, cell: Cell | None) -> Gate | None:
    """What its maps do: as its runs show at the layer that tells most, else as assumed; None of one that moves none."""
    if study.method(claim.column).maps is None:
        return None
    changes = cell.treatment.changes.values() if cell and cell.treatment else ()
    known = [Gate(round(change.mean, 3), round(change.std, 3)) for change in changes if change.std]
    return min(known, key=lambda gate: gate.change / gate.std) if known else MOVED


def needs(claim: Claim, cell: Cell | None) -> list[Need]:
    """At the measured spread, or at each of the assumed ones."""
    found = measured(claim, cell) if cell else None
    return [found] if found else assumed(claim)


def text(found: list[Need]) -> str:
    return "; ".join(map(str, found))


def short(found: list[Need]) -> str:
    """As `text`, without what an undeclared look would take, as `3 / 5 / none to confirm, 3 / 8 / none to refute at
    assumed sd 0.3 / 0.7 / 1.1`."""
    confirmed = " / ".join(str(n.confirmed or "none") for n in found)
    refuted = " / ".join(str(n.refuted or "none") for n in found)
    spreads = " / ".join(f"{n.spread:g}" for n in found)
    kind = "measured" if found[0].measured else "assumed"
    return f"{confirmed} to confirm, {refuted} to refute at {kind} sd {spreads}"


def claims_of_grid(name: str, specs: dict[str, Spec]) -> Iterator[Claim]:
    """The claims that a grid's runs decide, the headline's first."""
    for spec in sorted(specs.values(), key=lambda spec: not spec.of_gains):
        yield from (claim for claim in claims_of(spec, specs) if claim.source.grid == name)
