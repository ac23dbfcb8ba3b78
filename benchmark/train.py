"""One job from its folder to its result: read top to bottom, each event of the loop in one place."""

import hashlib
import io
import math
import os
import signal
import sys
import threading
import time
import traceback
import zipfile
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import safetensors.torch
import torch
import torch.nn.functional as F
from torch import Tensor

from benchmark import data, distributed, environment, metrics, models, overlap
from benchmark.data import Pixels
from benchmark.errors import UserError
from benchmark.grid import mini_weights
from benchmark.job import IMAGENET1K_V1, Job
from benchmark.methods import autocast
from benchmark.models import Backbone
from benchmark.step import Step
from benchmark.store import Run, write_atomic, write_json

# ImageNet's channel means and standard deviations, which torchvision's weights expect, on the scale of uint8.
MEAN = torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1) * 255
STD = torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1) * 255
TEST_BATCH = {"cpu": 64, "cuda": 512}
RESIDENT_BYTES = 2**30  # a split of stored pixels up to this size is kept on the GPU
MAX_IDS = 20_000  # training images are named in the record up to this many: Caltech-256's split is drawn anew each seed
HEARTBEAT_SECONDS = 2.0
SAVE_SECONDS = 3.0  # before the deadline, for the checkpoint
# What torch says where its exceptions have no type of their own. A device-side assert or an illegal access is missing
# on purpose: those are errors of the code.
OUT_OF_MEMORY = ("DefaultCPUAllocator: ", "CUDA error: out of memory", "CUBLAS_STATUS_ALLOC_FAILED")
LOST_DEVICE = (
    "uncorrectable ECC error", "uncorrectable NVLink error", "busy or unavailable", "no CUDA-capable device",
    "hardware stack error", "unspecified launch failure", "launch timed out", "CUDA error: unknown error",
)  # fmt: skip


class DivergedError(Exception):
    """The loss stopped being a number: an outcome of the method, not a fault of the machine."""


class OutOfTimeError(Exception):
    """The budget does not hold what comes next; the run goes on from its last checkpoint when it is called again."""


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


@dataclass
class State:
    """What a checkpoint holds."""

    model: Backbone
    optimizer: torch.optim.SGD
    threads: int  # sums depend on how they are split, so a resumed run keeps the number that it began with
    epochs: list[dict[str, Any]]  # metrics of the whole epochs done
    partial: dict[str, Any] | None = None  # of the epoch that was stopped: steps done, loss sums, seconds, rng


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
                train, test = open_splits(job, execution)
                state = start_or_resume(run, job, len(train.images.classes), execution)
            torch.set_num_threads(state.threads)
            if distributed.leads():
                write_json(run.path("environment.json"), describe(execution, state, train, test))
                run.write_metrics(state.epochs)
            train_and_test(run, job, state, execution, train, test)
        except OutOfTimeError:
            raise
        except Exception as error:
            write_failure(run, error, state)
            raise


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
            done, sums, spent = stop.position = resume_epoch(state)
            for images, labels, weight, whole in batches(job, view, train, draws, epoch, done):
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
            scores_NC = predict(state.model, test, view, job, lambda: (beat.touch(), stop.in_test()))
            if not np.isfinite(scores_NC).all():
                raise DivergedError(f"the scores after epoch {epoch + 1} are not numbers")
            name, value = metrics.headline(scores_NC, test.images.targets)
            held = view.plain(test.test_batch(held_out))
            apart = overlap.measure(state.model, held, test.images.targets[held_out], job)
            seconds = round(spent + time.perf_counter() - started, 3)
            numbers = {"train": means, f"test_{name}": value, "attention_overlap": apart, "seconds": seconds}
            state.epochs.append({"epoch": epoch + 1} | numbers)
            if distributed.leads():
                run.write_metrics(state.epochs)
                save_checkpoint(run, state)
        if scores_NC is None:  # the process ended between the last checkpoint and the result
            scores_NC = predict(state.model, test, view, job, beat.touch)
    if not distributed.leads():
        return
    scores_file = write_scores(run, train, chosen, test, scores_NC)
    if execution.keep_weights:
        kept = {name: tensor.contiguous() for name, tensor in state.model.net.state_dict().items()}
        write_atomic(run.path("model.safetensors"), safetensors.torch.save(kept))
    record = result(run, state, len(chosen), test, scores_NC, scores_file)
    if job.loss != "cross_entropy":
        shown_C = (train.images.targets[chosen] == 1).sum(axis=0)
        record["num_positive_train"] = dict(zip(train.images.classes, shown_C.tolist(), strict=True))
    write_json(run.path("result.json"), record)
    run.path("checkpoint.pt").unlink(missing_ok=True)


def clock() -> float:
    return time.time()


class Stop:
    """Ends the run in time and without a loss: on SIGTERM, or so long before the deadline that a checkpoint can be
    written. Ranks stop together, and where there are several, only between epochs: what each has seen of one that is
    cut short is in no checkpoint."""

    def __init__(self, run: Run, state: State, deadline: float) -> None:
        self._run, self._state, self._deadline = run, state, deadline
        self._asked = threading.Event()
        self.position: tuple[int, dict[str, Tensor], float] = (0, {}, 0.0)  # in the epoch: steps, loss sums, seconds

    @contextmanager
    def listening(self) -> Iterator[None]:
        """SIGTERM waits for the end of the step; elsewhere it unwinds at once."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = signal.signal(signal.SIGTERM, lambda *_: self._asked.set())
        try:
            yield
        finally:
            signal.signal(signal.SIGTERM, before)

    def before_epoch(self) -> None:
        """With several ranks, also where the next epoch, taken to last a tenth longer than the last one, would end
        after the deadline. How long a first epoch lasts is not known: it is begun, and dropped at the deadline."""
        last = self._state.epochs[-1]["seconds"] if self._state.epochs and distributed.size() > 1 else 0.0
        left = self._deadline - clock()
        if distributed.any_rank(self._asked.is_set() or left < max(1.1 * last, SAVE_SECONDS)):
            self._end(f"an epoch takes {last:.0f} s, {max(left, 0):.0f} s are left" if last else "no time is left")

    def after_step(self, done: int, sums: dict[str, Tensor], seconds: float) -> None:
        self.position = done, sums, seconds
        if distributed.any_rank(self._due()):
            self._keep()
            self._end(f"in epoch {len(self._state.epochs) + 1}, after {done} steps")

    def in_test(self) -> None:
        """Between test batches: the epoch's steps are kept, and the test begins anew."""
        if distributed.size() == 1 and self._due():
            self._keep()
            self._end(f"in the test after epoch {len(self._state.epochs) + 1}")

    def _due(self) -> bool:
        return self._asked.is_set() or self._deadline - clock() < SAVE_SECONDS

    def _keep(self) -> None:
        if distributed.size() == 1:
            done, sums, seconds = self.position
            rng = {"cpu": torch.get_rng_state()}
            rng |= {"cuda": torch.cuda.get_rng_state()} if torch.cuda.is_available() else {}
            self._state.partial = {"done": done, "sums": sums, "seconds": seconds, "rng": rng}
            save_checkpoint(self._run, self._state)

    def _end(self, where: str) -> NoReturn:
        if distributed.any_rank(self._asked.is_set()):
            sys.exit(143)
        raise OutOfTimeError(where)


def resume_epoch(state: State) -> tuple[int, dict[str, Tensor], float]:
    """Steps done, loss sums and seconds of the epoch that begins: none, or where a stopped one goes on."""
    partial, state.partial = state.partial, None
    if partial is None:
        return 0, {}, 0.0
    torch.set_rng_state(partial["rng"]["cpu"])
    if torch.cuda.is_available() and "cuda" in partial["rng"]:
        torch.cuda.set_rng_state(partial["rng"]["cuda"])
    device = next(state.model.parameters()).device
    return partial["done"], {name: total.to(device) for name, total in partial["sums"].items()}, partial["seconds"]


def open_splits(job: Job, execution: Execution) -> tuple[Pixels, Pixels]:
    """Training and test images, ready to read. UserError for anything wrong with the data."""
    root = data.locate(job.dataset, execution.data_root, execution.cache)
    splits = (data.DATASETS[job.dataset].load(root, split, job.seed) for split in (job.train_split, job.test_split))
    train, test = (data.open_pixels(s, job.image_size, job.resize, execution.cache) for s in splits)
    return train, test


def batches(
    job: Job, view: "View", train: Pixels, draws: "Draws", epoch: int, first: int = 0
) -> Iterator[tuple[Tensor, Tensor, float, int]]:
    """Of each batch of an epoch, from the `first`, this rank's images, as the network sees them, and labels, on the
    view's device; their share of the batch, in [0, 1], and the size of the whole batch."""
    device = view.mean.device
    # What was drawn goes to the device once, in the epoch's order: a copy a batch would make the GPU wait.
    order, mirrored, offsets, labels = (
        torch.from_numpy(drawn).to(device)
        for drawn in (
            draws.order, draws.mirrored[draws.order], draws.offsets[draws.order], train.images.targets[draws.order]
        )
    )  # fmt: skip
    whole = [slice(i, min(i + job.batch_size, len(order))) for i in range(0, len(order), job.batch_size)][first:]
    shares = [distributed.share(part) for part in whole]

    def read(part: slice) -> Tensor:
        return pinned(train.train_batch(draws.order[part], job.seed, epoch), device)

    mine, resident = [part for part, _ in shares], view.resident
    pixels = ahead(mine, read) if resident is None else ((part, resident[order[part]]) for part in mine)
    for (part, pixels_NHWC), (_, weight), batch in zip(pixels, shares, whole, strict=True):
        yield view(pixels_NHWC, mirrored[part], offsets[part]), labels[part], weight, batch.stop - batch.start


def ahead(parts: list[Any], read: Callable[[Any], Any]) -> Iterator[tuple[Any, Any]]:
    """Each part with what is read for it, the next two being read meanwhile."""
    with ThreadPoolExecutor(1) as pool:
        coming = deque(pool.submit(read, part) for part in parts[:2])
        for i, part in enumerate(parts):
            pixels = coming.popleft().result()
            coming.extend(pool.submit(read, later) for later in parts[i + 2 : i + 3])
            yield part, pixels


def pinned(pixels: np.ndarray, device: torch.device) -> Tensor:
    """As a tensor, for a GPU in memory that it can fetch without stopping the host."""
    tensor = torch.from_numpy(pixels)
    return tensor.pin_memory() if device.type == "cuda" else tensor


class Draws:
    """What chance decides in one epoch, from (seed, epoch) alone: baseline and ICASC of a seed see the same data."""

    def __init__(self, job: Job, epoch: int, chosen: np.ndarray, num_images: int) -> None:
        rng = np.random.default_rng([job.seed, epoch])
        self.order = rng.permutation(chosen)
        self.mirrored = (rng.random(num_images) < 0.5) & job.flip
        self.offsets = rng.integers(0, 2 * (job.pad_crop or 0) + 1, (num_images, 2))


def training_subset(job: Job, num_images: int) -> np.ndarray:
    """Indices to train on: all, or job.limit_train of them drawn from the seed alone, the same for every method."""
    if job.limit_train is None or job.limit_train >= num_images:
        return np.arange(num_images)
    return np.sort(np.random.default_rng(job.seed).permutation(num_images)[: job.limit_train])


def start(job: Job, num_classes: int, execution: Execution) -> State:
    """Model and optimiser as they are before the first step."""
    # PyTorch's own default would run a GPU's convolutions in TF32, and float32 would not be what the job says.
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = job.precision == "tf32"
    model = models.build(job.backbone, num_classes, job.seed, job.inner_layer)
    if job.weights != "scratch":
        models.load_weights(model, job.backbone, weights_path(job, execution))
    model.to(execution.device, torch.float64 if job.precision == "float64" else torch.float32)
    model.to(memory_format=torch.channels_last)
    on_gpu = torch.device(execution.device).type == "cuda"
    optimizer = torch.optim.SGD(
        model.parameters(), job.learning_rate, job.momentum, weight_decay=job.weight_decay, fused=on_gpu or None
    )
    return State(model, optimizer, execution.threads, [])


def weights_path(job: Job, execution: Execution) -> Path:
    """The file that job.weights names, its SHA-256 checked. UserError says which file is missing or not the one."""
    if job.weights.startswith("mini"):
        path, expected = mini_weights(job.backbone), job.weights.partition("@")[2]
    else:
        given = execution.weights_file
        name = IMAGENET1K_V1.get(job.backbone)
        expected = job.weights.removeprefix("sha256:")
        if job.weights == "imagenet1k_v1":
            if name is None:
                raise UserError(f"{job.backbone} has no ImageNet weights; --set weights=scratch")
            expected = name.rpartition("-")[2].removesuffix(".pth")
        if given is None and job.weights == "imagenet1k_v1":
            return download(name)
        if given is None:
            raise UserError(f"weights with SHA-256 {expected[:12]}... are needed: name the file with --weights FILE")
        path = given / name if given.is_dir() and name else given
    if not path.is_file():
        raise UserError(f"{path}: no such weights file")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    if not digest.startswith(expected):
        raise UserError(
            f"{path}: SHA-256 {digest[:12]}..., the job needs {expected[:12]}...; "
            f"--set weights=sha256:{digest} makes jobs for this file"
        )
    return path


def download(name: str) -> Path:
    """torchvision's weights file, from its cache or its own address."""
    path = Path(torch.hub.get_dir()) / "checkpoints" / name
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            url = f"https://download.pytorch.org/models/{name}"
            torch.hub.download_url_to_file(url, str(path), hash_prefix=name.rpartition("-")[2][:8], progress=False)
        except (OSError, RuntimeError) as error:
            raise UserError(
                f"{name} is missing and cannot be downloaded ({error}); put it into a folder and name that "
                "with --weights-dir DIR"
            ) from None
    return path


def learning_rate(job: Job, step: int, steps_per_epoch: int) -> float:
    """At iteration `step` from 0. Cosine: one cycle, per iteration (Huang et al., 2017; supplement, section 1.3).
    Step: a tenth after each milestone's epoch (sections 1.1 and 1.2)."""
    if job.schedule == "step":
        return job.learning_rate * 0.1 ** sum(step >= m * steps_per_epoch for m in job.milestones)
    return job.learning_rate / 2 * (1 + math.cos(math.pi * step / (job.epochs * steps_per_epoch)))


@dataclass(frozen=True)
class View:
    """From uint8 pixels to what the network sees. `mean` and `std` are (1, 3, 1, 1) or (1, 3, H, W), on 0 ... 255.

    resident: all training pixels (N, H, W, 3) where they fit on the GPU, to be picked from by index.
    """

    mean: Tensor
    std: Tensor
    pad_crop: int
    resident: Tensor | None = None

    @classmethod
    def of(cls, job: Job, train: Pixels, chosen: np.ndarray, device: torch.device) -> "View":
        mean, std = MEAN, STD
        if job.normalisation == "per_pixel_mean":
            total = sum(
                train.test_batch(part).sum(0, dtype=np.int64) for part in np.array_split(chosen, 50) if len(part)
            )
            mean = torch.from_numpy(total / len(chosen)).permute(2, 0, 1)[None]
            std = torch.full((1, 3, 1, 1), 255.0)
        dtype = torch.float64 if job.precision == "float64" else torch.float32
        stored = train.array if train.array is not None and train.array.shape[1] == train.size else None
        fits = device.type == "cuda" and stored is not None and stored.nbytes <= RESIDENT_BYTES
        resident = torch.from_numpy(np.array(stored)).to(device) if fits else None
        return cls(mean.to(device, dtype), std.to(device, dtype), job.pad_crop or 0, resident)

    def __call__(
        self, pixels_NHWC: Tensor | np.ndarray, mirrored_N: Tensor | np.ndarray, offsets_N2: Tensor | np.ndarray
    ) -> Tensor:
        """(N, 3, H, W) in channels_last: normalised, padded with zeros and cropped at the offsets, then mirrored."""
        images, device = self.plain(pixels_NHWC), self.mean.device
        mirrored_N, offsets_N2 = (torch.as_tensor(drawn, device=device) for drawn in (mirrored_N, offsets_N2))
        if self.pad_crop:
            height, width = images.shape[2:]
            padded_NHWC = F.pad(images, [self.pad_crop] * 4).permute(0, 2, 3, 1)
            windows = padded_NHWC.unfold(1, height, 1).unfold(2, width, 1)  # (N, y, x, 3, H, W), a view
            images = windows[torch.arange(len(images), device=device), offsets_N2[:, 0], offsets_N2[:, 1]]
        if mirrored_N.is_cuda or mirrored_N.any():  # to look would make the GPU wait
            images = torch.where(mirrored_N[:, None, None, None], images.flip(3), images)
        return images.contiguous(memory_format=torch.channels_last)

    def plain(self, pixels_NHWC: Tensor | np.ndarray) -> Tensor:
        """As a test image: normalised, and nothing else."""
        images = torch.as_tensor(pixels_NHWC).to(self.mean.device, non_blocking=True).permute(0, 3, 1, 2)
        return ((images.to(self.mean.dtype) - self.mean) / self.std).contiguous(memory_format=torch.channels_last)


@torch.no_grad()
def predict(
    model: Backbone, test: Pixels, view: View, job: Job, after_batch: Callable[[], Any] = lambda: None
) -> np.ndarray:
    """Logits (N, num_classes) float32 in evaluation mode, in the data set's order. Ranks take turns on the batches."""
    model.eval()
    device = view.mean.device
    scores_NC = torch.zeros((len(test), len(test.images.classes)), device=device)
    size = TEST_BATCH[device.type]
    parts = [slice(i, i + size) for i in range(0, len(test), size)]
    indices = np.arange(len(test))
    for part, pixels in ahead(distributed.in_turns(parts), lambda part: pinned(test.test_batch(indices[part]), device)):
        images = view.plain(pixels)
        with autocast(device, job):
            logits = model(images)
        scores_NC[part] = logits.float()
        after_batch()
    return distributed.summed({"scores": scores_NC.cpu()})["scores"].numpy()


def save_checkpoint(run: Run, state: State) -> None:
    path = run.path("checkpoint.pt")
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    try:
        saved = {"model": state.model.state_dict(), "optimizer": state.optimizer.state_dict()}
        saved |= {"threads": state.threads, "epochs": state.epochs, "partial": state.partial}
        torch.save(saved, temporary)
        os.replace(temporary, path)
    except (OSError, RuntimeError) as error:  # torch reports a full disk as a RuntimeError
        raise UserError(
            f"{path}: cannot be written ({str(error).splitlines()[0]}); free some space and call again; "
            "the run goes on from its last checkpoint"
        ) from None
    finally:
        temporary.unlink(missing_ok=True)


def start_or_resume(run: Run, job: Job, num_classes: int, execution: Execution) -> State:
    """The state of the checkpoint: after an epoch, or within the one that was stopped. A checkpoint that cannot be read
    is set aside and the run starts anew."""
    state, path = start(job, num_classes, execution), run.path("checkpoint.pt")
    if not path.exists():
        return state
    try:
        with zipfile.ZipFile(path) as archive:  # torch.load does not look at the checksums that torch.save wrote
            if (damaged := archive.testzip()) is not None:
                raise zipfile.BadZipFile(f"wrong checksum of {damaged}")
        saved = torch.load(path, map_location="cpu", weights_only=True)
        state.model.load_state_dict(saved["model"])
        state.optimizer.load_state_dict(saved["optimizer"])
        if [epoch["epoch"] for epoch in saved["epochs"]] != list(range(1, len(saved["epochs"]) + 1)):
            raise ValueError("its epochs are not 1, 2, ...")
        return State(state.model, state.optimizer, int(saved["threads"]), list(saved["epochs"]), saved.get("partial"))
    except Exception as error:  # whatever a damaged pickle or zip can raise
        aside = path.with_name(f"checkpoint.corrupt-{time.time_ns()}")
        path.rename(aside)
        print(f"{path}: corrupt checkpoint ({type(error).__name__}); set aside as {aside.name}, starting anew")
        return start(job, num_classes, execution)


def write_scores(run: Run, train: Pixels, chosen: np.ndarray, test: Pixels, scores_NC: np.ndarray) -> Path:
    """Everything that a metric needs, without the data: ids, labels, logits; and which images were trained on."""
    arrays = {"ids": np.array(test.images.ids), "labels": test.images.targets, "scores": scores_NC}
    if len(chosen) <= MAX_IDS:
        arrays["train_ids"] = np.array(train.images.ids)[chosen]
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    write_atomic(run.path("scores.npz"), buffer.getvalue())
    return run.path("scores.npz")


def result(
    run: Run, state: State, num_train: int, test: Pixels, scores_NC: np.ndarray, scores_file: Path
) -> dict[str, Any]:
    """The record that tables are made of."""
    headline, _ = metrics.headline(scores_NC, test.images.targets)
    best = max(state.epochs, key=lambda e: e[f"test_{headline}"] or 0)
    return {
        "job": run.id,
        "checkpoint": "last_epoch",
        "epoch": state.epochs[-1]["epoch"],
        **metrics.summary(scores_NC, test.images.targets, test.images.classes),
        "best_on_test": {"epoch": best["epoch"], headline: best[f"test_{headline}"]},
        "num_train": num_train,
        "num_test": len(test),
        "seconds": round(sum(e["seconds"] for e in state.epochs), 3),
        "code": environment.code_version(),
        "scores_sha256": hashlib.sha256(scores_file.read_bytes()).hexdigest(),
    }


def describe(execution: Execution, state: State, train: Pixels, test: Pixels) -> dict[str, Any]:
    device = torch.device(execution.device)
    return environment.describe() | {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "threads": state.threads,
        "memory_format": "channels_last",
        "cuda_graph": execution.cuda_graph,
        "tf32": torch.backends.cuda.matmul.allow_tf32 if device.type == "cuda" else None,
        "data_sha256": {"train": train.digest(), "test": test.digest()},
    }


def failure_kind(error: Exception) -> str:
    """diverged, input or crash, which repeating would not mend; out_of_memory or lost_device, which it may."""
    text = str(error)
    if isinstance(error, DivergedError | UserError):
        return "diverged" if isinstance(error, DivergedError) else "input"
    if isinstance(error, MemoryError | torch.OutOfMemoryError) or any(t in text for t in OUT_OF_MEMORY):
        return "out_of_memory"
    lost = isinstance(error, RuntimeError) and any(t in text for t in LOST_DEVICE)
    return "lost_device" if lost else "crash"


def write_failure(run: Run, error: Exception, state: State | None) -> None:
    last = state.epochs[-1] if state is not None and state.epochs else None
    record = {"kind": failure_kind(error), "error": str(error), "traceback": traceback.format_exc()}
    epoch = 1 if last is None else last["epoch"] + 1
    write_json(run.path("failure.json"), record | {"epoch": epoch, "last_good_epoch": last})


class Heartbeat:
    """Says every few seconds how far the run is; the file's time of change tells that it lives."""

    def __init__(self, run: Run, epochs: int, steps: int) -> None:
        self._path, self._epochs, self._steps = run.path("progress.json"), epochs, steps
        self._epoch = self._step = 0
        self._next = 0.0

    def __call__(self, epoch: int, step: int) -> None:
        self._epoch, self._step = epoch, step
        self.touch()

    def touch(self) -> None:
        if distributed.leads() and time.monotonic() >= self._next:
            done = (self._epoch + self._step / self._steps) / self._epochs
            with suppress(UserError):  # a disk that is full for a moment spoils no run; its records will say so
                write_json(self._path, {"epoch": self._epoch + 1, "epochs": self._epochs, "done": round(done, 4)})
            self._next = time.monotonic() + HEARTBEAT_SECONDS


def resolve(device: str) -> str:
    """`auto` is the GPU where there is one."""
    if device == "cuda" and not torch.cuda.is_available():
        raise UserError("--device cuda: torch sees no CUDA device; --device cpu runs without")
    return device if device != "auto" else ("cuda" if torch.cuda.is_available() else "cpu")
