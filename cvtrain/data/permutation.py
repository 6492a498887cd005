"""One fixed order of pixels for all images: what is left to a network when nothing is next to its neighbour any more.

Knows images as batches, not where they come from.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from cvtrain.data.images import Preprocessing
from cvtrain.errors import ConfigError
from cvtrain.seeding import permutation


def with_permutation(preprocessing: Preprocessing, seed: int | None) -> Preprocessing:
    """The same preprocessing with pixels in the order of `seed`.

    Raises:
        ConfigError: There is a single pixel only.
    """
    if seed is not None and preprocessing.is_point:
        raise ConfigError(f"data.permute_pixels={seed} has no effect: these images have a single pixel")
    return replace(preprocessing, permute_pixels=seed)


def permutation_of(preprocessing: Preprocessing, *, device: torch.device) -> PermutePixels | None:
    """What brings pixels into the order of training; None where they stay in place."""
    seed = preprocessing.permute_pixels
    return None if seed is None else PermutePixels(seed, image_size=preprocessing.image_size).to(device)


class PermutePixels(nn.Module):
    """Moves the pixels of every image to new places, the same for all images; the channels of a pixel stay together.

    Source: NYU Deep Learning (LeCun & Canziani, 2020), practicum 3.

    Args:
        seed: Of the order.
        image_size: Height and width of the images in pixels.
    """

    def __init__(self, seed: int, *, image_size: int) -> None:
        super().__init__()
        self.register_buffer("order", permutation(image_size**2, seed, "pixels"), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Pixel `order[i]` of `(B, C, H, W)`, any dtype, becomes pixel `i`, counted row by row; channels-last."""
        return self._moved(images, self.order)

    def inverse(self, images: Tensor) -> Tensor:
        """Puts every pixel of `(B, C, H, W)` back."""
        return self._moved(images, torch.argsort(self.order))

    @staticmethod
    def _moved(images: Tensor, order: Tensor) -> Tensor:
        batch, channels, height, width = images.shape
        pixels = images.permute(0, 2, 3, 1).reshape(batch, height * width, channels)
        return pixels.index_select(1, order).view(batch, height, width, channels).permute(0, 3, 1, 2)
