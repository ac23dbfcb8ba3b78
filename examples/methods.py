"""Two methods and a small network: one method helps, the other does nothing that could."""

import torch
from torch import nn

from benchmark.methods import Method
from benchmark.methods.baseline import baseline, classification_loss
from benchmark.methods.models import Architecture

HEAD_RATE = 10  # times the learning rate
DUST = 1e-6  # of the images' spread: enough to round otherwise, too little to steer


def hot_head(model, images_BCHW, labels, job, epoch):
    """The baseline with a last layer whose gradient, and so whose learning rate, is HEAD_RATE times as high."""
    feat = model.to_last(model.to_inner(images_BCHW))
    of_head_BC = model.head(feat.detach())
    logits_BC = model.head(feat) + (HEAD_RATE - 1) * (of_head_BC - of_head_BC.detach())
    return logits_BC, {"classification": classification_loss(logits_BC, labels, job)}


def dusted(model, images_BCHW, labels, job, epoch):
    """The baseline on images with noise that nobody could see."""
    return baseline(model, images_BCHW + DUST * torch.randn_like(images_BCHW), labels, job, epoch)


def tiny(num_classes: int) -> nn.Module:
    """Three convolutions, which make 4x4 of 32x32 pixels."""

    def stage(num_in: int, num_out: int) -> nn.Sequential:
        return nn.Sequential(nn.Conv2d(num_in, num_out, 3, 2, 1, bias=False), nn.BatchNorm2d(num_out), nn.ReLU())

    net = nn.Module()
    net.one, net.two, net.three = stage(3, 16), stage(16, 32), stage(32, 64)
    net.pool, net.flat, net.linear = nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(64 * 4 * 4, num_classes)
    return net


METHODS = {
    "hot_head": Method(hot_head, title="+ Hot head"),
    "dusted": Method(dusted, title="+ Dust"),
}
BACKBONES = {
    "tiny": Architecture(tiny, ("one", "two", "three"), ("one", "two", "three"), ("pool", "flat", "linear"), "linear."),
}
