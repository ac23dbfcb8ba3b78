"""The convolution's second derivative is PyTorch's; values and first gradient are the same bits on a CPU.

On a GPU the library may choose other kernels for gradients that are asked for one at a time, so all is held to
float64's there.
"""

import pytest
import torch
from torch import Tensor, nn

from benchmark.methods import convolution, models
from benchmark.methods.convolution import TwiceDifferentiableConv2d

# in, out, kernel, stride, padding, dilation, groups, bias. Channels are multiples of 8: with 6, the weight's gradient
# of a 1 x 1 convolution of stride 2 in channels_last is wrong at random in PyTorch 2.13's own, on a CPU of AVX2.
SHAPES = {
    "3 x 3": (8, 16, 3, 1, 1, 1, 1, False),
    "of stride 2, whose last column is left over": (8, 16, 3, 2, 1, 1, 1, False),
    "1 x 1 of stride 2": (8, 16, 1, 2, 0, 1, 1, False),
    "with bias": (8, 16, 3, 1, 1, 1, 1, True),
    "dilated, in groups": (8, 16, (3, 1), 1, (2, 0), 2, 2, False),
}


def _both(shape: str, dtype: torch.dtype) -> list[nn.Conv2d]:
    made = []
    for kind in (nn.Conv2d, TwiceDifferentiableConv2d):
        torch.manual_seed(1)
        made.append(kind(*SHAPES[shape]).to(torch.float64 if dtype == torch.float64 else torch.float32))
    return made


def _draw(shape: tuple[int, ...], dtype: torch.dtype, seed: int, layout: torch.memory_format) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randn(shape, generator=generator, dtype=torch.float64)
    return drawn.to(dtype).contiguous(memory_format=layout)


def _inputs(module: nn.Conv2d, dtype: torch.dtype, layout: torch.memory_format) -> list[Tensor]:
    """x, g (of the output's shape) and v (of x's)."""
    x = _draw((4, 8, 8, 6), dtype, 0, layout)
    with torch.no_grad():
        out = module(x.to(module.weight.dtype)).shape
    return [x, _draw(tuple(out), dtype, 1, layout), _draw(tuple(x.shape), dtype, 2, layout)]


def _first(module: nn.Conv2d, x: Tensor, g: Tensor) -> tuple[Tensor, ...]:
    with torch.autocast(x.device.type, dtype=torch.bfloat16, enabled=x.dtype == torch.bfloat16):
        y = module(x)
    return y, *torch.autograd.grad(y, [x, *module.parameters()], g)


def _second(module: nn.Conv2d, x: Tensor, g: Tensor, v: Tensor) -> tuple[Tensor, ...]:
    with torch.autocast(x.device.type, dtype=torch.bfloat16, enabled=x.dtype == torch.bfloat16):
        y = module(x)
    (u,) = torch.autograd.grad(y, x, g, create_graph=True)
    return torch.autograd.grad(u, [g, module.weight], v)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", SHAPES)
def test_values_and_gradient_are_the_same_bits(shape, dtype, layout):
    plain, ours = _both(shape, dtype)
    x, g, _ = _inputs(plain, dtype, layout)
    found, expected = _first(ours, x.requires_grad_(), g), _first(plain, x, g)
    assert len(found) == len(expected) == (4 if "bias" in shape else 3)
    for mine, theirs in zip(found, expected, strict=True):
        assert torch.equal(mine, theirs)


# Relative distance from float64's. In bfloat16 the inputs and the weights are rounded already.
@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, 1e-13), (torch.float32, 1e-5), (torch.bfloat16, 2e-2)]
)
@pytest.mark.parametrize("shape", SHAPES)
def test_both_derivatives_are_pytorch_s(shape, dtype, tolerance, device):
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    plain, ours = _both(shape, torch.float64)[0], _both(shape, dtype)[1]
    drawn = _inputs(ours, dtype, torch.channels_last)
    wide = [t.double().requires_grad_() for t in drawn]
    with torch.no_grad():
        for mine, theirs in zip(ours.parameters(), plain.parameters(), strict=True):
            theirs.copy_(mine.double())
    ours = ours.to(device)
    near = [t.to(device).requires_grad_() for t in drawn]
    for derivative in (_first, _second):
        given = 2 if derivative is _first else 3
        for mine, theirs in zip(derivative(ours, *near[:given]), derivative(plain, *wide[:given]), strict=True):
            assert ((mine.cpu().double() - theirs).norm() / theirs.norm()).item() < tolerance


@pytest.mark.parametrize("shape", SHAPES)
def test_second_derivative_equals_finite_differences(shape):
    _, ours = _both(shape, torch.float64)
    x, g = (t[:1].requires_grad_() for t in _inputs(ours, torch.float64, torch.contiguous_format)[:2])
    weight = ours.weight.detach().clone().requires_grad_()
    assert torch.autograd.gradgradcheck(
        lambda x, w: torch.func.functional_call(ours, {"weight": w}, (x,)), (x, weight), (g,)
    )


def test_among_features_alone_no_weight_has_a_gradient_and_afterwards_it_has():
    _, ours = _both("3 x 3", torch.float64)
    x, g, _ = _inputs(ours, torch.float64, torch.contiguous_format)
    y = ours(x.requires_grad_())
    with convolution.of_features_alone():
        (u,) = torch.autograd.grad(y, x, g, create_graph=True)
        with pytest.raises(RuntimeError, match="not have been used"):
            torch.autograd.grad(y, ours.weight, g, retain_graph=True)
    (u * u).sum().backward(retain_graph=True)
    second = ours.weight.grad.clone()
    y.backward(g)
    assert second.norm() > 0
    assert not torch.equal(second, ours.weight.grad)
    with pytest.raises(ZeroDivisionError), convolution.of_features_alone():
        raise ZeroDivisionError
    (again,) = torch.autograd.grad(ours(x), ours.weight, g)
    assert again.norm() > 0


def test_what_it_has_no_form_for_is_pytorch_s_own():
    for changed in ({"padding_mode": "reflect", "padding": 1}, {"padding": "same"}):
        made = []
        for kind in (nn.Conv2d, TwiceDifferentiableConv2d):
            torch.manual_seed(1)
            made.append(kind(8, 16, 3, dtype=torch.float64, **changed))
        x = _draw((4, 8, 8, 6), torch.float64, 0, torch.contiguous_format).requires_grad_()
        plain, ours = (module(x) for module in made)
        assert torch.equal(plain, ours)
        assert type(ours.grad_fn) is type(plain.grad_fn)


@pytest.mark.parametrize(("backbone", "count"), [("resnet18", 5), ("resnet20", 6), ("vgg11_narrow", 2)])
def test_it_is_where_maps_are_differentiated_through(backbone, count):
    model = models.build(backbone, 5, seed=0)
    found = [name for name, m in model.net.named_modules() if isinstance(m, TwiceDifferentiableConv2d)]
    assert len(found) == count
    assert all(name.startswith(("layer4", "layer3", "features.16", "features.18")) for name in found), found
