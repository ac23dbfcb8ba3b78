"""Pixels: the four ways of cutting a square, crops that are keyed, and every kind of picture that can come."""

import hashlib
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageOps

from benchmark.data import ImageSet, loading, open_pixels
from benchmark.errors import UserError

FILE_RESIZES = [r for r in loading.RESIZES if r != "none"]
SIZES = [(100, 75), (75, 100), (64, 64), (33, 200), (300, 31)]


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Five pictures of different shapes, smooth enough that two good decoders agree."""
    folder = tmp_path_factory.mktemp("photos")
    return image_set([save(folder / f"{i}.jpg", gradient(*size)) for i, size in enumerate(SIZES)])


def gradient(width, height):
    y, x = np.mgrid[0:height, 0:width]
    return np.stack([x * 255 / width, y * 255 / height, (x + y) * 255 / (width + height)], -1).astype(np.uint8)


def save(path, pixels, **options):
    Image.fromarray(pixels).save(path, quality=95, **options)
    return path


def image_set(images):
    ids = tuple(str(i) for i in range(len(images)))
    images = images if isinstance(images, np.ndarray) else tuple(images)
    return ImageSet(classes=("a",), ids=ids, images=images, targets=np.zeros(len(ids), np.int64))


@pytest.mark.parametrize("resize", FILE_RESIZES)
def test_shapes(photos, resize, tmp_path):
    pixels = open_pixels(photos, 32, resize, tmp_path)
    assert len(pixels) == len(SIZES)
    for batch in (pixels.train_batch(np.array([4, 0]), 0, 0), pixels.test_batch(np.array([4, 0]))):
        assert (batch.shape, batch.dtype) == ((2, 32, 32, 3), np.uint8)
    assert pixels.test_batch(np.array([], dtype=int)).shape == (0, 32, 32, 3)


@pytest.mark.parametrize("resize", ["warp_crop", "random_resized_crop"])
def test_crops_depend_on_seed_epoch_and_index_alone(photos, resize, tmp_path):
    pixels = open_pixels(photos, 32, resize, tmp_path)
    whole = pixels.train_batch(np.arange(5), seed=3, epoch=7)
    assert (pixels.train_batch(np.array([4, 2]), 3, 7) == whole[[4, 2]]).all()
    into = np.zeros_like(whole)
    assert pixels.train_batch(np.arange(5), 3, 7, into) is into
    assert (into == whole).all()
    assert (np.concatenate([pixels.train_batch(np.array([i]), 3, 7) for i in range(5)]) == whole).all()
    for seed, epoch in ((4, 7), (3, 8)):
        assert (pixels.train_batch(np.arange(5), seed, epoch) != whole).any()
    assert (pixels.test_batch(np.arange(5)) == pixels.test_batch(np.arange(5))).all()


def test_keys_that_differ_in_trailing_zeros_are_one_stream_and_one_of_five_numbers_is_none_of_them():
    """What docs/data.md says of numpy, and of how a new kind of draw is to be keyed."""

    def first(key):
        return np.random.default_rng(key).integers(0, 2**63, 4).tolist()

    for seed in (0, 3, 2**32 - 1):
        assert first(seed) == first([seed]) == first([seed, 0]) == first([seed, 0, 0]) == first([seed, 0, 0, 0])
        assert first([seed, 7]) == first([seed, 7, 0]) != first([seed, 0, 7])
        shorter = [first(key) for key in (seed, [seed, 7], [seed, 7, 9], [seed, 0, 9])]
        assert first([seed, 0, 0, 0, 0]) not in shorter
        assert first([1, seed, 0, 0, 0]) not in [*shorter, first([1, seed])]


def test_crops_do_not_depend_on_the_number_of_threads(photos, tmp_path, monkeypatch):
    first = open_pixels(photos, 32, "random_resized_crop", tmp_path).train_batch(np.arange(5), 0, 0)
    monkeypatch.setattr(loading, "num_threads", lambda: 7)
    assert (open_pixels(photos, 32, "random_resized_crop", tmp_path).train_batch(np.arange(5), 0, 0) == first).all()


@pytest.mark.parametrize("resize", ["warp", "warp_crop"])
def test_memory_map_and_decoding_at_each_read_agree(photos, resize, tmp_path, monkeypatch):
    mapped = open_pixels(photos, 32, resize, tmp_path)
    monkeypatch.setattr(loading, "MAX_MAP_BYTES", 0)
    direct = open_pixels(photos, 32, resize, tmp_path)
    assert mapped.array is not None
    assert direct.array is None
    assert (mapped.test_batch(np.arange(5)) == direct.test_batch(np.arange(5))).all()
    assert (mapped.train_batch(np.arange(5), 1, 2) == direct.train_batch(np.arange(5), 1, 2)).all()


def test_test_view_is_torchvision_s(photos, tmp_path):
    from benchmark.methods.torchvision_ops import torchvision

    expected = torchvision.transforms.Compose(
        [torchvision.transforms.Resize(256 * 56 // 224), torchvision.transforms.CenterCrop(56)]
    )
    got = open_pixels(photos, 56, "random_resized_crop", tmp_path).test_batch(np.arange(5))
    for path, pixels in zip(photos.images, got, strict=True):
        with Image.open(path) as image:
            assert (np.asarray(expected(image)) == pixels).all(), path


@pytest.mark.parametrize("size", [(300, 255), (300, 256), (257, 800), (1030, 700)])
def test_the_test_view_of_large_photographs_is_torchvision_s_bit_for_bit(size, tmp_path):
    """From four times the resized side on, a JPEG decoder that halves would change pixels."""
    from benchmark.methods.torchvision_ops import torchvision

    noise = np.random.default_rng(0).integers(0, 60, (size[1], size[0], 3))
    path = save(tmp_path / "x.jpg", (gradient(*size) // 2 + noise).astype(np.uint8))
    expected = torchvision.transforms.Compose(
        [torchvision.transforms.Resize(64), torchvision.transforms.CenterCrop(56)]
    )
    with Image.open(path) as image:
        assert (np.asarray(expected(image)) == loading.read_centre(path, 56)).all()


def test_training_crop_is_torchvision_s_for_the_same_box(photos):
    from benchmark.methods.torchvision_ops import torchvision

    for path in photos.images:
        pixels = loading.read_random_resized_crop(path, 24, np.random.default_rng(5))
        with Image.open(path) as image:
            x, y, w, h = loading.draw_resized_crop(*image.size, np.random.default_rng(5))
            expected = torchvision.transforms.functional.resized_crop(image, y, x, h, w, [24, 24])
        # a picture more than twice too large is halved by the JPEG decoder, so not every bit is the same
        assert np.abs(np.asarray(expected, int) - pixels).mean() < 1.5


def test_boxes_are_distributed_as_torchvision_s():
    import torch

    from benchmark.methods.torchvision_ops import torchvision

    rng, image = np.random.default_rng(0), Image.new("L", (100, 60))
    ours = np.array([loading.draw_resized_crop(100, 60, rng) for _ in range(3000)])
    torch.manual_seed(0)
    get = torchvision.transforms.RandomResizedCrop.get_params
    theirs = np.array([get(image, loading.SCALE, loading.RATIO) for _ in range(3000)])[:, [1, 0, 3, 2]]
    assert np.abs(ours.mean(0) - theirs.mean(0)).max() < 1.5
    assert np.abs(ours.std(0) - theirs.std(0)).max() < 1.5
    assert (ours[:, 0] + ours[:, 2]).max() <= 100
    assert (ours[:, 1] + ours[:, 3]).max() <= 60


@pytest.mark.parametrize(("size", "box"), [((1000, 2), (498, 0, 3, 2)), ((1, 1), (0, 0, 1, 1)), ((2, 900), None)])
def test_a_picture_without_room_for_a_box_gives_its_centre(size, box):
    x, y, w, h = loading.draw_resized_crop(*size, np.random.default_rng(0))
    assert box is None or (x, y, w, h) == box
    assert x >= 0 and y >= 0 and x + w <= size[0] and y + h <= size[1] and w > 0 and h > 0  # noqa: PT018


def test_stored_pixels_are_given_as_they_are(tmp_path):
    array = np.random.default_rng(0).integers(0, 256, (6, 32, 32, 3), dtype=np.uint8)
    pixels = open_pixels(image_set(array), 32, "none", tmp_path)
    assert (pixels.train_batch(np.array([5, 1]), 0, 0) == array[[5, 1]]).all()
    assert (pixels.test_batch(np.arange(6)) == array).all()
    into = np.zeros_like(array[:2])
    assert pixels.test_batch(np.array([4, 1]), into) is into
    assert (into == array[[4, 1]]).all()
    with pytest.raises(ValueError, match="does not match"):
        pixels.test_batch(np.array([4]), into)
    assert pixels.digest() == hashlib.sha256(array).hexdigest()
    assert not any(tmp_path.iterdir())


def test_a_resize_that_does_not_fit_is_named(photos, tmp_path):
    stored = image_set(np.zeros((1, 32, 32, 3), np.uint8))
    for images, size, resize, message in (
        (stored, 28, "none", "set image_size=32 and resize=none"),
        (stored, 32, "warp", "set image_size=32 and resize=none"),
        (photos, 32, "none", "stores files"),
        (photos, 32, "wrap", "did you mean 'warp'"),
    ):
        with pytest.raises(UserError, match=message):
            open_pixels(images, size, resize, tmp_path)


def test_digest_is_of_the_test_view(photos, tmp_path):
    pixels = open_pixels(photos, 32, "warp_crop", tmp_path)
    assert pixels.digest() == hashlib.sha256(pixels.test_batch(np.arange(5))).hexdigest()


def test_digest_of_files_read_each_time_is_of_names_and_sizes(tmp_path):
    def digest(name, side):
        images = image_set([save(tmp_path / name, gradient(side, side))])
        return open_pixels(images, 32, "random_resized_crop", tmp_path).digest()

    assert digest("a.jpg", 40) == digest("a.jpg", 40)
    assert len({digest("a.jpg", 40), digest("b.jpg", 40), digest("a.jpg", 80)}) == 3


def grey(mode):
    """A picture of middle grey (100 of 255) in `mode`."""
    if mode == "I;16":
        return Image.fromarray(np.full((40, 50), 100 * 257, np.uint16))
    image = Image.new("L", (50, 40), 100)
    if mode == "P-transparent":
        image = image.convert("P")
        image.info["transparency"] = bytes([255, 0])
        return image
    return image.convert(mode) if mode != "1" else Image.new("1", (50, 40), 1)


@pytest.mark.parametrize("resize", FILE_RESIZES)
@pytest.mark.parametrize("mode", ["L", "LA", "P", "P-transparent", "RGBA", "I;16", "1", "CMYK"])
def test_every_mode_becomes_rgb(mode, resize, tmp_path):
    path = tmp_path / ("x.jpg" if mode == "CMYK" else "x.png")
    grey(mode).save(path)
    pixels = open_pixels(image_set([path]), 32, resize, tmp_path / "cache")
    expected = 255 if mode == "1" else 100
    for batch in (pixels.train_batch(np.array([0]), 0, 0), pixels.test_batch(np.array([0]))):
        assert np.abs(batch.astype(int) - expected).max() <= 2


def write_png(path, values_HWC):
    """16 bits a channel, which pillow reads and does not write."""
    height, width, channels = values_HWC.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values_HWC)
    kind = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, kind, 0, 0, 0)), (b"IDAT", zlib.compress(rows))]
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + b"".join(
            struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
            for name, data in [*chunks, (b"IEND", b"")]
        )
    )


def write_tiff(path, values_HWC):
    """Not compressed, as microscopes do: unsigned, signed or floating point by the array's own type."""
    height, width, channels = values_HWC.shape
    kind = {"u": 1, "i": 2, "f": 3}[values_HWC.dtype.kind]
    entries = {256: width, 257: height, 258: values_HWC.itemsize * 8, 259: 1, 262: 2 if channels > 1 else 1, 273: 0,
               277: channels, 278: height, 279: values_HWC.nbytes, 339: kind}  # fmt: skip
    at = 8 + 2 + 12 * len(entries) + 4
    extra = struct.pack(f"<{channels}H", *[entries[258]] * channels) + struct.pack(f"<{channels}H", *[kind] * channels)
    entries[273] = at + len(extra)
    table = struct.pack("<H", len(entries))
    for tag, value in entries.items():
        count = channels if tag in (258, 339) else 1
        where = at + (2 * channels if tag == 339 else 0)
        short = tag in (258, 339)
        if count * 2 > 4:
            table += struct.pack("<HHII", tag, 3, count, where)
        else:
            table += struct.pack("<HHI", tag, 3 if short else 4, count) + struct.pack("<I", value)
    path.write_bytes(b"II*\0" + struct.pack("<I", 8) + table + bytes(4) + extra + values_HWC.tobytes())


def deep(kind, highest, channels=1):
    """A ramp from 0 to `highest` in numpy's type `kind`."""
    ramp = np.linspace(0, highest, 40 * 50 * channels).reshape(40, 50, channels)
    return ramp.astype(kind)


WRITE = {".png": write_png, ".tif": write_tiff}
# Highest value, type, channels, ending -> how many of the file's values are one of 8 bits.
RIGHT = [
    (65535, "u2", 1, ".png", 256), (65535, "u2", 3, ".png", 256), (65535, "u2", 4, ".png", 256),
    (65535, "u2", 1, ".tif", 256), (65535, "u2", 3, ".tif", 256),
    (65535, "u2", 3, ".tif", 256), (5000, "u2", 1, ".png", 256),
    (5000, "u2", 3, ".png", 256), (65535, "i4", 1, ".tif", 256), (255, "f4", 1, ".tif", 1), (2, "f4", 1, ".tif", 1),
    (255, "u1", 1, ".tif", 1), (255, "u1", 3, ".tif", 1), (1, "u1", 3, ".tif", 1), (0, "u2", 1, ".png", 256),
    (0, "f4", 1, ".tif", 1), (0, "i4", 1, ".tif", 256),
]  # fmt: skip


@pytest.mark.parametrize(("highest", "kind", "channels", "ending", "step"), RIGHT)
def test_values_whose_scale_is_known_are_read_by_it(highest, kind, channels, ending, step, tmp_path):
    values = deep(kind, highest, channels)
    WRITE[ending](tmp_path / f"x{ending}", values)
    with Image.open(tmp_path / f"x{ending}") as image:
        pixels = np.asarray(loading.upright_rgb(image))
    expected = np.broadcast_to((values // step).astype(np.uint8)[..., :3], pixels.shape)
    assert np.array_equal(pixels, expected)


WRONG = [
    (1, "f4", 1, ".tif", "holds values from 0 to 1, of which nobody can tell"),
    (0.25, "f4", 1, ".tif", "from 0 to 0.25"), (300, "f4", 1, ".tif", "from 0 to 300"),
    (-3, "f4", 1, ".tif", "from -3 to 0"), (np.nan, "f4", 1, ".tif", "nan"),
    (255, "i4", 1, ".tif", "from 0 to 255"), (1000000.0, "i4", 1, ".tif", r"from 0 to 1e\+06"),
    (-9, "i4", 1, ".tif", "from -9"), (255, "u2", 1, ".png", "from 0 to 255"),
    (4095, "u2", 1, ".png", "from 0 to 4095"), (1023, "u2", 1, ".tif", "to 1023"),
    (255, "u2", 3, ".png", "hardly a value in the upper ones"),
    (4095, "u2", 4, ".png", "hardly a value"), (255, "u2", 2, ".png", "hardly a value"),
    (4095, "u2", 3, ".tif", "hardly a value"),
]  # fmt: skip


@pytest.mark.parametrize("resize", FILE_RESIZES)
@pytest.mark.parametrize(("highest", "kind", "channels", "ending", "said"), WRONG)
def test_values_whose_scale_nobody_can_tell_are_refused(highest, kind, channels, ending, said, resize, tmp_path):
    path = tmp_path / f"x{ending}"
    WRITE[ending](path, deep(kind, highest, channels))
    with pytest.raises(UserError, match=rf"x{ending}: .*{said}.*; save it with 8 bits a pixel$") as error:
        open_pixels(image_set([path]), 32, resize, tmp_path / "cache").test_batch(np.array([0]))
    assert "\n" not in str(error.value)
    assert loading.undecodable([path]) == [str(error.value)]


@pytest.mark.parametrize("resize", FILE_RESIZES)
def test_one_pixel_is_a_picture(resize, tmp_path):
    Image.new("RGB", (1, 1), (9, 99, 200)).save(tmp_path / "x.png")
    pixels = open_pixels(image_set([tmp_path / "x.png"]), 32, resize, tmp_path / "cache")
    for batch in (pixels.train_batch(np.array([0]), 0, 0), pixels.test_batch(np.array([0]))):
        assert (batch == [9, 99, 200]).all()


@pytest.mark.parametrize("resize", FILE_RESIZES)
@pytest.mark.parametrize("orientation", range(2, 9))
def test_exif_rotation_is_applied(orientation, resize, tmp_path):
    """Large enough that the decoder halves it, too."""
    exif = Image.Exif()
    exif[loading.EXIF_ORIENTATION] = orientation
    turned = save(tmp_path / "turned.jpg", gradient(300, 170), exif=exif)
    with Image.open(turned) as image:
        upright = loading.upright_rgb(image)
        assert (np.asarray(upright) == np.asarray(ImageOps.exif_transpose(image))).all()
    assert upright.size == ((170, 300) if orientation >= 5 else (300, 170))
    upright.save(tmp_path / "upright.png")
    pixels = open_pixels(image_set([turned]), 24, resize, tmp_path / "cache")
    expected = open_pixels(image_set([tmp_path / "upright.png"]), 24, resize, tmp_path / "cache")
    one = np.array([0])
    for got, right in (
        (pixels.train_batch(one, 0, 0), expected.train_batch(one, 0, 0)),
        (pixels.test_batch(one), expected.test_batch(one)),
    ):
        assert np.abs(got.astype(int) - right).max() <= 8


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")  # pillow says so while it opens the file, and goes on
@pytest.mark.parametrize("exif", [b"Exif\0\0garbage", b"Exif\0\0II*\0\x08\0\0\0\xff\xff"])
def test_a_damaged_exif_block_spoils_no_picture(exif, tmp_path):
    path = save(tmp_path / "x.jpg", gradient(60, 50), exif=exif)
    plain = save(tmp_path / "y.jpg", gradient(60, 50))
    assert (loading.read_centre(path, 24) == loading.read_centre(plain, 24)).all()


def test_a_large_jpeg_is_halved_while_decoding(tmp_path):
    path = save(tmp_path / "x.jpg", gradient(1000, 800))
    with Image.open(path) as image:
        loading.shrink(image, 64 / 800)
        assert image.size == (250, 200)  # the eighth would be less than twice 64
    with Image.open(path) as image:
        loading.shrink(image, 500 / 800)
        assert image.size == (1000, 800)


@pytest.mark.parametrize("resize", FILE_RESIZES)
@pytest.mark.parametrize("damage", ["truncated", "empty", "text", "bomb"])
def test_what_cannot_be_decoded_is_named(damage, resize, tmp_path, monkeypatch):
    path = save(tmp_path / "x.jpg", gradient(60, 50))
    content = path.read_bytes()
    path.write_bytes({"truncated": content[:-300], "empty": b"", "text": b"not an image"}.get(damage, content))
    if damage == "bomb":
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1600)
    with pytest.raises(UserError, match=r"x.jpg: cannot be decoded") as error:
        open_pixels(image_set([path]), 32, resize, tmp_path / "cache").test_batch(np.array([0]))
    assert "\n" not in str(error.value)
    with pytest.raises(UserError, match=r"x.jpg: cannot be decoded"):
        open_pixels(image_set([path]), 32, resize, tmp_path / "cache").train_batch(np.array([0]), 0, 0)


def test_a_bomb_is_refused_whatever_the_filters_say(tmp_path):
    """The refusal is this module's own doing, so it must not rest on pytest's treating warnings as errors."""
    import subprocess
    import sys

    path = save(tmp_path / "x.jpg", gradient(60, 50))
    code = (
        "import sys; from pathlib import Path; from PIL import Image; from benchmark.data import loading\n"
        "Image.MAX_IMAGE_PIXELS = 1600\nloading.read_warped(Path(sys.argv[1]), 8)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True)
    assert "UserError" in done.stderr
    assert done.returncode == 1


def test_a_thread_of_a_picture_is_refused(tmp_path, monkeypatch):
    Image.new("RGB", (1, 4000)).save(tmp_path / "x.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 2_000_000)
    with pytest.raises(UserError, match=r"x.png: .*too elongated"):
        loading.read_centre(tmp_path / "x.png", 224)
