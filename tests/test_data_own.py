"""Data of one's own, in each layout and as people have them: what is read, and what is refused
before anything trains."""

import json
import os
import re
import shutil
import unicodedata
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmark import data
from benchmark.checks import audit
from benchmark.data import checks, own, voc
from benchmark.errors import UserError
from benchmark.matrix import own as own_study
from benchmark.matrix.grid import Data
from benchmark.matrix.job import Job
from benchmark.store.run import Run

CLASSES = ("cat", "dog", "fox")
LAYOUTS = ("imagefolder", "voc", "csv")
NFC, NFD = (unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))


@pytest.fixture(autouse=True)
def built_in_again():
    yield
    own_study.use(None)


def picture(path: Path, shade: int, **options) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (12, 9), (shade, 255 - shade, 0)).save(path, **options)
    return path


def images_of(split: str) -> list[tuple[str, str, int]]:
    """Of a split two images of each class: a name, the class, a shade of its own."""
    start = 0 if split == "train" else 100
    return [(f"{split}_{k}", name, start + 10 * k) for k, name in enumerate(2 * CLASSES)]


def write_imagefolder(root: Path) -> Path:
    for split in ("train", "test"):
        for name, label, shade in images_of(split):
            picture(root / split / label / f"{name}.png", shade)
    return root


def write_voc(root: Path) -> Path:
    main = root / "ImageSets" / "Main"
    main.mkdir(parents=True)
    for split in ("train", "test"):
        images = images_of(split)
        (main / f"{split}.txt").write_text("".join(f"{name}\n" for name, _, _ in images))
        for label in CLASSES:
            lines = (f"{name} {1 if label == its else -1}\n" for name, its, _ in images)
            (main / f"{label}_{split}.txt").write_text("".join(lines))
        for name, _, shade in images:
            picture(root / "JPEGImages" / f"{name}.jpg", shade, quality=95)
    return root


def write_csv(root: Path) -> Path:
    lines = ["file,label,split"]
    for split in ("train", "test"):
        for name, label, shade in images_of(split):
            picture(root / "im" / f"{name}.png", shade)
            lines.append(f"im/{name}.png,{label},{split}")
    (root / "labels.csv").write_text("\n".join(lines) + "\n")
    return root / "labels.csv"


WRITE = {"imagefolder": write_imagefolder, "voc": write_voc, "csv": write_csv}
MAIN = Path("ImageSets/Main")


@pytest.fixture
def lay(tmp_path, call):
    """lay("csv", damage, classes=[...]): the root of a study's data in that layout, damaged; its study is at hand."""

    def laid(layout: str, damage: Callable[[Path], object] = lambda root: None, **described) -> Path:
        path = WRITE[layout](tmp_path / "photos")
        damage(tmp_path / "photos")
        assert call(tmp_path, "init", "mine").returncode == 0
        several = layout == "voc" or described.get("multi_label")
        text = (tmp_path / "mine" / "grids" / "mine.yaml").read_text()
        text = text.replace("dataset: cifar100-mini", "dataset: photographs").replace("resize: none", "resize: warp")
        if several:
            text = text.replace("loss: cross_entropy", "loss: multilabel_soft_margin\n  difficult_train: positive")
        text = re.sub(r" *limit_(train|test): \d+.*\n", "", text)
        described = {"layout": layout, "path": f"../{path.relative_to(tmp_path)}"} | described
        (tmp_path / "mine" / "grids" / "mine.yaml").write_text(f"{text}\ndata: {json.dumps(described)}\n", "utf-8")
        own_study.use(tmp_path / "mine")
        return path

    return laid


@pytest.fixture
def verify(tmp_path, call):
    """What `data verify` says, with its exit status."""

    def verified(*options: str):
        done = call(tmp_path, "data", "verify", "photographs", "--study", "mine", *options)
        assert done.stderr.count("\n") <= 2, "one thing, one line"
        assert "Traceback" not in done.stderr
        return done

    return verified


def read(path: Path, split: str, **described) -> data.ImageSet:
    layout = "csv" if path.suffix == ".csv" else "voc" if (path / MAIN).is_dir() else "imagefolder"
    return own.load(Data(layout=layout, path="x", **described), path, split)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_what_is_whole_is_complete_and_counted(layout, lay, verify):
    lay(layout)
    done = verify("--decode")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "photographs under mine/../photos" in done.stdout
    assert done.stdout.splitlines()[1:3] == [
        "train: 6 images, which show 3 classes",
        "test: 6 images, which show 3 classes",
    ]
    assert "a sample of 12 images, as 8-bit RGB: mean" in done.stdout
    assert "decoding 12 images" in done.stderr
    found = json.loads(verify("--json").stdout)
    assert found["splits"]["test"] == {"images": 6, "official": None, "classes": 3}
    assert found["sample"]["images"] == 12


def rename_class(split: str, old: str, new: str) -> Callable[[Path], object]:
    """In whichever layout."""

    def renamed(root: Path) -> None:
        if (root / "labels.csv").is_file():
            lines = (root / "labels.csv").read_text().splitlines()
            lines = [line.replace(f",{old},{split}", f",{new},{split}") for line in lines]
            (root / "labels.csv").write_text("\n".join(lines) + "\n", "utf-8")
        elif (root / MAIN).is_dir():
            (root / MAIN / f"{old}_{split}.txt").rename(root / MAIN / f"{new}_{split}.txt")
        else:
            (root / split / old).rename(root / split / new)

    return renamed


@pytest.mark.parametrize("layout", LAYOUTS)
def test_splits_of_other_classes_are_refused_with_the_difference(layout, lay, verify, call, tmp_path):
    lay(layout, rename_class("test", "dog", "emu"))
    message = {"csv": "no training image shows class emu, and test images do"}.get(
        layout, "train and test do not have the same classes (only in train: dog; only in test: emu)"
    )
    done = verify()
    assert (done.returncode, message in done.stdout) == (1, True), done.stdout
    ran = call(tmp_path, "run", "--grid", "mine", "--study", "mine")
    assert (ran.returncode, message in ran.stderr) == (2, True), ran.stderr
    assert not list(tmp_path.glob("runs/*/*"))


@pytest.mark.parametrize("layout", ["imagefolder", "voc"])
def test_a_class_that_one_split_lacks_is_named(layout, lay, verify):
    def drop(root: Path) -> None:
        if layout == "voc":
            (root / MAIN / "dog_test.txt").unlink()
        else:
            shutil.rmtree(root / "test" / "dog")

    lay(layout, drop)
    assert "train and test do not have the same classes (only in train: dog); make them alike" in verify().stdout


@pytest.mark.parametrize("layout", LAYOUTS)
def test_named_classes_are_taken_and_no_others(layout, lay, verify):
    def others(root: Path) -> None:
        if layout != "csv":
            rename_class("test", "dog", "emu")(root)

    lay(layout, others, classes=["fox", "cat"] if layout != "csv" else ["fox", "cat", "dog"])
    done = verify()
    assert done.returncode == 0, done.stdout


HIDDEN = (".ipynb_checkpoints", "__MACOSX", ".AppleDouble", "@eaDir")


def litter(root: Path) -> None:
    """What systems and editors leave beside a user's files, with images in it."""
    pictures = sorted([*root.rglob("*.png"), *root.rglob("*.jpg")])
    places = {path.parent for path in pictures} | {path.parents[1] for path in pictures}
    places |= {root / MAIN} if (root / MAIN).is_dir() else set()
    for place in places:
        for name in HIDDEN:
            (place / name).mkdir()
            shutil.copy(pictures[0], place / name / f"copy{pictures[0].suffix}")
        (place / "Thumbs.db").write_bytes(b"\xd0\xcf\x11\xe0")
        (place / "._cat_train.txt").write_bytes(b"\0\5\x16\7")
        (place / f"._cat{pictures[0].suffix}").write_bytes(b"\0\5\x16\7")


@pytest.mark.parametrize("layout", LAYOUTS)
def test_what_systems_leave_is_no_class_and_no_image(layout, lay, verify):
    path = lay(layout)
    before = [read(path, split).ids for split in ("train", "test")]
    litter(path if path.is_dir() else path.parent)
    assert [read(path, split).ids for split in ("train", "test")] == before
    done = verify("--decode")
    assert (done.returncode, "note" in done.stderr) == (0, False), done.stdout + done.stderr


def share_an_image(root: Path, content_only: bool) -> None:
    """One image is in both splits: the same, or a copy of it under the name of another."""
    if content_only:
        found = sorted([*root.rglob("train_0.*"), *root.rglob("test_0.*")])
        by_stem = {path.stem: path for path in found}
        shutil.copy(by_stem["train_0"], by_stem["test_0"])
    elif (root / "labels.csv").is_file():
        path = root / "labels.csv"
        path.write_text(path.read_text() + "im/train_0.png,cat,test\n")
    else:
        for path in (root / MAIN).glob("*test.txt"):
            path.write_text(path.read_text().replace("test_0", "train_0"))


@pytest.mark.parametrize(
    ("layout", "content_only"),
    [("imagefolder", True), ("voc", True), ("csv", True), ("voc", False), ("csv", False)],
)
def test_an_image_of_both_splits_is_refused_unless_that_is_allowed(layout, content_only, lay, verify, call, tmp_path):
    lay(layout, lambda root: share_an_image(root, content_only))
    said = "images of test are also in train, such as "
    done = verify()
    assert (done.returncode, said in done.stdout) == (1, True), done.stdout
    assert ("whose content is that of" in done.stdout) == content_only
    plan = "plan", "--grid", "mine", "--study", "mine", "--json"
    plain = {job["id"] for job in json.loads(call(tmp_path, *plan).stdout)}
    ran = call(tmp_path, "run", "--grid", "mine", "--study", "mine")
    assert (ran.returncode, said in ran.stderr, "--allow-overlap" in ran.stderr) == (2, True, True), ran.stderr
    assert not list(tmp_path.glob("runs/*/*"))
    allowed = call(tmp_path, *plan, "--allow-overlap")
    assert said in allowed.stderr
    jobs = json.loads(allowed.stdout)
    assert {job["overlap"] for job in jobs} == {True}
    assert plain.isdisjoint(job["id"] for job in jobs)


def test_a_file_by_another_way_is_the_same_file(lay, verify):
    def twice(root: Path, split: str) -> None:
        table = root / "labels.csv"
        table.write_text(table.read_text() + f"im/../im/train_0.png,cat,{split}\n")

    lay("csv", lambda root: twice(root, "test"))
    assert "1 of 7 images of test are also in train" in verify().stdout


def test_a_file_twice_in_one_split_by_another_way(tmp_path):
    path = write_csv(tmp_path)
    path.write_text(path.read_text() + "im/../im/train_0.png,cat,train\n")
    with pytest.raises(UserError, match=r"train_0.png twice in one split"):
        read(path, "train")


def test_images_of_one_size_are_told_apart_by_their_content(tmp_path):
    """As bitmaps and raw photographs all are: neither size nor end decides."""
    ours, theirs = (tmp_path / name for name in ("ours", "theirs"))
    for at, end in ((ours, b"a"), (theirs, b"b")):
        at.write_bytes(end + bytes(3 * checks.TAIL))
    same = tmp_path / "same"
    shutil.copy(ours, same)

    def images(*paths: Path) -> data.ImageSet:
        return data.ImageSet(("a",), tuple(path.name for path in paths), paths, np.zeros(len(paths), np.int64))

    assert checks.overlap([("train", images(ours)), ("test", images(theirs))]) == ""
    assert checks.overlap([("train", images(theirs, ours)), ("test", images(same))]).endswith(
        "such as same, whose content is that of ours"
    )
    same.unlink()
    with pytest.raises(UserError, match="same: cannot be read"):
        checks.overlap([("train", images(ours)), ("test", images(same))])


def only_one_class(root: Path) -> None:
    for label in ("dog", "fox"):
        for path in [*root.glob(f"*/{label}"), *(root / MAIN).glob(f"{label}_*.txt")]:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    table = root / "labels.csv"
    if table.is_file():
        table.write_text("\n".join(line for line in table.read_text().splitlines() if ",dog," not in line))
        table.write_text("\n".join(line for line in table.read_text().splitlines() if ",fox," not in line))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_one_class_is_none_to_tell_apart(layout, lay, verify, call, tmp_path):
    lay(layout, only_one_class)
    assert "there is one class only, cat" in verify().stdout
    ran = call(tmp_path, "run", "--grid", "mine", "--study", "mine")
    assert (ran.returncode, "there is one class only, cat" in ran.stderr) == (2, True), ran.stderr


@pytest.mark.parametrize("layout", ["voc", "csv"])
def test_two_classes_that_always_come_together(layout, lay, verify):
    def together(root: Path) -> None:
        for path in (root / MAIN).glob("*_test.txt"):
            path.write_text(path.read_text().replace(" -1", " 1").replace(" 0", " 1"))
        table = root / "labels.csv"
        if table.is_file():
            lines = table.read_text().splitlines()
            lines = [f"{line.split(',')[0]},cat;dog;fox,test" if line.endswith("test") else line for line in lines]
            table.write_text("\n".join(lines))

    lay(layout, together, **({"multi_label": True} if layout == "csv" else {}))
    assert "no test image shows one class and lacks another" in verify().stdout


def test_images_in_sub_folders_are_read_as_torchvision_reads_them(lay, tmp_path):
    from benchmark.methods.torchvision_ops import torchvision

    root = lay("imagefolder")
    for k, place in enumerate(("dog/b", "dog/a/deep", "dog/a-b", "cat/sub")):
        picture(root / "train" / place / f"more_{k}.png", 200 + k)
    (root / "elsewhere").mkdir()
    picture(root / "elsewhere" / "linked.png", 250)
    os.symlink(root / "elsewhere", root / "train" / "fox" / "linked")
    images = read(root, "train")
    expected = torchvision.datasets.ImageFolder(str(root / "train"))
    assert [(str(path), int(k)) for path, k in zip(images.images, images.targets, strict=True)] == expected.samples
    assert images.classes == tuple(expected.classes)
    assert len(images.ids) == 6 + 5
    os.symlink(root / "train" / "fox", root / "train" / "fox" / "round")
    with pytest.raises(UserError, match=r"fox/round: a link leads a second time to .*train/fox; remove it"):
        read(root, "train")


def test_what_is_left_out_is_told(lay, verify):
    root = lay("imagefolder")
    (root / "train" / "cat" / "IMG_1.heic").write_bytes(b"x")
    (root / "train" / "stray.png").write_bytes(b"x")
    told = verify().stderr
    assert "note: photographs, train: left out, in no class folder or no image: 2 files, such as" in told
    assert "stray.png" in told


@pytest.mark.parametrize("layout", LAYOUTS)
def test_decode_decodes_every_image_of_one_s_own(layout, lay, verify):
    path = lay(layout)
    root = path if path.is_dir() else path.parent
    broken = sorted([*root.rglob("test_4.*"), *root.rglob("train_2.*")])
    for each in broken:
        each.write_bytes(each.read_bytes()[:30])
    done = verify("--decode")
    assert done.returncode == 1
    assert "decoding 12 images" in done.stderr
    assert f"{len(broken)} images cannot be decoded" in done.stdout
    assert all(f"{each.name}: cannot be decoded as an image" in done.stdout for each in broken)


def test_decode_decodes_what_drawn_splits_leave_out_too(lay, verify):
    def flat(root: Path) -> None:
        for path in sorted(root.glob("test/*/*")):
            path.rename(root / "train" / path.parent.name / path.name)
        shutil.rmtree(root / "test")
        for path in sorted((root / "train").iterdir()):
            path.rename(root / path.name)
        (root / "train").rmdir()

    lay("imagefolder", flat, splits={"train": 0.5, "test": 0.25})
    done = verify("--decode")
    assert (done.returncode, "decoding 12 images" in done.stderr) == (0, True), done.stdout + done.stderr
    assert "test: 3 images, which show 3 classes" in done.stdout


# What is wrong -> how the layout is damaged, and what is said of it.
BREAKS: dict[str, tuple[str, Callable[[Path], object], str]] = {
    "header in capitals": ("csv", lambda r: edit(r / "labels.csv", "file,label,split", "File,Label,Split"),
                           "labels.csv:1: no column 'file'; found: 'File', 'Label', 'Split'; expected: file, label, "
                           "split; name them so, in small letters"),
    "semicolons": ("csv", lambda r: edit(r / "labels.csv", ",", ";"),
                   "labels.csv:1: no column 'file'; found: 'file;label;split'; expected: file, label, split; separate "
                   "the columns with commas"),
    "tabs": ("csv", lambda r: edit(r / "labels.csv", ",", "\t"), "separate the columns with commas"),
    "no header": ("csv", lambda r: edit(r / "labels.csv", "file,label,split\n", ""),
                  "labels.csv:1: no column 'file'; found: 'im/train_0.png', 'cat', 'train'; expected: file"),
    "nothing": ("csv", lambda r: (r / "labels.csv").write_text(""), "found: nothing; expected: file, label, split"),
    "other splits": ("csv", lambda r: edit(r / "labels.csv", ",test", ",val"),
                     "labels.csv: no line of split 'test'; found in column split: train, val"),
    "NFC and NFD": ("csv", lambda r: [rename_class("train", "dog", NFC)(r), rename_class("train", "cat", NFD)(r)],
                    "is there twice, as NFC and as NFD; write it in one way"),
    "folders NFC and NFD": ("imagefolder", lambda r: [rename_class("train", "dog", NFC)(r),
                                                      rename_class("train", "cat", NFD)(r)],
                            "is there twice, as NFC and as NFD; rename one of them"),
    "splits NFC and NFD": ("imagefolder", lambda r: [rename_class("train", "dog", NFC)(r),
                                                     rename_class("test", "dog", NFD)(r)],
                           "is written with other Unicode characters (NFC, NFD) in train and test"),
    "contradiction": ("voc", lambda r: append(r / MAIN / "cat_test.txt", "test_0 -1\n"),
                      "cat_test.txt:7: image test_0 twice, with different labels"),
    "no class": ("voc", lambda r: [path.unlink() for path in (r / MAIN).glob("*_*.txt")],
                 "ImageSets/Main: holds no file CLASS_train.txt"),
    "folder of no image": ("imagefolder", lambda r: (r / "train" / "gnu").mkdir(), "train/gnu: holds no image"),
    "Latin-1 file": ("imagefolder", lambda r: latin1(r / "train" / "cat" / "train_0.png"),
                     r"the name train/cat/caf\xe9.png is not UTF-8; rename it"),
    "Latin-1 folder": ("imagefolder", lambda r: [latin1(r / s / "cat") for s in ("train", "test")],
                       r"the name caf\xe9 is not UTF-8; rename it"),
}  # fmt: skip


def edit(path: Path, old: str, new: str) -> None:
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))


def append(path: Path, line: str) -> None:
    path.write_text(path.read_text() + line)


def latin1(path: Path) -> None:
    os.rename(path, os.fsencode(path.parent) + b"/caf\xe9" + os.fsencode(path.suffix))


@pytest.mark.parametrize("name", BREAKS)
def test_what_is_wrong_is_said_in_a_line_by_verify_and_by_run(name, lay, verify, call, tmp_path):
    layout, damage, message = BREAKS[name]
    lay(layout, damage)
    done = verify()
    assert (done.returncode, message in done.stdout) == (1, True), done.stdout
    ran = call(tmp_path, "run", "--grid", "mine", "--study", "mine")
    assert (ran.returncode, message in ran.stderr) == (2, True), ran.stderr
    assert ran.stderr.count("\n") == 1
    assert not list(tmp_path.glob("runs/*/*"))


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(("on_disk", "asked"), [(NFC, NFD), (NFD, NFC), (NFC, NFC)])
def test_a_class_is_found_however_its_letters_are_composed(layout, on_disk, asked, lay, verify):
    def accented(root: Path) -> None:
        for split in ("train", "test"):
            rename_class(split, "dog", on_disk)(root)

    path = lay(layout, accented, classes=["cat", asked, "fox"])
    assert verify().returncode == 0
    images = read(path, "test", classes=["cat", asked, "fox"])
    assert images.classes == ("cat", asked, "fox")
    assert len(images.ids) == 6


@pytest.mark.parametrize("start", ["", "\N{BYTE ORDER MARK}"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_lists_and_tables_as_windows_writes_them(start, end, lay, verify):
    def rewrite(root: Path) -> None:
        for path in (root / MAIN).glob("*.txt"):
            path.write_bytes((start + path.read_text().replace("\n", end)).encode())

    lay("voc", rewrite)
    assert verify().returncode == 0


def test_a_list_of_images_beside_is_no_class(lay, verify):
    def beside(root: Path) -> None:
        for split in ("train", "test"):
            shutil.copy(root / MAIN / f"{split}.txt", root / MAIN / f"small_{split}.txt")

    path = lay("voc", beside)
    assert verify().returncode == 0
    assert read(path, "train").classes == CLASSES


def test_a_part_takes_its_labels_from_trainval(tmp_path):
    root = write_voc(tmp_path)
    for path in list((root / MAIN).glob("*train.txt")):
        path.rename(path.with_name(path.name.replace("train", "trainval")))
    (root / MAIN / "few.txt").write_text("train_1\ntrain_3\n")
    images = read(root, "few")
    assert images.classes == CLASSES
    assert images.targets.argmax(1).tolist() == [1, 0]
    assert read(root, "few", classes=["dog", "cat"]).targets.argmax(1).tolist() == [0, 1]


def test_absolute_paths_in_a_table(tmp_path):
    path = write_csv(tmp_path / "tables")
    plain = read(path, "train")
    path.write_text(path.read_text().replace("im/", f"{tmp_path}/tables/im/"))
    assert read(path, "train").ids == plain.ids
    (tmp_path / "tables" / "im").rename(tmp_path / "im")
    path.write_text(path.read_text().replace(f"{tmp_path}/tables/im/", f"{tmp_path}/im/"))
    moved = read(path, "train")
    assert moved.ids[0] == "../im/train_0.png"
    assert all(image.is_file() for image in moved.images)
    path.write_text(path.read_text().replace(f"{tmp_path}/im/", "../im/"))
    assert read(path, "train").ids == moved.ids


def test_a_run_that_is_allowed_to_overlap_says_so_in_its_table(lay, call, tmp_path):
    """And the training itself refuses what was not allowed, however it is called."""
    lay("csv", lambda root: share_an_image(root, content_only=False))
    small = "--set", "backbone=resnet8", "--set", "epochs=1", "--set", "image_size=32", "--set", "weights=scratch"
    run = "run", "--grid", "mine", "--study", "mine", "--only", "method=baseline,seed=0", *small
    done = call(tmp_path, *run, "--allow-overlap", "--device", "cpu")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "overlap: True (paper: False)" in done.stdout
    assert "not comparable with the published cells" in done.stdout
    (folder,) = [path.parent for path in tmp_path.glob("runs/*/*/result.json")]
    assert json.loads((folder / "job.json").read_text())["overlap"] is True
    assert not [line for line in audit.problems(Run(folder)) if "trained on and tested on" in line]
    own_study.use(tmp_path / "mine")
    job = Run(folder).job()
    root = tmp_path / "photos" / "labels.csv"
    assert data.read(job, root)
    with pytest.raises(UserError, match=r"1 of 7 images of test are also in train, .*--allow-overlap"):
        data.read(Job(**job.model_dump() | {"overlap": False}), root)


def test_the_official_layout_is_read_by_the_same_rules(tiny_voc, tmp_path):
    root = shutil.copytree(tiny_voc / "VOCdevkit" / "VOC2012", tmp_path / "VOC2012")
    (root / MAIN / "cow_train.txt").write_bytes(b"\xef\xbb\xbf" + (root / MAIN / "cow_train.txt").read_bytes())
    assert voc.load(tmp_path, "train", folder=root).ids == voc.load(tiny_voc, "train").ids
