"""Hand-worked cases of each formula, and the properties that the formulas promise."""

import pytest
import torch

from benchmark.methods import attention

torch.manual_seed(0)


def test_grad_cam_map_by_hand():
    feat = torch.tensor([[[[1.0, 2.0]], [[3.0, -1.0]]]])  # two channels, 1x2
    gradient = torch.tensor([[[[2.0, 0.0]], [[-1.0, 1.0]]]])  # means 1 and 0
    assert attention.attention_map(feat, gradient, "grad_cam").tolist() == [[[1.0, 2.0]]]


def test_channel_weighted_map_takes_the_positive_part_before_the_mean():
    feat = torch.tensor([[[[1.0, 2.0]], [[3.0, -1.0]]]])
    gradient = torch.tensor([[[[2.0, 0.0]], [[-1.0, 1.0]]]])  # positive parts' means: 1 and 0.5
    assert attention.attention_map(feat, gradient, "a_ch").tolist() == [[[2.5, 1.5]]]


@pytest.mark.parametrize("kind", attention.KINDS)
def test_gradient_that_is_the_same_everywhere_may_be_one_by_one(kind):
    feat, gradient = torch.rand(2, 3, 4, 5), torch.randn(2, 3, 1, 1)
    full = attention.attention_map(feat, gradient.expand_as(feat), kind)
    assert torch.allclose(attention.attention_map(feat, gradient, kind), full)


def test_cotangents_name_true_and_confusing_class():
    logits = torch.tensor([[1.0, 5.0, 3.0, 4.0]])
    present, absent = torch.tensor([[True, False, True, False]]), torch.tensor([[False, True, False, False]])
    true, conf = attention.cotangents(logits, present, absent, "all_present")
    assert true.tolist() == [[1, 0, 1, 0]]
    assert conf.tolist() == [[0, 1, 0, 0]]  # class 3 is neither present nor absent
    true, _ = attention.cotangents(logits, present, absent, "strongest_present")
    assert true.tolist() == [[0, 0, 1, 0]]


def test_cotangents_of_an_image_without_such_a_class_are_zero():
    nothing = torch.zeros(1, 3, dtype=torch.bool)
    true, conf = attention.cotangents(torch.randn(1, 3), nothing, nothing, "strongest_present")
    assert true.sum() == conf.sum() == 0


def test_maps_are_scaled_by_the_true_maximum_or_their_own():
    true, conf = torch.tensor([[[1.0, 4.0]]]), torch.tensor([[[8.0, 2.0]]])
    assert [m.tolist() for m in attention.scale_maps(true, conf, "true_max")] == [[[[0.25, 1]]], [[[2, 0.5]]]]
    assert [m.tolist() for m in attention.scale_maps(true, conf, "own_max")] == [[[[0.25, 1]]], [[[1, 0.25]]]]


def test_mask_is_one_half_at_the_threshold_and_nearly_binary_beside_it():
    mask = attention.soft_mask(torch.tensor([[[0.0, 0.55, 1.0]]]), omega=100, sigma=0.55)
    assert mask[0, 0, 1].item() == pytest.approx(0.5)
    assert mask[0, 0, 0] < 1e-20
    assert mask[0, 0, 2] == 1  # in float32


def test_separability_by_hand():
    true, conf, mask = torch.tensor([[[1.0, 0.5]]]), torch.tensor([[[0.25, 1.0]]]), torch.tensor([[[1.0, 0.0]]])
    assert attention.separability(true, conf, mask).item() == pytest.approx(2 * 0.25 / 2.75)


def test_separability_is_one_for_equal_maps_and_zero_for_disjoint_or_blank_ones():
    everywhere = torch.ones(1, 1, 2)
    left, right = torch.tensor([[[1.0, 0.0]]]), torch.tensor([[[0.0, 1.0]]])
    assert attention.separability(left, left, everywhere).item() == 1
    assert attention.separability(left, right, everywhere).item() == 0
    assert attention.separability(0 * left, 0 * right, everywhere).item() == 0


def test_consistency_counts_attention_inside_the_resized_mask():
    inner = torch.tensor([[[3.0, 1.0], [0.0, 0.0]]])
    assert attention.consistency(inner, torch.ones(1, 1, 1), 0.8).item() == pytest.approx(-0.2)
    assert attention.consistency(inner, torch.zeros(1, 1, 1), 0.8).item() == pytest.approx(0.8)
    left_half = torch.tensor([[[1.0, 0.0], [1.0, 0.0]]])
    assert attention.consistency(inner, left_half, 0.8).item() == pytest.approx(0.8 - 0.75)


@pytest.mark.parametrize("kind", attention.KINDS)
def test_blank_maps_have_finite_gradients(kind):
    feat = torch.zeros(1, 2, 3, 3, requires_grad=True)
    true, conf = (attention.attention_map(feat, torch.zeros(1, 2, 3, 3), kind) for _ in range(2))
    true, conf = attention.scale_maps(true, conf, "true_max")
    mask = attention.soft_mask(true, 100, 0.55)
    loss = attention.separability(true, conf, mask) + attention.consistency(true, mask, 0.8)
    loss.sum().backward()
    assert torch.isfinite(feat.grad).all()


def test_overlap_by_hand():
    a, b = torch.tensor([[[2.0, 4.0]]]), torch.tensor([[[1.0, 1.0]]])  # scaled: 0.5 1 and 1 1
    assert attention.overlap(a, b).tolist() == [0.75]
    assert attention.overlap(a, 3 * a).tolist() == [1]
    assert attention.overlap(a, torch.zeros_like(a)).tolist() == [0]


@pytest.mark.parametrize("multi_label", [False, True])
def test_score_cotangent_is_the_gradient_of_the_score(multi_label):
    logits = torch.randn(3, 5, dtype=torch.float64, requires_grad=True)
    cotangent = torch.randint(0, 2, (3, 5)).double()
    probability = logits.sigmoid() if multi_label else logits.softmax(dim=1)
    (expected,) = torch.autograd.grad((cotangent * probability).sum(), logits)
    assert torch.allclose(attention.score_cotangent(logits, cotangent, "probability", multi_label), expected)
