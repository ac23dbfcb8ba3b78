"""Table files: strict, with the line and the nearest name of what is wrong."""

import pytest

from benchmark.errors import UserError
from benchmark.tables import published
from tests.evidence import TABLES


def load(tmp_path, old, new):
    text = (TABLES / "table2.yaml").read_text()
    assert old in text
    (tmp_path / "table2.yaml").write_text(text.replace(old, new))
    return published.load("table2", tmp_path)


DECLARED = "tolerance: {value: 1.0, gain: 0.5}"


def test_tolerances():
    tolerance = published.load("table2", TABLES).tolerance
    assert (tolerance.value, tolerance.gain) == (1.0, 0.5)


def test_one_tolerance_stands_for_both(tmp_path):
    tolerance = load(tmp_path, DECLARED, "tolerance: 2").tolerance
    assert (tolerance.value, tolerance.gain) == (2.0, 2.0)


@pytest.mark.parametrize(
    ("new", "message"),
    [
        ("tolerance: {value: 1.0, gian: 0.5}", r"table2.yaml:\d+: unknown key 'tolerance.gian'; did you mean 'gain'"),
        ("tolerance: {value: 1.0}", "'tolerance.gain' is missing"),
        ("tolerance: {value: 1.0, gain: -0.5}", "greater than or equal to 0"),
        ("tolerance: -1", "greater than or equal to 0"),
        ('tolerance: {value: "1", gain: 0.5}', "expected a number"),
        ("tolerance: true", "tolerance"),
        ("tolerances: 1", "did you mean 'tolerance'"),
    ],
)
def test_what_is_wrong_is_named(tmp_path, new, message):
    with pytest.raises(UserError, match=message):
        load(tmp_path, DECLARED, new)


def test_the_printed_means_are_those_of_the_printed_classes():
    spec = published.load("table2", TABLES)
    for column, expected in zip(spec.columns, (77.4375, 82.1155, 83.173), strict=True):
        classes = [spec.published(row.key, column.key) for row in spec.rows if row.key != "mAP"]
        assert sum(classes) / 20 == pytest.approx(expected, abs=1e-9)
        assert spec.published("mAP", column.key) == pytest.approx(expected, abs=0.005)
