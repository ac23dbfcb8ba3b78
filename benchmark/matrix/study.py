"""The study at hand: the methods and networks that a job may name, and where its grids and tables lie: those of the
built-in study or, with `--study DIR`, these and what DIR adds:

    DIR/methods.py     METHODS, a dict of Method, and BACKBONES, of Architecture (methods/models.py), where it has any
    DIR/grids/*.yaml   DIR/tables/*.yaml

methods.py is the only code from outside that is ever run, and only where it is named. A built-in method is declared
without torch, so that listing and tabulating stay quick; what it computes is imported when it is first called.
"""

import hashlib
import importlib.util
import re
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache, cached_property
from importlib import import_module
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from benchmark.errors import UserError, nearest

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.\-]*")
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


def built_in() -> Study:
    return _built_in(tuple(import_module(BUILT_IN).METHODS.items()))


@cache
def _built_in(methods: tuple[tuple[str, Method], ...]) -> Study:
    return Study(dict(methods))


def use(folder: Path | None) -> None:
    """Make the study in `folder`, or without one the built-in study, the one at hand. UserError for what is wrong in
    its methods.py, with the line."""
    global _at_hand
    _at_hand = load(folder.expanduser()) if folder else built_in()


@contextmanager
def meanwhile(folder: str | Path | None) -> Iterator[None]:
    """With the study in `folder` at hand; without one, with the one that is."""
    global _at_hand
    before = at_hand()
    try:
        if folder is not None:
            use(Path(folder))
        yield
    finally:
        _at_hand = before


def load(folder: Path) -> Study:
    """The built-in study and what `folder` adds to it."""
    if not folder.is_dir():
        raise UserError(f"--study {folder}: no such folder; 'python -m benchmark init {folder}' writes one")
    path, methods = folder / "methods.py", built_in().methods
    if not path.is_file():
        return Study(methods, folder=folder)
    module = _run(path)
    own, backbones = getattr(module, "METHODS", {}), getattr(module, "BACKBONES", {})
    _check(path, own, backbones, methods)
    return Study({**methods, **own}, tuple(own), backbones, folder, hashlib.sha256(path.read_bytes()).hexdigest())


def _run(path: Path) -> Any:
    spec = importlib.util.spec_from_file_location("study_methods", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # it is somebody's program: anything may go wrong in it
        frames = [f.lineno for f in traceback.extract_tb(error.__traceback__) if Path(f.filename) == path]
        line = error.lineno if isinstance(error, SyntaxError) else frames[-1] if frames else 1
        raise UserError(f"{path}:{line}: {type(error).__name__}: {error}") from error
    return module


def _check(path: Path, own: Any, backbones: Any, methods: Mapping[str, Method]) -> None:
    from benchmark.matrix.job import BACKBONES, FIELDS, METHOD_FIELDS  # which asks for the study at hand

    if not isinstance(own, dict) or not all(isinstance(declared, Method) for declared in own.values()):
        raise UserError(f"{path}: METHODS: expected a dict of name: Method(function, ...)")
    if not isinstance(backbones, dict) or not all(hasattr(network, "make") for network in backbones.values()):
        raise UserError(f"{path}: BACKBONES: expected a dict of name: Architecture(make, trunk, ...)")
    for kind, names, taken in (("METHODS", own, methods), ("BACKBONES", backbones, BACKBONES)):
        for name in names:
            if not isinstance(name, str) or not NAME.fullmatch(name):
                raise UserError(f"{path}: {kind}: {name!r} is no name of letters, digits, -, _ and .")
            if name in taken:
                raise UserError(f"{path}: {kind}: '{name}' is built in; take another name")
    for name, declared in own.items():
        for read in declared.reads:
            if read not in METHOD_FIELDS:
                raise UserError(f"{path}: {name} reads '{read}', which is none" + nearest(read, METHOD_FIELDS))
        for option, about in (declared.options.model_fields if declared.options else {}).items():
            if option in FIELDS:
                raise UserError(f"{path}: {name}: option '{option}' is a field of every job; take another name")
            if about.is_required():
                raise UserError(f"{path}: {name}: option '{option}' needs a default")


def method(name: str) -> Method:
    """The method called `name`, which a Job has checked."""
    return at_hand().methods[name]
