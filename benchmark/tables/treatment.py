"""Was the treatment applied? A method that is to move attention maps, and did not, was not tested by its gain.

All from saved records: the overlap of the true and the confusing class's maps after the last epoch, the loss terms, the
test scores. A gain of nothing says something about a method only where its maps came apart.
"""

from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from benchmark.results import treatment as reading
from benchmark.results.results import Results
from benchmark.stats import intervals
from benchmark.stats.intervals import LEVEL, Interval
from benchmark.store.records import Epoch

LAYERS = ("inner", "last")
# Of each layer's interval. A method that moves nothing is called applied where either lies below zero: in 2.4% of
# cases, 1.25% a layer. In how many a method that does is missed: docs/statistics.md.
LAYER_LEVEL = 1 - (1 - LEVEL) / len(LAYERS)
Answer = Literal["not applied", "applied, no effect", "applied, effect", "not known"]


@dataclass(frozen=True)
class Change:
    """Of the overlap, ours - the baseline's of the same seed: mean, interval and standard deviation over seeds; the
    latter None for a single one.

    Overlaps are shares in [0, 1], means over the test images whose true map is not blank. Where maps are blank these
    are not the same images on both sides. least_fall: the interval of the change over the images that are blank on
    neither, where those left out are as unfavourable as the recorded means allow; `interval` where none is blank.
    """

    mean: float
    interval: Interval | None
    num_seeds: int
    std: float | None = None
    least_fall: Interval | None = None


@dataclass(frozen=True)
class Treatment:
    """changes: by what was measured, as `a_ch_last`. blank: the share of true maps that are zero everywhere, ours and
    what it is compared with, by the same names: the overlap is of the others. share: of the method's own terms in the
    loss of the last epoch.

    agreement: of the test scores with the baseline's of the same seed; agreement_of_seeds: of two seeds of the baseline
    with each other, which is what another draw of luck changes. Both in [-1, 1] (Spearman, mean over classes) or, of
    one label an image, the share of images with the same first class. None where they were not saved. over: the method
    that stands in the baseline's place, where that is another, such as a placebo.
    """

    answer: Answer
    reason: str
    changes: dict[str, Change]
    blank: dict[str, tuple[float, float]] = field(default_factory=dict)
    share: float | None = None
    agreement: float | None = None
    agreement_of_seeds: float | None = None
    over: str | None = None

    @property
    def applied(self) -> bool:
        return self.answer.startswith("applied")

    @property
    def told(self) -> str:
        """In a line, with what else helps to judge it."""
        parts = [f"{self.answer} ({self.reason})"]
        if self.share is not None:
            parts.append(f"{self.share:.0%} of the loss is the method's")
        if self.agreement is not None:
            whose, of_two = (
                (f"{self.over}'s", "two of its seeds") if self.over else ("the baseline's", "two baseline seeds")
            )
            seeds = "" if self.agreement_of_seeds is None else f", {of_two} {self.agreement_of_seeds:.2f}"
            parts.append(f"test scores agree with {whose} by {self.agreement:.2f}{seeds}")
        return "; ".join(parts)


def treatment(
    results: Results,
    ours: dict[int, str],
    theirs: dict[int, str],
    effect: bool | None,
    maps: str,
    over: str | None = None,
) -> Treatment:
    """ours, theirs: run ids by seed, of the method and of what it is compared with, tested on the same images.

    over: the method of theirs, where it is not the baseline.
    effect: whether the interval of the gain excludes zero, None where it has none. maps: the kind that the method
    moves, as the records name it. Applied is what lowers the overlap at one of the layers beyond what seeds do, at a
    level shared out among the layers (Bonferroni).
    """
    measured = reading.measured(results, ours, theirs)
    last = measured.last_epochs
    changes = _changes(last, maps)
    own = [share for epoch, _ in last if (share := _share(epoch)) is not None]
    blank = _blank(last, maps)
    answer, reason = _answer(changes, effect, len(last), blank)
    return Treatment(
        answer, reason, changes, blank,
        share=float(np.mean(own)) if own else None,
        agreement=measured.agreement,
        agreement_of_seeds=measured.agreement_of_seeds,
        over=over,
    )  # fmt: skip


def _answer(
    changes: dict[str, Change], effect: bool | None, num_pairs: int, blank: dict[str, Any]
) -> tuple[Answer, str]:
    if not changes:
        return "not known", "every map is blank on one side" if blank else "the overlap of the maps was not measured"
    if num_pairs == 1:
        return "not known", "one seed has no spread; 2 are the least"
    fell = {name: change for name, change in changes.items() if change.interval and change.interval[1] < 0}
    single = [name for name, change in changes.items() if change.interval is None]
    if not fell and single:
        return "not known", f"of {num_pairs} pairs one has an overlap of {' and of '.join(single)}; 2 are the least"
    if not fell:
        return "not applied", f"no overlap of maps fell beyond what seeds do: {_told(changes)}"
    sure = {name: change for name, change in fell.items() if change.least_fall and change.least_fall[1] < 0}
    if not sure:
        told = ", ".join(
            f"{name} [{change.least_fall[0]:+.3f}, {change.least_fall[1]:+.3f}]"
            for name, change in fell.items()
            if change.least_fall
        )
        return "not known", (
            f"overlap of maps {_told(fell)}, but each side leaves out its own blank maps, which alone could make that: "
            f"on the same images it may be {told}"
        )
    fell = sure
    if effect is None:
        return "not known", f"the gain has no interval; overlap of maps {_told(fell)}"
    return ("applied, effect" if effect else "applied, no effect"), f"overlap of maps {_told(fell)}"


def _told(changes: dict[str, Change]) -> str:
    shown = (
        f"{name} {change.mean:+.3f} [{change.interval[0]:+.3f}, {change.interval[1]:+.3f}]"
        for name, change in changes.items()
        if change.interval
    )
    return f"{', '.join(shown)}, intervals of {LAYER_LEVEL:.1%}"


def _changes(pairs: list[tuple[Epoch | None, Epoch | None]], maps: str) -> dict[str, Change]:
    changes = {}
    for name in (f"{maps}_{layer}" for layer in LAYERS):
        of, worst = [], []
        for ours, theirs in pairs:
            if ours is None or theirs is None:
                continue
            shown, others = ours.shown_overlap(name), theirs.shown_overlap(name)
            if shown is not None and others is not None:
                of.append(shown - others)
                worst.append(_least_fall(ours, theirs, name))
        if of:
            changes[name] = Change(
                float(np.mean(of)), intervals.t_interval(of, LAYER_LEVEL, (-1.0, 1.0)), len(of),
                intervals.sample_std(of), intervals.t_interval(worst, LAYER_LEVEL, (-1.0, 1.0)),
            )  # fmt: skip
    return changes


def _least_fall(ours: Epoch, theirs: Epoch, name: str) -> float:
    """The largest change of overlap, ours - theirs, over the images whose maps are blank on neither side.

    Records keep means over all images, a blank map as 0. At worst no image is blank on both sides, those that only ours
    shows have no overlap there, and those that only theirs shows have all.
    """
    blank, their_blank = ours.overlap(f"{name}_blank") or 0.0, theirs.overlap(f"{name}_blank") or 0.0
    mean, their_mean = ours.overlap(name) or 0.0, theirs.overlap(name) or 0.0
    both = 1 - blank - their_blank
    if both <= 0:
        return 1.0
    return min(1.0, mean / both) - max(0.0, their_mean - blank) / both


def _blank(pairs: list[tuple[Epoch | None, Epoch | None]], maps: str) -> dict[str, tuple[float, float]]:
    """Means over the pairs that have it."""
    shares = {}
    for name in (f"{maps}_{layer}" for layer in LAYERS):
        both = [tuple(epoch.overlap(f"{name}_blank") if epoch else None for epoch in pair) for pair in pairs]
        of = np.array([pair for pair in both if None not in pair], float)
        if of.any():
            ours, theirs = of.mean(axis=0)
            shares[name] = (float(ours), float(theirs))
    return shares


def _share(epoch: Epoch | None) -> float | None:
    if epoch is None or epoch.loss is None:
        return None
    own = sum(abs(value) for name, value in epoch.train.items() if name not in ("classification", "loss"))
    return own / (own + abs(epoch.loss)) if own + abs(epoch.loss) else None
