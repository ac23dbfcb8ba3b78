"""The study at hand: the methods and networks that a job may name, and where its grids and tables lie: those of the
built-in study or, with `--study DIR`, these and what DIR adds (matrix/own.py).

A built-in method is declared without torch, so that listing and tabulating stay quick; what it computes is imported
when it is first called.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache, cached_property
from importlib import import_module
from pathlib import Path
from typing import Any

from pydantic import BaseModel

BUILT_IN = "benchmark.methods"  # read by its name like an outside study's file, since rooms import only from below


@dataclass(frozen=True)
class Method:
    """function(model, images_BCHW, labels, job, epoch) -> (logits_BC, named loss terms): see benchmark/methods.

    reads: the METHOD_FIELDS of a job (matrix/job.py) that it reads; a job of it holds no others, so that varying these
    gives it no new id. options: a pydantic model of what it reads beside them, each with a default. Where a grid sets
    them they are named like fields; `job.options` is an instance, and is part of the id where it differs from the
    defaults. title: of its column in tables that give it none. maps: the kind of attention maps that it is to move
    apart, as `a_ch`, so that tables say whether it did; None for one that moves none. train_share: of the images that a
    baseline of the same seed trains on, in (0, 1]; it trains on so many of them. guided: it is
    given the objects' boxes too, of VOC's layout, as columns after the labels'.
    """

    function: Callable[..., tuple[Any, dict[str, Any]]]
    reads: tuple[str, ...] = ()
    options: type[BaseModel] | None = None
    title: str | None = None
    maps: str | None = None
    train_share: float = 1.0
    guided: bool = False

    def __call__(self, *batch: Any) -> tuple[Any, dict[str, Any]]:
        return self.function(*batch)

    @cached_property
    def option_names(self) -> tuple[str, ...]:
        return tuple(self.options.model_fields) if self.options else ()


@dataclass(frozen=True, eq=False)  # two are never one, so that what was checked for one is not taken for the other
class Study:
    """methods: all that may be named; own: those of them, and backbones: the networks, that the folder's file adds.
    sha256: of that file."""

    methods: Mapping[str, Method]
    own: tuple[str, ...] = ()
    backbones: Mapping[str, Any] = field(default_factory=dict)
    folder: Path | None = None
    sha256: str | None = None

    @cached_property
    def option_names(self) -> tuple[str, ...]:
        """Of all methods."""
        return tuple(dict.fromkeys(name for method in self.methods.values() for name in method.option_names))


_at_hand: Study | None = None


def at_hand() -> Study:
    global _at_hand
    _at_hand = _at_hand or built_in()
    return _at_hand


def activate(chosen: Study | None) -> None:
    """Make `chosen`, or without one the built-in study, the one at hand."""
    global _at_hand
    _at_hand = chosen or built_in()


def built_in() -> Study:
    return _built_in(tuple(import_module(BUILT_IN).METHODS.items()))


@cache
def _built_in(methods: tuple[tuple[str, Method], ...]) -> Study:
    return Study(dict(methods))


def method(name: str) -> Method:
    """The method called `name`, which a Job has checked."""
    return at_hand().methods[name]
