"""Backbones, cut where the attention maps are taken.

A Backbone runs as three consecutive pieces, so that the maps need no hooks:

    images -> to_inner -> feat_inner -> to_last -> feat_last -> head -> logits
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from benchmark.errors import UserError
from benchmark.torchvision_ops import torchvision


class Backbone(nn.Module):
    """`net`'s children named in `trunk` run in that order, then those in `top`, which end in the logits.

    `inner` and `last` are children of the trunk, `last` its final one: their outputs are the feature maps that
    attention is computed on.
    """

    def __init__(self, net: nn.Module, trunk: tuple[str, ...], top: tuple[str, ...], inner: str) -> None:
        super().__init__()
        self.net = net
        cut = trunk.index(inner) + 1
        self._pieces = {"to_inner": trunk[:cut], "to_last": trunk[cut:], "head": top}
        for module in net.modules():
            if hasattr(module, "inplace"):
                module.inplace = False  # an in-place ReLU would overwrite the feature map that a piece returned

    def _run(self, piece: str, x: Tensor) -> Tensor:
        for name in self._pieces[piece]:
            x = getattr(self.net, name)(x)
        return x

    def to_inner(self, images_BCHW: Tensor) -> Tensor:
        return self._run("to_inner", images_BCHW)

    def to_last(self, feat_inner_BKHW: Tensor) -> Tensor:
        return self._run("to_last", feat_inner_BKHW)

    def head(self, feat_last_BKHW: Tensor) -> Tensor:
        return self._run("head", feat_last_BKHW)

    def forward(self, images_BCHW: Tensor) -> Tensor:
        return self.head(self.to_last(self.to_inner(images_BCHW)))

    def pooled_linear_weight(self) -> Tensor | None:
        """W (num_classes, K) where the head is global average pooling and this one linear layer, else None."""
        pool, *_, classifier = (getattr(self.net, name) for name in self._pieces["head"])
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


def _resnet18_narrow(num_classes: int) -> nn.Module:
    """ResNet-18 with a quarter of its channels and a 3x3 stem of stride 2 without pooling: 80 pixels end in 5x5."""
    block = torchvision.models.resnet.BasicBlock
    net = nn.Module()
    net.conv1 = nn.Conv2d(3, 16, 3, stride=2, padding=1, bias=False)
    net.bn1 = nn.BatchNorm2d(16)
    net.relu = nn.ReLU()
    width = 16
    for stage, channels in enumerate((16, 32, 64, 128), start=1):
        stride = 1 if stage == 1 else 2
        shortcut = None
        if stage > 1:
            shortcut = nn.Sequential(nn.Conv2d(width, channels, 1, stride, bias=False), nn.BatchNorm2d(channels))
        setattr(
            net, f"layer{stage}", nn.Sequential(block(width, channels, stride, shortcut), block(channels, channels))
        )
        width = channels
    net.avgpool = nn.AdaptiveAvgPool2d(1)
    net.flatten = nn.Flatten()
    net.fc = nn.Linear(width, num_classes)
    for module in net.modules():  # He et al., as torchvision initialises its ResNets
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    return net


_RESNET_STAGES = ("layer1", "layer2", "layer3", "layer4")
_RESNET_TOP = ("avgpool", "flatten", "fc")

BACKBONES = {
    "resnet18": Architecture(
        make=_torchvision_resnet("resnet18"),
        trunk=("conv1", "bn1", "relu", "maxpool", *_RESNET_STAGES),
        stages=_RESNET_STAGES,
        top=_RESNET_TOP,
        classifier="fc.",
    ),
    "resnet18_narrow": Architecture(
        make=_resnet18_narrow,
        trunk=("conv1", "bn1", "relu", *_RESNET_STAGES),
        stages=_RESNET_STAGES,
        top=_RESNET_TOP,
        classifier="fc.",
    ),
}
INNER_STAGE = {"stage_before_last": -2, "two_before_last": -3}


def build(backbone: str, num_classes: int, seed: int, inner_layer: str | None = None) -> Backbone:
    """A freshly initialised network; the same seed gives the same parameters whatever the method."""
    architecture = BACKBONES[backbone]
    torch.manual_seed(seed)
    net = architecture.make(num_classes)
    inner = architecture.stages[INNER_STAGE[inner_layer or "stage_before_last"]]
    return Backbone(net, architecture.trunk, architecture.top, inner)


def load_weights(model: Backbone, backbone: str, path: Path) -> None:
    """Pretrained parameters from a .safetensors or .pth file, all but the classifier's, which stay as initialised.

    UserError where the file cannot be read or does not fit the network.
    """
    try:
        if path.suffix == ".safetensors":
            state = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
        state = {name: tensor.float() for name, tensor in state.items()}
    except FileNotFoundError:
        raise UserError(f"{path}: no such weights file") from None
    except Exception as error:  # a damaged file, or one that holds other things than tensors, fails in many ways
        raise UserError(f"{path}: not a weights file ({type(error).__name__})") from None
    prefix = BACKBONES[backbone].classifier
    own = model.net.state_dict()
    kept = {name: tensor for name, tensor in own.items() if name.startswith(prefix)}
    given = {name: tensor for name, tensor in state.items() if not name.startswith(prefix)}
    # Files from before torch 0.4 lack BatchNorm's batch counters, which nothing here reads.
    counters = {n: t for n, t in own.items() if n.endswith("num_batches_tracked") and n not in given}
    for name, tensor in own.items():
        if name in kept or name in counters:
            continue
        if name not in given:
            raise UserError(f"{path}: does not fit {backbone}: it has no '{name}'")
        if given[name].shape != tensor.shape:
            raise UserError(
                f"{path}: does not fit {backbone}: '{name}' is {tuple(given[name].shape)}, "
                f"the network's is {tuple(tensor.shape)}"
            )
    extra = [name for name in given if name not in own]
    if extra:
        raise UserError(f"{path}: does not fit {backbone}: it has '{extra[0]}', which the network has not")
    model.net.load_state_dict(given | kept | counters)
