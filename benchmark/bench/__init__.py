"""Speed as ratios of two sides measured in turns in one run, each only after both were seen to compute the same thing.

A row's value is the median of the pairs' ratios. Training steps run with a learning rate of 0: the weights stay, so
every step of a side does the same work on the same numbers.
"""

from collections.abc import Callable, Iterator

from benchmark.bench import rows
from benchmark.bench.compare import Row
from benchmark.bench.sides import Settings

BENCHES: dict[str, Callable[[Settings], Iterator[Row]]] = {
    "floor": rows.floors,
    "time": rows.wall_time,
    "naive": rows.naive,
    "eager": rows.eager,
    "memory": rows.memory,
    "maps": rows.maps,
    "loop": rows.cifar_loop,
    "wait": rows.waiting,
    "replay": rows.replay,
    "scheduler": rows.scheduler,
}


def measure(only: str | None, settings: Settings) -> Iterator[Row]:
    """The rows as they are measured; `only`: one of BENCHES."""
    for name, bench in BENCHES.items():
        if only in (None, name):
            yield from bench(settings)
