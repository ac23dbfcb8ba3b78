"""Locks: what a claim's terms are, what breaks them, and what a verdict may say of its lock."""

import json
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest

from benchmark.errors import UserError
from benchmark.matrix import grid
from benchmark.store import code
from benchmark.store.run import all_runs
from benchmark.tables import build, locks, published
from tests.evidence import GOLDEN, SPEC, as_published, golden_matrix, golden_results, golden_table, plant

ROOT = Path(__file__).parents[1]
TABLES = ROOT / "tables"
SPECS = {name: published.load(name, TABLES) for name in published.names(TABLES)}
CHOSEN = grid.load("voc", GOLDEN)
CLAIM = next(c for c in locks.claims_of(SPEC, {}) if c.column == "icasc-a_ch")
COMMIT = "1" * 40


def test_the_claims_are_the_abstract_s_and_the_printed_means():
    found = {claim.address: claim.claimed for spec in SPECS.values() for claim in locks.claims_of(spec, SPECS)}
    assert found["headline:CIFAR-100, ResNet-110:icasc-a_ch"] == 3.33
    assert found["table2:mAP:icasc-grad_cam"] == pytest.approx(4.68)
    assert {address.split(":")[0] for address in found} == {"headline", "table2", "voc"}
    assert sum(address.startswith("headline") for address in found) == 18


def changed_grid(tmp_path, old, new):
    text = (GOLDEN / "voc.yaml").read_text()
    assert old in text
    (tmp_path / "voc.yaml").write_text(text.replace(old, new, 1))
    return grid.load("voc", tmp_path)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("title:", "# another comment\ntitle:"),
        ("    why: ", "    why: another reason, and "),
        ("    alternatives: [0.25]", "    alternatives: [0.25, 0.3]"),
        ("  mini:\n", "  further:\n    why: a test\n    set: {epochs: 1}\n  mini:\n"),
    ],
)
def test_what_changes_no_job_breaks_no_lock(tmp_path, old, new):
    assert locks.terms(CLAIM, changed_grid(tmp_path, old, new)) == locks.terms(CLAIM, CHOSEN)


def test_a_further_method_breaks_no_lock(tmp_path):
    more = changed_grid(tmp_path, "method: [baseline, icasc-grad_cam, icasc-a_ch]", "method: [baseline, icasc-a_ch]")
    assert locks.terms(CLAIM, more) == locks.terms(CLAIM, CHOSEN)


def test_what_a_verdict_rests_on_breaks_the_lock(tmp_path):
    before = locks.terms(CLAIM, CHOSEN)
    for old, new in (("  epochs: 20", "  epochs: 21"), ("    value: 0.55", "    value: 0.5")):
        assert locks.terms(CLAIM, changed_grid(tmp_path, old, new)).changed_in(before) == ["jobs"]
    for name, value in (("looks", [3]), ("tolerance", 2.0), ("readings", [{"attention_weight": 1.0}])):
        spec = SPEC.model_copy(update={name: value})
        other = next(c for c in locks.claims_of(spec, {}) if c.column == "icasc-a_ch")
        assert name in locks.terms(other, CHOSEN).changed_in(before)


def test_only_frozen_readings_and_the_first_seeds_are_judged(tmp_path):
    assert locks.frozen_reading(SPEC, golden_matrix("paper", tmp_path)) == {"attention_weight": 0.05}
    assert locks.frozen_reading(SPEC, golden_matrix("paper", tmp_path, attention_weight=1.0)) == {
        "attention_weight": 1.0
    }
    for other in ({"sigma": 0.25}, {"seed": [5, 6, 7]}, {"attention_weight": 0.1}):
        assert locks.frozen_reading(SPEC, golden_matrix("paper", tmp_path, **other)) is None
    assert locks.frozen_reading(SPEC, golden_matrix("mini", tmp_path)) is None


@pytest.mark.parametrize("other", [{"sigma": 0.25}, {"seed": [5, 6, 7]}])
def test_what_is_exploratory_gets_no_verdict(tmp_path, other):
    plant(tmp_path, as_published, **other)
    table = golden_table("paper", tmp_path, **other)
    assert table.comparable, "an alternative is a reading of the paper, no departure"
    assert {outcome for counts in table.verdicts().values() for outcome in counts} == {"exploratory"}
    assert any(note.startswith("Exploratory: judged are attention_weight 1.0 or") for note in table.notes)


def book_of(folder, monkeypatch, held=()):
    """A locked claim; `held`: the commits that hold the lock."""
    locks.append(locks.Book(folder / locks.FILE), {CLAIM.address: locks.terms(CLAIM, CHOSEN)}, COMMIT)
    book = locks.read(folder)
    texts = {commit: "\n".join(book.lines) for commit in held} | {"old": ""}
    monkeypatch.setattr(code, "text_at", lambda commit, path: texts.get(commit))
    return book


@pytest.mark.parametrize(
    ("commits", "outcome"),
    [
        (["new"], "confirmatory: run after the lock of"),
        (["new", "old"], "not confirmatory: run before the lock of"),
        (["new", "unheard of"], "not confirmatory: not known whether the runs came after the lock of"),
        ([None], "not confirmatory: not known whether"),
    ],
)
def test_a_verdict_names_its_lock_and_whether_the_runs_came_after_it(tmp_path, monkeypatch, commits, outcome):
    book = book_of(tmp_path, monkeypatch, held=["new"])
    plant(tmp_path, as_published)
    for i, run in enumerate(all_runs(tmp_path)):
        record = json.loads(run.path("result.json").read_bytes())
        of = {"version": "1", "commit": commits[i % len(commits)], "training": "x"}
        run.path("result.json").write_text(json.dumps(record | {"code": of}))
    table = build.build(SPEC, golden_results("paper", tmp_path), book)
    cell = table.cells["mAP", "icasc-a_ch"]
    assert cell.gain_verdict.outcome == "reproduced"
    assert outcome in cell.gain_verdict.reason
    assert f"(commit {COMMIT[:12]})" in cell.lock
    assert table.cells["mAP", "icasc-grad_cam"].lock == "not locked"
    assert any(cell.lock in note for note in table.notes)


def test_without_a_lock_a_verdict_says_so(tmp_path):
    plant(tmp_path, as_published)
    table = golden_table("paper", tmp_path)
    assert table.cells["mAP", "icasc-a_ch"].gain_verdict.reason.endswith("; not locked")
    assert any("Lock: not locked (mAP, icasc-grad_cam; mAP, icasc-a_ch)" in note for note in table.notes)


def test_terms_that_changed_since_are_not_locked(tmp_path, monkeypatch):
    book = book_of(tmp_path, monkeypatch)
    spec = SPEC.model_copy(update={"looks": [3, 5]})
    claim = next(c for c in locks.claims_of(spec, {}) if c.column == "icasc-a_ch")
    confirmatory, said = locks.standing(claim, CHOSEN, [], book)
    assert not confirmatory
    assert said.startswith("not locked as it is now: looks, jobs changed since the lock of")


def test_a_lock_that_was_edited_is_refused(tmp_path):
    locks.append(locks.Book(tmp_path / locks.FILE), {CLAIM.address: locks.terms(CLAIM, CHOSEN)}, COMMIT)
    path = tmp_path / locks.FILE
    path.write_text(path.read_text().replace('"claimed": 5.73', '"claimed": 1.73'))
    with pytest.raises(UserError, match=r"locks.jsonl:1: table2:mAP:icasc-a_ch: not the terms of its hash"):
        locks.read(tmp_path)
    path.write_text("{}\n")
    with pytest.raises(UserError, match=r"locks.jsonl:1: .*restore the line"):
        locks.read(tmp_path)


def test_plan_of_a_scale_is_locked_with_looks_and_variants_of_its_own():
    planned = locks.terms(CLAIM, grid.load("voc"), "year2008")
    assert (planned.looks, planned.claimed) == ([3, 5], CLAIM.claimed)
    assert planned.readings == [{"precision": "bfloat16"}, {"precision": "float32"}]
    assert "jobs" in planned.changed_in(locks.terms(CLAIM, grid.load("voc")))
    book = locks.read(TABLES)
    assert book.locks[book.last(f"year2008/{CLAIM.address}")].claims[f"year2008/{CLAIM.address}"].terms == planned


def test_command_locks_once_and_checks(call, tmp_path, monkeypatch):
    for path in published.BUILT_IN.glob("*.yaml"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    monkeypatch.setattr(code, "clean_commit", lambda *paths: COMMIT)
    monkeypatch.setattr(code, "ROOT", Path("/"))  # what lies in no clone is refused
    words = ("lock", "--tables", str(tmp_path))
    open_ = call(tmp_path, *words, "--check")
    assert (open_.returncode, open_.stdout.count("not locked")) == (1, 28)
    assert "28 claims locked" in call(tmp_path, *words).stdout
    assert call(tmp_path, *words, "--check").returncode == 0
    before = (tmp_path / locks.FILE).read_bytes()
    assert "every claim is locked" in call(tmp_path, *words).stdout
    assert (tmp_path / locks.FILE).read_bytes() == before
    headline = (tmp_path / "headline.yaml").read_text()
    (tmp_path / "headline.yaml").write_text(headline.replace("[0.92, 0.92]", "[0.92, 0.5]"))
    changed = call(tmp_path, *words, "--check")
    assert changed.returncode == 1
    assert "headline:ILSVRC2012, ResNet-18:icasc-a_ch: changed since the lock of" in changed.stdout
    assert "claimed 0.92 -> 0.5" in changed.stdout
    assert "1 claim locked" in call(tmp_path, *words).stdout
    assert len(locks.read(tmp_path).locks) == 2
    (tmp_path / "headline.yaml").write_text(headline)
    monkeypatch.setattr(code, "clean_commit", lambda *paths: None)
    refused = call(tmp_path, *words)
    assert (refused.returncode, refused.stderr.count("\n")) == (2, 1)
    assert "commit" in refused.stderr


def test_what_a_commit_holds():
    head = code.clean_commit()
    if head is None:
        pytest.skip("no git, or a checkout in the middle of a change")
    home = published.BUILT_IN
    assert "table2" in code.text_at(head, home / "table2.yaml")
    assert code.text_at(head, home / "no such file") == ""
    assert code.text_at("f" * 40, home / "table2.yaml") is None
    assert code.text_at(head, ROOT.parent / "elsewhere") is None


def test_a_run_of_before_the_file_moved_came_after_the_locks_that_its_commit_holds():
    """Runs name the commits that they ran by; older ones have the locks in tables/."""
    log = subprocess.run(
        ["git", "-C", str(ROOT), "log", "--format=%H", "--", "tables/locks.jsonl"], capture_output=True, text=True
    )
    commits = log.stdout.split()
    if log.returncode or not code.history_is_whole():
        pytest.skip("no git, or a clone of the last commits alone")
    book, before = locks.read(TABLES), [f"{commits[-1]}~1", *reversed(commits)]
    held = []
    for commit in before:
        record = SimpleNamespace(code=SimpleNamespace(commit=commit))
        held.append([locks._holds(record, book, number) for number in range(len(book.locks))].count(True))
    assert held[:3] == [0, 1, 2]
    assert held == sorted(held), "a lock is never taken out again"


def test_committed_tables_name_a_lock_that_exists_or_say_that_there_is_none():
    known = {lock.name for lock in locks.read(TABLES).locks}
    for path in TABLES.glob("*/**/*.json"):
        notes = " ".join(json.loads(path.read_text())["notes"])
        if SPECS[path.stem].tolerance is None:
            continue  # nothing in it is judged
        named = [name for name in known if name in notes]
        assert named or "not locked" in notes, path
        assert notes.count("the lock of ") == sum(notes.count(name) for name in named), path
