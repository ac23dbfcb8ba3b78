"""Controls: what ICASC's gain, and the drop of its maps' overlap, are held against."""

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmark.data.voc import CELLS
from benchmark.errors import UserError
from benchmark.matrix.job import Job
from benchmark.methods import attention
from benchmark.methods.baseline import Terms, autocast, baseline, classification_loss, trained_labels
from benchmark.methods.icasc import icasc, maps_of_pair
from benchmark.methods.models import Backbone

CUTOUT = 1 / 4  # of the image's side: 8 of 32 pixels, the authors' choice for CIFAR-100
HEAD_RATE = 10  # times the learning rate
NO_EFFECT = 1e-6  # of the attention terms: enough to round otherwise, too little to steer


def aa(model: Backbone, images_BCHW: Tensor, labels: Tensor, job: Job, epoch: int, kind: str) -> tuple[Tensor, Terms]:
    """ICASC at a weight of NO_EFFECT; arguments as `icasc`'s. The same code and cost, so its gain over the baseline is
    0, and the spread of that gain over seeds is the noise floor of the paired design."""
    return icasc(model, images_BCHW, labels, job.model_copy(update={"attention_weight": NO_EFFECT}), epoch, kind)


def placebo(
    model: Backbone, images_BCHW: Tensor, labels: Tensor, job: Job, epoch: int, kind: str
) -> tuple[Tensor, Terms]:
    """ICASC with the next image's confusing map and mask; arguments as `icasc`'s. What it gains, and what its maps come
    apart by, ICASC owes to regularisation alone. In a batch of one image, such as an epoch's last, it is ICASC."""
    return icasc(model, images_BCHW, labels, job, epoch, kind, placebo=True)


def guided(
    model: Backbone, images_BCHW: Tensor, labels: Tensor, job: Job, epoch: int, kind: str
) -> tuple[Tensor, Terms]:
    """The classification loss, and at both layers the share of the true map that lies outside the objects' boxes, times
    the option `guidance`: ICASC's maps and gradients, pulled by true information instead of a confusing map. If no loss
    on maps can help by this code, this one does not either. Arguments as `icasc`'s, but for the labels, after whose
    columns come the image's cells row by row, 1 where an object is (data/voc.py, boxed)."""
    labels, cells_BHW = labels[:, : -(CELLS**2)], labels[:, -(CELLS**2) :].reshape(-1, CELLS, CELLS)
    with autocast(images_BCHW.device, job):
        feat_inner = model.to_inner(images_BCHW)
        feat_last = model.to_last(feat_inner)
        logits_BC = model.head(feat_last)
    terms = {"classification": classification_loss(logits_BC, labels, job)}
    present_BC, absent_BC = trained_labels(labels, job, logits_BC.shape[1])
    maps_inner, maps_last = maps_of_pair(model, feat_inner, feat_last, logits_BC, present_BC, absent_BC, job, kind)
    for name, (true_BHW, _) in {"outside_inner": maps_inner, "outside_last": maps_last}.items():
        height, width = true_BHW.shape[1:]
        inside_BHW = F.adaptive_avg_pool2d(cells_BHW.to(true_BHW.dtype), (height, width))
        terms[name] = job.value("guidance") * outside(true_BHW, inside_BHW).mean()
    return logits_BC, terms


def outside(map_BHW: Tensor, inside_BHW: Tensor) -> Tensor:
    """The share of a map that lies outside, (B,) in [0, 1], where `inside` is in [0, 1]; 0 for a blank map and for an
    image without a box."""
    total_B = map_BHW.sum(dim=(1, 2))
    share_B = (map_BHW * (1 - inside_BHW)).sum(dim=(1, 2)) / total_B.clamp_min(attention.EPS)
    return share_B * inside_BHW.amax(dim=(1, 2)).sign()


def cutout(model: Backbone, images_BCHW: Tensor, labels: Tensor, job: Job, epoch: int) -> tuple[Tensor, Terms]:
    """The baseline, on images of which a square at a random place is 0, the mean: a method whose gain is published.
    The square's centre lies anywhere in the image, so that it may be cut off by the border. Arguments as `baseline`'s.

    DeVries and Taylor, 2017, arXiv:1708.04552. The authors' README (github.com/uoguelph-mlrg/Cutout, commit 18ef608):
    CIFAR-100, ResNet-18, 200 epochs, mean of 5 runs: error 22.46 without, 21.96 % with.
    """
    height, width = images_BCHW.shape[2:]
    side = round(CUTOUT * height)
    centre_2B = torch.rand(2, len(images_BCHW), device=images_BCHW.device)
    inside = []
    for extent, share_B in zip((height, width), centre_2B, strict=True):
        first_B1 = ((share_B * extent).floor() - side // 2)[:, None]
        at = torch.arange(extent, device=images_BCHW.device)
        inside.append((at >= first_B1) & (at < first_B1 + side))
    hole_BHW = inside[0][:, :, None] & inside[1][:, None, :]
    return baseline(model, images_BCHW.masked_fill(hole_BHW[:, None], 0), labels, job, epoch)


def no_augmentation(model: Backbone, images_BCHW: Tensor, labels: Tensor, job: Job, epoch: int) -> tuple[Tensor, Terms]:
    """The baseline on images that are neither cropped nor mirrored at random, as a grid's ties set it: what the
    baseline has over it is a published gain. Arguments as `baseline`'s. UserError for a job whose images are augmented.

    Huang et al., 2017, arXiv:1608.06993. The authors' README (github.com/liuzhuang13/DenseNet, commit 0085cc9):
    CIFAR-100, DenseNet (L=40, k=12): error 27.55 without (and with dropout), 24.42 % with.
    """
    if job.flip or job.pad_crop:
        raise UserError(f"{job.method}: its images are as they are; set flip=false and pad_crop=null")
    return baseline(model, images_BCHW, labels, job, epoch)


def fast_head(model: Backbone, images_BCHW: Tensor, labels: Tensor, job: Job, epoch: int) -> tuple[Tensor, Terms]:
    """The baseline with a head whose gradient, and so whose learning rate, is HEAD_RATE times as high: the usual way to
    fine-tune a pretrained network with a new head, and a gain to be found where training is short. Arguments as
    `baseline`'s. The loss, and the gradient of all below the head, are the baseline's."""
    with autocast(images_BCHW.device, job):
        feat_last = model.to_last(model.to_inner(images_BCHW))
        logits_BC, of_head_BC = model.head(feat_last), model.head(feat_last.detach())
    logits_BC = logits_BC + (HEAD_RATE - 1) * (of_head_BC - of_head_BC.detach())
    return logits_BC, {"classification": classification_loss(logits_BC, labels, job)}
