"""What a job will need, counted before it runs: memory, multiply-adds, bytes and kernels of a step and of the test, on
fake tensors that have a shape and no content; and by a roofline the hours on a GPU that is named. All are estimates.

Counted are the operations that reach ATen when the suite's own code runs. An operation takes as long as its arithmetic
at the GPU's peak or its bytes at the memory's, whichever is longer, and a kernel's start. Memory is what tensors hold
at once, as the caching allocator rounds it: cuDNN's workspaces and CUDA's own context come on top.
"""

import json
import math
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from benchmark.data import find, most_images
from benchmark.data.voc import CELLS
from benchmark.errors import UserError
from benchmark.matrix import grid, study
from benchmark.matrix.job import Job
from benchmark.methods import overlap
from benchmark.store.files import read_regular
from benchmark.train import batches, loop
from benchmark.train.step import Step

aten = torch.ops.aten
VIEWS = {
    getattr(aten, name)
    for name in (
        "view", "_unsafe_view", "t", "transpose", "permute", "expand", "slice", "select", "unsqueeze", "squeeze",
        "detach", "alias", "as_strided", "split", "split_with_sizes", "unbind", "unfold", "lift_fresh",
        "_reshape_alias", "empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided",
    )
}  # fmt: skip
ROUNDED = 512  # bytes, to which the caching allocator rounds a tensor
FUSED_SGD = ("_fused_sgd_", "_fused_sgd_.tensor_lr")


@dataclass(frozen=True)
class Gpu:
    """Dense TFLOP/s of bfloat16 with float32 sums, of TF32 and of float32; TB/s. Of a data sheet, or measured."""

    name: str
    bfloat16: float
    tf32: float
    float32: float
    bandwidth: float


# NVIDIA's data sheets and architecture white papers. V100 has neither bfloat16 nor TF32: bfloat16 is its float32 rate.
GPUS = {
    "h100": Gpu("H100 SXM", 989, 495, 67, 3.35),
    "a100": Gpu("A100 SXM 80 GB", 312, 156, 19.5, 2.04),
    "v100": Gpu("V100 SXM2", 15.7, 15.7, 15.7, 0.90),
    "rtx4090": Gpu("RTX 4090", 165, 82.6, 82.6, 1.01),
    "rtx3090": Gpu("RTX 3090", 71, 35.6, 35.6, 0.936),
    "l4": Gpu("L4", 121, 60, 30.3, 0.30),
}


def measured_gpu(path: Path) -> Gpu:
    """What `gpu-session` found at its first stage, from its found.jsonl. UserError where it did not."""
    saved = read_regular(path)
    if saved is None:
        raise UserError(f"{path}: no such file; 'python -m benchmark gpu-session OUT' writes OUT/found.jsonl")
    try:
        found = [json.loads(line) for line in saved.decode().splitlines()]
        ceilings = {each["ceiling"]: each for each in found if "ceiling" in each}
        peaks = [float(ceilings[name]["tflops"]) for name in ("bfloat16", "tf32", "float32")]
        bandwidth = float(ceilings["copy"]["gb_per_second"]) / 1e3
        if not all(0 < value < math.inf for value in (*peaks, bandwidth)):
            raise ValueError("a ceiling that is no positive number")
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{path}: holds no measured ceilings ({type(error).__name__}: {error}); 'python -m benchmark gpu-session "
            "OUT --stage machine' writes them into OUT/found.jsonl"
        ) from None
    device = next((each["device"] for each in found if "device" in each), "a machine")
    return Gpu(f"{device} as measured ({path})", peaks[0], peaks[1], peaks[2], bandwidth)


KERNEL_SECONDS = 1e-6  # from one kernel's end to the next one's start, where the host is ahead or the step recorded
LAUNCH_SECONDS = 6e-6  # of the host for one operation of an eager step, autograd included
DECODED_PER_SECOND = 16 * 230  # pictures of ILSVRC's size by 16 cores (docs/performance.md)


# Images a second of training ResNet-50 at 224 on one GPU, 256 a batch (mixed precision there is float16): NVIDIA,
# DeepLearningExamples, PyTorch/Classification/ConvNets/resnet50v1.5/README.md, "Training performance", container 21.03.
PUBLISHED = (("a100", "tf32", 938), ("a100", "bfloat16", 2470), ("v100", "float32", 356))


@dataclass(frozen=True)
class Cost:
    """Of one call. flops: two for a multiply-add. by_op: (flops, bytes, kernels, in bfloat16) of each operation."""

    peak_bytes: int
    by_op: tuple[tuple[int, int, int, bool], ...]

    @property
    def multiply_adds(self) -> float:
        return sum(op[0] for op in self.by_op) / 2

    @property
    def bytes_moved(self) -> int:
        return sum(op[1] for op in self.by_op)

    @property
    def kernels(self) -> int:
        return sum(op[2] for op in self.by_op)

    def seconds(self, gpu: Gpu, precision: str, recorded: bool) -> float:
        """By the roofline; an eager call also waits for the host."""
        wide = gpu.tf32 if precision == "tf32" else gpu.float32
        busy = sum(
            max(flops / (1e12 * (gpu.bfloat16 if narrow else wide)), moved / (1e12 * gpu.bandwidth))
            for flops, moved, _, narrow in self.by_op
        ) + KERNEL_SECONDS * self.kernels  # fmt: skip
        return busy if recorded else max(busy, LAUNCH_SECONDS * len(self.by_op))


class Meter(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.by_op: list[tuple[int, int, int, bool]] = []
        self.held = self.peak = 0
        self._alive: dict[int, Any] = {}

    def hold(self, *tensors: Tensor) -> None:
        """Count the tensors' memory until they are gone."""
        for tensor in tensors:
            storage = tensor.untyped_storage()
            key, size = storage._cdata, -(-storage.nbytes() // ROUNDED) * ROUNDED
            if key in self._alive:
                continue

            def gone(_: Any, key: int = key, size: int = size) -> None:
                del self._alive[key]
                self.held -= size

            self._alive[key] = weakref.ref(storage, gone)
            self.held += size
            self.peak = max(self.peak, self.held)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        given, made = ([t for t in tree_leaves(x) if isinstance(t, Tensor)] for x in ((args, kwargs), out))
        self.hold(*made)
        packet = func.overloadpacket
        if func.namespace == "aten" and packet not in VIEWS:
            flops = flop_registry[packet](*args, **kwargs, out_val=out) if packet in flop_registry else 0
            narrow = bool(given) and given[0].dtype == torch.bfloat16
            self.by_op.append((flops, *_traffic(packet, args, given, made), narrow))
        return out


def _traffic(packet: Any, args: Any, given: list[Tensor], made: list[Tensor]) -> tuple[int, int]:
    """Bytes read and written, and kernels: each tensor once, but where an operation is known to read it twice or to
    copy it into the layout of its kernels first."""
    distinct = {(t.untyped_storage()._cdata, t.storage_offset(), tuple(t.shape)): t for t in given}
    moved, kernels = sum(map(_bytes, distinct.values())) + sum(map(_bytes, made)), 1
    if packet is aten.convolution:
        wrong = _in_another_layout(args[:2])
        return moved + 2 * sum(map(_bytes, wrong)), 1 + len(wrong) + (args[2] is not None)
    if packet is aten.convolution_backward:
        wrong, mask = _in_another_layout(args[:3]), args[-1]
        twice = _bytes(args[0]) if mask[0] and mask[1] else 0
        return moved + twice + 2 * sum(map(_bytes, wrong)), len(wrong) + sum(mask)
    if packet is aten.native_batch_norm:
        return moved + _bytes(args[0]), 3  # statistics, then values
    if packet is aten.native_batch_norm_backward:
        return moved + _bytes(args[0]) + _bytes(args[1]), 2
    if packet is aten._fused_sgd_:  # of parameter and momentum a read and a write, of the gradient a read
        return 5 * sum(map(_bytes, args[0])), max(1, len(args[0]) // 30)
    return moved, kernels


def _in_another_layout(tensors: tuple[Tensor, ...]) -> list[Tensor]:
    """Those that a convolution copies: its kernels run in channels_last as soon as one is so."""
    four = [t for t in tensors if t.dim() == 4]
    last = [t.is_contiguous(memory_format=torch.channels_last) for t in four]
    plain = [t.is_contiguous() for t in four]
    in_last = any(a and not b for a, b in zip(last, plain, strict=True))
    return [t for t, a, b in zip(four, last, plain, strict=True) if not (a if in_last else b)]


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def replace_parameters(module: nn.Module, fn: Any, recurse: bool = True) -> nn.Module:
    """nn.Module._apply that puts new parameters in place; torch's own swaps contents, of which fakes have none."""
    for child in module.children():
        replace_parameters(child, fn)
    for name, parameter in module._parameters.items():
        if parameter is not None:
            with torch.no_grad():
                module._parameters[name] = nn.Parameter(fn(parameter), parameter.requires_grad)
    for name, buffer in module._buffers.items():
        module._buffers[name] = None if buffer is None else fn(buffer)
    return module


@contextmanager
def fused_sgd() -> Iterator[None]:
    """torch 2.13 has no form of the fused SGD for fake tensors; it makes none."""
    library = torch.library.Library("aten", "IMPL", "Meta")
    for name in FUSED_SGD:
        if not torch._C._dispatch_has_kernel_for_dispatch_key(f"aten::{name}", "Meta"):
            library.impl(name, lambda *_, **__: None)
    try:
        yield
    finally:
        library._destroy()


@contextmanager
def _fake() -> Iterator[Meter]:
    with mock.patch.object(nn.Module, "_apply", replace_parameters), fused_sgd(), FakeTensorMode():
        yield Meter()


def num_classes(job: Job) -> int:
    return find(job.dataset).num_classes


def batch(job: Job, size: int, device: str) -> tuple[Tensor, Tensor]:
    """Images and labels as a step takes them, without content."""
    dtype = torch.float64 if job.precision == "float64" else torch.float32
    images = torch.empty(size, 3, job.image_size, job.image_size, dtype=dtype, device=device)
    if job.loss == "cross_entropy":
        labels = torch.empty(size, dtype=torch.int64, device=device)
    else:
        columns = num_classes(job) + (CELLS**2 if study.method(job.method).guided else 0)
        labels = torch.empty(size, columns, dtype=torch.int8, device=device)
    return images.contiguous(memory_format=torch.channels_last), labels


def _start(job: Job, meter: Meter) -> tuple[Any, torch.optim.SGD]:
    """Network and optimiser as on a GPU."""
    job = job.model_copy(update={"weights": "scratch"})
    state = loop.start(job, num_classes(job), loop.Execution(None, None, Path(), "cpu", 1))
    optimizer = torch.optim.SGD(state.model.parameters(), **state.optimizer.defaults | {"fused": True})
    meter.hold(*state.model.parameters(), *state.model.buffers())
    return state.model, optimizer


def step(job: Job) -> Cost:
    """The second step, after which the optimiser has its buffers; the peak is that of both."""
    with _fake() as meter:
        model, optimizer = _start(job, meter)
        its, taken = Step(model.train(), optimizer, job), batch(job, job.batch_size, "cpu")
        meter.hold(*taken)
        with meter:
            for _ in range(2):
                meter.by_op.clear()
                its(*taken, job.warmup_epochs or 0, 0.1)
    return Cost(meter.peak, tuple(meter.by_op))


def test(job: Job) -> Cost:
    """One batch of the test, with the gradients and the optimiser's buffers that training leaves beside it."""
    size = loop.test_batch(torch.device("cuda"), job.image_size)
    with _fake() as meter:
        model, _ = _start(job, meter)
        beside = [torch.empty_like(p) for p in model.parameters() for _ in range(2)]
        meter.hold(*beside)
        view = batches.View(torch.empty(1, 3, 1, 1), torch.empty(1, 3, 1, 1), 0)
        pixels = torch.empty(size, job.image_size, job.image_size, 3, dtype=torch.uint8)
        with meter, torch.no_grad(), loop.autocast(pixels.device, job):
            model.eval()(view.plain(pixels))
    return Cost(meter.peak, tuple(meter.by_op))


def maps(job: Job) -> Cost:
    """The overlap of the maps of as many test images as a GPU takes at once."""
    size = overlap.AT_ONCE["cuda"]
    with _fake() as meter:
        model, _ = _start(job, meter)
        images, _ = batch(job, size, "cpu")
        beside = [torch.empty_like(p) for p in model.parameters() for _ in range(2)]
        meter.hold(images, *beside)
        shown = torch.empty(size, num_classes(job), dtype=torch.bool)
        with meter, mock.patch.object(overlap, "shown", return_value=(shown, shown)):
            overlap._per_image(model.eval(), images, shown, job)  # type: ignore[arg-type]
    return Cost(meter.peak, tuple(meter.by_op))


def paper_kinds() -> dict[str, Job]:
    """A job of each kind at paper scale, by what tells kinds apart."""
    kinds: dict[str, Job] = {}
    for name in grid.names():
        for job in grid.load(name).jobs("paper", {}, {}):
            kinds.setdefault(f"{job.dataset} {job.backbone} {job.method}", job)
    return kinds


def resident_bytes(job: Job) -> int:
    """Of the training pixels that stay on a GPU."""
    stored = most_images(job.dataset, job.train_split) * job.image_size**2 * 3
    return stored if job.resize in ("none", "warp") and stored <= batches.RESIDENT_BYTES else 0


@dataclass(frozen=True)
class Estimate:
    """Of a job. peak_bytes: at most, of step, test and maps, with the pixels that stay on the GPU; of a step its
    multiply-adds, bytes_moved and kernels; hours of the whole job on the GPU, eager and with recorded steps."""

    gpu: str
    peak_bytes: int
    multiply_adds: float
    bytes_moved: int
    kernels: int
    hours: float
    hours_recorded: float


def estimate(job: Job, gpu: Gpu) -> Estimate:
    counted = step(job), test(job), maps(job)
    its = counted[0]
    hours = [_hours(job, gpu, *counted, recorded) for recorded in (False, True)]
    peak = max(cost.peak_bytes for cost in counted) + resident_bytes(job)
    return Estimate(gpu.name, peak, its.multiply_adds, its.bytes_moved, its.kernels, *hours)


def _hours(job: Job, gpu: Gpu, of_step: Cost, of_test: Cost, of_maps: Cost, recorded: bool) -> float:
    """Pictures that are decoded at each read are read meanwhile, and may be what an epoch waits for."""
    limits = (job.limit_train, job.train_split), (job.limit_test, job.test_split)
    trained, tested = (min(limit or math.inf, most_images(job.dataset, split)) for limit, split in limits)
    decoded = job.resize == "random_resized_crop"
    size = loop.test_batch(torch.device("cuda"), job.image_size)
    training = math.ceil(trained / job.batch_size) * of_step.seconds(gpu, job.precision, recorded)
    testing = math.ceil(tested / size) * of_test.seconds(gpu, job.precision, recorded=False)
    if decoded:
        training, testing = max(training, trained / DECODED_PER_SECOND), max(testing, tested / DECODED_PER_SECOND)
    overlaps = overlap.HELD_OUT / overlap.AT_ONCE["cuda"] * of_maps.seconds(gpu, job.precision, recorded=False)
    return job.epochs * (training + testing + overlaps) / 3600


def published_shares() -> Iterator[tuple[str, float]]:
    """How fast published trainings are beside the estimate for the same, in (0, 1] if it is the bound it should be."""
    for name, precision, images_per_second in PUBLISHED:
        job = paper_kinds()["cub200 resnet50 baseline"]
        job = job.model_copy(update={"image_size": 224, "batch_size": 256, "precision": precision})
        seconds = step(job).seconds(GPUS[name], precision, recorded=False)
        yield f"{GPUS[name].name}, {precision}", seconds * images_per_second / job.batch_size
