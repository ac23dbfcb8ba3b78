"""What import-linter's contracts (pyproject.toml, `make lint`) cannot say of the rooms."""

import subprocess
import sys
from pathlib import Path

import benchmark
from benchmark.cli import COMMANDS

ROOT = Path(benchmark.__file__).parent
TORCH = {"data", "methods", "train", "bench"}  # these rooms alone import it at the top; others in a function


def test_only_rooms_of_torch_import_it_at_the_top():
    files = [path.relative_to(ROOT.parent).with_suffix("") for path in sorted(ROOT.rglob("*.py"))]
    names = [".".join(path.parts).removesuffix(".__init__") for path in files if path.parts[1] not in TORCH]
    assert len(names) > 60
    code = (
        "import sys; from importlib import import_module\n"
        f"for name in {names!r}:\n"
        "    import_module(name)\n"
        "    assert 'torch' not in sys.modules, f'{name} imports torch'"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr


def test_flat_is_nothing_but_the_entrance_and_what_all_rooms_share():
    assert {path.stem for path in ROOT.glob("*.py")} == {"__init__", "__main__", "errors", "version"}


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
