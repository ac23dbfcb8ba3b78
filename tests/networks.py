"""Networks for tests of one step: each is made once, and copied."""

import copy
from collections.abc import Iterable
from functools import cache

import pytest
import torch
from torch import nn

from benchmark.methods import models

HIDDEN = 64
# What a step and a loop are tried with: the paper's columns. Controls are made of these (test_controls.py), and all
# that is declared takes a step in test_contract.py.
PAPER_METHODS = ("baseline", "icasc-grad_cam", "icasc-a_ch")

# The same blocks as in another one, more often or wider.
LARGE = {"resnet18", "resnet50", "resnet101", "vgg19", "resnet32", "resnet56", "resnet110"}


def quick_first(backbones: Iterable[str]) -> list:
    """Parameters of a test; `make test` leaves the large ones out."""
    return [pytest.param(name, marks=[pytest.mark.slow] if name in LARGE else []) for name in backbones]


@cache
def _made(backbone: str, num_classes: int, inner_layer: str | None) -> models.Backbone:
    model = models.build(backbone, num_classes, 0, inner_layer)
    if backbone == "vgg19":
        net = model.net.classifier
        net[0], net[3] = torch.nn.Linear(net[0].in_features, HIDDEN), torch.nn.Linear(HIDDEN, HIDDEN)
        net[6] = torch.nn.Linear(HIDDEN, num_classes)
    return model


def build(backbone: str, num_classes: int, inner_layer: str | None = None) -> models.Backbone:
    """As `models.build` makes it from seed 0; but VGG-19's two hidden layers, which hold 120 of its 140 million
    parameters, have 64 units instead of 4096. All its layers are there."""
    return copy.deepcopy(_made(backbone, num_classes, inner_layer or "stage_before_last"))


class Smooth(nn.Module):
    """Three smooth convolutional stages and a pooled linear head: float64 finite differences have no kinks of ReLU
    inside the network, only those of the maps."""

    def __init__(self, batch_norm: bool = False, deep_head: bool = False) -> None:
        super().__init__()
        norm = nn.BatchNorm2d if batch_norm else (lambda _: nn.Identity())
        self.stage1 = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), norm(4), nn.Softplus())
        self.stage2 = nn.Sequential(nn.Conv2d(4, 5, 3, padding=1), norm(5), nn.Softplus())
        self.stage3 = nn.Sequential(nn.Conv2d(5, 6, 3, padding=1, stride=2), norm(6), nn.Softplus())
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.fc = nn.Sequential(nn.Linear(6, 7), nn.Tanh(), nn.Linear(7, 4)) if deep_head else nn.Linear(6, 4)


def smooth(**options) -> models.Backbone:
    """In float64, with evidence for every class everywhere, so that no map is blank."""
    torch.manual_seed(3)
    net = Smooth(**options)
    for name, parameter in net.named_parameters():
        if "weight" in name and ("stage3" in name or "fc" in name):
            parameter.data.abs_()
    return models.Backbone(net, ("stage1", "stage2", "stage3"), ("avgpool", "flatten", "fc"), "stage2").double()
