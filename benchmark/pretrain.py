"""Makes benchmark/mini_weights.safetensors: the narrow ResNet-18, trained to name one drawn number.

Mini VOC starts where the paper starts, from a network that has seen much more data of another task.
"""

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from benchmark import models
from benchmark.data import mini
from benchmark.grid import load as load_grid
from benchmark.train import learning_rate, to_device

NUM_TRAIN, NUM_TEST = 20_000, 1_000
EPOCHS, BATCH, LEARNING_RATE = 10, 64, 2e-3
TENS, ONES = slice(0, 10), slice(10, 20)  # 20 to 119 read as 2 to 11 tens and 0 to 9 ones; 100 classes at once stall


def pretrain(target: Path, threads: int) -> float:
    """Train, write `target` (float16, without the classifier), return the accuracy on numbers drawn afresh."""
    torch.set_num_threads(threads)
    job = load_grid("voc").jobs("mini")[0].model_copy(update={"learning_rate": LEARNING_RATE})
    drawn = [mini.pretraining_image(i) for i in range(NUM_TRAIN + NUM_TEST)]
    images, labels = np.stack([d[0] for d in drawn]), torch.tensor([d[1] for d in drawn])
    device = torch.device("cpu")
    model = models.build("resnet18_narrow", 20, seed=0).to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=1e-2)
    steps = NUM_TRAIN // BATCH
    for epoch in range(EPOCHS):
        model.train()
        order = np.random.default_rng(epoch).permutation(NUM_TRAIN)
        for step in range(steps):
            batch = order[step * BATCH : (step + 1) * BATCH]
            optimizer.param_groups[0]["lr"] = learning_rate(job, epoch * steps + step, EPOCHS * steps)
            logits = model(to_device(images[batch], None, device, job))
            loss = F.cross_entropy(logits[:, TENS], labels[batch] // 10)
            loss = loss + F.cross_entropy(logits[:, ONES], labels[batch] % 10)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        accuracy = _accuracy(model, images[NUM_TRAIN:], labels[NUM_TRAIN:], job)
        print(
            f"epoch {epoch + 1}/{EPOCHS}: loss {loss.item():.3f}, accuracy on fresh numbers {accuracy:.3f}", flush=True
        )
    kept = {k: v.half() if v.is_floating_point() else v for k, v in model.net.state_dict().items() if "fc." not in k}
    save_file({k: v.contiguous() for k, v in kept.items()}, target)
    return accuracy


@torch.no_grad()
def _accuracy(model: models.Backbone, images: np.ndarray, labels: torch.Tensor, job) -> float:
    model.eval()
    device = torch.device("cpu")
    batches = (to_device(images[i : i + BATCH], None, device, job) for i in range(0, len(images), BATCH))
    logits = torch.cat([model(batch) for batch in batches])
    read = logits[:, TENS].argmax(1) * 10 + logits[:, ONES].argmax(1)
    return (read == labels).float().mean().item()
