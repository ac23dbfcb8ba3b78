"""The method's gradient is right, whole and where it should be."""

import pytest
import torch
from torch import nn

from benchmark.methods import METHODS, attention, baseline, icasc
from tests.networks import smooth

ICASC = [name for name in METHODS if name.startswith("icasc-")]


@pytest.fixture
def batch() -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(5)
    labels = torch.tensor([[1, -1, -1, 0], [-1, 1, 1, -1], [-1, -1, 1, -1]])
    return torch.randn(3, 3, 8, 8, dtype=torch.float64), labels


def _loss(model, batch, job) -> torch.Tensor:
    _, terms = METHODS[job.method](model, *batch, job, 0)
    return sum(terms.values())


@pytest.fixture
def icasc_job(make_job):
    """Weight 1 and a soft mask, so that each term is a good part of the gradient."""

    def make(method, **changes):
        return make_job(method, **{"precision": "float64", "attention_weight": 1.0, "omega": 10} | changes)

    return make


@pytest.mark.parametrize("score", ["logit", "probability"])
@pytest.mark.parametrize("head", ["pooled linear", "deep"])
@pytest.mark.parametrize("method", ICASC)
def test_gradient_equals_finite_differences(method, head, score, batch, icasc_job):
    model, job = smooth(deep_head=head == "deep"), icasc_job(method, mask_gradient=True, attention_score=score)
    parameters = list(model.parameters())
    analytic = torch.autograd.grad(_loss(model, batch, job), parameters)
    torch.manual_seed(0)
    for _ in range(4):  # along random directions through all parameters at once
        direction = [torch.randn_like(p) for p in parameters]
        expected = sum((g * d).sum() for g, d in zip(analytic, direction, strict=True)).item()
        values = []
        for step in (1e-6, -1e-6):
            for p, d in zip(parameters, direction, strict=True):
                p.data.add_(d, alpha=step)
            values.append(_loss(model, batch, job).item())
            for p, d in zip(parameters, direction, strict=True):
                p.data.add_(d, alpha=-step)
        assert (values[0] - values[1]) / 2e-6 == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("method", ICASC)
def test_cutting_the_second_order_changes_the_gradient_not_the_loss(method, batch, icasc_job):
    model = smooth()
    whole, cut = (_loss(model, batch, icasc_job(method, second_order=s)) for s in (True, False))
    assert whole.item() == pytest.approx(cut.item(), rel=1e-12)
    norms = [
        torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(model.parameters()))]) for loss in (whole, cut)
    ]
    assert (norms[0] - norms[1]).norm() > 0.05 * norms[0].norm()


@pytest.mark.parametrize("term", ["separability_inner", "separability_last", "consistency"])
@pytest.mark.parametrize("method", ICASC)
def test_each_term_moves_the_weights(method, term, batch, icasc_job):
    model = smooth()
    _, terms = METHODS[method](model, *batch, icasc_job(method), 0)
    gradients = torch.autograd.grad(terms[term], list(model.parameters()), allow_unused=True)
    assert sum(g.abs().sum() for g in gradients if g is not None) > 1e-6


@pytest.mark.parametrize("kind", attention.KINDS)
@pytest.mark.parametrize("batch_norm", [False, True])
def test_closed_form_of_the_last_map_equals_autograd(kind, batch_norm, batch):
    model = smooth(batch_norm=batch_norm).train()
    feat_last = model.to_last(model.to_inner(batch[0]))
    logits = model.head(feat_last)
    cotangent = (batch[1] == 1).double()
    closed = icasc.last_gradient(model, feat_last, logits, cotangent, True)
    autograd = attention.gradient(logits, feat_last, cotangent, True)
    assert closed.shape[2:] == (1, 1)
    assert torch.allclose(closed.expand_as(autograd), autograd, rtol=1e-12, atol=1e-14)
    maps = [attention.attention_map(feat_last, g, kind).sum() for g in (closed, autograd)]
    parameters = [p for name, p in model.named_parameters() if name != "net.fc.bias"]  # no map depends on it
    for mine, theirs in zip(*(torch.autograd.grad(m, parameters, retain_graph=True) for m in maps), strict=True):
        assert torch.allclose(mine, theirs, rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("method", ICASC)
def test_images_do_not_leak_into_each_other_without_batch_norm(method, batch, icasc_job):
    model, job = smooth(), icasc_job(method)
    together = METHODS[method](model, *batch, job, 0)[1]
    alone = [METHODS[method](model, batch[0][i : i + 1], batch[1][i : i + 1], job, 0)[1] for i in range(3)]
    for name, term in together.items():
        assert term.item() == pytest.approx(sum(a[name].item() for a in alone) / 3, rel=1e-10)


@pytest.mark.parametrize("method", ICASC)
def test_nothing_is_left_behind_on_the_model(method, batch, icasc_job):
    model = smooth()
    _loss(model, batch, icasc_job(method)).backward()
    for module in model.modules():
        hooks = [v for k, v in vars(module).items() if "hook" in k and k != "_is_full_backward_hook"]
        assert not any(hooks)
    assert set(vars(model)) == set(vars(smooth()))


@pytest.mark.parametrize("method", ICASC)
def test_image_without_absent_class_counts_with_zero(method, batch, icasc_job):
    images, labels = batch
    all_present = torch.ones_like(labels)
    _, terms = METHODS[method](smooth(), images, all_present, icasc_job(method), 0)
    assert [terms[n].item() for n in ("separability_inner", "separability_last", "consistency")] == [0, 0, 0]


@pytest.mark.parametrize("method", ICASC)
def test_warm_up_is_the_baseline(method, batch, icasc_job, make_job):
    job, model = icasc_job(method, warmup_epochs=2), smooth()
    plain = METHODS["baseline"](model, *batch, make_job(precision="float64"), 0)[1]
    assert METHODS[method](model, *batch, job, 1)[1].keys() == plain.keys()
    assert METHODS[method](model, *batch, job, 2)[1].keys() > plain.keys()


@pytest.mark.parametrize(("policy", "present", "absent"), [("positive", 1, 0), ("negative", 0, 1), ("ignore", 0, 0)])
def test_difficult_objects_in_training(policy, present, absent, make_job, batch):
    job = make_job(difficult_train=policy)
    got = baseline.trained_labels(torch.tensor([[0]]), job, 1)
    assert [g.int().item() for g in got] == [present, absent]


def test_classification_loss_is_torch_s_where_nothing_is_ignored(make_job):
    logits, labels = torch.randn(5, 20), torch.randint(0, 2, (5, 20)) * 2 - 1
    ours = baseline.classification_loss(logits, labels, make_job())
    assert torch.allclose(ours, nn.functional.multilabel_soft_margin_loss(logits, (labels == 1).float()))


def test_maps_are_float32_under_bfloat16(make_job, batch, monkeypatch):
    seen = []
    real = attention.attention_map
    monkeypatch.setattr(attention, "attention_map", lambda f, g, k: seen.append((f.dtype, g.dtype)) or real(f, g, k))
    METHODS["icasc-a_ch"](smooth().float(), batch[0].float(), batch[1], make_job("icasc-a_ch", precision="bfloat16"), 0)
    assert set(seen) == {(torch.float32, torch.float32)}


@pytest.mark.parametrize(
    "option",
    [
        {"map_scale": "own_max"},
        {"mask_source": "inner"},
        {"mask_gradient": True},
        {"sigma": 0.25},
        {"theta": 0.5},
        {"multi_label_target": "strongest_present"},
        {"attention_score": "probability"},
        {"class_reduction": "sum"},
    ],
)
def test_each_reading_changes_the_loss_or_its_gradient(option, batch, icasc_job):
    model = smooth()
    losses = [_loss(model, batch, icasc_job("icasc-a_ch", **o)) for o in ({}, option)]
    gradients = [torch.cat([g.flatten() for g in torch.autograd.grad(x, list(model.parameters()))]) for x in losses]
    assert losses[0].item() != losses[1].item() or not torch.allclose(*gradients)


def test_frozen_batch_norm_keeps_values_and_couples_no_images(batch):
    model = smooth(batch_norm=True).train()
    feat = model.to_inner(batch[0]).detach().requires_grad_()
    frozen, running = model.to_last_frozen(feat), model.net.stage3[1].running_mean.clone()
    assert model.net.stage3[1].training
    assert torch.equal(running, torch.zeros(6, dtype=torch.float64))
    assert torch.allclose(frozen, model.to_last(feat), rtol=1e-12)
    of_first = {
        way: torch.autograd.grad(piece(feat)[0].sum(), feat)[0][1:].abs().max().item()
        for way, piece in (("frozen", model.to_last_frozen), ("batch", model.to_last))
    }
    assert of_first["frozen"] == 0 < of_first["batch"]


@pytest.mark.parametrize("method", ICASC)
def test_frozen_batch_norm_changes_the_inner_map_alone(method, batch, icasc_job):
    model = smooth(batch_norm=True).train()
    batch_terms, frozen_terms = (
        METHODS[method](model, *batch, icasc_job(method, gradient_batchnorm=way), 0)[1] for way in ("batch", "frozen")
    )
    same = {name: batch_terms[name].item() == pytest.approx(frozen_terms[name].item()) for name in batch_terms}
    assert same == {
        "classification": True, "separability_inner": False, "separability_last": True, "consistency": False
    }  # fmt: skip


def test_summed_loss_is_the_mean_times_the_classes(make_job):
    logits, labels = torch.randn(5, 20), torch.randint(0, 2, (5, 20)) * 2 - 1
    mean, total = (baseline.classification_loss(logits, labels, make_job(class_reduction=r)) for r in ("mean", "sum"))
    assert total.item() == pytest.approx(20 * mean.item())


def test_terms_scale_with_the_weight(batch, icasc_job):
    model = smooth()
    feat = model.to_inner(batch[0])
    last = model.to_last(feat)
    logits = model.head(last)
    once, half = (
        icasc.attention_terms(model, feat, last, logits, batch[1] == 1, batch[1] < 0,
                        icasc_job("icasc-a_ch", attention_weight=w), "a_ch") for w in (1.0, 0.5)
    )  # fmt: skip
    for name in once:
        assert half[name].item() == pytest.approx(once[name].item() / 2)
