"""A ratio of two sides, measured in turns, and only after both were seen to compute the same thing."""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmark.bench.sides import Settings, random_batch, seconds
from benchmark.matrix.job import Job
from benchmark.methods.baseline import Terms
from benchmark.train import loop
from benchmark.train.step import EAGER_STEPS, Step

# How far apart the two sides may be: relative difference of each loss, and of the whole gradient.
TOLERANCE = {"float32": (1e-4, 1e-2), "bfloat16": (2e-2, 0.5)}


class NotTheSameError(Exception):
    """The two sides of a ratio do not compute the same thing."""


@dataclass(frozen=True)
class Row:
    """One measured number. No value: `note` says why. target: a bound such as '<= 1.5'; None where there is none."""

    name: str
    value: float | None
    unit: str
    target: str | None
    note: str


def paired(a: Callable[[], Any], b: Callable[[], Any], settings: Settings) -> tuple[float, str]:
    """Median of time a / time b over pairs that take turns in going first, and a note with what it is made of. On a CPU
    that others use too, the ratio of processor time, which the note has, is the steadier one."""
    spent: dict[Any, list[tuple[float, float]]] = {a: [], b: []}
    for _ in range(4 if settings.on_gpu else 1):  # a recording starts after three steps
        a(), b()
    for i in range(settings.pairs):
        for side in (a, b) if i % 2 else (b, a):
            spent[side].append(seconds(side, settings.device))
    wall, processor = np.median(np.array(spent[a]) / np.array(spent[b]), axis=0)
    of_a, of_b = (1e3 * np.median(spent[side], axis=0)[0] for side in (a, b))
    note = f"{of_a:.1f} / {of_b:.1f} ms, {settings.pairs} pairs"
    return float(wall), note if settings.on_gpu else f"{note}; processor time {processor:.2f}"


def compared(
    name: str, a: Callable[[], Any], b: Callable[[], Any], same: Callable[[], None], target: str | None,
    settings: Settings, note: str = "",
) -> Row:  # fmt: skip
    """Time of a over time of b; no value where `same` raises NotTheSameError."""
    try:
        same()
    except NotTheSameError as error:
        return Row(name, None, "time ratio", target, f"refused: {error}")
    ratio, measured = paired(a, b, settings)
    return Row(name, ratio, "time ratio", target, note + measured)


def same_terms(a: Terms, b: Terms, precision: str) -> None:
    """The terms that both have are equal. NotTheSameError names the first that is not."""
    for name in a.keys() & b.keys():
        mine, its = float(a[name]), float(b[name])
        if not abs(mine - its) <= TOLERANCE[precision][0] * max(abs(its), 0.01):
            raise NotTheSameError(f"{name} is {mine:.6g} on one side, {its:.6g} on the other")


def same_sides(a: Callable[[], Terms], b: Callable[[], Terms], precision: str) -> None:
    """One call of each gives the same terms."""
    same_terms(a(), b(), precision)


def same_gradients(a: torch.nn.Module, b: torch.nn.Module, precision: str) -> None:
    mine, its = (
        torch.cat([p.grad.double().flatten() for _, p in sorted(m.named_parameters()) if p.grad is not None])
        for m in (a, b)
    )
    distance = float((mine - its).norm() / its.norm())
    if not distance <= TOLERANCE[precision][1]:
        raise NotTheSameError(f"the gradients are {100 * distance:.2g}% apart")


def replay_apart(job: Job, device: torch.device, num_classes: int = 20, batch: int = 4) -> list[float]:
    """How far a recorded step's change of the weights is from an eager one's, relative to it, for each of some steps
    that fall in rate; before each the eager network is made the other's copy. A network with dropout draws twice."""
    torch.backends.cudnn.deterministic = True
    execution = loop.Execution(None, None, Path(), str(device), torch.get_num_threads())
    eager, recorded = (loop.start(job, num_classes, execution) for _ in range(2))
    steps = [Step(s.model.train(), s.optimizer, job, s is recorded) for s in (eager, recorded)]
    images, labels = random_batch(job, num_classes, batch, device)
    apart = []
    for i in range(EAGER_STEPS + 3):
        eager.model.load_state_dict(recorded.model.state_dict())
        eager.optimizer.load_state_dict(copy.deepcopy(recorded.optimizer.state_dict()))
        before = _flat(eager.model)
        for step in steps:
            step(images.roll(i, 0), labels, 0, 0.1 * 0.5**i)
        change, its = (_flat(s.model) - before for s in (eager, recorded))
        apart.append(float((its - change).norm() / change.norm()))
    return apart


def _flat(model: torch.nn.Module) -> torch.Tensor:
    return torch.cat([p.detach().double().flatten() for p in model.parameters()])
