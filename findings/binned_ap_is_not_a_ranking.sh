#!/usr/bin/env bash
# Average precision with `thresholds=200` changes by points when every score is shifted, though no rank changes.
#
# Versions: torchmetrics 1.9.0, torch 2.13.0 on a CPU, scikit-learn 1.9.1.
# Guess: 200 thresholds for 2,000 images come within 0.01 of the exact AP, and more thresholds come nearer.
# Seen: thresholds lie evenly between 0 and 1, where sigmoids of trained logits do not. With 200 the AP is 0.51 instead
#   of 0.67, with 1,000 still 0.57, and shifting all logits by -8 makes the 0.51 a 0.63. Of two classifiers with the
#   same ranking one is 12 points "better".
# Why it matters: the option is what the library offers against memory on large sets. It measures calibration along
#   with ranking, so it moves between methods that only scale or shift logits, as a regulariser does.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet torchmetrics==1.9.0 torch==2.13.0 scikit-learn==1.9.1 scipy==1.17.1 numpy==2.4.6

"$work/venv/bin/python" - <<'PYTHON'
import sklearn
import torch
import torchmetrics
from sklearn.metrics import average_precision_score
from torchmetrics.functional.classification import binary_average_precision

print("torchmetrics", torchmetrics.__version__, "torch", torch.__version__, "scikit-learn", sklearn.__version__)
draws = torch.Generator().manual_seed(0)
labels = (torch.rand(2000, generator=draws) < 0.2).long()
logits = 5 * torch.randn(2000, generator=draws, dtype=torch.float64) + 8 * labels

exact = float(average_precision_score(labels, logits))
print(f"exact (scikit-learn, logits): {exact:.4f}")
found = {}
for shift in (0, -8):
    probabilities = torch.sigmoid(logits + shift)
    for thresholds in (None, 20, 200, 1000):
        value = binary_average_precision(probabilities, labels, thresholds=thresholds).item()
        found[shift, thresholds] = value
        print(f"logits {shift:+d}, thresholds {thresholds}: {value:.4f}")

for shift in (0, -8):
    assert abs(found[shift, None] - exact) < 1e-4
assert exact - found[0, 200] > 0.1 and exact - found[0, 1000] > 0.05
assert found[-8, 200] - found[0, 200] > 0.1
PYTHON
