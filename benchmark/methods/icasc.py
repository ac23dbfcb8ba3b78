"""ICASC: what its attention terms are made of, from a network's pieces (the mathematics itself: attention.py)."""

from torch import Tensor

from benchmark.matrix.job import Job
from benchmark.methods import attention
from benchmark.methods.baseline import Terms, autocast, baseline, classification_loss, trained_labels, wide
from benchmark.methods.models import Backbone


def icasc(
    model: Backbone, images_BCHW: Tensor, labels: Tensor, job: Job, epoch: int, kind: str, placebo: bool = False
) -> tuple[Tensor, Terms]:
    """Classification loss, separability at the inner and the last layer, consistency; arguments as `baseline`'s."""
    assert job.warmup_epochs is not None
    if epoch < job.warmup_epochs:
        return baseline(model, images_BCHW, labels, job, epoch)
    with autocast(images_BCHW.device, job):
        feat_inner = model.to_inner(images_BCHW)
        feat_last = model.to_last(feat_inner)
        logits_BC = model.head(feat_last)
    terms = {"classification": classification_loss(logits_BC, labels, job)}
    present_BC, absent_BC = trained_labels(labels, job, logits_BC.shape[1])
    terms |= attention_terms(model, feat_inner, feat_last, logits_BC, present_BC, absent_BC, job, kind, placebo)
    return logits_BC, terms


def attention_terms(
    model: Backbone,
    feat_inner_BKHW: Tensor,
    feat_last_BKhw: Tensor,
    logits_BC: Tensor,
    present_BC: Tensor,
    absent_BC: Tensor,
    job: Job,
    kind: str,
    placebo: bool = False,
) -> Terms:
    """The three attention terms as means over the batch, each times job.attention_weight and the option of its name.

    An image needs a present and an absent class to have both maps; others count with 0.
    """
    pairs = maps_of_pair(model, feat_inner_BKHW, feat_last_BKhw, logits_BC, present_BC, absent_BC, job, kind)
    return terms_of_maps(*pairs, present_BC, absent_BC, job, placebo)


Maps = tuple[Tensor, Tensor]  # of the true and the confusing class


def maps_of_pair(
    model: Backbone,
    feat_inner_BKHW: Tensor,
    feat_last_BKhw: Tensor,
    logits_BC: Tensor,
    present_BC: Tensor,
    absent_BC: Tensor,
    job: Job,
    kind: str,
) -> tuple[Maps, Maps]:
    """The true and the confusing map, as they are, at the inner and at the last layer."""
    assert job.second_order is not None
    target, confusing = job.multi_label_target or "all_present", job.value("confusing")
    cotangents = attention.cotangents(logits_BC, present_BC, absent_BC, target, confusing)
    inner_logits_BC = logits_BC
    if job.gradient_batchnorm == "frozen":
        with autocast(feat_inner_BKHW.device, job):
            inner_logits_BC = model.head(model.to_last_frozen(feat_inner_BKHW))
    maps_inner, maps_last = [], []
    for cotangent_BC in cotangents:
        cotangent_BC = attention.score_cotangent(
            wide(logits_BC), cotangent_BC.to(wide(logits_BC).dtype), job.attention_score, job.loss != "cross_entropy"
        )
        cotangent_BC = cotangent_BC if job.second_order else cotangent_BC.detach()
        gradient_inner = attention.gradient(inner_logits_BC, feat_inner_BKHW, cotangent_BC, job.second_order)
        gradient_last = last_gradient(model, feat_last_BKhw, logits_BC, cotangent_BC, job.second_order)
        maps_inner.append(attention.attention_map(wide(feat_inner_BKHW), wide(gradient_inner), kind))
        maps_last.append(attention.attention_map(wide(feat_last_BKhw), wide(gradient_last), kind))
    return tuple(maps_inner), tuple(maps_last)  # type: ignore[return-value]  # two each


def terms_of_maps(
    maps_inner: Maps,
    maps_last: Maps,
    present_BC: Tensor,
    absent_BC: Tensor,
    job: Job,
    placebo: bool = False,
) -> Terms:
    """The three attention terms from the true and the confusing map, (B, H, W) each, of both layers.

    A term whose own factor (the job's option of its name) is 0 is left out. placebo: confusing maps and masks are the
    next image's, the first one's for the last: as costly and as strong, and without a meaning.
    """
    assert job.map_scale is not None
    assert job.omega is not None
    assert job.sigma is not None
    assert job.theta is not None
    assert job.attention_weight is not None
    true_inner, conf_inner = attention.scale_maps(*maps_inner, job.map_scale)
    true_last, conf_last = attention.scale_maps(*maps_last, job.map_scale)
    mask_inner, mask_last = (attention.soft_mask(m, job.omega, job.sigma) for m in (true_inner, true_last))
    if job.value("mask_scale") == "batch":
        mask_inner, mask_last = (attention.batch_mask(m[0], job.omega, job.sigma) for m in (maps_inner, maps_last))
    if not job.mask_gradient:
        mask_inner, mask_last = mask_inner.detach(), mask_last.detach()
    has_both_B = present_BC.any(dim=1) & absent_BC.any(dim=1)
    if placebo:
        conf_inner, conf_last, mask_inner, mask_last = (
            x.roll(-1, dims=0) for x in (conf_inner, conf_last, mask_inner, mask_last)
        )
        has_both_B = has_both_B & has_both_B.roll(-1)
    mask = mask_last if job.mask_source == "last" else mask_inner
    counted_B = has_both_B.to(true_inner.dtype)
    if job.value("ratio") == "batch":
        mask = attention.resized(mask, true_inner)
        true_inner, conf_inner, mask_inner, true_last, conf_last, mask_last, mask = (
            attention.as_one_image(x * counted_B[:, None, None])
            for x in (true_inner, conf_inner, mask_inner, true_last, conf_last, mask_last, mask)
        )
        counted_B = counted_B.amax(dim=0, keepdim=True)
    per_image = {
        "separability_inner": attention.separability(true_inner, conf_inner, mask_inner),
        "separability_last": attention.separability(true_last, conf_last, mask_last),
        "consistency": attention.consistency(true_inner, mask, job.theta),
    }
    weights = {name: job.attention_weight * job.value(name) for name in per_image}
    return {name: weights[name] * (term_B * counted_B).mean() for name, term_B in per_image.items() if job.value(name)}


def last_gradient(
    model: Backbone, feat_last_BKhw: Tensor, logits_BC: Tensor, cotangent_BC: Tensor, second_order: bool
) -> Tensor:
    """dY/dF at the last layer: in closed form where the head is pooling and one linear layer, else by autograd."""
    weight_CK = model.pooled_linear_weight()
    if weight_CK is None:
        return attention.gradient(logits_BC, feat_last_BKhw, cotangent_BC, second_order)
    weight_CK = weight_CK if second_order else weight_CK.detach()
    positions = feat_last_BKhw.shape[2] * feat_last_BKhw.shape[3]
    return attention.pooled_linear_gradient(weight_CK, cotangent_BC.to(weight_CK.dtype), positions)
