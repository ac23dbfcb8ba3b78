"""Seeds that a claim takes: at assumed and at measured spreads."""

from pathlib import Path

import pytest

from benchmark.stats import power
from benchmark.tables import locks, published, seeds_needed
from tests.evidence import SPEC, golden_table, plant

TABLES = Path(__file__).parents[1] / "tables"
SPECS = {name: published.load(name, TABLES) for name in published.names(TABLES)}
CLAIM = next(c for c in locks.claims_of(SPEC, {}) if c.column == "icasc-a_ch")


def claim_of(name, column="icasc-a_ch"):
    return next(c for c in locks.claims_of(SPECS["headline"], SPECS) if c.source.name == name and c.column == column)


def test_the_assumed_own_part_is_what_was_measured():
    """Of known gains of 4.5 and 16 points on CIFAR-100's 10,000 images 0.11 and 0.23 were."""
    known = {gain: seeds_needed.OWN_PART * (gain / 10_000) ** 0.5 for gain in (4.5, 16.0)}
    assert known == {4.5: pytest.approx(0.11, abs=0.02), 16.0: pytest.approx(0.23, abs=0.02)}
    assert seeds_needed.assumed_own(claim_of("cifar100")) == pytest.approx(6 * (3.33 / 10_000) ** 0.5)
    assert seeds_needed.num_images(SPECS["ilsvrc2012"]) == 50_000


def test_a_need_is_the_rule_s_chance():
    design = power.Design(0.7, 0.2, gate=power.Gate(-0.1, 0.03))
    found = seeds_needed.need(design, 3.33, (3, 5, 8))
    sure = power.decision_rates(3.33, 3.33, design, tuple(n for n in (3, 5, 8) if n <= found.confirmed), 2000)
    assert sure["reproduced"] >= 0.8
    assert seeds_needed.need(power.Design(0.3, 0.2), 3.33, (3, 5, 8)).confirmed <= found.confirmed
    beyond = seeds_needed.need(power.Design(0.7, 0.09), 1.64, (3, 5, 8))
    assert (beyond.confirmed, beyond.refuted) == (None, None)
    assert beyond.once > 8
    assert (
        str(beyond) == f"no look to confirm, no look to refute ({beyond.once} in one undeclared look) at assumed sd 0.7"
    )
    assert "over 30" in str(seeds_needed.need(power.Design(1.1, 0.4), 0.92, (3, 5, 8)))


def test_the_gate_is_in_what_a_refusal_takes():
    free = power.Design(0.3, 0.1)
    gated = power.Design(0.3, 0.1, gate=seeds_needed.MOVED)
    without, found = (seeds_needed.need(design, 4.8, (3, 5, 8)) for design in (free, gated))
    assert found.confirmed == without.confirmed == without.refuted == 3
    assert found.refuted > 3


def test_a_measured_spread_takes_the_place_of_the_assumed_ones(tmp_path):
    assert [need.measured for need in seeds_needed.needs(CLAIM, None)] == [False] * 3
    lead = {0: 4.0, 1: 5.0, 2: 6.0}
    plant(tmp_path, lambda job, item: 70.0 + (lead[job.seed] if job.method == "icasc-a_ch" else 0))
    (found,) = seeds_needed.needs(CLAIM, golden_table("paper", tmp_path).cells["mAP", "icasc-a_ch"])
    assert found.measured
    assert found.spread == pytest.approx(1.0)
    plant(tmp_path / "one", lambda job, item: 70.0, seed=0)
    cell = golden_table("paper", tmp_path / "one", seed=0).cells["mAP", "icasc-a_ch"]
    assert len(seeds_needed.needs(CLAIM, cell)) == 3, "one seed has no spread"


def test_plan_says_what_each_claim_takes(call, tmp_path):
    words = ("plan", "--grid", "ilsvrc2012", "--runs", str(tmp_path), "--tables", str(TABLES))
    text = call(tmp_path, *words, "--scale", "paper").stdout
    line = next(line for line in text.splitlines() if line.startswith("headline:ILSVRC2012, ResNet-18:icasc-a_ch"))
    assert "to confirm, " in line
    assert "at assumed sd 0.3; no look to confirm, no look to refute (" in line
    assert "headline:" not in call(tmp_path, *words, "--scale", "mini").stdout, "nothing is judged there"


def test_a_claim_without_declared_looks_reaches_none():
    found = seeds_needed.need(power.Design(0.1, 0.1), 5.0, ())
    assert (found.confirmed, found.refuted, found.once) == (None, None, 2)


def test_short():
    found = [seeds_needed.Need(0.3, False, 3, 8, 6), seeds_needed.Need(0.7, False, 8, None, 15)]
    assert seeds_needed.short(found) == "3 / 8 to confirm, 8 / none to refute at assumed sd 0.3 / 0.7"
    assert (
        seeds_needed.short([seeds_needed.Need(0.74, True, 5, 5, 4)]) == "5 to confirm, 5 to refute at measured sd 0.74"
    )
