"""What docs/reproduction.md says is what the committed records give."""

import json
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from benchmark import cli
from benchmark.evidence import curve
from benchmark.matrix import grid
from benchmark.matrix.matrix import Matrix
from benchmark.results.results import Results
from benchmark.tables import catalogue

ROOT = Path(__file__).parents[1]

pytestmark = pytest.mark.records


@pytest.mark.slow
@pytest.mark.parametrize(
    ("folder", "grids"), [("study", {"cifar100", "voc"}), ("terms", {"voc"}), ("terms/precision=float32", {"voc"})]
)
def test_tables_of_a_study_are_its_readings_alone(folder, grids, tmp_path):
    scale, _, changed = folder.partition("/")
    words = ["tables", "--scale", scale, "--runs", str(ROOT / "runs"), "--tables", str(tmp_path)]
    words += ["--set", changed] if changed else []
    assert CliRunner().invoke(cli.app, words, catch_exceptions=False).exit_code == 0
    made, committed = (
        {path.name: path.read_text(encoding="utf-8") for path in (root / folder).iterdir() if path.is_file()}
        for root in (tmp_path, ROOT / "tables")
    )
    assert made == committed
    assert set(made) == {f"{name}-readings.md" for name in grids}


@pytest.mark.parametrize(
    ("folder", "table"),
    [
        ("reduced", "cifar100"), ("reduced/attention_weight=0.2", "cifar100"), ("reduced", "headline"),
        ("reduced", "table2"), ("reduced", "voc"), ("subset", "table2"), ("subset", "voc"), ("subset", "headline"),
        ("reduced", "voc-controls"), ("subset", "voc-controls"), ("reduced/precision=float32", "voc-controls"),
        ("reduced/precision=float32", "table2"), ("subset/attention_weight=1.0", "table2"), ("guided", "voc-guided"),
        ("controls", "cifar100-controls"),
        pytest.param("controls", "voc-controls", marks=pytest.mark.slow),
    ],
)  # fmt: skip
def test_committed_tables_of_real_runs_are_made_from_the_committed_records(folder, table, tmp_path):
    scale, _, changed = folder.partition("/")
    words = ["tables", "--scale", scale, "--table", table, "--runs", str(ROOT / "runs"), "--tables", str(tmp_path)]
    words += ["--set", changed] if changed else []
    assert CliRunner().invoke(cli.app, words, catch_exceptions=False).exit_code == 0
    made = {path.name: path.read_text(encoding="utf-8") for path in (tmp_path / folder).iterdir()}
    assert len(made) == 4
    for name, text in made.items():
        assert (ROOT / "tables" / folder / name).read_text(encoding="utf-8") == text


def test_the_answer_s_table_is_made_from_the_committed_records(tmp_path):
    words = ["answer", "--runs", str(ROOT / "runs"), "--tables", str(tmp_path)]
    assert CliRunner().invoke(cli.app, words, catch_exceptions=False).exit_code == 0
    for name in ("answer", "answer-controls"):
        assert (tmp_path / f"{name}.md").read_text() == (ROOT / "tables" / f"{name}.md").read_text()
        assert (tmp_path / f"{name}.png").stat().st_size > 10_000


@pytest.mark.parametrize("document", ["README.md", *sorted(f"docs/{path.name}" for path in ROOT.glob("docs/*.md"))])
def test_gains_in_prose_are_the_tables(document):
    """Every `gain [low, high]` that a sentence states stands in a committed table, to the last digit."""
    gain = r"([-+]\d+\.\d\d) \[([-+]\d+\.\d\d), ([-+]\d+\.\d\d)\]"
    stated = re.findall(gain, _prose(document))
    assert stated or document != "README.md"
    scales = ("reduced", "subset", "controls", "guided")
    tables = [path for scale in scales for path in (ROOT / "tables" / scale).rglob("*.md")]
    tables.append(ROOT / "tables" / "answer.md")
    known = {printed for path in tables for printed in re.findall(gain, path.read_text())}
    for readings in (ROOT / "tables").rglob("*-readings.md"):
        known |= set(re.findall(r"([-+]\d+\.\d\d) +\| \[([-+]\d+\.\d\d), ([-+]\d+\.\d\d)\]", readings.read_text()))
    assert set(stated) <= known


def test_overlaps_in_the_prose_of_the_answer_are_the_tables():
    """Every share of three digits, which is how overlaps and their changes are printed."""
    share = r"(?<![\d.])[01]\.\d{3}(?!\d)"
    tables = [ROOT / "tables" / "answer-controls.md", *(ROOT / "tables" / "terms").rglob("*-readings.md")]
    known = {printed for path in tables for printed in re.findall(share, path.read_text())}
    stated = set(re.findall(share, _prose("docs/answer.md")))
    assert len(stated) > 10
    assert stated <= known


def _rows(path: Path) -> list[str]:
    return [line for line in path.read_text().splitlines() if line.startswith("|") and not line.startswith("|:")]


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 90


@pytest.mark.parametrize(
    ("address", "scale"),
    [
        ("headline:PASCAL VOC 2012, ResNet-18:icasc-grad_cam", "reduced"),
        ("cifar100-controls:ResNet-110, top-1:icasc-grad_cam", "controls"),
        ("cifar100-controls:ResNet-110, top-1, over the placebo:icasc-grad_cam", "controls"),
    ],
)
def test_the_page_of_the_answer_has_the_shares_of_blank_maps(address, scale):
    words = ["explain", address, "--scale", scale, "--runs", str(ROOT / "runs"), "--tables", str(ROOT / "tables")]
    printed = CliRunner().invoke(cli.app, words, catch_exceptions=False).stdout
    (shares,) = re.findall(r"maps that are blank, .*?: (.*)", printed)
    assert shares in (ROOT / "docs" / "answer.md").read_text()


def test_what_the_page_of_the_answer_says_of_an_a_a_by_seed_is_the_tables():
    said = _prose("docs/answer.md")
    for folder in ("controls", "reduced/precision=float32"):
        cells = json.loads((ROOT / "tables" / folder / "voc-controls.json").read_text())["cells"]
        ours, theirs = (
            next(cell for cell in cells if (cell["row"], cell["column"]) == ("ResNet-18", column))
            for column in ("aa-a_ch", "baseline")
        )
        gains = [a - b for a, b in zip(ours["values"], theirs["values"], strict=True)]
        assert f"({', '.join(f'{gain:+.2f}' for gain in gains)}" in said
    cell = next(cell for cell in cells if (cell["row"], cell["column"]) == ("ResNet-18", "aa-a_ch"))
    assert cell["gain_low"] > 0, "the page calls it a false positive"
    assert f"{cell['gain']:+.2f} [{cell['gain_low']:+.2f}, {cell['gain_high']:+.2f}], above zero in each" in said
    all_classes = [
        _last_mAP(ROOT / "runs" / "reduced" / a) - _last_mAP(ROOT / "runs" / "reduced" / b)
        for a, b in zip(ours["runs"], theirs["runs"], strict=True)
    ]
    assert min(all_classes) < 0 < max(all_classes)


def test_what_the_page_of_the_answer_says_of_a_published_gain_by_seed_is_the_table():
    cells = json.loads((ROOT / "tables" / "controls" / "cifar100-controls.json").read_text())["cells"]
    ours, theirs = (
        next(cell["values"] for cell in cells if (cell["row"], cell["column"]) == ("ResNet-110, top-1", column))
        for column in ("no_augmentation", "baseline")
    )
    gains = [a - b for a, b in zip(ours, theirs, strict=True)]
    said = _prose("docs/answer.md")
    assert f"({', '.join(f'{gain:+.2f}' for gain in gains)})" in said
    assert f"had not told it from zero, {sum(gains[:3]) / 3:.2f} with" in said


def _last_mAP(run: Path) -> float:
    """Over every class that the test images show."""
    return json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])["test_mAP"]


@pytest.mark.slow
def test_the_page_of_the_answer_has_the_gains_of_every_choice():
    """As `sensitivity --vary` prints them, none left out."""
    expected = []
    for name in ("ap_definition", "difficult_test", "checkpoint", "min_positives"):
        words = ["sensitivity", "--grid", "voc", "--scale", "reduced", "--vary", name, "--json", "--runs"]
        printed = CliRunner().invoke(cli.app, [*words, str(ROOT / "runs")], catch_exceptions=False)
        lines = json.loads(printed.stdout)
        for value in dict.fromkeys(line["value"] for line in lines):
            of_value = {line["method"]: line for line in lines if line["value"] == value}
            used = " (in use)" if of_value["icasc-a_ch"]["in_use"] else ""
            gains = [_gain(of_value[method]) for method in ("icasc-grad_cam", "icasc-a_ch")]
            expected.append(f"| {name} {value}{used} | {gains[0]} | {gains[1]} |".replace("_", r"\_"))
    shown = _rows(ROOT / "docs" / "answer.md")
    assert [line for line in shown if line in expected] == expected


def _gain(line: dict) -> str:
    over = "" if line["over"] == "seeds and images" else f" ({line['over']})"
    return f"{line['gain']:+.2f} [{line['low']:+.2f}, {line['high']:+.2f}]{over}"


@pytest.mark.parametrize("document", ["README.md", "docs/data.md"])
def test_the_number_of_committed_runs_is_the_folders(document):
    stated = re.findall(r"(\d+) runs\b", _prose(document))
    assert set(stated) == {str(len(list((ROOT / "runs").glob("[!m]*/*/job.json"))))}


@pytest.mark.parametrize(
    ("scale", "dataset", "precision", "said"),
    [
        ("study", "cifar100", "float32", "{} jobs, {} minutes of one core"),
        ("reduced", "voc2012", "bfloat16", "bfloat16: {1} minutes of one core"),
    ],
)
def test_how_many_ran_and_for_how_long_is_the_records(scale, dataset, precision, said):
    jobs = {path.parent: json.loads(path.read_text()) for path in (ROOT / "runs" / scale).glob("*/job.json")}
    chosen = [folder for folder, job in jobs.items() if (job["dataset"], job["precision"]) == (dataset, precision)]
    seconds = sum(json.loads((folder / "result.json").read_text())["seconds"] for folder in chosen)
    assert said.format(len(chosen), round(seconds / 60)) in " ".join(
        (ROOT / "docs" / "reproduction.md").read_text().split()
    )


def test_mini_numbers_of_the_document_are_the_tables():
    """Of the data sets that docs/run.md sums up in one table."""
    lines = (ROOT / "docs" / "run.md").read_text().partition("| data set, stand-in |")[2].partition("\n\n")[0]
    stated = re.findall(r"\d+\.\d\d", lines)
    tables = [json.loads(path.read_text()) for path in (ROOT / "tables" / "mini").glob("*.json")]
    known = {f"{cell['mean']:.2f}" for table in tables for cell in table["cells"] if cell["mean"] is not None}
    assert stated
    assert set(stated) <= known


@pytest.mark.slow
def test_what_choices_are_worth_is_the_records():
    """The sentence under the picture, by what it draws: every choice that it names as less than chance is one."""
    specs = list(catalogue.every(ROOT / "tables").values())
    (spec,) = (spec for spec in catalogue.first_of_each_grid(specs, ROOT / "tables") if spec.grid == "voc")
    _, drawing = curve.draw(Results.read(Matrix(grid.load("voc"), "study", runs=ROOT / "runs")), spec, None)
    (axes,) = drawing.figure.axes
    worth = dict(zip((t.get_text() for t in axes.get_yticklabels()), (t.get_text() for t in axes.texts), strict=True))
    seeds, images = worth.pop("another seed"), worth.pop("other test images")
    (of_seeds,) = re.findall(r"from the \d+ seeds of scale \w+", drawing.caption)
    said = _prose("docs/reproduction.md").replace("`", "")
    assert f"than other test images ({images} points) or another seed ({seeds}, {of_seeds})" in said
    below = {name for name, mean in worth.items() if float(mean) <= max(float(seeds), float(images))}
    assert below == set(re.findall(r"All choices but (\w+) move the gain", said))
    assert f"the weight itself is worth {float(worth['attention_weight']):.0f} points" in said


def _prose(document: str) -> str:
    """Without tables, line ends as blanks."""
    lines = [line for line in (ROOT / document).read_text().splitlines() if not line.startswith("|")]
    return " ".join(" ".join(lines).split())
