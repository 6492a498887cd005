"""Mean and standard deviation of the channels, for normalisation.

Knows image stores, not models.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from cvtrain.data.images import ImageStore
from cvtrain.seeding import permutation

MAX_IMAGES = 2_000
"""Images looked at: enough for three digits of the mean, few enough to decode at every start."""


@dataclass(frozen=True)
class Statistics:
    """Per channel, in units of 0..1.

    Args:
        mean: One number per channel.
        std: One number per channel, greater than 0.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]


def measure_statistics(
    images: ImageStore, indices: Tensor, *, also: Callable[[Tensor], object] = lambda _images: None
) -> Statistics:
    """Mean and standard deviation over all training images, or over a random `MAX_IMAGES` of more.

    The sample depends on the indices alone, so that images in memory and in files give the same figures. It is random
    because every n-th image may belong to the same classes.

    Args:
        images: All of them.
        indices: int64 `(N,)`, those that are trained on.
        also: Is shown the sample too, some images at a time, since reading it may be slow.
    """
    sample = indices[permutation(len(indices), "statistics")[:MAX_IMAGES]]
    channels = images.shape[1]
    total = torch.zeros(channels, dtype=torch.int64)
    squares = torch.zeros(channels, dtype=torch.int64)
    for chunk in sample.split(500):
        read = images.read(chunk)
        also(read)
        pixels = read.permute(1, 0, 2, 3).flatten(1)
        # Of uint8 in integers: the sums are exact whatever the order.
        pixels = pixels.double() if pixels.is_floating_point() else pixels.to(torch.int64)
        total = total + pixels.sum(1)
        squares = squares + (pixels * pixels).sum(1)
    count = len(sample) * images.shape[2] * images.shape[3]
    mean = total.double() / count
    variance = (squares.double() / count - mean**2).clamp_min(0)
    std = (variance.sqrt() / 255).clamp_min(1 / 255)  # images of one colour would divide by zero
    return Statistics(tuple((mean / 255).tolist()), tuple(std.tolist()))


class Normalize(nn.Module):
    """Images to float32 with mean 0 and standard deviation 1 per channel.

    Args:
        statistics: Of the training images.
    """

    def __init__(self, statistics: Statistics) -> None:
        super().__init__()
        std = torch.tensor(statistics.std)
        self.register_buffer("factor", 1 / (255 * std), persistent=False)
        self.register_buffer("offset", -torch.tensor(statistics.mean) / std, persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Normalises uint8 or float32 `(B, C, H, W)`, 255 being 1.0, to float32, channels-last; `images` stay."""
        batch, channels, height, width = images.shape
        # One row of pixels at a time: broadcasting over the 3 innermost numbers alone is many times slower.
        rows = images.permute(0, 2, 3, 1).reshape(batch * height, width * channels).to(torch.float32, copy=True)
        rows.mul_(self.factor.repeat(width)).add_(self.offset.repeat(width))
        return rows.view(batch, height, width, channels).permute(0, 3, 1, 2)
