"""Run by launch.in_ranks: one step of each method on this rank's share of some batches, as the training loop takes
it; the first rank saves losses and gradients. With one rank it gives what they are compared with."""

import copy
import sys
from functools import cache
from pathlib import Path

import torch

from benchmark.executors import launch
from benchmark.matrix import grid
from benchmark.methods import METHODS, models
from benchmark.train import distributed
from tests.networks import PAPER_METHODS

BATCHES = (6, 5, 1)  # shares of one size, of two sizes, and a rank without an image


def job(method: str):
    changes = {"backbone": "vgg11_narrow", "weights": "scratch", "precision": "float64", "image_size": 48}
    changes |= {"attention_weight": 1.0, "omega": 10} if method != "baseline" else {}
    return grid.load("voc").jobs("mini", changes, {"method": [method], "seed": [0]})[0]


@cache
def network() -> models.Backbone:
    return models.build("vgg11_narrow", 20, seed=0).double().train()  # a second, for torchvision's head that it drops


def step(method: str, batch: slice) -> dict[str, torch.Tensor]:
    model = copy.deepcopy(network())
    torch.manual_seed(1)
    images, labels = torch.randn(8, 3, 48, 48, dtype=torch.float64), torch.randint(0, 2, (8, 20)) * 2 - 1
    mine, weight = distributed.share(batch)
    _, terms = METHODS[method](model, images[mine], labels[mine], job(method), 0)
    loss = torch.stack(list(terms.values())).sum()
    (loss * weight).backward()
    distributed.sum_gradients(model)
    totals = distributed.summed({name: term.detach() * weight for name, term in (terms | {"loss": loss}).items()})
    return totals | {name: p.grad for name, p in model.named_parameters()}


def everything() -> dict[str, dict[str, torch.Tensor]]:
    return {f"{m} {n}": step(m, slice(8 - n, 8)) for m in PAPER_METHODS for n in BATCHES}


if __name__ == "__main__":
    with distributed.group(launch.started_ranks(), "cpu"):
        found = everything()
        turns = [slice(i, i + 1) for i in range(5)]
        seen = torch.zeros(5)
        for one in distributed.in_turns(turns):
            seen[one] += 1
        found["test images"] = distributed.summed({"seen": seen})
        norm = torch.nn.BatchNorm1d(1)
        norm.running_mean.fill_(distributed.rank())
        distributed.average_buffers(norm)
        found["buffers"] = dict(norm.named_buffers())
        if distributed.leads():
            torch.save(found, Path(sys.argv[1]))
