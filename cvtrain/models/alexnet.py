"""AlexNet, with the classic stem for photographs and a 3x3 stem for thumbnails.

Does not know local response normalisation or the two-GPU grouping of the first paper.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from torch import nn

from cvtrain.models.mlp import hidden_layers
from cvtrain.models.pooling import average_pool

LARGE_IMAGE_SIZE = 64


def alexnet(
    *,
    num_classes: int,
    in_channels: int,
    image_size: int,
    hidden: Sequence[int] | None = None,
    dropout: float = 0.5,
) -> nn.Module:
    """AlexNet; at 224x224 colour pixels and 1,000 classes the 61.1 M parameters of the 2014 form.

    Maps float images `(B, in_channels, image_size, image_size)` to logits `(B, num_classes)`. From 64 px on the stem is
    the 11x11 convolution of stride 4; below, a 3x3 of stride 1 and pools of 2, so that 32 px end in a 4x4 map and 8 px
    still fit. The last map is averaged to at most 6x6.

    Args:
        num_classes: Length of the logits.
        in_channels: Channels of the images.
        image_size: Height and width of the images, in pixels.
        hidden: Widths of the fully connected layers; None: [4096, 4096] from 64 px on, [1024, 1024] below.
        dropout: Share of their outputs that are zeroed in training, 0..1.

    Raises:
        ConfigError: A width below 1, a dropout outside 0..1, or dropout without a hidden layer.

    Source: Krizhevsky, Sutskever & Hinton 2012; channel counts of Krizhevsky 2014 ("One weird trick", 1404.5997).
    """
    is_large = image_size >= LARGE_IMAGE_SIZE
    if hidden is None:
        hidden = (4096, 4096) if is_large else (1024, 1024)
    map_size = _large_map_size(image_size) if is_large else image_size // 8
    pool, pooled_size = average_pool(map_size, at_most=6)
    num_features = 256 * pooled_size**2
    return nn.Sequential(
        OrderedDict(
            features=_large_features(in_channels) if is_large else _small_features(in_channels),
            pool=pool,
            flatten=nn.Flatten(),
            hidden=hidden_layers(num_features, hidden, dropout=dropout),
            head=nn.Linear(hidden[-1] if hidden else num_features, num_classes),
        )
    )


def _large_features(in_channels: int) -> nn.Sequential:
    # Pooling stands before ReLU: the two commute, and ReLU then sees a quarter of the elements.
    return nn.Sequential(
        nn.Conv2d(in_channels, 64, kernel_size=11, stride=4, padding=2),
        nn.MaxPool2d(3, stride=2),
        nn.ReLU(inplace=True),
        nn.Conv2d(64, 192, kernel_size=5, padding=2),
        nn.MaxPool2d(3, stride=2),
        nn.ReLU(inplace=True),
        *_last_convolutions(),
        nn.MaxPool2d(3, stride=2),
        nn.ReLU(inplace=True),
    )


def _small_features(in_channels: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(in_channels, 64, kernel_size=3, padding=1),
        nn.MaxPool2d(2),
        nn.ReLU(inplace=True),
        nn.Conv2d(64, 192, kernel_size=3, padding=1),
        nn.MaxPool2d(2),
        nn.ReLU(inplace=True),
        *_last_convolutions(),
        nn.MaxPool2d(2),
        nn.ReLU(inplace=True),
    )


def _last_convolutions() -> tuple[nn.Module, ...]:
    return (
        nn.Conv2d(192, 384, kernel_size=3, padding=1),
        nn.ReLU(inplace=True),
        nn.Conv2d(384, 256, kernel_size=3, padding=1),
        nn.ReLU(inplace=True),
        nn.Conv2d(256, 256, kernel_size=3, padding=1),
    )


def _large_map_size(image_size: int) -> int:
    map_size = (image_size + 2 * 2 - 11) // 4 + 1
    for _ in range(3):
        map_size = (map_size - 3) // 2 + 1
    return map_size
