"""Backbones, cut where the attention maps are taken.

A Backbone runs as three consecutive pieces, so that the maps need no hooks:

    images -> to_inner -> feat_inner -> to_last -> feat_last -> head -> logits
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmark.matrix import study
from benchmark.methods.batch_norm import TwiceDifferentiableBatchNorm2d
from benchmark.methods.convolution import TwiceDifferentiableConv2d
from benchmark.methods.torchvision_ops import torchvision

TWICE_DIFFERENTIABLE: dict[type[nn.Module], type[nn.Module]] = {
    nn.BatchNorm2d: TwiceDifferentiableBatchNorm2d,
    nn.Conv2d: TwiceDifferentiableConv2d,
}


class Backbone(nn.Module):
    """`net`'s submodules named in `trunk` run in that order, then those in `top`, which end in the logits.

    `inner` is one of the trunk's; its output and the whole trunk's are the feature maps that attention is computed on.
    """

    def __init__(self, net: nn.Module, trunk: tuple[str, ...], top: tuple[str, ...], inner: str) -> None:
        super().__init__()
        self.net = net
        cut = trunk.index(inner) + 1
        self._pieces = {"to_inner": trunk[:cut], "to_last": trunk[cut:], "head": top}
        for module in net.modules():
            if hasattr(module, "inplace"):  # an in-place ReLU would overwrite the feature map that a piece returned
                module.inplace = False  # type: ignore[assignment]
        for module in self._modules_above_inner():
            if type(module) in TWICE_DIFFERENTIABLE:
                module.__class__ = TWICE_DIFFERENTIABLE[type(module)]  # the same parameters and names

    def _modules_above_inner(self) -> list[nn.Module]:
        return [module for name in self._pieces["to_last"] for module in self.net.get_submodule(name).modules()]

    def _run(self, piece: str, x: Tensor) -> Tensor:
        for name in self._pieces[piece]:
            x = self.net.get_submodule(name)(x)
        return x

    def to_inner(self, images_BCHW: Tensor) -> Tensor:
        return self._run("to_inner", images_BCHW)

    def to_last(self, feat_inner_BKHW: Tensor) -> Tensor:
        return self._run("to_last", feat_inner_BKHW)

    def to_last_frozen(self, feat_inner_BKHW: Tensor) -> Tensor:
        """`to_last` with the same values, but BatchNorm's statistics of the batch are constants of the gradient, so
        that no image's gradient depends on another's. Leaves the running statistics alone."""

        def normalise(module: nn.BatchNorm2d, inputs: tuple[Tensor], _: Tensor) -> Tensor:
            x = inputs[0].detach().float() if inputs[0].dtype == torch.bfloat16 else inputs[0].detach()
            mean, var = x.mean(dim=(0, 2, 3)), x.var(dim=(0, 2, 3), correction=0)
            return F.batch_norm(inputs[0], mean, var, module.weight, module.bias, training=False, eps=module.eps)

        frozen = [m for m in self._modules_above_inner() if isinstance(m, nn.BatchNorm2d) and m.training]
        hooks = [m.eval().register_forward_hook(normalise) for m in frozen]
        try:
            return self.to_last(feat_inner_BKHW)
        finally:
            for module, hook in zip(frozen, hooks, strict=True):
                module.train()
                hook.remove()

    def head(self, feat_last_BKHW: Tensor) -> Tensor:
        return self._run("head", feat_last_BKHW)

    def forward(self, images_BCHW: Tensor) -> Tensor:
        return self.head(self.to_last(self.to_inner(images_BCHW)))

    def pooled_linear_weight(self) -> Tensor | None:
        """W (num_classes, K) where the head is global average pooling and this one linear layer, else None."""
        pool, *_, classifier = (self.net.get_submodule(name) for name in self._pieces["head"])
        pooled = isinstance(pool, nn.AdaptiveAvgPool2d) and pool.output_size in (1, (1, 1))
        return classifier.weight if pooled and isinstance(classifier, nn.Linear) else None


@dataclass(frozen=True)
class Architecture:
    """How to make a network with `num_classes` outputs, and where it is cut. `stages`: the trunk's convolutional
    stages in order; `classifier`: the prefix of the parameters that a new data set replaces."""

    make: Callable[[int], nn.Module]
    trunk: tuple[str, ...]
    stages: tuple[str, ...]
    top: tuple[str, ...]
    classifier: str


def _torchvision_resnet(name: str) -> Callable[[int], nn.Module]:
    def make(num_classes: int) -> nn.Module:
        net = getattr(torchvision.models, name)(num_classes=num_classes)
        net.flatten = nn.Flatten()
        return net

    return make


def _narrow_resnet(block: "_Block", blocks: tuple[int, ...]) -> Callable[[int], nn.Module]:
    """A ResNet with a quarter of its channels and a 3x3 stem of stride 2 without pooling: 80 pixels end in 5x5."""

    def make(num_classes: int) -> nn.Module:
        net = nn.Module()
        net.conv1 = nn.Conv2d(3, 16, 3, stride=2, padding=1, bias=False)
        net.bn1 = nn.BatchNorm2d(16)
        net.relu = nn.ReLU()
        width = 16
        for stage, (channels, count) in enumerate(zip((16, 32, 64, 128), blocks, strict=True), start=1):
            stride, out = (1 if stage == 1 else 2), channels * block.expansion
            shortcut = None
            if stride > 1 or width != out:
                shortcut = nn.Sequential(nn.Conv2d(width, out, 1, stride, bias=False), nn.BatchNorm2d(out))
            first, rest = block(width, channels, stride, shortcut), [block(out, channels) for _ in range(count - 1)]
            setattr(net, f"layer{stage}", nn.Sequential(first, *rest))
            width = out
        net.avgpool = nn.AdaptiveAvgPool2d(1)
        net.flatten = nn.Flatten()
        net.fc = nn.Linear(width, num_classes)
        for module in net.modules():  # as torchvision initialises its ResNets
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        return net

    return make


class _Block(Protocol):
    """A residual block, as torchvision makes it."""

    expansion: int  # channels out, over `planes`

    def __call__(
        self, inplanes: int, planes: int, stride: int = 1, downsample: nn.Module | None = None
    ) -> nn.Module: ...


class CifarBlock(nn.Module):
    """He et al.'s basic block with the parameter-free shortcut A: every second pixel, zeros for new channels."""

    def __init__(self, width: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, channels, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.stride, self.new_channels = stride, channels - width

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        shortcut = x[:, :, :: self.stride, :: self.stride]
        if self.new_channels:
            half = self.new_channels // 2
            shortcut = F.pad(shortcut, (0, 0, 0, 0, half, self.new_channels - half))
        return F.relu(out + shortcut)


def _cifar_resnet(blocks: int) -> Callable[[int], nn.Module]:
    """ResNet-(6 blocks + 2) for 32 x 32 images (He et al., 2016, section 4.2): 16, 32, 64 channels at 32, 16, 8."""

    def make(num_classes: int) -> nn.Module:
        net = nn.Module()
        net.conv1 = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        net.bn1 = nn.BatchNorm2d(16)
        net.relu = nn.ReLU()
        width = 16
        for stage, channels in enumerate((16, 32, 64), start=1):
            first = CifarBlock(width, channels, 1 if stage == 1 else 2)
            rest = [CifarBlock(channels, channels, 1) for _ in range(blocks - 1)]
            setattr(net, f"layer{stage}", nn.Sequential(first, *rest))
            width = channels
        net.avgpool = nn.AdaptiveAvgPool2d(1)
        net.flatten = nn.Flatten()
        net.fc = nn.Linear(width, num_classes)
        for module in net.modules():  # He et al., 2015: variance 2 / fan-in
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        nn.init.zeros_(net.fc.bias)
        return net

    return make


def _vgg19(num_classes: int) -> nn.Module:
    net = torchvision.models.vgg19(num_classes=num_classes)
    net.flatten = nn.Flatten()
    return net


def _vgg11_narrow(num_classes: int) -> nn.Module:
    """VGG-11 with a quarter of its channels, a 2x2 head and linear layers of 256: 80 pixels end in 5x5.

    Without VGG's dropout, for the short schedules that it is made for.
    """
    plan = [c if c == "M" else c // 4 for c in torchvision.models.vgg.cfgs["A"]]
    net = torchvision.models.VGG(torchvision.models.vgg.make_layers(plan), num_classes)
    net.avgpool = nn.AdaptiveAvgPool2d(2)
    net.flatten = nn.Flatten()
    sizes = (128 * 2 * 2, 256, 256)
    hidden = [m for i, o in pairwise(sizes) for m in (nn.Linear(i, o), nn.ReLU())]
    fresh = nn.Linear(256, num_classes)
    nn.init.normal_(fresh.weight, 0, 0.01)  # as torchvision initialises VGG's, and so what a new data set starts with
    nn.init.zeros_(fresh.bias)
    net.classifier = nn.Sequential(*hidden, fresh)
    return net


_BASIC, _BOTTLENECK = torchvision.models.resnet.BasicBlock, torchvision.models.resnet.Bottleneck
_STEM, _STAGES = ("conv1", "bn1", "relu"), ("layer1", "layer2", "layer3", "layer4")
_POOLED_LINEAR = ("avgpool", "flatten", "fc")


def _resnet(make: Callable[[int], nn.Module], stem: tuple[str, ...], stages: tuple[str, ...]) -> Architecture:
    return Architecture(make, (*stem, *stages), stages, _POOLED_LINEAR, "fc.")


def _vgg(make: Callable[[int], nn.Module], ends: tuple[int, ...], classifier: str) -> Architecture:
    """`ends`: the last ReLU of each stage; `classifier`: the last linear layer.

    The maps are taken before a stage's pooling; the final pooling belongs to the head.
    """
    trunk = tuple(f"features.{i}" for i in range(ends[-1] + 1))
    stages = tuple(f"features.{i}" for i in ends)
    top = (f"features.{ends[-1] + 1}", "avgpool", "flatten", "classifier")
    return Architecture(make, trunk, stages, top, classifier)


BACKBONES = {
    "resnet18": _resnet(_torchvision_resnet("resnet18"), (*_STEM, "maxpool"), _STAGES),
    "resnet50": _resnet(_torchvision_resnet("resnet50"), (*_STEM, "maxpool"), _STAGES),
    "resnet101": _resnet(_torchvision_resnet("resnet101"), (*_STEM, "maxpool"), _STAGES),
    "vgg19": _vgg(_vgg19, (3, 8, 17, 26, 35), "classifier.6."),
    "resnet8": _resnet(_cifar_resnet(1), _STEM, _STAGES[:3]),
    "resnet20": _resnet(_cifar_resnet(3), _STEM, _STAGES[:3]),
    "resnet32": _resnet(_cifar_resnet(5), _STEM, _STAGES[:3]),
    "resnet56": _resnet(_cifar_resnet(9), _STEM, _STAGES[:3]),
    "resnet110": _resnet(_cifar_resnet(18), _STEM, _STAGES[:3]),
    "resnet18_narrow": _resnet(_narrow_resnet(_BASIC, (2, 2, 2, 2)), _STEM, _STAGES),
    "resnet50_narrow": _resnet(_narrow_resnet(_BOTTLENECK, (3, 4, 6, 3)), _STEM, _STAGES),
    "vgg11_narrow": _vgg(_vgg11_narrow, (1, 4, 9, 14, 19), "classifier.4."),
}
INNER_STAGE = {"stage_before_last": -2, "two_before_last": -3}


def architecture_of(backbone: str) -> Architecture:
    return BACKBONES[backbone] if backbone in BACKBONES else study.at_hand().backbones[backbone]


def build(backbone: str, num_classes: int, seed: int, inner_layer: str | None = None) -> Backbone:
    """A freshly initialised network; the same seed gives the same parameters whatever the method.

    On one kind of processor: torch draws a normal distribution otherwise with other vector instructions, so that some
    tensors differ by up to 2e-7 between machines (22 of ResNet-18's 122, AVX2 against plain, torch 2.13.0).

    Args:
        backbone: A name of BACKBONES, or of the study's.
        seed: Becomes torch's global one.
        inner_layer: Which stage ends the piece `to_inner`; None means the stage before the last.
    """
    architecture = architecture_of(backbone)
    torch.manual_seed(seed)
    net = architecture.make(num_classes)
    inner = architecture.stages[INNER_STAGE[inner_layer or "stage_before_last"]]
    return Backbone(net, architecture.trunk, architecture.top, inner)
