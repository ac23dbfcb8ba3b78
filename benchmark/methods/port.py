"""What the first public port of ICASC computes, so that its own negative result can be explained: all others descend
from it (MacroMayhem/SharpenFocus-Pytorch, models/sfocus.py at commit 3e2d378; ours is written from reading it)."""

import torch
from torch import Tensor

from benchmark.matrix.job import Job
from benchmark.methods import attention
from benchmark.methods.baseline import Terms, autocast, classification_loss, trained_labels, wide
from benchmark.methods.icasc import last_gradient
from benchmark.methods.models import Backbone

OMEGA, SIGMA, THETA = 100.0, 0.25, 0.8


def port(model: Backbone, images_BCHW: Tensor, labels: Tensor, job: Job, epoch: int) -> tuple[Tensor, Terms]:
    """Arguments as `icasc`'s. Where it departs from `icasc` with A_ch: a map's channel weights are constants (no second
    order), times the sum of the map's score over the batch; maps are divided by nothing; each ratio is one of sums over
    the batch; a mask compares the true map, brought to 0 ... 1 over the batch, with 0.25 of its highest value before
    that; consistency takes the inner layer's own mask; all is differentiated through the masks; weights are 1.

    So where a map's highest value is beyond 4, its mask is empty: its separability is 0, consistency theta, and neither
    has a gradient. The factor of a sum over the batch makes maps larger than one image's would be.

    The port is single-label; with several labels the scores are those of `icasc`.
    """
    with autocast(images_BCHW.device, job):
        feat_inner = model.to_inner(images_BCHW)
        feat_last = model.to_last(feat_inner)
        logits_BC = model.head(feat_last)
    present_BC, absent_BC = trained_labels(labels, job, logits_BC.shape[1])
    maps_inner, maps_last = [], []
    for cotangent_BC in attention.cotangents(logits_BC, present_BC, absent_BC, job.multi_label_target or "all_present"):
        score = (wide(logits_BC) * cotangent_BC).sum().detach()
        of_inner = attention.gradient(logits_BC, feat_inner, cotangent_BC, second_order=False)
        of_last = last_gradient(model, feat_last, logits_BC, cotangent_BC, second_order=False)
        maps_inner.append(attention.attention_map(wide(feat_inner), wide(of_inner).detach() * score, "a_ch"))
        maps_last.append(attention.attention_map(wide(feat_last), wide(of_last).detach() * score, "a_ch"))
    return logits_BC, {"classification": classification_loss(logits_BC, labels, job)} | terms(maps_inner, maps_last)


def terms(maps_inner: list[Tensor], maps_last: list[Tensor]) -> Terms:
    """From the true and the confusing map of both layers, (B, H, W) each."""
    (true_inner, conf_inner), (true_last, conf_last) = (map(attention.as_one_image, m) for m in (maps_inner, maps_last))
    mask_inner, mask_last = (_mask(m) for m in (true_inner, true_last))
    values = {
        "separability_inner": attention.separability(true_inner, conf_inner, mask_inner),
        "separability_last": attention.separability(true_last, conf_last, mask_last),
        "consistency": attention.consistency(true_inner, mask_inner, THETA),
    }
    return {name: value.mean() for name, value in values.items()}


def _mask(map_1HW: Tensor) -> Tensor:
    low, high = (value.detach() for value in (map_1HW.amin(), map_1HW.amax()))
    scaled = (map_1HW - low) / (high - low).clamp_min(attention.EPS)
    return torch.sigmoid(OMEGA * (scaled - SIGMA * high))
