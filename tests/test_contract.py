"""Every data set x backbone x method of the grids trains one small job; every backbone takes an ICASC step."""

import json

import pytest
import torch

from benchmark.matrix import grid
from benchmark.methods import METHODS, models
from benchmark.store import run as run_module
from benchmark.store import scores
from benchmark.train import loop
from tests import networks

JOBS = [
    pytest.param(name, job, id=f"{name}-{job.backbone}-{job.train_split}-{job.method}")
    for name in grid.names()
    for job in grid.load(name).jobs("mini", {"epochs": 1, "limit_train": 16, "seed": 0})
]


@pytest.mark.parametrize(("name", "job"), JOBS)
def test_every_cell_of_every_grid_trains(name, job, cache, tmp_path, few_images):
    few_images(40)
    run = run_module.submit(tmp_path, job)
    loop.run_job(run, loop.Execution(None, None, cache, "cpu", 1))
    record = json.loads(run.path("result.json").read_bytes())
    assert run.state() == "done"
    headline = record["mAP"]["area"] if name == "voc" else record["top1"]
    assert 0 <= headline <= 1
    saved = scores.read(run)
    assert len(saved.predicted) == len(saved.labels) == len(saved.ids) == record["num_test"] == 40


@pytest.mark.parametrize("method", METHODS)
def test_every_method_takes_a_step_on_any_data_set(method):
    for name in ("voc", "cifar100"):
        job = grid.load(name).jobs("mini", {"method": method, "seed": 0})[0]
        model = networks.build("resnet8", 5).train()
        labels = torch.tensor([[1, -1, -1, 0, -1], [-1, 1, 1, -1, 0]]) if name == "voc" else torch.tensor([1, 3])
        logits, terms = METHODS[method](model, torch.randn(2, 3, 32, 32), labels, job, 0)
        assert logits.shape == (2, 5)
        assert "classification" in terms, "what the loop logs, and tables show as the loss"
        sum(terms.values()).backward()
        assert all(torch.isfinite(p.grad).all() for p in model.parameters())


@pytest.mark.parametrize("backbone", networks.quick_first(models.BACKBONES))
@pytest.mark.parametrize("method", ["icasc-grad_cam", "icasc-a_ch"])
def test_every_backbone_takes_an_icasc_step(backbone, method):
    job = grid.load("cifar100").jobs("mini", {"method": method, "seed": 0})[0]
    model = networks.build(backbone, 5).train()
    _, terms = METHODS[method](model, torch.randn(2, 3, 64, 64), torch.tensor([1, 3]), job, 0)
    assert set(terms) == {"classification", "separability_inner", "separability_last", "consistency"}
    loss = sum(terms.values())
    loss.backward()
    gradients = [p.grad for p in model.parameters()]
    assert all(g is not None and torch.isfinite(g).all() for g in gradients)
    pooled = model.pooled_linear_weight() is not None
    assert pooled != backbone.startswith("vgg"), "VGG's last map needs autograd through its three linear layers"


@pytest.mark.parametrize(
    ("backbone", "millions"),
    [("resnet18", 11.69), ("resnet50", 25.56), ("resnet101", 44.55), ("vgg19", 143.67)],
)
def test_sizes_are_torchvision_s(backbone, millions):
    with torch.device("meta"):  # counted, and not drawn
        model = models.build(backbone, 1000, seed=0)
    assert sum(p.numel() for p in model.parameters()) / 1e6 == pytest.approx(millions, abs=0.01)


@pytest.mark.parametrize(("backbone", "millions"), [("resnet20", 0.27), ("resnet56", 0.85), ("resnet110", 1.7)])
def test_sizes_of_the_cifar_family_are_the_paper_s(backbone, millions):
    """He et al., 2016, Table 6: 0.27, 0.85 and 1.7 million parameters for 10 classes."""
    model = models.build(backbone, 10, seed=0)
    assert sum(p.numel() for p in model.parameters()) / 1e6 == pytest.approx(millions, abs=0.06)
    assert sum(isinstance(m, torch.nn.Conv2d | torch.nn.Linear) for m in model.modules()) == int(backbone[6:])
