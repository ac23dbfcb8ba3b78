"""A room imports only from rooms below it; what lists, tabulates or compares never imports torch."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import benchmark
from benchmark.cli import COMMANDS

ROOT = Path(benchmark.__file__).parent
FLOORS = [  # from the ground up; a room may be on one floor with another, and imports nothing from it
    {"errors", "stats"}, {"matrix"}, {"store"}, {"executors", "data"}, {"results", "methods"}, {"tables"},
    {"train", "evidence"}, {"bench"}, {"cli"}, {"__main__"},
]  # fmt: skip
TORCH = {"methods", "train", "bench"}  # these alone import it; the cli inside commands
FILES = [path for path in sorted(ROOT.rglob("*.py")) if path != ROOT / "__init__.py"]


def _name(path: Path) -> str:
    """`matrix/job`; a package's __init__ is the room itself."""
    return str(path.relative_to(ROOT).with_suffix("")).removesuffix("/__init__")


def _room(name: str) -> str:
    return name.split("/")[0]


NAMES = {_name(path) for path in FILES}


def _imports(node: ast.AST) -> set[str]:
    """Names of files that `node` imports, wherever it does so."""
    found = set()
    for part in ast.walk(node):
        if isinstance(part, ast.ImportFrom) and (part.module or "").split(".")[0] == "benchmark":
            folder = "/".join(part.module.split(".")[1:])
            inside = {f"{folder}/{alias.name}".lstrip("/") for alias in part.names}
            found |= (inside & NAMES) or {folder}
        elif isinstance(part, ast.Import):
            found |= {a.name.replace(".", "/").removeprefix("benchmark/") for a in part.names if "benchmark." in a.name}
    return found - {""}


def _at_the_top(path: Path) -> set[str]:
    """What importing the file imports."""
    tree = ast.parse(path.read_text())
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    return {name for node in tree.body if not isinstance(node, functions) for name in _imports(node)}


def _in_room_of_torch(name: str) -> bool:
    return name in TORCH or _room(name) in TORCH


@pytest.mark.parametrize("path", FILES, ids=_name)
def test_imports_go_down(path):
    floor_of = {room: i for i, rooms in enumerate(FLOORS) for room in rooms}
    room = _room(_name(path))
    assert room in floor_of, f"{room} has no floor: put it on one"
    for name in _imports(ast.parse(path.read_text())):
        assert name in NAMES, f"{_name(path)} imports {name}, which is no file of the package"
        assert _room(name) == room or floor_of[_room(name)] < floor_of[room], f"{_name(path)} imports {name} from above"


@pytest.mark.parametrize("path", FILES, ids=_name)
def test_torch_stays_in_its_rooms(path):
    if _in_room_of_torch(_name(path)):
        return
    heavy = {name for name in _at_the_top(path) if _in_room_of_torch(name)}
    assert not heavy, f"{_name(path)} imports torch through {', '.join(sorted(heavy))}"
    inside = {name for name in _imports(ast.parse(path.read_text())) if _in_room_of_torch(name)}
    assert not inside or _room(_name(path)) == "cli", f"{_name(path)} imports {', '.join(sorted(inside))} in a function"


def test_no_circle_within_a_room():
    needs = {_name(path): _at_the_top(path) for path in FILES}
    done: set[str] = set()
    while len(done) < len(needs):
        free = {name for name, imported in needs.items() if name not in done and imported <= done}
        assert free, f"circle among {set(needs) - done}"
        done |= free


def test_flat_is_nothing_but_the_entrance_and_errors():
    assert {name for name in NAMES if (ROOT / f"{name}.py").is_file() and "/" not in name} == {"__main__", "errors"}


LOOKING = (
    ["plan", "--grid", "voc"], ["status"], ["tables", "--table", "table2"], ["tables", "--table", "headline"],
    ["diff", "--table", "table2"], ["published"], ["assumptions"],
)  # fmt: skip


def test_looking_never_imports_torch(tmp_path):
    """All in one process: the command after which torch is there is named."""
    code = (
        "import sys; from benchmark.__main__ import main\n"
        f"for command in {LOOKING!r}:\n"
        "    sys.argv = ['benchmark', *command]\n"
        "    try: main()\n    except SystemExit: print('ended:', *command)\n"
        "    assert 'torch' not in sys.modules, f'{command} imported torch'"
    )
    (tmp_path / "tables").mkdir()
    for path in (ROOT.parent / "tables").glob("*.yaml"):
        (tmp_path / "tables" / path.name).write_text(path.read_text())
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.count("ended: ") == len(LOOKING)


# They serve any study's paper, and name none.
NAMELESS = ("matrix", "store", "stats", "tables", "executors", "evidence")


def _names_the_paper(path: Path) -> bool:
    return "icasc" in path.read_text(encoding="utf-8").lower()


def test_rooms_that_serve_any_paper_name_none():
    files = [path for room in NAMELESS for path in (ROOT / room).rglob("*") if path.suffix in (".py", ".html")]
    assert len(files) > 40
    named = {str(path.relative_to(ROOT)) for path in files if _names_the_paper(path)}
    assert not named, "the package's own study says its name in its YAML"


def test_help_names_no_paper(call, tmp_path):
    texts = [call(tmp_path, *words, "--help").stdout for words in ([], *([name] for name in COMMANDS))]
    assert len(texts) == 1 + len(COMMANDS)
    assert not [text for text in texts if "icasc" in text.lower()]
