"""The official VOC layout, drawn and real, and every way in which it can be broken."""

import dataclasses
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmark import data
from benchmark.data import loading, mini, voc
from benchmark.errors import UserError
from tests.conftest import MAIN, NUM_TINY

REAL = Path(__file__).parents[2] / "shared" / "data"


@pytest.fixture
def root(tiny_voc, tmp_path) -> Path:
    """A copy to break."""
    return Path(shutil.copytree(tiny_voc, tmp_path / "voc"))


def test_drawn_voc_loads(mini_voc):
    train, val = (voc.load(mini_voc, split) for split in ("train", "val"))
    assert (len(train.ids), len(val.ids)) == (mini.NUM_SCENES["train"], mini.NUM_SCENES["val"])
    for images in (train, val):
        assert set(np.unique(images.targets)) == {-1, 0, 1}
        assert ((images.targets == 1).sum(0) >= 8).all(), "every class has something to learn and to test"


def test_labels_agree_with_the_annotations(mini_voc):
    from xml.etree import ElementTree

    images = voc.load(mini_voc, "val")
    for image_id, row in zip(images.ids[:40], images.targets, strict=False):
        tree = ElementTree.parse(mini_voc / f"VOCdevkit/VOC2012/Annotations/{image_id}.xml")
        objects = [(o.findtext("name"), o.findtext("difficult")) for o in tree.iter("object")]
        for k, name in enumerate(voc.CLASSES):
            flags = {d for n, d in objects if n == name}
            assert row[k] == (-1 if not flags else 1 if "0" in flags else 0)


def test_boxes_are_where_numbers_are_written(mini_voc):
    """Of the scenes as they are drawn; a faint number, marked difficult, has none."""
    images = voc.load(mini_voc, "val")
    few = dataclasses.replace(images, ids=images.ids[:40], images=images.images[:40], targets=images.targets[:40])
    size, cells = mini.SCENE_SIZE, voc.boxed(few)
    assert cells.shape == (40, voc.CELLS, voc.CELLS)
    centres = (np.arange(voc.CELLS) + 0.5) * size / voc.CELLS
    for index, inside in enumerate(cells):
        _, objects = mini._scene(index, "val")
        boxes = [thing["box"] for thing in objects if not thing["difficult"]]
        expected = [
            [any(x0 <= x <= x1 and y0 <= y <= y1 for x0, y0, x1, y1 in boxes) for x in centres] for y in centres
        ]
        assert (inside == expected).all()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "missing; a method that is guided by boxes needs VOC 2012's Annotations"),
        ("<annotation>", "not an annotation of VOC 2012"),
        ("<annotation><size><width>0</width><height>9</height></size></annotation>", ""),
        ("<annotation><object><bndbox/></object></annotation>", "not an annotation of VOC 2012"),
    ],
)
def test_annotations_that_are_wrong_are_named(root, text, said):
    images = voc.load(root, "train")
    path = root / "VOCdevkit" / "VOC2012" / "Annotations" / f"{images.ids[0]}.xml"
    path.unlink()
    if text is not None:
        path.write_text(text)
    if not said:
        assert voc.boxed(images)[0].sum() == 0
        return
    with pytest.raises(UserError, match=re.escape(f"{path}: {said}")):
        voc.boxed(images)


ANNOTATION = """<annotation><size><width>{}</width><height>{}</height></size><object><bndbox>
<xmin>{}</xmin><ymin>{}</ymin><xmax>{}</xmax><ymax>{}</ymax></bndbox></object></annotation>"""


def boxed_picture(folder, orientation, times=1.0, upright=False):
    """A dark picture of 96 x 64, times larger, with a white box, turned by EXIF; annotated in the
    pixels of the original as it is stored or, upright, as it is seen."""
    width, height, (x0, y0, x1, y1) = 96, 64, (12, 8, 54, 24)
    stored = np.zeros((height, width, 3), np.uint8)
    stored[y0:y1, x0:x1] = 255
    picture = Image.fromarray(stored)
    if times != 1:
        picture = picture.resize((round(width * times), round(height * times)))
    exif = Image.Exif()
    exif[loading.EXIF_ORIENTATION] = orientation
    for name in ("JPEGImages", "Annotations"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    path = folder / "JPEGImages" / "1.jpg"
    picture.save(path, quality=100, subsampling=0, exif=exif)
    size, box = (width, height), (x0, y0, x1, y1)
    if upright:
        seen = np.asarray(Image.fromarray(stored).transpose(loading.UPRIGHT[orientation]))[..., 0]
        ys, xs = np.flatnonzero(seen.any(1)), np.flatnonzero(seen.any(0))
        size, box = seen.shape[::-1], (xs[0], ys[0], xs[-1] + 1, ys[-1] + 1)
    (folder / "Annotations" / "1.xml").write_text(ANNOTATION.format(*size, *box))
    return data.ImageSet(("a",), ("1",), (path,), np.ones((1, 1), np.int8))


@pytest.mark.parametrize("times", [1, 0.61, 2.5])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_boxes_lie_where_the_picture_shows_them(orientation, times, tmp_path):
    images = boxed_picture(tmp_path, orientation, times)
    shown = loading.read_warped(images.images[0], 10 * voc.CELLS)[5::10, 5::10, 0] > 127
    assert 10 < shown.sum() < 100
    assert (voc.boxed(images)[0] == shown).all()


@pytest.mark.parametrize("orientation", range(5, 9))
def test_boxes_drawn_on_the_picture_as_it_is_seen_are_not_turned_again(orientation, tmp_path):
    images = boxed_picture(tmp_path, orientation, upright=True)
    shown = loading.read_warped(images.images[0], 10 * voc.CELLS)[5::10, 5::10, 0] > 127
    assert (voc.boxed(images)[0] == shown).all()


def test_boxes_of_a_picture_of_other_proportions_are_refused(tmp_path):
    images = boxed_picture(tmp_path, 1)
    path = tmp_path / "Annotations" / "1.xml"
    path.write_text(path.read_text().replace("<width>96", "<width>100"))
    with pytest.raises(UserError, match=r"1.xml: is of a picture of 100 x 64, 1.jpg has 96 x 64, which are other prop"):
        voc.boxed(images)
    images.images[0].write_bytes(b"no picture")
    with pytest.raises(UserError, match=r"1.jpg: cannot be decoded as an image"):
        voc.boxed(images)


def test_pictures_in_an_array_have_no_boxes():
    with pytest.raises(UserError, match="needs data in VOC 2012's layout"):
        voc.boxed(data.ImageSet(("a",), ("0",), np.zeros((1, 2, 2, 3), np.uint8), np.zeros(1, np.int64)))


@pytest.mark.parametrize("split", ["train", "val"])
def test_same_pictures_and_labels_as_torchvision(mini_voc, split, tmp_path):
    from benchmark.methods.torchvision_ops import torchvision

    theirs, ours = torchvision.datasets.VOCDetection(mini_voc, image_set=split), voc.load(mini_voc, split)
    assert theirs.images == [str(path) for path in ours.images]
    pixels = data.open_pixels(ours, mini.SCENE_SIZE, "warp", tmp_path)  # their own size, so nothing is resized
    for i in range(0, len(theirs), 7):
        picture, target = theirs[i]
        assert (np.asarray(picture) == pixels.test_batch(np.array([i]))[0]).all()
        objects = target["annotation"]["object"]
        label = dict.fromkeys(voc.CLASSES, voc.ABSENT)
        for thing in sorted(objects, key=lambda o: o["difficult"] == "0"):  # a plain object outranks a difficult one
            label[thing["name"]] = voc.PRESENT if thing["difficult"] == "0" else voc.DIFFICULT
        assert list(label.values()) == ours.targets[i].tolist()


def test_drawing_is_repeatable(tiny_voc, tmp_path, monkeypatch):
    monkeypatch.setattr(mini, "NUM_SCENES", NUM_TINY)
    mini.draw_voc(tmp_path)
    files = [path for path in tiny_voc.rglob("*") if path.is_file()]
    assert len(files) == 2 * 30 + 3 * 21  # pictures and annotations; splits, each with its classes
    for path in files:
        assert path.read_bytes() == (tmp_path / path.relative_to(tiny_voc)).read_bytes(), path


def test_drawn_pixels_are_golden():
    """What is drawn is part of what a mini job's id stands for: raise mini.VERSION when this changes."""
    assert [int(mini._scene(i, split)[0].sum()) for i, split in ((0, "train"), (7, "train"), (0, "val"))] == GOLDEN_SUMS


GOLDEN_SUMS = [2819779, 1824580, 2491794]


def test_no_digit_scan_is_in_both_splits():
    scans = {
        test: {mini._scan(d, test, np.random.default_rng(i)).tobytes() for d in range(10) for i in range(300)}
        for test in (False, True)
    }
    assert not scans[False] & scans[True]


def test_split_without_label_files_takes_trainval_s(root):
    ids = (root / MAIN / "val.txt").read_text().split()[:10]
    (root / MAIN / "part.txt").write_text("\n".join(ids))
    part, val = voc.load(root, "part"), voc.load(root, "val")
    assert (part.targets == val.targets[:10]).all()


def test_class_train_and_split_train_are_two_things(root):
    assert (root / MAIN / "train_train.txt").read_text() != (root / MAIN / "train.txt").read_text()
    column = voc.CLASSES.index("train")
    labels = [int(line.split()[1]) for line in (root / MAIN / "train_train.txt").read_text().splitlines()]
    assert voc.load(root, "train").targets[:, column].tolist() == labels


def _edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


BREAKS = {
    "no folder": (lambda r: shutil.rmtree(r / "VOCdevkit"), "must hold VOCdevkit/VOC2012"),
    "no split": (lambda r: (r / MAIN / "train.txt").unlink(), "train.txt: missing"),
    "empty split": (lambda r: (r / MAIN / "train.txt").write_text("\n"), "names no image"),
    "class file absent": (lambda r: (r / MAIN / "cow_train.txt").unlink(), "cow_train.txt: missing"),
    "unknown id": (lambda r: _edit(r / MAIN / "cow_train.txt", "2008_000003", "2008_999999"),
                   r"cow_train.txt:4: unknown id 2008_999999"),
    "unknown value": (lambda r: _edit(r / MAIN / "cow_train.txt", "2008_000003 -1", "2008_000003 2"),
                      r"cow_train.txt:4: expected an id and 1, 0 or -1"),
    "two values": (lambda r: _edit(r / MAIN / "cow_train.txt", "2008_000003 -1", "2008_000003 -1\n2008_000003 1"),
                   r"cow_train.txt:5: image 2008_000003 twice, with different labels"),
    "no value": (lambda r: _edit(r / MAIN / "cow_train.txt", "2008_000003 -1", "2008_000003"),
                 r"cow_train.txt:4: expected"),
    "id without label": (lambda r: _edit(r / MAIN / "cow_train.txt", "2008_000003 -1\n", ""),
                         "no label for image 2008_000003"),
    "id twice": (lambda r: _edit(r / MAIN / "train.txt", "2008_000004", "2008_000003"), "2008_000003 twice"),
    "id that climbs": (lambda r: _edit(r / MAIN / "train.txt", "2008_000004", "../../x"), "not an image id"),
    "not text": (lambda r: (r / MAIN / "cow_train.txt").write_bytes(b"\xff\xfe\x00"), "cannot be read as text"),
    "image missing": (lambda r: (r / "VOCdevkit/VOC2012/JPEGImages/2008_000005.jpg").unlink(),
                      r"2008_000005.jpg: missing.*1 of 20"),
}  # fmt: skip


@pytest.mark.parametrize("name", BREAKS)
def test_broken_layout_is_named(root, name):
    damage, message = BREAKS[name]
    damage(root)
    with pytest.raises(UserError, match=message) as error:
        voc.load(root, "train")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("content", [b"", b"not an image", None])
def test_broken_image_is_named(root, content, tmp_path):
    path = root / "VOCdevkit/VOC2012/JPEGImages/2008_000005.jpg"
    path.write_bytes(path.read_bytes()[:500] if content is None else content)
    with pytest.raises(UserError, match=r"2008_000005.jpg: cannot be decoded"):
        data.decode(voc.load(root, "train"), 80, tmp_path)
    assert not list(tmp_path.rglob("*.npy")), "half a cache must not be taken for a whole one"
    assert not list(tmp_path.rglob("*.tmp"))


@pytest.mark.parametrize("mode", ["L", "CMYK"])
def test_other_colour_modes_become_rgb(root, mode, tmp_path):
    path = root / "VOCdevkit/VOC2012/JPEGImages/2008_000005.jpg"
    Image.open(path).convert(mode).save(path)
    assert data.decode(voc.load(root, "train"), 40, tmp_path).shape == (20, 40, 40, 3)


def test_decoding_is_cached_until_a_file_changes(root, tmp_path):
    images = voc.load(root, "val")
    first = np.array(data.decode(images, 40, tmp_path))
    data.decode(images, 40, tmp_path)
    assert len(list(tmp_path.rglob("*.npy"))) == 1
    Image.new("RGB", (80, 80), "red").save(images.images[0])
    second = data.decode(images, 40, tmp_path)
    assert len(list(tmp_path.rglob("*.npy"))) == 2
    assert (second[0, 20, 20] == [254, 0, 0]).all()
    assert (second[1:] == first[1:]).all()


def test_verify_says_why_not(mini_voc, tmp_path):
    assert "train has 1200 images, the official one 5717" in voc.verify(mini_voc)
    assert "no such folder" in voc.verify(tmp_path)


@pytest.mark.parametrize("split", ["train", "val"])
def test_split_of_a_year_is_that_part_of_the_official_one(root, split):
    main = root / "VOCdevkit/VOC2012/ImageSets/Main"
    for image_id in voc.load(root, split).ids[::3]:  # a drawn split is of one year
        other = f"2007{image_id[4:]}"
        for path in main.glob(f"*{split}.txt"):
            path.write_text(path.read_text().replace(image_id, other))
        (main / f"../../JPEGImages/{image_id}.jpg").rename(main / f"../../JPEGImages/{other}.jpg")
    whole = voc.load(root, split)
    years = sorted({image_id[:4] for image_id in whole.ids})
    parts = [voc.load(root, f"{split}_{year}") for year in years]
    rows = {i: row.tolist() for i, row in zip(whole.ids, whole.targets, strict=True)}
    assert len(years) > 1
    for year, part in zip(years, parts, strict=True):
        assert part.ids == tuple(i for i in whole.ids if i.startswith(f"{year}_"))
        assert [path.stem for path in part.images] == list(part.ids)
        assert part.targets.tolist() == [rows[i] for i in part.ids]
    (main / f"{split}_{years[0]}.txt").write_text("a_list_of_ones_own\n")
    assert voc.load(root, f"{split}_{years[0]}").ids == parts[0].ids, "by rule, whatever lies beside"
    with pytest.raises(UserError, match=rf"{split}.txt: names no image of the year 2031, whose ids begin with 2031_"):
        voc.load(root, f"{split}_2031")


def test_part_of_a_year_is_not_whole(root, monkeypatch):
    """Of a data set whose parts have official counts; an embedded twin's have none."""
    counted = dataclasses.replace(data.DATASETS["voc2012"], parts={"train_2008": 1, "val_2009": 10**6})
    monkeypatch.setitem(data.DATASETS, "voc2012", counted)
    sets, missing = data.present("voc2012", root, ["train_2008", "val_2009"])
    train, val = (len(images.ids) for images in sets)
    assert missing == f"{train} of 1 images of train_2008, {val} of 1,000,000 images of val_2009"
    sets[0].images[0].unlink()
    with pytest.raises(UserError, match=r"1 of .* images are missing"):
        voc.load(root, "train_2008")


@pytest.mark.skipif(not (REAL / "VOCdevkit").is_dir(), reason="the real VOC photographs are not at hand")
def test_real_year_is_whole():
    sets, missing = data.present("voc2012", REAL, ["train_2008", "val_2008"])
    assert not missing
    assert [len(images.ids) for images in sets] == [2111, 2221]
    assert all(((images.targets == 1).sum(0) >= 32).all() for images in sets)


@pytest.mark.skipif(not (REAL / "VOCdevkit").is_dir(), reason="the real VOC photographs are not at hand")
def test_real_voc_subset():
    train, val = (voc.load(REAL, s) for s in ("present_train", "present_val"))
    assert (len(train.ids), len(val.ids)) == (1697, 1729)
    positives = dict(zip(voc.CLASSES, (np.concatenate([train.targets, val.targets]) == 1).sum(0), strict=True))
    assert (positives["dog"], positives["cat"], positives["aeroplane"]) == (1286, 1080, 0)
