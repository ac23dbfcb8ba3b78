"""What is refused before it trains: batches of one value a channel, and networks that a method cannot train."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

from benchmark.errors import UserError
from benchmark.matrix import grid, study
from benchmark.matrix import own as own_study
from benchmark.methods.models import Architecture
from benchmark.store.run import submit
from benchmark.train import batches, before, distributed, loop
from benchmark.train.batch_sizes import smallest_batch
from tests.networks import PAPER_METHODS

TRUNK, TOP = ("one", "two", "three"), ("pool", "flat", "fc")


def job_of(backbone: str, method: str = "icasc-a_ch", **fields):
    asked = {"backbone": backbone, "weights": "scratch", "image_size": 32} | fields
    return grid.load("voc").jobs("mini", asked, {"method": [method], "seed": [0]})[0]


@pytest.fixture
def network():
    """network(stage): that one, as `last` stage of a small network of a study."""

    def used(make_stage, stage: str = "three", **parts) -> None:
        def make(num_classes: int) -> nn.Module:
            net = nn.Module()
            channels = {"one": 3, "two": 8, "three": 8}
            for name, count in channels.items():
                plain = nn.Sequential(nn.Conv2d(count, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU())
                setattr(net, name, make_stage() if name == stage else plain)
            net.pool, net.flat, net.fc = nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, num_classes)
            for name, part in parts.items():
                setattr(net, name, part())
            return net

        own = Architecture(make, TRUNK, TRUNK, TOP, "fc.")
        study._at_hand = replace(study.built_in(), backbones={"mine": own}, folder=Path("mine"))

    yield used
    own_study.use(None)


class Attention(nn.Module):
    """Of one head over the positions, by the default kernel."""

    def __init__(self, kernel: str = "default") -> None:
        super().__init__()
        self.kernel, self.project = kernel, nn.Conv2d(8, 24, 1)

    def forward(self, x):
        query, key, value = self.project(x).flatten(2).mT[:, None].chunk(3, dim=3)
        if self.kernel == "math":
            with nn.attention.sdpa_kernel(nn.attention.SDPBackend.MATH):
                out = F.scaled_dot_product_attention(query, key, value)
        else:
            out = F.scaled_dot_product_attention(query, key, value)
        return out.squeeze(1).mT.reshape(x.shape)


class Tokens(nn.Module):
    def forward(self, x):
        return x.flatten(2).transpose(1, 2)


class Pair(nn.Module):
    def forward(self, x):
        return x, x


class Once(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x**2

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, g):
        return 2 * ctx.saved_tensors[0] * g


class OnlyOnce(nn.Module):
    def forward(self, x):
        return Once.apply(x)


class Detached(nn.Module):
    def forward(self, x):
        return x.detach() * 2


class Checkpointed(nn.Module):
    def __init__(self, inside: nn.Module, reentrant: bool = False) -> None:
        super().__init__()
        self.inside, self.reentrant = inside, reentrant

    def forward(self, x):
        return checkpoint(self.inside, x, use_reentrant=self.reentrant)


class Counter(nn.Module):
    """A buffer that is no BatchNorm's."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, x):
        self.seen += 1
        return x * 1.0


def two_steps():
    return nn.Sequential(nn.Conv2d(8, 8, 3, 1, 1), nn.BatchNorm2d(8), nn.ReLU())


def refused(method: str = "icasc-a_ch", **fields) -> str:
    with pytest.raises(UserError) as error:
        before.refuse_network(job_of("mine", method, **fields), 20)
    assert str(error.value).startswith("mine: ")
    assert len(str(error.value).splitlines()) == 1
    return str(error.value)


@pytest.mark.parametrize(
    ("made", "named"),
    [
        (lambda: nn.Sequential(nn.Conv2d(8, 8, 1), nn.Hardsigmoid()), "three.1 (Hardsigmoid) has no second derivative"),
        (lambda: nn.Sequential(two_steps(), Attention()), "three.1 (Attention) has no second derivative on cpu"),
        (OnlyOnce, "three (OnlyOnce) has no second derivative"),
        (lambda: nn.Sequential(Checkpointed(nn.Sequential(two_steps(), nn.Hardsigmoid()))), "statistics of three.0"),
    ],
)
def test_an_operation_without_second_derivative_is_named_by_its_module(network, made, named):
    network(made)
    assert named in refused()


@pytest.mark.parametrize("method", PAPER_METHODS)
@pytest.mark.parametrize(
    ("made", "named", "instead"),
    [
        (lambda: nn.Sequential(two_steps(), Detached()), "three.1 (Detached) has no first derivative", "detach() and"),
        (lambda: Checkpointed(nn.GELU(), reentrant=True), "three (Checkpointed) has no first", "use_reentrant=False"),
    ],
)
def test_what_the_maps_of_every_run_need_is_needed_of_a_baseline_too(network, made, named, instead, method):
    network(made)
    assert named in (said := refused(method))
    assert instead in said


def test_what_such_a_layer_needs_is_named(network):
    network(Attention)
    assert "icasc-a_ch needs (" in (said := refused())
    assert "call it within torch.nn.attention.sdpa_kernel(SDPBackend.MATH)" in said


@pytest.mark.parametrize("stage", ["one", "two"])
def test_below_the_inner_layer_and_without_a_second_order_one_derivative_is_enough(network, stage):
    """`inner` is the stage before the last: nothing below it is differentiated twice."""
    network(lambda: nn.Sequential(nn.Conv2d(3 if stage == "one" else 8, 8, 3, 2, 1), nn.Hardsigmoid()), stage)
    before.refuse_network(job_of("mine"), 20)
    network(lambda: nn.Sequential(two_steps(), nn.Hardsigmoid()))
    before.refuse_network(job_of("mine", "baseline"), 20)
    before.refuse_network(job_of("mine", second_order=False), 20)


@pytest.mark.parametrize("method", PAPER_METHODS)
@pytest.mark.parametrize(
    "made",
    [
        two_steps,
        lambda: nn.Sequential(two_steps(), Attention("math")),
        lambda: nn.Sequential(nn.GroupNorm(2, 8), nn.SiLU(), nn.Conv2d(8, 8, 1), nn.Dropout(), nn.Hardswish()),
        lambda: Checkpointed(nn.Sequential(nn.Conv2d(8, 8, 1), nn.GELU())),
        lambda: nn.Sequential(nn.BatchNorm2d(8, track_running_stats=False), nn.ReLU(inplace=True)),
    ],
)
def test_networks_that_can_be_trained_pass(network, made, method):
    network(made)
    before.refuse_network(job_of("mine", method), 20)


@pytest.mark.parametrize("method", PAPER_METHODS)
@pytest.mark.parametrize("stage", ["two", "three"])
@pytest.mark.parametrize(("made", "shape"), [(Tokens, r"\(2, \d+, 8\)"), (Pair, "tuple"), (nn.Flatten, r"\(2, \d+\)")])
def test_a_stage_that_gives_no_map_is_named(network, made, shape, stage, method):
    network(made, stage)
    said = refused(method)
    assert f"mine: stage {stage} gives " in said
    assert "no feature map (B, C, H, W)" in said
    assert re.search(shape, said)


@pytest.mark.parametrize(
    "made", [lambda: nn.LazyConv2d(8, 3), lambda: nn.Sequential(nn.Identity(), nn.LazyBatchNorm2d())]
)
def test_lazy_modules_are_named(network, made):
    network(made)
    assert "has no size before it has seen an image" in refused("baseline")


def test_a_top_that_gives_other_logits_is_named(network):
    network(two_steps, fc=lambda: nn.Linear(8, 7))
    assert "its top gives (2, 7) for 2 images of 20 classes" in refused("baseline")


@pytest.mark.parametrize("method", PAPER_METHODS)
@pytest.mark.parametrize(
    ("made", "named"),
    [
        (lambda: Checkpointed(two_steps()), "statistics of three.inside.1 (TwiceDifferentiableBatchNorm2d)"),
        (lambda: Checkpointed(nn.Sequential(Counter(), nn.Conv2d(8, 8, 1), nn.GELU())), "of three.inside.0 (Counter)"),
        (lambda: Checkpointed(two_steps(), reentrant=True), "statistics of three.inside.1 (TwiceDifferentiable"),
    ],
)
def test_checkpointing_around_what_counts_batches_is_refused_for_every_method(network, made, named, method):
    network(made)
    assert named in refused(method)


def test_what_else_goes_wrong_in_a_network_is_left_to_its_job(network):
    class Broken(nn.Module):
        def forward(self, x):
            raise ValueError("not mine to tell")

    network(Broken)
    before.refuse_network(job_of("mine"), 20)


def test_the_generator_is_left_where_it_was(network):
    network(lambda: nn.Sequential(two_steps(), nn.Dropout()))
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    before.refuse_network(job_of("mine"), 20)
    before.refuse_single_values(job_of("resnet18", batch_size=2, image_size=64), 5, 20)
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize("method", ["baseline", "data-half", "data-four_fifths"])
@pytest.mark.parametrize("limit", [None, 7, 12])
@pytest.mark.parametrize("ranks", [1, 3])
@pytest.mark.parametrize("num_images", [1, 2, 5, 8, 9, 13, 21])
def test_the_smallest_batch_is_the_loop_s(num_images, ranks, limit, method, monkeypatch):
    job = grid.load("voc").jobs("mini", {"batch_size": 4, "limit_train": limit, "ranks": ranks})[0]
    job = job.model_copy(update={"method": method})
    count = len(batches.training_subset(job, num_images))
    monkeypatch.setattr(distributed, "size", lambda: ranks)
    sizes = []
    for rank in range(ranks):
        monkeypatch.setattr(distributed, "rank", lambda rank=rank: rank)
        whole = [slice(i, min(i + job.batch_size, count)) for i in range(0, count, job.batch_size)]
        sizes += [part.stop - part.start for part, _ in map(distributed.share, whole)]
    assert not count or smallest_batch(job, num_images) == min(sizes)


@pytest.mark.parametrize(
    ("backbone", "size", "refused"),
    [
        ("resnet18", 32, "layer4.0.bn1"), ("resnet18", 33, None), ("resnet50", 32, "layer4.0.bn2"),
        ("resnet8", 4, "layer3"), ("resnet8", 5, None), ("vgg11_narrow", 32, None),
        ("resnet18_narrow", 16, "layer4.0.bn1"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("method", ["baseline", "icasc-a_ch"])
def test_a_last_batch_of_one_value_a_channel_is_refused(backbone, size, refused, method):
    job = job_of(backbone, method, image_size=size, batch_size=50)
    before.refuse_single_values(job, 100, 20)
    before.refuse_single_values(job, 102, 20)
    if refused is None:
        before.refuse_single_values(job, 101, 20)
        return
    with pytest.raises(UserError) as error:
        before.refuse_single_values(job, 101, 20)
    assert f"one image, of which BatchNorm ({refused}" in str(error.value)
    assert len(str(error.value).splitlines()) == 1


def test_a_job_that_cannot_train_has_bad_input_and_has_not_diverged(tmp_path, small_cache):
    job = job_of("resnet18", "baseline", limit_train=33, batch_size=16, epochs=1)
    run = submit(tmp_path, job)
    with pytest.raises(UserError, match="sees one value a channel"):
        loop.run_job(run, loop.Execution(None, None, small_cache, "cpu", 1))
    assert run.state() == "failed"
    assert run.failure().kind == "input"
