"""A study of one's own, which `--study DIR` names: the built-in study's methods and networks, and what DIR adds:

    DIR/methods.py     METHODS, a dict of Method, and BACKBONES, of Architecture (methods/models.py), where it has any
    DIR/grids/*.yaml   DIR/tables/*.yaml

methods.py is the only code from outside that is ever run, and only where it is named.
"""

import hashlib
import importlib.util
import re
import sys
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmark.errors import UserError, nearest
from benchmark.matrix import study
from benchmark.matrix.job import BACKBONES, FIELDS, METHOD_FIELDS
from benchmark.matrix.study import Method, Study

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.\-]*")


def use(folder: Path | None) -> None:
    """Make the study in `folder`, or without one the built-in study, the one at hand. UserError for what is wrong in
    its methods.py, with the line."""
    study.activate(load(folder.expanduser()) if folder else None)


@contextmanager
def meanwhile(folder: str | Path | None) -> Iterator[None]:
    """With the study in `folder` at hand; without one, with the one that is."""
    before = study.at_hand()
    try:
        if folder is not None:
            use(Path(folder))
        yield
    finally:
        study.activate(before)


def load(folder: Path) -> Study:
    """The built-in study and what `folder` adds to it."""
    if not folder.is_dir():
        raise UserError(f"--study {folder}: no such folder; 'python -m benchmark init {folder}' writes one")
    path, methods = folder / "methods.py", study.built_in().methods
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
