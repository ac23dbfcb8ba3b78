"""Makes benchmark/mini_weights/<backbone>.safetensors: the narrow networks, trained to read one drawn number.

Mini VOC, Caltech-256 and CUB start where the paper starts, from networks that have seen much more data of another task.
"""

import math
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import save

from benchmark import models
from benchmark.data import mini
from benchmark.store import write_atomic
from benchmark.train import MEAN, STD, View

NUM_TRAIN, NUM_TEST = 20_000, 1_000
BATCH = 64
LEARNING_RATE = {"vgg19_narrow": 5e-4}  # others: 2e-3; without BatchNorm the deep plain network takes no more
NUM_TENS = 10  # 20 to 119 are read as 2 to 11 tens and 0 to 9 ones: 100 classes at once stall


def pretrain(backbone: str, target: Path, epochs: int, threads: int) -> float:
    """Train, write `target` (float16, without the classifier), return the accuracy on numbers drawn afresh."""
    torch.set_num_threads(threads)
    drawn = [mini.pretraining_image(i) for i in range(NUM_TRAIN + NUM_TEST)]
    images, labels = np.stack([d[0] for d in drawn]), torch.tensor([d[1] for d in drawn])
    view = View(MEAN, STD, 0)
    model = models.build(backbone, NUM_TENS + 10, seed=0).to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=1e-2)
    peak = LEARNING_RATE.get(backbone, 2e-3)
    steps = NUM_TRAIN // BATCH
    for epoch in range(epochs):
        model.train()
        order = np.random.default_rng(epoch).permutation(NUM_TRAIN)
        for step in range(steps):
            batch = order[step * BATCH : (step + 1) * BATCH]
            optimizer.param_groups[0]["lr"] = (
                peak / 2 * (1 + math.cos(math.pi * (epoch * steps + step) / (epochs * steps)))
            )
            logits = model(view.plain(images[batch]))
            loss = sum(F.cross_entropy(logits[:, place], digit) for place, digit in digits(labels[batch]))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        accuracy = _accuracy(model, view, images[NUM_TRAIN:], labels[NUM_TRAIN:])
        print(f"epoch {epoch + 1}/{epochs}: loss {loss.item():.3f}, accuracy {accuracy:.3f}", flush=True)
    state, head = model.net.state_dict(), models.BACKBONES[backbone].classifier
    kept = {k: v.half() if v.is_floating_point() else v for k, v in state.items() if not k.startswith(head)}
    write_atomic(target, save({k: v.contiguous() for k, v in kept.items()}))
    return accuracy


def digits(numbers: torch.Tensor) -> list[tuple[slice, torch.Tensor]]:
    """For tens and ones the logits that read them, and what is to be read."""
    return [(slice(NUM_TENS), numbers // 10 - 2), (slice(NUM_TENS, None), numbers % 10)]


@torch.no_grad()
def _accuracy(model: models.Backbone, view: View, images: np.ndarray, numbers: torch.Tensor) -> float:
    model.eval()
    logits = torch.cat([model(view.plain(images[i : i + BATCH])) for i in range(0, len(images), BATCH)])
    right = [logits[:, place].argmax(1) == digit for place, digit in digits(numbers)]
    return torch.stack(right).all(0).float().mean().item()
