"""The local scheduler with stand-in workers: which slot, how often, how long; what is repeated and what never is."""

import json
import os
import subprocess
import sys
import time
from collections import Counter
from threading import Thread

import pytest
import torch

from benchmark.errors import UserError
from benchmark.executors import local, view
from benchmark.executors.local import Slots
from benchmark.executors.outcome import Again, How, Outcome
from benchmark.store import claim as claim_module
from benchmark.store import run as run_module
from benchmark.store.files import write_json
from benchmark.store.run import Run
from benchmark.train import recording

# A worker that claims its run and then does what `script.json` in the run folder says for this attempt. It never
# imports torch, so a whole schedule takes a second.
WORKER = """
import json, os, signal, subprocess, sys, time
from pathlib import Path
from benchmark.store import claim as claim_module
from benchmark.store import run as run_module
from benchmark.store.files import write_json
run = run_module.Run(Path(sys.argv[1]))
count = run.path("attempts.txt")
done = count.read_text().splitlines() if count.exists() else []
gpu = os.environ.get("CUDA_VISIBLE_DEVICES", "")
count.write_text("\\n".join([*done, gpu]) + "\\n")
steps = json.loads(run.path("script.json").read_text())
step = steps[min(len(done), len(steps) - 1)]
try:
    with run.claim():
        run.path("failure.json").unlink(missing_ok=True)
        run.path("began").write_text(str(time.monotonic()))
        with open(run.path("held"), "a") as file:
            print("held", file=file)
        time.sleep(step.get("seconds", 0))
        if "child" in step:
            child = subprocess.Popen(["sleep", "600"])
            run.path("child").write_text(str(child.pid))
        if "epoch" in step:
            run.write_metrics([{"epoch": k + 1} for k in range(step["epoch"])])
        if "hang" in step:
            os.kill(os.getpid(), signal.SIGSTOP)
        if "signal" in step:
            os.kill(os.getpid(), step["signal"])
        if "kind" in step:
            write_json(run.path("failure.json"), {"kind": step["kind"], "error": "as told"})
            sys.exit(1)
        if "status" in step:
            sys.exit(step["status"])
        run.path("ended").write_text(str(time.monotonic()))
        write_json(run.path("result.json"), {"job": run.id})
except claim_module.Claimed:
    sys.exit(3)
"""


@pytest.fixture(autouse=True)
def stand_in(tmp_path, monkeypatch):
    (tmp_path / "worker.py").write_text(WORKER)
    monkeypatch.setattr(local, "RUN_JOB", (sys.executable, str(tmp_path / "worker.py")))
    monkeypatch.setattr(local, "BACKOFF_SECONDS", 0.01)
    monkeypatch.setattr(local, "GRACE_SECONDS", 1.0)
    monkeypatch.setattr(local, "POLL_SECONDS", 0.02)
    monkeypatch.setenv("PYTHONPATH", os.getcwd())
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


@pytest.fixture
def submit(tmp_path, make_job):
    """submit(step, step, ...): a run whose first attempt does the first step, and so on; the last one repeats."""
    seeds = iter(range(100))

    def make(*steps: dict) -> Run:
        run = run_module.submit(tmp_path / "runs", make_job(seed=next(seeds)))
        run.path("script.json").write_text(json.dumps(steps or [{}]))
        return run

    return make


@pytest.fixture
def make_job(make_job):
    template = make_job()
    return lambda seed: template.model_copy(update={"seed": seed})


def execute(runs, slots=None) -> dict[str, str]:
    """What is printed of each job's outcome."""
    ended = local.execute(runs, ["--device", "cpu"], slots or Slots(2, 1), lambda *_: None)
    return {job: str(outcome) for job, outcome in ended.items()}


def attempts(run) -> int:
    return len(run.path("attempts.txt").read_text().splitlines())


# Slots


def test_a_slot_per_gpu_and_job_and_the_gpus_by_turns(submit):
    slots = local.make_slots(100, None, ("0", "3"), jobs_per_gpu=2)
    assert (slots.workers, [slots.place(s) for s in range(4)]) == (4, ["GPU 0", "GPU 3", "GPU 0", "GPU 3"])
    runs = [submit({"seconds": 0.5}) for _ in range(4)]
    assert set(execute(runs, slots).values()) == {"done"}
    assert Counter(r.path("attempts.txt").read_text().strip() for r in runs) == {"0": 2, "3": 2}
    assert local.make_slots(1, None, ("0", "3"), 2).workers == 1
    assert local.make_slots(9, 5, ("0",), 2).workers == 5


def test_cores_are_shared_by_the_workers(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    assert [local.make_slots(n, None, ()).threads for n in (1, 2, 3, 8, 9)] == [8, 4, 2, 1, 1]
    assert local.make_slots(3, 16, ()).threads == 1


def test_worker_s_threads_are_capped_and_its_memory_kept(submit, monkeypatch, tmp_path):
    (tmp_path / "worker.py").write_text(
        "import os, sys; print(os.environ['OMP_NUM_THREADS'], os.environ['MALLOC_MMAP_MAX_'], sys.argv[2:]); "
        "sys.exit(9)"
    )
    run = submit()
    assert execute([run], Slots(1, 7))[run.id].startswith("ended with status 9 and no record")
    assert "7 0 ['--threads', '7', '--device', 'cpu']" in run.path("log.txt").read_text()


@pytest.mark.parametrize(
    ("text", "visible", "message"),
    [
        ("0,0", "0,1", "GPU 0 twice"),
        ("2", "0,1", "no GPU '2' here.*only 0, 1"),
        ("", "0", "no GPU ''"),
        ("0", "", "no GPU"),
    ],
)
def test_gpus_that_are_not_there_are_named(text, visible, message, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    with pytest.raises(UserError, match=message):
        local.named_gpus(text)


@pytest.fixture
def machine(monkeypatch, tmp_path):
    """machine(smi=2, torch=1): nvidia-smi lists so many GPUs (None: there is none), and torch can use so many."""

    def made(smi: int | None, torch: int, warning: str = "") -> None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        monkeypatch.setenv("PATH", str(tmp_path))
        if smi is not None:
            lines = "\n".join(f"GPU {i}: NVIDIA H100 (UUID: GPU-{i})" for i in range(smi))
            (tmp_path / "nvidia-smi").write_text(f"#!/bin/sh\necho '{lines}'\n")
            (tmp_path / "nvidia-smi").chmod(0o755)
        monkeypatch.setattr(local, "torch_has_cuda", lambda: True)
        said = f"echo 'GPUs: {torch} 2.13.0+cu130'; echo 'cuda.py:9: UserWarning: {warning}' >&2"
        monkeypatch.setattr(local, "COUNT_GPUS", ("/bin/sh", "-c", said))

    return made


def test_a_gpu_that_torch_cannot_use_is_refused_and_not_done_without(machine):
    machine(smi=1, torch=0, warning="The NVIDIA driver on your system is too old")
    for device in ("auto", "cuda"):
        with pytest.raises(UserError, match=r"GPU 0 is here, but torch can use none \(torch 2\.13.*too old\)"):
            local.find_gpus(device, None)
    assert local.find_gpus("cpu", None) == ()


def test_gpus_are_found_without_nvidia_smi(machine):
    """Else a worker a core would go to the same GPU."""
    machine(smi=None, torch=2)
    assert local.find_gpus("auto", None) == ("0", "1")


def test_the_gpus_that_are_named_count(machine):
    machine(smi=3, torch=1)
    assert local.find_gpus("auto", "2") == ("2",)
    with pytest.raises(UserError, match="GPU 0, 1, 2 are here, but torch can use 1"):
        local.find_gpus("auto", None)


def test_without_a_gpu_auto_is_the_cpu_and_cuda_is_refused(machine):
    machine(smi=None, torch=0)
    assert local.find_gpus("auto", None) == ()
    with pytest.raises(UserError, match="--device cuda: torch sees no CUDA device"):
        local.find_gpus("cuda", None)


def test_whether_torch_has_cuda_is_known_without_importing_it():
    assert local.torch_has_cuda() == (torch.version.cuda is not None)


def test_gpus_by_number_or_name(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,GPU-8d3f,1")
    assert local.named_gpus("1, GPU-8d3f") == ("1", "GPU-8d3f")


# What is repeated


@pytest.mark.parametrize(
    "step", [{"signal": 9}, {"signal": 11}, {"signal": 15}, {"status": 143}, {"kind": "lost_device"}]
)
def test_what_the_machine_did_is_repeated(step, submit):
    run = submit(step, {})
    assert execute([run]) == {run.id: "done"}
    assert attempts(run) == 2


@pytest.mark.parametrize("kind", ["crash", "input", "diverged"])
def test_what_the_job_did_is_not(kind, submit):
    run = submit({"kind": kind}, {})
    assert execute([run]) == {run.id: "diverged" if kind == "diverged" else "failed"}
    assert attempts(run) == 1


def test_repeating_ends_and_is_logged(submit):
    run, other = submit({"signal": 9}), submit()
    ended = execute([run, other])
    assert ended[run.id] == "killed by signal 9 (SIGKILL), 4 times; call again to resume"
    assert ended[other.id] == "done"
    assert attempts(run) == local.ATTEMPTS
    lines = [
        line.partition("Z ")[2] for line in run.path("log.txt").read_text().splitlines() if line.startswith("--- ")
    ]
    assert lines[0] == "attempt 1 on CPU"
    assert lines[1].startswith("killed by signal 9 (SIGKILL), after ")
    assert lines[6] == "attempt 4 on CPU"


def test_a_job_that_gets_on_is_not_given_up(submit):
    run = submit(*[{"signal": 9, "epoch": k} for k in range(1, 8)], {})
    assert execute([run]) == {run.id: "done"}
    assert attempts(run) == 8


def test_pauses_grow(submit, monkeypatch):
    said = []
    monkeypatch.setattr(local, "VIEW_SECONDS", 0.0)
    run = submit({"signal": 9})
    local.execute([run], [], Slots(1, 1), lambda runs, told: said.append(str(told.get(run.id, ""))))
    pauses = dict.fromkeys(text.rpartition("again in ")[2] for text in said if "again in" in text)
    assert list(pauses) == ["0.01 s", "0.04 s", "0.16 s"]


def test_out_of_memory_is_repeated_alone_on_its_gpu(submit):
    """Four jobs at once on two GPUs; the one that runs out of memory has its GPU to itself the second time."""
    greedy = submit({"kind": "out_of_memory", "seconds": 0.2}, {"seconds": 0.5})
    others = [submit({"seconds": 1.0}) for _ in range(6)]
    slots = local.make_slots(7, None, ("0", "1"), jobs_per_gpu=2)
    assert set(execute([greedy, *others], slots).values()) == {"done"}
    assert greedy.path("attempts.txt").read_text().splitlines() == ["0", "0"]

    def span(run):
        return tuple(float(run.path(name).read_text()) for name in ("began", "ended"))

    began, ended = span(greedy)
    for other in others:
        if other.path("attempts.txt").read_text().strip() == "0":
            assert span(other)[1] <= began or span(other)[0] >= ended


def test_out_of_memory_alone_is_a_failure(submit):
    run, twin = submit({"kind": "out_of_memory"}), submit({"kind": "out_of_memory"})
    assert execute([run, twin], Slots(2, 1, ("0",))) == {run.id: "failed", twin.id: "failed"}
    assert (attempts(run), attempts(twin)) == (2, 2)


def test_a_job_that_waits_to_be_alone_and_is_done_elsewhere_frees_its_gpu(submit):
    greedy, other, third = submit({"kind": "out_of_memory"}), submit({"seconds": 2.0}), submit()

    def done_elsewhere(runs, told):
        if isinstance(told.get(greedy.id), Again):
            write_json(greedy.path("result.json"), {"job": greedy.id})

    slots = Slots(2, 1, ("0",), deadline=time.time() + 20)
    ended = local.execute([greedy, other, third], [], slots, done_elsewhere)
    assert {job: outcome.how for job, outcome in ended.items()} == dict.fromkeys(ended, How.DONE)
    assert attempts(greedy) == 1


# How long


def test_a_hung_worker_is_killed_and_repeated(submit):
    run = submit({"hang": 1}, {})
    assert execute([run], Slots(1, 1, hang_timeout=1.0)) == {run.id: "done"}
    assert "hung: no progress for 1 s, killed" in run.path("log.txt").read_text()


def test_a_worker_that_says_how_far_it_is_does_not_hang(submit, tmp_path):
    (tmp_path / "worker.py").write_text(
        "import sys, time; from pathlib import Path\n"
        "from benchmark.store.files import write_json; from benchmark.store.run import Run\n"
        "run = Run(Path(sys.argv[1]))\n"
        "for k in range(8): run.path('progress.json').write_text('{}'); time.sleep(0.25)\n"
        "write_json(run.path('result.json'), {'job': run.id})\n"
    )
    run = submit()
    assert execute([run], Slots(1, 1, hang_timeout=1.0)) == {run.id: "done"}


def test_timeout_stops_an_attempt_and_is_not_repeated(submit):
    slow, quick = submit({"seconds": 60}), submit()
    ended = execute([slow, quick], Slots(2, 1, timeout=1.5))
    assert ended == {slow.id: "stopped after --timeout 1.5 s; call again to resume", quick.id: "done"}
    assert attempts(slow) == 1


def test_what_a_worker_started_ends_with_it(submit):
    run = submit({"child": 1, "signal": 9}, {})
    execute([run])
    child = int(run.path("child").read_text())
    deadline = time.monotonic() + 20
    while claim_module.process_start(child) is not None:
        assert time.monotonic() < deadline, "the child outlived its worker"
        time.sleep(0.02)


def test_interrupt_ends_every_group(submit):
    runs = [submit({"child": 1, "seconds": 0, "hang": 1}) for _ in range(2)]
    seen = []

    def view(*_):
        if all(run.path("child").exists() and run.path("child").read_text() for run in runs):
            seen.append(1)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        local.execute(runs, [], Slots(2, 1), view)
    assert seen
    for run in runs:
        assert run.state() == "stale"
        assert claim_module.process_start(int(run.path("child").read_text())) is None


def test_a_run_of_another_scheduler_is_waited_for(submit):
    run = submit({"seconds": 1.0})
    first = {}
    thread = Thread(target=lambda: first.update(execute([run])))
    thread.start()
    while not run.path("began").exists():
        time.sleep(0.01)
    assert execute([run]) == {run.id: "done"}
    thread.join()
    assert first == {run.id: "done"}
    assert attempts(run) == 1


@pytest.mark.parametrize("num_schedulers", [2, pytest.param(8, marks=pytest.mark.slow)])
def test_schedulers_share_one_folder(num_schedulers, submit):
    """All start at once, each with workers of its own; each job is held once, and all see every job done."""
    runs, ended = [submit({"seconds": 0.2}) for _ in range(5)], []
    schedulers = [Thread(target=lambda: ended.append(execute(runs))) for _ in range(num_schedulers)]
    for scheduler in schedulers:
        scheduler.start()
    for scheduler in schedulers:
        scheduler.join()
    assert ended == [dict.fromkeys((run.id for run in runs), "done")] * num_schedulers
    assert [run.path("held").read_text() for run in runs] == ["held\n"] * len(runs)


def test_a_worker_that_outlives_its_scheduler_is_named_and_can_be_stopped(submit, call, tmp_path):
    """As after kill -9 of the scheduler: nobody is left that would end it."""
    run = submit({"seconds": 600})
    worker = subprocess.Popen([*local.RUN_JOB, str(run.folder)], start_new_session=True)
    while not run.path("began").exists():
        time.sleep(0.01)
    listed = call(tmp_path, "status").stdout
    assert f"running, by process {worker.pid} on " in listed
    ended = call(tmp_path, "status", "--stop")
    assert worker.wait(20) == -15
    assert f"{run.id}: process {worker.pid} stopped" in ended.stderr
    assert "1 stale" in ended.stdout, "the stand-in does not release its claim as run-job does"


def _claim_from_elsewhere(run, touched):
    run_module.write_json(run.path("claim.json"), {"host": "alpha boot pid:[1]", "pid": 7, "started": 1.0})
    os.utime(run.path("claim.json"), (touched, touched))


def test_a_scheduler_with_a_wrong_clock_starts_nothing_while_another_host_touches_its_claim(submit, monkeypatch):
    """The claim looks stale, its holder's clock being days off; only when it is released does a worker run."""
    monkeypatch.setattr(claim_module, "WATCH_SECONDS", 1.0)
    run, told, began = submit({}), [], time.monotonic()

    def seen(runs, its):
        told.append(str(its.get(run.id, "")))
        if time.monotonic() - began < 4.0:
            assert not run.path("log.txt").exists(), "a worker was started"
            _claim_from_elsewhere(run, len(told))  # days ago, and a moment later each time
        elif not run.path("log.txt").exists():
            run.path("claim.json").unlink(missing_ok=True)

    monkeypatch.setattr(local, "VIEW_SECONDS", 0.0)
    _claim_from_elsewhere(run, 0)
    ended = local.execute([run], [], Slots(1, 1), seen)
    assert ended == {run.id: Outcome(How.DONE)}
    assert attempts(run) == 1
    assert "waiting for process 7 on alpha, which holds it" in told


def test_a_live_claim_is_waited_for_without_a_worker_and_its_holder_is_named_once(submit, capsys):
    run = submit({})
    _claim_from_elsewhere(run, time.time())
    slots = Slots(1, 1, deadline=time.time() + 2)
    with view.make_view() as shown:
        local.execute([run], [], slots, shown)
    assert not run.path("attempts.txt").exists()
    assert capsys.readouterr().out.splitlines() == [
        f"{run.id}: waiting for process 7 on alpha, which holds it",
        f"{run.id}: budget used",
    ]


# The kinds, as recording.py names them


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (recording.torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"), "out_of_memory"),
        (MemoryError(), "out_of_memory"),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried ..."), "out_of_memory"),
        (RuntimeError("CUDA error: uncorrectable ECC error encountered"), "lost_device"),
        (RuntimeError("CUDA error: CUDA-capable device(s) is/are busy or unavailable"), "lost_device"),
        (RuntimeError("CUDA error: device-side assert triggered"), "crash"),
        (ValueError("an unspecified launch failure, quoted"), "crash"),
        (UserError("the disk is full"), "input"),
        (recording.DivergedError("the loss is not a number"), "diverged"),
    ],
)
def test_kinds_of_failure(error, kind):
    assert recording.failure_kind(error) == kind


def test_torch_s_own_out_of_memory_is_known():
    with pytest.raises(RuntimeError) as caught:
        recording.torch.empty(2**60, dtype=recording.torch.uint8)
    assert recording.failure_kind(caught.value) == "out_of_memory"
