"""What runs hold, read once: no command opens a file of a run twice, or names a damaged one twice."""

import collections
import hashlib
import io
import os
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmark.matrix import grid
from benchmark.matrix.matrix import Matrix
from benchmark.results import results as results_module
from benchmark.results.results import Finished, Missing, Results
from benchmark.store import metrics, scores
from benchmark.store.records import Result
from benchmark.store.run import Run, submit
from benchmark.tables import published
from tests.evidence import GOLDEN, RUNS, golden_matrix, golden_table

ROOT = Path(__file__).parents[1]
COMMANDS = (
    "tables --scale paper", "sensitivity --grid voc --scale paper --vary ap_definition",
    "explain table2:mAP:icasc-a_ch --scale paper", "diff --table table2 --scale paper", "answer",
    "report --scale paper",
)  # fmt: skip

_opened: list[str] | None = None  # paths, while a test counts


def _count(event: str, arguments: tuple) -> None:
    if _opened is not None and event == "open" and isinstance(arguments[0], str | Path):
        _opened.append(os.path.realpath(arguments[0]))


sys.addaudithook(_count)  # there is no way to take one away


@pytest.fixture
def opened(monkeypatch):
    """How often each file is opened; and each scores.npz, by its digest, unpacked."""
    counts: collections.Counter[str] = collections.Counter()
    load = np.load

    def counted(file, *arguments, **options):
        content = file.getvalue() if isinstance(file, io.BytesIO) else Path(file).read_bytes()
        counts[hashlib.sha256(content).hexdigest()] += 1
        return load(file, *arguments, **options)

    monkeypatch.setattr(np, "load", counted)
    monkeypatch.setattr(sys.modules[__name__], "_opened", paths := [])
    yield lambda: counts + collections.Counter(paths)
    monkeypatch.setattr(sys.modules[__name__], "_opened", None)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Runs of VOC's Table 2, with scores that give their numbers, all files of a run beside them, and the tables."""
    folder = tmp_path_factory.mktemp("results")
    (folder / "tables").mkdir()
    for path in published.BUILT_IN.glob("*.yaml"):
        shutil.copy(path, folder / "tables")
    example = next(RUNS.glob("mini/*"))
    classes = tuple(sorted(Run(example).result().num_positive))
    for job in grid.load("voc").jobs("paper"):
        run, rng = submit(folder / "runs", job), np.random.default_rng(int(job.id[-12:], 16))
        labels = np.random.default_rng(9).choice([-1, 1], (40, len(classes))).astype(np.int8)
        predicted = (rng.normal(size=labels.shape) + labels * (1 + 0.2 * (job.method != "baseline"))).astype(np.float32)
        ids = np.arange(40).astype(str)
        digest = scores.write(run, ids, labels, predicted, classes)
        run.write(Result(job=run.id, scores_sha256=digest, **metrics.summary(predicted, labels, classes)))
        for name in ("environment.json", "metrics.jsonl"):
            shutil.copy(example / name, run.folder)
    return folder


@pytest.fixture
def folder(finished, tmp_path):
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    return tmp_path


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_reads_each_file_of_a_run_at_most_once(command, folder, call, opened):
    ended = call(folder, *command.split())
    assert ended.returncode in (0, 1, 2), ended.stderr
    assert "error" not in ended.stderr
    files = {path: os.path.realpath(path) for path in (folder / "runs").rglob("*") if path.is_file()}
    counts = opened()
    read = {str(path): counts[real] for path, real in files.items() if counts[real]}
    assert len([path for path in read if path.endswith("result.json")]) >= 9, "it looked at the runs"
    assert {path: count for path, count in read.items() if count > 1} == {}
    unpacked = {path: counts[hashlib.sha256(path.read_bytes()).hexdigest()] for path in files if path.suffix == ".npz"}
    assert {path: count for path, count in unpacked.items() if count > 1 + command.startswith("report")} == {}


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_names_a_damaged_file_at_most_once(command, folder, call):
    """And always where it shows the numbers that are in it."""
    names = ("result.json", "scores.npz", "environment.json", "origin.json", "job.json")
    runs = [grid.load("voc").jobs("paper", only={"method": [method]}) for method in ("baseline", "icasc-a_ch")]
    victims = [(folder / "runs" / "paper" / job.id) for jobs in runs for job in jobs]
    for victim, name in zip(reversed(victims), names, strict=False):
        (victim / name).write_text("{")
    lines = call(folder, *command.split()).stderr.splitlines()
    named = [sum(line.startswith("warning: ") and f"{victim.name}/" in line for line in lines) for victim in victims]
    assert max(named) == 1, lines
    assert named[-2:] == [1, 1], lines


def test_results_are_finished_or_missing(tmp_path):
    shutil.copytree(RUNS, tmp_path, dirs_exist_ok=True)
    matrix = golden_matrix(runs=tmp_path)
    whole, damaged, lacking, failed = matrix.jobs[:4]
    (matrix.folder(damaged) / "result.json").write_text("{")
    (matrix.folder(lacking) / "result.json").unlink()
    (matrix.folder(failed) / "result.json").unlink()
    (matrix.folder(failed) / "failure.json").write_text('{"kind": "diverged", "error": "not a number"}')
    results = Results.read(matrix)
    found = results.of(whole)
    assert isinstance(found, Finished)
    assert found.record == Run(matrix.folder(whole)).result()
    assert [epoch.epoch for epoch in found.epochs] == [1, 2]
    assert found.scores is found.scores
    missing = [results.of(job) for job in (damaged, lacking, failed)]
    assert all(isinstance(one, Missing) and one.scores is None for one in missing)
    assert [one.state for one in missing] == ["corrupt", "pending", "diverged"]
    assert [str(damaged.id) in line for line in results.warnings] == [True]
    assert missing[0].reason == results.warnings[0]
    assert missing[2].failure.error == "not a number"
    frame = results.frame.drop_duplicates("job").set_index("job")
    assert frame["state"][[whole.id, damaged.id, failed.id]].tolist() == ["done", "corrupt", "diverged"]
    assert list(results.records) == [job.id for job in matrix.jobs if job not in (damaged, lacking, failed)]


def test_matrices_share_what_was_read(opened):
    results = Results.read(golden_matrix())
    other = results.asked_otherwise(average_precision="11_point")
    assert [other.of(job) is results.of(job) for job in other.matrix.jobs] == [True] * len(other.matrix.jobs)
    job = results.matrix.jobs[0]
    assert other.items(job)["mAP"] != results.items(job)["mAP"]
    assert opened()[os.path.realpath(results.of(job).run.path("result.json"))] == 1


def test_a_record_without_a_number_by_the_definition_is_left_out_by_name(tmp_path):
    shutil.copytree(RUNS, tmp_path, dirs_exist_ok=True)
    results = Results.read(Matrix(grid.load("voc", GOLDEN), "mini", runs=tmp_path, average_precision="of nobody"))
    assert set(results.frame["state"]) == {"corrupt"}
    assert all("holds no average precision by the definition 'of nobody'" in line for line in results.warnings)
    assert results.records == {}


def test_score_files_beyond_the_room_for_them_are_read_again(monkeypatch, opened):
    """The memory of many thousand runs is bounded; their numbers are the same."""
    table = golden_table()
    monkeypatch.setattr(results_module, "KEPT_BYTES", 0)
    assert golden_table().cells == table.cells
    path = table.results.of(table.matrix.jobs[0]).run.path("scores.npz")
    assert opened()[os.path.realpath(path)] > 2
