"""A study and records of somebody who means harm: what they say is text in every output, and nothing more."""

import csv
import html.parser
import json
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import yaml

from benchmark.errors import CONTROL, UserError
from benchmark.matrix import grid, own, strict_yaml
from benchmark.matrix.job import settable
from benchmark.matrix.matrix import Matrix
from benchmark.store import verify
from benchmark.store.files import write_json
from benchmark.store.run import submit
from benchmark.store.scores import Scores
from tests.evidence import save_scores

TEXTS = [
    '=HYPERLINK("x")', "+1+1", "-2+3", "@SUM(A1)", r"\input{/etc/passwd}$\frac$", r"[0pt]\write18{id}", "*star", "$x^$",
    "<img src=x onerror=alert(1)>", '"><script>alert(1)</script>', "{{ 7*7 }}", "[bold red]x[/bold red]", "%s %n {0}",
    "_hidden", "a|b", "`id` $(id)", "[l](javascript:alert(1))", "ħ ŉ ĸ ð œ",
]  # fmt: skip
ALL = " ".join(TEXTS)
OF_A_RECORD = f"{ALL}\x1b]0;owned\x07\u202e\nverdicts     reproduced"
METHOD = "icasc-a_ch"
pytestmark = pytest.mark.filterwarnings("ignore:constrained_layout not applied")  # to labels as long as these


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A study `evil` of images with several labels, and runs: two finished, one failed, one that logs odd terms."""
    at = tmp_path_factory.mktemp("hostile")
    for folder in ("grids", "tables"):
        (at / "evil" / folder).mkdir(parents=True)
    of_voc = grid.load("voc")
    assumed = {name: a.value for name, a in of_voc.assumptions.items() if name not in grid.EVALUATION}
    base = {name: value for name, value in (of_voc.base | assumed).items() if name in settable()}
    base |= {"dataset": "evil", "weights": "scratch"}
    axes = {"backbone": ["resnet8"], "method": ["baseline", METHOD], "seed": [0, 1]}
    data = {"layout": "csv", "path": "../labels.csv", "multi_label": True}
    source = {"document": ALL, "place": ALL}
    columns = [{"key": "baseline", "header": f"Base_{{{TEXTS[9]}}}"}, {"key": METHOD, "header": ALL}]
    rows = [{"key": text, "published": [1.0, 2.0], "claim": True} for text in [*TEXTS, "mAP"]]
    of_runs = {"grid": "evil", "unit": "%", "decimals": 2, "columns": columns, "rows": rows, "discrepancies": TEXTS}
    words = {"columns": [{"key": "evil", "header": ALL}], "rows": [{"key": t, "published": [t]} for t in TEXTS]}
    title = {"title": f"Table 1. {ALL}", "row_header": TEXTS[8], "missing": ALL, "source": source}
    for name, document in {
        "grids/evil": {"title": ALL, "protocol": base, "axes": axes, "data": data},
        "tables/evil": title | of_runs,
        "tables/words": title | words,
    }.items():
        (at / "evil" / f"{name}.yaml").write_text(yaml.safe_dump(document))
    with open(at / "labels.csv", "w", newline="") as file:
        csv.writer(file).writerows(
            [["file", "label", "split"], *([f"{i}.png", t, "test"] for i, t in enumerate(TEXTS))]
        )
    own.use(at / "evil")
    try:
        jobs = Matrix(grid.load("evil"), "paper").jobs
    finally:
        own.use(None)
    _plant(at / "runs", jobs)
    return at


def _plant(runs: Path, jobs) -> None:
    code = {"version": OF_A_RECORD, "commit": OF_A_RECORD}
    packages = {OF_A_RECORD: OF_A_RECORD}
    machine = {"processor": OF_A_RECORD, "system": OF_A_RECORD}
    environment = {"code": code, "device": OF_A_RECORD, "python": OF_A_RECORD, "packages": packages, "machine": machine}
    rng, classes = np.random.default_rng(0), sorted(TEXTS)
    for job in jobs:
        run = submit(runs, job)
        write_json(run.path("environment.json"), environment)
        write_json(run.path("origin.json"), {"name": ALL[:70]})
        if (job.method, job.seed) == ("baseline", 1):
            write_json(run.path("failure.json"), {"kind": "crash", "error": OF_A_RECORD, "traceback": OF_A_RECORD})
            continue
        labels = np.where(rng.random((30, len(classes))) < 0.4, 1, -1).astype(np.int8)
        logits = rng.normal(size=labels.shape).astype(np.float32)
        numbers = verify.recomputed(Scores(np.arange(30), labels, logits, classes))
        save_scores(run, labels, logits, **numbers, num_test=30, code=code)
        terms = {"classification": 1.0, "=1+1": 1.0, OF_A_RECORD: 1.0} if job.seed else {"classification": 1.0}
        run.path("metrics.jsonl").write_text(json.dumps({"epoch": 1, "train": terms, "test_mAP": 0.5}) + "\n")


COMMANDS = [
    "tables --table evil --scale paper", "tables --table words --scale paper", "status", "status --json",
    "plan --grid evil --scale paper", f"explain evil:mAP:{METHOD} --scale paper --rounds 20",
    f"explain evil:mAP:{METHOD} --scale paper --rounds 20 --json", "report --table evil --scale paper --rounds 20",
    "figures --table evil --scale paper", "published --table evil", "published --table words", "verify", "lock --check",
    "diff runs runs",
]  # fmt: skip


@pytest.fixture
def said(call, place):
    """said("status"): what the command prints; it ends as a command does."""

    def made(command: str) -> str:
        try:
            ended = call(place, *command.split(), "--study", "evil")
        finally:
            own.use(None)
        assert ended.returncode in (0, 1), ended.stderr
        return ended.stdout + ended.stderr

    return made


@pytest.mark.parametrize("command", COMMANDS)
def test_a_terminal_is_not_commanded(command, said):
    printed = said(command)
    assert printed
    assert not CONTROL.search(printed)
    assert not re.search("^verdicts     reproduced", printed, flags=re.MULTILINE)


def _written(place: Path, name: str) -> str:
    (path,) = (place / "evil" / "tables" / "paper").rglob(name)
    text = path.read_text(encoding="utf-8")
    assert not CONTROL.search(text)
    return text


class Tags(html.parser.HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict]] = []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.found.append((tag, dict(attributes)))


def test_a_page_runs_no_script(said, place):
    said("report --table evil --scale paper --rounds 20")
    tags = Tags(_written(place, "report.html")).found
    assert [tag for tag, _ in tags].count("script") == 0
    assert not [given for _, given in tags if any(attribute.startswith("on") for attribute in given)]
    links = [str(given[key]) for _, given in tags for key in ("src", "href") if key in given]
    assert not [link for link in links if not link.startswith(("#", "data:"))]


@pytest.mark.parametrize("table", ["evil", "words"])
def test_markdown_holds_no_html_no_link_and_keeps_its_columns(table, said, place):
    said(f"tables --table {table} --scale paper")
    text = _written(place, f"{table}.md")
    plain = re.sub(r"\\.", "", re.sub("</?sub>", "", text))
    assert not re.search(r"<|\]\(|`", plain)
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert len({len(re.findall(r"(?<!\\)\|", line)) for line in lines}) == 1


@pytest.mark.parametrize("name", ["evil.csv", "words.csv", "runs.csv", "epochs.csv", "cells.csv"])
def test_no_cell_of_a_csv_is_a_formula(name, said, place):
    what = name.removesuffix(".csv")
    is_table = what in ("evil", "words")
    said(f"tables --table {what} --scale paper" if is_table else f"export --what {what} --out {name} --scale paper")
    text = _written(place, name) if is_table else (place / name).read_text(encoding="utf-8")
    assert not CONTROL.search(text)
    cells = [cell for line in csv.reader(text.splitlines()) for cell in line]
    assert [cell for cell in cells if "1+1" in cell or "HYPERLINK" in cell] or name == "runs.csv"
    for cell in cells:
        assert not cell.startswith(("=", "@", "\t", "\r")), cell
        assert not cell.startswith(("+", "-")) or re.fullmatch(r"[-+]?[\d.e-]+", cell), cell


@pytest.mark.skipif(not shutil.which("pdflatex"), reason="no pdflatex on PATH")
@pytest.mark.parametrize("table", ["evil", "words"])
def test_latex_sets_it_as_text(table, said, place, tmp_path):
    said(f"tables --table {table} --scale paper")
    head = r"\documentclass{article}\usepackage[utf8]{inputenc}\usepackage[T1]{fontenc}\usepackage{booktabs,graphicx}"
    document = f"{head}\n\\begin{{document}}\n{_written(place, f'{table}.tex')}\\end{{document}}\n"
    (tmp_path / "t.tex").write_text(document, encoding="utf-8")
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "-recorder", "t.tex"]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, errors="replace")
    assert ended.returncode == 0, ended.stdout[-2000:]
    assert "/etc/passwd" not in (tmp_path / "t.fls").read_text()


@pytest.mark.parametrize("text", ['"a\\e[2J"', '"\\u202e"', '"\\ud800"'])
def test_control_characters_of_a_file_are_refused(text, tmp_path):
    (tmp_path / "x.yaml").write_text(f"a: 1\ntitle: {text}\n")
    with pytest.raises(UserError, match=r"x.yaml:2: .*holds the control character U\+[0-9A-F]{4}; take it out"):
        strict_yaml.load(tmp_path / "x.yaml")


def test_a_text_of_several_lines_becomes_one(tmp_path):
    (tmp_path / "x.yaml").write_text('title: "a\\nverdicts     reproduced"\nwhy: |\n  b\n  c\n')
    assert strict_yaml.load(tmp_path / "x.yaml")[0] == {"title": "a verdicts     reproduced", "why": "b c"}
