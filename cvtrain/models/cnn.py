"""Small convolutional nets of teaching and of the first years: seconds to minutes of training on a CPU.

Does not know nets deeper than a handful of layers; `vgg.py` and `resnet.py` do.

All of them pool *before* the ReLU. The maximum of a window and ReLU commute (both are monotone), so the function and
its gradient are those of the textbook order, and ReLU sees a quarter of the elements.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from torch import nn

from cvtrain.errors import ConfigError
from cvtrain.models.pooling import FewChannelsMaxPool2d


def simple_cnn(*, num_classes: int, in_channels: int, image_size: int) -> nn.Module:
    """Two 5x5 convolutions of 6 channels and a hidden layer of 50: the rival of `fc2`.

    Maps float images `(B, in_channels, image_size, image_size)` to logits `(B, num_classes)`; 6,422 parameters at
    28x28 grey pixels and 10 classes.

    Raises:
        ValueError: Images below 16 px.

    Source: NYU Deep Learning (LeCun & Canziani, 2020), practicum 3, `CNN`.
    """
    map_size = _after_conv_and_pool(_after_conv_and_pool(image_size))
    return nn.Sequential(
        OrderedDict(
            features=nn.Sequential(
                nn.Conv2d(in_channels, 6, kernel_size=5),
                FewChannelsMaxPool2d(),
                nn.ReLU(),
                nn.Conv2d(6, 6, kernel_size=5),
                FewChannelsMaxPool2d(),
                nn.ReLU(),
            ),
            flatten=nn.Flatten(),
            hidden=nn.Sequential(nn.Linear(6 * map_size**2, 50), nn.ReLU()),
            head=nn.Linear(50, num_classes),
        )
    )


def lenet(*, num_classes: int, in_channels: int, image_size: int) -> nn.Module:
    """LeNet-5 with today's ReLU and max pooling.

    Maps float images `(B, in_channels, image_size, image_size)` to logits `(B, num_classes)`; 62,006 parameters at
    32x32 colour pixels and 10 classes.

    Raises:
        ValueError: Images below 16 px.

    Source: LeCun, Bottou, Bengio & Haffner 1998, section II.B (there: tanh, trained subsampling, 32x32 pixels).
    """
    map_size = _after_conv_and_pool(_after_conv_and_pool(image_size))
    return nn.Sequential(
        OrderedDict(
            features=nn.Sequential(
                nn.Conv2d(in_channels, 6, kernel_size=5),
                FewChannelsMaxPool2d(),
                nn.ReLU(),
                nn.Conv2d(6, 16, kernel_size=5),
                FewChannelsMaxPool2d(),
                nn.ReLU(),
            ),
            flatten=nn.Flatten(),
            hidden=nn.Sequential(
                nn.Linear(16 * map_size**2, 120),
                nn.ReLU(),
                nn.Linear(120, 84),
                nn.ReLU(),
            ),
            head=nn.Linear(84, num_classes),
        )
    )


def conv_pool(*, num_classes: int, in_channels: int, image_size: int) -> nn.Module:
    """Three unpadded 5x5 convolutions of 20, 50 and 50 channels, batch normalisation after the pooling.

    Maps float images `(B, in_channels, image_size, image_size)` to logits `(B, num_classes)`. The last pool keeps a
    ragged edge, so the 1x1 map of 32-pixel images passes through it unchanged.

    The convolutions keep their bias: it acts before the ReLU, and normalisation only follows after that.

    Raises:
        ValueError: Images below 32 px.
    """
    map_size = _after_conv_and_pool(_after_conv_and_pool(image_size)) - 4
    if map_size < 1:
        raise ValueError(f"the third 5x5 convolution finds a map of {map_size + 4} px")
    return nn.Sequential(
        OrderedDict(
            features=nn.Sequential(
                nn.Conv2d(in_channels, 20, kernel_size=5),
                nn.MaxPool2d(2),
                nn.ReLU(),
                nn.BatchNorm2d(20),
                nn.Conv2d(20, 50, kernel_size=5),
                nn.MaxPool2d(2),
                nn.ReLU(),
                nn.BatchNorm2d(50),
                nn.Conv2d(50, 50, kernel_size=5),
                nn.MaxPool2d(2, ceil_mode=True),
                nn.ReLU(),
            ),
            flatten=nn.Flatten(),
            head=nn.Linear(50 * ((map_size + 1) // 2) ** 2, num_classes),
        )
    )


def block_cnn(
    *,
    num_classes: int,
    in_channels: int,
    image_size: int,
    widths: Sequence[int] = (64, 128, 256, 512),
    kernel_size: int = 3,
    dropout: float = 0.0,
) -> nn.Module:
    """Blocks of convolution, batch normalisation, ReLU and pooling, then one linear layer on the last map.

    Maps float images `(B, in_channels, image_size, image_size)` to logits `(B, num_classes)`. Every block halves the
    map, so images need `2 ** len(widths)` pixels.

    Args:
        num_classes: Length of the logits.
        in_channels: Channels of the images.
        image_size: Height and width of the images, in pixels.
        widths: Channels of each block.
        kernel_size: Height and width of the padded convolutions, in pixels; odd.
        dropout: Share of the flattened features that are zeroed in training, 0..1.

    Raises:
        ConfigError: No block, a width below 1, an even kernel, or a dropout outside 0..1.
        ValueError: Images that are too small for so many blocks.
    """
    if not widths or any(width < 1 for width in widths):
        raise ConfigError(f"model.widths={list(widths)} must hold one positive number of channels per block")
    if kernel_size < 1 or kernel_size % 2 == 0:
        raise ConfigError(f"model.kernel_size={kernel_size} must be odd, so that padding keeps the map's size")
    if not 0 <= dropout < 1:
        raise ConfigError(f"model.dropout={dropout:g} is not in the range from 0 to below 1")
    map_size = image_size // 2 ** len(widths)
    if map_size < 1:
        raise ValueError(f"{len(widths)} pools of 2 leave nothing of {image_size} px")
    features = nn.Sequential()
    for index, (num_in, num_out) in enumerate(zip((in_channels, *widths), widths, strict=False), start=1):
        features.add_module(f"block{index}", _conv_bn_pool(num_in, num_out, kernel_size))
    return nn.Sequential(
        OrderedDict(
            features=features,
            flatten=nn.Flatten(),
            dropout=nn.Dropout(dropout),
            head=nn.Linear(widths[-1] * map_size**2, num_classes),
        )
    )


def _conv_bn_pool(num_in: int, num_out: int, kernel_size: int) -> nn.Sequential:
    return nn.Sequential(
        OrderedDict(
            conv=nn.Conv2d(num_in, num_out, kernel_size, padding=kernel_size // 2, bias=False),
            bn=nn.BatchNorm2d(num_out),
            pool=nn.MaxPool2d(2),
            relu=nn.ReLU(),
        )
    )


def _after_conv_and_pool(map_size: int) -> int:
    """Height and width after an unpadded 5x5 convolution and a 2x2 pool."""
    if map_size < 6:
        raise ValueError(f"a 5x5 convolution and a pool of 2 leave nothing of a map of {map_size} px")
    return (map_size - 4) // 2
