"""Claims, states and records, under crashes that really happen."""

import errno
import itertools
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from benchmark.errors import UserError
from benchmark.store import claim as claim_module
from benchmark.store import run as run_module
from benchmark.store.files import write_json
from benchmark.store.records import Epoch, Result
from benchmark.store.run import Claimed, Run


@pytest.fixture
def run(tmp_path, make_job) -> Run:
    return run_module.submit(tmp_path / "runs", make_job())


def _hold(folder, seconds):
    with Run(folder).claim():
        print("held", flush=True)
        time.sleep(seconds)


def _holder(folder) -> subprocess.Popen:
    code = f"from tests.test_store import _hold; from pathlib import Path; _hold(Path({str(folder)!r}), 60)"
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    return process


def test_states_are_read_from_files(run):
    assert run.state() == "pending"
    with run.claim():
        assert run.state() == "running"
    assert run.state() == "pending"
    write_json(run.path("failure.json"), {"kind": "crash"})
    assert run.state() == "failed"
    write_json(run.path("failure.json"), {"kind": "diverged"})
    assert run.state() == "diverged"
    run.write(Result(job=run.id))
    assert run.state() == "done"


def test_a_live_claim_keeps_others_out(run):
    process = _holder(run.folder)
    try:
        assert run.state() == "running"
        with pytest.raises(Claimed), run.claim():
            pass
    finally:
        process.kill()
        process.communicate()


def test_kill_leaves_a_stale_claim_that_the_next_takes_over(run):
    process = _holder(run.folder)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert run.state() == "stale"
    with run.claim():
        assert json.loads(run.path("claim.json").read_text())["pid"] == os.getpid()


def test_reused_process_number_is_not_the_old_process(run):
    claim = {"host": claim_module.this_host(), "pid": os.getpid(), "process_start": "1", "started": 0}
    write_json(run.path("claim.json"), claim)
    assert run.state() == "stale"


ELSEWHERE = {"host": "elsewhere", "pid": 1, "process_start": "1", "started": 0}


def _claimed_elsewhere(run, seconds_ago: float) -> None:
    write_json(run.path("claim.json"), ELSEWHERE)
    then = time.time() - seconds_ago
    os.utime(run.path("claim.json"), (then, then))


@pytest.mark.parametrize(
    ("seconds_ago", "state"),
    [(0, "running"), (60, "running"), (-60, "running"), (600, "stale"), (-600, "stale"), (-1e6, "stale")],
)
def test_another_host_s_claim_looks_stale_far_from_this_clock(run, seconds_ago, state):
    """On either side: the other clock may be ahead, and this one may have been set back."""
    _claimed_elsewhere(run, seconds_ago)
    assert run.state() == state


@pytest.mark.parametrize("seconds_ago", [600, -600])
def test_a_host_that_is_gone_is_succeeded_after_watching(run, monkeypatch, seconds_ago):
    monkeypatch.setattr(claim_module, "WATCH_SECONDS", 0.2)
    _claimed_elsewhere(run, seconds_ago)
    began = time.monotonic()
    with run.claim():
        assert time.monotonic() - began >= 0.2
        assert json.loads(run.path("claim.json").read_text())["pid"] == os.getpid()


@pytest.mark.parametrize("jump", [-1e6, 1e6])
def test_a_clock_that_jumped_evicts_no_live_host(run, monkeypatch, jump):
    """The other host's clock differs by days, so its claim looks stale; but it is touched again and again."""
    monkeypatch.setattr(claim_module, "WATCH_SECONDS", 5.0)
    _claimed_elsewhere(run, jump)
    stop = threading.Event()

    def beat():
        ticks = itertools.count()
        while not stop.wait(0.05):
            os.utime(run.path("claim.json"), (time.time() - jump + next(ticks),) * 2)

    beating = threading.Thread(target=beat)
    beating.start()
    try:
        assert run.state() == "stale"
        with pytest.raises(Claimed), run.claim():
            pass
    finally:
        stop.set()
        beating.join()
    assert json.loads(run.path("claim.json").read_text()) == ELSEWHERE


@pytest.mark.parametrize("jump", [-1e6, 1e6])
def test_a_clock_that_jumps_does_not_matter_on_one_host(run, monkeypatch, jump):
    process = _holder(run.folder)
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + jump)
    try:
        assert run.state() == "running"
    finally:
        process.kill()
        process.communicate()
    assert run.state() == "stale"


def test_a_live_claim_is_touched(run, monkeypatch):
    monkeypatch.setattr(claim_module, "BEAT_SECONDS", 0.02)
    with run.claim():
        os.utime(run.path("claim.json"), (0, 0))
        deadline = time.monotonic() + 20
        while run.path("claim.json").stat().st_mtime == 0:
            assert time.monotonic() < deadline, "never touched"
            time.sleep(0.01)


@pytest.mark.parametrize("taken", ["by another host", "away"])
def test_a_process_whose_claim_was_taken_ends_itself(run, taken):
    """It was frozen for so long that it was taken for dead; awake again, it must not write beside its successor."""
    code = (
        "from benchmark.store import claim as claim_module; claim_module.BEAT_SECONDS = 0.05\n"
        f"from tests.test_store import _hold; from pathlib import Path; _hold(Path({str(run.folder)!r}), 60)"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    if taken == "away":
        run.path("claim.json").unlink()
    else:
        write_json(run.path("claim.json"), ELSEWHERE)
    process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL
    assert run.path("claim.json").exists() == (taken != "away"), "the successor's claim stays"


def test_another_container_s_process_numbers_are_not_ours(run):
    """Two containers can share name and boot; only the numbering of their processes tells them apart."""
    name, _, _ = claim_module.this_host().rpartition(" ")
    elsewhere = ELSEWHERE | {"host": f"{name} pid:[1]", "pid": 2**22 + 1}
    write_json(run.path("claim.json"), elsewhere)
    assert run.state() == "running"


@pytest.mark.parametrize("content", [b"", b'{"host": ', b"[]"])
def test_a_claim_cut_short_is_stale_and_left_for_the_next(run, content):
    run.path("claim.json").write_bytes(content)
    assert run.state() == "stale"
    assert run.path("claim.json").read_bytes() == content, "looking changes nothing"
    with run.claim():
        assert run.state() == "running"


def test_what_a_killed_writer_left_is_removed(run):
    for name in (".result.json.123.tmp", "checkpoint.123.tmp"):
        run.path(name).write_bytes(b"half")
    with run.claim():
        assert list(run.folder.glob("*.tmp")) == []


def test_done_run_cannot_be_claimed(run):
    run.write(Result(job=run.id))
    with pytest.raises(Claimed), run.claim():
        pass


def _race(folder, start, winners):
    start.wait()
    try:
        with Run(folder).claim():
            winners.put(os.getpid())
            time.sleep(0.3)
    except Claimed:
        pass


@pytest.mark.parametrize("stale", [False, True])
def test_of_eight_processes_one_gets_the_claim(run, stale):
    if stale:
        write_json(run.path("claim.json"), {"host": claim_module.this_host(), "pid": 2**22 + 1, "process_start": "1"})
    context = multiprocessing.get_context("fork")
    start, winners = context.Event(), context.Queue()
    racers = [context.Process(target=_race, args=(run.folder, start, winners)) for _ in range(8)]
    for racer in racers:
        racer.start()
    time.sleep(0.2)
    start.set()
    for racer in racers:
        racer.join()
    assert winners.qsize() == 1


CORRUPT = [
    b"", b'{"a": ', b"\xff\xfe", b"[1]", b'{"a": NaN}', b"[" * 100_000, b'{"job": 1, "kind": 2, "epoch": "x"}',
    b'{"job": "another"}', b'{"schema": 2}', b'{"job": "a", "seconds": 1e999}',
    b'{"job": "a", "epoch": 1' + b"0" * 5000 + b"}",
]  # fmt: skip


@pytest.mark.parametrize("name", ["result.json", "failure.json"])
@pytest.mark.parametrize("content", CORRUPT)
def test_corrupt_record_is_named_and_left_to_the_claim(run, name, content):
    """Reading changes nothing; who runs the job anew sets it aside, and loses nothing of it."""
    run.path(name).write_bytes(content)
    with pytest.raises(UserError, match=f"{name}: corrupt record"):
        run.result() if name == "result.json" else run.failure()
    assert run.state() == "corrupt"
    assert run.path(name).read_bytes() == content
    with run.claim():
        assert run.state() == "running"
    assert not run.path(name).exists()
    assert next(run.folder.glob(f"{name}.corrupt-*")).read_bytes() == content
    assert run.state() == "pending"


@pytest.mark.parametrize("content", CORRUPT)
def test_a_job_that_is_none_is_named_and_written_anew(run, make_job, content):
    run.path("job.json").write_bytes(content)
    with pytest.raises(UserError, match=r"job.json: (corrupt record|not a job)"):
        run.job()
    assert run.path("job.json").read_bytes() == content
    again = run_module.submit(run.folder.parents[1], make_job())
    assert again.job() == make_job()
    assert next(run.folder.glob("job.json.corrupt-*")).read_bytes() == content


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda path: os.symlink(path.name, path)])
@pytest.mark.parametrize("name", ["result.json", "failure.json", "environment.json", "metrics.jsonl", "claim.json"])
def test_what_is_no_file_neither_hangs_nor_counts(run, name, make):
    make(run.path(name))
    read = {"environment.json": run.environment, "metrics.jsonl": run.metrics}.get(name, run.state)
    if read == run.state:
        assert read() in ("corrupt", "stale", "pending")
    else:
        with pytest.raises(UserError, match=name):
            read()


def test_job_of_another_folder_is_an_error(run, make_job):
    write_json(run.path("job.json"), make_job(seed=1).model_dump(mode="json", exclude_none=True))
    with pytest.raises(UserError, match="not the folder's"):
        run.job()


def test_job_survives_its_record(run, make_job):
    assert run.job() == make_job()


def test_half_a_line_of_metrics_is_left_out(run):
    run.write_metrics([{"epoch": 1}, {"epoch": 2}])
    with open(run.path("metrics.jsonl"), "a") as file:
        file.write('{"epo')
    assert [epoch.epoch for epoch in run.metrics()] == [1, 2]


@pytest.mark.parametrize("line", [b"5", b"null", b'{"epoch": "2"}', b'{"epoch": NaN}', b"\xff", b"[" * 100_000])
def test_lines_that_are_no_epoch_are_left_out(run, line):
    run.path("metrics.jsonl").write_bytes(b'{"epoch": 1}\n' + line + b"\n")
    assert run.metrics() == [Epoch(epoch=1)]


@pytest.mark.parametrize(
    ("code", "message"), [(errno.ENOSPC, "free some space"), (errno.EROFS, "read-only"), (errno.EACCES, "permissions")]
)
def test_failed_write_keeps_the_old_file(run, monkeypatch, code, message):
    path = run.path("result.json")
    write_json(path, {"old": 1})

    def full(*_):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match=message):
        write_json(path, {"new": 2})
    monkeypatch.undo()
    assert json.loads(path.read_text()) == {"old": 1}
    assert [p.name for p in run.folder.glob(".*tmp")] == []


def test_no_record_holds_nan(run):
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(run.path("result.json"), {"loss": float("nan")})


def test_a_finished_run_is_read_once(run, monkeypatch):
    """A scheduler looks at 10,000 runs twice a second: a second look costs a look at the name, not at the content."""
    run.write(Result(job=run.id))
    assert run.state() == "done"
    with monkeypatch.context() as patched:
        patched.setattr(run_module, "read_regular", lambda path: pytest.fail(f"{path} was read"))
        assert run.state() == "done"
    run.path("result.json").write_text("{}")
    assert run.state() == "corrupt"


@pytest.mark.parametrize(("umask", "mode"), [(0o000, 0o664), (0o022, 0o644), (0o077, 0o600)])
def test_files_follow_the_umask_and_not_all_may_write_them(umask, mode, call, tmp_path, make_job):
    before = os.umask(umask)
    try:
        submitted = run_module.submit(tmp_path / "runs", make_job())
        ended = call(tmp_path, "plan", "--grid", "voc", "--scale", "mini")
        assert ended.returncode == 0, ended.stderr
        write_json(tmp_path / "after.json", {})
        assert (tmp_path / "after.json").stat().st_mode & 0o777 == mode
        assert submitted.state() == "pending"
    finally:
        os.umask(before)
