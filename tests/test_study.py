"""A study of one's own: methods, networks, data and tables from a folder that --study names."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import benchmark
from benchmark import data
from benchmark.cli import init
from benchmark.errors import UserError
from benchmark.evidence import explain
from benchmark.matrix import grid, own, study
from benchmark.matrix.grid import Data
from benchmark.matrix.matrix import Matrix
from benchmark.store.records import Code
from benchmark.store.run import submit
from benchmark.tables import diff, locks, published, render

ROOT = Path(__file__).parents[1]
METHOD = "from benchmark.methods import Method\nMETHODS = {'mine': Method(lambda *batch: None, title='Mine')}\n"


@pytest.fixture(autouse=True)
def built_in_again():
    yield
    own.use(None)


@pytest.fixture
def use(tmp_path):
    """use(text): the study whose methods.py says `text`."""

    def used(text: str) -> Path:
        folder = tmp_path / "mine"
        folder.mkdir(exist_ok=True)
        (folder / "methods.py").write_text(text)
        own.use(folder)
        return folder

    return used


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = 1\ny = 1 / 0\n", "methods.py:2: ZeroDivisionError"),
        ("def f(:\n", "methods.py:1: SyntaxError"),
        ("METHODS = 3", "METHODS: expected a dict"),
        ("METHODS = {'mine': print}", "METHODS: expected a dict of name: Method"),
        ("BACKBONES = {'mine': print}", "BACKBONES: expected a dict of name: Architecture"),
        (METHOD.replace("'mine'", "'baseline'"), "'baseline' is built in"),
        (METHOD.replace("'mine'", "'a b'"), "'a b' is no name"),
        (METHOD.replace("title", "reads=('sigm',), title"), "mine reads 'sigm', which is none; did you mean 'sigma'"),
        (
            "from pydantic import BaseModel\nclass O(BaseModel):\n    sigma: float = 1\n"
            + METHOD.replace("title", "options=O, title"),
            "option 'sigma' is a field of every job",
        ),
        (
            "from pydantic import BaseModel\nclass O(BaseModel):\n    tau: float\n"
            + METHOD.replace("title", "options=O, title"),
            "option 'tau' needs a default",
        ),
    ],
)
def test_what_is_wrong_in_the_file_is_named(use, text, message):
    with pytest.raises(UserError) as error:
        use(text)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_folder_that_is_not_there():
    with pytest.raises(UserError, match=r"no such folder; 'python -m benchmark init"):
        own.use(Path("nowhere"))


def test_a_method_stands_beside_those_of_a_built_in_grid(use):
    folder = use(METHOD)
    matrix = Matrix(grid.load("voc"), "mini")
    assert matrix.methods == ["baseline", "icasc-grad_cam", "icasc-a_ch", "mine"]
    spec = published.load("table2", published.BUILT_IN)
    assert (spec.columns[-1].header, spec.rows[0].published[-1]) == ("Mine", None)
    assert matrix.subfolder == Path("mini/mine")  # the paper's tables stay what they are
    assert f"--study {folder}" in matrix.command(["mine"])
    ids = {job.id for job in matrix.jobs}
    own.use(None)
    assert {job.id for job in Matrix(grid.load("voc"), "mini").jobs} < ids


def test_the_file_s_hash_makes_runs_stale(use):
    use(METHOD)
    code = Code(version="1", commit="0" * 40, study=study.at_hand().sha256)
    assert "methods.py" not in explain.code_state(code)
    use(METHOD + "# another\n")
    assert explain.code_state(code) == "stale: the study's methods.py is another"
    own.use(None)
    assert explain.code_state(code) == "unknown: of another study"


def test_a_network_of_one_s_own(use):
    text = (
        "from torch import nn\nfrom benchmark.methods.models import Architecture\n"
        "def make(num_classes):\n"
        "    net = nn.Module()\n    net.a, net.b = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3)\n"
        "    net.pool, net.flat, net.fc = nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, num_classes)\n"
        "    return net\n"
        "BACKBONES = {'tiny': Architecture(make, ('a', 'b'), ('a', 'b'), ('pool', 'flat', 'fc'), 'fc.')}\n"
    )
    use(text)
    from benchmark.methods import models

    asked = {"backbone": "tiny", "weights": "scratch"}
    job = grid.load("voc").jobs("mini", asked, {"method": ["icasc-a_ch"], "seed": [0]})[0]
    assert job.id.startswith("voc2012-mini-tiny-icasc-a_ch")
    assert models.build("tiny", 7, 0).pooled_linear_weight().shape == (7, 4)
    with pytest.raises(UserError, match="did you mean 'tiny'"):
        grid.load("voc").jobs("mini", asked | {"backbone": "tinny"})


def picture(path: Path, shade: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (12, 9), (shade, shade, 0)).save(path)


@pytest.fixture
def folders(tmp_path):
    for split in ("train", "test"):
        for name, count in (("ape", 4), ("bee", 6)):
            for i in range(count):
                shade = 20 * i + 5 * (name == "bee") + 10 * (split == "test")
                picture(tmp_path / "photos" / split / name / f"{split}{i}.png", shade)
    return tmp_path / "photos"


def read(layout: Data, root: Path, split: str, seed: int = 0) -> data.ImageSet:
    return data.own.load(layout, root, split, seed)


def test_class_folders_with_splits(folders):
    images = read(Data(layout="imagefolder", path="x"), folders, "train")
    assert images.classes == ("ape", "bee")
    assert images.targets.tolist() == [0] * 4 + [1] * 6
    assert images.ids[0] == "train/ape/train0.png"
    one = Data(layout="imagefolder", path="x", classes=["bee"])
    assert len(read(one, folders, "test").ids) == 6
    with pytest.raises(UserError, match=r"valid: no such folder"):
        read(one, folders, "valid")
    with pytest.raises(UserError, match=r"train/cat: missing, though .*; classes found: ape, bee"):
        read(Data(layout="imagefolder", path="x", classes=["cat"]), folders, "train")


def test_drawn_splits_share_no_image_and_hang_on_the_seed_alone(folders):
    drawn = Data(layout="imagefolder", path="x", splits={"train": 0.5, "test": 0.5})
    root = folders / "train"
    train, test = read(drawn, root, "train"), read(drawn, root, "test")
    assert set(train.ids).isdisjoint(test.ids)
    assert np.bincount(train.targets).tolist() == np.bincount(test.targets).tolist() == [2, 3]
    assert read(drawn, root, "train").ids == train.ids
    assert any(read(drawn, root, "train", seed).ids != train.ids for seed in (1, 2, 3))
    few = Data(layout="imagefolder", path="x", splits={"train": 0.99, "test": 0.01})
    with pytest.raises(UserError, match=r"class ape has too few images \(4\) for split test"):
        read(few, root, "test")
    with pytest.raises(UserError, match="unknown split 'tran'; did you mean 'train'"):
        read(drawn, root, "tran")


@pytest.fixture
def table(folders):
    lines = ["file,label,split", "photos/train/ape/train0.png,a;b,train", "photos/train/ape/train1.png,,train"]
    path = folders.parent / "labels.csv"
    path.write_text("\n".join([*lines, "photos/test/bee/test1.png,b,test"]) + "\n")
    return path


def test_a_table_of_labels(table):
    several = read(Data(layout="csv", path="x", multi_label=True), table, "train")
    assert several.classes == ("a", "b")
    assert several.targets.tolist() == [[1, 1], [-1, -1]]
    table.write_text(table.read_text().replace("a;b", "a").replace("1.png,,", "1.png,b,"))
    single = read(Data(layout="csv", path="x"), table, "train")
    assert single.targets.tolist() == [0, 1]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "file,label,split",
            "file,lable,split",
            "labels.csv:1: no column 'label'; found: 'file', 'lable', 'split'; expected: file, label, split",
        ),
        ("a;b,train", "a;b,train,more", "labels.csv:2: has not as many fields"),
        ("train1.png", "train9.png", r"labels.csv:3: .*train9.png: no such file"),
        ("train1.png", "train0.png", "names .*train0.png twice"),
        (",b,test", ",c,test", "labels.csv:4: unknown label 'c'"),
    ],
)
def test_what_is_wrong_in_a_table_is_named_with_its_line(table, old, new, message):
    table.write_text(table.read_text().replace(old, new))
    with pytest.raises(UserError, match=message):
        read(Data(layout="csv", path="x", multi_label=True, classes=["a", "b"]), table, "train")


def test_a_table_that_is_a_pipe_is_refused(tmp_path):
    os.mkfifo(tmp_path / "labels.csv")
    with pytest.raises(UserError, match=r"labels.csv: is no regular file"):
        read(Data(layout="csv", path="x"), tmp_path / "labels.csv", "train")


def test_the_voc_layout_with_other_classes(tmp_path):
    main = tmp_path / "ImageSets" / "Main"
    main.mkdir(parents=True)
    (main / "train.txt").write_text("1\n2\n")
    (main / "cell_train.txt").write_text("1 1\n2 -1\n")
    (main / "nerve_train.txt").write_text("1 0\n2 1\n")
    for i in (1, 2):
        picture(tmp_path / "JPEGImages" / f"{i}.jpg", i)
    images = read(Data(layout="voc", path="x"), tmp_path, "train")
    assert images.classes == ("cell", "nerve")
    assert images.targets.tolist() == [[1, 0], [-1, 1]]


def test_a_grid_of_one_s_own_describes_its_data(call, tmp_path, folders):
    assert call(tmp_path, "init", "mine").returncode == 0
    assert "is there already" in call(tmp_path, "init", "mine").stderr
    path = tmp_path / "mine" / "grids" / "mine.yaml"
    path.write_text(
        path.read_text()
        .replace("dataset: cifar100-mini", "dataset: photographs")
        .replace("resize: none", "resize: warp")
        + "data: {layout: imagefolder, path: ../photos}\n"
    )
    planned = call(tmp_path, "plan", "--study", "mine", "--json")
    jobs = json.loads(planned.stdout)
    assert [job["method"] for job in jobs] == ["baseline", "baseline", "smoothed", "smoothed"]
    assert {job["dataset"] for job in jobs} == {"photographs"}
    own.use(tmp_path / "mine")
    assert data.locate("photographs", None, tmp_path) == tmp_path / "mine" / "../photos"
    assert (
        call(tmp_path, "plan", "--study", "mine", "--set", "smothing=0.3").stderr.count("did you mean 'smoothing'") == 1
    )
    assert "voc" in call(tmp_path, "plan").stdout  # the built-in study again
    path.write_text(path.read_text().replace("layout: imagefolder", "layout: imagefolders"))
    assert "mine.yaml:" in (failed := call(tmp_path, "plan", "--study", "mine").stderr)
    assert "did you mean 'imagefolder'" in failed


def test_labels_that_are_not_for_the_loss(call, tmp_path, folders):
    call(tmp_path, "init", "mine")
    path = tmp_path / "mine" / "grids" / "mine.yaml"
    text = path.read_text().replace("cifar100-mini", "photographs").replace("cross_entropy", "multilabel_soft_margin")
    text = text.replace("precision: float32", "precision: float32\n  difficult_train: positive")
    path.write_text(text + "data: {layout: imagefolder, path: ../photos}\n")
    told = call(tmp_path, "run", "--grid", "mine", "--study", "mine").stderr
    assert "photographs gives an image one label, which is not for loss: multilabel_soft_margin" in told


def test_milestones_are_one_value_as_typed():
    jobs = grid.load("cifar100").jobs("mini", {"schedule": "step", "milestones": [1, 2]}, {"seed": [0]})
    assert {job.milestones for job in jobs} == {(1, 2)}
    jobs = grid.load("cifar100").jobs("mini", {"schedule": "step", "milestones": [[1], [1, 2]]}, {"seed": [0]})
    assert {job.milestones for job in jobs} == {(1,), (1, 2)}


@pytest.mark.slow
def test_what_init_writes_runs(call, tmp_path, small_cache):
    call(tmp_path, "init", "mine")
    only = "--only", "seed=0", "--set", "epochs=1", "--set", "limit_train=100", "--cache", small_cache
    told = call(tmp_path, "run", "--grid", "mine", "--study", "mine", *only)
    assert told.returncode == 0, told.stderr
    assert "Label smoothing" in told.stdout
    results = [json.loads(path.read_text()) for path in tmp_path.glob("runs/paper/*/result.json")]
    (recorded,) = {result["code"].get("study") for result in results}  # its network is both methods'
    assert len(results) == 2
    assert recorded == own.load(tmp_path / "mine").sha256
    assert list(tmp_path.glob("mine/tables/paper/*/mine.md"))


def test_a_notebook_names_its_study(tmp_path):
    init.init(tmp_path / "mine")
    (tmp_path / "runs").mkdir()
    table = benchmark.table("mine", runs=tmp_path / "runs", study=tmp_path / "mine")
    assert (table.scale, list(table.to_frame()["column"])) == ("paper", ["baseline", "smoothed"])
    assert study.at_hand().folder is None, "the one that was at hand before"
    job = grid.load("voc").jobs("mini", {"seed": 0})[0]
    submit(tmp_path / "runs", job)
    own.use(tmp_path / "mine")
    smoothed = grid.load("mine").jobs("paper", {"seed": 0}, {"method": ["smoothed"]})[0]
    submit(tmp_path / "runs", smoothed)
    own.use(None)
    runs = benchmark.runs(runs=tmp_path / "runs", study=tmp_path / "mine")
    assert set(runs["method"]) == {job.method, "smoothed"}


def test_data_commands_speak_of_the_study_s_data(call, tmp_path, folders):
    call(tmp_path, "init", "mine")
    path = tmp_path / "mine" / "grids" / "mine.yaml"
    text = path.read_text().replace("dataset: cifar100-mini", "dataset: photographs")
    path.write_text(text.replace("resize: none", "resize: warp") + "data: {layout: imagefolder, path: ../photos}\n")
    rows = json.loads(call(tmp_path, "data", "list", "--study", "mine", "--json").stdout)
    row = next(row for row in rows if row["name"] == "photographs")
    assert (row["state"], row["command"]) == (
        "not verified",
        "python -m benchmark data verify photographs --study mine",
    )
    verify = ("data", "verify", "photographs", "--study", "mine")
    assert call(tmp_path, *verify).stdout.splitlines() == [
        "photographs under mine/../photos: complete",
        "train: 10 images, which show 2 classes",
        "test: 10 images, which show 2 classes",
        "a sample of 20 images, as 8-bit RGB: mean 33.3, from 0 to 115",
    ]
    for command, why in (("draw", "which nothing draws"), ("get", "which nothing fetches")):
        assert why in call(tmp_path, "data", command, "photographs", "--study", "mine").stderr
    (folders / "test").rename(folders / "tset")
    missing = call(tmp_path, *verify)
    assert (missing.returncode, "test: no such folder" in missing.stdout) == (1, True)
    assert "unknown data set 'photographs'" in call(tmp_path, "data", "verify", "photographs").stderr


def test_a_competitor_has_its_published_numbers_and_nothing_to_run(tmp_path, monkeypatch):
    """A column of a method that is not here: shown, never run, judged or locked."""
    init.init(tmp_path / "mine")
    own.use(tmp_path / "mine")
    path = tmp_path / "mine" / "tables" / "mine.yaml"
    text = path.read_text().replace("[null, null]", "[50.0, 52.0, 53.0], claim: true")
    text = text.replace(
        "rows:", "  - {key: theirs, header: 'Theirs', published_only: true}\ntolerance: 1\nlooks: [2]\nrows:"
    )
    path.write_text(text)
    (tmp_path / "runs").mkdir()
    table = benchmark.table("mine", runs=tmp_path / "runs", tables=tmp_path / "mine" / "tables")
    cell = table.cells["top-1 accuracy", "theirs"]
    assert (cell.published, cell.status, cell.verdict, cell.gain_verdict) == (53.0, "published", None, None)
    assert table.orders["top-1 accuracy"].outcome == "not run", "of the columns that run"
    assert [claim.column for claim in locks.claims_of(table.spec, {})] == ["smoothed"]
    assert ("top-1 accuracy", "theirs") not in diff.of_table(table).cells
    assert "53.0" in render.terminal(table, None)
    path.write_text(text.replace("published_only", "published_onyl"))
    with pytest.raises(UserError, match="did you mean 'published_only'"):
        published.load("mine", path.parent)
    path.write_text(text.replace(", published_only: true", ""))
    with pytest.raises(UserError, match=r"mine.yaml:.*unknown method 'theirs'"):
        published.load("mine", path.parent)
    path.write_text(text.replace('"Baseline"', '"Baseline", published_only: true'))
    with pytest.raises(UserError, match="gains are over the first column; it runs"):
        published.load("mine", path.parent)


def test_a_table_without_readings_is_judged_as_its_grid_has_it(tmp_path):
    init.init(tmp_path / "mine")
    own.use(tmp_path / "mine")
    spec, chosen = published.load("mine", tmp_path / "mine" / "tables"), grid.load("mine")
    assert locks.frozen_reading(spec, Matrix(chosen, "paper")) == {}
    assert locks.frozen_reading(spec, Matrix(chosen, "paper", {"smoothing": 0.3})) is None
    assert locks.frozen_reading(spec, Matrix(chosen, "paper", {"seed": [1, 2]})) is None
