"""make docs: the site in build/site, of these pages, the README, the tables that they link to, and a reference made
from the code as it is. A warning, a link that leads nowhere, or a file loaded from elsewhere: exit status 1."""

import json
import re
import shutil
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote

ROOT = Path(__file__).parents[1]
SOURCE, SITE = ROOT / "build" / "pages", ROOT / "build" / "site"
PAGES = {  # in this order; one that is not written yet is left out, one that is not named here is an error
    "": {
        "answer": "Answer",
        "reproduction": "All runs, one by one",
        "run": "Run it",
        "own": "Your own",
        "traps": "Traps",
        "statistics": "How it is measured",
        "reliability": "Reliability",
        "security": "Security",
        "performance": "Performance",
    },
    "Reference": {
        "reference/commands": "Commands",
        "reference/records": "Records",
        "reference/api": "API",
        "data": "Data sheet",
        "CONTRIBUTING": "Contributing",
        "CHANGELOG": "Changes",
    },
}
CONFIG = {
    "project": "Does ICASC reproduce?",
    "html_title": "Does ICASC reproduce?",
    "extensions": ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"],
    "autodoc_default_options": {"members": True, "member-order": "bysource"},
    "autodoc_typehints": "description",
    "napoleon_use_ivar": True,  # a dataclass's attributes are described by autodoc already
    "myst_heading_anchors": 4,
    "myst_links_external_new_tab": False,
    "highlight_language": "none",
    "smartquotes": False,  # a double hyphen begins an option
    "html_static_path": ["site.css"],
    "html_css_files": ["site.css"],
    "html_theme": "furo",
    "html_show_sphinx": False,
    "html_copy_source": False,
    "html_show_copyright": False,
}
ROOMS = (
    "matrix", "store", "stats", "data", "executors", "methods", "train", "results", "tables", "evidence", "checks",
    "bench",
)  # fmt: skip


def main() -> int:
    from sphinx.application import Sphinx  # what is below is tested without it

    shutil.rmtree(SOURCE, ignore_errors=True)
    shutil.rmtree(SITE, ignore_errors=True)
    assemble()
    app = Sphinx(
        SOURCE, None, SITE, SOURCE / ".doctrees", "html", CONFIG, status=None, warningiserror=True,
        exception_on_warning=False,
    )  # fmt: skip
    app.connect("autodoc-process-docstring", mark_blocks)
    app.build()
    wrong = [*left_out(), *problems(SITE)]
    print("\n".join(wrong) or f"written: {(SITE / 'index.html').relative_to(ROOT)}")
    return 1 if wrong or app.statuscode else 0


def assemble() -> None:
    """Put all pages into one folder, as Sphinx wants them."""
    shutil.copytree(ROOT / "docs", SOURCE, ignore=shutil.ignore_patterns("*.py", "__pycache__"))
    for name in (
        "README.md",
        "CONTRIBUTING.md",
        "CHANGELOG.md",
        "Containerfile",
        "LICENSE",
        "CITATION.cff",
    ):
        shutil.copy(ROOT / name, SOURCE)
    for page in SOURCE.glob("*.md"):  # what they link to lies beside them here
        page.write_text(re.sub(r"\]\((\.\./|docs/)", "](", page.read_text(encoding="utf-8")), encoding="utf-8")
    (SOURCE / "README.md").rename(SOURCE / "index.md")
    (SOURCE / "reference").mkdir()
    rooms = api()
    listed = "\n".join(["# API", "", "```{toctree}", *(f"room-{room}" for room in rooms), "```", ""])
    pages = {"commands": commands(), "records": records(), "api": listed}
    for name, text in (pages | {f"room-{room}": text for room, text in rooms.items()}).items():
        (SOURCE / "reference" / f"{name}.md").write_text(text, encoding="utf-8")
    copy_tables()
    with (SOURCE / "index.md").open("a", encoding="utf-8") as index:
        for caption, names in PAGES.items():
            there = [f"{title} <{name}>" for name, title in names.items() if (SOURCE / f"{name}.md").exists()]
            titled = [f":caption: {caption}"] if caption else []
            index.write("\n".join(["\n```{toctree}", ":hidden:", *titled, "", *there, "```\n"]))


def copy_tables() -> None:
    """The tables' files, and for each folder of them a page that lists it; links to folders lead there."""
    (SOURCE / "tables").mkdir()
    for path in (ROOT / "tables").glob("answer*.p*"):
        shutil.copy(path, SOURCE / "tables")
    for folder in sorted({path.parent for path in (ROOT / "tables").glob("*/**/*.md")}):
        inside = SOURCE / folder.relative_to(ROOT)
        inside.mkdir(parents=True)
        lines = ["---", "orphan: true", "---", "", f"# {folder.relative_to(ROOT)}", ""]
        for path in sorted(folder.glob("*.md")):
            text = path.read_text(encoding="utf-8").replace("### ", "# ", 1)
            (inside / path.name).write_text(f"---\norphan: true\n---\n\n{text}", encoding="utf-8")
            others = [shutil.copy(folder / f"{path.stem}.{kind}", inside) for kind in ("tex", "csv", "json")
                      if (folder / f"{path.stem}.{kind}").exists()]  # fmt: skip
            links = [f"[{Path(other).suffix[1:]}]({Path(other).name})" for other in others]
            lines.append(f"- {', '.join([f'[{path.stem}]({path.name})', *links])}")
        (inside / "index.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    for page in SOURCE.glob("*.md"):
        text = re.sub(r"\]\((tables/[^)#]+/)\)", r"](\1index.md)", page.read_text(encoding="utf-8"))
        page.write_text(text, encoding="utf-8")


def commands() -> str:
    """Each command's own help."""
    import typer.main
    from typer.cli import get_docs_for_click

    from benchmark.cli import app

    command = typer.main.get_command(app)
    context = command.make_context("python -m benchmark", [], resilient_parsing=True)
    return get_docs_for_click(obj=command, ctx=context, name="python -m benchmark", title="Commands")


def records() -> str:
    """What `python -m benchmark schema` prints."""
    from benchmark.matrix.job import Job
    from benchmark.store.records import RECORDS

    parts = ["# Records of a run folder", "", "As `python -m benchmark schema` prints them."]
    schemas = {name: kind.model_json_schema(by_alias=True) for name, kind in RECORDS.items()}
    for name, schema in ({"job.json": Job.model_json_schema()} | schemas).items():
        parts += ["", f"## {name}", "", "```json", json.dumps(schema, indent=1), "```"]
    return "\n".join(parts) + "\n"


def mark_blocks(_app: Any, what: str, _name: str, _object: Any, _options: Any, lines: list[str]) -> None:
    """What a file's docstring indents is shown as it is typed: a listing of a folder, a formula."""
    marked: list[str] = []
    for line in lines if what == "module" else []:
        begins = line.startswith("    ") and not (marked and marked[-1].startswith("    "))
        marked += ["", "::", "", line] if begins and "".join(marked[-1:]) == "" else [line]
    lines[:] = marked or lines


def api() -> dict[str, str]:
    """A page for each room, by its name: what its files say of themselves, which autodoc reads."""
    pages = {}
    for room in ROOMS:
        folder = ROOT / "benchmark" / room
        modules = [f"benchmark.{room}", *(f"benchmark.{room}.{path.stem}" for path in sorted(folder.glob("[!_]*.py")))]
        parts = [f"# {room}"]
        for module in modules:
            parts += ["", f"## {module}", "", "```{eval-rst}", f".. automodule:: {module}", "```"]
        pages[room] = "\n".join(parts) + "\n"
    return pages


class Links(HTMLParser):
    """What a page loads and where it leads."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.loaded: set[str] = set()
        self.leads: set[str] = set()
        self.ids: set[str] = set()
        self.feed(page.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        of_tag = {name: value or "" for name, value in attrs}
        self.ids.add(of_tag.get("id", ""))
        if tag in ("script", "img", "iframe", "source", "link"):
            self.loaded.add(of_tag.get("src") or of_tag.get("href", ""))
        elif tag == "a":
            self.leads.add(of_tag.get("href", ""))


def left_out() -> list[str]:
    named = {name for names in PAGES.values() for name in names}
    pages = sorted((ROOT / "docs").glob("*.md"))
    return [f"docs/{page.name}: add it to PAGES of docs/build.py" for page in pages if page.stem not in named]


def problems(site: Path) -> list[str]:
    """Of a finished site: links that lead nowhere, files that are loaded from elsewhere."""
    site = site.resolve()
    pages = {page: Links(page) for page in sorted(site.rglob("*.html"))}
    wrong = []
    for page, links in pages.items():
        where = page.relative_to(site)
        wrong += [f"{where} loads {url}" for url in sorted(links.loaded) if "//" in url]
        for link in sorted(links.loaded | links.leads):
            path, _, anchor = link.partition("#")
            target = (page.parent / unquote(path.partition("?")[0])).resolve() if path else page
            if "//" in link or link.startswith(("mailto:", "data:")):
                continue
            if not target.exists():
                wrong.append(f"{where} links to {link}, which is not there")
            elif anchor and target in pages and unquote(anchor) not in pages[target].ids:
                wrong.append(f"{where} links to {link}, which has no such part")
    for sheet in sorted(site.rglob("*.css")):
        loaded = re.findall(r"""url\(["']?((?:https?:)?//[^)"']+)""", sheet.read_text(encoding="utf-8"))
        wrong += [f"{sheet.relative_to(site)} loads {url}" for url in loaded]
    return wrong


if __name__ == "__main__":
    sys.exit(main())
