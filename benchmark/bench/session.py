"""The first minutes on a GPU, unattended. Each stage is a process with a time limit of its own, and each finding a line
of found.jsonl as soon as it is made: what a machine that goes away has shown stays. On a CPU it is a rehearsal."""

import json
import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from benchmark.bench import meter
from benchmark.bench.compare import replay_apart
from benchmark.bench.sides import random_batch, synchronize
from benchmark.data import loading
from benchmark.matrix.job import Job
from benchmark.methods import overlap
from benchmark.store import environment
from benchmark.train import loop
from benchmark.train.step import Step

Found = dict[str, Any]


@dataclass(frozen=True)
class Session:
    """Where, and how much of it. quick: the smallest network, tiny images, few repetitions."""

    out: Path
    device: torch.device
    quick: bool = False

    @property
    def on_gpu(self) -> bool:
        return self.device.type == "cuda"

    def kinds(self) -> dict[str, Job]:
        """The paper's jobs, those of Table 2 and CIFAR-100 first."""
        if self.quick:
            job = meter.paper_kinds()["voc2012 resnet18 icasc-a_ch"]
            small = {"backbone": "resnet18_narrow", "image_size": 32, "batch_size": 2}
            return {"voc2012 resnet18_narrow icasc-a_ch": job.model_copy(update=small)}
        first = ("voc2012", "cifar100")
        return dict(sorted(meter.paper_kinds().items(), key=lambda kind: kind[1].dataset not in first))


def _step(job: Job, session: Session, recorded: bool = False, device: str = "") -> Callable[[], Any]:
    """A step that leaves the weights alone, on a random batch."""
    job, on = job.model_copy(update={"weights": "scratch"}), torch.device(device or session.device)
    state = loop.start(
        job, meter.num_classes(job), loop.Execution(None, None, Path(), str(on), torch.get_num_threads())
    )
    its, batch = (
        Step(state.model.train(), state.optimizer, job, recorded),
        random_batch(job, meter.num_classes(job), job.batch_size, on),
    )
    return lambda: its(*batch, job.warmup_epochs or 0, 0.0)


def _milliseconds(call: Callable[[], Any], session: Session, count: int = 15) -> float:
    """The median of `count` calls after five; on a GPU by its own events."""
    count, spent = 2 if session.quick else count, []
    for _ in range(1 if session.quick else 5):
        call()
    for _ in range(count):
        if session.on_gpu:
            began, ended = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            began.record()
            call()
            ended.record()
            synchronize(session.device)
            spent.append(began.elapsed_time(ended))
        else:
            started = time.perf_counter()
            call()
            spent.append(1e3 * (time.perf_counter() - started))
    return round(statistics.median(spent), 3)


def machine(session: Session) -> Iterator[Found]:
    """What it is, and how fast a matrix product and a copy are: the roofline's real ceilings."""
    yield environment.describe() | {"driver": environment.nvidia_driver(), "cuda": torch.version.cuda}
    if session.on_gpu:
        yield {"gpu": str(torch.cuda.get_device_properties(session.device)), "cudnn": torch.backends.cudnn.version()}
    num = 64 if session.quick else 8192
    for precision, dtype in (("bfloat16", torch.bfloat16), ("tf32", torch.float32), ("float32", torch.float32)):
        torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
        a, b = (torch.randn(num, num, dtype=dtype, device=session.device) for _ in range(2))
        yield {"ceiling": precision, "tflops": 2 * num**3 / 1e9 / _milliseconds(lambda a=a, b=b: a @ b, session)}  # type: ignore[misc]
    source = torch.randn(2**10 if session.quick else 2**28, device=session.device)
    target = torch.empty_like(source)
    milliseconds = _milliseconds(lambda: target.copy_(source), session)
    yield {"ceiling": "copy", "gb_per_second": 2 * source.nbytes / 1e6 / milliseconds}


def tests(session: Session) -> Iterator[Found]:
    """make test-gpu's."""
    command = [sys.executable, "-m", "pytest", "-m", "gpu", "-q", *(["--collect-only"] if session.quick else [])]
    ended = subprocess.run(command, capture_output=True, text=True)
    print(ended.stdout, ended.stderr)
    lines = ended.stdout.strip().splitlines()
    yield {"tests": lines[-1] if lines else "", "failed": [line for line in lines if line.startswith("FAILED")]}


def stalls(session: Session) -> Iterator[Found]:
    """Operations of a step that make the host wait are errors here."""
    for name, job in session.kinds().items():
        step = _step(job, session)
        step()
        with _no_waiting(session):
            yield {"stalls": name, "error": _error(step)}


@contextmanager
def _no_waiting(session: Session) -> Iterator[None]:
    if session.on_gpu:
        torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        if session.on_gpu:
            torch.cuda.set_sync_debug_mode("default")


def _error(call: Callable[[], Any]) -> str:
    try:
        call()
    except Exception as error:  # a finding, whatever it is
        return f"{type(error).__name__}: {str(error)[:300]}"
    return ""


def replays(session: Session) -> Iterator[Found]:
    """A recorded step's update against the eager one's, from the same state each."""
    for name, job in session.kinds().items():
        for precision in ("float32", "bfloat16"):
            if job.backbone != "vgg19":  # its dropout would be drawn twice
                its = job.model_copy(update={"precision": precision, "weights": "scratch"})
                apart = replay_apart(its, session.device, meter.num_classes(job), job.batch_size)
                yield {"replay": name, "precision": precision, "apart": apart}


def times(session: Session) -> Iterator[Found]:
    """Step times beside the meter's, and peak memory."""
    for precision, recorded in (
        ("float32", False),
        ("float32", True),
        ("bfloat16", True),
        ("bfloat16", False),
        ("tf32", True),
    ):
        for name, job in session.kinds().items():
            its = job.model_copy(update={"precision": precision})
            if session.on_gpu:
                torch.cuda.empty_cache()
                torch.cuda.reset_peak_memory_stats(session.device)
            milliseconds = _milliseconds(_step(its, session, recorded), session)
            peak = torch.cuda.max_memory_allocated(session.device) if session.on_gpu else None
            found = {"step": name, "precision": precision, "recorded": recorded, "milliseconds": milliseconds}
            yield found | {"peak_bytes": peak, "estimated_peak_bytes": meter.step(its).peak_bytes}


def kernels(session: Session) -> Iterator[Found]:
    """The longest, in top-NAME.txt."""
    activities = [torch.profiler.ProfilerActivity.CPU]
    activities += [torch.profiler.ProfilerActivity.CUDA] if session.on_gpu else []
    for name, job in session.kinds().items():
        step = _step(job, session)
        step()
        with torch.profiler.profile(activities=activities, record_shapes=True, acc_events=True) as profile:
            step()
            synchronize(session.device)
        by = "self_cuda_time_total" if session.on_gpu else "self_cpu_time_total"
        table = profile.key_averages(group_by_input_shape=True).table(sort_by=by, row_limit=40)
        (session.out / f"top-{name.replace(' ', '-')}.txt").write_text(table)
        yield {"kernels": name, "events": len(profile.events())}


def around(session: Session) -> Iterator[Found]:
    """Memory of the test's batch and of the maps' overlap."""
    for name, job in session.kinds().items():
        its, classes = job.model_copy(update={"weights": "scratch"}), meter.num_classes(job)
        execution = loop.Execution(None, None, Path(), str(session.device), torch.get_num_threads())
        model = loop.start(its, classes, execution).model.eval()
        size = 2 if session.quick else loop.test_batch(session.device, job.image_size)
        for what in ("test", "maps"):
            if session.on_gpu:
                torch.cuda.empty_cache()
                torch.cuda.reset_peak_memory_stats(session.device)
            num = size if what == "test" else min(size, overlap.HELD_OUT)
            images, labels = random_batch(its, classes, num, session.device)
            call = (
                partial(_without_gradients, model, images)
                if what == "test"
                else partial(overlap.measure, model, images, labels.cpu().numpy(), its)
            )
            error = _error(call)
            peak = torch.cuda.max_memory_allocated(session.device) if session.on_gpu else None
            yield {"around": name, "what": what, "error": error, "peak_bytes": peak}


@torch.no_grad()
def _without_gradients(model: torch.nn.Module, images: torch.Tensor) -> None:
    model(images)


def loader(session: Session) -> Iterator[Found]:
    """Pictures a second of ILSVRC's size, cropped at random, by one core and by all."""
    path, num = session.out / "photo.jpg", 8 if session.quick else 400
    rng = np.random.default_rng(0)
    coarse = Image.fromarray(rng.integers(0, 256, (24, 32, 3), np.uint8)).resize((500, 375), Image.Resampling.BICUBIC)
    noisy = np.asarray(coarse) + rng.normal(0, 12, (375, 500, 1))
    Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(path, quality=93)
    for threads in sorted({1, loading.num_threads()}):
        started = time.perf_counter()
        with ThreadPoolExecutor(threads) as pool:
            generators = (np.random.default_rng([0, i]) for i in range(num))
            list(pool.map(lambda rng: loading.read_random_resized_crop(path, 224, rng), generators))
        rate = num / (time.perf_counter() - started)
        yield {"loader": threads, "images_per_second": round(rate, 1), "bytes": path.stat().st_size}


def losses(session: Session) -> Iterator[Found]:
    """A step in float64 here and on the CPU: the same losses to 1e-9, or the GPU computes something else."""
    for name, job in session.kinds().items():
        its = job.model_copy(update={"precision": "float64", "batch_size": 2, "image_size": min(job.image_size, 64)})
        if job.backbone != "vgg19":
            ours, cpu = (_step(its, session, device=device)() for device in (str(session.device), "cpu"))
            yield {"losses": name, "apart": max(abs(float(ours[term]) - float(cpu[term])) for term in cpu)}


def jobs(session: Session) -> Iterator[Found]:
    """The command itself on drawn data: eager, recorded, and stopped by a budget and called again."""
    options = [
        "--grid",
        "voc",
        "--scale",
        "mini",
        "--only",
        "seed=0",
        "--tables",
        str(session.out / "tables"),
        "--device",
        session.device.type,
    ]
    options += [
        "--set",
        "limit_train=96",
        "--set",
        f"epochs={1 if session.quick else 4}",
        "--cache",
        str(session.out / "cache"),
    ]
    options += ["--only", "method=baseline"] if session.quick else []
    recorded = ["--cuda-graph"] if session.on_gpu else []
    for name, extra in (
        ("eager", []),
        ("recorded", recorded),
        ("stopped", [*recorded, "--budget", "10s"]),
        ("stopped", recorded),
    ):
        if session.quick and name != "eager":
            continue
        runs = session.out / "runs" / name
        command = [sys.executable, "-m", "benchmark", "run", *options, "--runs", str(runs), *extra]
        ended = subprocess.run(command, capture_output=True, text=True)
        print(ended.stdout, ended.stderr)
        failures = [json.loads(path.read_text())["error"][:300] for path in runs.rglob("failure.json")]
        yield {"jobs": name, "status": ended.returncode, "failures": failures}


# In the order of what they tell; seconds that each may take, ten minutes together.
STAGES: dict[str, tuple[Callable[[Session], Iterator[Found]], float]] = {
    "machine": (machine, 40), "tests": (tests, 100), "stalls": (stalls, 40), "replays": (replays, 60),
    "times": (times, 110), "losses": (losses, 40), "around": (around, 40), "kernels": (kernels, 40),
    "loader": (loader, 20), "jobs": (jobs, 110),
}  # fmt: skip


def run_stage(name: str, session: Session) -> None:
    for found in STAGES[name][0](session):
        _say(session, {"stage": name} | found)


def run(session: Session, command: list[str], stages: dict[str, float]) -> dict[str, str]:
    """All stages, each as `command NAME`; how each ended. What one printed is in NAME.log."""
    session.out.mkdir(parents=True, exist_ok=True)
    ends = {}
    for name, limit in stages.items():
        started = time.monotonic()
        with open(session.out / f"{name}.log", "wb") as log:
            process = subprocess.Popen([*command, name], stdout=log, stderr=log, start_new_session=True)
            try:
                ends[name] = f"status {process.wait(limit)}"
            except subprocess.TimeoutExpired:
                ends[name] = f"out of time after {limit:g} s"
            finally:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)  # and what it started
                process.wait()
        _say(session, {"stage": name, "ended": ends[name], "seconds": round(time.monotonic() - started, 1)})
    return ends


def _say(session: Session, found: Found) -> None:
    with open(session.out / "found.jsonl", "a", encoding="utf-8") as file:
        print(json.dumps(found), file=file, flush=True)
        os.fsync(file.fileno())
