"""What stands beside the code says what the code is: one version everywhere, links that lead somewhere."""

import re
import subprocess
from pathlib import Path

import pytest
import yaml

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


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_of_documents_lead_to_files(document):
    for link in LINK.findall(document.read_text()):
        if not link.startswith(("http://", "https://", "#")):
            assert (document.parent / link.partition("#")[0]).exists(), f"{link} leads nowhere"


def test_no_photograph_is_committed():
    """docs/data.md promises it; the drawings of docs/figures are PNG."""
    if not (ROOT / ".git").exists():
        pytest.skip("no git checkout")
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    pictures = [name for name in listed.splitlines() if name.lower().endswith((".jpg", ".jpeg", ".png", ".webp"))]
    assert [name for name in pictures if not name.startswith("docs/figures/")] == []
