"""The fast step computes what the plain one does: recorded or not, in float32 or bfloat16, whatever the network."""

import dataclasses

import numpy as np
import pytest
import torch

from benchmark import data
from benchmark.bench import references
from benchmark.bench.compare import replay_apart
from benchmark.matrix import grid
from benchmark.methods import METHODS, attention, baseline, icasc
from benchmark.methods.models import BACKBONES
from benchmark.train import batches, loop
from benchmark.train.step import EAGER_STEPS, Step
from tests import networks
from tests.networks import PAPER_METHODS, quick_first

CIFAR_FAMILY = ("resnet8", "resnet20", "resnet32", "resnet56", "resnet110")
BATCH, NUM = 4, 26  # six full batches and a rest, so that three steps an epoch come from a recording


@pytest.fixture
def gpu() -> torch.device:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    return torch.device("cuda")


def _images(num, size=32, dtype=torch.float32, device="cpu"):
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(num, 3, size, size, generator=generator, dtype=torch.float64)
    labels = torch.randint(0, 2, (num, 20), generator=generator) * 2 - 1
    return images.to(device, dtype).contiguous(memory_format=torch.channels_last), labels.to(device)


def _train(job, recorded, device="cpu"):
    """Parameters and terms after three epochs of the same batches; the rate falls by halves, exact in float32."""
    execution = loop.Execution(None, None, None, str(device), 1)
    torch.backends.cudnn.deterministic = True
    state = loop.start(job.model_copy(update={"weights": "scratch"}), 20, execution)
    images, labels = _images(NUM, device=device)
    step, logged = Step(state.model, state.optimizer, job, recorded), []
    for epoch in range(3):
        for at in range(0, NUM, BATCH):
            terms = step(images[at : at + BATCH], labels[at : at + BATCH], epoch, 0.5 ** (4 + epoch))
            logged.append({name: float(term) for name, term in terms.items()})
    return {k: v.cpu() for k, v in state.model.state_dict().items()}, logged


@pytest.mark.parametrize("method", PAPER_METHODS)
def test_buffers_and_a_rate_in_a_tensor_change_nothing(method, make_job):
    changes = {} if method == "baseline" else {"warmup_epochs": 1}
    job = make_job(method, epochs=3, image_size=32, **changes)
    (plain, logged), (recorded, also) = (_train(job, r) for r in (False, True))
    assert logged == also
    assert all(torch.equal(plain[name], recorded[name]) for name in plain)
    assert ("consistency" in logged[-1]) == (method != "baseline")
    assert "consistency" not in logged[0]


@pytest.mark.parametrize("method", PAPER_METHODS)
def test_the_fused_optimiser_with_a_rate_in_a_tensor_takes_the_same_steps(method, make_job):
    """As on a GPU: momentum, weight decay and a rate that falls, in one kernel."""
    job = make_job(method, precision="float64", image_size=32)
    images, labels = _images(BATCH, dtype=torch.float64)
    ended = []
    for fused in (False, True):
        state = loop.start(job.model_copy(update={"weights": "scratch"}), 20, loop.Execution(*[None] * 3, "cpu", 1))
        before = torch.cat([p.detach().flatten() for p in state.model.parameters()])
        settings = {k: v for k, v in state.optimizer.defaults.items() if k in ("lr", "momentum", "weight_decay")}
        optimizer = torch.optim.SGD(state.model.parameters(), **settings, fused=fused)
        step = Step(state.model, optimizer, job, recorded=fused)
        for epoch in range(3):
            step(images, labels, epoch, 0.5 ** (4 + epoch))
        ended.append(torch.cat([p.detach().flatten() for p in state.model.parameters()]))
    assert _distance(*ended) < 1e-12
    assert _distance(before, ended[0]) > 1e-3


def test_a_recording_lasts_as_long_as_the_method_computes_the_same(make_job, monkeypatch):
    """It is made once for warm-up and once after, and not of a smaller batch with which a resumed run began."""
    recorded = []
    record = Step._record
    monkeypatch.setattr(Step, "_record", lambda step, epoch: recorded.append(epoch) or record(step, epoch))
    job = make_job("icasc-a_ch", epochs=4, image_size=32, warmup_epochs=2, weights="scratch")
    state = loop.start(job, 20, loop.Execution(*[None] * 3, "cpu", 1))
    step, (images, labels) = Step(state.model, state.optimizer, job, recorded=True), _images(BATCH)
    step(images[:2], labels[:2], 0, 0.01)
    for epoch in range(4):
        for _ in range(EAGER_STEPS + 1):
            step(images, labels, epoch, 0.01)
    assert recorded == [0, 2]


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("backbone", ["resnet18_narrow", "resnet20", "vgg11_narrow"])
@pytest.mark.parametrize("method", PAPER_METHODS)
def test_a_recording_replays_the_eager_step(method, backbone, precision, make_job, gpu):
    """Each step from the same state: from one to the next, rounding would grow a thousandfold."""
    changes = {} if method == "baseline" else {"warmup_epochs": 1}
    job = make_job(method, epochs=3, image_size=32, precision=precision, weights="scratch", **changes)
    apart = replay_apart(job.model_copy(update={"backbone": backbone}), gpu)
    assert max(apart) < (5e-2 if precision == "bfloat16" else 1e-2)


def test_that_comparison_sees_another_step(make_job, monkeypatch):
    job = make_job("baseline", epochs=3, image_size=32, weights="scratch")
    assert max(replay_apart(job, torch.device("cpu"))) == 0
    record = Step._record

    def with_another_rate(step, epoch):
        replay = record(step, epoch)
        return lambda: (step._rate.mul_(1.1), replay())

    monkeypatch.setattr(Step, "_record", with_another_rate)
    assert max(replay_apart(job, torch.device("cpu"))) > 5e-2


# One step's loss and gradient against plain eager float64: contiguous images, every gradient by autograd


def _loss_and_gradient(job, dtype, plain=False):
    model = networks.build(job.backbone, 20, job.inner_layer).to(dtype)
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0  # each dtype would draw its own
    images, labels = _images(3, job.image_size, dtype)
    if plain:
        images, model.pooled_linear_weight = images.contiguous(), lambda: None
        references.plain_modules(model)
    else:
        model.to(memory_format=torch.channels_last)
    _, terms = METHODS[job.method](model, images, labels, job, 0)
    loss = torch.stack(list(terms.values())).sum()
    loss.backward()
    return loss.item(), torch.cat([p.grad.double().flatten() for p in model.parameters()])


def _distance(a, b):
    return ((a - b).norm() / b.norm()).item()


@pytest.mark.parametrize("backbone", quick_first(BACKBONES))
@pytest.mark.parametrize("method", PAPER_METHODS)
def test_layout_and_closed_form_change_nothing(method, backbone, make_job):
    size = 32 if backbone in CIFAR_FAMILY else 64
    job = make_job(method, image_size=size, precision="float64").model_copy(update={"backbone": backbone})
    (loss, gradient), (expected, plain) = (_loss_and_gradient(job, torch.float64, plain) for plain in (False, True))
    assert loss == pytest.approx(expected, rel=1e-12)
    assert _distance(gradient, plain) < 1e-6


# A network of random weights multiplies rounding errors with every layer, so the shallow one of each family is looked
# at; and in bfloat16 its loss alone: its gradient is 4% (ResNet-8) to 76% (the narrow VGG, ICASC) away from float64's.
@pytest.mark.parametrize("backbone", quick_first(["resnet18", "resnet8", "vgg11_narrow", "resnet18_narrow"]))
@pytest.mark.parametrize("method", PAPER_METHODS)
def test_precisions_agree_with_float64(method, backbone, make_job):
    job = make_job(method, image_size=64, precision="float64").model_copy(update={"backbone": backbone})
    expected, plain = _loss_and_gradient(job, torch.float64, plain=True)
    loss, gradient = _loss_and_gradient(job.model_copy(update={"precision": "float32"}), torch.float32)
    assert loss == pytest.approx(expected, rel=1e-4)
    assert _distance(gradient, plain) < 1e-3
    loss, _ = _loss_and_gradient(job.model_copy(update={"precision": "bfloat16"}), torch.float32)
    assert loss == pytest.approx(expected, rel=2e-2)


def _terms_by_vjp(model, images, labels, job):
    """ICASC's terms with the inner layer's gradient by `torch.func.vjp`: another road to the same second order. The
    model's BatchNorm must keep no running statistics: in-place changes of what lies outside are not seen by `vjp`."""
    feat_inner = model.to_inner(images)

    def top(feat):
        feat_last = model.to_last(feat)
        return model.head(feat_last), feat_last

    logits, pull_back, feat_last = torch.func.vjp(top, feat_inner, has_aux=True)
    present, absent = baseline.trained_labels(labels, job, logits.shape[1])
    layers = [], []
    for cotangent in attention.cotangents(logits, present, absent, job.multi_label_target):
        last = icasc.last_gradient(model, feat_last, logits, cotangent, second_order=True)
        gradients = *pull_back(cotangent), last
        for maps, feat, gradient in zip(layers, (feat_inner, feat_last), gradients, strict=True):
            maps.append(attention.attention_map(feat, gradient, job.method.removeprefix("icasc-")))
    terms = {"classification": baseline.classification_loss(logits, labels, job)}
    return terms | icasc.terms_of_maps(*layers, present, absent, job)


@pytest.mark.parametrize("backbone", quick_first(["resnet18", "resnet8", "resnet18_narrow", "resnet50_narrow"]))
@pytest.mark.parametrize("method", PAPER_METHODS[1:])
def test_the_second_order_by_vjp_is_the_one_by_autograd(method, backbone, make_job):
    """The gradient through dY/dF twice: by autograd.grad(create_graph=True), and with torch.func.vjp as a function."""
    job = make_job(method, image_size=64, precision="float64", attention_weight=1.0)
    job = job.model_copy(update={"backbone": backbone})
    loss, gradient = _loss_and_gradient(job, torch.float64)
    model = references.plain_modules(networks.build(backbone, 20).double())
    torch.func.replace_all_batch_norm_modules_(model)
    terms = _terms_by_vjp(model, *_images(3, 64, torch.float64), job)
    torch.stack(list(terms.values())).sum().backward()
    assert sum(terms.values()).item() == pytest.approx(loss, rel=1e-12)
    assert _distance(torch.cat([p.grad.flatten() for p in model.parameters()]), gradient) < 1e-9


# Batches


def test_pixels_on_the_device_give_the_batches_that_reading_gives(cache):
    job = grid.load("cifar100").jobs("mini", {"limit_train": 50, "flip": True}, {"method": ["baseline"]})[0]
    pixels, _ = loop.open_splits(job, loop.Execution(None, None, cache, "cpu", 1))
    chosen = batches.training_subset(job, len(pixels))
    draws = batches.Draws(job, 0, chosen, len(pixels))
    view = batches.View.of(job, pixels, chosen, torch.device("cpu"))
    assert view.resident is None
    resident = dataclasses.replace(view, resident=torch.from_numpy(np.array(pixels.array)))
    pairs = list(zip(*(batches.of_epoch(job, v, pixels, draws, 0) for v in (view, resident)), strict=True))
    assert [(len(labels), *rest) for (_, labels, *rest), _ in pairs] == [(32, 1.0, 32), (18, 1.0, 18)]
    for (images, labels, *_), (its_images, its_labels, *_) in pairs:
        assert torch.equal(images, its_images)
        assert torch.equal(labels, its_labels)


def test_channels_are_normalised_by_the_values_that_are_given():
    """ImageNet's typed out are the bits of `imagenet`; others are (x / 255 - mean) / std."""
    pixels = np.random.default_rng(0).integers(0, 256, (5, 6, 7, 3), np.uint8)
    images = data.ImageSet(("a", "b"), tuple("12345"), pixels, np.arange(5) % 2)
    stored = data.Pixels(images, 6, "none", pixels)

    def seen(normalisation):
        asked = {"normalisation": normalisation, "method": "baseline"}
        job = grid.load("caltech256").jobs("mini", asked)[0]
        return batches.View.of(job, stored, np.arange(5), torch.device("cpu")).plain(pixels)

    values = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}
    assert torch.equal(seen(values), seen("imagenet"))
    mean, std = [0.5, 0.25, 0.125], [0.2, 0.3, 0.4]
    expected = (pixels / 255 - np.array(mean)) / np.array(std)
    ours = seen({"mean": mean, "std": std}).permute(0, 2, 3, 1)
    assert np.allclose(ours.numpy(), expected, atol=1e-5)


def test_crops_are_cut_where_they_were_drawn():
    pixels = np.random.default_rng(0).integers(0, 256, (5, 6, 7, 3), np.uint8)
    offsets = np.array([[0, 0], [4, 4], [2, 2], [1, 3], [3, 0]])
    view = batches.View(batches.MEAN, batches.STD, 2)
    padded = torch.nn.functional.pad(view.plain(pixels), [2] * 4)
    for image, whole, (y, x) in zip(view(pixels, np.zeros(5, bool), offsets), padded, offsets, strict=True):
        assert torch.equal(image, whole[:, y : y + 6, x : x + 7])
