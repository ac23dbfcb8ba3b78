"""Reading changes nothing: whatever is damaged under runs/, commands that look leave every byte and name as it was."""

import hashlib
import json
import os
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from benchmark import cli
from benchmark.errors import CONTROL
from benchmark.matrix import grid
from benchmark.store.files import write_json
from benchmark.store.records import RECORDS
from benchmark.store.run import Run, all_runs, submit
from tests.evidence import RUNS

ROOT = Path(__file__).parent.parent
COMMANDS = [
    ["status"], ["status", "--json"], ["plan", "--grid", "voc", "--scale", "mini"],
    ["tables", "--table", "table2", "--scale", "mini"], ["diff", "--table", "table2", "--scale", "mini"],
    ["explain", "table2:mAP:icasc-a_ch", "--scale", "mini"], ["report", "--table", "table2", "--scale", "mini"],
    ["figures", "--table", "table2", "--scale", "mini"],
    ["sensitivity", "--grid", "voc", "--scale", "mini", "--vary", "ap_definition"],
    ["sensitivity", "--grid", "voc", "--scale", "study"],
]  # fmt: skip


def _bytes_and_names(folder: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        content = path.read_bytes() if path.is_file() else b""
        digest.update(f"{path.relative_to(folder)} {path.lstat().st_mode}\n".encode() + content)
    return digest.hexdigest()


DAMAGE = [
    ("result.json", lambda path: path.write_text("{")),
    ("result.json", lambda path: path.write_text(json.dumps(json.loads(path.read_text()) | {"seconds": "long"}))),
    ("environment.json", lambda path: path.write_text('{"code": 5}')),
    ("environment.json", lambda path: path.write_text('{"packages": ["torch"], "threads": "two"}')),
    ("metrics.jsonl", lambda path: path.write_bytes(b"\xff")),
    ("scores.npz", lambda path: path.write_bytes(b"PK")),
    ("job.json", lambda path: path.write_text("[" * 10_000)),
    ("result.json", lambda path: (path.unlink(), path.with_name("failure.json").write_text("no"))),
    ("result.json", lambda path: (path.unlink(), os.mkfifo(path))),
    ("claim.json", lambda path: (path.with_name("result.json").unlink(), path.mkdir())),
]


@pytest.fixture(scope="module", params=range(len(DAMAGE)), ids=lambda i: f"{i}-{DAMAGE[i][0]}")
def damaged(request, tmp_path_factory) -> tuple[Path, Path]:
    """The golden runs with one record of one run damaged, and a folder for what is generated."""
    folder = tmp_path_factory.mktemp("damaged")
    shutil.copytree(RUNS, folder / "runs")
    name, damage = DAMAGE[request.param]
    damage(all_runs(folder / "runs")[0].path(name))
    return folder / "runs", folder / "tables"


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_reading_writes_nothing(damaged, command):
    runs, tables = damaged
    before = _bytes_and_names(runs)
    words = [*command, "--runs", str(runs)]
    words += [] if command[0] in ("status", "plan", "sensitivity") else ["--tables", str(tables)]
    ended = CliRunner().invoke(cli.app, words)
    raised = ended.exception
    assert raised is None or isinstance(raised, SystemExit), f"goes on without the run: {raised!r}"
    assert _bytes_and_names(runs) == before


@pytest.mark.records
def test_every_committed_record_is_read():
    """None of them names a schema; they are of its first version, and complete."""
    runs = all_runs(ROOT / "runs")
    assert len(runs) >= 75
    for run in runs:
        result, environment, epochs = run.result(), run.environment(), run.metrics()
        assert result.code.commit
        assert environment.code.commit
        assert result.scores_sha256
        assert [epoch.epoch for epoch in epochs] == list(range(1, run.job().epochs + 1))
        assert run.state() == "done"


def test_a_record_is_written_as_it_was_read(tmp_path):
    """Those of before records had a schema, and of since."""
    listed = all_runs(ROOT / "runs")
    old, new = ([run for run in listed if run.folder.parent.name == scale] for scale in ("reduced", "controls"))
    for run in (*old[:2], *new[:2]):
        copy = Run(tmp_path / run.id)
        copy.write(run.result())
        copy.write(run.environment())
        for name in ("result.json", "environment.json"):
            before, after = (json.loads(r.path(name).read_text()) for r in (run, copy))
            assert after == before | {"schema": 1}


def test_the_schema_is_printed():
    printed = json.loads(CliRunner().invoke(cli.app, ["schema"]).output)
    assert set(printed) == {*RECORDS, "job.json"}
    assert printed["result.json"]["properties"]["schema"]["const"] == 1


HOSTILE = "\x1b]0;owned\x07\x1b[2J\r\u202egnp\x9b31m\nverdicts     reproduced"


@pytest.mark.parametrize(
    "command", [*COMMANDS[:6], ["plan", "--grid", "voc", "--scale", "mini", "--json"]], ids=" ".join
)
def test_what_a_file_says_commands_no_terminal(command, tmp_path, call):
    """Escape sequences, a title, a line break and a turned direction of writing, in every text of a record."""
    jobs = {job.method: job for job in grid.load("voc").jobs("mini", {}, {"seed": [0]})}
    for job in jobs.values():
        run = submit(tmp_path / "runs", job)
        write_json(run.path("failure.json"), {"kind": "crash", "error": HOSTILE, "traceback": HOSTILE})
        code = {"version": HOSTILE, "commit": HOSTILE}
        machine = {"processor": HOSTILE, "system": HOSTILE}
        packages = {"torch": HOSTILE}
        record = {"code": code, "device": HOSTILE, "python": HOSTILE, "packages": packages, "machine": machine}
        write_json(run.path("environment.json"), record)
    write_json(submit(tmp_path / "runs", jobs["baseline"]).path("result.json"), {"job": HOSTILE})
    ended = call(tmp_path, *command)
    for text in (ended.stdout, ended.stderr):
        assert not CONTROL.search(text)
    assert "verdicts     reproduced" not in ended.stdout.splitlines()
    if "--json" in command:
        json.loads(ended.stdout)
