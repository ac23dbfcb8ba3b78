"""The report: self-contained, safe, stable; and in a real browser: it opens, sorts, opens a trace, prints."""

import html.parser
import json
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from benchmark import cli
from benchmark.errors import UserError
from benchmark.evidence import figures, report
from benchmark.matrix import grid
from benchmark.store import metrics
from benchmark.tables import collect, published, render, summary
from benchmark.tables.claims import GainInterval
from tests.evidence import GOLDEN, RUNS, TABLES, as_published, golden_matrix, golden_table, plant, save_scores

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


def make(scale="mini", runs=RUNS, spec_changes=None, rounds=20):
    table = golden_table(scale, runs, spec_changes)
    ids = [name for cell in table.cells.values() for name in cell.runs]
    samples = collect.image_samples(table.matrix, list(dict.fromkeys(ids)), rounds)
    drawn = [(d.caption, "image/svg+xml", figures.svg(d)) for d in figures.draw(table)]
    return report.page([report.Part(table, table.matrix, samples, drawn)])


@pytest.fixture(scope="module")
def page():
    return make()


class Links(html.parser.HTMLParser):
    """What a page would fetch, and the ids that it names and has."""

    def __init__(self, text):
        super().__init__()
        self.fetched, self.ids, self.targets = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        self.ids += [given["id"]] if "id" in given else []
        self.targets += [given["data-trace"]] if "data-trace" in given else []
        self.targets += [given["href"][1:]] if tag == "a" and given.get("href", "").startswith("#") else []
        self.fetched += [given[k] for k in ("src", "href") if k in given and not given[k].startswith(("#", "data:"))]


def test_self_contained(page):
    links = Links(page)
    assert 'class="down"' not in page.partition("<main>")[2]  # two seeds show nothing, and nothing is comparable
    assert links.fetched == []
    assert not re.search(r"@import|url\((?!data:)", page)
    assert len(links.ids) == len(set(links.ids))
    assert set(links.targets) <= set(links.ids)
    assert len([i for i in links.ids if i.count(":") == 2 and not i.endswith("-title")]) == 63


def test_same_runs_same_bytes(page):
    assert make() == page


def test_the_answer_comes_first(page):
    assert page.index("Not comparable with the paper") < page.index('class="sortable"')
    for text in ("epochs: 2 (paper: 20)", "one public port", "torch 2.13.0+cpu", "AMD EPYC", "data:image/svg+xml"):
        assert text in page


def test_verdicts_of_a_comparable_table(tmp_path):
    plant(tmp_path, as_published)
    text = make("paper", tmp_path, rounds=0)
    assert "Not comparable" not in text
    assert 'class="up"' in text  # gains whose interval excludes zero
    assert text.count('class="pill reproduced"') == 63 + 2 + 21 + 5  # the headline repeats five


def test_the_answer_has_a_row_for_every_claim(tmp_path):
    """All five data sets and both methods; what did not run is untested, and says how many seeds it takes."""
    folder = Path(__file__).parents[1] / "tables"
    specs = {name: published.load(name, folder) for name in published.names(folder)}
    plant(tmp_path, as_published)
    row = golden_table().spec.rows[-1].model_copy(update={"key": "ResNet-18", "item": "mAP"})
    voc = golden_table("paper", tmp_path, {"rows": [row], "name": "voc"})
    headline = summary.headline(specs["headline"], {"voc": voc}, "paper")
    text = report.page([report.Part(voc, voc.matrix, {}, [])], [headline], specs)
    answer = text.partition("<h3>The claims</h3>")[2].partition("</table>")[0]
    rows = re.findall(r'<tr><th scope="row">(.*?)</th>(.*?)</tr>', answer)
    assert len(rows) == 18
    untested = [cells for name, cells in rows if "untested" in cells]
    assert len(untested) == 16
    assert all("at assumed sd" in cells and "not run" in cells for cells in untested)
    tested = dict(rows)["PASCAL VOC 2012, ResNet-18"]
    for told in ("+5.73", 'class="pill reproduced"', "not locked", "1.00 [", "3 at measured sd"):
        assert told in tested
    assert set(Links(text).targets) <= set(Links(text).ids)


def test_nothing_ran(tmp_path):
    text = make("paper", tmp_path, rounds=0)
    assert "No run has started." in text
    assert text.count('class="pill not-run"') == 63 + 2 + 21 + 5
    assert "<figure>" not in text


def test_gain_has_its_interval():
    table = golden_table("mini")
    at = ("mAP", "icasc-a_ch")
    table = replace(
        table, cells=table.cells | {at: replace(table.cells[at], gain_interval=GainInterval(-1.25, 2.5, "images only"))}
    )
    text = report.page([report.Part(table, table.matrix, {}, [])])
    shown = f"{render.signed(table.cells[at].gain, table)} [-1.25, +2.50] (images only)†"
    assert f">{shown}</td>" in text
    assert f"; gain {shown}, paper" in text


def test_single_label_tables(tmp_path):
    """Rows are backbones and settings, the number is top-1, scores have class numbers for labels."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 10, 300)
    for run in plant(tmp_path, as_published, scale="mini"):
        scores = rng.normal(size=(300, 10))
        scores[np.arange(300), labels] += 2.0 if "baseline" in run.id else 2.4
        save_scores(run, labels, scores, **metrics.summary(scores, labels, ()), num_test=300)
        run.write_metrics([{"epoch": e, "train": {"classification": 2.0 / e}, "test_top1": 0.1 * e} for e in (1, 2)])
    row = (
        golden_table()
        .spec.rows[0]
        .model_copy(
            update={
                "key": "ResNet-18, 30 images",
                "item": "top1",
                "where": {"backbone": "resnet18"},
                "published": [70.0, None, 73.3],
            }
        )
    )
    text = make("mini", tmp_path, {"rows": [row]})
    table = golden_table("mini", tmp_path, {"rows": [row]})
    cell = table.cells["ResNet-18, 30 images", "icasc-a_ch"]
    assert cell.n == 2
    assert cell.gain > 0
    assert f">{render.value_text(cell, table)}</button>" in text
    assert "95% over test images, these seeds (bootstrap)" in text
    assert "standard error of one run over test images (binomial)" in text
    assert "top-1 accuracy by row and method" in text
    assert text.count("<figure>") == 3
    assert not any(" " in name for name in Links(text).ids)


def test_hostile_names_stay_text():
    rows = [golden_table().spec.rows[0].model_copy(update={"key": '"><script>alert(1)</script>', "item": "cow"})]
    text = make(spec_changes={"rows": rows, "title": "T. <img src=x onerror=alert(1)>"})
    assert "<script>alert" not in text
    assert "<img src=x" not in text


def test_command_writes_the_page(tmp_path, monkeypatch):
    monkeypatch.setattr(grid.load, "__defaults__", (GOLDEN,))
    (tmp_path / "table2.yaml").write_bytes((TABLES / "table2.yaml").read_bytes())
    words = ["--runs", str(RUNS), "--tables", str(tmp_path)]
    result = CliRunner().invoke(cli.app, ["report", "--rounds", "10", *words], catch_exceptions=False)
    assert result.exit_code == 0
    assert (tmp_path / "mini" / "report.html").read_text().startswith("<!doctype html>")
    result = CliRunner().invoke(cli.app, ["figures", *words], catch_exceptions=False)
    made = sorted(path.name for path in (tmp_path / "mini" / "figures" / "table2").iterdir())
    assert made == [
        f"{name}.{ending}" for name in ("curves-resnet18_narrow", "gains", "values") for ending in ("pdf", "png")
    ]


def test_attention_that_was_measured_is_shown(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "captions.json").write_text(json.dumps({"attention-ours-right": "ICASC right: 3 of 9"}))
    (folder / "attention-ours-right.png").write_bytes(b"png")
    lines = [{"maps": "a_ch", "network": n, "n": 2, "overlap_top5": 0.5, "overlap_top5_std": 0.1} for n in "bo"]
    (tmp_path / "attention.json").write_text(json.dumps(lines))
    pictures, attention = cli.evidence.drawn_attention(tmp_path)
    part = report.Part(golden_table(), golden_matrix(), {}, pictures, attention)
    text = report.page([part])
    assert 'alt="ICASC right: 3 of 9"' in text
    assert "0.5000 ± 0.1000" in text
    assert cli.evidence.drawn_attention(tmp_path / "nothing") == ([], [])


@pytest.mark.parametrize("captions", ["{", "[]", '{"../secret": "a picture from elsewhere"}', '{"gone": "x"}'])
def test_attention_that_is_damaged_is_named(captions, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "secret.png").write_bytes(b"png")
    (tmp_path / "run" / "captions.json").write_text(captions)
    with pytest.raises(UserError, match=r"captions.json: cannot be read .*'figures --attention' draws it again"):
        cli.evidence.drawn_attention(tmp_path)


# In a browser

PROBE = """<script>
window.addEventListener("load", () => {
  const found = {}, column = (table, i) => Array.from(table.tBodies[0].rows, row => row.cells[i].textContent.trim());
  const table = document.querySelector("#table2 table.sortable"), heads = table.tHead.rows[1].cells;
  found.before = column(table, 0);
  heads[1].querySelector("button").click();
  const said = document.getElementById("said");
  found.descending = [heads[1].getAttribute("aria-sort"), column(table, 1), said.textContent];
  heads[1].querySelector("button").click();
  found.ascending = [heads[1].getAttribute("aria-sort"), column(table, 1)];
  heads[0].querySelector("button").click(); heads[0].querySelector("button").click();
  found.names = column(table, 0);
  const opener = document.querySelector('[data-trace="table2:cow:icasc-a_ch"]');
  opener.focus(); opener.click();
  const dialog = document.querySelector("dialog[open]");
  const told = dialog.textContent.includes("python -m benchmark run");
  found.dialog = [dialog.id, told, dialog.contains(document.activeElement)];
  dialog.querySelector("header button").click();
  found.closed = [document.querySelector("dialog[open]") === null, document.activeElement === opener];
  found.wide = document.documentElement.scrollWidth <= window.innerWidth;
  found.images = Array.from(document.images, i => i.naturalWidth > 0 && i.alt !== "");
  found.errors = window.errors;
  document.body.dataset.found = JSON.stringify(found);
});
</script>"""
CATCH = "<script>window.errors = []; window.addEventListener('error', e => errors.push(e.message));</script>"


def browse(tmp_path: Path, *options: str) -> subprocess.CompletedProcess:
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}",
               "--enable-logging=stderr", *options, (tmp_path / "report.html").as_uri()]  # fmt: skip
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


@pytest.mark.skipif(not CHROMIUM, reason="no chromium on PATH")
@pytest.mark.parametrize("width", [500, 1400])
def test_in_a_browser(page, tmp_path, width):
    probed = page.replace("<head>", f"<head>{CATCH}", 1).replace("</body>", f"{PROBE}</body>")
    (tmp_path / "report.html").write_text(probed, encoding="utf-8")
    done = browse(tmp_path, f"--window-size={width},900", "--virtual-time-budget=3000", "--dump-dom")
    assert "CONSOLE" not in done.stderr, done.stderr
    found = json.loads(html.unescape(re.search(r'data-found="([^"]*)"', done.stdout)[1]))
    state, values, said = found["descending"]
    numbers = [float(text.split()[0]) for text in values]
    assert (state, numbers) == ("descending", sorted(numbers, reverse=True))
    assert said == "Sorted by ours, descending"
    state, values = found["ascending"]
    assert (state, [float(text.split()[0]) for text in values]) == ("ascending", sorted(numbers))
    assert found["names"] == sorted(found["before"], key=str.lower)
    assert found["dialog"] == ["table2:cow:icasc-a_ch", True, True]
    assert found["closed"] == [True, True]
    assert found["wide"]
    assert found["images"] == [True] * 3
    assert found["errors"] == []


@pytest.mark.skipif(not CHROMIUM, reason="no chromium on PATH")
def test_prints_to_pdf(page, tmp_path):
    (tmp_path / "report.html").write_text(page, encoding="utf-8")
    done = browse(tmp_path, f"--print-to-pdf={tmp_path / 'report.pdf'}", "--no-pdf-header-footer")
    data = (tmp_path / "report.pdf").read_bytes()
    assert done.returncode == 0, done.stderr
    assert data.startswith(b"%PDF-")
    pages = len(re.findall(rb"/Type\s*/Page\b", data))
    assert 2 <= pages <= 12  # the dialogs, sixty of them, stay out
