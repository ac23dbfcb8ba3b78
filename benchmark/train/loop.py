"""One job from its folder to its result: read top to bottom, each event of the loop in one place."""

import math
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch

from benchmark import data
from benchmark.data import ImageSet, Pixels
from benchmark.errors import UserError
from benchmark.matrix.job import Job
from benchmark.methods import models, overlap
from benchmark.methods.baseline import autocast
from benchmark.methods.models import Backbone
from benchmark.store import metrics, scores
from benchmark.store.files import write_atomic
from benchmark.store.records import Progress
from benchmark.store.run import Run
from benchmark.train import before, checkpoint, distributed, recording, weights
from benchmark.train.batches import Draws, View, ahead, loaded, of_epoch, training_subset
from benchmark.train.checkpoint import OutOfTimeError, State, Stop
from benchmark.train.recording import DivergedError
from benchmark.train.step import Step

TEST_BATCH = {"cpu": 64, "cuda": 512}
TEST_PIXELS = 2**22  # of a GPU's test batch at most: 512 images of 299 would need 23 GiB in VGG-19
MAX_IDS = 20_000  # training images are named in the record up to this many: Caltech-256's split is drawn anew each seed
HEARTBEAT_SECONDS = 2.0


@dataclass(frozen=True)
class Execution:
    """Where and how a job runs. None of it may change the result, so none of it is in the job."""

    data_root: Path | None
    weights_file: Path | None
    cache: Path
    device: str  # cpu, cuda or cuda:N
    threads: int
    keep_weights: bool = False  # leave the trained network beside the result, as model.safetensors
    cuda_graph: bool = False  # record the training step and replay it, on a GPU
    deadline: float = math.inf  # seconds since the epoch by which the process ends, finished or not


def run_job(run: Run, execution: Execution) -> None:
    """Train, test and record one job; continues from the run's checkpoint. Holds the claim while it runs.

    Raises store.Claimed where another process runs it. Any other exception leaves a failure.json behind, but for
    OutOfTimeError and SIGTERM's SystemExit, which leave the run pending with a checkpoint of the step that they came
    in. A job of several ranks runs here in each of them; the first one alone holds the claim and writes records.
    """
    job = run.job()
    with distributed.group(job.ranks, execution.device) as device, distributed.held_by_leader(run.claim()):
        execution, state = replace(execution, device=device), None
        try:
            with distributed.leader_first():  # it decodes, downloads and sets aside what is damaged for all
                if distributed.leads():
                    run.path("failure.json").unlink(missing_ok=True)
                sets = read_splits(job, execution)
                before.refuse_single_values(job, len(sets[0].ids), len(sets[0].classes))
                before.refuse_network(job, len(sets[0].classes), device)
                state = checkpoint.resume(run, lambda: start(job, len(sets[0].classes), execution))
                train, test = decoded(job, sets, execution.cache)  # only now: weights may be missing
                if job.partial and (state.epochs or state.partial):
                    refuse_other_pixels(run, train, test)
            torch.set_num_threads(state.threads)
            if distributed.leads():
                recorded = execution.cuda_graph and job.ranks == 1
                run.write(recording.describe(torch.device(device), recorded, state, train, test))
                run.write_metrics(state.epochs)
            train_and_test(run, job, state, execution, train, test)
        except OutOfTimeError:
            raise
        except Exception as error:
            run.write(recording.failure(error, state))
            raise


def refuse_other_pixels(run: Run, train: Pixels, test: Pixels) -> None:
    """UserError where a run that goes on began with other images: what is there of a data set may have grown."""
    on = run.environment()
    if on and on.data_sha256 and (on.data_sha256.train, on.data_sha256.test) != (train.digest(), test.digest()):
        raise UserError(f"{run.folder}: began with other images than are there now; move its checkpoint.pt away")


def train_and_test(run: Run, job: Job, state: State, execution: Execution, train: Pixels, test: Pixels) -> None:
    device = torch.device(execution.device)
    chosen = training_subset(job, len(train))
    view = View.of(job, train, chosen, device)
    steps_per_epoch = math.ceil(len(chosen) / job.batch_size)
    beat = Heartbeat(run, job.epochs, steps_per_epoch)
    held_out = overlap.held_out(test.images)
    step = Step(state.model, state.optimizer, job, recorded=execution.cuda_graph and job.ranks == 1)
    scores_NC, stop = None, Stop(run, state, execution.deadline)
    with stop.listening():
        for epoch in range(len(state.epochs), job.epochs):
            stop.before_epoch()
            started = time.perf_counter()
            # Dropout draws the same on resume, and something else in each rank.
            torch.manual_seed(epoch * 1_000_003 + job.seed + 7919 * distributed.rank())
            draws = Draws(job, epoch, chosen, len(train))
            state.model.train()
            done, sums, spent = stop.position = checkpoint.resume_epoch(state)
            beat(epoch, done)  # where it goes on, which may be the test
            for images, labels, weight, whole in of_epoch(job, view, train, draws, epoch, done):
                rate = learning_rate(job, epoch * steps_per_epoch + done, steps_per_epoch)
                for name, term in step(images, labels, epoch, rate, weight).items():
                    sums[name] = sums.get(name, 0) + term * (weight * whole)
                done += 1
                beat(epoch, done)
                stop.after_step(done, sums, spent + time.perf_counter() - started)
            distributed.average_buffers(state.model)
            means = {name: float(total) / len(chosen) for name, total in distributed.summed(sums).items()}
            if not all(map(math.isfinite, means.values())):
                raise DivergedError(f"the loss of epoch {epoch + 1} is not a number ({means})")
            scores_NC = predict(state.model, test, view, job, lambda: (beat.touch(), stop.in_test()))  # type: ignore[func-returns-value]
            if not np.isfinite(scores_NC).all():
                raise DivergedError(f"the scores after epoch {epoch + 1} are not numbers")
            name, value = metrics.headline(scores_NC, test.images.targets)
            probe_BCHW = view.plain(test.test_batch(held_out))
            apart = overlap.measure(state.model, probe_BCHW, test.images.targets[held_out], job)
            seconds = round(spent + time.perf_counter() - started, 3)
            numbers = {"train": means, f"test_{name}": value, "attention_overlap": apart, "seconds": seconds}
            numbers |= {"peak_bytes": torch.cuda.max_memory_allocated(device)} if device.type == "cuda" else {}
            state.epochs.append({"epoch": epoch + 1} | numbers)
            if distributed.leads():
                run.write_metrics(state.epochs)
                checkpoint.save(run, state)
        if scores_NC is None:  # the process ended between the last checkpoint and the result
            scores_NC = predict(state.model, test, view, job, beat.touch)
    if not distributed.leads():
        return
    train_ids = np.array(train.images.ids)[chosen] if len(chosen) <= MAX_IDS else None
    ids, targets, classes = np.array(test.images.ids), test.images.targets, test.images.classes
    kept = overlap.spread_over_classes(test.images, held_out)
    top_BK = torch.from_numpy(metrics.top_classes(scores_NC[kept], metrics.TOP)).to(device)
    of_top = overlap.kept(state.model, view.plain(test.test_batch(kept)), top_BK, job)
    maps = {"images": kept} | {kind: maps_BKHW.cpu().numpy() for kind, maps_BKHW in of_top.items()}
    scores_sha256 = scores.write(run, ids, targets, scores_NC, classes, train_ids, maps)
    if execution.keep_weights:
        weights_of = {name: tensor.contiguous() for name, tensor in state.model.net.state_dict().items()}
        write_atomic(run.path("model.safetensors"), safetensors.torch.save(weights_of))
    run.write(recording.result(run, job, state, train, chosen, test, scores_NC, scores_sha256))
    run.path("checkpoint.pt").unlink(missing_ok=True)


def open_splits(job: Job, execution: Execution) -> tuple[Pixels, Pixels]:
    """Training and test images, ready to read. UserError for anything wrong with the data."""
    return decoded(job, read_splits(job, execution), execution.cache)


def read_splits(job: Job, execution: Execution) -> tuple[ImageSet, ImageSet]:
    """Which images are trained and tested on, but for limit_train, which decodes all."""
    return data.read(job, data.locate(job.dataset, execution.data_root, execution.cache))


def decoded(job: Job, sets: tuple[ImageSet, ImageSet], cache: Path) -> tuple[Pixels, Pixels]:
    train, test = (data.open_pixels(images, job.image_size, job.resize, cache) for images in sets)
    return train, test


def start(job: Job, num_classes: int, execution: Execution) -> State:
    """Model and optimiser as they are before the first step."""
    # PyTorch's own default would run a GPU's convolutions in TF32, and float32 would not be what the job says.
    torch.backends.cudnn.allow_tf32 = job.precision == "tf32"
    torch.backends.cuda.matmul.allow_tf32 = False  # the attention maps' own products are float32 at least
    model = models.build(job.backbone, num_classes, job.seed, job.inner_layer)
    if job.weights != "scratch":
        weights.load(model, job.backbone, weights.find(job, execution.weights_file))
    model.to(execution.device, torch.float64 if job.precision == "float64" else torch.float32)
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # missing in torch's own types
    on_gpu = torch.device(execution.device).type == "cuda"
    optimizer = torch.optim.SGD(
        model.parameters(), job.learning_rate, job.momentum, weight_decay=job.weight_decay, fused=on_gpu or None
    )
    return State(model, optimizer, execution.threads, [])


def learning_rate(job: Job, step: int, steps_per_epoch: int) -> float:
    """At iteration `step` from 0. Cosine: one cycle, per iteration (Huang et al., 2017; supplement, section 1.3).
    Step: a tenth after each milestone's epoch (sections 1.1 and 1.2)."""
    if job.schedule == "step":
        assert job.milestones is not None
        return job.learning_rate * 0.1 ** sum(step >= m * steps_per_epoch for m in job.milestones)
    return job.learning_rate / 2 * (1 + math.cos(math.pi * step / (job.epochs * steps_per_epoch)))


@torch.no_grad()
def predict(
    model: Backbone, test: Pixels, view: View, job: Job, after_batch: Callable[[], Any] = lambda: None
) -> np.ndarray:
    """Logits (N, num_classes) float32 in evaluation mode, in the data set's order. Ranks take turns on the batches."""
    model.eval()
    device = view.mean.device
    scores_NC = torch.zeros((len(test), len(test.images.classes)), device=device)
    size = test_batch(device, job.image_size)
    parts = [slice(i, i + size) for i in range(0, len(test), size)]
    indices = np.arange(len(test))

    def read(part: slice) -> torch.Tensor:
        return loaded(len(indices[part]), test.size, device, lambda out: test.test_batch(indices[part], out))

    for part, pixels in ahead(distributed.in_turns(parts), read):
        images = view.plain(pixels)
        with autocast(device, job):
            logits = model(images)
        scores_NC[part] = logits.float()
        after_batch()
    return distributed.summed({"scores": scores_NC.cpu()})["scores"].numpy()


def test_batch(device: torch.device, image_size: int) -> int:
    """Images that are tested together. On a CPU always as many: another number rounds some logits otherwise."""
    most = TEST_BATCH[device.type]
    return min(most, max(1, TEST_PIXELS // image_size**2)) if device.type == "cuda" else most


class Heartbeat:
    """Says every few seconds how far the run is; the file's time of change tells that it lives."""

    def __init__(self, run: Run, epochs: int, steps: int) -> None:
        self._run, self._epochs, self._steps = run, epochs, steps
        self._epoch = self._step = 0
        self._next = 0.0

    def __call__(self, epoch: int, step: int) -> None:
        self._epoch, self._step = epoch, step
        self.touch()

    def touch(self) -> None:
        if distributed.leads() and time.monotonic() >= self._next:
            done = (self._epoch + self._step / self._steps) / self._epochs
            with suppress(UserError):  # a disk that is full for a moment spoils no run; its records will say so
                self._run.write(Progress(epoch=self._epoch + 1, epochs=self._epochs, done=round(done, 4)))
            self._next = time.monotonic() + HEARTBEAT_SECONDS


def resolve(device: str) -> str:
    """`auto` is the GPU where torch sees one."""
    if device == "cuda" and not torch.cuda.is_available():
        raise UserError("--device cuda: torch sees no CUDA device; --device cpu runs without")
    return device if device != "auto" else ("cuda" if torch.cuda.is_available() else "cpu")
