"""Batch normalisation by the statistics of the global batch, of which each process has a share.

Knows modules of torch that normalise; works on CPUs and GPUs alike. Names and values of a model's state stay as they
are, so that checkpoints fit any number of processes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.overrides import TorchFunctionMode

from cvtrain.engine.distributed.team import Team


class SharedStatistics:
    """Whether the batch normalisation of a model sees the images of all processes, or those of this one alone.

    Args:
        model: Its modules for batch normalisation are changed in place; those of libraries with a `forward` of their
            own too.
        team: Whose images are one batch.
    """

    def __init__(self, model: nn.Module, team: Team) -> None:
        self.team = team
        self._is_on = False
        for module in model.modules():
            if isinstance(module, _BatchNorm):
                module.forward = self._shared(module.forward)  # type: ignore[method-assign]

    @contextmanager
    def on(self, is_on: bool = True) -> Iterator[None]:
        """While this context lasts, modules in training mode take the statistics of all processes."""
        self._is_on = is_on
        try:
            yield
        finally:
            self._is_on = False

    def _shared(self, forward: Callable[..., Tensor]) -> Callable[..., Tensor]:
        @torch.compiler.disable  # the processes talk to each other inside
        def shared(*args: Any, **kwargs: Any) -> Tensor:
            with _SharedBatchNorm(self.team):
                return forward(*args, **kwargs)

        def chosen(*args: Any, **kwargs: Any) -> Tensor:
            return shared(*args, **kwargs) if self._is_on else forward(*args, **kwargs)

        return chosen


class _SharedBatchNorm(TorchFunctionMode):
    """Replaces `F.batch_norm` in training mode: what modules do around it (counting, momentum) stays theirs."""

    def __init__(self, team: Team) -> None:
        super().__init__()
        self.team = team

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is F.batch_norm and (kwargs or {}).get("training"):
            return shared_batch_norm(self.team, *args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))


def shared_batch_norm(
    team: Team,
    images: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    *,
    weight: Tensor | None,
    bias: Tensor | None,
    training: bool,
    momentum: float,
    eps: float,
) -> Tensor:
    """As `F.batch_norm` in training mode, over the images of all processes.

    Args:
        team: The processes.
        images: `(N, C, ...)`, floating point; N is at least 1 and may differ between processes.
        running_mean: `(C,)` or None; moved towards the mean in place.
        running_var: `(C,)` or None; moved towards the unbiased variance in place.
        weight: `(C,)` or None.
        bias: `(C,)` or None.
        training: True.
        momentum: How far the running figures move.
        eps: Added to the variance.

    Source: Ioffe & Szegedy 2015 (arXiv 1502.03167), algorithm 1; means and variances of parts are joined as Chan,
    Golub & LeVeque 1979, "Updating formulae and a pairwise algorithm for computing sample variances".
    """
    assert training, "without training nothing is shared"
    with torch.no_grad():
        mean, var = _local_statistics(images)
        count = images.numel() // images.shape[1]
        rows = team.gather(torch.cat([mean, var, mean.new_full((1,), count)]))
        means, variances, counts = rows.tensor_split([len(mean), 2 * len(mean)], dim=1)
        total = counts.sum()
        share = counts / total
        mean = (share * means).sum(0)
        var = (share * (variances + (means - mean).square())).sum(0)
        if running_mean is not None and running_var is not None:
            running_mean.lerp_(mean.to(running_mean.dtype), momentum)
            running_var.lerp_((var * (total / (total - 1))).to(running_var.dtype), momentum)
    return _Normalise.apply(team, images, weight, bias, mean, var, total, eps)


def _local_statistics(images: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and biased variance `(C,)` of the images of this process, float32 or float64.

    By torch's kernel for batch normalisation: on a CPU `var_mean` takes 30 times as long.
    """
    dtype = torch.float64 if images.dtype == torch.float64 else torch.float32
    scratch = torch.zeros(2, images.shape[1], dtype=dtype, device=images.device)
    mean, var = torch.batch_norm_update_stats(images, scratch[0], scratch[1], 0.0)
    return mean.to(dtype), var.to(dtype)


class _Normalise(torch.autograd.Function):
    """Normalises by given figures; its gradient knows that they are those of the images of all processes."""

    @staticmethod
    def forward(
        ctx: Any,
        team: Team,
        images: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        mean: Tensor,
        var: Tensor,
        total: Tensor,
        eps: float,
    ) -> Tensor:
        ctx.team, ctx.has_bias = team, bias is not None
        ctx.save_for_backward(images, weight, mean, (var + eps).rsqrt(), total)
        return F.batch_norm(images, mean, var, weight, bias, training=False, eps=eps)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        images, weight, mean, scale, total = ctx.saved_tensors
        shape = [1, -1] + [1] * (images.ndim - 2)
        # Of torch's backward pass the two sums alone: of the gradients, and of their products with (x - m) s.
        _, product_sum, gradient_sum = torch.ops.aten.native_batch_norm_backward(
            gradient, images, torch.ones_like(mean), None, None, mean, scale, True, 0.0, [False, True, True]
        )
        sums = torch.cat([gradient_sum, product_sum])
        ctx.team.sum(sums)
        all_gradient, all_product = (sums / total).chunk(2)
        # dx = w s (g - mean(g) - (x - m) s mean(g (x - m) s)), by the chain rule of Ioffe & Szegedy
        factor = scale if weight is None else scale * weight
        slope = factor * scale * all_product
        offset = slope * mean - factor * all_gradient
        grad_images = torch.addcmul(offset.view(shape), images.to(mean.dtype), -slope.view(shape))
        grad_images = grad_images.addcmul_(gradient.to(mean.dtype), factor.view(shape)).to(images.dtype)
        grad_weight = None if weight is None else product_sum.to(weight.dtype)
        grad_bias = gradient_sum if ctx.has_bias else None
        return None, grad_images, grad_weight, grad_bias, None, None, None, None
