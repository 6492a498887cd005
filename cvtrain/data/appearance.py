"""What pictures look like in a few figures, and which pictures look unlike those that a model was trained on.

Knows pixels and sizes, not models, files or where a picture comes from. A picture of other things than the classes may
look like any training image: what is caught here is another camera, another light, another crop, no photograph at all.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from cvtrain.data.images import Preprocessing

MIN_IMAGES = 50
"""Fewer training images say too little about what is usual."""

_WORDS = {
    "brightness": ("darker", "brighter"),
    "contrast": ("of less contrast", "of more contrast"),
    "detail": ("smoother", "noisier"),
    "detail_2": ("finer in detail", "coarser in detail"),
    "detail_4": ("finer in detail", "coarser in detail"),
    "ends": ("with less black and white", "with more black and white"),
    "skew": ("of a lighter ground", "of a darker ground"),
    "colour": ("of paler colours", "of stronger colours"),
    "red": ("less red", "redder"),
    "blue": ("less blue", "bluer"),
    "variety": ("of one tint", "of more tints"),
}
"""Every figure, and what a picture is when it lies below, or above, what training images show."""

_CONTRAST = list(_WORDS).index("contrast")
_NUM_GREY_FIGURES = 7
NUM_FIGURES = (_NUM_GREY_FIGURES, len(_WORDS))
"""Of a picture in grey, and in colour."""
_MAX_SIDE = 64  # of larger pictures every n-th pixel is looked at
_MIN_SIDE = 8
_GREY_BELOW = 1.0  # mean difference of a pixel's channels; a saved grey photograph has a little
_RARE = 0.005  # share of training images below which one grey picture is worth a word
_FAR_QUANTILE = 0.996
_LARGER, _SMALLER, _LONGER = 4.0, 0.5, 1.25
_MOSTLY_CUT = 2.0  # aspect ratio from which more than half of a picture is cut off


def looks_of(images: Tensor) -> Tensor | None:
    """The figures of each picture, float64 `(B, 7)` for grey and `(B, 11)` for RGB.

    Brightness and contrast; the differences between neighbours at three scales, each compared with the next wider;
    the share of black and white; the skewness of brightness; then strength, balance (red, blue) and variety of the
    colours, which are NaN for a picture without any.

    Args:
        images: uint8 `(B, C, H, W)`.

    Returns:
        None where there is nothing to measure: other than 1 or 3 channels, floats, less than 8 px.
    """
    if images.dtype != torch.uint8 or images.shape[1] not in (1, 3) or min(images.shape[2:]) < _MIN_SIDE:
        return None
    step = -(-max(images.shape[2:]) // _MAX_SIDE)
    pixels = images[..., ::step, ::step].contiguous().float()  # planes first: half of the time is saved
    luma = pixels.mean(1)
    brightness = luma.mean((1, 2))
    centred = luma - brightness[:, None, None]
    squares = centred * centred
    contrast = squares.mean((1, 2)).sqrt()
    figures, finer, scaled = [brightness, (contrast + 1).log()], contrast, luma[:, None]
    for _ in range(3):
        down, across = (_differences(scaled, dim) for dim in (2, 3))
        figures.append(((down + across + 1) / (finer + 1)).log())
        finer, scaled = down + across, F.avg_pool2d(scaled, 2)
    figures.append(((luma < 16) | (luma > 239)).float().mean((1, 2)).sqrt())
    figures.append((squares * centred).mean((1, 2)) / (contrast + 4) ** 3)
    if images.shape[1] == 3:
        figures += _colours_of(pixels[..., ::2, ::2].contiguous())
    return torch.stack(figures, 1).double()


def _differences(images: Tensor, dim: int) -> Tensor:
    length = images.shape[dim] - 1
    return (images.narrow(dim, 1, length) - images.narrow(dim, 0, length)).abs().mean((1, 2, 3))


def _colours_of(pixels: Tensor) -> list[Tensor]:
    strength = (pixels.amax(1) - pixels.amin(1)).mean((1, 2))
    balance = (pixels[:, ::2] - pixels[:, 1:2]) / (pixels.mean(1, keepdim=True) + 16)  # red and blue against green
    mean = balance.mean((2, 3))
    spread = (balance - mean[..., None, None]).square().mean((2, 3)).sqrt()
    variety = (spread.norm(dim=1) / (mean.norm(dim=1) + 0.02) + 0.05).log()
    found = [(strength + 1).log(), mean[:, 0], mean[:, 1], variety]
    return [torch.where(strength < _GREY_BELOW, math.nan, figure) for figure in found]


@dataclass(frozen=True)
class Appearance:
    """What training images look like.

    Args:
        low: Of each figure of `looks_of`, below what any training image shows, by a margin.
        high: The same above.
        mean: Of each figure.
        std: Of each figure.
        inverse: The inverse of the figures' correlations.
        limit: Largest usual distance of a picture's figures from their mean, in standard deviations.
        grey_share: Share of pictures without colours, 0..1.
        sides: Smallest and largest of the sides, in pixels, that were brought to the size of the inputs.
        aspect_ratio: Largest, long by short side.
        had_colour: Whether pictures with colours were read as grey.
    """

    low: tuple[float, ...]
    high: tuple[float, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    inverse: tuple[tuple[float, ...], ...]
    limit: float
    grey_share: float
    sides: tuple[int, int]
    aspect_ratio: float
    had_colour: bool

    @classmethod
    def from_plain(cls, plain: dict[str, Any]) -> Appearance:
        """The reverse of `dataclasses.asdict`."""
        return cls(**{k: _as_tuples(v) for k, v in plain.items()})


def _as_tuples(value: Any) -> Any:
    return tuple(map(_as_tuples, value)) if isinstance(value, list | tuple) else value


def measure_appearance(
    looks: Sequence[Tensor | None],
    *,
    preprocessing: Preprocessing,
    originals: Sequence[tuple[int, int, int]] = (),
) -> Appearance | None:
    """What training images look like.

    The limits leave out about half a per cent of further images of the same kind: the range of each figure is
    widened by 5 % and, since few images show less of it than many, by 50 / N; how far all figures together may lie
    from their mean is measured on the half of the images that mean and correlations are not taken from.

    Args:
        looks: `looks_of` a random sample of them, some at a time.
        preprocessing: How pictures became inputs.
        originals: Heights, widths and channels before that, of some; none: they were as the inputs are.

    Returns:
        None for less than `MIN_IMAGES`, or where there is nothing to measure.
    """
    found = [part for part in looks if part is not None]
    if sum(map(len, found)) < MIN_IMAGES:
        return None
    low, high, mean, std = _ranges(torch.cat(found))
    inverse, limit = _limit((torch.cat(found) - mean) / std)
    sides = [_side(height, width, preprocessing.resize) for height, width, _ in originals]
    return Appearance(
        low=_rounded(low),
        high=_rounded(high),
        mean=_rounded(mean),
        std=_rounded(std),
        inverse=tuple(map(_rounded, inverse)),
        limit=_rounded(limit[None])[0],
        grey_share=is_grey(torch.cat(found)).double().mean().item(),
        sides=(min(sides, default=preprocessing.image_size), max(sides, default=preprocessing.image_size)),
        aspect_ratio=max((_aspect_ratio(height, width) for height, width, _ in originals), default=1.0),
        had_colour=preprocessing.channels == 1 and any(channels == 3 for *_, channels in originals),
    )


def _ranges(looks: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Lowest and highest of each figure, by a margin; mean and standard deviation."""
    count = len(looks)
    mean, std, low, high = (torch.zeros(looks.shape[1], dtype=torch.float64) for _ in range(4))
    for i, column in enumerate(looks.T):
        seen = column[~column.isnan()]
        if not len(seen):  # every image is grey: then a coloured one is told of as such
            low[i], high[i], std[i] = -math.inf, math.inf, 1.0
            continue
        margin = (seen.max() - seen.min()) * (0.05 + 50 / count) + 1e-3
        mean[i], std[i] = seen.mean(), seen.std(correction=0) + 1e-3
        low[i], high[i] = seen.min() - margin, seen.max() + margin
    return low, high, mean, std


def _limit(scores: Tensor) -> tuple[Tensor, Tensor]:
    """The inverse of the correlations of one half of the images, and the largest usual distance of the other."""
    scores, count = scores.nan_to_num(), len(scores)
    half = scores[0::2]
    ridge = (0.01 + 2 / count) * torch.eye(scores.shape[1], dtype=torch.float64)
    inverse = torch.linalg.inv(half.T @ half / len(half) + ridge)
    others = _distances(scores[1::2], inverse)
    limit = torch.quantile(others, _FAR_QUANTILE) * (1 + 1.5 / math.sqrt(len(others)))
    return inverse, limit.clamp_min(3)  # images that are all the same have no spread


def _distances(scores: Tensor, inverse: Tensor) -> Tensor:
    """Mahalanobis distances of `(N, figures)`."""
    return torch.einsum("ni,ij,nj->n", scores, inverse, scores).clamp_min(0).sqrt()


def _rounded(values: Tensor) -> tuple[float, ...]:
    """Six digits: what is stored does not depend on the order in which a machine adds."""
    return tuple(float(f"{value:.6g}") for value in values.tolist())


# ---------------------------------------------------------------------------------------------------- unlike


def unlike_in_looks(appearance: Appearance, looks: Tensor) -> list[str | None]:
    """For each picture how it looks unlike the training images, e.g. `unlike ...: darker, noisier`, or None.

    Args:
        appearance: Of the training images.
        looks: `looks_of` the pictures.
    """
    low, high, mean, std = (torch.tensor(v, dtype=torch.float64) for v in _limits(appearance))
    scores = ((looks - mean) / std).nan_to_num()
    far = _distances(scores, torch.tensor(appearance.inverse, dtype=torch.float64)) > appearance.limit
    found: list[str | None] = []
    for row, is_far, score in zip(looks, far.tolist(), scores, strict=True):
        sides = torch.where(row < low, -1, torch.where(row > high, 1, 0))  # NaN is neither
        kinds = {"is_grey": bool(row.isnan().any()), "is_plain": bool(row[_CONTRAST] < 0.001)}
        found.append(_sentence(appearance, sides.tolist(), is_far, score, **kinds))
    return found


def _limits(appearance: Appearance) -> tuple[tuple[float, ...], ...]:
    return appearance.low, appearance.high, appearance.mean, appearance.std


def _sentence(
    appearance: Appearance, sides: list[int], is_far: bool, score: Tensor, *, is_grey: bool, is_plain: bool
) -> str | None:
    words = list(_WORDS.values())
    reasons = [words[i][side > 0] for i, side in enumerate(sides) if side]
    if not is_grey and len(sides) > _NUM_GREY_FIGURES and appearance.grey_share == 1:
        reasons.append("in colour")
    if is_grey and appearance.grey_share < _RARE:
        reasons.append("without colour")
    if not reasons and is_far:
        most = score.abs().topk(2).indices.sort().values.tolist()
        reasons = [f"{' and '.join(dict.fromkeys(words[i][bool(score[i] > 0)] for i in most))} at once"]
    if reasons and is_plain:
        reasons = ["of one single colour"]  # which has neither noise nor detail to speak of
    return f"unlike the training images: {', '.join(list(dict.fromkeys(reasons))[:3])}" if reasons else None


def unlike_in_size(appearance: Appearance, preprocessing: Preprocessing, *, height: int, width: int) -> list[str]:
    """What a picture loses on its way to an input that training images did not lose.

    A picture counts as larger from 4 times the largest side on, as smaller below half of the smallest, and as longer
    where more than half of it is cut off and its aspect ratio is above the largest by a quarter.

    Args:
        appearance: Of the training images.
        preprocessing: How a picture becomes an input.
        height: Of the picture as it was given, in pixels.
        width: The same.
    """
    notes, size = [], preprocessing.image_size
    side, ratio = _side(height, width, preprocessing.resize), _aspect_ratio(height, width)
    smallest, largest = appearance.sides
    if side > _LARGER * max(largest, size):
        notes.append(f"{width}x{height} px, {side / max(largest, size):.0f} times larger than the training images")
    elif side < _SMALLER * min(smallest, size):
        notes.append(f"{width}x{height} px, smaller than the training images: blurred")
    if ratio > max(_MOSTLY_CUT, _LONGER * appearance.aspect_ratio):
        share = f"{100 * (1 - 1 / ratio):.0f} %"
        loss = {"crop": f"{share} is cut off", "pad": f"{share} of the input is black"}
        notes.append(f"{width}x{height} px: {loss.get(preprocessing.resize, f'squeezed {ratio:.1f} times')}")
    return notes


def all_grey_warning(appearance: Appearance, num_grey: int, num_pictures: int) -> str | None:
    """A sentence where pictures without colour are many more than among the training images, or None.

    A single one may be one of the few that training had; four or more, and ten times their share, are not chance.
    """
    share = appearance.grey_share
    if num_grey < 4 or num_grey <= 10 * share * num_pictures or share < _RARE:
        return None
    return f"{num_grey:,} of {num_pictures:,} pictures are grey, and {100 * share:.1f} % of the training images"


def is_grey(looks: Tensor) -> Tensor:
    """Which pictures, among RGB ones, have no colour, bool `(B,)`."""
    return looks.isnan().any(1)


def _side(height: int, width: int, resize: str) -> int:
    """The side that is brought to the size of the inputs."""
    return max(height, width) if resize == "pad" else min(height, width)


def _aspect_ratio(height: int, width: int) -> float:
    return max(height, width) / min(height, width)
