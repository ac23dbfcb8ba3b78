"""Records are believed where all of them fits together; those of others come in on the same terms, under their name."""

import hashlib
import io
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from benchmark.checks import audit, retrain
from benchmark.evidence import explain
from benchmark.store import code
from benchmark.store.files import write_json
from benchmark.store.records import Origin
from benchmark.store.run import Run, all_runs
from tests.evidence import RUNS, golden_matrix, golden_table

ROOT = Path(__file__).parents[1]


@pytest.fixture
def runs(tmp_path) -> Path:
    return Path(shutil.copytree(RUNS, tmp_path / "theirs"))


@pytest.fixture
def victim(runs) -> Run:
    return all_runs(runs)[0]


def edit(run: Run, name: str, **changes) -> None:
    """Each value as given, or what a function makes of the recorded one."""
    record = json.loads(run.path(name).read_text())
    for key, value in changes.items():
        record[key] = value(record[key]) if callable(value) else value
    write_json(run.path(name), record)


def log(run: Run, change) -> None:
    lines = [json.loads(line) for line in run.path("metrics.jsonl").read_text().splitlines()]
    run.path("metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in change(lines)))


def change_scores(run: Run, **changes) -> None:
    """With the digest that fits them."""
    with np.load(run.path("scores.npz")) as arrays:
        saved = dict(arrays)
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **saved | {name: change(saved) for name, change in changes.items()})
    run.path("scores.npz").write_bytes(buffer.getvalue())
    edit(run, "result.json", scores_sha256=hashlib.sha256(buffer.getvalue()).hexdigest())


def as_commit(**changes):
    return lambda recorded: recorded | changes


def retested(epoch: int, value: float):
    return lambda lines: [line | ({"test_mAP": value} if line["epoch"] == epoch else {}) for line in lines]


DAMAGED = {
    "another job": (lambda r: edit(r, "job.json", epochs=3), "holds job"),
    "another id": (lambda r: edit(r, "result.json", job="other"), "of job other"),
    "an edited number": (lambda r: edit(r, "result.json", mAP=lambda m: m | {"raw_area": 0.9}), "mAP.raw_area"),
    "no scores": (lambda r: r.path("scores.npz").unlink(), "keeps no scores"),
    "other scores": (lambda r: r.path("scores.npz").write_bytes(b"PK"), "not the scores"),
    "no environment": (lambda r: r.path("environment.json").unlink(), "nobody knows"),
    "no commit": (lambda r: edit(r, "result.json", code={"version": "1"}), "names no commit"),
    "dirty code": (lambda r: edit(r, "result.json", code=as_commit(dirty=True)), "does not hold"),
    "a commit that is not": (lambda r: edit(r, "result.json", code=as_commit(commit="0" * 40)), "is not in this"),
    "a branch for a commit": (lambda r: edit(r, "result.json", code=as_commit(commit="HEAD")), "is not in this"),
    "two commits": (lambda r: edit(r, "environment.json", code=as_commit(commit="0" * 40)), "environment.json 0000"),
    "too few images": (lambda r: edit(r, "result.json", num_train=7), "says 7 training images"),
    "an early epoch": (lambda r: edit(r, "result.json", epoch=1), "is of epoch 1"),
    "a lost epoch": (lambda r: log(r, lambda lines: lines[:1]), "holds 1 epochs"),
    "another end": (lambda r: log(r, retested(2, 0.5)), "ends at mAP 0.5"),
    "another best epoch": (lambda r: log(r, retested(1, 0.99)), "was the best"),
    "quick seconds": (lambda r: edit(r, "result.json", seconds=1.0), "says 1 s, its epochs took"),
    "no seconds": (lambda r: log(r, lambda lines: [dict(x, seconds=0.0) for x in lines]), "how many seconds"),
    "an image twice": (
        lambda r: change_scores(r, ids=lambda saved: np.append(saved["ids"][1:], saved["ids"][-1:])),
        "scored twice",
    ),
    "trained on a test image": (lambda r: change_scores(r, train_ids=lambda s: s["ids"][:3]), "trained on and tested"),
    "neither result nor failure": (lambda r: r.path("result.json").write_text("{"), "corrupt record"),
    "another scale's folder": (lambda r: r.folder.rename(r.folder.parents[1] / "paper" / r.id), "is of scale mini"),
}  # fmt: skip


@pytest.mark.parametrize("name", DAMAGED)
def test_each_damage_is_named_and_none_is_taken(name, victim, runs, tmp_path, call):
    damage, message = DAMAGED[name]
    for run in all_runs(runs)[2:]:
        shutil.rmtree(run.folder)
    whole = all_runs(runs)[1].id
    (runs / "paper").mkdir()
    damage(victim)
    ended = call(tmp_path, "verify", "theirs")
    assert (ended.returncode, ended.stdout.count(message)) == (1, 1), ended.stdout
    ended = call(tmp_path, "import", "theirs", "--origin", "A. N. Other", "--runs", "ours")
    assert (ended.returncode, message in ended.stdout) == (1, True)
    assert [run.id for run in all_runs(tmp_path / "ours")] == [whole]
    assert [path.name for path in (tmp_path / "ours").iterdir()] == ["mini"], "nothing half done is left"


def test_every_committed_record_fits(call):
    ended = call(ROOT, "verify")
    assert (ended.returncode, ended.stdout) == (0, f"runs: {len(all_runs(ROOT / 'runs'))} runs computed again from "
        "their scores, 0 problems\n")  # fmt: skip


def test_the_folder_of_one_scale_and_of_one_run_can_be_named(runs, call):
    for folder, num in (
        (runs, len(all_runs(runs))),
        (runs / "mini", len(all_runs(runs))),
        (all_runs(runs)[0].folder, 1),
    ):
        ended = call(ROOT, "verify", str(folder))
        told = f"{folder}: {num} runs computed again from their scores, 0 problems\n"
        assert (ended.returncode, ended.stdout) == (0, told)


def test_scores_of_another_seed_are_borrowed(runs, tmp_path, call):
    lender, borrower = (next(r for r in all_runs(runs) if f"baseline-s{seed}" in r.id) for seed in (0, 1))
    for name in ("scores.npz", "result.json", "metrics.jsonl"):
        shutil.copy(lender.path(name), borrower.path(name))
    edit(borrower, "result.json", job=borrower.id)
    ended = call(tmp_path, "verify", "theirs")
    assert (ended.returncode, f"has the scores of {lender.id}" in ended.stdout) == (1, True)
    taken, lines = audit.take([borrower], RUNS, Origin(name="x"))
    assert (taken, len(lines)) == ([], 1)


def test_unfinished_runs_are_counted_and_not_taken(victim, tmp_path, call):
    victim.path("result.json").unlink()
    ended = call(tmp_path, "verify", "theirs")
    assert (ended.returncode, "; 1 have not ended" in ended.stdout) == (0, True)
    taken, lines = audit.take([victim], tmp_path / "ours", Origin(name="x"))
    assert (taken, "only finished runs" in lines[0]) == ([], True)


def test_a_failure_is_an_outcome_and_is_taken(victim, tmp_path):
    for name in ("result.json", "scores.npz"):
        victim.path(name).unlink()
    write_json(victim.path("failure.json"), {"kind": "diverged", "error": "the loss is not a number"})
    taken, lines = audit.take([victim], tmp_path / "ours", Origin(name="x"))
    assert (taken, lines) == ([victim], [])
    assert all_runs(tmp_path / "ours")[0].state() == "diverged"


def test_without_git_a_commit_is_not_looked_up(victim, tmp_path, call, monkeypatch):
    edit(victim, "result.json", code=as_commit(commit="0" * 40))
    victim.path("environment.json").write_text('{"schema": 1}')
    monkeypatch.setattr(code, "history_is_whole", lambda: False)
    ended = call(tmp_path, "verify", "theirs")
    assert (ended.returncode, "nobody can tell" in ended.stderr) == (0, True)


def test_taken_runs_are_named_by_their_origin(runs, tmp_path, call):
    (all_runs(runs)[0].folder / "weights.safetensors").write_bytes(b"large")
    ended = call(tmp_path, "import", "theirs", "--origin", "A. N. Other", "--runs", "ours")
    assert (ended.returncode, ended.stderr) == (0, "")
    assert not list((tmp_path / "ours").rglob("weights*"))
    table = golden_table(runs=tmp_path / "ours")
    assert [note for note in table.notes if "made by others" in note] == [
        "Of 6 runs, made by others: 6 by A. N. Other."
    ]
    cell = table.cells["mAP", "icasc-a_ch"]
    assert explain.text(explain.trace(table, cell, {})).count("made by A. N. Other") == len(cell.runs)
    assert call(tmp_path, "verify", "ours").returncode == 0


def test_nothing_is_overwritten_and_an_origin_is_kept(runs, tmp_path):
    first, _ = audit.take(all_runs(runs), tmp_path / "ours", Origin(name="first"))
    again, lines = audit.take(all_runs(runs), tmp_path / "ours", Origin(name="second"))
    assert (len(first), again, len(lines)) == (6, [], 6)
    passed_on, _ = audit.take(all_runs(tmp_path / "ours"), tmp_path / "third", Origin(name="second"))
    assert {Run(tmp_path / "third" / "mini" / run.id).origin().name for run in passed_on} == {"first"}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["verify", "nowhere"], "nowhere: no run is there"),
        (["import", "nowhere", "--origin", "x"], "nowhere: no run is there"),
        (["import", "theirs", "--origin", ""], "expected a name"),
        (["import", "theirs", "--origin", "a\nb"], "expected a name"),
        (["import", "theirs", "--origin", "x", "--runs", "theirs"], "are our runs already"),
        (["verify", "theirs", "--rerun", "7"], "6 runs with a result are there"),
        (["verify", "real", "--rerun", "1"], "name its folder with --data-root DIR"),
    ],
)
@pytest.mark.usefixtures("runs")
def test_wrong_input_is_one_line(words, message, tmp_path, call):
    shutil.copytree(
        next((ROOT / "runs" / "study").glob("voc*")),
        tmp_path / "real" / "study" / next((ROOT / "runs" / "study").glob("voc*")).name,
    )
    ended = call(tmp_path, *words)
    assert (ended.returncode, ended.stderr.count("\n")) == (2, 1)
    assert message in ended.stderr


# Trained again


def test_the_same_bits_are_the_same(runs):
    run, ours = all_runs(runs)[0], all_runs(RUNS)[0]
    assert retrain.compared(run, ours).agrees is True


def moved(run: Run, points: float) -> None:
    """Its number by so many points, and its scores by a little, both as recorded."""
    change_scores(run, scores=lambda saved: saved["scores"] + np.float32(1e-3))
    edit(run, "result.json", mAP=lambda m: m | {"area": m["area"] + points / 100})


@pytest.mark.usefixtures("planted_numbers")
def test_other_bits_are_told_where_nothing_is_known_to_differ(victim, monkeypatch):
    moved(victim, 0.0)
    monkeypatch.setattr(retrain, "changed_since", lambda _: [])
    outcome = retrain.compared(all_runs(RUNS)[0], victim)
    assert outcome.agrees is True
    assert "of other bits" in outcome.said
    assert "one name covers several kinds" in outcome.said


@pytest.mark.usefixtures("planted_numbers")
@pytest.mark.parametrize(("points", "agrees"), [(0.0, True), (0.9, True), (1.1, False)])
def test_elsewhere_a_number_may_move_as_far_as_between_seeds(points, agrees, victim, monkeypatch):
    monkeypatch.setattr(retrain, "noise_floor", lambda _: 1.0)
    moved(victim, points)
    edit(victim, "environment.json", machine={"processor": "another"})
    outcome = retrain.compared(all_runs(RUNS)[0], victim)
    assert (outcome.agrees, "now another" in outcome.said) == (agrees, True)


def test_the_noise_floor_is_that_of_two_runs_of_one_job_but_for_the_seed():
    values = {run.id: 100 * run.result().mAP["area"] for run in all_runs(RUNS)}
    pairs = [[v for name, v in values.items() if f"-{method}-s" in name] for method in ("baseline", "icasc-a_ch")]
    pairs.append([v for name, v in values.items() if "grad_cam" in name])
    pooled = np.sqrt(np.mean([np.var(pair, ddof=1) for pair in pairs]))
    # The 0.975 quantile of Student's t with 3 degrees of freedom is 3.1824.
    floors = [retrain.noise_floor(run) for run in all_runs(RUNS)]
    assert floors == pytest.approx([3.1824 * pooled * 2**0.5] * len(floors), rel=1e-4)


@pytest.mark.usefixtures("planted_numbers")
def test_one_seed_has_no_noise_floor(victim, tmp_path):
    alone = Run(Path(shutil.copytree(all_runs(RUNS)[0].folder, tmp_path / "one" / "mini" / victim.id)))
    moved(victim, 0.5)
    edit(victim, "environment.json", threads=7)
    assert retrain.noise_floor(alone) is None
    assert retrain.compared(alone, victim).agrees is None


@pytest.mark.usefixtures("planted_numbers")
@pytest.mark.parametrize(("points", "status"), [(0.0, 0), (2.0, 1)])
def test_verify_says_how_a_run_trained_again_came_out(points, status, runs, tmp_path, call, monkeypatch):
    def trained(run: Run, folder: Path, arguments: list[str]) -> Run:
        again = Run(Path(shutil.copytree(run.folder, folder / "mini" / run.id)))
        moved(again, points)
        edit(again, "environment.json", threads=7)
        return again

    monkeypatch.setattr(retrain, "trained_again", trained)
    monkeypatch.setattr(audit, "problems", lambda run: [])
    monkeypatch.setattr(retrain, "noise_floor", lambda run: 1.0)
    ended = call(tmp_path, "verify", "theirs", "--rerun", "1")
    assert (ended.returncode, "differs by up to" in ended.stdout) == (status, True)


@pytest.mark.slow
def test_a_run_is_trained_again(victim, tmp_path, cache, mini_voc):
    again = retrain.trained_again(victim, tmp_path / "again", ["--device", "cpu", "--cache", str(cache)])
    assert again.result().job == victim.id
    assert golden_matrix(runs=tmp_path / "again").folder(again.job()) == again.folder
