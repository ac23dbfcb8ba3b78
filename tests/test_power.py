"""Seeds that a claim takes: at assumed and at measured spreads."""

import pytest

from benchmark.tables import claims, locks, power, published
from tests.evidence import SPEC, golden_table, plant

TABLES = published.BUILT_IN
SPECS = {name: published.load(name, TABLES) for name in published.names(TABLES)}
CLAIM = next(c for c in locks.claims_of(SPEC, {}) if c.column == "icasc-a_ch")


def test_the_assumed_error_over_images_is_what_was_measured():
    errors = {name: power.assumed_image_error(SPECS[name]) for name in ("cifar100", "table2", "ilsvrc2012")}
    assert errors["cifar100"] == pytest.approx(0.18)
    assert errors["table2"] == pytest.approx(18 / 5823**0.5)
    assert errors["ilsvrc2012"] == pytest.approx(0.08, abs=0.001)
    assert round(power.PER_ROOT_IMAGE / 1729**0.5, 2) == 0.43


def test_a_need_is_the_rule_s_chance():
    found = power.need(0.7, 0.2, 3.33, (3, 5, 8))
    assert claims.decision_rates(3.33, 3.33, 0.7, 0.2, (3, 5, 8), 2, power.ROUNDS)["reproduced"] >= 0.8
    assert found.at_looks in (3, 5, 8)
    assert power.need(0.3, 0.2, 3.33, (3, 5, 8)).at_looks <= found.at_looks
    beyond = power.need(0.7, 0.2, 1.64, (3, 5, 8))
    assert beyond.at_looks is None
    assert beyond.once > 8
    assert str(beyond) == f"no look ({beyond.once} in one undeclared look) at assumed sd 0.7"
    assert "over 30" in str(power.need(1.1, 0.4, 0.92, (3, 5, 8)))


def test_a_measured_spread_takes_the_place_of_the_assumed_ones(tmp_path):
    assert [need.measured for need in power.needs(CLAIM, None)] == [False] * 3
    lead = {0: 4.0, 1: 5.0, 2: 6.0}
    plant(tmp_path, lambda job, item: 70.0 + (lead[job.seed] if job.method == "icasc-a_ch" else 0))
    (found,) = power.needs(CLAIM, golden_table("paper", tmp_path).cells["mAP", "icasc-a_ch"])
    assert found.measured
    assert found.spread == pytest.approx(1.0)
    plant(tmp_path / "one", lambda job, item: 70.0, seed=0)
    cell = golden_table("paper", tmp_path / "one", seed=0).cells["mAP", "icasc-a_ch"]
    assert len(power.needs(CLAIM, cell)) == 3, "one seed has no spread"


def test_plan_says_what_each_claim_takes(call, tmp_path):
    words = ("plan", "--grid", "ilsvrc2012", "--runs", str(tmp_path), "--tables", str(TABLES))
    text = call(tmp_path, *words, "--scale", "paper").stdout
    line = next(line for line in text.splitlines() if line.startswith("headline:ILSVRC2012, ResNet-18:icasc-a_ch"))
    assert "8 at assumed sd 0.3; no look (" in line
    assert "headline:" not in call(tmp_path, *words, "--scale", "mini").stdout, "nothing is judged there"


def test_a_claim_without_declared_looks_reaches_none():
    assert power.need(0.1, 0.1, 5.0, ()).at_looks is None
    assert power.need(0.1, 0.1, 5.0, ()).once == 2


def test_the_short_form_lines_seeds_up_with_spreads():
    found = [power.Need(0.3, 0.2, False, 8, 6), power.Need(0.7, 0.2, False, None, 15)]
    assert power.short(found) == "8 / none at assumed sd 0.3 / 0.7"
    assert power.short([power.Need(0.74, 0.2, True, 5, 4)]) == "5 at measured sd 0.74"
