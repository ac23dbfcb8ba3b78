"""The same held-out images for every run, and a measure that moves nothing."""

import numpy as np
import pytest
import torch

from benchmark.data import ImageSet
from benchmark.methods import attention, icasc, models, overlap


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
def test_kept_maps_are_those_of_all_classes_at_once(make_job, backbone):
    """Drawn and kept by two implementations; a byte holds 255 steps."""
    model = models.build(backbone, 7, 0).eval()
    images = torch.randn(3, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    classes = torch.tensor([[0, 4], [6, 1], [2, 3]])
    kept = overlap.kept(model, images, classes, make_job())
    for kind in attention.KINDS:
        _, maps = icasc.class_maps(model, images, classes, kind)
        by_own = maps / maps.amax(dim=(2, 3), keepdim=True).clamp_min(attention.EPS)
        assert kept[kind].dtype == torch.uint8
        assert (kept[kind] / 255 - by_own).abs().max() < 0.6 / 255
