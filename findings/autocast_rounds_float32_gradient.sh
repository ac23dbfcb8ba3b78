#!/usr/bin/env bash
# A network run in float32 gets bfloat16-rounded gradients when only `autograd.grad` stands inside an autocast block.
#
# Versions: torch 2.13.0 on a CPU.
# Guess: the backward pass runs in the dtype that the forward pass chose, so the place of the call changes no bit.
# Seen: the gradient of Linear layers run in float32 is off by 0.5% of its largest element, and still says float32.
#   The second derivative and the weights' .grad move by as much, and do so too when only `.backward()` stands inside.
#   Convolutions are untouched, and a forward pass inside autocast gives the same bits wherever the gradient is taken.
# Why it matters: an attention map is such a gradient. Leaving autocast for the forward pass of a head is not enough
#   for a float32 map: the call of `autograd.grad`, and `.backward()`, must leave it too.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet torch==2.13.0 numpy==2.4.6

"$work/venv/bin/python" - <<'PYTHON'
import torch
import torch.nn.functional as F
from torch import nn

print("torch", torch.__version__)
torch.manual_seed(0)
torch.set_num_threads(1)
stem, head, convolution = nn.Linear(8, 8), nn.Linear(8, 3), nn.Conv2d(3, 4, 3)
x = torch.randn(5, 8)


def autocast(enabled):
    return torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled)


def step(forward, first, second):
    """The map's gradient and the stem's .grad, with autocast on in the parts named."""
    stem.zero_grad()
    with autocast(forward):
        feature = F.softplus(stem(x))
        loss = F.softplus(head(feature).float()).sum()
    with autocast(first):
        (gradient,) = torch.autograd.grad(loss, feature, create_graph=True)
    with autocast(second):
        gradient.float().square().sum().backward()
    return gradient.detach(), stem.weight.grad.clone()


def distance(a, b):
    return ((a - b).abs().max() / b.abs().max()).item()


plain = step(False, False, False)
found = {}
for first, second in ((True, True), (True, False), (False, True)):
    gradient, weight = step(False, first, second)
    found[first, second] = distance(gradient, plain[0]), distance(weight, plain[1])
    print(
        f"float32 forward, autograd.grad in autocast {first}, backward in autocast {second}: gradient {gradient.dtype}"
        f" off by {found[first, second][0]:.2%}, stem's .grad off by {found[first, second][1]:.2%}"
    )
    assert gradient.dtype == weight.dtype == torch.float32

outside, inside = step(True, False, False), step(True, True, True)
same = [torch.equal(a, b) for a, b in zip(outside, inside)]
print("forward in autocast, gradients taken outside and inside: same bits", same)

image = torch.randn(2, 3, 8, 8, requires_grad=True)
output = F.softplus(convolution(image)).sum()
by_convolution = []
for enabled in (False, True):
    with autocast(enabled):
        by_convolution.append(torch.autograd.grad(output, image, retain_graph=True)[0])
print("convolution in float32: same bits", torch.equal(*by_convolution))

assert found[True, True][0] > 1e-3 and found[True, True][1] > 1e-3
assert found[True, False][0] > 1e-3 and found[True, False][1] > 1e-3
assert found[False, True][0] == 0 and found[False, True][1] > 1e-4
assert all(same) and torch.equal(*by_convolution)
PYTHON
