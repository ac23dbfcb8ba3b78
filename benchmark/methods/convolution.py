"""Convolution for layers that are differentiated twice.

The gradient by the input, u = conv^T(g, w), is linear in g and in w, so its own derivatives are the first's kernels:

    of <v, u> by g    conv(v, w), the convolution itself
    of <v, u> by w    what the weight's gradient is, with v in the input's place

PyTorch takes the second as a convolution with a filter as large as the feature map, in another layout.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable

_backward = torch.ops.aten.convolution_backward
_weights_too = True


@contextmanager
def of_features_alone() -> Iterator[None]:
    """Here gradients by features are wanted and none by weights. A Function in Python isn't told which gradients are
    asked for, as PyTorch's own are, and would make them all."""
    global _weights_too
    _weights_too = False
    try:
        yield
    finally:
        _weights_too = True


class TwiceDifferentiableConv2d(nn.Conv2d):
    """torch.nn.Conv2d: the same values and gradient, on the CPU bit for bit; the second derivative faster."""

    def forward(self, x_BKHW: Tensor) -> Tensor:
        plain = self.padding_mode != "zeros" or isinstance(self.padding, str)
        if plain or not (self.training and x_BKHW.requires_grad):
            return super().forward(x_BKHW)
        parameters = [self.weight] if self.bias is None else [self.weight, self.bias]
        if torch.is_autocast_enabled(x_BKHW.device.type):
            dtype = torch.get_autocast_dtype(x_BKHW.device.type)
            x_BKHW, parameters = x_BKHW.to(dtype), [p.to(dtype) for p in parameters]
        how = (self.stride, self.padding, self.dilation, False, (0, 0), self.groups)
        return _Convolution.apply(x_BKHW, parameters[0], None if self.bias is None else parameters[1], how)


class _Convolution(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, how: tuple[Any, ...]) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.how, ctx.bias_sizes = how, None if bias is None else list(bias.shape)
        return torch.convolution(x, weight, bias, *how)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        (x, weight), dweight, dbias = ctx.saved_tensors, None, None
        if _weights_too:
            mask = [False, True, ctx.bias_sizes is not None]
            _, dweight, dbias = _backward(g, x, weight, ctx.bias_sizes, *ctx.how, mask)
        return _ByInput.apply(g, weight, x, ctx.how), dweight, dbias, None


class _ByInput(Function):
    @staticmethod
    def forward(ctx: Any, g: Tensor, weight: Tensor, x: Tensor, how: tuple[Any, ...]) -> Tensor:
        ctx.save_for_backward(g, weight)
        ctx.how = how
        return _backward(g, x, weight, None, *how, [True, False, False])[0]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, v: Tensor) -> tuple[Tensor | None, ...]:
        g, weight = ctx.saved_tensors
        by_g = torch.convolution(v, weight, None, *ctx.how) if ctx.needs_input_grad[0] else None
        _, by_weight, _ = _backward(g, v, weight, None, *ctx.how, [False, ctx.needs_input_grad[1], False])
        return by_g, by_weight, None, None
