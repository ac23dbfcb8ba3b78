"""A GPU that computes nothing: the suite's own code on fake tensors that say they are on `cuda`, without any CUDA.

PyTorch's FakeTensorMode knows each operation's shapes, types and devices; what it lacks on a build without CUDA is a
device guard and the answers that a CUDA build gives about itself. Both are in HOOKS, compiled when this runs. A value
that the host reads, a shape that depends on values, and operations between devices are then errors; StaysOnGpu adds
any tensor elsewhere. Those stall a GPU's queue and break a recording.

`python -m tests.fake_gpu FOLDER DATASET ...` prints a JSON list for each check: its name and what was wrong. It has a
process of its own, since it leaves torch with a GPU that is not there. FOLDER: where HOOKS are compiled.
"""

import ctypes
import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from itertools import chain
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from benchmark.bench import meter
from benchmark.data import ImageSet, Pixels
from benchmark.matrix.job import Job
from benchmark.methods import attention, baseline, batch_norm, icasc, overlap
from benchmark.train import batches, distributed, loop
from benchmark.train.step import EAGER_STEPS, Step

HOOKS = r"""
#include <ATen/detail/CUDAHooksInterface.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>
#include <new>
using namespace c10;

struct Guard final : impl::NoOpDeviceGuardImpl<DeviceType::CUDA> {
  Device getDevice() const override { return Device(DeviceType::CUDA, 0); }
  Device exchangeDevice(Device) const override { return getDevice(); }
  Stream getStream(Device) const noexcept override { return Stream(Stream::DEFAULT, getDevice()); }
  Stream getNewStream(Device, int) const override { return getStream(getDevice()); }
  Stream exchangeStream(Stream) const noexcept override { return getStream(getDevice()); }
  void record(void**, const Stream&, const DeviceIndex, const EventFlag) const override {}
  void block(void*, const Stream&) const override {}
  bool queryEvent(void*) const override { return true; }
};

struct Hooks final : at::CUDAHooksInterface {
  void init() const override {}
  bool hasCUDA() const override { return true; }
  bool hasCuDNN() const override { return true; }
  bool compiledWithCuDNN() const override { return true; }
  bool supportsDilatedConvolutionWithCuDNN() const override { return true; }
  bool supportsDepthwiseConvolutionWithCuDNN() const override { return true; }
  bool supportsBFloat16ConvolutionWithCuDNNv8() const override { return true; }
  long versionCuDNN() const override { return 92000; }
  long versionRuntimeCuDNN() const override { return 92000; }
  double batchnormMinEpsilonCuDNN() const override { return 0.0; }
  int getNumGPUs() const override { return 1; }
  DeviceIndex deviceCount() const override { return 1; }
  DeviceIndex current_device() const override { return 0; }
  DeviceIndex getCurrentDevice() const override { return 0; }
  bool hasPrimaryContext(DeviceIndex) const override { return true; }
  bool isBuilt() const override { return true; }
  bool isAvailable() const override { return true; }
};
static_assert(sizeof(Hooks) == sizeof(at::CUDAHooksInterface), "no member of its own: it takes the place of torch's");

extern "C" void install() {
  if (impl::hasDeviceGuardImpl(DeviceType::CUDA)) return;  // a CUDA build has its own
  impl::registerDeviceGuard(DeviceType::CUDA, new Guard());
  new (const_cast<at::CUDAHooksInterface*>(&at::detail::getCUDAHooks())) Hooks();
}
"""
COMPILER = next(filter(None, map(shutil.which, ("g++", "clang++"))), None)
BATCH = 4


def install(folder: Path) -> None:
    """Compile HOOKS into `folder` and let this process's torch believe them."""
    assert COMPILER is not None
    (folder / "hooks.cpp").write_text(HOOKS)
    library, home = folder / "hooks.so", Path(torch.__file__).parent
    command = [COMPILER, "-std=c++20", "-shared", "-fPIC", "-O0", folder / "hooks.cpp", "-o", library]
    subprocess.run([*command, f"-I{home}/include", f"-L{home}/lib", "-lc10", "-ltorch_cpu"], check=True)
    ctypes.CDLL(str(library)).install()


class OffGpuError(AssertionError):
    pass


class StaysOnGpu(TorchDispatchMode):
    """Every tensor that an operation takes or makes is on the GPU."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for tensor in tree_leaves((args, kwargs, out)):
            if isinstance(tensor, torch.Tensor) and tensor.device.type != "cuda":
                raise OffGpuError(f"{func}: a tensor {tuple(tensor.shape)} on {tensor.device}")
        return out


class Recording(StaysOnGpu):
    """Within `graph`, also: what operations read was made there, or is among what stays where it is."""

    def __init__(self) -> None:
        super().__init__()
        self.on, self.read, self.log = False, dict[int, str](), list[tuple]()
        self._made, self._kept = set[int](), list[Any]()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = super().__torch_dispatch__(func, types, args, kwargs)
        if self.on:
            for tensor in tree_leaves((args, kwargs)):
                if isinstance(tensor, torch.Tensor) and (key := tensor.untyped_storage()._cdata) not in self._made:
                    self.read.setdefault(key, f"{func} reads {tuple(tensor.shape)}")
            for tensor in tree_leaves(out):
                if isinstance(tensor, torch.Tensor) and (key := tensor.untyped_storage()._cdata) not in self.read:
                    self._made.add(key)
                    self._kept.append(tensor.untyped_storage())  # so that no address is used twice
            self.log.append((str(func), *(a for a in tree_leaves((args, kwargs)) if isinstance(a, float))))
        return out

    @contextmanager
    def graph(self, *_: Any, **__: Any) -> Iterator[None]:
        self.on = True
        yield
        self.on = False


@contextmanager
def fake_gpu(strict: bool = True) -> Iterator[None]:
    """strict: a tensor that is not a fake one is an error, and not taken for one."""
    stream = mock.Mock()
    patches = [
        mock.patch.object(nn.Module, "_apply", meter.replace_parameters),
        mock.patch.object(torch.cuda.amp.common, "amp_definitely_not_available", return_value=False),
        mock.patch.object(torch.cuda, "is_bf16_supported", return_value=True),
        mock.patch.object(torch.cuda, "Stream", return_value=stream),
        mock.patch.object(torch.cuda, "current_stream", return_value=stream),
        mock.patch.object(torch.cuda, "stream", return_value=nullcontext()),
        mock.patch.object(torch.cuda, "CUDAGraph", mock.Mock),
    ]
    for patch in patches:
        patch.start()
    try:
        with meter.fused_sgd(), FakeTensorMode(allow_non_fake_inputs=not strict):
            yield
    finally:
        for patch in patches:
            patch.stop()


def _state(job: Job) -> Any:
    job = job.model_copy(update={"weights": "scratch"})
    state = loop.start(job, meter.num_classes(job), loop.Execution(None, None, Path(), "cuda", 1))
    state.model.train()
    return state


def step(job: Job, recorded: bool = False, count: int = 1, rate: float = 0.1) -> tuple[list[str], list[tuple]]:
    """Steps on the fake GPU, without a tensor elsewhere; what a recording read that moves, and its operations."""
    watch = Recording()
    with fake_gpu(), mock.patch.object(torch.cuda, "graph", watch.graph):
        state = _state(job)
        its = Step(state.model, state.optimizer, job, recorded)
        with watch:
            for _ in range(count):
                terms = its(*meter.batch(job, BATCH, "cuda"), job.warmup_epochs or 0, rate)
        assert {t.dtype for t in terms.values()} == {torch.float32}
        stays = [*state.model.parameters(), *state.model.buffers(), *(its._buffers or ())]
        stays += [s["momentum_buffer"] for s in state.optimizer.state.values()]
        stays += [] if its._rate is None else [its._rate]
        known = {t.untyped_storage()._cdata for t in stays}
    return [what for key, what in watch.read.items() if key not in known], watch.log


def around(job: Job) -> None:
    """What surrounds the step: the view of a training batch, the test, the maps' overlap, pictures of maps."""
    size, count, classes = job.image_size, BATCH, meter.num_classes(job)
    targets = (
        np.zeros(count, np.int64) if job.loss == "cross_entropy" else np.eye(count, classes, dtype=np.int8) * 2 - 1
    )
    pixels = np.zeros((count, size, size, 3), np.uint8)
    names = tuple(map(str, range(classes)))
    test = Pixels(ImageSet(names, tuple("abcd"), pixels, targets), size, "none", pixels)
    to_host: list[torch.Tensor] = []

    def from_numpy(count: int, size: int, _: torch.device, read: Callable[[np.ndarray], Any]) -> torch.Tensor:
        return torch.from_numpy(read(np.empty((count, size, size, 3), np.uint8)))

    def summed(values: dict[str, torch.Tensor]) -> dict[str, Any]:
        to_host.extend(values.values())
        return {name: mock.Mock() for name in values}

    with fake_gpu(strict=False):
        state = _state(job)
        view = batches.View.of(
            job.model_copy(update={"normalisation": "imagenet"}), test, np.arange(count), torch.device("cuda")
        )
        assert view.resident is not None
        drawn = (
            torch.zeros(count, dtype=torch.bool, device="cuda"),
            torch.zeros(count, 2, dtype=torch.int64, device="cuda"),
        )
        images = view(view.resident[torch.arange(count, device="cuda")], *drawn)
        one_by_one = mock.patch.object(loop, "ahead", lambda parts, read: ((p, read(p)) for p in parts))
        unpinned = mock.patch.object(loop, "loaded", from_numpy)
        with one_by_one, unpinned, mock.patch.object(distributed, "summed", summed):
            loop.predict(state.model, test, view, job)
        assert [t.device.type for t in to_host] == ["cpu"], "scores go to the host once"
        values = overlap._per_image(state.model, images, targets, job)
        classes = torch.zeros(count, 2, dtype=torch.int64, device="cuda")
        maps = overlap.class_maps(state.model, images, classes, job)
        kept = overlap.kept(state.model, images, classes, job)
        assert {t.device.type for t in (images, *values.values(), *maps.values(), *kept.values())} == {"cuda"}


def before(where: Any, name: str, does: Callable[..., Any]) -> Any:
    """A patch: a call of where.name first does something else with its arguments."""
    original = getattr(where, name)
    return mock.patch.object(where, name, lambda *a, **o: (does(*a, **o), original(*a, **o))[1])


def planted() -> dict[str, Any]:
    """Faults as somebody could make them, each a patch."""
    backward = batch_norm._BatchNormBackward.backward
    looks = staticmethod(lambda ctx, v, *rest: (v.abs().max().item(), backward(ctx, v, *rest))[1])
    return {
        "item": before(attention, "separability", lambda a, b, m: a.sum().item()),
        "float": before(attention, "consistency", lambda a, m, t: float(a.mean())),
        "if": before(icasc, "classification_loss", lambda logits, labels, job: bool((labels > 0).any())),
        "nonzero": before(attention, "cotangents", lambda logits, present, *_: present.nonzero()),
        "boolean mask": before(attention, "cotangents", lambda logits, present, *_: logits[present]),
        "scalar of the CPU": before(attention, "soft_mask", lambda m, omega, sigma: m * torch.tensor(omega)),
        "tensor of the CPU": before(attention, "cotangents", lambda logits, *_: logits + torch.arange(20)),
        "copy to the host": before(attention, "gradient", lambda scores, *_, **__: scores.detach().cpu()),
        "copy from the host": before(attention, "gradient", lambda scores, *_, **__: torch.ones(3).to(scores.device)),
        "item in a backward": mock.patch.object(batch_norm._BatchNormBackward, "backward", looks),
    }


def _wrong(check: Callable[[], Any]) -> str:
    try:
        return "; ".join(check() or [])
    except Exception as error:
        return f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"


def checks(kinds: dict[str, Job]) -> Iterator[tuple[str, str]]:
    for name, job in kinds.items():
        for precision in ("float32", "bfloat16"):
            its = job.model_copy(update={"precision": precision})
            yield f"step: {name} {precision}", _wrong(lambda its=its: step(its)[0])
        yield f"around: {name}", _wrong(lambda job=job: around(job))


def capture_and_faults() -> Iterator[tuple[str, str]]:
    kinds = meter.paper_kinds()
    small = {job.method: job for job in kinds.values() if job.dataset == "voc2012"}
    for method, job in small.items():
        moved, log = step(job, recorded=True, count=EAGER_STEPS + 1)
        yield f"recording: {method}", "; ".join(moved)
        same = log == step(job, recorded=True, count=EAGER_STEPS + 1, rate=0.025)[1] and len(log) > 100
        yield f"rate: {method}", "" if same else "a number of one step is in the recording"
    job = small["icasc-a_ch"]
    for name, fault in planted().items():
        with fault:
            yield f"planted: {name}", _wrong(lambda: step(job)[0])

    def replaced(its: Step, images: Any, labels: Any, *rest: Any) -> Any:
        its._buffers = None if its._buffers is None else (images, its._buffers[1])
        return original(its, images, labels, *rest)

    original = Step.__call__
    with mock.patch.object(Step, "__call__", replaced):
        yield "planted: the batch in place of its buffer", "; ".join(step(job, recorded=True, count=EAGER_STEPS + 2)[0])
    with mock.patch.object(baseline, "wide", lambda x: x.half()):
        yield "planted: a term in half precision", _wrong(lambda: step(small["baseline"])[0])


if __name__ == "__main__":
    install(Path(sys.argv[1]))
    torch.set_num_threads(1)
    kinds = {name: job for name, job in meter.paper_kinds().items() if job.dataset in sys.argv[2:]}
    for found in chain(checks(kinds), capture_and_faults() if "voc2012" in sys.argv[2:] else ()):
        print(json.dumps(found), flush=True)
