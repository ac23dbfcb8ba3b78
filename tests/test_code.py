"""A run is stale when what trains has changed, and only then: moves, names and comments do not count."""

import subprocess

import pytest

from benchmark.evidence import explain
from benchmark.store import code
from benchmark.store.records import Code

LOOP = '''"""The loop."""
from benchmark.methods import losses
from benchmark.store.run import Run


def open_splits(job):
    return job


def start(job):
    return job


def train_and_test(run: Run, job):
    """Trains."""
    total = losses.loss(job) + RATE  # a comment
    run.write(total)
    return total


RATE = 0.1
'''
LOSSES = """\
def loss(job):
    scaled = 2 * job
    if job:
        scaled += 1
    return scaled


def unused():
    return 1
"""
RUN = "class Run:\n    def write(self, x):\n        self.x = x\n"
FILES = {"train/loop.py": LOOP, "methods/losses.py": LOSSES, "store/run.py": RUN, "tables/render.py": "WIDTH = 3\n"}


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """write(files) lays out and commits a package of these files; it returns the commit."""
    folder = tmp_path / "checkout"
    git = ["git", "-C", str(folder), "-c", "user.name=t", "-c", "user.email=t@t"]

    def write(files: dict[str, str]) -> str:
        subprocess.run(["rm", "-rf", str(folder / "benchmark")], check=True)
        for name, text in files.items():
            path = folder / "benchmark" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        for words in (["init", "-q"], ["add", "-A"], ["commit", "-qm", "x", "--allow-empty"]):
            subprocess.run([*git, *words], check=True)
        code.training_now.cache_clear()
        return subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout.strip()

    monkeypatch.setattr(code, "ROOT", folder)
    yield write
    code.training_now.cache_clear()
    code.training_at.cache_clear()


def changed(*edits: tuple[str, str, str]) -> dict[str, str]:
    files = dict(FILES)
    for name, before, after in edits:
        assert before in files[name]
        files[name] = files[name].replace(before, after)
    return files


@pytest.mark.parametrize(
    ("edits", "stale"),
    [
        ([("train/loop.py", "0.1", "0.2")], ["RATE"]),
        ([("methods/losses.py", "2 * job", "3 * job")], ["loss"]),
        ([("train/loop.py", "return job\n\n\ndef start", "return 2 * job\n\n\ndef start")], ["open_splits"]),
        ([("methods/losses.py", "return 1", "return 2")], []),
        ([("tables/render.py", "3", "4")], []),
        ([("store/run.py", "self.x = x", "self.x = [x]")], []),
        ([("train/loop.py", "  # a comment", ""), ("train/loop.py", "Trains.", "Trains and tests.")], []),
        ([("train/loop.py", "run: Run, job", "run: Run, job: int"), ("train/loop.py", "total", "summed")], []),
        ([("methods/losses.py", "    scaled = 2", "    assert job is not None\n    scaled: float = 2")], []),
        ([("methods/losses.py", "        scaled += 1", "        assert unused() == 1\n        scaled += 1")], []),
    ],
)
def test_stale_is_what_trains(checkout, edits, stale):
    before = checkout(FILES)
    after = checkout(changed(*edits))
    assert code.changed_since(before) == stale
    assert code.same_training(before, after) == (not stale)
    assert explain.code_state(Code(version="1", commit=before)).startswith(
        "stale: changed since are" if stale else "current"
    )


def test_a_file_that_moves_makes_no_run_stale(checkout):
    flat = {"train.py": LOOP.replace("benchmark.methods", "benchmark").replace("store.run", "store")}
    before = checkout(flat | {"losses.py": LOSSES, "store.py": RUN})
    checkout(FILES)
    assert code.changed_since(before) == []


def test_a_function_that_moves_to_another_file_makes_no_run_stale(checkout):
    before = checkout(FILES)
    moved = LOOP.replace("from benchmark.methods import losses", "from benchmark.methods.loss import loss")
    rest = {name: text for name, text in FILES.items() if name != "methods/losses.py"}
    checkout(rest | {"methods/loss.py": LOSSES, "train/loop.py": moved.replace("losses.loss(", "loss(")})
    assert code.changed_since(before) == []


METHOD = "def {0}(*batch):\n    from benchmark.methods.losses import {1}\n    return {1}(*batch)\n\n\n"


def test_a_method_that_is_added_makes_no_other_stale_and_one_that_changes_does(checkout):
    one = {"methods/__init__.py": METHOD.format("_a", "loss") + 'METHODS = {"a": _a}\n'}
    two = METHOD.format("_a", "loss") + METHOD.format("_b", "unused") + 'METHODS = {"a": _a, "b": _b}\n'
    before = checkout(FILES | one)
    after = checkout(FILES | {"methods/__init__.py": two})
    assert code.changed_since(before) == []
    digests = Code(version="1", commit=before, training="x"), Code(version="1", commit=after, training="y")
    assert code.same_code(*digests)
    checkout(FILES | {"methods/__init__.py": two, "methods/losses.py": LOSSES.replace("return 1", "return 2")})
    assert code.changed_since(after) == ["unused"]
    assert code.changed_since(before) == []


def test_digests_that_differ_are_other_code_where_git_cannot_tell(checkout):
    commit = checkout(FILES)
    known = Code(version="1", commit=commit, training="x")
    assert code.same_code(known, known) is True
    for other in (Code(version="1", training="y"), Code(version="1", commit=commit, dirty=True, training="y")):
        assert code.same_code(known, other) is False
    assert code.same_code(known, Code(version="1")) is None


def test_code_that_cannot_be_known(checkout):
    commit = checkout(FILES)
    assert "not in this checkout" in explain.code_state(Code(version="1", commit="0" * 40))
    assert code.same_training(commit, "0" * 40) is None
    assert "names no commit" in explain.code_state(Code(version="1"))
    dirty = explain.code_state(Code(version="1", commit=commit, dirty=True))
    assert "uncommitted changes, so 'verify' and 'import' do not take it" in dirty


def test_the_suite_s_own_training_code_is_found():
    """What decides the numbers is reached; what lists, tabulates or keeps records is not."""
    reached = code.training_now().keys()
    assert {"learning_rate", "predict", "Step", "icasc", "soft_mask", "Draws", "read_warped", "summary"} <= reached
    assert not {"Run", "write_json", "Job", "explain", "markdown", "execute"} & reached


@pytest.mark.parametrize("ran", [None, Code(version="1")])
def test_explain_says_which_runs_others_do_not_take(ran):
    run = {"id": "x", "seed": 0, "state": "done", "value": 1.0, "commit": None, "code": explain.code_state(ran)}
    told = "    code unknown: the run names no commit, so 'verify' and 'import' do not take it"
    assert told in explain._run_lines(run)
    assert told not in explain._run_lines(run | {"state": "pending", "value": None})


@pytest.fixture
def asked_of(monkeypatch):
    """asked_of(root): `why_unknown` of a suite that lies there."""

    def asked(root) -> str:
        monkeypatch.setattr(code, "ROOT", root)
        code._has_a_repository.cache_clear()
        said = code.why_unknown()
        assert len(said.splitlines()) <= 1
        return said

    yield asked
    code._has_a_repository.cache_clear()


def test_runs_of_code_that_nobody_could_look_up_are_told_why(checkout, asked_of, tmp_path, monkeypatch):
    commit, root = checkout(FILES), tmp_path / "checkout"
    assert asked_of(root) == ""
    (root / "notes.txt").write_text("no code")
    assert asked_of(root) == ""
    (root / "benchmark" / "train" / "loop.py").write_text("x = 1\n")
    assert f"the code differs from commit {commit[:12]} (benchmark/train/loop.py): commit" in asked_of(root)
    (root / "benchmark" / "new.py").write_text("x = 1\n")
    assert "(benchmark/train/loop.py and 1 more)" in asked_of(root)
    monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")
    assert asked_of(root).startswith(f"git does not read {root}, which belongs to another user, so ")
    assert asked_of(root).endswith(f": git config --global --add safe.directory {root}")
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    assert asked_of(root).startswith("git is not on PATH")


@pytest.mark.parametrize("inside", [False, True], ids=["an archive", "inside another repository"])
def test_a_suite_without_a_repository_of_its_own_is_told(checkout, asked_of, tmp_path, inside):
    if inside:
        checkout({"../other.py": "x = 1\n"})
    downloaded = tmp_path / "checkout" / "icasc-main"
    (downloaded / "benchmark").mkdir(parents=True)
    (downloaded / "benchmark" / "loop.py").write_text(LOOP)
    assert f"{downloaded} is no git clone of the suite" in asked_of(downloaded)


def test_a_repository_without_a_commit_is_told(asked_of, tmp_path):
    (tmp_path / "benchmark").mkdir()
    (tmp_path / "benchmark" / "loop.py").write_text(LOOP)
    for words in (["init", "-q"], ["add", "-A"]):
        subprocess.run(["git", "-C", str(tmp_path), *words], check=True)
    assert "has no commit yet" in asked_of(tmp_path)
