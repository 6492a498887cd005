"""Pools: the average before classic fully connected layers, and a quick 2x2 maximum of few channels.

Does not know which net it serves.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def average_pool(map_size: int, *, at_most: int) -> tuple[nn.Module, int]:
    """A pool of `(B, C, map_size, map_size)` to at most `(B, C, at_most, at_most)`, and the size that it gives.

    A smaller map stays as it is: blowing it up, as adaptive pooling to a fixed size does, would only feed copies of
    the same numbers to the next layer (49 of each for a VGG on 32 px). Where the sizes divide, the pool is a plain
    one, whose gradient is deterministic on a GPU; that of adaptive pooling is not.
    """
    if map_size <= at_most:
        return nn.Identity(), max(map_size, 1)
    if map_size % at_most == 0:
        return nn.AvgPool2d(map_size // at_most), at_most
    return nn.AdaptiveAvgPool2d(at_most), at_most


class FewChannelsMaxPool2d(nn.MaxPool2d):
    """A 2x2 max pool that is quick for a handful of channels on a CPU; everywhere else torch's own.

    torch's kernel works through the channels of one window at a time, and its vectors stay nearly empty when there
    are six: LeNet's first pool alone takes a quarter of a training step, more than any convolution. Here whole rows
    of pixels are compared. Values are the same; where several pixels of a window share the maximum, another of them
    may get the gradient.
    """

    MAX_CHANNELS = 8

    def __init__(self) -> None:
        super().__init__(2)

    def forward(self, images: Tensor) -> Tensor:
        """`(B, C, H, W)` to `(B, C, H // 2, W // 2)`."""
        _, channels, height, width = images.shape
        suits = channels <= self.MAX_CHANNELS and height % 2 == 0 and width % 2 == 0
        if not suits or images.device.type != "cpu" or torch.compiler.is_compiling():
            return F.max_pool2d(images, 2)
        return _PairwiseMax.apply(images)


class _PairwiseMax(torch.autograd.Function):
    """The maximum of row pairs, then of column pairs, both over memory in the order (B, H, W, C)."""

    @staticmethod
    def forward(ctx, images: Tensor) -> Tensor:
        batch, channels, height, width = images.shape
        rows = images.permute(0, 2, 3, 1).reshape(batch * height // 2, 2, width * channels)
        tallest = torch.maximum(rows[:, 0], rows[:, 1])
        columns = tallest.view(-1, 2, channels)
        largest = torch.maximum(columns[:, 0], columns[:, 1])
        ctx.save_for_backward(rows, tallest, largest)
        ctx.shape = images.shape
        return largest.view(batch, height // 2, width // 2, channels).permute(0, 3, 1, 2)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> Tensor:
        rows, tallest, largest = ctx.saved_tensors
        batch, channels, height, width = ctx.shape
        gradient = gradient.permute(0, 2, 3, 1).reshape(-1, channels)
        gradient = _give_to_larger(gradient, tallest.view(-1, 2, channels), largest).view(tallest.shape)
        gradient = _give_to_larger(gradient, rows, tallest)
        return gradient.view(batch, height, width, channels).permute(0, 3, 1, 2)


def _give_to_larger(gradient: Tensor, pairs: Tensor, larger: Tensor) -> Tensor:
    """Hands `(N, C)` gradients to the larger of `(N, 2, C)` pairs, the first of equals."""
    # The gradient of a ReLU at (larger - first) is the gradient where the second is larger, else 0: one fast kernel
    # where comparing and choosing would take two that are ten times slower.
    second = torch.ops.aten.threshold_backward(gradient, larger - pairs[:, 0], 0)
    return torch.stack((gradient - second, second), 1)
