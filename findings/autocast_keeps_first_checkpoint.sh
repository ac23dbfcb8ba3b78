#!/usr/bin/env bash
# Evaluating several checkpoints in one autocast block gives every one the scores of the first.
#
# Versions: torch 2.13.0 on a CPU, bfloat16.
# Guess: autocast's cache of cast weights notices an in-place change by the version counter, and caches nothing under
#   no_grad, so each `load_state_dict` is seen.
# Seen: with `no_grad`, inside or around the block, three checkpoints with weights 1, 2 and 3 all score 4. So they do
#   after `weight.data = ...` and with gradients on, and an optimizer's steps inside a block change no later loss in it.
#   Right are `inference_mode`, `load_state_dict(assign=True)`, `cache_enabled=False` and a block per checkpoint.
# Why it matters: comparing epochs or methods in one loop gives equal AP in every line, which reads as "no effect".
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet torch==2.13.0 numpy==2.4.6

"$work/venv/bin/python" - <<'PYTHON'
import torch
from torch import nn

print("torch", torch.__version__)
x = torch.ones(1, 4)
checkpoints = [{"weight": torch.full((1, 4), float(value))} for value in (1, 2, 3)]


def scores(mode, assign=False, cache=True, block_each=False):
    model = nn.Linear(4, 1, bias=False)
    found = []

    def score(checkpoint):
        model.load_state_dict({name: part.clone() for name, part in checkpoint.items()}, assign=assign)
        with mode():
            found.append(model(x).item())

    if block_each:
        for checkpoint in checkpoints:
            with torch.autocast("cpu", dtype=torch.bfloat16):
                score(checkpoint)
    else:
        with torch.autocast("cpu", dtype=torch.bfloat16, cache_enabled=cache):
            for checkpoint in checkpoints:
                score(checkpoint)
    return found


def losses():
    model = nn.Linear(4, 1, bias=False)
    nn.init.ones_(model.weight)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    found = []
    with torch.autocast("cpu", dtype=torch.bfloat16):
        for _ in range(3):
            optimizer.zero_grad()
            loss = model(x).float().square().sum()
            loss.backward()
            optimizer.step()
            found.append(loss.item())
    return found


stale, right = [4.0, 4.0, 4.0], [4.0, 8.0, 12.0]
cases = {
    "no_grad": (scores(torch.no_grad), stale),
    "gradients on": (scores(torch.enable_grad), stale),
    "inference_mode": (scores(torch.inference_mode), right),
    "no_grad, assign=True": (scores(torch.no_grad, assign=True), right),
    "no_grad, cache_enabled=False": (scores(torch.no_grad, cache=False), right),
    "no_grad, a block each": (scores(torch.no_grad, block_each=True), right),
    "three SGD steps in one block, loss": (losses(), [16.0, 16.0, 16.0]),
}
for name, (found, expected) in cases.items():
    print(f"{name}: {found}")
assert all(found == expected for found, expected in cases.values())
PYTHON
