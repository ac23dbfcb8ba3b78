"""Makes benchmark/mini_weights/<backbone>.safetensors: the narrow networks, trained to read one drawn number.

Mini VOC, Caltech-256 and CUB start where the paper starts, from networks that have seen much more data of another task.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import save
from torch import Tensor, nn

from benchmark.data import mini
from benchmark.methods import models
from benchmark.methods.torchvision_ops import torchvision
from benchmark.store.files import write_atomic
from benchmark.train.batches import MEAN, STD, View

NUM_TEST, BATCH = 1_000, 64


@dataclass(frozen=True)
class Recipe:
    """`draw(i)` gives an image and its number; `digits(numbers)` what is read from it, each in 0 ... 9: all numbers as
    classes at once would stall."""

    draw: Callable[[int], tuple[np.ndarray, int]]
    digits: Callable[[Tensor], tuple[Tensor, ...]]
    num_train: int
    epochs: int
    learning_rate: float


def _faded(epochs: int, learning_rate: float = 2e-3) -> Recipe:
    return Recipe(mini.pretraining_faded, lambda n: (n // 100, n // 10 % 10, n % 10), 10_000, epochs, learning_rate)


RECIPES = {
    "resnet18_narrow": Recipe(mini.pretraining_image, lambda n: (n // 10 - 2, n % 10), 20_000, 10, 2e-3),
    "resnet50_narrow": _faded(5),
    "vgg11_narrow": _faded(8, 5e-4),  # without BatchNorm it takes no larger steps
}


def pretrain(backbone: str, target: Path, threads: int) -> float:
    """Train, write `target` (float16, without the classifier), return the accuracy on numbers drawn afresh."""
    torch.set_num_threads(threads)
    recipe = RECIPES[backbone]
    drawn = [recipe.draw(i) for i in range(recipe.num_train + NUM_TEST)]
    images, labels = np.stack([d[0] for d in drawn]), torch.tensor([d[1] for d in drawn])
    view = View(MEAN, STD, 0)
    model = models.build(backbone, 10 * len(recipe.digits(labels)), seed=0)
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    plain = not any(isinstance(module, nn.BatchNorm2d) for module in model.modules())
    if plain:  # PyTorch's own, larger draw: from VGG's small last layer the first epoch stays at chance
        last = model.net.get_submodule(models.BACKBONES[backbone].classifier.rstrip("."))
        assert isinstance(last, nn.Linear)
        last.reset_parameters()
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=1e-2)
    peak, epochs, steps = recipe.learning_rate, recipe.epochs, recipe.num_train // BATCH
    for epoch in range(epochs):
        model.train()
        order = np.random.default_rng(epoch).permutation(recipe.num_train)
        for step in range(steps):
            batch = order[step * BATCH : (step + 1) * BATCH]
            optimizer.param_groups[0]["lr"] = (
                peak / 2 * (1 + math.cos(math.pi * (epoch * steps + step) / (epochs * steps)))
            )
            logits = model(view.plain(images[batch]))
            losses = (F.cross_entropy(part, digit) for part, digit in read(logits, recipe, labels[batch]))
            loss = sum(losses, start=torch.zeros(()))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        accuracy = _accuracy(model, view, recipe, images[-NUM_TEST:], labels[-NUM_TEST:])
        print(f"epoch {epoch + 1}/{epochs}: loss {loss.item():.3f}, accuracy {accuracy:.3f}", flush=True)
    if plain:
        to_unit_scale(model.net, view.plain(images[: 4 * BATCH]))
    state, head = model.net.state_dict(), models.BACKBONES[backbone].classifier
    kept = {k: v.half() if v.is_floating_point() else v for k, v in state.items() if not k.startswith(head)}
    write_atomic(target, save({k: v.contiguous() for k, v in kept.items()}))
    return accuracy


@torch.no_grad()
def to_unit_scale(vgg: torchvision.models.VGG, images_BCHW: Tensor) -> None:
    """Scale each layer so that its ReLU's output has a root mean square of 1 over these images.

    ReLU and pooling pass positive factors on, so the last layer sees what it saw, times a constant. Features ten times
    as large, where AdamW leaves them, put the next training's SGD to chance within an epoch at the paper's step size.
    """
    x = images_BCHW
    scale: Tensor | float = 1.0  # x before, divided by x now
    for module in (*vgg.features, vgg.avgpool, vgg.flatten, *vgg.classifier[:-1]):
        if not isinstance(module, nn.Conv2d | nn.Linear):
            x = module(x)
            continue
        assert module.bias is not None
        module.bias.div_(scale)
        x = module(x)
        size = x.relu().square().mean().sqrt()
        for tensor in (module.weight, module.bias, x):
            tensor /= size
        scale *= size


def read(logits: Tensor, recipe: Recipe, numbers: Tensor) -> list[tuple[Tensor, Tensor]]:
    """For each digit the logits that read it, (B, 10), and the digit, (B,)."""
    digits = recipe.digits(numbers)
    return list(zip(logits.split(10, dim=1), digits, strict=True))


@torch.no_grad()
def _accuracy(model: models.Backbone, view: View, recipe: Recipe, images: np.ndarray, numbers: Tensor) -> float:
    model.eval()
    logits = torch.cat([model(view.plain(images[i : i + BATCH])) for i in range(0, len(images), BATCH)])
    right = [part.argmax(1) == digit for part, digit in read(logits, recipe, numbers)]
    return torch.stack(right).all(0).float().mean().item()
