#!/usr/bin/env bash
# With tied scores `topk(1)` can name a class that `topk(5)` leaves out, so top-1 accuracy exceeds top-5.
#
# Versions: torch 2.13.0 on a CPU, scikit-learn 1.9.1.
# Guess: the answer of `topk(1)` is among those of `topk(5)`, and equals `argmax`; scikit-learn breaks ties alike.
# Seen: of 100 equal scores `topk(1)` gives class 0, as `argmax`, and `topk(5)` gives none below 60. A constant
#   classifier on images of class 0 has top-1 100% and top-5 0%. scikit-learn's `top_k_accuracy_score` takes the
#   highest class number of a tie: 0% for class 0, 100% for class 99. Sigmoids in bfloat16 are 1 from 6.25 on, so
#   trained scores tie as well.
# Why it matters: both accuracies of a collapsed run (the usual sight after a too large attention term) depend on the
#   function and on k. Rank once, with a stable sort, and cut that ranking at 1 and 5.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet torch==2.13.0 scikit-learn==1.9.1 scipy==1.17.1 numpy==2.4.6

"$work/venv/bin/python" - <<'PYTHON'
import sklearn
import torch
from sklearn.metrics import top_k_accuracy_score

print("torch", torch.__version__, "scikit-learn", sklearn.__version__)


def accuracy(scores, labels, k):
    return (scores.topk(k, dim=1).indices == labels[:, None]).any(dim=1).float().mean().item()


equal = torch.zeros(10, 100)
first = torch.zeros(10, dtype=torch.long)
last = first + 99
print("argmax", equal[0].argmax().item(), "topk(1)", equal[0].topk(1).indices.tolist())
print("topk(5)", equal[0].topk(5).indices.tolist())
constant = accuracy(equal, first, 1), accuracy(equal, first, 5)
print("constant classifier, class 0: top-1 %.0f%%, top-5 %.0f%%" % tuple(100 * x for x in constant))


def by_sklearn(labels, k):
    return float(top_k_accuracy_score(labels, equal.numpy(), k=k, labels=range(100)))


other = by_sklearn(first, 1), by_sklearn(first, 5), by_sklearn(last, 1)
print("scikit-learn: class 0 top-1 %.0f%%, top-5 %.0f%%, class 99 top-1 %.0f%%" % tuple(100 * x for x in other))

logits = 6 * torch.randn(1000, 100, generator=torch.Generator().manual_seed(0))
saturated = logits.to(torch.bfloat16).sigmoid()
best = saturated.topk(1, dim=1).indices
five = saturated.topk(5, dim=1).indices
outside = (~(best == five).any(dim=1)).sum().item()
print(f"bfloat16 sigmoids: top-1 outside top-5 in {outside} of 1000 images")

assert equal[0].argmax().item() == equal[0].topk(1).indices.item() == 0
assert 0 not in equal[0].topk(5).indices.tolist()
assert constant == (1.0, 0.0)
assert other == (0.0, 0.0, 1.0)
assert outside > 100
PYTHON
