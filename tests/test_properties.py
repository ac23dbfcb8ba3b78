"""Properties over drawn sequences and records: the claim protocol as a state machine, and readers of what lies on disk.

PROPERTIES=50 draws fifty times as many (`make test-faults`). An input that found something is kept in tests/corpus."""

import contextlib
import json
import os
import shutil
import tempfile
from pathlib import Path

import pytest

pytest.importorskip("hypothesis", reason='hypothesis is not installed: pip install -c constraints.txt ".[test]"')

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, precondition, rule

from benchmark.errors import UserError
from benchmark.matrix import grid
from benchmark.store import claim as claim_module
from benchmark.store import run as run_module
from benchmark.store import verify
from benchmark.store.files import write_json
from benchmark.store.records import RECORDS, Failure, Result
from benchmark.store.run import STATES, Claimed, Run

TIMES = int(os.environ.get("PROPERTIES", "1"))
CORPUS = Path(__file__).parent / "corpus"
JOB = grid.load("voc").jobs("mini", {"seed": 0})[0]
QUIET = settings(
    deadline=None, database=None, derandomize=TIMES == 1, max_examples=25 * TIMES,
    suppress_health_check=list(HealthCheck),
)  # fmt: skip


class Claims(RuleBasedStateMachine):
    """Several holders take, keep, lose and leave one run; a process that dies leaves its claim where it is."""

    held = Bundle("held")

    def __init__(self) -> None:
        super().__init__()
        self.place = tempfile.mkdtemp()
        self.run = run_module.submit(Path(self.place), JOB)
        self.holders, self.stack = 0, contextlib.ExitStack()
        self.dead = self.done = self.failed = False

    @rule(target=held)
    def take(self):
        stack = contextlib.ExitStack()
        try:
            stack.enter_context(self.run.claim())
        except Claimed:
            assert self.holders or self.done, "a free run was refused"
            return None
        assert not self.holders, "two hold one run"
        assert not self.done, "a finished run was taken"
        self.holders, self.dead, self.stack = 1, False, stack
        return stack

    @rule(holder=consumes(held), how=st.sampled_from(["leave", "finish", "fail"]))
    def end(self, holder, how):
        if holder is None:
            return
        if how == "finish":
            self.run.write(Result(job=self.run.id))
            self.done = True
        elif how == "fail":
            self.run.write(Failure(kind="crash", error="drawn"))
            self.failed = True
        holder.close()
        self.holders = 0

    @precondition(lambda self: not self.holders and not self.done)
    @rule(start=st.sampled_from(["1", None]), pid=st.sampled_from([2**22 + 1, os.getpid()]))
    def crash(self, start, pid):
        """A claim of a process that is gone, or whose number another one has by now."""
        host = claim_module.this_host()
        write_json(self.run.path("claim.json"), {"host": host, "pid": pid, "process_start": start, "started": 1.0})
        self.dead = True

    @precondition(lambda self: not self.holders and not self.done)
    @rule(content=st.binary(max_size=30))
    def cut_short(self, content):
        self.run.path("claim.json").write_bytes(content)
        self.dead = True

    @invariant()
    def state_follows(self):
        state = self.run.state()
        if self.done:
            assert state == "done"
        elif self.holders:
            assert state == "running"
        elif self.dead:
            assert state == "stale"
        else:
            assert state == ("failed" if self.failed else "pending")

    def teardown(self):
        self.stack.close()  # who holds a claim that disappears ends its process
        shutil.rmtree(self.place)


class TestClaims(Claims.TestCase):
    settings = settings(QUIET, max_examples=15 * TIMES, stateful_step_count=12)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.integers(10**300, 10**310) | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
KNOWN = sorted({name for kind in RECORDS.values() for name in (*kind.model_fields, "schema")})
RECORD = st.dictionaries(st.sampled_from(KNOWN), VALUES, max_size=5) | VALUES


def _look(run: Run) -> None:
    """Every reader: a value, nothing, or one line; and a state that has a name."""
    assert run.state() in STATES
    for read in (run.result, run.environment, run.failure, run.progress, run.submission, run.metrics, run.job):
        with contextlib.suppress(UserError):
            read()
    with contextlib.suppress(UserError):
        verify.checked(run, None)
    run.holder()


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Run:
    return run_module.submit(tmp_path_factory.mktemp("runs"), JOB)


@pytest.mark.parametrize("name", RECORDS)
@QUIET
@given(record=RECORD)
def test_any_json_is_read_or_refused_in_one_line(name, run, record):
    run.path(name).write_text(json.dumps(record))
    try:
        _look(run)
    finally:
        run.path(name).unlink()


@pytest.mark.parametrize("path", sorted(CORPUS.iterdir()), ids=lambda path: path.name)
def test_what_once_found_something_is_read_or_refused(path, tmp_path):
    """A file's name: the record's, then what it did."""
    run = run_module.submit(tmp_path, JOB)
    shutil.copy(path, run.path(path.name.partition("--")[0]))
    _look(run)
