"""From a notebook and for other programs: import benchmark, and export."""

import importlib.util
import inspect
import json
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

import benchmark
from benchmark import __main__, cli
from benchmark.cli import common, export
from benchmark.errors import UserError
from benchmark.store import code
from benchmark.store.run import all_runs, runs_in
from tests.evidence import RUNS as GOLDEN_RUNS

ROOT = Path(__file__).parents[1]
RUNS, TABLES = ROOT / "runs", ROOT / "tables"


@pytest.fixture(scope="module")
def done() -> Path:
    """A finished run of VOC that is in the repository."""
    return next(run.folder for run in all_runs(RUNS) if run.state() == "done" and run.job().dataset == "voc2012")


def test_runs_epochs_and_scores(done):
    frame = benchmark.runs(done.parent.name, RUNS)
    line = frame[frame["id"] == done.name].iloc[0]
    assert (line["dataset"], line["state"]) == ("voc2012", "done")
    assert 0 < line["mAP"] < 1
    assert 0 < line["mAP (all classes)"] < 1
    epochs = benchmark.epochs(done)
    assert epochs["epoch"].tolist() == list(range(1, line["epochs"] + 1))
    assert {"classification", "test_mAP"} <= set(epochs)
    assert epochs["test_mAP"].iloc[-1] == pytest.approx(line["mAP (all classes)"], abs=1e-6)
    assert benchmark.scores(done).predicted.shape[1] == 20


@pytest.mark.parametrize("table", ["table2", "voc-controls"])
@pytest.mark.parametrize("scale", ["reduced", "subset"])
def test_a_run_s_map_is_the_table_s(table, scale):
    """Over the preset's classes: whoever computes for himself gets the number of the tables."""
    frame = benchmark.runs(scale, RUNS).set_index("id")
    cells = [c for c in benchmark.table(table, scale, RUNS, TABLES).cells.values() if c.row in ("mAP", "ResNet-18")]
    shown = {run: value for cell in cells for run, value in zip(cell.runs, cell.values, strict=True)}
    assert shown
    for run, value in shown.items():
        assert 100 * frame.loc[run, "mAP"] == pytest.approx(value, abs=1e-9)
    assert set(frame.loc[list(shown), "num_classes"]) == {"12 of 19"}


def test_a_preset_that_counts_all_classes_has_one_map():
    frame = benchmark.runs("mini", GOLDEN_RUNS).dropna(subset="mAP")
    assert len(frame)
    assert (frame["mAP"] == frame["mAP (all classes)"]).all()
    assert set(frame["num_classes"]) == {"20 of 20"}


def test_a_table_is_a_frame_and_a_notebook_s_cell():
    table = benchmark.table("table2", "mini", RUNS, TABLES)
    frame = table.to_frame()
    assert len(frame) == len(table.cells) == 21 * 3
    assert frame[(frame["row"] == "mAP") & (frame["column"] == "icasc-a_ch")]["published"].item() == 83.17
    html = table._repr_html_()
    assert html.count("<tr>") == 1 + 21
    assert "<script" not in html
    with pytest.raises(UserError, match="unknown field 'epoch'; did you mean 'epochs'"):
        benchmark.table("table2", "mini", RUNS, TABLES, epoch=3)
    with pytest.raises(UserError, match="did you mean 'table2'"):
        benchmark.table("tabel2", "mini", RUNS, TABLES)


def test_looking_from_a_notebook_never_imports_torch(done):
    lines = [
        "import sys, benchmark", f"benchmark.runs({done.parent.name!r}, {str(RUNS)!r})",
        f"benchmark.table('table2', 'mini', {str(RUNS)!r}, {str(TABLES)!r}).to_frame()",
        f"benchmark.epochs({str(done)!r}), benchmark.scores({str(done)!r})", "assert 'torch' not in sys.modules",
    ]  # fmt: skip
    subprocess.run([sys.executable, "-c", "; ".join(lines)], check=True)


@pytest.mark.parametrize("what", ["runs", "epochs"])
def test_export(call, tmp_path, done, what):
    told = call(tmp_path, "export", "--what", what, "--scale", done.parent.name, "--runs", RUNS, "--out", "x.csv")
    assert told.returncode == 0, told.stderr
    frame = pd.read_csv(tmp_path / "x.csv")
    assert done.name in set(frame["id"])
    told = call(tmp_path, "export", "--what", what, "--format", "json", "--runs", RUNS, "--out", "x.json")
    assert len(pd.read_json(tmp_path / "x.json")) >= len(frame)


def test_export_to_parquet(call, tmp_path, done):
    pytest.importorskip("pyarrow")
    told = call(tmp_path, "export", "--format", "parquet", "--runs", RUNS, "--out", "x.parquet")
    assert told.returncode == 0, told.stderr
    assert done.name in set(pd.read_parquet(tmp_path / "x.parquet")["id"])


def test_what_export_lacks_is_named(call, tmp_path, monkeypatch):
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "pyarrow" else found(name))
    told = call(tmp_path, "export", "--format", "parquet", "--runs", RUNS, "--out", "x")
    assert (told.returncode, told.stdout) == (2, "")
    assert "--format parquet: pip install pyarrow" in told.stderr


def recorded(run) -> float:
    """The mAP that its record holds, read by nobody but json."""
    return json.loads((run / "result.json").read_text())["mAP"]["area"]


@pytest.mark.parametrize("form", ["csv", "json", "parquet"])
def test_what_is_exported_is_what_the_record_holds(call, tmp_path, form):
    """To the last digit, of every run; and the columns are the same whatever has run."""
    if form == "parquet":
        pytest.importorskip("pyarrow")
    read = {"csv": pd.read_csv, "json": read_lines, "parquet": pd.read_parquet}[form]
    for scale in ("reduced", "study", "terms"):
        words = ("export", "--format", form, "--scale", scale, "--runs", RUNS, "--out", f"{scale}.{form}")
        assert call(tmp_path, *words).returncode == 0
        frame = read(tmp_path / f"{scale}.{form}").set_index("id")
        found = [run for run in runs_in(RUNS / scale) if run.state() == "done" and run.result().mAP]
        assert found
        for run in found:
            assert frame.loc[run.id, "mAP (all classes)"] == recorded(run.folder)
        assert list(frame.columns) == [*list(export.kinds_of("runs", []))[1:]]


def read_lines(path: Path) -> pd.DataFrame:
    """As Python reads JSON: pandas' own reader cuts digits."""
    return pd.DataFrame(json.loads(path.read_text()))


def test_each_column_of_an_export_has_a_kind():
    table = benchmark.table("table2", "mini", RUNS, TABLES)
    assert list(export.CELLS) == list(table.records()[0])
    assert export.kinds_of("runs", [])["flip"] == "truth"
    kinds = export.kinds_of("runs", [])
    expected = {"batch_size": "whole", "learning_rate": "number", "sigma": "number", "second_order": "truth"}
    expected |= {"limit_train": "whole", "milestones": "numbers", "options": "text", "loss": "text"}
    assert {name: kinds[name] for name in expected} == expected


def test_parquet_of_cells_without_a_run_fits_below_one_with_runs(call, tmp_path):
    arrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    schemas = []
    (tmp_path / "none").mkdir()
    for runs in (RUNS, tmp_path / "none"):
        words = ("export", "--what", "cells", "--scale", "reduced", "--format", "parquet", "--tables", TABLES)
        assert call(tmp_path, *words, "--runs", runs, "--out", "x.parquet").returncode == 0
        schemas.append(parquet.read_schema(tmp_path / "x.parquet").remove_metadata())
    assert schemas[0] == schemas[1]
    assert arrow.null() not in schemas[0].types


def test_away_from_home_the_folder_is_named(call, tmp_path, monkeypatch):
    """A notebook and a command in another folder say the same, and show nothing."""
    monkeypatch.chdir(tmp_path)
    message = f"{tmp_path / 'runs'}: no such folder; name that of the runs, with runs=, or --runs"
    for asked in (
        lambda: benchmark.table("table2", scale="reduced"),
        lambda: benchmark.table("headline", scale="reduced"),
        benchmark.runs,
    ):
        with pytest.raises(UserError) as error:
            asked()
        assert message in str(error.value)
    for words in (
        ("tables",), ("tables", "--table", "table2", "--scale", "reduced"), ("answer",), ("figures",),
        ("explain", "table2:mAP:icasc-a_ch", "--scale", "reduced"), ("report",),
        ("diff", "--table", "table2"), ("export", "--out", "x.csv"),
    ):  # fmt: skip
        told = call(tmp_path, *words)
        assert (told.returncode, told.stdout) == (2, "")
        assert message in told.stderr
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "runs").mkdir()
    assert list(benchmark.runs().columns) == list(benchmark.runs("reduced", RUNS).columns)
    assert len(benchmark.runs()) == 0


@pytest.mark.records
def test_export_of_cells_takes_the_scales_that_a_table_has(call, tmp_path):
    words = ("export", "--what", "cells", "--runs", RUNS, "--tables", TABLES, "--out", "x.csv")
    assert call(tmp_path, *words).returncode == 0
    assert set(pd.read_csv(tmp_path / "x.csv")["scale"]) == {"mini"}
    assert call(tmp_path, *words, "--scale", "subset").returncode == 0
    assert set(pd.read_csv(tmp_path / "x.csv")["table"]) <= {"table2", "voc", "voc-controls"}


def test_shell_completion(tmp_path, monkeypatch, capsys):
    """What a shell asks the installed script for when Tab is pressed."""
    monkeypatch.setattr("sys.argv", ["/usr/local/bin/icasc-benchmark"])
    monkeypatch.setenv("_ICASC_BENCHMARK_COMPLETE", "complete_bash")
    for typed, offered in (("pl", {"plan"}), ("data v", {"verify"}), ("plan --stu", {"--study"})):
        words = ["icasc-benchmark", *typed.split()]
        monkeypatch.setenv("COMP_WORDS", " ".join(words))
        monkeypatch.setenv("COMP_CWORD", str(len(words) - 1))
        with pytest.raises(SystemExit):
            __main__.main()
        assert set(capsys.readouterr().out.split()) == offered


def test_nothing_to_export(call, tmp_path):
    told = call(tmp_path, "export", "--out", "x.csv")
    assert (told.returncode, told.stdout) == (2, "")
    assert told.stderr.startswith(f"error: {tmp_path / 'runs'}: no such folder; name that of the runs")
    (tmp_path / "runs").mkdir()
    told = call(tmp_path, "export", "--out", "x.csv")
    assert (told.returncode, told.stderr) == (2, "error: runs: holds nothing to export\n")


def test_version_short_help_and_the_name_it_was_called_by(call, tmp_path, monkeypatch):
    assert call(tmp_path, "--version").stdout.strip() == benchmark.__version__
    assert "--study" in call(tmp_path, "plan", "-h").stdout
    monkeypatch.setattr("sys.argv", ["/usr/local/bin/some-script"])
    assert __main__.called_as() == "some-script"
    monkeypatch.setattr("sys.argv", ["/x/benchmark/__main__.py"])
    assert __main__.called_as() == "python -m benchmark"


def test_a_home_folder_is_meant_by_its_sign(call, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "me"))
    assert f"{tmp_path}/me/none" in call(tmp_path, "data", "list", "--data-root=~/none").stderr
    assert f"no jobs under {tmp_path}/me/none/" in call(tmp_path, "status", "--runs=~/none").stdout


def test_an_option_of_one_name_is_one_option():
    """So that `~` is meant, and help is the same, wherever it is taken."""
    kinds = {"data_root": "DataRoot", "runs": "Runs", "tables": "Tables", "weights": "Weights", "cache": "Cache"}
    shared = {name: getattr(common, kind) for name, kind in kinds.items()}
    for command in [*cli.COMMANDS.values(), *cli.data.COMMANDS.values()]:
        for name, parameter in inspect.signature(command).parameters.items():
            if name in shared:
                assert parameter.annotation == shared[name], (command, name)


def test_a_repository_that_lies_around_the_package_is_not_the_suite_s(tmp_path, monkeypatch):
    (tmp_path / "lib" / "benchmark").mkdir(parents=True)
    (tmp_path / "benchmark").mkdir()
    git = ["git", "-C", str(tmp_path), "-c", "user.name=t", "-c", "user.email=t@t"]
    for folder in (tmp_path / "benchmark", tmp_path / "lib" / "benchmark"):
        (folder / "__init__.py").write_text("")
    for words in (["init", "-q"], ["add", "lib"], ["commit", "-qm", "x"]):
        subprocess.run([*git, *words], check=True)
    code.code_version.cache_clear()
    monkeypatch.setattr(code, "ROOT", tmp_path / "lib")
    assert code.code_version()["commit"] is None
    assert code.clean_commit() is None
    code.code_version.cache_clear()
    monkeypatch.setattr(code, "ROOT", tmp_path)  # as pip install --target . leaves it: git does not know the package
    assert code.code_version()["commit"] is None
    subprocess.run([*git, "add", "benchmark"], check=True)
    code.code_version.cache_clear()
    code._has_a_repository.cache_clear()
    assert code.code_version()["commit"] is not None
    code.code_version.cache_clear()


def test_an_incomplete_data_root_is_not_quietly_done_without(call, tmp_path):
    (tmp_path / "VOCdevkit").mkdir()
    told = call(tmp_path, "run", "--grid", "voc", "--data-root", ".")
    assert told.returncode == 2
    assert "voc2012 under . is not complete" in told.stderr
    assert "--scale mini" in told.stderr
    assert not (tmp_path / "runs").exists()


def test_a_selection_without_its_baseline_is_said(capsys, tmp_path):
    from benchmark.cli.run import say_what_gains_lack
    from benchmark.matrix import grid
    from benchmark.matrix.matrix import Matrix

    voc = grid.load("voc")
    say_what_gains_lack(Matrix(voc, "mini", selection={"method": ["icasc-a_ch"], "seed": [0]}, runs=tmp_path))
    assert "gains will be missing: 1 jobs of baseline" in capsys.readouterr().out
    say_what_gains_lack(Matrix(voc, "mini", selection={"seed": [0]}, runs=tmp_path))
    assert capsys.readouterr().out == ""
