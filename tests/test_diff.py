"""Any two sides: what each exit status means, and that both formats for programs read back as what it was made from."""

import json
import shutil

import pytest
from typer.testing import CliRunner

from benchmark import cli
from benchmark.errors import UserError
from benchmark.matrix import grid
from benchmark.tables import diff, published, render
from tests.evidence import GOLDEN, RUNS, TABLES, as_published, golden_table, plant


@pytest.fixture(autouse=True)
def pinned_grid(monkeypatch):
    monkeypatch.setattr(grid.load, "__defaults__", (GOLDEN,))


def call(*arguments):
    """Exit status and output of `diff`."""
    result = CliRunner().invoke(cli.app, ["diff", *map(str, arguments), "--tables", str(TABLES)])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stdout if "--json" in arguments else result.output


@pytest.mark.parametrize("ending", ["csv", "json"])
@pytest.mark.parametrize("scale", ["mini", "paper"])
def test_every_format_reads_back(tmp_path, ending, scale):
    if scale == "paper":
        plant(tmp_path, as_published)
    table = golden_table(scale, RUNS if scale == "mini" else tmp_path)
    path = tmp_path / f"table2.{ending}"
    path.write_text(render.FORMATS[ending](table), encoding="utf-8")
    read, made = diff.of_file(path), diff.of_table(table)
    assert (read.table, read.scale, read.comparable) == (made.table, made.scale, made.comparable)
    assert read.cells.keys() == made.cells.keys()
    for at, value in made.cells.items():
        assert read.cells[at] == pytest.approx(value, abs=read.rounding + 1e-9)
    assert {o["outcome"] for o in diff.compare(made, read, 0.0)} == {"within"}


@pytest.mark.parametrize("ending", ["csv", "json"])
def test_a_row_that_names_its_stand_in_reads_back(tmp_path, ending):
    spec = published.load("table2", TABLES)
    rows = [row.model_copy(update={"where": {"backbone": "resnet18"}, "item": row.key}) for row in spec.rows]
    table = golden_table(spec_changes={"rows": rows})
    path = tmp_path / f"table2.{ending}"
    path.write_text(render.FORMATS[ending](table), encoding="utf-8")
    assert diff.of_file(path).cells.keys() == table.cells.keys()


@pytest.mark.parametrize("ending", ["csv", "json"])
def test_blanks_read_back(tmp_path, ending):
    path = tmp_path / f"table2.{ending}"
    path.write_text(render.FORMATS[ending](golden_table("paper", tmp_path)), encoding="utf-8")
    assert set(diff.of_file(path).cells.values()) == {None}


def test_status_0_reproduced(tmp_path):
    plant(tmp_path, as_published)
    code, text = call("--table", "table2", "--runs", tmp_path)
    assert code == 0
    assert "63 within" in text
    assert "Verdicts: value: 63 reproduced" in text
    assert call("published", "generated:table2", "--runs", tmp_path)[0] == 0


def test_status_1_outside(tmp_path):
    plant(tmp_path, lambda job, item: 50.0 + job.seed)
    code, text = call("--table", "table2", "--runs", tmp_path, "--json")
    assert code == 1
    assert json.loads(text)["exit_status"] == 1
    assert call("published:table2", "generated:table2", "--runs", tmp_path)[0] == 1


def test_status_2_missing_or_not_comparable(tmp_path):
    assert call("--table", "table2", "--runs", tmp_path)[0] == 2
    assert call("--table", "table2", "--runs", RUNS)[0] == 2
    assert call("published", TABLES / "mini" / "table2.json")[0] == 2


def test_status_3_nothing_in_common(tmp_path):
    assert call(RUNS, TABLES / "mini" / "table2.json")[0] == 3
    assert call(RUNS, TABLES)[0] == 3
    for form in ("md", "tex"):  # for people
        code, text = call("published:table2", TABLES / "mini" / f"table2.{form}")
        assert (code, "a table's .json lies beside" in text) == (3, True)
    (tmp_path / "x.json").write_text("[1]")
    assert call("published:table2", tmp_path / "x.json")[0] == 3
    assert call("published:table2", GOLDEN / "voc.yaml")[0] == 3
    plant(tmp_path / "runs", as_published)
    assert call(RUNS, tmp_path / "runs")[0] == 3


@pytest.mark.usefixtures("planted_numbers")
def test_two_run_folders(tmp_path):
    shutil.copytree(RUNS, tmp_path / "runs")
    code, text = call(RUNS, tmp_path / "runs")
    assert (code, "126 within" in text) == (0, True)
    changed = next((tmp_path / "runs").glob("*/*/result.json"))
    record = json.loads(changed.read_text())
    record["ap"]["area"]["cow"] += 1e-4
    changed.write_text(json.dumps(record))
    code, text = call(RUNS, tmp_path / "runs" / "mini", "--json")
    assert code == 1
    assert [c["row"] for c in json.loads(text)["cells"] if c["outcome"] == "outside"] == [changed.parent.name]
    assert call(RUNS, tmp_path / "runs", "--tolerance", 0.1)[0] == 0
    shutil.rmtree(changed.parent)
    assert call(RUNS, tmp_path / "runs")[0] == 2


def test_two_scales_are_not_comparable(tmp_path):
    plant(tmp_path, as_published)
    paper = tmp_path / "table2.json"
    paper.write_text(render.json(golden_table("paper", tmp_path)))
    assert call(paper, TABLES / "mini" / "table2.json")[0] == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "name two sides"),
        (["published"], "second side is missing"),
        (["published", "nowhere"], "no such file or folder"),
        (["published", "generated"], "which table"),
        ([RUNS, RUNS, "--ap-definition", "aera"], "did you mean 'area'"),
        (["--table", "tabel2"], "did you mean 'table2'"),
    ],
)
def test_errors_name_what_to_do(arguments, message):
    with pytest.raises(UserError, match=message):
        call(*arguments)
