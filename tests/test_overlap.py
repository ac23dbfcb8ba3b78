"""The same held-out images for every run, and a measure that moves nothing."""

import numpy as np
import pytest
import torch

from benchmark.data import ImageSet
from benchmark.methods import attention, models, overlap
from tests.networks import smooth


def _set(targets: np.ndarray, num_classes: int = 3) -> ImageSet:
    names = tuple(map(str, range(len(targets))))
    return ImageSet(tuple("abc")[:num_classes], names, np.zeros((len(targets), 8, 8, 3), np.uint8), targets)


def test_held_out_images_show_a_class_and_lack_one():
    targets = np.array([[1, 0, -1], [0, 0, -1], [1, 1, 1], [-1, -1, -1], [1, -1, -1]], np.int8)
    assert overlap.held_out(_set(targets)).tolist() == [0, 4]


def test_held_out_is_a_fixed_draw():
    found = [overlap.held_out(_set(np.arange(500) % 3)) for _ in range(2)]
    assert len(found[0]) == overlap.HELD_OUT
    assert (np.diff(found[0]) > 0).all()
    assert (found[0] == found[1]).all()


@pytest.mark.parametrize("labels_an_image", ["one", "several"])
def test_kept_images_are_spread_over_classes_that_lie_in_order(labels_an_image):
    """Sorted by class, as folders of classes are, the first eight would all show the first class."""
    numbers = np.repeat([0, 1, 2], [40, 3, 20])
    targets = numbers if labels_an_image == "one" else np.where(np.eye(3)[numbers] == 1, 1, -1).astype(np.int8)
    held_out = np.arange(len(numbers))
    kept = overlap.spread_over_classes(_set(targets), held_out)
    assert kept.tolist() == [0, 1, 2, 40, 41, 42, 43, 44]
    assert np.bincount(numbers[kept]).tolist() == [3, 3, 2]
    few = overlap.spread_over_classes(_set(targets[:5]), held_out[:5])
    assert few.tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("backbone", ["resnet8", "vgg11_narrow"])
def test_measure_leaves_the_network_as_it_was(backbone, make_job):
    model = models.build(backbone, 4, seed=0).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    torch.manual_seed(1)
    images, state = torch.randn(6, 3, 32, 32), torch.get_rng_state()
    found = overlap.measure(model, images, np.array([0, 1, 2, 3, 0, 1]), make_job())
    assert all(0 <= value <= 1 for value in found.values())
    assert len(found) == 8
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())
    assert torch.equal(state, torch.get_rng_state())


def test_measure_keeps_no_graph_of_what_is_below_the_maps_and_takes_few_images_at_once(make_job, monkeypatch):
    """On a GPU both decide whether the test after an epoch fits where the training did."""
    model = models.build("resnet8", 4, seed=0).double()
    images, targets = torch.randn(6, 3, 32, 32, dtype=torch.float64), np.array([0, 1, 2, 3, 0, 1])
    sizes, to_inner = [], model.to_inner

    def seen(images):
        assert not torch.is_grad_enabled()
        sizes.append(len(images))
        return to_inner(images)

    monkeypatch.setattr(model, "to_inner", seen)
    whole = overlap.measure(model, images, targets, make_job(precision="float64"))
    monkeypatch.setattr(overlap, "AT_ONCE", {"cpu": 4})
    assert overlap.measure(model, images, targets, make_job(precision="float64")) == pytest.approx(whole, abs=2e-6)
    assert sizes == [6, 4, 2]


def test_measure_is_the_overlap_of_the_method_s_own_maps(make_job):
    """Against the plain way: autograd at both layers, one image after the other."""
    model = models.build("resnet8", 4, seed=0).double().eval()
    images, label = torch.randn(1, 3, 32, 32, dtype=torch.float64), 2
    feat = model.to_inner(images).detach().requires_grad_()
    logits = model.head(model.to_last(feat))
    confusing = max((c for c in range(4) if c != label), key=lambda c: logits[0, c].item())
    maps = []
    for c in (label, confusing):
        (gradient,) = torch.autograd.grad(logits[0, c], feat, retain_graph=True)
        weight = gradient.mean(dim=(2, 3), keepdim=True)
        grad_cam = (weight * feat).sum(dim=1).relu()
        maps.append(grad_cam / grad_cam.max().clamp_min(1e-8))
    expected = torch.minimum(*maps).sum() / torch.maximum(*maps).sum().clamp_min(1e-8)
    found = overlap.measure(model, images, np.array([label]), make_job(precision="float64"))
    assert found["grad_cam_inner"] == pytest.approx(expected.item(), abs=1e-6)


@pytest.mark.parametrize("backbone", ["resnet18_narrow", "vgg11_narrow"])
def test_kept_maps_are_class_maps_by_their_own_maximum(make_job, backbone):
    """A byte holds 255 steps."""
    model = models.build(backbone, 7, 0).eval()
    images = torch.randn(3, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    classes = torch.tensor([[0, 4], [6, 1], [2, 3]])
    kept = overlap.kept(model, images, classes, make_job())
    for (kind, layer), maps in overlap.class_maps(model, images, classes, make_job()).items():
        if layer == "last":
            by_own = maps / maps.amax(dim=(2, 3), keepdim=True).clamp_min(attention.EPS)
            assert kept[kind].dtype == torch.uint8
            assert (kept[kind] / 255 - by_own).abs().max() < 0.6 / 255


@pytest.mark.parametrize("head", ["pooled linear", "deep"])
def test_maps_of_several_classes_are_those_of_each_alone(head, make_job):
    model = smooth(batch_norm=True, deep_head=head == "deep").eval()
    torch.manual_seed(5)
    images, classes = torch.randn(3, 3, 8, 8, dtype=torch.float64), torch.tensor([[0, 1], [3, 2], [1, 1]])
    maps = overlap.class_maps(model, images, classes, make_job(precision="float64"))
    feat_inner = model.to_inner(images)
    feat_last = model.to_last(feat_inner)
    logits = model.head(feat_last)
    assert list(maps) == [(kind, layer) for kind in attention.KINDS for layer in overlap.LAYERS]
    for (kind, layer), found in maps.items():
        assert found.amax() > 0
        assert not found.requires_grad
        feat = {"inner": feat_inner, "last": feat_last}[layer]
        for k in range(2):
            picked = logits.gather(1, classes[:, k : k + 1]).sum()
            (gradient,) = torch.autograd.grad(picked, feat, retain_graph=True)
            plain = attention.attention_map(feat, gradient, kind)
            assert torch.allclose(found[:, k], plain, rtol=1e-10, atol=1e-14)
