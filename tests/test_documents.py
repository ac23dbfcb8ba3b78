"""What stands beside the code says what the code is: one version everywhere, links that lead somewhere."""

import importlib.util
import re
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import benchmark

ROOT = Path(__file__).parents[1]
LINK = re.compile(r"\]\(([^)\s]+)\)")
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *(ROOT / ".github").rglob("*.md")])


def test_there_is_one_version():
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert cited["version"] == benchmark.__version__
    newest = re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), flags=re.MULTILINE)
    assert newest is not None
    assert newest[1] == benchmark.__version__
    assert cited["license"] == (ROOT / "LICENSE").read_text().split()[0]


def test_both_citations_say_the_same():
    """The file, from which tools make theirs, and the entries to copy."""
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    paper = cited["preferred-citation"]
    entries = re.findall(r"@\w+\{.*?\n\}", (ROOT / "README.md").read_text(), flags=re.DOTALL)
    suite, tested = (re.sub(r"[{}]|\s+(?=\s)", "", entry.replace("\n", " ")) for entry in entries)
    for text in (cited["title"], f"year = {cited['date-released'].year}", f"version = {cited['version']}"):
        assert text in re.sub(r"\s+", " ", suite)
    tested = re.sub(r"\s+", " ", tested)
    names = " and ".join(f"{author['family-names']}, {author['given-names']}" for author in paper["authors"])
    for text in (paper["title"], names, f"year = {paper['year']}", paper["collection-title"]):
        assert text in tested
    assert paper["identifiers"][0]["value"] in tested


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_of_documents_lead_to_files(document):
    for link in LINK.findall(document.read_text()):
        if not link.startswith(("http://", "https://", "#")):
            assert (document.parent / link.partition("#")[0]).exists(), f"{link} leads nowhere"


def test_the_locked_versions_are_the_constrained_ones():
    """And all that the tests need is locked but torch, of which each machine has its own build (`make locked`)."""
    pins = {canonicalize_name(name): version for name, version in _pins(ROOT / "constraints.txt")}
    text = (ROOT / "constraints-locked.txt").read_text()
    locked = re.findall(r"^(\S+)==(\S+)((?: \\\n    --hash=sha256:[0-9a-f]{64})+)$", text, flags=re.MULTILINE)
    assert len(locked) == text.count("==")
    assert {name: version for name, version, _ in locked if pins.get(name) != version}.keys() == {"setuptools"}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    asked = [*project["dependencies"], *project["optional-dependencies"]["test"]]
    needed = {canonicalize_name(Requirement(each).name) for each in asked}
    assert needed - {name for name, _, _ in locked} == {"torch", "torchvision"}


def _pins(path: Path) -> list[tuple[str, str]]:
    return re.findall(r"^(\S+)==(\S+)$", path.read_text(), flags=re.MULTILINE)


def test_no_photograph_is_committed():
    """docs/data.md promises it; drawings of measured numbers are PNG."""
    if not (ROOT / ".git").exists():
        pytest.skip("no git checkout")
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    pictures = [name for name in listed.splitlines() if name.lower().endswith((".jpg", ".jpeg", ".png", ".webp"))]
    drawn = [name for name in pictures if name.startswith("docs/figures/") or name.startswith("tables/answer")]
    assert pictures == drawn


def _site():
    """docs/build.py, which lies in no package."""
    spec = importlib.util.spec_from_file_location("site_build", ROOT / "docs" / "build.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_page_has_its_place_in_the_site():
    assert _site().left_out() == []


def test_problems_of_a_site_are_found(tmp_path):
    (tmp_path / "a.html").write_text(
        '<h1 id="top"></h1><a href="b.html#part">b</a><a href="#top"></a><a href="https://example.org">far</a>'
        '<a href="c.html"></a><a href="#nowhere"></a><script src="https://example.org/x.js"></script>'
    )
    (tmp_path / "b.html").write_text('<h2 id="part"></h2><img src="gone.png">')
    (tmp_path / "s.css").write_text('@font-face { src: url("https://example.org/f.woff") }')
    assert _site().problems(tmp_path) == [
        "a.html loads https://example.org/x.js",
        "a.html links to #nowhere, which has no such part",
        "a.html links to c.html, which is not there",
        "b.html links to gone.png, which is not there",
        "s.css loads https://example.org/f.woff",
    ]


def test_reference_has_every_room_but_the_commands_and_every_file():
    pages = _site().api()
    assert set(pages) == {path.parent.name for path in ROOT.glob("benchmark/*/__init__.py")} - {"cli"}
    for path in ROOT.glob("benchmark/*/[!_]*.py"):
        room = path.parent.name
        assert room == "cli" or f".. automodule:: benchmark.{room}.{path.stem}\n" in pages[room]
