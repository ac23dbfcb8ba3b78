"""Every command over what `init` writes, over examples/, and over a tiny study of each layout; and what docs/own.md
promises, typed as it says."""

import json
import re
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

import benchmark
from benchmark import cli, data
from benchmark.cli import init
from benchmark.errors import UserError
from benchmark.evidence import maps
from benchmark.matrix import grid
from benchmark.matrix import own as own_study
from benchmark.matrix.matrix import Matrix
from benchmark.tables import catalogue

ROOT = Path(__file__).parents[1]
# Of the machine, or of the suite's own networks: they read no study.
OF_NO_STUDY = {"bench", "gpu-session", "pretrain-mini", "schema"}
SMALL = {"epochs: 4": "epochs: 1", "batch_size: 50": "batch_size: 4", "seed: [0, 1]": "seed: [0]"}


@pytest.fixture(autouse=True)
def built_in_again():
    yield
    own_study.use(None)


def written(folder: Path, *changes: tuple[str, str], data: str = "") -> Path:
    """What `init` writes, smaller, with these changes in its grid."""
    init.init(folder)
    path = folder / "grids" / "mine.yaml"
    text = path.read_text()
    for old, new in [*SMALL.items(), *changes]:
        assert old in text
        text = text.replace(old, new)
    path.write_text(text + data)
    return folder


def picture(path: Path, number: int, class_number: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.new("RGB", (12, 9), (40 + 150 * class_number, 10 * number, 200))
    image.putpixel((number, class_number), (255, 255, 255))
    image.save(path)


def by_init(place: Path) -> Path:
    return written(place / "mine", ("batch_size: 4", "batch_size: 50\n  limit_train: 50"))


def by_examples(place: Path) -> Path:
    folder = place / "mine"
    shutil.copytree(ROOT / "examples", folder, ignore=shutil.ignore_patterns("runs", "paper"))
    path = folder / "grids" / "digits.yaml"
    text = path.read_text().replace("epochs: 6", "epochs: 1\n  limit_train: 50")
    path.write_text(text.replace("[0, 1, 2, 3, 4, 5, 6, 7]", "[0]"))
    return folder


OWN_DATA = (("dataset: cifar100-mini ", "dataset: photographs "), ("resize: none", "resize: warp"))


def by_imagefolder(place: Path) -> Path:
    for split, first in (("train", 0), ("test", 4)):
        for c, name in enumerate(("ape", "bee")):
            for i in range(4):
                picture(place / "photos" / split / name / f"{i}.png", first + i, c)
    return written(place / "mine", *OWN_DATA, data="data: {layout: imagefolder, path: ../photos}\n")


def by_csv(place: Path) -> Path:
    lines = ["file,label,split"]
    for i in range(16):
        picture(place / "photos" / f"{i}.png", i % 8, i // 8)
        lines.append(f"photos/{i}.png,{('ape', 'bee')[i // 8]},{('train', 'test')[i % 2]}")
    (place / "labels.csv").write_text("\n".join(lines) + "\n")
    return written(place / "mine", *OWN_DATA, data="data: {layout: csv, path: ../labels.csv}\n")


def by_voc(place: Path) -> Path:
    main = place / "photos" / "ImageSets" / "Main"
    main.mkdir(parents=True)
    for split, ids in (("train", range(8)), ("test", range(8, 12))):
        (main / f"{split}.txt").write_text("".join(f"{i}\n" for i in ids))
        for c, name in enumerate(("ape", "bee")):
            (main / f"{name}_{split}.txt").write_text("".join(f"{i} {1 if i % 2 == c else -1}\n" for i in ids))
        for i in ids:
            picture(place / "photos" / "JPEGImages" / f"{i}.jpg", i, i % 2)
    changes = [*OWN_DATA, ("loss: cross_entropy", "loss: multilabel_soft_margin\n  difficult_train: positive")]
    folder = written(place / "mine", *changes, data="data: {layout: voc, path: ../photos}\n")
    path = folder / "tables" / "mine.yaml"
    path.write_text(path.read_text().replace('"top-1 accuracy", item: top1', '"mAP"'))
    return folder


STUDIES = {
    "init": by_init, "examples": by_examples, "imagefolder": by_imagefolder, "csv": by_csv, "voc": by_voc,
}  # fmt: skip


def commands(grid_name: str, cell: str, dataset: str) -> dict[str, tuple[tuple, int]]:
    """Each command as typed, and how it ends: with 2 where it is not for such a study, in one line."""
    table = cell.partition(":")[0]
    run = ("run", "--grid", grid_name)
    return {
        "init": (("init", "another"), 0), "plan": (("plan",), 0), "run": (run, 0), "status": (("status",), 0),
        "tables": (("tables",), 0), "published": (("published",), 0), "assumptions": (("assumptions",), 0),
        "lock": (("lock", "--check"), 0 if table == "mine" else 1), "diff": (("diff", "runs", "runs"), 0),
        "answer": (("answer",), 2), "explain": (("explain", cell), 0),
        "sensitivity": (("sensitivity", "--grid", grid_name, "--vary", "batch_size=[4]"), 2),
        "figures": (("figures",), 0), "report": (("report", "--rounds", "50"), 0), "verify": (("verify",), 0),
        "import": (("import", "runs", "--origin", "me", "--runs", "theirs"), 0),
        "export": (("export", "--out", "x.csv"), 0), "run-job": (("run-job", "RUN"), 3),
        "data list": (("data", "list"), 0), "data verify": (("data", "verify", dataset), 0),
        "data draw": (("data", "draw", dataset), 0 if dataset.endswith("-mini") else 2),
        "data get": (("data", "get", dataset), 2),
    }  # fmt: skip


@pytest.mark.parametrize(
    "kind", [name if name == "init" else pytest.param(name, marks=pytest.mark.slow) for name in STUDIES]
)
@pytest.mark.timeout(900)
def test_every_command_speaks_of_the_study(call: Callable, tmp_path: Path, cache: Path, kind: str):
    folder = STUDIES[kind](tmp_path)
    example = kind == "examples"
    grid_name, table = ("digits", "true") if example else ("mine", "mine")
    row, method = "mAP" if kind == "voc" else "top-1 accuracy", "hot_head" if example else "smoothed"
    dataset = "cifar100-mini" if kind in ("init", "examples") else "photographs"
    typed = commands(grid_name, f"{table}:{row}:{method}", dataset)
    assert {name for name in typed if " " not in name} == set(cli.COMMANDS) - OF_NO_STUDY
    first = ["run", *(name for name in typed if name != "run")]
    for name in first:
        words, status = typed[name]
        words = [str(next(tmp_path.glob("runs/paper/*"))) if word == "RUN" else word for word in words]
        takes_cache = name in ("run", "plan", "figures", "report") or name.startswith("data")
        ended = call(tmp_path, *words, "--study", folder, *(["--cache", cache] if takes_cache else []))
        told = ended.stdout + ended.stderr
        if "ran with changes that commit" not in told:  # of a checkout in which somebody works
            assert ended.returncode == status, (name, told)
        assert "Traceback" not in told
        if status == 2:
            assert ended.stderr.count("\n") == 1, (name, told)
            assert ended.stderr.startswith("error: "), (name, told)
    page = (folder / "tables" / "paper" / "report.html").read_text()
    assert ("Nothing is published" in page) is not example
    assert "Assumptions: what the paper leaves open (0)" not in page
    assert list((folder / "tables" / "paper" / "figures").rglob("*.png"))
    again = call(tmp_path, "explain", f"{table}:{row}:{method}", "--study", folder, "--as-it-was")
    assert f"--study {folder}" in again.stdout, again.stderr


@pytest.mark.timeout(900)
def test_a_method_stands_beside_the_paper_s(call, tmp_path, small_cache):
    """README of what init writes: `run --grid voc --study DIR`, then every command on that table."""
    init.init(tmp_path / "mine")
    few = ("--set", "epochs=1", "--set", "limit_train=16", "--set", "limit_test=16", "--set", "image_size=32")
    own = ("--study", "mine", "--cache", small_cache)
    only = ("--only", "seed=0,method=baseline,method=smoothed")
    ended = call(tmp_path, "run", "--grid", "voc", "--scale", "mini", *few, *only, *own)
    assert ended.returncode == 0, ended.stderr
    assert "holds no table" not in ended.stdout
    (made,) = (tmp_path / "tables" / "mini" / "mine").rglob("table2.json")
    lines = json.loads(made.read_text())["cells"]
    means = {line["column"]: line["mean"] for line in lines if line["row"] == "mAP"}
    assert means["smoothed"] is not None
    assert list(means) == ["baseline", "icasc-grad_cam", "icasc-a_ch", "smoothed"]
    assert not (tmp_path / "mine" / "tables" / "mini").exists(), "what is the paper's stands with the paper's"
    for words in (
        ("tables", "--scale", "mini", *few), ("tables", "--table", "voc", "--scale", "mini", *few),
        ("explain", "table2:mAP:smoothed", "--scale", "mini", "--rounds", "50", *few),
        ("figures", "--table", "table2", "--scale", "mini", *few),
    ):  # fmt: skip
        ended = call(tmp_path, *words, "--study", "mine")
        assert ended.returncode == 0, (words, ended.stderr)
    (run,) = (path for path in (tmp_path / "runs" / "mini").iterdir() if "-smoothed-" in path.name)
    ended = call(tmp_path, "verify", run, "--rerun", "1", *own)
    if "ran with changes that commit" not in ended.stdout:
        assert "the same scores, bit for bit" in ended.stdout, ended.stderr
    ended = call(tmp_path, "verify", run)
    assert "--study DIR" in ended.stderr


def test_tables_go_where_they_are_sent(call, tmp_path, small_cache):
    """`--tables OUT` with a study: read from the study, written there."""
    folder = written(tmp_path / "mine")
    (tmp_path / "runs").mkdir()
    ended = call(tmp_path, "tables", "--study", "mine", "--scale", "paper", "--tables", "out")
    assert ended.returncode == 0, ended.stderr
    assert (tmp_path / "out" / "paper" / "mine.md").is_file()
    assert not (folder / "tables" / "paper").exists()


def test_a_table_that_is_kept_is_replaced_by_the_line_that_is_printed(call, tmp_path):
    written(tmp_path / "mine")
    (tmp_path / "runs").mkdir()
    place = tmp_path / "mine" / "tables" / "paper" / "smoothing=0.3"
    place.mkdir(parents=True)
    (place / "mine.json").write_text('{"cells": [{"n": 3}]}')
    words = ("tables", "--study", "mine", "--scale", "paper", "--set", "smoothing=0.3", "--table", "mine")
    told = call(tmp_path, *words).stdout
    line = re.search(r"these instead: (.*)", told)
    assert line is not None, told
    assert call(tmp_path, *shlex.split(line[1])[3:]).returncode == 0
    assert len(json.loads((place / "mine.json").read_text())["cells"]) == 2


def test_a_study_outside_the_repository_is_told_where_it_can_be_locked(call, tmp_path):
    folder = written(tmp_path / "mine")
    path = folder / "tables" / "mine.yaml"
    path.write_text(path.read_text().replace("[null, null]", "[50.0, 52.0], claim: true").replace(
        "decimals: 2", "decimals: 2\ntolerance: 1\nlooks: [2]"))  # fmt: skip
    ended = call(tmp_path, "lock", "--study", "mine")
    assert ended.returncode == 2
    assert "lies outside the suite's repository" in ended.stderr
    assert "copy the study into a clone" in ended.stderr


@pytest.mark.parametrize(
    ("loss", "row", "message"),
    [
        ("multilabel_soft_margin", "item: top1", "have no 'top1'; its item is mAP, or a class, as 'item: mAP'"),
        ("cross_entropy", "item: mAP", "have no 'mAP'; its item is top1 or top5, as 'item: top1'"),
        ("cross_entropy", "item: bee", "have no 'bee'"),
    ],
)
def test_a_row_that_no_run_could_fill_is_refused_before_training(call, tmp_path, loss, row, message):
    folder = by_csv(tmp_path)
    path = folder / "grids" / "mine.yaml"
    path.write_text(path.read_text().replace("loss: cross_entropy", f"loss: {loss}").replace(
        "labels.csv}", "labels.csv, multi_label: true}" if loss.startswith("multi") else "labels.csv}"))  # fmt: skip
    path = folder / "tables" / "mine.yaml"
    path.write_text(path.read_text().replace("item: top1, ", f"{row}, "))
    ended = call(tmp_path, "run", "--grid", "mine", "--study", "mine")
    assert ended.returncode == 2
    assert message in ended.stderr
    assert "mine/tables/mine.yaml: row 'top-1 accuracy'" in ended.stderr
    assert not (tmp_path / "runs").exists()


def test_a_method_of_the_paper_runs_on_own_data_as_it_is(call, tmp_path):
    """`icasc-a_ch` in the axes is enough: its settings have declared values, which the job holds."""
    folder = by_csv(tmp_path)
    path = folder / "grids" / "mine.yaml"
    path.write_text(path.read_text().replace("[baseline, smoothed]", "[baseline, icasc-a_ch]"))
    jobs = json.loads(call(tmp_path, "plan", "--study", "mine", "--json").stdout)
    fields = next(job for job in jobs if job["method"] == "icasc-a_ch")
    assert (fields["attention_weight"], fields["sigma"], fields["multi_label_target"]) == (0.05, 0.55, None)
    path.write_text(path.read_text().replace("cross_entropy", "multilabel_soft_margin").replace(
        "labels.csv}", "labels.csv, multi_label: true}"))  # fmt: skip
    jobs = json.loads(call(tmp_path, "plan", "--study", "mine", "--json").stdout)
    assert {job["difficult_train"] for job in jobs} == {"positive"}


def test_jobs_that_no_table_shows_are_told(capsys):
    from benchmark.cli.run import say_what_no_table_shows

    tables = ROOT / "tables"
    specs = catalogue.of_grid("cub200", tables)
    say_what_no_table_shows(specs, Matrix(grid.load("cub200"), "paper", {"backbone": "resnet18"}), tables)
    assert "note: no table has a row and a column for cub200-resnet18" in capsys.readouterr().out
    for name in grid.names():
        for scale in grid.load(name).scales:
            unshown = catalogue.unshown(catalogue.of_grid(name, tables), Matrix(grid.load(name), scale), tables)
            assert not unshown or not grid.load(name).has_tables(scale), (name, scale)


def test_a_part_of_the_data_is_not_called_the_whole():
    from benchmark.cli.run import protocol_of

    voc = grid.load("voc")
    why = voc.scales["paper"].why
    assert protocol_of(Matrix(voc, "paper"), why) == why
    for fields in ({"partial": True}, {"limit_train": 12}, {"epochs": 2}):
        told = protocol_of(Matrix(voc, "paper", fields), why)
        assert why not in told
        assert f"but for {next(iter(fields))}" in told


@pytest.mark.parametrize("scale", ["paper", "mini", "reduced", "controls", "study", "terms", "year2008", "nowhere"])
def test_notebook_and_command_answer_alike(call, tmp_path, scale):
    """The same cells for each table that a scale has, and the same refusal for the others."""
    (tmp_path / "runs").mkdir()
    for name in ("table2", "voc-guided", "voc-controls", "headline", "table1"):
        words = ("tables", "--table", name, "--scale", scale, "--runs", tmp_path / "runs", "--tables", tmp_path / "out")
        ended = call(tmp_path, *words)
        refused = ""
        try:
            frame = benchmark.table(name, scale=scale, runs=tmp_path / "runs", tables=ROOT / "tables").to_frame()
        except UserError as error:
            refused = f"error: {error}\n"
        if refused:
            assert ended.returncode == 2
            assert scale == "nowhere" or ended.stderr == refused
            continue
        assert ended.returncode == 0, (name, ended.stderr)
        made = json.loads((tmp_path / "out" / scale / f"{name}.json").read_text())["cells"]
        assert [cell["status"] for cell in made] == frame["status"].tolist()


def test_a_job_is_a_key_whatever_its_options_are(tmp_path):
    """Whether the model of a study's options is frozen or not, and with lists in it."""
    options = "    smoothing: float = 0.1\n    steps: list[int] = [1, 2]\n"
    for frozen in ("", ", frozen=True"):
        folder = tmp_path / f"study{len(frozen)}"
        init.init(folder)
        path = folder / "methods.py"
        text = path.read_text().replace("    smoothing: float = 0.1\n", options)
        path.write_text(text.replace("class Options(BaseModel):", f"class Options(BaseModel{frozen}):"))
        own_study.use(folder)
        jobs = grid.load("mine").jobs("paper")
        assert len({job: job.id for job in [*jobs, *grid.load("mine").jobs("paper")]}) == len(jobs) == 4


def test_what_a_data_set_is_is_asked_of_the_registry(tmp_path):
    """A name that ends in -mini is drawn only where the suite draws it."""
    assert {name for name in data.DATASETS if grid.is_official(name)} == {
        name for name, dataset in data.DATASETS.items() if dataset.draw is None
    }
    folder = by_csv(tmp_path)
    path = folder / "grids" / "mine.yaml"
    path.write_text(path.read_text().replace("photographs", "photos-mini"))
    own_study.use(folder)
    assert data.find("photos-mini").draw is None
    assert not grid.is_official("photos-mini")
    assert "--data-root" not in Matrix(grid.load("mine"), "paper").command(["baseline"])
    assert "--data-root" in Matrix(grid.load("voc"), "paper").command(["baseline"])


def test_maps_of_a_part_of_the_data_have_photographs_and_names(tiny_voc, tmp_path):
    root = Path(shutil.copytree(tiny_voc, tmp_path / "data"))
    asked = {"partial": True}, {"seed": [0], "method": ["baseline"]}
    (job,) = grid.load("voc").jobs("paper", *asked)
    ids = data.one_split(job, root).ids
    (root / "VOCdevkit" / "VOC2012" / "JPEGImages" / f"{ids[-1]}.jpg").unlink()
    found = maps._at_hand(job, list(ids[:2]), root, tmp_path)
    assert found is not None
    assert (found.ids, len(found.images)) == (tuple(ids[:2]), 2)
    assert len(found.classes) == 20
    assert maps._at_hand(job, list(ids[-1:]), root, tmp_path) is None


def blocks(document: str, section: str) -> list[str]:
    """The indented blocks of a section of a page, as a reader copies them."""
    text = (ROOT / "docs" / document).read_text().partition(f"## {section}\n")[2].partition("\n## ")[0]
    found = re.findall(r"(?:^    .*\n|^\n(?=    ))+", text, re.MULTILINE)
    return [re.sub(r"^    ", "", block.strip("\n"), flags=re.MULTILINE) + "\n" for block in found]


@pytest.mark.slow
@pytest.mark.parametrize("layout", ["folders", "csv"])
def test_the_recipe_for_my_photographs_works_as_the_page_says(call, tmp_path, layout):
    """Typed word by word, but for one epoch instead of four."""
    protocol, table, typed, of_csv = blocks("own.md", "The suite's method on my photographs")
    names, lines = ("ape", "bee"), ["file,label"]
    for c, name in enumerate(names):
        for i in range(9):
            picture(tmp_path / "photographs" / name / f"{i}.png", i, c)
            lines.append(f"photographs/{name}/{i}.png,{name}")
    if layout == "csv":
        (tmp_path / "labels.csv").write_text("\n".join(lines) + "\n")
        protocol = re.sub(r"^data: .*\n", of_csv, protocol, flags=re.MULTILINE)
    assert call(tmp_path, "init", "mine").returncode == 0
    (tmp_path / "mine/grids/photographs.yaml").write_text(protocol.replace("epochs: 4", "epochs: 1"))
    (tmp_path / "mine/tables/photographs.yaml").write_text(table)
    commands = typed.strip().splitlines()
    assert len(commands) == 3
    for line in commands:
        words = shlex.split(line)
        assert words[:3] == ["python", "-m", "benchmark"]
        ended = call(tmp_path, *words[3:])
        assert ended.returncode == 0, (line, ended.stderr)
    made = json.loads(next(tmp_path.glob("**/paper/photographs.json")).read_text())
    assert [cell["n"] for cell in made["cells"]] == [2, 2]
