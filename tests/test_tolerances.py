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


DECLARED = "tolerance: 1.0"


def test_tolerance():
    assert published.load("table2", TABLES).tolerance == 1.0


@pytest.mark.parametrize(
    ("new", "message"),
    [
        ("tolerance: -1", "greater than or equal to 0"),
        ('tolerance: "1"', "expected a number"),
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
