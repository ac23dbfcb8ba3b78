"""The rows, a function for each group of them."""

import time
from collections.abc import Iterator
from dataclasses import replace
from functools import partial

import numpy as np
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from benchmark.bench import throughput
from benchmark.bench.compare import NotTheSameError, Row, compared, same_gradients, same_sides, same_terms
from benchmark.bench.references import NaiveIcasc, PlainLoop, PlainStep
from benchmark.bench.sides import Loop, Settings, Side, cifar, execution, job_of, synchronize
from benchmark.errors import UserError
from benchmark.matrix.job import BACKBONES
from benchmark.methods import METHODS, models, overlap
from benchmark.store import environment
from benchmark.train.loop import open_splits

ICASC = "icasc-a_ch"  # the other method's step differs by one ReLU
FLOOR_TARGETS = {"resnet18": 1.50, "resnet50": 1.48}
OVER_FLOOR = {"cpu": 1.30, "cuda": 1.15}  # wall time against multiply-adds
MAX_MEMORY, MAX_WAIT, MIN_MAPS, MIN_EAGER, MIN_LOOP = 1.4, 2.0, 5.0, 3.0, 4.0
CLASSES = 5  # maps of each image
NEEDS_GPU = "needs a GPU"


def floor(backbone: str, settings: Settings) -> float:
    """Multiply-adds of one ICASC step over those of the baseline's, as torch's counter sees them.

    In training mode: only there the suite's own modules are differentiated, and they multiply less than torch.nn's.
    """
    size, counted = settings.size(backbone), []
    images, labels = torch.randn(1, 3, size, size), torch.randint(0, 2, (1, 20)) * 2 - 1
    for method in ("baseline", ICASC):
        job = job_of(method, backbone=backbone, image_size=size)
        model = models.build(backbone, 20, 0, job.inner_layer).train()
        with FlopCounterMode(display=False) as counter:
            _, terms = METHODS[method](model, images, labels, job, 0)
            torch.stack(list(terms.values())).sum().backward()
        counted.append(counter.get_total_flops())
    return counted[1] / counted[0]


def floors(settings: Settings) -> Iterator[Row]:
    for backbone in settings.networks if settings.quick else BACKBONES:
        target = FLOOR_TARGETS.get(backbone)
        yield Row(
            f"floor: ICASC / baseline, {backbone} at {settings.size(backbone)}", floor(backbone, settings),
            "multiply-adds ratio", f"<= {target:.2f}" if target else None, "torch.utils.flop_counter",
        )  # fmt: skip


def wall_time(settings: Settings) -> Iterator[Row]:
    for backbone in settings.networks:
        least = floor(backbone, settings)
        for precision in ("float32", "bfloat16"):
            ours, base = (Side(method, backbone, precision, settings) for method in (ICASC, "baseline"))

            def same(ours: Side = ours, base: Side = base, precision: str = precision) -> None:
                same_terms({"classification": ours()["classification"]}, base(), precision)

            yield compared(
                f"time: ICASC / baseline, {_setting(ours)}", ours, base, same,
                f"<= {least * OVER_FLOOR[settings.device.type]:.2f}", settings, f"floor {least:.2f}; ",
            )  # fmt: skip


def naive(settings: Settings) -> Iterator[Row]:
    for backbone in settings.networks:
        ours = Side(ICASC, backbone, "float32", settings)
        reference = NaiveIcasc(ours.model, ours.images, ours.labels, ours.job)
        yield compared(
            f"naive: two backward passes, gradients constant / ICASC, {_setting(ours)}", reference, ours,
            partial(same_sides, reference, ours, "float32"), ">= 1", settings,
        )  # fmt: skip


def eager(settings: Settings) -> Iterator[Row]:
    matrix_units = not settings.on_gpu and environment.has_bfloat16_matrix_units()
    for precision in ("float32", "bfloat16"):
        ours = Side("baseline", "resnet18", precision, settings)
        plain = PlainStep(ours.model, ours.images, ours.labels, ours.job)

        def same(ours: Side = ours, plain: PlainStep = plain, precision: str = precision) -> None:
            same_terms(plain(), ours(), precision)
            same_gradients(ours.model.net, plain.net, precision)

        bound = matrix_units and precision == "bfloat16"
        yield compared(
            f"eager: plain float32 / baseline, {_setting(ours)}", plain, ours, same,
            f">= {MIN_EAGER:g}" if bound else None, settings,
            "" if bound or precision == "float32" else "no target without a processor's bfloat16 matrix units; ",
        )  # fmt: skip


def memory(settings: Settings) -> Iterator[Row]:
    how = "torch.cuda.max_memory_allocated" if settings.on_gpu else "all that torch.profiler saw allocated at once"
    for backbone in settings.networks:
        base, ours = (peak_bytes(method, backbone, settings) for method in ("baseline", ICASC))
        yield Row(
            f"memory: ICASC / baseline, {backbone} at {settings.size(backbone)}, batch {settings.batch}, float32",
            ours / base, "peak ratio", f"<= {MAX_MEMORY}",
            f"{ours / 2**20:.0f} / {base / 2**20:.0f} MiB, network and optimiser included; {how}",
        )  # fmt: skip


def peak_bytes(method: str, backbone: str, settings: Settings) -> int:
    """Most bytes held at once from making the network to the end of its second eager step."""
    if settings.on_gpu:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        side = Side(method, backbone, "float32", settings, recorded=False)
        for _ in range(2):
            side()
    if settings.on_gpu:
        return torch.cuda.max_memory_allocated() - before
    events = profile.profiler.kineto_results.events()
    changes = sorted((e.start_ns(), e.nbytes()) for e in events if e.name() == "[memory]")
    return int(np.cumsum([bytes_ for _, bytes_ in changes]).max())


def maps(settings: Settings) -> Iterator[Row]:
    """Grad-CAM of several classes and two layers; the library's own function scales both sides' maps."""
    side = Side("baseline", "resnet18", "float32", settings)
    name = f"maps: pytorch-grad-cam / ours, {CLASSES} classes and 2 layers, {_setting(side)}"
    try:
        from pytorch_grad_cam import GradCAM
        from pytorch_grad_cam.utils.image import scale_cam_image
        from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
    except ImportError:
        missing = "not installed: pip install -c constraints.txt -e '.[bench]'"
        yield Row(name, None, "time ratio", f">= {MIN_MAPS:g}", missing)
        return

    class PerLayer(GradCAM):
        """The library's maps before it averages them over layers: its fastest way, one pass for both."""

        def aggregate_multi_layers(self, cam_per_target_layer: list[np.ndarray]) -> np.ndarray:
            return np.concatenate(cam_per_target_layer, axis=1)

    model, images = side.model.eval(), side.images
    classes_BN = torch.arange(CLASSES, device=settings.device).expand(len(images), CLASSES)
    layers = [model.net.get_submodule(stage) for stage in models.BACKBONES["resnet18"].stages[-2:]]

    def theirs() -> np.ndarray:
        with PerLayer(model, layers) as cam:
            targets = ([ClassifierOutputTarget(n)] * len(images) for n in range(CLASSES))
            return np.stack([cam(images, targets=of_class) for of_class in targets], axis=1)

    def ours() -> np.ndarray:
        height, width = images.shape[2:]

        def scaled(maps_BNHW: Tensor) -> np.ndarray:
            flat = scale_cam_image(maps_BNHW.flatten(0, 1).cpu().numpy(), (width, height))
            return flat.reshape(len(images), CLASSES, height, width)

        maps = overlap.class_maps(model, images, classes_BN, side.job)
        return np.stack([scaled(maps["grad_cam", layer]) for layer in overlap.LAYERS], axis=2)

    def same() -> None:
        mine, its = ours(), theirs()
        if mine.shape != its.shape or not np.allclose(mine, its, atol=1e-3):
            raise NotTheSameError(f"maps are up to {np.abs(mine - its).max():.1e} of their maximum apart")

    yield compared(name, theirs, ours, same, f">= {MIN_MAPS:g}", settings)


def cifar_loop(settings: Settings) -> Iterator[Row]:
    num_images = 12_800 if settings.on_gpu else 128 * (2 if settings.quick else 8)
    for method in ("baseline", ICASC):
        loop = cifar(method, num_images, settings)
        plain = PlainLoop(loop.model, loop.pixels, loop.view, loop.draws, loop.job)
        name = f"{method}, {loop.job.backbone}, batch {loop.job.batch_size}"
        yield compared(
            f"loop: plain with a DataLoader / ours, {name}", plain, loop,
            partial(same_sides, plain, loop, "float32"), f">= {MIN_LOOP:g}" if settings.on_gpu else None, settings,
        )  # fmt: skip
        synchronize(settings.device)
        started = time.perf_counter()
        loop()
        synchronize(settings.device)
        rate = num_images / (time.perf_counter() - started)
        yield Row(f"loop: {name}", rate, "images/s", None, f"one epoch of {num_images}, data included")


def waiting(settings: Settings) -> Iterator[Row]:
    """After each step a GPU is waited for, which without the bench the host does not do: an upper bound there."""
    loops = {"CIFAR, stored pixels": cifar("baseline", 1280, settings)}
    sources = {"VOC, decoded once": "warp", "ILSVRC, JPEG decoded at each read": "random_resized_crop"}
    for name, resize in sources.items():
        size, images = settings.size("resnet18"), 32 if settings.quick else 128
        job = job_of("baseline", dataset="voc2012-mini", image_size=size, resize=resize, limit_train=images)
        loops[name] = Loop(job, open_splits(job, execution(settings))[0], settings)
    for name, loop in loops.items():
        yield Row(
            f"wait: for data, {name}, {loop.job.backbone} at {loop.job.image_size}, batch {loop.job.batch_size}",
            100 * loop.share_waited(), "% of the time", f"<= {MAX_WAIT:g}", "one epoch after its first batch",
        )  # fmt: skip


def replay(settings: Settings) -> Iterator[Row]:
    for method in ("baseline", ICASC):
        name = f"replay: eager / recorded step, {method}, resnet110 at 32"
        if not settings.on_gpu:
            yield Row(name, None, "time ratio", None, NEEDS_GPU)
            continue
        plain, recorded = (Side(method, "resnet110", "float32", settings, recorded=r) for r in (False, True))
        yield compared(name, plain, recorded, partial(same_sides, plain, recorded, "float32"), None, settings)


def scheduler(settings: Settings) -> Iterator[Row]:
    """Empty jobs, so that what is counted is the executor's own work and the start of a process."""
    for name in ("local", "ray"):
        row = Row(f"scheduler: empty jobs, {name}", None, "jobs per second", None, "44 jobs against 4, a core each")
        try:
            yield replace(row, value=throughput.measure(name))
        except UserError as error:
            yield replace(row, note=str(error))


def _setting(side: Side) -> str:
    job = side.job
    return f"{job.backbone} at {job.image_size}, batch {len(side.images)}, {job.precision}"
