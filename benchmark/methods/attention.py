"""ICASC's mathematics as pure functions on tensors: maps, mask, separability, consistency.

B images, K channels, C classes, H x W positions; T the true class, Conf the most confusing one. Everything here runs
in float32 at least, whatever precision the network runs in: omega = 100 turns a bfloat16 rounding error into another
mask. Source of the formulas: Wang et al., ICCV 2019; what is assumed about them stands in the grid's YAML.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmark.methods.convolution import of_features_alone

EPS = 1e-8  # below any map sum that means something: each map has been divided by a maximum

KINDS = ("grad_cam", "a_ch")


def attention_map(feat_BKHW: Tensor, gradient_BKHW: Tensor, kind: str) -> Tensor:
    """A (B, H, W) = ReLU(sum_k w_k F_k), at least 0.

    grad_cam: w_k is the mean over positions of dY/dF_k (Selvaraju et al., 2017). a_ch: of its positive part.
    The gradient may be (B, K, 1, 1) where it is the same at every position.
    """
    assert kind in KINDS
    if kind == "a_ch":
        gradient_BKHW = gradient_BKHW.relu()
    weight_BK = gradient_BKHW.mean(dim=(2, 3))
    return torch.einsum("bk,bkhw->bhw", weight_BK, feat_BKHW).relu()


def pooled_linear_gradient(weight_CK: Tensor, cotangent_BC: Tensor, positions: int) -> Tensor:
    """dY/dF (B, K, 1, 1) of a head that is global average pooling over `positions` and one linear layer.

    Y = sum_c cotangent_c logits_c; its gradient is the classifier's own rows, the same at every position.
    """
    return ((cotangent_BC @ weight_CK) / positions)[:, :, None, None]


def gradient(scores_BC: Tensor, feat_BKHW: Tensor, cotangent_BC: Tensor, second_order: bool) -> Tensor:
    """dY/dF (B, K, H, W) by autograd, Y = sum over batch and classes of cotangent * score.

    The gradient is that of the sum over the batch. With BatchNorm in training mode between F and Y the images are
    coupled, so this is not each image's own gradient; a plain PyTorch implementation computes the same.
    second_order: keep dY/dF in the graph, so that the loss is differentiated through it.
    """
    with of_features_alone():
        (result,) = torch.autograd.grad(
            scores_BC, feat_BKHW, cotangent_BC.to(scores_BC.dtype), create_graph=second_order, retain_graph=True
        )
    return result


def score_cotangent(logits_BC: Tensor, cotangent_BC: Tensor, score: str, multi_label: bool) -> Tensor:
    """What each logit is weighed with, (B, C), so that its gradient is that of Y = sum_c cotangent_c score_c.

    score: `logit`, or `probability` (sigmoid of a multi-label logit, softmax of the others).
    """
    if score == "logit":
        return cotangent_BC
    if multi_label:
        probability_BC = logits_BC.sigmoid()
        return cotangent_BC * probability_BC * (1 - probability_BC)
    probability_BC = logits_BC.softmax(dim=1)
    return probability_BC * (cotangent_BC - (cotangent_BC * probability_BC).sum(dim=1, keepdim=True))


def cotangents(
    logits_BC: Tensor, present_BC: Tensor, absent_BC: Tensor, target: str, confusing: str = "strongest_absent"
) -> tuple[Tensor, Tensor]:
    """What the true and the confusing score weigh each logit with, two (B, C) of 0 and 1.

    True: all present classes (`all_present`) or the one with the highest logit (`strongest_present`). Confusing: the
    absent class with the highest logit (`strongest_absent`), or all absent ones (`all_absent`). An image without such a
    class has a row of zeros.
    """
    scores_BC = logits_BC.detach()

    def strongest(allowed_BC: Tensor) -> Tensor:
        best_B = scores_BC.masked_fill(~allowed_BC, -torch.inf).argmax(dim=1)
        return F.one_hot(best_B, scores_BC.shape[1]).bool() & allowed_BC

    true_BC = present_BC if target == "all_present" else strongest(present_BC)
    conf_BC = absent_BC if confusing == "all_absent" else strongest(absent_BC)
    return true_BC.to(scores_BC.dtype), conf_BC.to(scores_BC.dtype)


def scale_maps(true_BHW: Tensor, conf_BHW: Tensor, divisor: str) -> tuple[Tensor, Tensor]:
    """Both maps on a fixed range, where omega has a meaning: each divided by the true map's maximum (`true_max`) or
    by its own (`own_max`), per image. A map of zeros stays one."""

    def maximum(map_BHW: Tensor) -> Tensor:
        return map_BHW.amax(dim=(1, 2), keepdim=True).clamp_min(EPS)

    by = true_BHW if divisor == "true_max" else conf_BHW
    return true_BHW / maximum(true_BHW), conf_BHW / maximum(by)


def soft_mask(map_BHW: Tensor, omega: float, sigma: float) -> Tensor:
    """M = sigmoid(omega (A - sigma max(A))), in (0, 1), per image."""
    threshold_B11 = sigma * map_BHW.amax(dim=(1, 2), keepdim=True)
    return torch.sigmoid(omega * (map_BHW - threshold_B11))


def batch_mask(map_BHW: Tensor, omega: float, sigma: float) -> Tensor:
    """As soft_mask, of the maps as they are, divided by the highest value in the batch instead of each by its own."""
    return soft_mask(as_one_image(map_BHW / map_BHW.amax().clamp_min(EPS)), omega, sigma).reshape(map_BHW.shape)


def as_one_image(map_BHW: Tensor) -> Tensor:
    """(1, B H, W): what is a ratio of an image's sums becomes one of the batch's."""
    return map_BHW.flatten(0, 1)[None]


def separability(true_BHW: Tensor, conf_BHW: Tensor, mask_BHW: Tensor) -> Tensor:
    """L_AS (B,) = 2 sum_ij min(A_T, A_Conf) M / sum_ij (A_T + A_Conf), in [0, 1]; 0 where both maps are zero."""
    overlap_B = (torch.minimum(true_BHW, conf_BHW) * mask_BHW).sum(dim=(1, 2))
    return 2 * overlap_B / (true_BHW + conf_BHW).sum(dim=(1, 2)).clamp_min(EPS)


def overlap(a_BHW: Tensor, b_BHW: Tensor) -> Tensor:
    """sum min / sum max of two maps, each divided by its own maximum, (B,) in [0, 1]; 1 where they are the same and 0
    where one is blank. It holds no option of the method, so that networks of any method can be compared by it."""
    a_BHW, b_BHW = (m / m.amax(dim=(1, 2), keepdim=True).clamp_min(EPS) for m in (a_BHW, b_BHW))
    common_B = torch.minimum(a_BHW, b_BHW).sum(dim=(1, 2))
    return common_B / torch.maximum(a_BHW, b_BHW).sum(dim=(1, 2)).clamp_min(EPS)


def consistency(inner_BHW: Tensor, mask_Bhw: Tensor, theta: float) -> Tensor:
    """L_AC (B,) = theta - sum_ij A_T_inner M / sum_ij A_T_inner, in [theta - 1, theta]; M resized bilinearly."""
    mask_BHW = resized(mask_Bhw, inner_BHW)
    inside_B = (inner_BHW * mask_BHW).sum(dim=(1, 2))
    return theta - inside_B / inner_BHW.sum(dim=(1, 2)).clamp_min(EPS)


def resized(mask_Bhw: Tensor, like_BHW: Tensor) -> Tensor:
    return F.interpolate(mask_Bhw[:, None], like_BHW.shape[1:], mode="bilinear", align_corners=False)[:, 0]
