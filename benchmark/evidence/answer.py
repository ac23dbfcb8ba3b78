"""The answer to the suite's question on one page: every claim that has pairs on real data, pooled and by setting.

A *claim* is one method's published improvement on one row of the headline table. Its settings are fixed by a rule:
every scale of the row's grid but `mini` that makes tables, in each precision that its runs have, as that scale declares
it (its own seeds, no variant of the method, no other weight), as soon as it has a pair of the method and its baseline
on real data. None is chosen, and none left out for what it says. Reading is `comparisons`; the rest are functions of
what it returns, and figures.py draws them.
"""

import re
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

from tabulate import tabulate

from benchmark import data
from benchmark.matrix.matrix import Matrix
from benchmark.stats import intervals, pooled
from benchmark.stats.claims import BOUNDS, GainInterval
from benchmark.stats.intervals import Interval
from benchmark.stats.pooled import ClusteredMean
from benchmark.tables import render
from benchmark.tables.cells import CROSSING, Cell, Table, TableOfRuns
from benchmark.tables.summary import missing_seeds
from benchmark.tables.treatment import LAYERS

HEADER = ("claim, and its settings", "pairs", "method ahead", "difference, 95% CI", "paper")
UNMOVED = "map change not detected"


class Setting(NamedTuple):
    """What was trained, as one of its runs has it. share: of the official training images; network, classes and weight:
    only where they are not the paper's, or not the grid's own."""

    network: str | None
    pixels: int | None
    epochs: int
    precision: str
    share: float | None
    classes: int | None
    weight: float | None

    @property
    def lines(self) -> tuple[str, str]:
        """`112 px, 8 epochs, bfloat16` and `30% of images, 12 classes`"""
        pixels = f"{self.pixels} px" if self.pixels else None
        share = f"{100 * self.share:.0f}% of images" if self.share else None
        classes = f"{self.classes} classes" if self.classes else None
        weight = None if self.weight is None else f"weight {self.weight:g}"
        first = [self.network, pixels, f"{self.epochs} epochs", self.precision]
        return ", ".join(filter(None, first)), ", ".join(filter(None, [share, classes, weight]))

    @property
    def text(self) -> str:
        return ", ".join(filter(None, self.lines))


class Comparison(NamedTuple):
    """One method's differences from its baseline on one data set in one setting, in points. claim: the published one,
    over the same classes."""

    table: Table
    cell: Cell
    claim: float
    gain: float
    interval: GainInterval
    setting: Setting

    @property
    def data(self) -> str:
        """`CIFAR-100, ResNet-110 (as resnet20), reduced`"""
        return f"{named(self.table, self.cell.row)}, {self.table.scale}"

    @property
    def method(self) -> str:
        header = next(c.header for c in self.table.spec.columns if c.key == self.cell.column)
        return render.SUBSCRIPT.sub(r"\2", header)

    @property
    def moved(self) -> bool:
        """Whether the method is known to have moved its maps: where it is not, no absence of a gain counts."""
        return self.cell.treatment is None or self.cell.treatment.applied

    @property
    def ahead(self) -> float:
        """In how many pairs the method was ahead, a tie as half a pair."""
        return sum(map(_is_ahead, self.cell.gains))

    @property
    def difference(self) -> str:
        over = "" if self.interval.over == "seeds and images" else f" ({self.interval.over})"
        return intervals.span(self.gain, (self.interval.low, self.interval.high)) + over

    @property
    def line(self) -> tuple[str, str, str, str, str]:
        """Its cells under HEADER."""
        pairs, still = len(self.cell.gains), "" if self.moved else f"; {UNMOVED}"
        what = f"{self.setting.text} (scale {self.table.scale.partition(',')[0]}){still}"
        return what, str(pairs), f"{self.ahead:g} of {pairs}", self.difference, f"{self.claim:+.2f}"


@dataclass(frozen=True)
class Claim:
    """One claim of the paper with its settings, in points. Each pair of any setting weighs the same."""

    number: int
    settings: list[Comparison]

    @property
    def name(self) -> str:
        """`PASCAL VOC 2012, ResNet-18, A_ch`"""
        return f"{self.settings[0].cell.row}, {self.settings[0].method}"

    @property
    def title(self) -> str:
        """Heading of the claim, of its number, name and word."""
        return f"{self.number}. {self.name}: {self.word}"

    @cached_property
    def differences(self) -> list[float]:
        return [gain for c in self.settings for gain in c.cell.gains]

    @cached_property
    def seeds(self) -> list[int]:
        """The seed number of each pair, which it is clustered by."""
        return [seed for c in self.settings for seed in c.cell.paired_seeds]

    @property
    def claimed(self) -> float:
        """The published improvement over the classes of each setting, as a mean over the pairs, as the effect is."""
        return self._over_pairs([c.claim for c in self.settings])

    @cached_property
    def effect(self) -> ClusteredMean | None:
        """None where all pairs are of one seed number."""
        return pooled.clustered_mean(self.differences, self.seeds)

    @property
    def mean(self) -> float:
        return sum(self.differences) / len(self.differences)

    @cached_property
    def image_error(self) -> float:
        """The part of the mean's error over test images that all seeds share; what each seed has for itself is in the
        spread of the pairs. The settings share their images, or some, so their parts add."""
        known = [c.interval.estimate for c in self.settings]
        return self._over_pairs([one.images.own if one else 0.0 for one in known])

    @cached_property
    def interval(self) -> Interval | None:
        """For new seeds and new test images, in these settings; of a single one it is that one's own."""
        if len(self.settings) == 1:
            return self.settings[0].interval.low, self.settings[0].interval.high
        if self.effect is None:
            return None
        half = self.effect.half(self.image_error)
        return intervals.clip((self.mean - half, self.mean + half), BOUNDS)

    @property
    def ahead(self) -> float:
        return sum(c.ahead for c in self.settings)

    @cached_property
    def share_interval(self) -> Interval:
        """Of the share of pairs in which the method is ahead."""
        return pooled.share_interval([_is_ahead(gain) for gain in self.differences], self.seeds)

    @property
    def word(self) -> str:
        """One of pooled.WORDS: an absence counts only where the maps moved in a setting."""
        is_tested = any(c.moved for c in self.settings)
        return pooled.claim_word(self.interval, self.claimed, is_tested)

    @property
    def moved(self) -> "Claim | None":
        """Of the settings whose maps moved alone; None where there are none, or no others."""
        kept = [c for c in self.settings if c.moved]
        return Claim(self.number, kept) if 0 < len(kept) < len(self.settings) else None

    @property
    def difference(self) -> str:
        return intervals.span(self.mean, self.interval) if self.interval else f"{self.mean:+.2f}"

    @property
    def line(self) -> tuple[str, str, str, str, str]:
        """Its cells under HEADER."""
        pairs, (low, high) = len(self.differences), (100 * end for end in self.share_interval)
        ahead = f"{self.ahead:g} of {pairs}: {100 * self.ahead / pairs:.0f}% [{low:.0f}, {high:.0f}]"
        return self.title, str(pairs), ahead, self.difference, f"{self.claimed:+.2f}"

    def _over_pairs(self, values: list[float]) -> float:
        weighted = (value * len(c.cell.gains) for value, c in zip(values, self.settings, strict=True))
        return sum(weighted) / len(self.differences)


def _is_ahead(gain: float) -> float:
    return 0.5 if gain == 0 else float(gain > 0)


def claims(shown: list[Comparison]) -> list[Claim]:
    """The comparisons by claim, numbered, those with the most pairs first."""
    by_claim: dict[tuple[str, str], list[Comparison]] = {}
    for c in shown:
        by_claim.setdefault((c.cell.row, c.cell.column), []).append(c)
    most_first = sorted(by_claim.values(), key=lambda of_claim: -sum(len(c.cell.gains) for c in of_claim))
    return [Claim(number, of_claim) for number, of_claim in enumerate(most_first, 1)]


def named(table: Table, row: str) -> str:
    """A headline's row with what stood in for it."""
    stood_in = table.ran_as.get(row)
    return table.label(row) + (f" (as {stood_in})" if stood_in else "")


def comparisons(headlines: list[Table]) -> list[Comparison]:
    """Those with an interval and a claim, in the order of the tables."""
    return [
        Comparison(table, cell, cell.published, cell.gain, cell.gain_interval, _setting(table, cell))
        for table in headlines
        for cell in table.cells.values()
        if cell.gain is not None and cell.gain_interval is not None and isinstance(cell.published, float)
    ]


def _setting(headline: Table, cell: Cell) -> Setting:
    """By the first of the cell's runs."""
    results = headline.sources[cell.row].results
    matrix, job, base = results.matrix, results.jobs[cell.runs[0]], results.matrix.grid.base
    official = data.find(job.dataset).official_counts.get(base["train_split"])
    trained = next(found.record.num_train for found in results.finished(cell.runs))
    return Setting(
        network=_network(job.backbone) if job.backbone in matrix.overlay.stand_ins.values() else None,
        pixels=None if job.resize == "none" else job.image_size,
        epochs=job.epochs,
        precision=job.precision,
        share=trained / official if trained and official else None,
        classes=cell.published_over,
        weight=job.attention_weight if job.attention_weight != base["attention_weight"] else None,
    )


def _network(backbone: str) -> str:
    """`resnet20` as `ResNet-20`"""
    return re.sub(r"^resnet(?=\d)", "ResNet-", re.sub(r"^vgg(?=\d)", "VGG-", backbone)).replace("_", " ")


def verdict(shown: list[Comparison]) -> str:
    """What they say together, in a sentence that claims no more than their tables do."""
    if not any(c.table.comparable for c in shown):
        return "No published number has been tested: none of these runs follows the paper's protocol on its data."
    told = [f"{c.data}, {c.method}: {c.cell.gain_verdict.outcome}" for c in shown if c.cell.gain_verdict]
    return "; ".join(told) + "."


class Control(NamedTuple):
    """A gain of a table of controls, in points, as a line: a control's, or of a method that is held against them.
    claims: what is claimed of the same data by method, over the same classes."""

    table: TableOfRuns
    cell: Cell
    gain: float
    interval: GainInterval
    claims: dict[str, float]

    @property
    def data(self) -> str:
        """`PASCAL VOC 2012, ResNet-18, controls`, with other data and what was set otherwise, where there are such"""
        ran_on = {job.dataset for job in self.matrix.jobs} - {self.matrix.grid.protocol["dataset"]}
        other = f" on {', '.join(sorted(ran_on))}" if ran_on else ""
        label = self.table.label(self.table.spec.rows[0].key)
        return f"{self.matrix.grid.title.partition(',')[0]}, {label}{other}, {self.matrix.called}"

    @property
    def matrix(self) -> Matrix:
        return self.table.matrix

    @property
    def told(self) -> str:
        return intervals.span(self.gain, (self.interval.low, self.interval.high))

    @property
    def name(self) -> str:
        over = self.table.row(self.cell).over.get(self.cell.column)
        return self._header(self.cell.column) + (f", over {self._header(over)}" if over else "")

    def _header(self, key: str) -> str:
        header = next(c.header for c in self.table.spec.columns if c.key == key)
        return render.SUBSCRIPT.sub(r"\1 \2", header)

    def overlap(self, layer: str) -> str:
        """By how much the overlap of its maps changed there."""
        changes = self.cell.treatment.changes if self.cell.treatment else {}
        change = next((change for name, change in changes.items() if name.endswith(f"_{layer}")), None)
        if change is None:
            return render.BLANK
        of = f" [{change.interval[0]:+.3f}, {change.interval[1]:+.3f}]" if change.interval else ""
        return f"{change.mean:+.3f}{of}"


def controls(table: TableOfRuns, claims: dict[str, float]) -> list[Control]:
    """Those with an interval, of the table's first measure."""
    return [
        Control(table, cell, cell.gain, cell.gain_interval, claims)
        for cell in table.cells.values()
        if cell.gain is not None
        and cell.gain_interval is not None
        and table.item(cell) == (table.spec.rows[0].item or table.spec.rows[0].key)
    ]


def controls_markdown(shown: list[Control]) -> str:
    """A table for each data set and scale: gains, and what became of the maps."""
    parts = []
    for name in dict.fromkeys(c.data for c in shown):
        of_data = [c for c in shown if c.data == name]
        rows = [
            [
                render.escape_markdown(c.name + ("" if not c.cell.crosses else " ††")),
                str(len(c.cell.gains)),
                c.told + ("" if c.interval.over == "seeds and images" else f" ({c.interval.over})"),
                *(c.overlap(layer) for layer in LAYERS),
                c.cell.treatment.answer if c.cell.treatment else render.BLANK,
            ]
            for c in of_data
        ]
        header = ("", "n", "gain", *(f"overlap, {layer}" for layer in LAYERS), "treatment")
        align = ("left", "right", "right", *("right" for _ in LAYERS), "left")
        grid = tabulate(rows, header, tablefmt="pipe", disable_numparse=True, colalign=align)
        planned = (
            "" if all(len(c.cell.gains) == c.cell.planned for c in of_data) else " Not all planned seeds have run."
        )
        parts.append(f"**{render.escape_markdown(name)}**, {of_data[0].matrix.overlay.why}.{planned}\n\n{grid}")
    told = [
        "n: paired seeds. Gain: points over the baseline, or over what is named, with the 95% interval over seeds and "
        "test images. Overlap: of the true and the confusing class's maps, its change against the same, "
        "with intervals of 97.5% for each of two layers (0: unmoved, below: further apart). Treatment: applied where "
        "one of these lies below 0; not applied, and no effect, is what such seeds do not show, not what they exclude."
    ]
    if any(c.cell.crosses for c in shown):
        told.append(CROSSING)
    return "\n\n".join([*parts, " ".join(told)]) + "\n"


def notes(shown: list[Claim]) -> list[str]:
    """What the columns and the words mean."""
    settings = [c for claim in shown for c in claim.settings]
    told = [
        "Pairs: a method and its baseline of one seed, trained alike and tested on the same images. Difference: method "
        "minus baseline in points. A numbered line is the mean over all pairs of its settings; its 95% CI is over "
        "seeds (pairs of one seed number are a cluster; CR2 with Satterthwaite's degrees of freedom) and test images.",
        "The words are of that interval, in these settings: supported, above 0 and reaching the paper's improvement; "
        "supported in part, above 0 and short of it; not supported, holding 0 and short of it; contradicted, below 0; "
        f"no evidence, holding both, or holding 0 with a {UNMOVED} in any setting.",
    ]
    without = [
        f"{claim.name}: {claim.moved.difference}, {len(claim.moved.differences)} pairs, {claim.moved.word}"
        for claim in shown
        if claim.moved
    ]
    if without:
        told.append(f"Without the settings with a {UNMOVED}: {'; '.join(without)}.")
    crossing = [f"{c.data}, {c.method}" for c in settings if c.cell.crosses]
    if crossing:
        told.append(f"Not all runs were trained by one version of the training code: {'; '.join(crossing)}.")
    return told + missing_seeds({f"{c.data}, {c.method}": c.cell for c in settings})


def lines(shown: list[Claim]) -> list[tuple[str, str, str, str, str]]:
    """Each claim's cells under HEADER, and its settings' below."""
    return [line for claim in shown for line in (claim.line, *(c.line for c in claim.settings))]


def markdown(shown: list[Comparison]) -> str:
    """The table, and what its words mean."""
    rows = []
    found = claims(shown)
    titles = {claim.title for claim in found}
    for what, *numbers in lines(found):
        is_claim, what = what in titles, render.escape_markdown(what)
        rows.append((f"**{what}**", *(f"**{number}**" for number in numbers)) if is_claim else (what, *numbers))
    grid = tabulate(rows, HEADER, tablefmt="pipe", disable_numparse=True, colalign=("left", *["right"] * 4))
    paragraphs = "\n\n".join(notes(found))
    return f"{render.escape_markdown(verdict(shown))}\n\n{grid}\n\n{paragraphs}\n"


def values(shown: list[Comparison]) -> dict[str, Any]:
    """The same for machines, unrounded; differences in points, shares from 0 to 1."""
    return {"verdict": verdict(shown), "claims": [_claim_values(claim) for claim in claims(shown)]}


def _claim_values(claim: Claim) -> dict[str, Any]:
    low, high = claim.interval or (None, None)
    share_low, share_high = claim.share_interval
    known = {
        "number": claim.number, "claim": claim.name, "word": claim.word, "published": claim.claimed,
        "pairs": len(claim.differences), "ahead": claim.ahead, "share_ahead": claim.ahead / len(claim.differences),
        "share_low": share_low, "share_high": share_high, "difference": claim.mean, "low": low, "high": high,
        "seed_error": claim.effect and claim.effect.error, "df": claim.effect and claim.effect.df,
        "image_error": claim.image_error,
    }  # fmt: skip
    return known | {
        "settings": [
            {
                "scale": c.table.scale, **c.setting._asdict(), "published": c.claim, "seeds": c.cell.paired_seeds,
                "differences": c.cell.gains, "difference": c.gain, "low": c.interval.low, "high": c.interval.high,
                "over": c.interval.over, "ahead": c.ahead, "maps_moved": c.moved,
            }
            for c in claim.settings
        ]
    }  # fmt: skip
