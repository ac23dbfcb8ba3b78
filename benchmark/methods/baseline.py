"""The classification loss, and what every method shares: which labels train, and in which precision."""

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmark.matrix.job import Job
from benchmark.methods.models import Backbone

Terms = dict[str, Tensor]

PRESENT, DIFFICULT = 1, 0


def baseline(model: Backbone, images_BCHW: Tensor, labels: Tensor, job: Job, epoch: int) -> tuple[Tensor, Terms]:
    """The classification loss alone.

    labels: (B,) class numbers, or (B, num_classes) of 1 present, 0 only difficult, -1 absent; epoch from 0.
    """
    with autocast(images_BCHW.device, job):
        logits_BC = model(images_BCHW)
    return logits_BC, {"classification": classification_loss(logits_BC, labels, job)}


def trained_labels(labels: Tensor, job: Job, num_classes: int) -> tuple[Tensor, Tensor]:
    """Which classes count as present and which as absent in training, two (B, num_classes) bool; a difficult one may
    count as neither."""
    if labels.ndim == 1:
        present_BC = F.one_hot(labels, num_classes).bool()
        return present_BC, ~present_BC
    present_BC, absent_BC, difficult_BC = labels == PRESENT, labels < DIFFICULT, labels == DIFFICULT
    if job.difficult_train == "positive":
        present_BC = present_BC | difficult_BC
    elif job.difficult_train == "negative":
        absent_BC = absent_BC | difficult_BC
    return present_BC, absent_BC


def classification_loss(logits_BC: Tensor, labels: Tensor, job: Job) -> Tensor:
    """Cross-entropy, or Multi-Label-Soft-Margin (supplement, section 1.3): mean or sum over classes, then the batch's
    mean."""
    logits_BC = wide(logits_BC)
    if job.loss == "cross_entropy":
        return F.cross_entropy(logits_BC, labels)
    present_BC, absent_BC = trained_labels(labels, job, logits_BC.shape[1])
    counted_BC = (present_BC | absent_BC).to(logits_BC.dtype)
    loss = F.multilabel_soft_margin_loss(logits_BC, present_BC.to(logits_BC.dtype), weight=counted_BC)
    return loss if job.class_reduction == "mean" else loss * logits_BC.shape[1]


def autocast(device: torch.device, job: Job) -> torch.autocast:
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=job.precision == "bfloat16")


def wide(x: Tensor) -> Tensor:
    """float32, or float64 where the network is."""
    return x if x.dtype == torch.float64 else x.float()
