"""Which code made a run, and whether what trains has changed since. Reads git; never imports torch.

Training code is every definition that ENTRANCES, and the functions of the table METHODS, reach through the names and
imports in them, but for what keeps records (the room `store` without its metrics, train/recording.py), what names jobs
(`matrix`, whose every choice is in a job's id) and what unpacks archives, whole or not at all: these change what is
written about a number, not the number.

A definition is compared by its syntax tree without comments, docstrings, annotations, assertions, and without the names
of local variables and of modules. So a file that moves, a function that moves to another file, or a better name of a
variable makes no run stale; any other edit does.

Limits: what is reached by another way than by a name (getattr) is not followed; packages are not looked into, their
versions stand in environment.json; that an edit changes no bit, only running it again would show.
"""

import ast
import hashlib
import os
import pickle
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from benchmark.store.records import Code
from benchmark.version import VERSION

ROOT = Path(__file__).parents[2]
ENTRANCES = ("open_splits", "start", "train_and_test")  # what train/loop.py calls for a job, one after the other
METHODS = ("benchmark/methods/__init__.py", "METHODS")  # whose functions a job names
NO_NUMBER = (
    "benchmark/store/", "benchmark/matrix/", "benchmark/train/recording.py", "benchmark/data/archives.py",
    "benchmark/errors.py", "benchmark/version.py",
)  # fmt: skip
NUMBERS = ("benchmark/store/metrics.py",)
MOVED = {"benchmark/published/": "tables/"}  # a folder of now, and where older commits have its files


def _git(*arguments: str, given: bytes | None = None) -> bytes | None:
    """What git prints; None where there is no git, no repository of the suite's, or no such commit."""
    return _printed(ROOT, *arguments, given=given) if _has_a_repository(ROOT) else None


@cache
def _has_a_repository(root: Path) -> bool:
    """An installed package may lie inside a repository of the user's, whose commits say nothing of the suite."""
    return (_printed(root, "ls-files", "--full-name", "--", "benchmark") or b"").startswith(b"benchmark/")


def _printed(root: Path, *arguments: str, given: bytes | None = None) -> bytes | None:
    try:
        command = ["git", "-C", str(root), *arguments]
        return subprocess.run(command, input=given, capture_output=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return None


@cache
def code_version() -> dict[str, Any]:
    """Git commit of the suite and whether its code differed from it; the package version where there is no git."""
    commit, changed = _git("rev-parse", "HEAD"), _git("status", "--porcelain", "--", "benchmark")
    if commit is None or changed is None:
        return {"version": VERSION, "commit": None, "dirty": None}
    return {"version": VERSION, "commit": commit.decode().strip(), "dirty": bool(changed.strip())}


def why_unknown() -> str:
    """Say why nobody could look up the code of a run that is made now, and what to do; empty where everybody can.

    Such a run is trained and tabulated like others, but `verify` and `import` do not take it.
    """
    if shutil.which("git") is None:
        return "git is not on PATH, so the commit of the code is not known: install git"
    asked = subprocess.run(
        ["git", "-C", str(ROOT), "rev-parse", "HEAD"], capture_output=True, text=True, env=os.environ | {"LC_ALL": "C"}
    )
    if "dubious ownership" in asked.stderr:
        return (
            f"git does not read {ROOT}, which belongs to another user, so the commit of the code is not known: "
            f"git config --global --add safe.directory {shlex.quote(str(ROOT))}"
        )
    if not _has_a_repository(ROOT):
        return f"{ROOT} is no git clone of the suite, so the commit of the code is not known: run it from a clone"
    changed = (_git("status", "--porcelain", "--", "benchmark") or b"").decode(errors="replace").splitlines()
    if asked.returncode == 0 and changed:
        more = f" and {len(changed) - 1} more" if len(changed) > 1 else ""
        return (
            f"the code differs from commit {asked.stdout[:12]} ({changed[0][3:]}{more}): commit the changes, or put "
            "them aside with 'git stash'"
        )
    return "" if asked.returncode == 0 else f"{ROOT} has no commit yet: commit the code"


@cache
def is_commit(name: str) -> bool:
    """Whether it is the full name of a commit that git knows here."""
    return re.fullmatch("[0-9a-f]{40}", name) is not None and _git("cat-file", "-e", f"{name}^{{commit}}") is not None


@cache
def history_is_whole() -> bool:
    """Whether every commit can be looked up: there is git, and not a clone of the last commits alone."""
    return _git("rev-parse", "--is-shallow-repository") == b"false\n"


@cache
def text_at(commit: str, path: Path) -> str | None:
    """A file as a commit has it, where it lay before it moved too, empty where it has none; None where the commit is
    not here, or the file not in this repository."""
    path = path.resolve()
    if not path.is_relative_to(ROOT) or _git("cat-file", "-e", f"{commit}^{{commit}}") is None:
        return None
    now = str(path.relative_to(ROOT))
    places = [now, *(before + now.removeprefix(after) for after, before in MOVED.items() if now.startswith(after))]
    return next((text.decode() for each in places if (text := _git("show", f"{commit}:{each}"))), "")


def clean_commit(*paths: str) -> str | None:
    """The commit that is checked out; None where these paths differ from it, or there is no git."""
    commit, changed = _git("rev-parse", "HEAD"), _git("status", "--porcelain", "--", *paths)
    return None if commit is None or changed is None or changed.strip() else commit.decode().strip()


Sources = dict[str, str]  # path in the repository -> text
Place = tuple[str, str | None]  # a file, and a name in it; the file itself without one
File = tuple[dict[str, ast.stmt], dict[str, Place]]  # what it defines, and what its imports mean


class _Plain(ast.NodeTransformer):
    """Takes out of a definition what computes nothing; `modules`: names that mean files of the suite."""

    def __init__(self, modules: set[str]) -> None:
        self._modules = modules
        self._locals: dict[str, str] = {}

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        outer, parts = dict(self._locals), list(ast.walk(node))
        stored = [part.arg for part in parts if isinstance(part, ast.arg)]
        stored += [part.id for part in parts if isinstance(part, ast.Name) and isinstance(part.ctx, ast.Store)]
        for name in dict.fromkeys(stored):
            self._locals.setdefault(name, f"local{len(self._locals)}")
        node.body, node.returns = _without_docstring(node.body), None
        self.generic_visit(node)
        self._locals = outer
        return node

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.AST:
        node.body = _without_docstring(node.body)
        return self.generic_visit(node)

    def visit_arg(self, node: ast.arg) -> ast.AST:
        return ast.arg(self._locals.get(node.arg, node.arg))

    def visit_Name(self, node: ast.Name) -> ast.AST:
        return ast.Name(self._locals.get(node.id, node.id), node.ctx)

    def visit_Attribute(self, node: ast.Attribute) -> ast.AST:
        if isinstance(node.value, ast.Name) and node.value.id in self._modules - self._locals.keys():
            return ast.Name(node.attr, node.ctx)
        return self.generic_visit(node)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST:
        target = self.visit(node.target)
        return ast.Expr(target) if node.value is None else ast.Assign([target], self.visit(node.value), lineno=0)

    def visit_Assert(self, node: ast.Assert) -> None:
        return None


def _without_docstring(body: list[ast.stmt]) -> list[ast.stmt]:
    match body[0]:
        case ast.Expr(ast.Constant(str())):
            body = body[1:]
    return body or [ast.Pass()]


class Tree:
    """The suite's files at one time, and what each name in them means."""

    def __init__(self, sources: Sources) -> None:
        self._sources = sources
        self._files: dict[str, File] = {}

    def _file(self, path: str) -> File:
        """Parsed when it is first reached: most files train nothing."""
        if path not in self._files:
            parsed = ast.parse(self._sources[path])
            definitions = {name: node for node in parsed.body for name in _defined(node)}
            imports = {
                alias.asname or alias.name: place
                for node in ast.walk(parsed)
                if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "benchmark"
                for alias in node.names
                if (place := self._imported(self._sources, node.module or "", alias.name))
            }
            self._files[path] = definitions, imports
        return self._files[path]

    @staticmethod
    def _imported(sources: Sources, module: str, name: str) -> Place | None:
        folder = module.replace(".", "/")
        for path, inside in (
            (f"{folder}/{name}.py", None), (f"{folder}/{name}/__init__.py", None), (f"{folder}.py", name),
            (f"{folder}/__init__.py", name),
        ):  # fmt: skip
            if path in sources:
                return path, inside
        return None

    def trained(self) -> dict[str, tuple[str, ...]]:
        """Each name that training reaches, with the digests of what it means."""
        named = [path for path, text in self._sources.items() if ENTRANCES[-1] in text]
        loops = [path for path in named if ENTRANCES[-1] in self._file(path)[0]]
        waiting = [(path, name) for path in loops for name in ENTRANCES if name in self._file(path)[0]]
        waiting += [METHODS] if METHODS[0] in self._sources and METHODS[1] in self._file(METHODS[0])[0] else []
        seen = set(waiting)
        digests: dict[str, set[str]] = {}
        while waiting:
            path, name = waiting.pop()
            node = self._file(path)[0][name]
            if (path, name) != METHODS and (not path.startswith(NO_NUMBER) or path in NUMBERS):
                plain = ast.dump(self._plain(path, node))
                digests.setdefault(name, set()).add(hashlib.sha256(plain.encode()).hexdigest()[:16])
            for place in self._mentioned(path, node):
                if place not in seen:
                    seen.add(place)
                    waiting.append(place)
        return {name: tuple(sorted(meanings)) for name, meanings in digests.items()}

    def _plain(self, path: str, node: ast.stmt) -> ast.AST:
        modules = {alias for alias, (_, name) in self._file(path)[1].items() if name is None}
        return _Plain(modules).visit(pickle.loads(pickle.dumps(node)))  # a copy, in half of deepcopy's time

    def _mentioned(self, path: str, node: ast.stmt) -> Iterator[tuple[str, str]]:
        for part in _bare(node):
            match part:
                case ast.Name(id=name):
                    yield from self._meant(path, name)
                case ast.Attribute(value=ast.Name(id=module), attr=name):
                    file, inside = self._file(path)[1].get(module, ("", ""))
                    if inside is None:
                        yield from self._meant(file, name)

    def _meant(self, path: str, name: str) -> Iterator[tuple[str, str]]:
        """Where `name`, as used in `path`, is defined; a package's face only passes it on."""
        definitions, imports = self._file(path)
        file, inside = imports.get(name, ("", None))
        if name in definitions:
            yield path, name
        elif inside is not None:
            yield from self._meant(file, inside)


def _bare(node: ast.AST) -> Iterator[ast.AST]:
    """As ast.walk, without annotations and assertions, which mention names that compute nothing."""
    yield node
    match node:
        case ast.FunctionDef():
            inside = [child for child in ast.iter_child_nodes(node) if child is not node.returns]
        case ast.AnnAssign(target=target, value=value):
            inside = [target, value] if value else []
        case ast.arg() | ast.Assert():
            inside = []
        case _:
            inside = list(ast.iter_child_nodes(node))
    for child in inside:
        yield from _bare(child)


def _defined(node: ast.stmt) -> list[str]:
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        return [node.name]
    targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
    return [part.id for target in targets for part in ast.walk(target) if isinstance(part, ast.Name)]


@cache
def training_now() -> dict[str, tuple[str, ...]]:
    """`Tree.trained` of the files as they lie here."""
    paths = sorted((ROOT / "benchmark").rglob("*.py"))
    return Tree({str(path.relative_to(ROOT)): path.read_text(encoding="utf-8") for path in paths}).trained()


@cache
def training_at(commit: str) -> dict[str, tuple[str, ...]] | None:
    """`Tree.trained` of a commit; None where git or the commit is not here."""
    listed = _git("ls-tree", "-r", "-z", commit, "--", "benchmark")
    if listed is None:
        return None
    entries = [entry.split("\t", 1) for entry in listed.decode().split("\0") if entry.endswith(".py")]
    blobs = _git("cat-file", "--batch", given="".join(f"{entry.split()[2]}\n" for entry, _ in entries).encode()) or b""
    sources, at = {}, 0
    for _, path in entries:
        start = blobs.index(b"\n", at) + 1
        at = start + int(blobs[at:start].split()[2])
        sources[path] = blobs[start:at].decode()
        at += 1
    return Tree(sources).trained()


@cache
def training_digest() -> str:
    """Of `training_now`, for a run's record."""
    return hashlib.sha256(repr(sorted(training_now().items())).encode()).hexdigest()


def same_code(one: Code | None, other: Code | None) -> bool | None:
    """Whether two runs were trained by the same code: by their records, or by git; None where neither tells.

    Records whose digests differ may differ in what neither run reads, such as a method that was added between them: git
    says so, where both commits are here.
    """
    if one is None or other is None:
        return None
    both = one.training is not None and other.training is not None
    if both and one.training == other.training:
        return True
    committed = one.commit and other.commit and not (one.dirty or other.dirty)
    by_git = same_training(one.commit, other.commit) if committed else None  # type: ignore[arg-type]
    return False if both and by_git is None else by_git


def changed_since(commit: str) -> list[str] | None:
    """Names of the training code that mean something else now than at `commit`; None where that is not here."""
    before = training_at(commit)
    return None if before is None else _differing(before, training_now())


def same_training(one: str, other: str) -> bool | None:
    """Whether two commits train alike; None where one of them is not here."""
    if one == other:
        return True
    a, b = training_at(one), training_at(other)
    return None if a is None or b is None else not _differing(a, b)


def _differing(a: dict[str, tuple[str, ...]], b: dict[str, tuple[str, ...]]) -> list[str]:
    """A name that only one of them has is reached from one that differs too, or from a method that only one knows."""
    return sorted(name for name in a.keys() & b.keys() if a[name] != b[name])
