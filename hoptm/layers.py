"""Three layers with formulas of their own: the numbers of the library's, and a quicker second derivative.

Trajectory matching differentiates through training steps, so each layer's gradient is differentiated again. For group
norm and 2 x 2 pooling the library's second derivative costs more than the convolutions around them. On a GPU that of a convolution is
itself a convolution with kernels of an image's size, for which there is no quick algorithm; ours keeps to the three of a first derivative.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

EPS = 1e-5
"""Added to the variance, as in the released networks."""


def group_norm(images: Float[Tensor, "n c h w"], weight: Float[Tensor, "c"], bias: Float[Tensor, "c"], groups: int) -> Float[Tensor, "n c h w"]:
    """Group normalisation (Wu and He, 2018): biased variance over each group of an image, eps 1e-5, affine.

    The values of `F.group_norm`; reverse mode may be nested twice, a third derivative or forward mode is refused.
    """
    normalised: Tensor = _Normalise.apply(images, weight, bias, groups)[0]  # type: ignore[no-untyped-call]
    return normalised


class _Normalise(torch.autograd.Function):
    @staticmethod
    def forward(images: Tensor, weight: Tensor, bias: Tensor, groups: int) -> tuple[Tensor, Tensor, Tensor]:
        count, channels, height, width = images.shape
        return torch.native_group_norm(images.contiguous(), weight, bias, count, channels, height * width, groups, EPS)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
        images, weight, _, ctx.groups = inputs
        _, mean, rate = output
        ctx.mark_non_differentiable(mean, rate)
        ctx.save_for_backward(images, weight, mean, rate)

    @staticmethod
    def backward(ctx: Any, upper: Tensor, *_: Any) -> tuple[Tensor, Tensor, Tensor, None]:
        grads: tuple[Tensor, Tensor, Tensor] = _NormaliseGradient.apply(upper, *ctx.saved_tensors, ctx.groups)  # type: ignore[no-untyped-call]
        return *grads, None


class _NormaliseGradient(torch.autograd.Function):
    """The gradient of group norm as a map of its own: (g, x, w) -> (dx, dw, db), and that map's gradient.

    With z = (x - mean) r, r = 1 / sqrt(variance + eps) and h = w g, means taken over a group:
    dx = r (h - mean h - z mean(h z)),  dw = sum g z,  db = sum g.
    """

    @staticmethod
    def forward(upper: Tensor, images: Tensor, weight: Tensor, mean: Tensor, rate: Tensor, groups: int) -> tuple[Tensor, Tensor, Tensor]:
        count, channels, height, width = images.shape
        backward = torch.ops.aten.native_group_norm_backward
        grads: tuple[Tensor, Tensor, Tensor] = backward(
            upper.contiguous(), images.contiguous(), mean, rate, weight, count, channels, height * width, groups, [True] * 3
        )
        return grads

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        *tensors, ctx.groups = inputs
        ctx.save_for_backward(*tensors)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, u: Tensor, u_weight: Tensor, u_bias: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None, None]:
        """Gradient of <u, dx> + <u_weight, dw> + <u_bias, db>; every full-sized result is a sum of u, g and z with
        one coefficient a channel of each image, so the coefficients (n, groups, channels a group) come first."""
        saved: tuple[Tensor, ...] = ctx.saved_tensors
        g, x, weight, mean, rate = saved
        count, channels, height, width = x.shape
        groups: int = ctx.groups
        each = (groups, channels // groups)
        r = rate.view(count, groups, 1)
        w, v, b = weight.view(each), u_weight.view(each), u_bias.view(each)

        def summed(value: Tensor) -> Tensor:
            return value.sum((2, 3)).view(count, *each)

        def averaged(sums: Tensor) -> Tensor:
            return sums.sum(2, keepdim=True) / (height * width * each[1])

        def spread(value: Tensor) -> Tensor:
            return value.expand(count, *each).reshape(count, channels, 1, 1)

        z = torch.addcmul(spread(-mean.view_as(r) * r), x, spread(r))
        uz, ug, gz, u_sum, g_sum = summed(u * z), summed(u * g), summed(g * z), summed(u), summed(g)
        u_mean, uz_mean, hz_mean = averaged(u_sum), averaged(uz), averaged(w * gz)
        for_g = torch.addcmul(spread(b - r * w * u_mean), u, spread(r * w)).addcmul_(z, spread(v - r * w * uz_mean))
        for_weight = (r * (ug - u_mean * g_sum - uz_mean * gz)).sum(0).reshape(channels)
        # Through z with r held: q = on_u u + on_g g. Through r: the last two terms of on_z.
        on_u, on_g = -r * hz_mean, v - r * uz_mean * w
        q_mean, qz_mean = averaged(on_u * u_sum + on_g * g_sum), averaged(on_u * uz + on_g * gz)
        on_z = -r * qz_mean - r * r * (averaged(w * ug) - u_mean * averaged(w * g_sum) - uz_mean * hz_mean)
        for_x = torch.addcmul(spread(-r * q_mean), u, spread(r * on_u)).addcmul_(g, spread(r * on_g)).addcmul_(z, spread(on_z))
        return for_g, for_x, for_weight, None, None, None


def halve(images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c a b"]:
    """Average pooling over 2 x 2 pixels; an odd last row or column is dropped.

    On a CPU as one product with a constant matrix, which is several times quicker than the pooling kernel.
    """
    if images.device.type != "cpu":
        return F.avg_pool2d(images, 2)
    count, channels, height, width = images.shape
    rows, columns = height // 2, width // 2
    pairs = images[:, :, : 2 * rows, : 2 * columns].reshape(-1, 4 * columns)
    pooling = 0.25 * torch.eye(columns, dtype=images.dtype).repeat_interleave(2, 0).repeat(2, 1)
    pooled: Tensor = pairs @ pooling
    return pooled.view(count, channels, rows, columns)


def convolve(images: Float[Tensor, "n c h w"], weight: Float[Tensor, "d e 3 3"], bias: Float[Tensor, "d"] | None, groups: int = 1) -> Float[Tensor, "n d h w"]:
    """A 3 x 3 convolution of stride 1 with a border of zeros: the values of `F.conv2d`, differentiable to any order.

    With `groups` above 1 channels are shared out, and `weight` has c / groups input channels.
    """
    product: Tensor = _Convolve.apply(images, weight, groups)  # type: ignore[no-untyped-call]
    return product if bias is None else product + bias[:, None, None]


class _Convolve(torch.autograd.Function):
    """y = x * w. With G the transpose for x and W that for w: <u, x * w> = <G(u, w), x> = <W(u, x), w>."""

    @staticmethod
    def forward(images: Tensor, weight: Tensor, groups: int) -> Tensor:
        return torch.conv2d(images, weight, None, 1, 1, 1, groups)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        *tensors, ctx.groups = inputs
        ctx.save_for_backward(*tensors)

    @staticmethod
    def backward(ctx: Any, upper: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        (images, weight), groups = ctx.saved_tensors, ctx.groups
        return *_both(ctx, lambda: _ForImages.apply(upper, weight, groups), lambda: _ForWeight.apply(upper, images, groups)), None  # type: ignore[no-untyped-call]


class _ForImages(torch.autograd.Function):
    @staticmethod
    def forward(upper: Tensor, weight: Tensor, groups: int) -> Tensor:
        unread = upper.new_empty((len(upper), groups * weight.shape[1], *upper.shape[2:]))
        return _transposed(upper, unread, weight, groups, 0)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        *tensors, ctx.groups = inputs
        ctx.save_for_backward(*tensors)

    @staticmethod
    def backward(ctx: Any, along: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        (upper, weight), groups = ctx.saved_tensors, ctx.groups
        return *_both(ctx, lambda: _Convolve.apply(along, weight, groups), lambda: _ForWeight.apply(upper, along, groups)), None  # type: ignore[no-untyped-call]


class _ForWeight(torch.autograd.Function):
    @staticmethod
    def forward(upper: Tensor, images: Tensor, groups: int) -> Tensor:
        unread = upper.new_empty((upper.shape[1], images.shape[1] // groups, 3, 3))
        return _transposed(upper, images, unread, groups, 1)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        *tensors, ctx.groups = inputs
        ctx.save_for_backward(*tensors)

    @staticmethod
    def backward(ctx: Any, along: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        (upper, images), groups = ctx.saved_tensors, ctx.groups
        return *_both(ctx, lambda: _Convolve.apply(images, along, groups), lambda: _ForImages.apply(upper, along, groups)), None  # type: ignore[no-untyped-call]


def _transposed(upper: Tensor, images: Tensor, weight: Tensor, groups: int, wanted: int) -> Tensor:
    mask = [wanted == 0, wanted == 1, False]
    found: Tensor = torch.ops.aten.convolution_backward(upper, images, weight, None, [1, 1], [1, 1], [1, 1], False, [0, 0], groups, mask)[wanted]
    return found


def _both(ctx: Any, first: Callable[[], Tensor], second: Callable[[], Tensor]) -> tuple[Tensor | None, Tensor | None]:
    """The two gradients, those that are asked for."""
    one, two = ctx.needs_input_grad[:2]
    return first() if one else None, second() if two else None
