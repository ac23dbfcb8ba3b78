"""What made a number is told in full, and can be done: the commit, the packages, the data and weights, the commands."""

import shutil
import subprocess
from pathlib import Path

import pytest

from benchmark.checks import rebuild
from benchmark.errors import UserError
from benchmark.store.run import Run, all_runs
from tests.evidence import RUNS, TABLES

ROOT = Path(__file__).parents[1]


def committed(name: str) -> Run:
    return next(run for run in all_runs(ROOT / "runs") if run.id.startswith(name))


def test_all_that_made_a_run_is_told():
    way = rebuild.made(committed("voc2012-resnet18-icasc-a_ch-s0"))
    told = rebuild.text([way], None, None)
    record, on = way.run.result(), way.run.environment()
    assert told.splitlines()[0].startswith(f"# commit {record.code.commit}, Python {on.python}")
    assert all(f"{name}=={version}" in told for name, version in on.packages.items())
    assert {on.data_sha256.train, on.data_sha256.test, record.scores_sha256} <= set(told.replace(";", " ").split())
    assert f"the file with {way.job.weights.replace('sha256:', 'SHA-256 ')}" in told
    assert f"run-job as-it-was/{way.job.scale}/{way.run.id} --threads {on.threads} --device cpu" in told
    assert told.splitlines()[-2].endswith("--data-root DIR --weights FILE")


def test_runs_of_one_commit_share_a_checkout():
    ways = [rebuild.made(run) for run in all_runs(RUNS)]
    told = rebuild.text(ways, None, None)
    assert (told.count("git worktree add"), told.count("run-job")) == (1, len(ways))
    assert "--data-root" not in told, "drawn data need none"


@pytest.fixture
def steps(tmp_path, monkeypatch) -> list[list[str]]:
    """What would be called; the last of them leaves the record, as training would."""
    called = []

    def call(words, **_):
        called.append(words)
        if "venv" in words:
            Path(words[-1]).mkdir(parents=True)
        if "run-job" in words:
            scale, name = words[words.index("run-job") + 1].split("/")[1:]
            shutil.copytree(RUNS / scale / name, Path(words[2], "as-it-was", scale, name), dirs_exist_ok=True)
        return subprocess.CompletedProcess(words, 0)

    monkeypatch.setattr(rebuild.subprocess, "run", call)
    shutil.copytree(RUNS, tmp_path / "runs")
    (tmp_path / "tables").mkdir()
    shutil.copy(TABLES / "table2.yaml", tmp_path / "tables")
    return called


CELL = ["explain", "table2:mAP:icasc-a_ch", "--as-it-was"]


@pytest.fixture(autouse=True)
def pinned_grid(monkeypatch):
    from benchmark.matrix import grid
    from tests.evidence import GOLDEN

    monkeypatch.setattr(grid.load, "__defaults__", (GOLDEN,))


def test_it_is_printed_and_done(steps, tmp_path, call, monkeypatch):
    monkeypatch.setattr(rebuild, "is_commit", lambda _: True)
    printed = call(tmp_path, *CELL)
    assert (printed.returncode, printed.stdout.count("run-job"), steps) == (0, 2, [])
    done = call(tmp_path, *CELL, "--run")
    assert (done.returncode, done.stdout.count("the same scores, bit for bit")) == (0, 2), done
    kinds = [next(w for w in words if w in ("worktree", "venv", "pip", "mkdir", "cp", "run-job")) for words in steps]
    assert kinds == ["worktree", "venv", "pip", *2 * ["mkdir", "cp", "run-job"]], "one checkout for both"
    call(tmp_path, *CELL, "--run")
    assert len(steps) == len(kinds), "what is there already is not made twice"


def test_a_step_that_fails_ends_it(steps, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(rebuild, "is_commit", lambda _: True)
    monkeypatch.setattr(rebuild.subprocess, "run", lambda words, **_: subprocess.CompletedProcess(words, 3))
    with pytest.raises(UserError, match=r"git worktree add .* ended with status 3"):
        rebuild.do(rebuild.made(all_runs(RUNS)[0]), None, None)


def test_what_is_missing_is_named():
    with pytest.raises(UserError, match="name --data-root DIR"):
        rebuild.do(rebuild.made(committed("voc2012")), None, None)
    with pytest.raises(UserError, match="name --weights FILE"):
        rebuild.do(rebuild.made(committed("voc2012")), Path("data"), None)


def test_a_commit_that_is_not_here_is_named(monkeypatch):
    monkeypatch.setattr(rebuild, "is_commit", lambda _: False)
    way = rebuild.made(all_runs(RUNS)[0])
    assert "git fetch --unshallow" in rebuild.text([way], None, None)
    with pytest.raises(UserError, match="is not in this checkout"):
        rebuild.do(way, None, None)


def test_wrong_input_is_one_line(steps, tmp_path, call):
    cases = [
        (["explain", "table2:mAP:icasc-a_ch", "--run"], "--run: goes with --as-it-was"),
        ([*CELL, "--scale", "paper"], "nothing was measured in this cell"),
    ]
    for words, message in cases:
        ended = call(tmp_path, *words)
        assert (ended.returncode, message in ended.stderr, ended.stderr.count("\n")) == (2, True, 1), ended.stderr


def test_a_record_that_does_not_say_how_is_named(tmp_path):
    run = Run(Path(shutil.copytree(all_runs(RUNS)[0].folder, tmp_path / "mini" / all_runs(RUNS)[0].id)))
    run.path("environment.json").unlink()
    with pytest.raises(UserError, match="do not say by which code"):
        rebuild.made(run)
