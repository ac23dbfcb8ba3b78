"""Scripts beside the package: what is packed for a machine that reaches nothing, and that it comes out whole."""

import importlib.util
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

TOOLS = Path(__file__).parents[1] / "tools"
PART = 2**20


@pytest.fixture
def pack_year(tmp_path, monkeypatch):
    """The packer, of a small repository."""
    spec = importlib.util.spec_from_file_location("pack_year", TOOLS / "pack_year.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    root = tmp_path / "repository"
    for name in ("benchmark/code.py", "tables/table2.yaml", "runs/record.json", "tools/year_gpu.sh"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("x\n")
    git = ["git", "-C", str(root), "-c", "user.name=t", "-c", "user.email=t@t"]
    for words in (["init", "-q"], ["add", "-A"], ["commit", "-qm", "x"]):
        subprocess.run([*git, *words], check=True)
    monkeypatch.setattr(module, "ROOT", root)
    return module


def pack(pack_year, root: Path, folder: Path, monkeypatch, *options: str) -> list[Path]:
    weights = folder.parent / "net.safetensors"
    weights.write_bytes(b"w" * 5000)
    words = [str(root), str(folder), "--weights", str(weights), "--part-mib", "1", *options]
    monkeypatch.setattr(sys, "argv", ["pack_year.py", *words])
    pack_year.main()
    return sorted(folder.glob("*of*.tar"))


@pytest.fixture
def year(tmp_path):
    """A root with pictures of two years, three parts' worth, and the lists of two classes."""
    voc = tmp_path / "root" / "VOCdevkit" / "VOC2012"
    for name in ("JPEGImages", "Annotations", "ImageSets/Main"):
        (voc / name).mkdir(parents=True)
    for i in range(30):
        for of in (2008, 2009):
            (voc / "JPEGImages" / f"{of}_{i:06}.jpg").write_bytes(bytes([i]) * 90_001)
            (voc / "Annotations" / f"{of}_{i:06}.xml").write_text("<annotation/>")
    for name in ("train", "val", "trainval", "present_train", "cat_train", "cat_val", "train_val", "cat_trainval"):
        (voc / "ImageSets" / "Main" / f"{name}.txt").write_text("2008_000000\n")
    return tmp_path / "root"


def test_parts_stay_below_their_size_and_hold_the_year(pack_year, year, tmp_path, monkeypatch):
    parts = pack(pack_year, year, tmp_path / "parts", monkeypatch)
    assert [part.name for part in parts] == ["1of3.tar", "2of3.tar", "3of3.tar"]
    assert all(part.stat().st_size <= PART for part in parts)
    names: list[str] = []
    for part in parts:
        with tarfile.open(part) as tar:
            names += tar.getnames()
    assert len(names) == len(set(names))
    assert sum(name.endswith(".jpg") for name in names) == sum(name.endswith(".xml") for name in names) == 30
    assert not [name for name in names if "2009_" in name]
    lists = sorted(Path(name).stem for name in names if name.endswith(".txt"))
    assert lists == ["cat_train", "cat_val", "train", "train_val", "val"]
    assert {"suite.tar", "weights/net.safetensors"} <= set(names)


def test_the_code_is_at_its_commit_without_the_records(pack_year, tmp_path):
    pack_year.clone(tmp_path / "clone")

    def git(folder: Path, *words: str) -> str:
        return subprocess.run(["git", "-C", folder, *words], capture_output=True, text=True, check=True).stdout

    assert git(tmp_path / "clone", "rev-parse", "HEAD") == git(pack_year.ROOT, "rev-parse", "HEAD")
    assert git(tmp_path / "clone", "status", "--porcelain") == ""
    there = {path.name for path in (tmp_path / "clone").rglob("*") if path.is_file() and ".git" not in path.parts}
    assert there == {"code.py", "table2.yaml", "year_gpu.sh"}


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda module, root, parts: (module.ROOT / "benchmark" / "code.py").write_text("y"), "benchmark/ differs"),
        (lambda module, root, parts: (parts / "1of1.tar").write_text(""), "holds parts already, such as 1of1.tar"),
        (
            lambda module, root, parts: (root / "VOCdevkit/VOC2012/JPEGImages/2008_9.jpg").write_bytes(b"x" * PART),
            "2008_9.jpg alone is larger than a part",
        ),
    ],
)
def test_what_cannot_be_packed_is_told(pack_year, year, tmp_path, monkeypatch, spoil, said):
    (tmp_path / "parts").mkdir()
    spoil(pack_year, year, tmp_path / "parts")
    with pytest.raises(SystemExit, match=f"error: .*{said}"):
        pack(pack_year, year, tmp_path / "parts", monkeypatch)


def test_a_year_without_photographs_is_told(pack_year, year, tmp_path, monkeypatch):
    with pytest.raises(SystemExit, match="no photograph of 2007"):
        pack(pack_year, year, tmp_path / "parts", monkeypatch, "--year", "2007")


def test_parts_may_come_one_after_the_other(pack_year, year, tmp_path, monkeypatch):
    """Nothing trains before all are there; what came is not unpacked twice."""
    parts = pack(pack_year, year, tmp_path / "parts", monkeypatch)
    script = [TOOLS / "year_gpu.sh", tmp_path / "parts", tmp_path / "work", "1"]
    aside = tmp_path / "aside"
    aside.mkdir()
    for part in parts[1:]:
        part.rename(aside / part.name)
    for _ in range(2):
        ended = subprocess.run(script, capture_output=True, text=True)
        assert (ended.returncode, ended.stdout) == (0, "1 of 3 parts are here: call again with the others\n")
    parts[0].unlink()
    (aside / parts[1].name).rename(parts[1])
    assert "2 of 3 parts" in subprocess.run(script, capture_output=True, text=True).stdout
    assert (tmp_path / "work" / "suite.tar").is_file()
