"""The narrow networks' weights: what pretraining leaves for the next training."""

import numpy as np
import torch

from benchmark.matrix.grid import mini_weights
from benchmark.methods import models
from benchmark.train import batches, pretrain, weights

VGG = "vgg11_narrow"


def drawn(count: int) -> torch.Tensor:
    """Images of the recipe, as the network sees them."""
    pixels = np.stack([pretrain.RECIPES[VGG].draw(i)[0] for i in range(count)])
    return batches.View(batches.MEAN, batches.STD, 0).plain(pixels)


@torch.no_grad()
def sizes(model: models.Backbone, x: torch.Tensor) -> list[float]:
    """Root mean square of each ReLU's output."""
    found, net = [], model.net
    for module in (*net.features, net.avgpool, net.flatten, *net.classifier[:-1]):
        x = module(x)
        found += [x.square().mean().sqrt().item()] if isinstance(module, torch.nn.ReLU) else []
    return found


@torch.no_grad()
def test_unit_scale_keeps_what_the_network_computes():
    model, images = models.build(VGG, 30, seed=0), drawn(16)
    for i, parameter in enumerate(model.parameters()):
        parameter *= 1 + i % 3
        parameter += 0.02 * (i % 2)  # biases too, or their scaling would go untested
    classifier = model.net.classifier[-1]
    classifier.bias.zero_()
    before = model(images)
    pretrain.to_unit_scale(model.net, images)
    assert np.allclose(sizes(model, images), 1, atol=1e-4)
    after = model(images)
    factor = (before * after).sum() / after.square().sum()
    assert abs(factor - 1) > 0.1
    assert torch.allclose(before, factor * after, rtol=1e-3, atol=1e-3 * before.abs().max().item())


def test_packaged_vgg_is_of_unit_scale():
    model = models.build(VGG, 30, seed=0)
    weights.load(model, VGG, mini_weights(VGG))
    assert all(0.9 < size < 1.1 for size in sizes(model, drawn(32)))


def test_last_layer_starts_as_torchvision_s_vgg_does():
    fresh = models.build(VGG, 256, seed=0).net.classifier[-1]
    assert abs(fresh.weight.std().item() - 0.01) < 0.0005
    assert not fresh.bias.any()
