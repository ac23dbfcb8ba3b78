"""The closed form of BatchNorm's second derivative is PyTorch's; values and first gradient are the same bits on a CPU.

On a GPU PyTorch may choose cuDNN's kernels and ours are its own, so all is held to float64's there.
"""

import pytest
import torch
from torch import Tensor, nn

from benchmark.methods import models
from benchmark.methods.batch_norm import TwiceDifferentiableBatchNorm2d


def _both(dtype: torch.dtype) -> list[nn.BatchNorm2d]:
    made = []
    for kind in (nn.BatchNorm2d, TwiceDifferentiableBatchNorm2d):
        torch.manual_seed(1)
        module = kind(6).to(torch.float64 if dtype == torch.float64 else torch.float32)
        nn.init.normal_(module.weight)  # of either sign
        nn.init.normal_(module.bias)
        made.append(module)
    return made


def _draw(shape: tuple[int, ...], dtype: torch.dtype, seed: int, layout: torch.memory_format) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randn(shape, generator=generator, dtype=torch.float64) * 2 + 3
    return drawn.to(dtype).contiguous(memory_format=layout)


def _first(module: nn.Module, x: Tensor, g: Tensor) -> tuple[Tensor, ...]:
    y = module(x)
    return y, *torch.autograd.grad(y, [x, module.weight, module.bias], g)


def _second(module: nn.Module, x: Tensor, g: Tensor, v: Tensor) -> tuple[Tensor, ...]:
    (u,) = torch.autograd.grad(module(x), x, g, create_graph=True)
    return torch.autograd.grad(u, [x, g, module.weight], v)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_values_statistics_and_gradient_are_the_same_bits(dtype, layout):
    plain, ours = _both(dtype)
    x, g = (_draw((4, 6, 5, 3), dtype, seed, layout) for seed in (0, 1))
    for mine, theirs in zip(_first(ours, x.requires_grad_(), g), _first(plain, x, g), strict=True):
        assert torch.equal(mine, theirs)
    for name, buffer in plain.named_buffers():
        assert torch.equal(ours.get_buffer(name), buffer)
    assert torch.equal(ours.eval()(x), plain.eval()(x))


# Relative distance from float64's. In bfloat16 the inputs are rounded already; what is added is below their rounding.
@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, 1e-13), (torch.float32, 1e-5), (torch.bfloat16, 2e-2)]
)
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_both_derivatives_are_pytorch_s(layout, dtype, tolerance, device):
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    plain, ours = _both(torch.float64)[0], _both(dtype)[1].to(device)
    x, g, v = (_draw((4, 6, 5, 3), dtype, seed, layout) for seed in range(3))
    wide = [t.double().requires_grad_() for t in (x, g, v)]
    x, g, v = (t.to(device).requires_grad_() for t in (x, g, v))
    for derivative in (_first, _second):
        given = 2 if derivative is _first else 3
        expected = derivative(plain, *wide[:given])
        for mine, theirs in zip(derivative(ours, *(x, g, v)[:given]), expected, strict=True):
            assert ((mine.cpu().double() - theirs).norm() / theirs.norm()).item() < tolerance


def test_second_derivative_equals_finite_differences():
    _, ours = _both(torch.float64)
    x, g = (_draw((2, 6, 2, 3), torch.float64, seed, torch.contiguous_format).requires_grad_() for seed in (0, 1))
    assert torch.autograd.gradgradcheck(lambda x: ours(x), (x,), (g,))


def test_a_channel_that_is_constant():
    plain, ours = _both(torch.float64)
    x, g, v = (_draw((4, 6, 5, 3), torch.float64, seed, torch.channels_last) for seed in range(3))
    x[:, 2] = 1.5
    for mine, theirs in zip(
        *(_second(m, x.requires_grad_(), g.requires_grad_(), v) for m in (ours, plain)), strict=True
    ):
        assert torch.isfinite(mine).all()
        assert torch.allclose(mine, theirs, rtol=1e-10)


def test_what_is_differentiated_once_only_says_so():
    _, ours = _both(torch.float64)
    x = _draw((4, 6, 5, 3), torch.float64, 0, torch.channels_last).requires_grad_()
    (of_weight,) = torch.autograd.grad(ours(x).square().sum(), ours.weight, create_graph=True)
    with pytest.raises(NotImplementedError, match="once only"):
        of_weight.sum().backward()


@pytest.mark.parametrize(("backbone", "count"), [("resnet18", 5), ("resnet20", 6), ("vgg11_narrow", 0)])
def test_it_is_where_maps_are_differentiated_through(backbone, count):
    model = models.build(backbone, 5, seed=0)
    found = [name for name, m in model.net.named_modules() if isinstance(m, TwiceDifferentiableBatchNorm2d)]
    assert len(found) == count
    assert all(name.startswith(("layer4", "layer3")) for name in found)


@pytest.mark.parametrize("shape", [(1, 6, 1, 1), (1, 6, 1, 2), (2, 6, 1, 1), (1, 6, 3, 3)])
@pytest.mark.parametrize("leaf", [True, False], ids=["differentiated", "not differentiated"])
@pytest.mark.parametrize("training", [True, False])
def test_one_value_a_channel_is_refused_where_pytorch_refuses_it(shape, leaf, training):
    x, told = _draw(shape, torch.float32, 0, torch.contiguous_format).requires_grad_(leaf), []
    for module in _both(torch.float32):
        try:
            assert module.train(training)(x).isfinite().all()
            told.append("")
        except ValueError as error:
            told.append(str(error))
        assert all(buffer.isfinite().all() for buffer in module.buffers())
    assert told[0] == told[1]
    assert bool(told[0]) == (training and shape == (1, 6, 1, 1))
    assert not told[0] or "Expected more than 1 value per channel when training" in told[0]
