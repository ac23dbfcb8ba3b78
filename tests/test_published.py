"""The published cells are typed right, as far as the paper's own arithmetic can tell."""

import re
from pathlib import Path

import pytest

from benchmark.data import DATASETS, voc
from benchmark.errors import UserError
from benchmark.matrix import grid
from benchmark.matrix.matrix import Matrix
from benchmark.results.results import Results
from benchmark.tables import build, locks, published, summary

TABLES = published.BUILT_IN
SUPPLEMENT = Path(__file__).parents[2] / "shared" / "paper" / "supplement.txt"
TABLE2 = published.load("table2", TABLES)


@pytest.mark.parametrize("column", [c.key for c in TABLE2.columns])
def test_printed_map_is_the_mean_of_the_printed_aps(column):
    values = [TABLE2.published(name, column) for name in voc.CLASSES]
    mean = sum(values) / len(values)
    # 20 values, each rounded to 0.01, and a rounded mean
    assert mean == pytest.approx(TABLE2.published("mAP", column), abs=0.01)


def test_method_minus_baseline_is_the_abstract_s_gain():
    gain = TABLE2.published("mAP", "icasc-a_ch") - TABLE2.published("mAP", "baseline")
    assert gain == pytest.approx(5.73, abs=0.005)


def test_rows_are_voc_s_classes_in_its_order():
    assert [r.key for r in TABLE2.rows] == [*voc.CLASSES, "mAP"]


def test_discrepancies_inside_the_paper_are_stated():
    table1 = published.load("table1", TABLES)
    value = table1.published
    assert value("# training images", "voc") + value("# testing images", "voc") == 11540 != value("# images", "voc")
    assert value("# testing images", "caltech256") == 25 * value("# classes", "caltech256")
    assert value("# training images", "caltech256") == f"{30 * 256}/{60 * 256}"
    text = " ".join(table1.discrepancies)
    num_train = DATASETS["ilsvrc2012"].num_images["train"]
    assert not summary.same(num_train, value("# training images", "ilsvrc2012"))
    for stated in ("15000", "11540", "clutter", "85", "80", str(num_train)):
        assert stated in text


@pytest.mark.parametrize("name", published.names(TABLES))
def test_every_cell_has_its_place_in_the_paper(name):
    spec = published.load(name, TABLES)
    for cell in published.cells(spec):
        assert set(cell) == {"table", "row", "column", "value", "unit", "decimals", "source"}
        if cell["value"] is None:
            assert spec.missing or "not at hand" in cell["source"], "a cell that nobody has typed in says why"
        else:
            assert "supplementary material" in cell["source"] or "abstract" in cell["source"]


def typing_errors(spec):
    """Rows whose numbers are no percentages above one, or whose printed gains are not method minus baseline."""
    found = []
    for row in spec.rows if spec.unit in ("%", "points") else []:
        least = 1 if spec.unit == "%" else 0
        shares = [v for v in row.published if v is not None and not least < v <= 100]
        gains = [
            gain
            for value, gain in zip(row.published, row.published_gain or [], strict=False)
            if None not in (value, gain, row.published[0]) and abs(value - row.published[0] - gain) > 0.0051
        ]  # rounded once each
        found += [row.key] if shares or gains else []
    return found


@pytest.mark.parametrize("name", published.names(TABLES))
def test_numbers_are_in_range_and_printed_gains_are_differences(name):
    assert typing_errors(published.load(name, TABLES)) == []


@pytest.mark.parametrize(
    ("cells", "gains", "errors"),
    [
        ("[75.1, 76.2, 77.3]", "[null, 1.1, 2.2]", []),
        ("[75.1, null, 77.3]", "[null, null, 2.2]", []),
        ("[75.1, 76.2, 77.3]", "[null, 1.1, 2.3]", ["ResNet-110, top-1"]),
    ],
)
def test_typing_a_number_fills_its_cell_and_is_checked(tmp_path, cells, gains, errors):
    text = (TABLES / "cifar100.yaml").read_text()
    typed = text.replace("published: [null, null, null]", f"published: {cells}, published_gain: {gains}", 1)
    (tmp_path / "cifar100.yaml").write_text(typed)
    spec = published.load("cifar100", tmp_path)
    assert typing_errors(spec) == errors
    table = build.build(spec, Results.read(Matrix(grid.load("cifar100"), "paper", runs=tmp_path)))
    assert [c.published for c in table.cells.values() if c.row == "ResNet-110, top-1"] == spec.rows[0].published


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        ("[75.1, 733.3, 77.3]", "733.3 is not between 0 and 100 %"),
        ("[75.1, -1, 77.3]", "-1 is not between 0 and 100 %"),
        ("[75.1, 76.123, 77.3]", "76.123 has more than 2 decimals"),
        ("[75.1, seventy, 77.3]", "'seventy' is no number"),
    ],
)
def test_a_slip_in_typing_is_found_at_its_line(tmp_path, cells, message):
    text = (TABLES / "cifar100.yaml").read_text()
    (tmp_path / "cifar100.yaml").write_text(text.replace("published: [null, null, null]", f"published: {cells}", 1))
    with pytest.raises(UserError, match=rf"cifar100.yaml:\d+: row 'ResNet-110, top-1': {message}"):
        published.load("cifar100", tmp_path)


@pytest.mark.skipif(not SUPPLEMENT.is_file(), reason="the supplement is not at hand")
@pytest.mark.parametrize("name", ["table1", "table2"])
def test_every_cell_stands_in_the_supplement(name):
    lines = [re.sub(r"\s", "", line) for line in SUPPLEMENT.read_text().splitlines()]
    spec = published.load(name, TABLES)
    for row in spec.rows:
        printed = next(line for line in lines if line.startswith("|" + re.sub(r"\s", "", row.key) + "|"))
        cells = printed.strip("|").split("|")[1:]
        for cell, value in zip(cells, row.published, strict=True):
            power = re.fullmatch(r"10⁻([³⁴])", cell)
            expected = {"³": 1e-3, "⁴": 1e-4}[power[1]] if power else cell
            same = float(expected) == value if isinstance(value, int | float) else expected == re.sub(r"\s", "", value)
            assert same, f"{row.key}: {cell} printed, {value} typed"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("[57.41, 67.85, 71.12]", "[57.41, 67.85]", r"table2.yaml:LINE: row 'cow' has 2 published cells for 3 columns"),
        ("decimals: 2", "decimal: 2", r"table2.yaml:LINE: unknown key 'decimal'; did you mean 'decimals'"),
        ("decimals: 2\n", "", "a table of numbers says how many decimals they have"),
        (
            "decimals: 2",
            "decimals: 1000000000",
            r"table2.yaml:LINE: decimals: Input should be less than or equal to 12",
        ),
        ("{key: icasc-a_ch,", "{key: icasc-ach,", r"table2.yaml:LINE: unknown method 'icasc-ach'; did you mean"),
        ("key: cow, published", "key: cow, where: {bakbone: x}, published", "unknown job field 'bakbone'"),
        ("grid: voc", "grid: voc\ngrid: voc", "duplicate key 'grid'"),
    ],
)
def test_bad_table_file_names_line_and_nearest_name(tmp_path, old, new, message):
    text = (TABLES / "table2.yaml").read_text()
    assert old in text
    line = text[: text.index(old)].count("\n") + 1
    (tmp_path / "table2.yaml").write_text(text.replace(old, new, 1))
    with pytest.raises(UserError, match=message.replace("LINE", str(line))):
        published.load("table2", tmp_path)


def test_unknown_table():
    with pytest.raises(UserError, match="did you mean 'table2'"):
        published.load("tabel2", TABLES)


OWN = """\
title: A table
grid: voc
unit: "%"
decimals: 4
tolerance: 0.5
source: {document: a paper, place: Table 1}
columns: [{key: baseline, header: Baseline}, {key: icasc-a_ch, header: Ours}]
rows:
  - {key: first, item: mAP, published: [0.4712, 0.531], published_gain: [null, 0.0598], claim: true}
  - {key: second, item: mAP, published: [null, 0.6]}
"""


def own(tmp_path, *changes):
    text = OWN
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    (tmp_path / "own.yaml").write_text(text)
    return published.load("own", tmp_path)


FRACTIONS = ('"%"', "fraction"), ("tolerance: 0.5", "tolerance: 0.005")
ERRORS = (("0.4712, 0.531]", "25.6, 21.1]"), ("0.0598", "-4.5"), ("0.6]", "30]"), ("decimals: 4", "decimals: 1"))


def test_fractions_in_a_table_of_percent_are_asked_about(tmp_path):
    with pytest.raises(UserError, match=r"own.yaml:3: unit: no published number is above 0.6, .* 'unit: fraction'"):
        own(tmp_path)
    with pytest.raises(UserError, match=r"own.yaml:3: unit: 'share' is not that of a table of runs"):
        own(tmp_path, ('"%"', "share"))
    with pytest.raises(UserError, match=r"47\.12 is not between 0 and 1 fraction"):
        own(tmp_path, *FRACTIONS, ("0.4712", "47.12"))
    assert own(tmp_path, ("0.6]", "60]")).rows[1].published == [None, 60], "one of all is above 1"


def test_fractions_that_say_so_are_percent(tmp_path):
    spec = own(tmp_path, *FRACTIONS)
    assert [row.published for row in spec.rows] == [[47.12, 53.1], [None, 60.0]]
    assert (spec.unit, spec.decimals, spec.tolerance) == ("%", 2, 0.5)
    assert spec.rows[0].published_gain == [None, 5.98]
    assert "fractions, shown here in percent" in spec.discrepancies[-1]


@pytest.mark.parametrize("unit", ["%", "fraction"])
def test_of_error_rates_lower_is_better(tmp_path, unit):
    """25.6 that becomes 21.1 is a gain of 4.5, claimed and to be reproduced as one."""
    changes = [*ERRORS, ("decimals: 1", "decimals: 1\nlower_is_better: true")]
    if unit == "fraction":
        shares = [("25.6, 21.1]", "0.256, 0.211]"), ("-4.5", "-0.045"), ("30]", "0.3]"), ("decimals: 1", "decimals: 3")]
        changes += [*FRACTIONS, *shares]
    spec = own(tmp_path, *changes)
    assert [row.published for row in spec.rows] == [[74.4, 78.9], [None, 70.0]]
    assert spec.rows[0].published_gain == [None, 4.5]
    assert (spec.unit, spec.decimals, spec.tolerance) == ("%", 1, 0.5)
    (tmp_path / "runs").mkdir()
    table = build.build(spec, Results.read(Matrix(grid.load("voc"), "mini", runs=tmp_path / "runs")))
    assert table.cells["first", "icasc-a_ch"].published_gain == pytest.approx(4.5)
    assert table.best("first", published=True) == {"icasc-a_ch"}
    assert any("100 minus the rate" in note for note in table.notes)
    assert [claim.claimed for claim in locks.claims_of(spec, {})] == [4.5]
