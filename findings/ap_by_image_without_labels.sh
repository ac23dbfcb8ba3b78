#!/usr/bin/env bash
# Two functions of scikit-learn for AP by image agree to 1e-15, except that an image without a label is 0 in one and 1
# in the other.
#
# Versions: scikit-learn 1.9.1.
# Guess: `average_precision_score(average="samples")` and `label_ranking_average_precision_score` are one measure, so
#   they agree on any labels.
# Seen: on images with a label they agree. An image without any counts as AP 0 in the first (with a warning each) and as
#   a perfect 1, silently, in the second: 0.45 against 0.78 where a third of the images has none.
# Why it matters: multi-label sets have such images (all objects "difficult", or classes cut to a subset). AP by image
#   is then read 33 points apart for the same scores; leave these images out, as AP by class does with an empty class.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet scikit-learn==1.9.1 scipy==1.17.1 numpy==2.4.6

"$work/venv/bin/python" -W ignore - <<'PYTHON'
import numpy as np
import sklearn
from sklearn.metrics import average_precision_score, label_ranking_average_precision_score

print("scikit-learn", sklearn.__version__)
draws = np.random.default_rng(0)
labels = draws.random((300, 6)) < 0.17
scores = draws.normal(size=(300, 6)) + labels
labelled = labels.any(axis=1)


def both(chosen):
    samples = average_precision_score(labels[chosen], scores[chosen], average="samples")
    ranking = label_ranking_average_precision_score(labels[chosen], scores[chosen])
    return samples, ranking


everything = both(np.full(300, True))
some = both(labelled)
share = labelled.mean()
print(f"images with a label: {share:.1%}")
print(f"all images:          samples {everything[0]:.4f}, label ranking {everything[1]:.4f}")
print(f"images with a label: samples {some[0]:.4f}, label ranking {some[1]:.4f}")

assert abs(some[0] - some[1]) < 1e-12
assert abs(everything[0] - share * some[0]) < 1e-12
assert abs(everything[1] - (share * some[1] + 1 - share)) < 1e-12
assert everything[1] - everything[0] > 0.2
PYTHON
