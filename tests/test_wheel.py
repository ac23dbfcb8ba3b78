"""An installed package does what the checkout does, from any folder."""

import importlib.util
import os
import site
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
COMMANDS = (
    ["published", "--table", "table2"], ["plan", "--grid", "voc", "--scale", "mini"], ["status"],
    ["tables", "--table", "headline", "--scale", "mini"], ["explain", "table2:mAP:icasc-a_ch", "--scale", "mini"],
    ["lock", "--check"], ["init", "mine"],
    ["run", "--grid", "mine", "--study", "mine", "--only", "seed=0", "--set", "epochs=1", "--set", "limit_train=50"],
    ["report", "--table", "table2", "--scale", "mini"],
)  # fmt: skip


def needs(*modules: str) -> None:
    for module in modules:
        if importlib.util.find_spec(module) is None:
            pytest.skip(f"{module} is not installed, so no wheel can be built here")


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> tuple[Path, Path]:
    """A folder of a user's inside a git repository of theirs, and the python of an environment in it that holds the
    wheel, and sees what is installed here but for the checkout."""
    needs("pip", "setuptools")
    folder = tmp_path_factory.mktemp("theirs")
    git = ["git", "-C", str(folder), "-c", "user.name=t", "-c", "user.email=t@t"]
    for words in (["init", "-q"], ["commit", "-qm", "theirs", "--allow-empty"]):
        subprocess.run([*git, *words], check=True)
    built = tmp_path_factory.mktemp("built")
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    if tracked.returncode:
        pytest.skip("no git checkout")
    source = tmp_path_factory.mktemp("source")
    for name in tracked.stdout.splitlines():
        if (name.startswith("benchmark/") or "/" not in name) and (ROOT / name).exists():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes((ROOT / name).read_bytes())
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    words = ["wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(built), str(source)]
    subprocess.run([*pip, *words], check=True)
    venv.create(folder / "venv", with_pip=False)
    python = folder / "venv" / "bin" / "python"
    inside = Path(sysconfig.get_path("purelib", vars={"base": str(folder / "venv"), "platbase": str(folder / "venv")}))
    with zipfile.ZipFile(next(built.glob("*.whl"))) as wheel:
        wheel.extractall(inside)
    shared = [path for path in (*site.getsitepackages(), *sys.path) if Path(path).name == "site-packages"]
    (inside / "shared.pth").write_text("".join(f"{path}\n" for path in dict.fromkeys(shared)))
    return folder, python


def run(installed: tuple[Path, Path], *words: str) -> subprocess.CompletedProcess:
    folder, python = installed
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | {"CUDA_VISIBLE_DEVICES": ""}
    return subprocess.run([python, *words], cwd=folder, env=env, capture_output=True, text=True, timeout=600)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_commands_work_from_another_folder(installed):
    where = run(installed, "-c", "import benchmark; print(benchmark.__file__)").stdout
    assert Path(where.strip()).is_relative_to(installed[0]), "the wheel's, not the checkout's"
    (installed[0] / "runs").mkdir(exist_ok=True)  # tables of a folder that is not there are refused
    for words in COMMANDS:
        ended = run(installed, "-m", "benchmark", *words)
        assert ended.returncode == 0, f"{words}: {ended.stdout}{ended.stderr}"
    assert (installed[0] / "tables" / "mini" / "report.html").exists()


@pytest.mark.slow
def test_commit_of_a_repository_around_it_is_not_recorded(installed):
    asked = "from benchmark.store import code; print(code.code_version()['commit'], code.clean_commit())"
    assert run(installed, "-c", asked).stdout == "None None\n"


@pytest.mark.slow
def test_all_that_is_read_travels(installed):
    """Every file of the package that is no code: grids, published values and their locks among them."""
    inside = Path(run(installed, "-c", "import benchmark; print(benchmark.__file__)").stdout.strip()).parent
    read = [path for path in (ROOT / "benchmark").rglob("*") if path.is_file() and path.suffix not in (".py", ".pyc")]
    names = [str(path.relative_to(ROOT / "benchmark")) for path in read]
    assert [name for name in names if not (inside / name).is_file()] == []
