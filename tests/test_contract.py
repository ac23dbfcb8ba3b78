"""Every data set x backbone x method of the grids trains one small job; every backbone takes an ICASC step. So do
those of a study: of the one that `init` writes, of examples/, and of one with pictures of its own."""

import itertools
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from benchmark.cli import init
from benchmark.data.voc import CELLS
from benchmark.matrix import grid, study
from benchmark.matrix.job import Job
from benchmark.matrix.own import use
from benchmark.methods import METHODS, models
from benchmark.store import run as run_module
from benchmark.store import scores
from benchmark.train import loop
from tests import networks

CELLS_OF_GRIDS = [
    (name, job)
    for name in grid.names()
    for job in grid.load(name).jobs("mini", {"epochs": 1, "limit_train": 16, "seed": 0})
]


def pairs(job: Job) -> set[tuple[str, str]]:
    return set(itertools.combinations((f"{job.dataset} {job.train_split}", job.backbone, job.method), 2))


def first_of_each_pair() -> list[pytest.param]:
    """Every cell of every grid; one that brings no new pair of split, network and method is slow."""
    seen: set[tuple[str, str]] = set()
    params, left = [], list(CELLS_OF_GRIDS)
    while left:
        name, job = max(left, key=lambda cell: len(pairs(cell[1]) - seen))
        left.remove((name, job))
        marks = () if pairs(job) - seen else pytest.mark.slow
        seen |= pairs(job)
        params.append(pytest.param(name, job, id=f"{name}-{job.backbone}-{job.train_split}-{job.method}", marks=marks))
    return params


@pytest.mark.parametrize(("name", "job"), first_of_each_pair())
def test_every_cell_of_every_grid_trains(name, job, cache, tmp_path, few_images):
    few_images(40)
    assert trains(job, tmp_path, cache)["num_test"] == 40


def trains(job, folder, cache):
    """Its record."""
    run = run_module.submit(folder, job)
    loop.run_job(run, loop.Execution(None, None, cache, "cpu", 1))
    record = json.loads(run.path("result.json").read_bytes())
    assert run.state() == "done"
    headline = record["top1"] if job.loss == "cross_entropy" else record["mAP"]["area"]
    assert 0 <= headline <= 1
    saved = scores.read(run)
    assert len(saved.predicted) == len(saved.labels) == len(saved.ids) == record["num_test"]
    return record


@pytest.mark.parametrize("method", METHODS)
def test_every_method_takes_a_step_on_any_data_set(method):
    takes_a_step(method)


def takes_a_step(method):
    guided = study.method(method).guided  # by boxes, which VOC's layout alone has
    for name in ("voc",) if guided else ("voc", "cifar100"):
        job = grid.load(name).jobs("mini", {"method": method, "seed": 0})[0]
        model = networks.build("resnet8", 5).train()
        labels = torch.tensor([[1, -1, -1, 0, -1], [-1, 1, 1, -1, 0]]) if name == "voc" else torch.tensor([1, 3])
        if guided:
            labels = torch.cat([labels, torch.randint(0, 2, (2, CELLS**2))], dim=1)
        logits, terms = study.method(method)(model, torch.randn(2, 3, 32, 32), labels, job, 0)
        assert logits.shape == (2, 5)
        assert "classification" in terms, "what the loop logs, and tables show as the loss"
        sum(terms.values()).backward()
        assert all(torch.isfinite(p.grad).all() for p in model.parameters())


@pytest.mark.parametrize("backbone", networks.quick_first(models.BACKBONES))
@pytest.mark.parametrize("method", ["icasc-grad_cam", "icasc-a_ch"])
def test_every_backbone_takes_an_icasc_step(backbone, method):
    model = takes_an_icasc_step(backbone, method)
    pooled = model.pooled_linear_weight() is not None
    assert pooled != backbone.startswith("vgg"), "VGG's last map needs autograd through its three linear layers"


def takes_an_icasc_step(backbone, method):
    job = grid.load("cifar100").jobs("mini", {"method": method, "seed": 0})[0]
    model = networks.build(backbone, 5).train()
    _, terms = METHODS[method](model, torch.randn(2, 3, 64, 64), torch.tensor([1, 3]), job, 0)
    assert set(terms) == {"classification", "separability_inner", "separability_last", "consistency"}
    loss = sum(terms.values())
    loss.backward()
    gradients = [p.grad for p in model.parameters()]
    assert all(g is not None and torch.isfinite(g).all() for g in gradients)
    return model


def as_init_writes_it(folder: Path) -> None:
    init.init(folder)


def as_the_example(folder: Path) -> None:
    shutil.copytree(Path(__file__).parents[1] / "examples", folder, ignore=shutil.ignore_patterns("runs", "paper"))


def with_pictures(folder: Path) -> None:
    init.init(folder)
    for split, name in ((split, name) for split in ("train", "test") for name in ("ape", "bee")):
        (folder / "photos" / split / name).mkdir(parents=True)
        for i in range(8):
            noise = np.random.default_rng(i).integers(0, 256, (20, 30, 3), np.uint8)
            Image.fromarray(noise).save(folder / "photos" / split / name / f"{i}.png")
    path = folder / "grids" / "mine.yaml"
    text = path.read_text().replace("dataset: cifar100-mini", "dataset: photographs").replace("none  ", "warp  ")
    path.write_text(text + "data: {layout: imagefolder, path: photos}\n")


@pytest.fixture(params=[as_init_writes_it, as_the_example, with_pictures])
def own(request, tmp_path) -> study.Study:
    """The study at hand."""
    request.param(tmp_path / "mine")
    use(tmp_path / "mine")
    yield study.at_hand()
    use(None)


def test_what_a_study_adds_is_held_to_the_same(own, tmp_path, cache, few_images):
    few_images(40)
    assert own.own
    for name in grid.names():
        jobs = grid.load(name).jobs("paper", {"epochs": 1, "limit_train": 16, "seed": 0})
        assert {job.method for job in jobs} >= set(own.own)
        for job in jobs:
            trains(job, tmp_path / "runs", cache)
    for method in own.own:
        takes_a_step(method)
    for backbone in own.backbones:
        for method in ("icasc-grad_cam", "icasc-a_ch"):
            takes_an_icasc_step(backbone, method)


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
