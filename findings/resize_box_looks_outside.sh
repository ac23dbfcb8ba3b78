#!/usr/bin/env bash
# `image.resize(size, box=box)` is not `image.crop(box).resize(size)`, even for whole pixels: it looks past the box.
#
# Versions: pillow 13.0.0.
# Guess: for a box of whole pixels the two give the same bytes, the first only saves a copy.
# Seen: with BOX and NEAREST they do. With BILINEAR, BICUBIC and LANCZOS the filter's support reaches over the edge of
#   the box into the rest of the image: up to 19 levels differ at the border when shrinking noise to 64 pixels, and
#   about 100 when enlarging it. A pixel outside the crop changes the result.
# Why it matters: a random crop done by `box=` for speed trains on other borders than the usual crop and resize, and
#   an experiment that hides what lies outside a box (the object, its context) leaks a rim of it into the input.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet pillow==13.0.0 numpy==2.4.6

"$work/venv/bin/python" - <<'PYTHON'
import numpy as np
import PIL
from PIL import Image

print("pillow", PIL.__version__)
pixels = np.random.default_rng(0).integers(0, 256, (300, 400, 3), dtype=np.uint8)
image = Image.fromarray(pixels)
box = (50, 40, 250, 240)
filters = ("NEAREST", "BOX", "BILINEAR", "BICUBIC", "LANCZOS")


def levels(a, b):
    return np.abs(np.asarray(a).astype(int) - np.asarray(b).astype(int))


found = {}
for name in filters:
    kind = Image.Resampling[name]
    for side in (64, 640):
        difference = levels(image.resize((side, side), kind, box=box), image.crop(box).resize((side, side), kind))
        inner = difference[side // 4 : -side // 4, side // 4 : -side // 4].max()
        found[name, side] = int(difference.max())
        print(f"{name} to {side}: at most {found[name, side]} levels, {inner} in the middle")
        assert inner == 0

changed = pixels.copy()
changed[:, :50] = 0
changed[:, 250:] = 0
leak = levels(
    image.resize((64, 64), Image.Resampling.BILINEAR, box=box),
    Image.fromarray(changed).resize((64, 64), Image.Resampling.BILINEAR, box=box),
)
print("blacking out all beside the box changes", int((leak.max(axis=2) > 0).sum()), "of 4096 pixels")

for side in (64, 640):
    assert found["NEAREST", side] == found["BOX", side] == 0
    assert min(found["BILINEAR", side], found["BICUBIC", side], found["LANCZOS", side]) > 5
assert leak.max() > 0
PYTHON
