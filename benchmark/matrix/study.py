"""The study at hand: the methods that a job may name. A method is declared here without torch, so that listing and
tabulating stay quick; what it computes is imported when it is first called."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib import import_module
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
    apart, as `a_ch`, so that tables say whether it did; None for one that moves none.
    """

    function: Callable[..., tuple[Any, dict[str, Any]]]
    reads: tuple[str, ...] = ()
    options: type[BaseModel] | None = None
    title: str | None = None
    maps: str | None = None

    def __call__(self, *batch: Any) -> tuple[Any, dict[str, Any]]:
        return self.function(*batch)

    @property
    def option_names(self) -> tuple[str, ...]:
        return tuple(self.options.model_fields) if self.options else ()


@dataclass(frozen=True)
class Study:
    methods: dict[str, Method]

    @property
    def option_names(self) -> tuple[str, ...]:
        """Of all methods."""
        return tuple(dict.fromkeys(name for method in self.methods.values() for name in method.option_names))


@cache
def at_hand() -> Study:
    return Study(dict(import_module(BUILT_IN).METHODS))


def method(name: str) -> Method:
    """The method called `name`, which a Job has checked."""
    return at_hand().methods[name]
