"""BatchNorm for layers that are differentiated twice.

PyTorch writes BatchNorm's second derivative out as some twenty elementwise operations on whole feature maps. In closed
form it is the first derivative's own kernel and one weighted sum:

    first derivative    u = gamma / s (g - mean(g) - h mean(g h)),   h = (x - mean(x)) / s
    of <v, u> by g      gamma / s (v - mean(v) - h mean(v h)), the first derivative of v
    of <v, u> by x      -gamma / s^2 (v mean(g h) + g mean(v h) + h (k - 2 mean(g h) mean(v h))
                                      - mean(v) mean(g h) - mean(g) mean(v h))
    of <v, u> by gamma  M / s k,   k = mean(v g) - mean(v) mean(g) - mean(g h) mean(v h)

with means over the M positions of a channel, in all images, s^2 the channel's variance + eps, g the gradient of the
output and v that of u. The kernel gives mean(g), mean(g h), mean(v) and mean(v h) as gradients of bias and weight.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable

_backward = torch.ops.aten.native_batch_norm_backward


class TwiceDifferentiableBatchNorm2d(nn.BatchNorm2d):
    """torch.nn.BatchNorm2d: the same values and gradient, on the CPU bit for bit; the second derivative faster."""

    def forward(self, x_BKHW: Tensor) -> Tensor:
        """Normalise as torch.nn.BatchNorm2d does.

        Raises:
            ValueError: As PyTorch's, of one value a channel in training: it has no variance.
        """
        if not (self.training and x_BKHW.requires_grad):
            return super().forward(x_BKHW)
        # An assertion, since it changes no number: the runs there are were trained by the same code (store/code.py).
        assert _has_a_variance(x_BKHW)
        assert self.num_batches_tracked is not None
        self.num_batches_tracked.add_(1)
        return _BatchNorm.apply(
            x_BKHW, self.weight, self.bias, self.running_mean, self.running_var, self.momentum, self.eps
        )


def _has_a_variance(x_BKHW: Tensor) -> bool:
    """True, or PyTorch's own ValueError: native_batch_norm would make NaN of one value a channel."""
    F._verify_batch_size(x_BKHW.size())  # type: ignore[attr-defined]
    return True


class _BatchNorm(Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, running_mean: Tensor, running_var: Tensor, momentum: float,
        eps: float,
    ) -> Tensor:  # fmt: skip
        out, mean, inverse_std = torch.native_batch_norm(
            x, weight, bias, running_mean, running_var, True, momentum, eps
        )
        ctx.save_for_backward(x, weight, mean, inverse_std)
        ctx.eps = eps
        return out

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        dx, dweight, dbias = _BatchNormBackward.apply(g, *ctx.saved_tensors, ctx.eps)
        return dx, dweight, dbias, None, None, None, None


class _BatchNormBackward(Function):
    @staticmethod
    def forward(
        ctx: Any, g: Tensor, x: Tensor, weight: Tensor, mean: Tensor, inverse_std: Tensor, eps: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        u, dweight, dbias = _backward(g, x, weight, None, None, mean, inverse_std, True, eps, [True] * 3)
        ctx.save_for_backward(g, x, weight, mean, inverse_std, dweight, dbias)
        ctx.eps = eps
        ctx.set_materialize_grads(False)
        return u, dweight, dbias

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, v: Tensor | None, of_dweight: Tensor | None, of_dbias: Tensor | None) -> tuple[Any, ...]:
        """Of the gradient by x alone: that of weight and bias is in no attention map."""
        if of_dweight is not None or of_dbias is not None:
            raise NotImplementedError("the gradient of BatchNorm's weight and bias is differentiated once only")
        if v is None:
            return None, None, None, None, None, None
        g, x, weight, mean, inverse_std, sum_gh, sum_g = ctx.saved_tensors
        by_g, sum_vh, sum_v = _backward(v, x, weight, None, None, mean, inverse_std, True, ctx.eps, [True] * 3)
        num = x.numel() // x.shape[1]
        gh, vh, g_mean, v_mean = (total / num for total in (sum_gh, sum_vh, sum_g, sum_v))
        k = (v * g).sum((0, 2, 3), dtype=mean.dtype) / num - v_mean * g_mean - gh * vh
        factor = -weight * inverse_std**2
        of_v, of_g, of_x = factor * gh, factor * vh, factor * (k - 2 * gh * vh) * inverse_std
        rest = -factor * (v_mean * gh + g_mean * vh) - of_x * mean
        by_x = torch.addcmul(_wide(rest), v, _wide(of_v)).addcmul_(g, _wide(of_g)).addcmul_(x, _wide(of_x))
        return by_g, by_x.to(x.dtype), num * inverse_std * k, None, None, None


def _wide(per_channel_K: Tensor) -> Tensor:
    return per_channel_K[None, :, None, None]
