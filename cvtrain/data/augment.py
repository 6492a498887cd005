"""Augmentation of whole uint8 batches on their device, each image from its own random draws.

Knows nothing of loaders, models or normalisation. The draws of an image depend on (seed, epoch, index) alone: not on
its batch, not on the device, not on the number of workers, not on what was drawn before.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

import torch
import torch.nn.functional as F
from torch import Tensor

from cvtrain.data.draws import Draws
from cvtrain.data.images import Preprocessing
from cvtrain.errors import ConfigError

(
    _FLIP,
    _CROP_Y,
    _CROP_X,
    _CUT_Y,
    _CUT_X,
    _ROTATE,
    _SHIFT_Y,
    _SHIFT_X,
    _SCALE,
    _BRIGHTNESS,
    _CONTRAST,
    _SATURATION,
    _ERASE,
    _ERASE_AREA,
    _ERASE_RATIO,
    _ERASE_Y,
    _ERASE_X,
    _MIX_WEIGHT,
    _MIX_Y,
    _MIX_X,
) = range(20)


@dataclass(frozen=True)
class Mixture:
    """A batch whose images are each mixed from two.

    Args:
        images: `(B, C, H, W)`, any dtype.
        labels: int64 `(B,)`, of the first image of each pair.
        other_labels: int64 `(B,)`, of the second.
        weight: float32 `(B,)`, the share of the first in `[0, 1]`.
    """

    images: Tensor
    labels: Tensor
    other_labels: Tensor
    weight: Tensor


@dataclass(frozen=True)
class Augment:
    """Random variation of training images; every part is off by default.

    Args:
        crop_padding: Pixels of padding before a random crop of the original size.
        crop_fill: What the padding shows: `reflect` (the image mirrored) or `zeros`.
        flip: `none`, `random` (half of the images) or `alternating` (a random half in even epochs, the other half
            in odd ones, so that two epochs show every image both ways. Source: Jordan 2024, arXiv 2404.00498).
        cutout: Side of one square filled with the mean of the image, in pixels.
        rotate: Largest rotation, in degrees.
        shift: Largest shift, as a share of the side.
        scale: Largest change of scale, as a share.
        color: Largest change of brightness, contrast and saturation, as a share.
        erase: Chance of one rectangle filled with the mean. Source: Zhong et al. 2020, arXiv 1708.04896.
        mixup: Alpha of the Beta distribution of mixing weights; 0 is off.
        cutmix: Alpha of the Beta distribution of kept areas; 0 is off.
    """

    crop_padding: int = 0
    crop_fill: str = "reflect"
    flip: str = "none"
    cutout: int = 0
    rotate: float = 0.0
    shift: float = 0.0
    scale: float = 0.0
    color: float = 0.0
    erase: float = 0.0
    mixup: float = 0.0
    cutmix: float = 0.0

    def __call__(self, images: Tensor, draws: Draws) -> Tensor:
        """Varies a batch.

        Args:
            images: uint8 `(B, C, H, W)`.
            draws: The random numbers of these images.

        Returns:
            uint8 `(B, C, H, W)`, channels-last in memory when `images` is.
        """
        if self.crop_padding:
            images = crop(images, draws, padding=self.crop_padding, fill=self.crop_fill)
        if self.rotate or self.shift or self.scale:
            images = move(images, draws, rotate=self.rotate, shift=self.shift, scale=self.scale)
        if self.flip != "none":
            images = flip(images, draws, alternating=self.flip == "alternating")
        if self.color:
            images = recolor(images, draws, strength=self.color)
        if self.cutout:
            images = cutout(images, draws, side=self.cutout)
        if self.erase:
            images = erase(images, draws, chance=self.erase)
        return images

    def check_suits(self, preprocessing: Preprocessing) -> None:
        """Refuses, for points, what has a meaning only where pixels have neighbours and a range: all but mixup.

        Raises:
            ConfigError: With each part that is on.
        """
        neutral = Augment()
        names = [part.name for part in fields(Augment) if part.name not in ("crop_fill", "mixup")]
        if preprocessing.is_point:
            problems = [
                f"augment.{name}={getattr(self, name)} has no meaning for points, which are no pictures"
                for name in names
                if getattr(self, name) != getattr(neutral, name)
            ]
            if problems:
                raise ConfigError(problems, hint="type augment=none")

    @property
    def mixes(self) -> bool:
        """Whether `mix` does anything."""
        return bool(self.mixup or self.cutmix)

    def mix(self, images: Tensor, labels: Tensor, draws: Draws) -> Mixture:
        """Mixes each image with the one before it in the batch (the order of a batch is random already).

        Args:
            images: float `(B, C, H, W)`, normalised.
            labels: int64 `(B,)`.
            draws: The random numbers of these images.
        """
        alpha = self.mixup or self.cutmix
        weight = _beta(alpha, draws.uniform(_MIX_WEIGHT))
        other, other_labels = images.roll(1, 0), labels.roll(1, 0)
        if self.mixup:
            share = weight.view(-1, 1, 1, 1).to(images.dtype)
            return Mixture(images * share + other * (1 - share), labels, other_labels, weight)
        height, width = images.shape[-2:]
        side = (1 - weight).sqrt()
        box = _rectangles(
            height, width, side * height, side * width, draws.uniform(_MIX_Y), draws.uniform(_MIX_X), clip=True
        )
        weight = 1 - box.flatten(1).float().mean(1)
        return Mixture(torch.where(box, other, images), labels, other_labels, weight)


def _beta(alpha: float, uniform: Tensor) -> Tensor:
    """Beta(alpha, alpha) variates from uniform ones, by the inverse of the distribution function."""
    if alpha == 1:
        return uniform
    from scipy.special import betaincinv

    values = betaincinv(alpha, alpha, uniform.double().cpu().numpy())
    return torch.from_numpy(values).float().to(uniform.device)


def flip(images: Tensor, draws: Draws, *, alternating: bool = False) -> Tensor:
    """Mirrors a random half of the images left to right."""
    if alternating:
        first = Draws(draws.seed, 0, draws.indices).uniform(_FLIP) < 0.5
        mirrored = first ^ bool(draws.epoch % 2)
    else:
        mirrored = draws.uniform(_FLIP) < 0.5
    if images.device.type != "cpu":  # counting the chosen ones would wait for the device
        return torch.where(mirrored.view(-1, 1, 1, 1), images.flip(-1), images)
    chosen = mirrored.nonzero().squeeze(1)
    # In the order of memory (B, H, W, C), and only the chosen half: five times faster than mirroring a view of all.
    pixels = images.permute(0, 2, 3, 1)
    return pixels.index_copy(0, chosen, pixels.index_select(0, chosen).flip(2)).permute(0, 3, 1, 2)


def crop(images: Tensor, draws: Draws, *, padding: int, fill: str = "reflect") -> Tensor:
    """Shifts each image by up to `padding` pixels both ways.

    Works on rows: a row of a crop is one stretch of memory of the padded image, so that an `index_select` over all
    possible rows moves whole rows instead of pixels.
    """
    batch, channels, height, width = images.shape
    padded = _pad(images.permute(0, 2, 3, 1), padding, fill)
    rows_per_image, pitch = height + 2 * padding, width + 2 * padding
    top = draws.integers(_CROP_Y, 2 * padding + 1)
    left = draws.integers(_CROP_X, 2 * padding + 1)
    first = (torch.arange(batch, device=images.device) * rows_per_image + top) * pitch + left
    starts = (first[:, None] + torch.arange(height, device=images.device) * pitch).flatten()
    num_starts = batch * rows_per_image * pitch - width + 1
    rows = padded.as_strided((num_starts, width * channels), (channels, 1)).index_select(0, starts)
    return rows.view(batch, height, width, channels).permute(0, 3, 1, 2)


def _pad(images: Tensor, padding: int, fill: str) -> Tensor:
    """Pads uint8 `(B, H, W, C)` on all sides (torch's reflecting pad knows no uint8)."""
    batch, height, width, channels = images.shape
    shape = (batch, height + 2 * padding, width + 2 * padding, channels)
    inner = slice(padding, padding + width)
    if fill == "zeros":
        padded = images.new_zeros(shape)
        padded[:, padding : padding + height, inner] = images
        return padded
    padded = images.new_empty(shape)
    padded[:, padding : padding + height, inner] = images
    for i in range(1, padding + 1):  # each image line is mirrored into the border, nearest first
        padded[:, :, padding - i] = padded[:, :, padding + _reflected(i, width)]
        padded[:, :, padding + width - 1 + i] = padded[:, :, padding + width - 1 - _reflected(i, width)]
    for i in range(1, padding + 1):
        padded[:, padding - i] = padded[:, padding + _reflected(i, height)]
        padded[:, padding + height - 1 + i] = padded[:, padding + height - 1 - _reflected(i, height)]
    return padded


def _reflected(distance: int, size: int) -> int:
    """How far inside the border the mirror image of a pixel `distance` outside lies."""
    if size == 1:
        return 0
    period = 2 * (size - 1)
    distance %= period
    return distance if distance < size else period - distance


def move(images: Tensor, draws: Draws, *, rotate: float, shift: float, scale: float) -> Tensor:
    """Rotates, shifts and scales each image about its centre; what enters from outside repeats the border."""
    angle = draws.uniform(_ROTATE, -rotate, rotate) * (math.pi / 180)
    zoom = 1 / draws.uniform(_SCALE, 1 - scale, 1 + scale)
    # In the coordinates of grid_sample a side is 2 long.
    shift_x, shift_y = draws.uniform(_SHIFT_X, -shift, shift) * 2, draws.uniform(_SHIFT_Y, -shift, shift) * 2
    cos, sin = angle.cos() * zoom, angle.sin() * zoom
    height, width = images.shape[-2:]
    top = torch.stack([cos, -sin * (height / width), shift_x], 1)
    bottom = torch.stack([sin * (width / height), cos, shift_y], 1)
    grid = F.affine_grid(torch.stack([top, bottom], 1), list(images.shape), align_corners=False)
    moved = F.grid_sample(images.float(), grid, padding_mode="border", align_corners=False)
    return _to_uint8(moved).contiguous(memory_format=torch.channels_last)  # grid_sample changes the order


def recolor(images: Tensor, draws: Draws, *, strength: float) -> Tensor:
    """Changes brightness, contrast and, of colour images, saturation, in this order."""

    def factor(name: int) -> Tensor:
        return draws.uniform(name, 1 - strength, 1 + strength).view(-1, 1, 1, 1)

    pixels = images.float() * factor(_BRIGHTNESS)
    mean = pixels.mean((1, 2, 3), keepdim=True)
    pixels = mean + (pixels - mean) * factor(_CONTRAST)
    if images.shape[1] == 3:
        weights = pixels.new_tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)  # luma of ITU-R BT.601
        grey = (pixels * weights).sum(1, keepdim=True)
        pixels = grey + (pixels - grey) * factor(_SATURATION)
    return _to_uint8(pixels)


def cutout(images: Tensor, draws: Draws, *, side: int) -> Tensor:
    """Fills one square of each image with its mean colour; the square's centre lies anywhere."""
    height, width = images.shape[-2:]
    size = torch.full_like(draws.indices, side, dtype=torch.float32)
    box = _rectangles(height, width, size, size, draws.uniform(_CUT_Y), draws.uniform(_CUT_X), clip=True)
    return torch.where(box, _mean_color(images), images)


def erase(images: Tensor, draws: Draws, *, chance: float) -> Tensor:
    """Fills, with a given chance, one rectangle of 2 to 20 % of the area with the mean colour."""
    height, width = images.shape[-2:]
    area = draws.uniform(_ERASE_AREA, 0.02, 0.2) * height * width
    ratio = (draws.uniform(_ERASE_RATIO, -1, 1) * math.log(3.3)).exp()
    tall, wide = (area * ratio).sqrt(), (area / ratio).sqrt()
    box = _rectangles(height, width, tall, wide, draws.uniform(_ERASE_Y), draws.uniform(_ERASE_X), clip=False)
    chosen = (draws.uniform(_ERASE) < chance).view(-1, 1, 1, 1)
    return torch.where(box & chosen, _mean_color(images), images)


def _rectangles(height: int, width: int, tall: Tensor, wide: Tensor, y: Tensor, x: Tensor, *, clip: bool) -> Tensor:
    """bool `(B, 1, H, W)`, true inside one rectangle per image.

    `tall` and `wide` are sizes in pixels, `(B,)`; `y` and `x` place it, 0..1: its centre over the whole image when
    `clip` (parts may fall outside), else so that all of it lies inside.
    """

    def inside(length: int, size: Tensor, place: Tensor) -> Tensor:
        size = size.round().clamp(max=length)
        low = (place * length).floor() - (size / 2).floor() if clip else (place * (length - size + 1)).floor()
        low = low[:, None]
        pixel = torch.arange(length, device=size.device)
        return (pixel >= low) & (pixel < low + size[:, None])

    return (inside(height, tall, y)[:, :, None] & inside(width, wide, x)[:, None, :])[:, None]


def _mean_color(images: Tensor) -> Tensor:
    return _to_uint8(images.float().mean((2, 3), keepdim=True))


def _to_uint8(pixels: Tensor) -> Tensor:
    return pixels.round().clamp_(0, 255).to(torch.uint8)
