"""What can be known before a job trains: whether its network can be trained by its method, on batches of its sizes.

A probe takes one step on random images. Built-in networks need none: the tests take steps with all of them.
"""

import warnings
from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.lazy import LazyModuleMixin

from benchmark.data.voc import CELLS
from benchmark.errors import UserError
from benchmark.matrix import study
from benchmark.matrix.job import BACKBONES, Job
from benchmark.methods import models, overlap
from benchmark.methods.convolution import of_features_alone
from benchmark.methods.models import Backbone
from benchmark.train.batch_sizes import smallest_batch

IMAGES = 2  # of a probe: BatchNorm has no variance of one where a map has one position
NO_SINGLE_VALUES = "Expected more than 1 value per channel"  # as PyTorch's ValueError begins
INSTEAD = {  # of operations that PyTorch differentiates once; by a part of its name for their derivative
    "scaled_dot_product": "call it within torch.nn.attention.sdpa_kernel(SDPBackend.MATH)",
    "hardsigmoid": "F.relu6(x + 3) / 6 is the same",
    "once_differentiable": "let its backward be differentiated",
    "cut off": "leave detach() and no_grad() out",
    "use_reentrant": "checkpoint with use_reentrant=False",
    "double backward": "leave torch.compile out",
}


def refuse_single_values(job: Job, num_images: int, num_classes: int) -> None:
    """Refuse a job whose last batch is one image of one position to a BatchNorm, which has no variance then.

    Known from shapes alone: the network is given an image without values.

    Raises:
        UserError: It is so.
    """
    if smallest_batch(job, num_images) > 1:
        return
    entered: list[str] = []
    try:
        with torch.random.fork_rng(devices=[]), torch.device("meta"), torch.no_grad():
            model = models.build(job.backbone, num_classes, job.seed, job.inner_layer).train()
            for name, module in model.net.named_modules():
                module.register_forward_pre_hook(lambda *_, name=name: entered.append(name))
            model(torch.empty(1, 3, job.image_size, job.image_size))
    except Exception as error:  # of somebody's network anything; the job itself will tell it
        if not str(error).startswith(NO_SINGLE_VALUES):
            return
        raise UserError(
            f"{job.backbone} at {job.image_size} pixels: the last of an epoch's batches of {job.batch_size} is one "
            f"image, of which BatchNorm ({entered[-1]}) sees one value a channel and so no variance: set another "
            "batch_size or limit_train, or a larger image_size"
        ) from None


def refuse_network(job: Job, num_classes: int, device: str = "cpu") -> None:
    """Refuse a study's own network that a job's method cannot train, by one step of it on random images.

    Whatever else goes wrong in somebody's network is left to the job, which tells it.

    Args:
        device: That the step is taken on; the job's own, since derivatives are a device's.

    Raises:
        UserError: A layer without shape, a stage that gives no map, an operation without the derivative that the method
            needs, or buffers that a backward pass changes.
    """
    if job.backbone in BACKBONES:
        return
    job, network = job.model_copy(update={"precision": "float32"}), models.architecture_of(job.backbone)
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the job will give them
        model = models.build(job.backbone, num_classes, job.seed, job.inner_layer)
        _refuse_lazy(job, model)
        model = model.to(device).to(memory_format=torch.channels_last).train()  # type: ignore[call-overload]
        size = job.image_size
        images = torch.randn(IMAGES, 3, size, size).to(device, memory_format=torch.channels_last)
        labels = _labels(job, num_classes).to(device)
        try:
            inner = model.to_inner(images)
            _refuse_no_map(job, inner, network.stages[models.INNER_STAGE[job.inner_layer or "stage_before_last"]])
            last = model.to_last(inner)
            _refuse_no_map(job, last, network.trunk[-1])
            logits = model.head(last)
            _refuse_other_logits(job, logits, num_classes)
            _refuse_changed_buffers(job, model, logits)
        except UserError:
            raise
        except Exception:
            return
        _refuse_no_derivative(job, model, images, labels)


def _labels(job: Job, num_classes: int) -> Tensor:
    """Of IMAGES images, as a method is given them (benchmark/methods)."""
    classes = torch.arange(IMAGES) % num_classes
    if job.loss == "cross_entropy":
        return classes
    labels = F.one_hot(classes, num_classes) * 2 - 1
    guided = study.method(job.method).guided
    return torch.cat([labels, torch.ones(IMAGES, CELLS**2, dtype=labels.dtype)], dim=1) if guided else labels


def _refuse_lazy(job: Job, model: Backbone) -> None:
    for name, module in model.net.named_modules():
        if isinstance(module, LazyModuleMixin) and module.has_uninitialized_params():  # type: ignore[misc]
            raise UserError(
                f"{job.backbone}: {name} ({type(module).__name__}) has no size before it has seen an image, so it has "
                "no initial weights: give its input size"
            )


def _refuse_no_map(job: Job, feat: Any, stage: str) -> None:
    shape = tuple(feat.shape) if isinstance(feat, torch.Tensor) else type(feat).__name__
    if not isinstance(feat, torch.Tensor) or feat.ndim != 4 or len(feat) != IMAGES:
        raise UserError(
            f"{job.backbone}: stage {stage} gives {shape} for {IMAGES} images, which is no feature map (B, C, H, W): "
            "let it give one, of tokens by a transpose and a reshape"
        )


def _refuse_other_logits(job: Job, logits: Any, num_classes: int) -> None:
    if tuple(getattr(logits, "shape", ())) != (IMAGES, num_classes):
        shape = tuple(logits.shape) if hasattr(logits, "shape") else type(logits).__name__
        raise UserError(
            f"{job.backbone}: its top gives {shape} for {IMAGES} images of {num_classes} classes: expected "
            f"({IMAGES}, {num_classes})"
        )


def _refuse_changed_buffers(job: Job, model: Backbone, logits: Tensor) -> None:
    """A backward pass that goes forward again, as activation checkpointing does, counts a batch twice in BatchNorm's
    statistics, and one of a method that takes gradients by the maps three times: arms that differ by more than it."""
    before = {name: buffer.clone() for name, buffer in model.net.named_buffers()}
    logits.float().square().mean().backward()
    for name, buffer in model.net.named_buffers():
        if not buffer.equal(before[name]):
            module = name.rpartition(".")[0]
            raise UserError(
                f"{job.backbone}: a backward pass changes the statistics of {module} "
                f"({type(model.net.get_submodule(module)).__name__}), more often for one method than for another: take "
                "it out of activation checkpointing"
            )


def _refuse_no_derivative(job: Job, model: Backbone, images: Tensor, labels: Tensor) -> None:
    """Of the step, and of the maps that every method's runs are measured by."""
    classes = torch.zeros(IMAGES, 1, dtype=torch.long, device=images.device)
    try:
        overlap.class_maps(model.eval(), images, classes, job)
    except RuntimeError as error:
        if _is_a_derivative_s(error):
            raise UserError(_no_derivative(job, model.eval(), images, error, twice=False)) from None
        return
    try:
        _, terms = study.method(job.method)(model.train(), images, labels, job, job.epochs - 1)
        torch.stack(list(terms.values())).sum().backward()
    except RuntimeError as error:
        if _is_a_derivative_s(error):
            raise UserError(_no_derivative(job, model.train(), images, error, twice=True)) from None


def _is_a_derivative_s(error: RuntimeError) -> bool:
    """Whether autograd raised it, rather than somebody's method."""
    told = ("derivative for", "differentiate", "double backward", "checkpoint", "require grad")
    return any(words in str(error) for words in told)


def _no_derivative(job: Job, model: Backbone, images: Tensor, error: RuntimeError, twice: bool) -> str:
    found = next(_underivable(model, images, twice), None)
    where, reason = found or ("it", error)
    order, needed_by = ("second", job.method) if twice else ("first", "the maps that every run is measured by")
    instead = next((advice for part, advice in INSTEAD.items() if part in str(reason)), "use one that has it")
    said = str(reason).strip().splitlines()[0]
    return (
        f"{job.backbone}: {where} has no {order} derivative on {images.device.type}, which {needed_by} needs ({said}): "
        f"{instead}"
    )


def _underivable(model: Backbone, images: Tensor, twice: bool) -> Iterator[tuple[str, RuntimeError]]:
    """The modules, innermost first, that alone cannot be differentiated by what they are given, and why."""
    for name, module, args, kwargs in _calls(model, images):
        try:
            _differentiate(module, args, kwargs, twice)
        except RuntimeError as error:
            if name:
                yield f"{name} ({type(module).__name__})", error


Call = tuple[str, nn.Module, tuple[Any, ...], dict[str, Any]]  # a module's name, it, and what it is given


def _calls(model: Backbone, images: Tensor) -> list[Call]:
    """With what each module above the inner layer is called in a forward pass, in the order in which they end."""
    calls: list[Call] = []
    hooks = [
        module.register_forward_hook(
            lambda module, args, kwargs, _, name=name: calls.append((name, module, args, kwargs)), with_kwargs=True
        )
        for name, module in model.net.named_modules()
    ]
    with torch.no_grad():
        inner = model.to_inner(images)
        calls.clear()
        model.head(model.to_last(inner))
    for hook in hooks:
        hook.remove()
    return calls


def _differentiate(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], twice: bool) -> None:
    """RuntimeError where PyTorch cannot, by the inputs and, for the second time, by all."""
    inputs: list[Tensor] = []

    def leaf(value: Any) -> Any:
        if not isinstance(value, torch.Tensor) or not value.is_floating_point():
            return value
        inputs.append(value.detach().clone().requires_grad_())
        return inputs[-1].clone()  # which may be overwritten, as a leaf may not

    with torch.enable_grad():
        given = module(*map(leaf, args), **{name: leaf(value) for name, value in kwargs.items()})
        outputs = [out for out in _tensors(given) if out.requires_grad]
        if inputs and not outputs:
            raise RuntimeError("what it gives is cut off from what it is given")
        if not inputs:
            return
        total = torch.stack([out.float().square().sum() for out in outputs]).sum()
        with of_features_alone():
            first = torch.autograd.grad(total, inputs, create_graph=twice, allow_unused=True)
        again = [gradient.square().sum() for gradient in first if gradient is not None and gradient.requires_grad]
        if twice and again:
            torch.stack(again).sum().backward()


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, list | tuple | dict):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _tensors(part)
