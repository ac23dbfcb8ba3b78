"""The report: self-contained, safe, stable; and in a real browser: it fits, opens a trace, prints, and axe-core finds
nothing to say against it."""

import html.parser
import json
import os
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from benchmark import cli
from benchmark.evidence import figures, report
from benchmark.matrix import grid
from benchmark.stats.claims import GainInterval
from benchmark.store import metrics
from benchmark.tables import build, published, render, summary
from tests.evidence import GOLDEN, RUNS, TABLES, as_published, golden_table, plant, save_scores

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


def make(scale="mini", runs=RUNS, spec_changes=None, rounds=20):
    table = golden_table(scale, runs, spec_changes)
    groups = [group for cell in table.cells.values() for group in build.groups(table, cell)]
    samples = table.results.resample(groups, rounds)
    drawn = [(d.caption, "image/svg+xml", figures.svg(d)) for d in figures.draw(table)]
    return report.page([report.Part(table, table.results, samples, drawn)])


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
        self.targets += [given["popovertarget"]] if "popovertarget" in given else []
        self.targets += [given["href"][1:]] if tag == "a" and given.get("href", "").startswith("#") else []
        links = () if tag == "a" else ("href",)  # which are followed by who presses them
        self.fetched += [given[k] for k in ("src", *links) if k in given and not given[k].startswith("data:")]


def test_self_contained(page):
    links = Links(page)
    assert "<script" not in page
    assert links.fetched == []
    assert not re.search(r"@import|url\((?!data:)", page)
    assert len(links.ids) == len(set(links.ids))
    assert set(links.targets) <= set(links.ids)
    assert len([i for i in links.ids if i.count(":") == 2 and not i.endswith("-title")]) == 63


def test_same_runs_same_bytes(page):
    assert make() == page


def test_what_is_not_comparable_is_said_before_any_number(page):
    assert page.index("Not comparable with the paper") < page.index('class="blocks"')
    for text in ("epochs: 2 (paper: 20)", "one public port", "torch 2.13.0+cpu", "AMD EPYC", "data:image/svg+xml"):
        assert text in page


def test_verdicts_of_a_comparable_table(tmp_path):
    plant(tmp_path, as_published)
    text = make("paper", tmp_path, rounds=0)
    assert "Not comparable" not in text
    assert 'class="gain up"' in text  # gains whose interval excludes zero
    assert text.count('class="pill reproduced"') == 63 + 2 + 21
    assert "Is the lead over the baseline the published one, by half of the claim? 2 reproduced" in text


def test_the_answer_has_a_row_for_every_claim(tmp_path):
    """All five data sets and both methods; what did not run is untested, and says how many seeds it takes."""
    folder = published.BUILT_IN
    specs = {name: published.load(name, folder) for name in published.names(folder)}
    plant(tmp_path, as_published)
    row = golden_table().spec.rows[-1].model_copy(update={"key": "ResNet-18", "item": "mAP"})
    voc = golden_table("paper", tmp_path, {"rows": [row], "name": "voc"})
    headline = summary.headline(specs["headline"], {"voc": voc}, "paper")
    text = report.page([report.Part(voc, voc.results, {}, [])], [headline], specs)
    answer = text.partition('aria-label="The claims"')[2].partition("</table>")[0]
    rows = re.findall(r'<tr><th scope="row">(.*?)</th>(.*?)</tr>', answer)
    untested = [cells for _, cells in rows if "untested" in cells]
    assert len(untested) == 8
    assert all("at assumed sd" in cells and "not run" in cells for cells in untested)
    assert "ILSVRC2012, ResNet-18: Grad-CAM, A_ch" in dict(rows), "a line for both, of which the same is to be said"
    tested = dict(rows)["PASCAL VOC 2012, ResNet-18: A_ch"]
    for told in (
        "+5.73",
        'class="pill reproduced"',
        "not locked",
        "3 to confirm, 3 to refute at measured sd",
        'popovertarget="voc:',
    ):
        assert told in tested
    assert set(Links(text).targets) <= set(Links(text).ids)


def test_nothing_ran(tmp_path):
    text = make("paper", tmp_path, rounds=0)
    assert "No run has started." in text
    assert text.count('class="pill not-run"') == 63 + 2 + 21
    assert "<figure>" not in text


@pytest.mark.parametrize(("over", "told"), [("seeds and images", True), ("seeds only", True), ("images only", False)])
def test_a_gain_of_one_seed_is_never_coloured(over, told):
    table = golden_table("mini")
    at = ("mAP", "icasc-a_ch")
    cell = replace(table.cells[at], gain=-2.0, gain_interval=GainInterval(-3.0, -1.0, over))
    others = {k: replace(c, gain_interval=None) for k, c in table.cells.items()}
    table = replace(table, cells=others | {at: cell})
    text = report.page([report.Part(table, table.results, {}, [])])
    assert ('class="gain down"' in text) is told


def test_gain_has_its_interval():
    table = golden_table("mini")
    at = ("mAP", "icasc-a_ch")
    table = replace(
        table, cells=table.cells | {at: replace(table.cells[at], gain_interval=GainInterval(-1.25, 2.5, "images only"))}
    )
    text = report.page([report.Part(table, table.results, {}, [])])
    shown = render.signed(table.cells[at].gain, table), "[-1.25, +2.50]", "(images only)†"
    assert " ".join(f"<span>{render.minus(piece)}</span>" for piece in shown) + "</td>" in text


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
    block = text.partition("<caption>ResNet-18, 30 images")[2].partition("</table>")[0]
    assert block.count("<tr>") == 4, "a line a method"
    runs = text.partition("Runs and their scores")[2].partition("</table>")[0]
    assert all(f"<td>{value:.2f}</td>" in runs for value in cell.values)
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


@pytest.fixture(scope="module")
def reduced(tmp_path_factory):
    """The report of the committed runs: its whole, with the answer, and that of Table 2."""
    root, folder = Path(__file__).parents[1], tmp_path_factory.mktemp("reduced")
    pages = []
    words = ["report", "--scale", "reduced", "--rounds", "0", "--runs", str(root / "runs"), "--tables", str(folder)]
    for more in ([], ["--table", "table2"]):
        assert CliRunner().invoke(cli.app, words + more, catch_exceptions=False).exit_code == 0
        pages.append((folder / "reduced" / "report.html").read_text())
    return pages


@pytest.mark.records
def test_it_opens_with_the_answer(reduced):
    """The sentence, the picture and the table of `answer`, number by number."""
    text, _ = reduced
    opening = html.unescape(text).partition('id="answer"')[2].partition('id="open"')[0]
    said, _, table = (Path(__file__).parents[1] / "tables" / "answer.md").read_text().partition("\n\n")
    assert said in opening
    assert opening.count("<img ") == 1
    assert text.index("<img ") > text.index('id="answer"')
    found = [re.sub("<.*?>", "", cell) for cell in re.findall(r"<t[hd].*?>(.*?)</t[hd]>", opening)]
    lines = [line for line in table.splitlines() if line.startswith("|")]
    cells = [cell.strip(" *").replace("\\", "") for line in lines for cell in line.strip("|").split("|")]
    assert found == [render.minus(cell) for cell in cells if not cell.startswith((":-", "--"))]
    assert "ResNet-110 (as resnet20)" in opening
    assert opening.count("popovertarget") == 4, "a trace for each gain of this scale"
    links = Links(text)
    assert set(links.targets) <= set(links.ids)
    assert len(links.ids) == len(set(links.ids))


@pytest.mark.records
def test_it_is_named_after_the_paper_or_the_study(reduced):
    text, of_table = reduced
    assert "<h1>Does it reproduce? Wang et al., Sharpen Focus, ICCV 2019 (arXiv:1811.07484v3)</h1>" in text
    assert "supplementary material" in of_table.partition("</h1>")[0]
    assert "PASCAL VOC 2012, multi-label classification: the photographs at hand" in text.partition("</header>")[0]
    rows = [row.model_copy(update={"published": [None] * 3, "mean_of": None}) for row in golden_table().spec.rows]
    own = make(spec_changes={"rows": rows, "title": "A study of my own"})
    assert "<h1>A study of my own</h1>" in own
    assert "ICASC" not in own.partition("<main>")[0]


@pytest.mark.records
def test_a_line_of_a_port_is_linked(reduced):
    address = "https://github.com/paganpasta/SharpenFocus-Pytorch/blob/bcb43774/models/sfocus.py#L63-L65"
    assert f'<a href="{address}">paganpasta/SharpenFocus-Pytorch bcb43774, models/sfocus.py:63-65</a>' in reduced[0]
    assert report.linked("a <b> (x/y 0123abcd, z.py:7)") == (
        'a &lt;b&gt; (<a href="https://github.com/x/y/blob/0123abcd/z.py#L7">x/y 0123abcd, z.py:7</a>)'
    )


def test_one_minus():
    assert render.minus("-1.18 [-3.18, +0.82]") == "−1.18 [−3.18, +0.82]"
    for name in ("a-s0-12", "3-4", "--set sigma=-1", "cpu-2.0", "models/x.py:63-65"):
        assert render.minus(name) == name


@pytest.mark.records
def test_no_hyphen_stands_for_a_minus(reduced):
    shown = re.sub(r"<(style|code)\b.*?</\1>|<[^>]*>", " ", reduced[0], flags=re.DOTALL)
    assert re.findall(r"[\s\[(]-\d[^\s]*", shown) == []
    assert "−1.18" in shown


# In a browser

PROBE = """<script>
window.addEventListener("load", () => {
  const found = {}, seen = [];
  const stops = Array.from(document.querySelectorAll("a[href], button, summary, [tabindex='0']"), e => e)
    .filter(e => e.checkVisibility() && !e.closest("dialog"));
  const skip = stops[0], start = stops.findIndex(e => e.closest("#answer"));
  found.stops = [skip.getAttribute("href"), stops.findIndex((e, i) => i >= start && e.popoverTargetElement) - start];
  const opener = document.querySelector('.blocks [popovertarget="table2:cow:icasc-a_ch"]');
  opener.focus(); opener.click();
  const dialog = document.querySelector("dialog:popover-open");
  const told = dialog.textContent.includes("python -m benchmark run");
  found.dialog = [dialog.id, told, dialog.contains(document.activeElement)];
  dialog.querySelector(".head button").click();
  found.closed = [document.querySelector("dialog:popover-open") === null, document.activeElement === opener];
  found.wide = document.documentElement.scrollWidth <= window.innerWidth;
  for (const table of document.querySelectorAll(".blocks table, .wide table")) {
    const heads = Array.from(table.tHead.rows[0].cells), box = table.closest(".scroll");
    const edge = box.getBoundingClientRect().right;
    for (const head of heads)
      if (/gain|ours|claimed/.test(head.textContent)) seen.push(head.getBoundingClientRect().right <= edge + 1);
  }
  found.gains = seen;
  const scroller = Array.from(document.querySelectorAll("details.more")).map(d => (d.open = true, d)) &&
    Array.from(document.querySelectorAll(".scroll")).find(e => e.scrollWidth > e.clientWidth + 40);
  if (scroller) {
    const first = scroller.querySelector("tbody th"), before = first.getBoundingClientRect().left;
    scroller.scrollLeft = 40;
    found.sticky = scroller.scrollLeft === 40 && Math.abs(first.getBoundingClientRect().left - before) < 2;
    found.hint = getComputedStyle(scroller).backgroundAttachment.startsWith("local, scroll");
  }
  const figure = document.querySelector("figure"), image = figure.querySelector("img"), small = image.clientWidth;
  figure.querySelector("summary").click();
  found.larger = image.clientWidth > small;
  found.images = Array.from(document.images, i => i.naturalWidth > 0 && i.alt !== "");
  found.errors = window.errors;
  document.body.dataset.found = JSON.stringify(found);
});
</script>"""
AXE = """<script>{axe}</script><script>
window.addEventListener("load", () => {{
  document.querySelectorAll("details").forEach(e => e.open = true);
  const dialog = document.querySelector("dialog");
  dialog.showPopover();
  axe.run().then(done => {{
    const found = done.violations.map(v => v.id + ": " + v.nodes.map(n => n.html.slice(0, 200)).join(" | "));
    document.body.dataset.found = JSON.stringify([found, done.passes.length]);
  }});
}});
</script>"""
CATCH = "<script>window.errors = []; window.addEventListener('error', e => errors.push(e.message));</script>"


def browse(tmp_path: Path, *options: str) -> subprocess.CompletedProcess:
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}",
               "--enable-logging=stderr", *options, (tmp_path / "report.html").as_uri()]  # fmt: skip
    return subprocess.run(command, capture_output=True, text=True, timeout=300)


def probe(tmp_path: Path, text: str, width: int) -> dict:
    """What PROBE finds in a window of this width. A window is never narrower than 500, but a frame in it is."""
    probed = text.replace("<head>", f"<head>{CATCH}", 1).replace("</body>", f"{PROBE}</body>")
    (tmp_path / "page.html").write_text(probed, encoding="utf-8")
    told = "parent.document.body.dataset.found = document.body.dataset.found"
    (tmp_path / "page.html").write_text(probed.replace("JSON.stringify(found);", f"JSON.stringify(found); {told};"))
    frame = f"<iframe src='page.html' style='width:{width}px;height:900px;border:0'></iframe>"
    (tmp_path / "report.html").write_text(f"<body style='margin:0'>{frame}</body>", encoding="utf-8")
    shown = "--hide-scrollbars", "--allow-file-access-from-files", "--window-size=1500,900"
    done = browse(tmp_path, *shown, "--virtual-time-budget=5000", "--dump-dom")
    assert "CONSOLE" not in done.stderr, done.stderr
    return json.loads(html.unescape(re.search(r'data-found="([^"]*)"', done.stdout)[1]))


@pytest.mark.skipif(not CHROMIUM, reason="no chromium on PATH")
@pytest.mark.parametrize("width", [400, 900, 1280])
@pytest.mark.parametrize("which", ["mini", pytest.param("reduced", marks=pytest.mark.records)])
def test_in_a_browser(page, request, tmp_path, which, width):
    found = probe(tmp_path, page if which == "mini" else request.getfixturevalue("reduced")[0], width)
    assert found["wide"], "the page itself never scrolls sideways"
    assert found["gains"]
    assert all(found["gains"]), "gain columns are in sight without scrolling"
    assert found["dialog"] == ["table2:cow:icasc-a_ch", True, True]
    assert found["closed"] == [True, True]
    skip, tabs = found["stops"]
    assert skip == "#answer"
    assert tabs <= (2 if which == "reduced" else 8)
    assert found.get("sticky", True)
    assert found.get("hint", True)
    assert width > 400 or "sticky" in found
    assert found["larger"]
    assert all(found["images"])
    assert found["errors"] == []


@pytest.mark.skipif(not CHROMIUM, reason="no chromium on PATH")
@pytest.mark.records
@pytest.mark.skipif("AXE" not in os.environ, reason="AXE names no axe.min.js (npm pack axe-core)")
@pytest.mark.parametrize("width", [500, 1280])
def test_axe_finds_no_violation(reduced, tmp_path, width):
    axe = AXE.format(axe=Path(os.environ["AXE"]).read_text(encoding="utf-8"))
    (tmp_path / "report.html").write_text(reduced[0].replace("</body>", f"{axe}</body>"), encoding="utf-8")
    done = browse(tmp_path, f"--window-size={width},900", "--virtual-time-budget=60000", "--dump-dom")
    found, passes = json.loads(html.unescape(re.findall(r'data-found="([^"]*)"', done.stdout)[-1]))
    assert found == []
    assert passes > 10


@pytest.mark.skipif(not CHROMIUM, reason="no chromium on PATH")
@pytest.mark.parametrize(
    "which", ["mini", *(pytest.param(name, marks=pytest.mark.records) for name in ("reduced", "table2"))]
)
def test_prints_to_six_pages(page, request, tmp_path, which):
    text = page if which == "mini" else request.getfixturevalue("reduced")[which == "table2"]
    (tmp_path / "report.html").write_text(text, encoding="utf-8")
    done = browse(tmp_path, f"--print-to-pdf={tmp_path / 'report.pdf'}", "--no-pdf-header-footer")
    printed = (tmp_path / "report.pdf").read_bytes()
    assert done.returncode == 0, done.stderr
    assert printed.startswith(b"%PDF-")
    pages = len(re.findall(rb"/Type\s*/Page\b", printed))
    assert 2 <= pages <= 6  # what is behind "details" stays out, and so do the traces
