"""YAML as a person means it: duplicate keys are errors, 5e-4 is a number, `no` is a string, lines are remembered. Texts
are one line each, without control characters: they stand in tables, and on terminals."""

import re
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from benchmark.errors import CONTROL, UserError


class _Loader(yaml.SafeLoader):
    """SafeLoader with YAML 1.2's core scalars only: no yes/no booleans, sexagesimals, octals or dates."""


_Loader.yaml_implicit_resolvers = {}
for _tag, _pattern, _first in (
    ("null", r"null|~|", [*"n~", ""]),
    ("bool", r"true|false", "tf"),
    ("int", r"[-+]?[0-9]+", "-+0123456789"),
    ("float", r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.inf|\.nan", "-+0123456789."),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(rf"^(?:{_pattern})$"), list(_first))
# SafeLoader reads an int with a leading zero as octal; here 010 is ten.
_Loader.add_constructor("tag:yaml.org,2002:int", lambda loader, node: int(node.value))

Lines = dict[tuple, int]


def load(path: Path) -> tuple[Any, Lines]:
    """The document, and the line (from 1) of each key path in it. UserError for anything that is not strict YAML."""
    return parse(read(path), path)


def read(path: Path) -> str:
    if path.exists() and not path.is_file():  # a pipe or a device may have no end, or no beginning
        raise UserError(f"{path}: is no regular file; name one")
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read as UTF-8 text ({error})") from None


def parse(text: str, path: Path) -> tuple[Any, Lines]:
    """As `load`, of a file's text."""
    lines: Lines = {}
    try:
        root = _composed(text)
        document = _construct(root, (), lines, str(path)) if root is not None else None
    except (yaml.YAMLError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        at = f":{mark.line + 1}" if mark else ""
        raise UserError(f"{path}{at}: not valid YAML: {getattr(error, 'problem', None) or error}") from None
    return document, lines


@lru_cache(maxsize=64)
def _composed(text: str) -> yaml.Node | None:
    """Kept, as a command loads a table more than once; what is constructed from it is new each time."""
    return yaml.compose(text, _Loader)


def scalar(text: str) -> Any:
    """One value from the command line, read as the YAML files are."""
    try:
        node = yaml.compose(text, _Loader)
        return None if node is None else _construct(node, (), {}, repr(text))
    except yaml.YAMLError:
        raise UserError(f"{text!r} is not a YAML value") from None


def _construct(node: yaml.Node, at: tuple, lines: Lines, source: str) -> Any:
    lines[at] = node.start_mark.line + 1
    if isinstance(node, yaml.MappingNode):
        mapping: dict[str, Any] = {}
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            if not isinstance(key_node, yaml.ScalarNode):
                raise UserError(f"{source}:{line}: a key must be a plain name")
            if CONTROL.search(key_node.value) or "\n" in key_node.value:
                raise UserError(f"{source}:{line}: a key must be a plain name")
            if key_node.value in mapping:
                raise UserError(f"{source}:{line}: duplicate key '{key_node.value}'; keep one of the two")
            mapping[key_node.value] = _construct(value_node, (*at, key_node.value), lines, source)
            lines[(*at, key_node.value)] = line
        return mapping
    if isinstance(node, yaml.SequenceNode):
        return [_construct(child, (*at, i), lines, source) for i, child in enumerate(node.value)]
    try:
        value = _Loader("").construct_object(node)
        if not isinstance(value, str):
            return value
        if found := CONTROL.search(value):
            raise ValueError(f"holds the control character U+{ord(found[0]):04X}; take it out")
        return " ".join(value.splitlines())
    except (yaml.YAMLError, ValueError, OverflowError) as error:
        raise UserError(f"{source}:{node.start_mark.line + 1}: {node.value[:80]!r}: {error}".splitlines()[0]) from None


def line_of(lines: Lines, loc: tuple) -> int:
    """The line of the longest known prefix of `loc`; 1 in an empty document, which has none."""
    while loc and loc not in lines:
        loc = loc[:-1]
    return lines.get(loc, 1)
