"""Residual nets of 18, 34 and 50 layers, with a stem for photographs and one for thumbnails.

Does not know pretrained weights; `library.torchvision` and `library.timm` do.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from torch import Tensor, nn

from cvtrain.errors import ConfigError

LARGE_IMAGE_SIZE = 64


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut: `(B, num_in, H, W)` to `(B, width, H / stride, W / stride)`.

    Source: He et al. 2016 (1512.03385), figure 5 left, shortcut B.
    """

    expansion = 1

    def __init__(self, num_in: int, width: int, *, stride: int) -> None:
        super().__init__()
        self.conv1 = _conv(num_in, width, kernel_size=3, stride=stride)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = _conv(width, width, kernel_size=3)
        self.bn2 = nn.BatchNorm2d(width)
        self.shortcut = _shortcut(num_in, width, stride=stride)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """The block's output for the map `x`."""
        residual = self.relu(self.bn1(self.conv1(x)))
        residual = self.bn2(self.conv2(residual))
        return self.relu(residual + self.shortcut(x))

    @property
    def last_norm(self) -> nn.BatchNorm2d:
        """The normalisation that ends the residual branch."""
        return self.bn2


class Bottleneck(nn.Module):
    """A 3x3 convolution between two 1x1: `(B, num_in, H, W)` to `(B, 4 * width, H / stride, W / stride)`.

    The stride sits in the 3x3, where no pixel is skipped.

    Source: He et al. 2016 (1512.03385), figure 5 right; stride of the widespread version 1.5.
    """

    expansion = 4

    def __init__(self, num_in: int, width: int, *, stride: int) -> None:
        super().__init__()
        num_out = self.expansion * width
        self.conv1 = _conv(num_in, width, kernel_size=1)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = _conv(width, width, kernel_size=3, stride=stride)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = _conv(width, num_out, kernel_size=1)
        self.bn3 = nn.BatchNorm2d(num_out)
        self.shortcut = _shortcut(num_in, num_out, stride=stride)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """The block's output for the map `x`."""
        residual = self.relu(self.bn1(self.conv1(x)))
        residual = self.relu(self.bn2(self.conv2(residual)))
        residual = self.bn3(self.conv3(residual))
        return self.relu(residual + self.shortcut(x))

    @property
    def last_norm(self) -> nn.BatchNorm2d:
        """The normalisation that ends the residual branch."""
        return self.bn3


def resnet(
    block: type[BasicBlock] | type[Bottleneck],
    blocks_per_stage: Sequence[int],
    *,
    num_classes: int,
    in_channels: int,
    image_size: int,
    stem: str,
    width: int,
    zero_init_residual: bool,
) -> nn.Module:
    """A residual net of four stages.

    Maps float images `(B, in_channels, image_size, image_size)` to logits `(B, num_classes)`, of any size.

    Args:
        block: What the stages are made of.
        blocks_per_stage: Four numbers of blocks.
        num_classes: Length of the logits.
        in_channels: Channels of the images.
        image_size: Height and width of the images, in pixels.
        stem: `large` is a 7x7 convolution of stride 2 and a pool (a quarter of the size is left), `small` a 3x3 of
            stride 1 and no pool; `auto` takes the large one from 64 px on.
        width: Channels of the first stage; each further stage doubles them.
        zero_init_residual: Start each residual branch at zero, so that the net starts as its shortcuts.

    Raises:
        ConfigError: An unknown stem, or a width below 1.

    Source: He et al. 2016 (1512.03385), table 1, and section 4.2 for small images; zero initialisation: Goyal et al.
        2017 (1706.02677), section 5.1.
    """
    if stem not in ("auto", "small", "large"):
        raise ConfigError(f"model.stem={stem} is unknown", hint="take auto, small or large")
    if width < 1:
        raise ConfigError(f"model.width={width} must be 1 or more")
    is_large = stem == "large" or (stem == "auto" and image_size >= LARGE_IMAGE_SIZE)
    layers = OrderedDict(stem=_stem(in_channels, width, is_large=is_large))
    num_in = width
    for index, num_blocks in enumerate(blocks_per_stage):
        stage = nn.Sequential()
        for position in range(num_blocks):
            stride = 2 if index > 0 and position == 0 else 1
            stage.append(block(num_in, width * 2**index, stride=stride))
            num_in = block.expansion * width * 2**index
        layers[f"stage{index + 1}"] = stage
    layers.update(pool=nn.AdaptiveAvgPool2d(1), flatten=nn.Flatten(), head=nn.Linear(num_in, num_classes))
    model = nn.Sequential(layers)
    if zero_init_residual:
        for module in model.modules():
            if isinstance(module, block):
                nn.init.zeros_(module.last_norm.weight)
    return model


def _stem(in_channels: int, width: int, *, is_large: bool) -> nn.Sequential:
    if not is_large:
        return nn.Sequential(_conv(in_channels, width, kernel_size=3), nn.BatchNorm2d(width), nn.ReLU(inplace=True))
    return nn.Sequential(
        _conv(in_channels, width, kernel_size=7, stride=2),
        nn.BatchNorm2d(width),
        # Pooling stands before ReLU: the two commute, and ReLU then sees a quarter of the elements.
        nn.MaxPool2d(3, stride=2, padding=1),
        nn.ReLU(inplace=True),
    )


def _shortcut(num_in: int, num_out: int, *, stride: int) -> nn.Module:
    if stride == 1 and num_in == num_out:
        return nn.Identity()
    return nn.Sequential(_conv(num_in, num_out, kernel_size=1, stride=stride), nn.BatchNorm2d(num_out))


def _conv(num_in: int, num_out: int, *, kernel_size: int, stride: int = 1) -> nn.Conv2d:
    # No bias: the normalisation that always follows would subtract it again.
    return nn.Conv2d(num_in, num_out, kernel_size, stride=stride, padding=kernel_size // 2, bias=False)


def resnet18(
    *,
    num_classes: int,
    in_channels: int,
    image_size: int,
    stem: str = "auto",
    width: int = 64,
    zero_init_residual: bool = False,
) -> nn.Module:
    """ResNet-18; arguments and errors as `resnet`."""
    return resnet(
        BasicBlock,
        (2, 2, 2, 2),
        num_classes=num_classes,
        in_channels=in_channels,
        image_size=image_size,
        stem=stem,
        width=width,
        zero_init_residual=zero_init_residual,
    )


def resnet34(
    *,
    num_classes: int,
    in_channels: int,
    image_size: int,
    stem: str = "auto",
    width: int = 64,
    zero_init_residual: bool = False,
) -> nn.Module:
    """ResNet-34; arguments and errors as `resnet`."""
    return resnet(
        BasicBlock,
        (3, 4, 6, 3),
        num_classes=num_classes,
        in_channels=in_channels,
        image_size=image_size,
        stem=stem,
        width=width,
        zero_init_residual=zero_init_residual,
    )


def resnet50(
    *,
    num_classes: int,
    in_channels: int,
    image_size: int,
    stem: str = "auto",
    width: int = 64,
    zero_init_residual: bool = False,
) -> nn.Module:
    """ResNet-50; arguments and errors as `resnet`."""
    return resnet(
        Bottleneck,
        (3, 4, 6, 3),
        num_classes=num_classes,
        in_channels=in_channels,
        image_size=image_size,
        stem=stem,
        width=width,
        zero_init_residual=zero_init_residual,
    )
