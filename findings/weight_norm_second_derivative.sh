#!/usr/bin/env bash
# The second derivative of weight normalisation by its own direction `v` is wrong, without a warning.
#
# Versions: torch 2.13.0 on a CPU, float64.
# Guess: like every other layer, `parametrizations.weight_norm` passes gradgradcheck as it passes gradcheck.
# Seen: first derivatives are right, and gradgradcheck fails. The same formula written by hand passes both. The gradient
#   of a penalty on the gradients by `v` and the scale `g` points elsewhere: its cosine with finite differences is +0.07,
#   where 1 is right. A gradient by the input, differentiated by `v`, is right.
# Why it matters: a loss on an input's or a feature's gradient, as attention losses have it, is safe with weight
#   normalisation; one on the weights' own gradient (sharpness, meta-learning) trains on a wrong number. A first-order
#   gradcheck of the layer does not show it.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet torch==2.13.0 numpy==2.4.6

"$work/venv/bin/python" - <<'PYTHON'
import torch
import torch.nn.functional as F
from torch import nn
from torch.autograd import gradcheck, gradgradcheck
from torch.autograd.gradcheck import GradcheckError
from torch.nn.utils.parametrizations import weight_norm

print("torch", torch.__version__)
torch.manual_seed(0)
torch.set_default_dtype(torch.float64)
layer = weight_norm(nn.Linear(4, 3))
x = torch.randn(5, 4)
y = torch.tensor([0, 1, 2, 0, 1])
g = layer.parametrizations.weight.original0
v = layer.parametrizations.weight.original1


def by_layer(g, v):
    parts = {"parametrizations.weight.original0": g, "parametrizations.weight.original1": v}
    return F.cross_entropy(torch.func.functional_call(layer, parts, (x,)), y)


def by_hand(g, v):
    weight = v * g / torch.linalg.vector_norm(v, dim=1, keepdim=True)
    return F.cross_entropy(F.linear(x, weight, layer.bias), y)


def penalty(loss, g, v):
    gradients = torch.autograd.grad(loss(g, v), (g, v), create_graph=True)
    return sum(part.square().sum() for part in gradients)


def second_order_right(loss):
    try:
        return gradgradcheck(loss, (g, v))
    except GradcheckError:
        return False


def numeric(loss):
    step, slopes = 1e-6, torch.zeros_like(v)
    for i in range(v.numel()):
        shift = torch.zeros_like(v)
        shift.view(-1)[i] = step
        ahead = penalty(loss, g, v + shift).item()
        behind = penalty(loss, g, v - shift).item()
        slopes.view(-1)[i] = (ahead - behind) / (2 * step)
    return slopes


cosines = {}
for loss in (by_layer, by_hand):
    by_autograd = torch.autograd.grad(penalty(loss, g, v), v)[0]
    cosines[loss] = F.cosine_similarity(by_autograd.flatten(), numeric(loss).flatten(), dim=0).item()
    print(
        f"{loss.__name__}: gradcheck {gradcheck(loss, (g, v))}, gradgradcheck {second_order_right(loss)}, "
        f"cosine of the penalty's gradient with finite differences {cosines[loss]:+.3f}"
    )

hidden = x.clone().requires_grad_()
by_input = []
for weight in (layer.weight, v * g / torch.linalg.vector_norm(v, dim=1, keepdim=True)):
    output = F.softplus(F.linear(hidden, weight, layer.bias)).sum()
    (gradient,) = torch.autograd.grad(output, hidden, create_graph=True)
    by_input.append(torch.autograd.grad(gradient.square().sum(), v)[0])
print(f"gradient by the input, then by v: differs from by_hand by {(by_input[0] - by_input[1]).abs().max().item():.1e}")

assert torch.allclose(by_layer(g, v), by_hand(g, v), rtol=1e-12)
assert gradcheck(by_layer, (g, v)) and gradcheck(by_hand, (g, v))
assert second_order_right(by_hand) and cosines[by_hand] > 0.999999
assert not second_order_right(by_layer) and cosines[by_layer] < 0.5
assert torch.allclose(*by_input, rtol=1e-10)
PYTHON
