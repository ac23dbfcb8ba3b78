#!/usr/bin/env bash
# NumPy's float32 std over images is wrong in the third digit when channels come last, and right when they come first.
#
# Versions: NumPy 2.4.6, torch 2.13.0 on a CPU.
# Guess: NumPy adds pairwise, so float32 is good to six digits whatever the axes.
# Seen: it adds pairwise only along contiguous memory. Over 20,000 images of (32, 32, 3) `std((0, 1, 2))` is 1.2% too
#   small, and the mean is off by 7e-5. The same pixels as (3, N, 32, 32), dtype=float64, or torch's mean and
#   std on the same layout are right.
# Why it matters: this is the line that computes the constants an image is normalised by. With 50,000 images and more it
#   grows, and every network then trains on inputs scaled by it, while the constants look plausible.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet torch==2.13.0 numpy==2.4.6

"$work/venv/bin/python" - <<'PYTHON'
import numpy as np
import torch

print("numpy", np.__version__, "torch", torch.__version__)
draws = np.random.default_rng(0)
images = draws.integers(0, 256, (20_000, 32, 32, 3), dtype=np.uint8).astype(np.float32) / 255
right = images.mean((0, 1, 2), dtype=np.float64), images.std((0, 1, 2), dtype=np.float64)


def off(found):
    return [float(np.abs(np.asarray(a, dtype=np.float64) / b - 1).max()) for a, b in zip(found, right)]


last = off((images.mean((0, 1, 2)), images.std((0, 1, 2))))
by_torch = off((torch.from_numpy(images).mean((0, 1, 2)), torch.from_numpy(images).std((0, 1, 2), correction=0)))
first_layout = np.ascontiguousarray(images.transpose(3, 0, 1, 2))
del images
first = off((first_layout.mean((1, 2, 3)), first_layout.std((1, 2, 3))))
print("right: mean", right[0].round(5), "std", right[1].round(5))
for name, (mean, std) in {"channels last": last, "channels first": first, "torch, channels last": by_torch}.items():
    print(f"{name}: mean off by {mean:.1e}, std off by {std:.1e}")

assert last[0] > 2e-5 and last[1] > 5e-3
assert max(first) < 2e-6 and max(by_torch) < 2e-5
PYTHON
