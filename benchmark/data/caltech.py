"""Caltech-256 in its official layout, and the splits that the paper draws from it.

    <root>/256_ObjectCategories/001.ak47/001_0001.jpg ... 257.clutter/257_0827.jpg

There is no official split. Following Griffin et al. (2007) and the supplement, section 1.1: the 257th category is left
out; of each other one 25 images are drawn for testing, and 30 or 60 of the rest for training. A draw depends on the
seed, the category's number and its sorted file names alone, so any machine draws the same; `train30` and `train60` of
one seed share their test images, and the one is a part of the other.
"""

import re
from pathlib import Path

import numpy as np

from benchmark.data.loading import SUFFIXES, ImageSet, is_hidden
from benchmark.errors import UserError

FOLDER = "256_ObjectCategories"
NUM_CLASSES = 256
NUM_TEST = 25  # per category
NUM_IMAGES = 30607  # with the clutter category's
NUM_WITHOUT_CLUTTER = NUM_IMAGES - 827
SPLIT = re.compile(r"(train|test)([1-9]\d{0,3})")
# Of folders 001 to 256, as the official archive names them.
CATEGORIES = tuple(
    """
    ak47 american-flag backpack baseball-bat baseball-glove basketball-hoop bat bathtub bear
    beer-mug billiards binoculars birdbath blimp bonsai-101 boom-box bowling-ball bowling-pin
    boxing-glove brain-101 breadmaker buddha-101 bulldozer butterfly cactus cake calculator
    camel cannon canoe car-tire cartman cd centipede cereal-box chandelier-101 chess-board chimp
    chopsticks cockroach coffee-mug coffin coin comet computer-keyboard computer-monitor
    computer-mouse conch cormorant covered-wagon cowboy-hat crab-101 desk-globe diamond-ring
    dice dog dolphin-101 doorknob drinking-straw duck dumb-bell eiffel-tower electric-guitar-101
    elephant-101 elk ewer-101 eyeglasses fern fighter-jet fire-extinguisher fire-hydrant
    fire-truck fireworks flashlight floppy-disk football-helmet french-horn fried-egg frisbee
    frog frying-pan galaxy gas-pump giraffe goat golden-gate-bridge goldfish golf-ball goose
    gorilla grand-piano-101 grapes grasshopper guitar-pick hamburger hammock harmonica harp
    harpsichord hawksbill-101 head-phones helicopter-101 hibiscus homer-simpson horse
    horseshoe-crab hot-air-balloon hot-dog hot-tub hourglass house-fly human-skeleton
    hummingbird ibis-101 ice-cream-cone iguana ipod iris jesus-christ joy-stick kangaroo-101
    kayak ketch-101 killer-whale knife ladder laptop-101 lathe leopards-101 license-plate
    lightbulb light-house lightning llama-101 mailbox mandolin mars mattress megaphone
    menorah-101 microscope microwave minaret minotaur motorbikes-101 mountain-bike mushroom
    mussels necktie octopus ostrich owl palm-pilot palm-tree paperclip paper-shredder pci-card
    penguin people pez-dispenser photocopier picnic-table playing-card porcupine pram
    praying-mantis pyramid raccoon radio-telescope rainbow refrigerator revolver-101 rifle
    rotary-phone roulette-wheel saddle saturn school-bus scorpion-101 screwdriver segway
    self-propelled-lawn-mower sextant sheet-music skateboard skunk skyscraper smokestack snail
    snake sneaker snowmobile soccer-ball socks soda-can spaghetti speed-boat spider spoon
    stained-glass starfish-101 steering-wheel stirrups sunflower-101 superman sushi swan
    swiss-army-knife sword syringe tambourine teapot teddy-bear teepee telephone-box tennis-ball
    tennis-court tennis-racket theodolite toaster tomato tombstone top-hat touring-bike
    tower-pisa traffic-light treadmill triceratops tricycle trilobite-101 tripod t-shirt
    tuning-fork tweezer umbrella-101 unicorn vcr video-projector washing-machine watch-101
    waterfall watermelon welding-mask wheelbarrow windmill wine-bottle xylophone yarmulke yo-yo
    zebra airplanes-101 car-side-101 faces-easy-101 greyhound tennis-shoes toad
    """.split()  # noqa: SIM905  # 256 lines otherwise
)
IMAGE = re.compile(r"(\d{3})_\d{4}\.jpg")


def load(
    root: Path, split: str, seed: int = 0, num_test: int = NUM_TEST, partial: bool = False,
    names: tuple[str, ...] = (),
) -> ImageSet:  # fmt: skip
    """One split, `train<N>` or `test<N>`: N images of each category, paths and (N,) int64 category numbers from 0.

    `num_test` images of each category are kept for testing, and test<N> is the first N of them. A category with fewer
    than N images left gives a training split all of them (80 images are in the smallest: 55 for train60), and the note
    names it. `partial`: the categories that are there, those without an image to train on left out. `names`: what each
    category is called, in their order; others are refused. UserError names the category folder that is missing, empty,
    or too small.
    """
    kind, count = _parse(split, num_test)
    folders = category_folders(root, partial, names)
    left_out = [folder for folder in folders if partial and len(_files(folder)) <= num_test]
    folders = [folder for folder in folders if folder not in left_out]
    if not folders:
        raise UserError(f"{root / FOLDER}: no category has more than {num_test} images, which are kept for testing")
    chosen = [_draw(_images(folder), folder, kind, count, seed, num_test) for folder in folders]
    if kind == "train" and max(map(len, chosen)) < count:
        most = max(map(len, chosen))
        raise UserError(f"{root / FOLDER}: split {split}: no category has more than {most} images beside the test ones")
    paths = [path for category in chosen for path in category]
    targets = np.repeat(np.arange(len(folders)), [len(category) for category in chosen])
    short = [f"{f.name} ({len(of)})" for f, of in zip(folders, chosen, strict=True) if len(of) < count]
    notes = [f"of {len(short)} categories fewer than {count} images: {', '.join(short)}"] if short else []
    if left_out:
        notes.append(f"left out, with nothing to train on: {', '.join(folder.name for folder in left_out)}")
    return ImageSet(
        classes=tuple(folder.name.partition(".")[2] for folder in folders),
        ids=tuple(map(_id, paths)),
        images=tuple(paths),
        targets=targets.astype(np.int64),
        note="; ".join(notes),
    )


def verify(root: Path, num_images: int = NUM_IMAGES, names: tuple[str, ...] = ()) -> str:
    """Why the complete data set is not under `root`; empty when it is. `names`: as in `load`."""
    try:
        folders = category_folders(root, names=names)
        clutter = next(iter(sorted((root / FOLDER).glob("257.*"))), None)
        if clutter is None:
            return f"{root / FOLDER}: category 257 (clutter) is missing"
        total = sum(len(_images(folder)) for folder in [*folders, clutter])
    except UserError as error:
        return str(error)
    # Not fewer, rather than equal: copies differ in a stray duplicate.
    return f"{total} images, officially {num_images}" if total < num_images else ""


def all_images(root: Path) -> list[Path]:
    """The images that are there of the 256 categories, the clutter's left out."""
    return [path for folder in category_folders(root, partial=True) for path in _files(folder)]


def category_folders(root: Path, partial: bool = False, names: tuple[str, ...] = ()) -> list[Path]:
    """The folders of the 256 categories in their order, the clutter left out; partial: of those that are there; names:
    as in `load`."""
    folder = root / FOLDER
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; the data root must hold {FOLDER}")
    folders: dict[int, Path] = {}
    for path in sorted(folder.iterdir()):
        number, dot, name = path.name.partition(".")
        if dot and re.fullmatch(r"\d{3}", number) and path.is_dir():
            if int(number) in folders:
                raise UserError(f"{path}: category {number} is there twice, also as {folders[int(number)].name}")
            folders[int(number)] = path
            if names and 1 <= int(number) <= NUM_CLASSES and name != names[int(number) - 1]:
                raise UserError(f"{path}: is not Caltech-256's; its category {number} is {names[int(number) - 1]}")
    missing = [k for k in range(1, NUM_CLASSES + 1) if k not in folders]
    if missing and not (partial and len(missing) < NUM_CLASSES):
        raise UserError(f"{folder}: no folder of category {missing[0]:03d} ({len(missing)} of 256 are missing)")
    return [folders[k] for k in range(1, NUM_CLASSES + 1) if k in folders]


def _parse(split: str, num_test: int) -> tuple[str, int]:
    match = SPLIT.fullmatch(split)
    if match is None:
        raise UserError(f"Caltech-256 has no split '{split}'; expected train<N> or test<N>, as train30 and test25")
    kind, count = match[1], int(match[2])
    if kind == "test" and count > num_test:
        raise UserError(f"split {split}: {num_test} images of each category are kept for testing, no more")
    return kind, count


def _files(folder: Path) -> list[Path]:
    """Its images, whatever their names. The archive also holds strays: a folder of somebody's copies, a script."""
    try:
        return sorted(p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES and not is_hidden(p.name))
    except OSError as error:
        raise UserError(f"{folder}: cannot be read ({error.strerror})") from None


def _images(folder: Path) -> list[Path]:
    if not (paths := _files(folder)):
        raise UserError(f"{folder}: holds no image ({', '.join(SUFFIXES)}); complete the data")
    return paths


def _id(path: Path) -> str:
    """As the official archive names its images; other names need not be of one category only."""
    official = IMAGE.fullmatch(path.name)
    return path.stem if official and official[1] == path.parent.name[:3] else f"{path.parent.name}/{path.name}"


def _draw(paths: list[Path], folder: Path, kind: str, count: int, seed: int, num_test: int) -> list[Path]:
    if len(paths) <= num_test:
        raise UserError(f"{folder}: {len(paths)} images; {num_test} for testing and one for training are the least")
    # One stream with the order of the epoch of this number: docs/data.md, "What the seed draws".
    order = np.random.default_rng([seed, int(folder.name[:3])]).permutation(len(paths))
    chosen = order[:count] if kind == "test" else order[num_test : num_test + count]
    return [paths[i] for i in np.sort(chosen)]
