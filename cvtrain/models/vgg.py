"""The VGG nets: stages of 3x3 convolutions between pools, with and without batch normalisation.

Does not know how to make the plain ones train: that is the initialisation's business (`init.py`).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from torch import nn

from cvtrain.models.mlp import hidden_layers
from cvtrain.models.pooling import average_pool

# Convolutions per stage (columns A, B, D and E of table 1 of the paper) and their channels.
CONVS_PER_STAGE = {11: (1, 1, 2, 2, 2), 13: (2, 2, 2, 2, 2), 16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}
STAGE_WIDTHS = (64, 128, 256, 512, 512)


def vgg(
    depth: int,
    *,
    batch_norm: bool,
    num_classes: int,
    in_channels: int,
    image_size: int,
    hidden: Sequence[int],
    dropout: float | None,
) -> nn.Module:
    """A VGG of `depth` layers.

    Maps float images `(B, in_channels, image_size, image_size)` to logits `(B, num_classes)`; five pools of 2, so
    images need 32 px.

    Args:
        depth: 11, 13, 16 or 19: the weight layers of the classic net, its three linear layers included.
        batch_norm: Normalise after each convolution, which then has no bias.
        num_classes: Length of the logits.
        in_channels: Channels of the images.
        image_size: Height and width of the images, in pixels.
        hidden: Widths of fully connected layers before the last one. Empty: global average pooling and one linear
            layer. [4096, 4096]: the classic head, on a map that is averaged to at most 7x7 (below 64 px that is 1x1,
            the same as global pooling; at 224 px it is the paper's 7x7).
        dropout: Share of the hidden layers' outputs that are zeroed in training; None: 0.5 with hidden layers.

    Raises:
        ConfigError: A width below 1, a dropout outside 0..1, or dropout without a hidden layer.

    Source: Simonyan & Zisserman 2015 (1409.1556), table 1; batch normalisation after Ioffe & Szegedy 2015 (1502.03167).
    """
    if dropout is None:
        dropout = 0.5 if hidden else 0.0
    if hidden:
        pool, pooled_size = average_pool(image_size // 2**5, at_most=7)
    else:
        pool, pooled_size = nn.AdaptiveAvgPool2d(1), 1
    num_features = STAGE_WIDTHS[-1] * pooled_size**2
    return nn.Sequential(
        OrderedDict(
            features=_features(CONVS_PER_STAGE[depth], in_channels=in_channels, batch_norm=batch_norm),
            pool=pool,
            flatten=nn.Flatten(),
            hidden=hidden_layers(num_features, hidden, dropout=dropout),
            head=nn.Linear(hidden[-1] if hidden else num_features, num_classes),
        )
    )


def _features(convs_per_stage: Sequence[int], *, in_channels: int, batch_norm: bool) -> nn.Sequential:
    layers: list[nn.Module] = []
    num_in = in_channels
    for num_convs, num_out in zip(convs_per_stage, STAGE_WIDTHS, strict=True):
        for index in range(num_convs):
            layers.append(nn.Conv2d(num_in, num_out, kernel_size=3, padding=1, bias=not batch_norm))
            if batch_norm:
                layers.append(nn.BatchNorm2d(num_out))
            # Pooling stands before ReLU: the two commute, and ReLU then sees a quarter of the elements.
            if index == num_convs - 1:
                layers.append(nn.MaxPool2d(2))
            layers.append(nn.ReLU(inplace=True))
            num_in = num_out
    return nn.Sequential(*layers)


def vgg11(
    *,
    num_classes: int,
    in_channels: int,
    image_size: int,
    hidden: Sequence[int] = (),
    dropout: float | None = None,
) -> nn.Module:
    """VGG-11: eight convolutions; arguments and errors as `vgg`."""
    return vgg(
        11,
        batch_norm=False,
        num_classes=num_classes,
        in_channels=in_channels,
        image_size=image_size,
        hidden=hidden,
        dropout=dropout,
    )


def vgg13(
    *,
    num_classes: int,
    in_channels: int,
    image_size: int,
    hidden: Sequence[int] = (),
    dropout: float | None = None,
) -> nn.Module:
    """VGG-13: ten convolutions; arguments and errors as `vgg`."""
    return vgg(
        13,
        batch_norm=False,
        num_classes=num_classes,
        in_channels=in_channels,
        image_size=image_size,
        hidden=hidden,
        dropout=dropout,
    )


def vgg16(
    *,
    num_classes: int,
    in_channels: int,
    image_size: int,
    hidden: Sequence[int] = (),
    dropout: float | None = None,
) -> nn.Module:
    """VGG-16: thirteen convolutions; arguments and errors as `vgg`."""
    return vgg(
        16,
        batch_norm=False,
        num_classes=num_classes,
        in_channels=in_channels,
        image_size=image_size,
        hidden=hidden,
        dropout=dropout,
    )


def vgg19(
    *,
    num_classes: int,
    in_channels: int,
    image_size: int,
    hidden: Sequence[int] = (),
    dropout: float | None = None,
) -> nn.Module:
    """VGG-19: sixteen convolutions; arguments and errors as `vgg`."""
    return vgg(
        19,
        batch_norm=False,
        num_classes=num_classes,
        in_channels=in_channels,
        image_size=image_size,
        hidden=hidden,
        dropout=dropout,
    )


def vgg11_bn(
    *,
    num_classes: int,
    in_channels: int,
    image_size: int,
    hidden: Sequence[int] = (),
    dropout: float | None = None,
) -> nn.Module:
    """VGG-11 with batch normalisation: eight convolutions; arguments and errors as `vgg`."""
    return vgg(
        11,
        batch_norm=True,
        num_classes=num_classes,
        in_channels=in_channels,
        image_size=image_size,
        hidden=hidden,
        dropout=dropout,
    )


def vgg13_bn(
    *,
    num_classes: int,
    in_channels: int,
    image_size: int,
    hidden: Sequence[int] = (),
    dropout: float | None = None,
) -> nn.Module:
    """VGG-13 with batch normalisation: ten convolutions; arguments and errors as `vgg`."""
    return vgg(
        13,
        batch_norm=True,
        num_classes=num_classes,
        in_channels=in_channels,
        image_size=image_size,
        hidden=hidden,
        dropout=dropout,
    )


def vgg16_bn(
    *,
    num_classes: int,
    in_channels: int,
    image_size: int,
    hidden: Sequence[int] = (),
    dropout: float | None = None,
) -> nn.Module:
    """VGG-16 with batch normalisation: thirteen convolutions; arguments and errors as `vgg`."""
    return vgg(
        16,
        batch_norm=True,
        num_classes=num_classes,
        in_channels=in_channels,
        image_size=image_size,
        hidden=hidden,
        dropout=dropout,
    )


def vgg19_bn(
    *,
    num_classes: int,
    in_channels: int,
    image_size: int,
    hidden: Sequence[int] = (),
    dropout: float | None = None,
) -> nn.Module:
    """VGG-19 with batch normalisation: sixteen convolutions; arguments and errors as `vgg`."""
    return vgg(
        19,
        batch_norm=True,
        num_classes=num_classes,
        in_channels=in_channels,
        image_size=image_size,
        hidden=hidden,
        dropout=dropout,
    )
