"""The one rule by which an image file of any kind, or an array, becomes a square uint8 array.

Does not know torch (worker processes that only decode must start fast), how a file is opened, data sets or labels.

The rule, in this order: the first frame; upright by its EXIF orientation; 12 and 16 bits a channel scaled to 8 (the
high ones, nothing is clipped); palettes looked up; an alpha channel composited over black (a palette entry or colour
key that is marked transparent keeps its colour); CMYK and 1-bit converted, colour profiles ignored; grey by ITU-R 601
luma, or RGB; then resized. Pixels whose range is unknown (32-bit integers, floats) are refused, not guessed.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cvtrain.data.image_file import EXTENSIONS, ImageError, opened, pillow, printable
from cvtrain.errors import DataError

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = [
    "EXTENSIONS",
    "RESIZE_POLICIES",
    "DecodeResult",
    "ImageError",
    "ImageHeader",
    "check_image",
    "decode_array",
    "decode_image",
    "decode_with_notes",
    "odd_notes",
    "orientation_of",
    "plain_image",
    "printable",
    "read_image_header",
]

RESIZE_POLICIES = ("crop", "stretch", "pad")

_TINY_PIXELS = 8
_BITS_TAG, _PHOTOMETRIC_TAG, _WHITE_IS_ZERO = 258, 262, 0  # Source: TIFF 6.0, section 8
# What undoes an EXIF orientation: names of PIL.Image.Transpose. Source: CIPA DC-008 (Exif 2.32), tag 0x0112.
_ORIENTATION_TAG = 0x0112
_UPRIGHT = {
    2: "FLIP_LEFT_RIGHT",
    3: "ROTATE_180",
    4: "FLIP_TOP_BOTTOM",
    5: "TRANSPOSE",
    6: "ROTATE_270",
    7: "TRANSVERSE",
    8: "ROTATE_90",
}


@dataclass(frozen=True)
class DecodeResult:
    """A decoded image and what is odd about it.

    Args:
        pixels: uint8 `(H, W, C)`, 0..255, C-contiguous.
        notes: Any of `frames` (more than one), `uniform` (a single colour), `tiny` (a side below 8 px) and `colour`
            (its colours were turned to grey).
        height: Of the upright picture before it was resized, in pixels.
        width: The same.
    """

    pixels: NDArray[np.uint8]
    notes: tuple[str, ...]
    height: int
    width: int


class ImageHeader(NamedTuple):
    """What a file says of itself before it is decoded: `height`, `width` in pixels (upright), `channels` 1 or 3."""

    height: int
    width: int
    channels: int


def decode_image(
    path: str | os.PathLike[str], *, image_size: int, channels: int, resize: str = "crop"
) -> NDArray[np.uint8]:
    """Read one image file by the rule at the top of this module.

    Args:
        path: A regular file, or a link to one.
        image_size: Height and width of the result in pixels.
        channels: 1 (grey) or 3 (RGB).
        resize: `crop` scales the shorter side and keeps the centre, `stretch` ignores the aspect ratio, `pad` scales
            the longer side and fills up with black. Antialiased bilinear; pixels stay as they are where the size fits.

    Returns:
        uint8 `(image_size, image_size, channels)`, 0..255, C-contiguous.

    Raises:
        ImageError: Not a regular file, too large, not an image of a known format, damaged, or of unknown range.
    """
    return decode_with_notes(path, image_size=image_size, channels=channels, resize=resize).pixels


def decode_array(
    array: NDArray[np.uint8], *, image_size: int, channels: int, resize: str = "crop"
) -> NDArray[np.uint8]:
    """Bring pixels that are in memory to the colours and size that `decode_image` gives to a file of them.

    Args:
        array: uint8 `(H, W)` or `(H, W, 1)` (grey) or `(H, W, 3)` (RGB), 0..255, of any size; it is not changed.
        image_size: See `decode_image`.
        channels: See `decode_image`.
        resize: See `decode_image`.

    Returns:
        uint8 `(image_size, image_size, channels)`, 0..255, C-contiguous; always a copy.

    Raises:
        DataError: The array has another shape or dtype, or no pixels.
    """
    assert channels in (1, 3)
    assert resize in RESIZE_POLICIES
    picture = array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (1, 3))
    if array.dtype != np.uint8 or not picture or array.size == 0:
        raise DataError(
            f"an array of shape {array.shape} and dtype {array.dtype} is no picture",
            hint="a picture is uint8 in 0..255 of shape (H, W), (H, W, 1) or (H, W, 3), one at a time",
        )
    grey = array.ndim == 2 or array.shape[2] == 1
    image = pillow().fromarray(np.ascontiguousarray(array.reshape(array.shape[:2]) if grey else array))
    return _pixels(image, image_size=image_size, channels=channels, resize=resize)


def decode_with_notes(
    path: str | os.PathLike[str], *, image_size: int, channels: int, resize: str = "crop"
) -> DecodeResult:
    """As `decode_image`, with a word on what is odd about the image.

    Raises:
        ImageError: See `decode_image`.
    """
    assert channels in (1, 3)
    assert resize in RESIZE_POLICIES
    with opened(path) as image:
        notes = odd_notes(image)
        plain = plain_image(path, image)
        if channels == 1 and plain.mode == "RGB":
            notes.append("colour")
        pixels = _pixels(plain, image_size=image_size, channels=channels, resize=resize)
    if np.array_equal(pixels[0], pixels[-1]) and bool((pixels == pixels[0, 0]).all()):
        notes.append("uniform")
    return DecodeResult(pixels=pixels, notes=tuple(notes), height=plain.height, width=plain.width)


def plain_image(path: str | os.PathLike[str], image: Image) -> Image:
    """The picture of an opened file in its own size, upright and of mode L or RGB.

    Raises:
        ImageError: See `decode_image`; from the decoder anything, which `opened` turns into one.
    """
    image.load()
    _refuse_unknown(path, image)
    num_bits, is_negative = _deep_grey(image)
    return _to_grey_or_rgb(_upright(image), num_bits=num_bits, is_negative=is_negative)


def check_image(path: str | os.PathLike[str], *, channels: int) -> tuple[str, ...]:
    """Read a file as far as it takes to know whether `decode_image` can, at a fraction of its time for a photograph.

    Args:
        path: See `decode_image`.
        channels: See `decode_image`.

    Returns:
        The notes of `DecodeResult` but for `uniform`, which takes all pixels.

    Raises:
        ImageError: See `decode_image`.
    """
    with opened(path) as image:
        notes = odd_notes(image)
        image.draft(None, (1, 1))  # of a JPEG all data are read, but an eighth of the height and width is computed
        image.load()
        _refuse_unknown(path, image)
        return (*notes, "colour") if channels == 1 and not _is_grey(image) else tuple(notes)


def read_image_header(path: str | os.PathLike[str]) -> ImageHeader:
    """Size and kind of an image, from its header alone: what follows it may still be damaged.

    Raises:
        ImageError: Not a regular file, too large, or not an image of a known format.
    """
    with opened(path) as image:
        width, height = image.size
        # A TIFF's size is upright already: Pillow turns these itself. A PNG may have EXIF data behind its pixels, which
        # Pillow would decode on the way there.
        is_told = image.format != "TIFF" and (image.format != "PNG" or "exif" in image.info)
        if is_told and orientation_of(image) >= 5:
            width, height = height, width
        return ImageHeader(height=height, width=width, channels=1 if _is_grey(image) else 3)


def odd_notes(image: Image) -> list[str]:
    """The notes that an opened image is worth before it is decoded."""
    notes = ["frames"] if _has_frames(image) else []
    return [*notes, "tiny"] if min(image.size) < _TINY_PIXELS else notes


def _is_grey(image: Image) -> bool:
    return image.mode in ("1", "L", "LA", "La", "I") or image.mode.startswith("I;16")


def _has_frames(image: Image) -> bool:
    # MPO is what phones write: a photograph with a second view or a preview behind it. That is nothing odd.
    return image.format != "MPO" and bool(getattr(image, "is_animated", False))


def orientation_of(image: Image) -> int:
    """EXIF orientation, 1..8; 1 (upright) where there is none or it makes no sense."""
    try:
        value = image.getexif().get(_ORIENTATION_TAG, 1)
    except Exception:  # broken metadata around good pixels: the picture is used as it stands
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _upright(image: Image) -> Image:
    orientation = orientation_of(image)
    if orientation == 1:
        return image
    return image.transpose(getattr(pillow().Transpose, _UPRIGHT[orientation]))


def _refuse_unknown(path: str | os.PathLike[str], image: Image) -> None:
    """Refuse pixels that nothing says how to see.

    Raises:
        ImageError: Of such.
    """
    if image.mode == "F" or (image.mode == "I" and image.format not in ("PPM", "PNG")):
        kind = "32-bit integer" if image.mode == "I" else "floating-point"
        raise ImageError(path, f"has {kind} pixels, whose range is unknown: save it with 8 or 16 bits")
    if not _is_grey(image) and image.mode not in ("RGBA", "RGBa", "P", "PA", "RGB", "RGBX", "CMYK", "YCbCr", "HSV"):
        raise ImageError(path, f"has a colour space that cannot be read ({image.mode})")


def _to_grey_or_rgb(image: Image, *, num_bits: int, is_negative: bool) -> Image:
    """An image of mode L or RGB.

    Args:
        image: Decoded, of a kind that is known.
        num_bits: Of a grey value, where it has more than 8.
        is_negative: Whether 0 is white among these.
    """
    if image.mode == "I" or image.mode.startswith("I;16"):
        grey = (np.asarray(image) >> (num_bits - 8)).astype(np.uint8)
        return pillow().fromarray(~grey if is_negative else grey)
    if image.mode in ("LA", "La"):
        image = image.convert("LA")
        return _over_black(image, image.getchannel("L"))
    if image.mode in ("RGBA", "RGBa"):
        image = image.convert("RGBA")
        return _over_black(image, image.convert("RGB"))
    return image.convert("L" if _is_grey(image) else "RGB")


def _deep_grey(image: Image) -> tuple[int, bool]:
    """Bits of a grey value that has more than 8, and whether 0 is white; Pillow tells such of TIFF files alone."""
    if image.format != "TIFF":
        return 16, False
    return image.tag_v2.get(_BITS_TAG, (16,))[0], image.tag_v2.get(_PHOTOMETRIC_TAG) == _WHITE_IS_ZERO


def _pixels(image: Image, *, image_size: int, channels: int, resize: str) -> NDArray[np.uint8]:
    """An image of mode L or RGB as `(image_size, image_size, channels)`."""
    resized = _resized(image.convert("L" if channels == 1 else "RGB"), image_size, resize)
    return np.array(resized).reshape(image_size, image_size, channels)


def _over_black(image: Image, colours: Image) -> Image:
    black = pillow().new(colours.mode, colours.size)
    black.paste(colours, mask=image.getchannel("A"))
    return black


def _resized(image: Image, image_size: int, resize: str) -> Image:
    width, height = image.size
    target = (image_size, image_size)
    if (width, height) == target:
        return image
    if resize == "stretch":
        return image.resize(target, pillow().Resampling.BILINEAR)
    if resize == "crop":
        # One step: the filter sees beyond the box, so this equals scaling everything and then cutting.
        side = min(width, height)
        left, top = (width - side) // 2, (height - side) // 2
        box = (left, top, left + side, top + side)
        return image.crop(box) if side == image_size else image.resize(target, pillow().Resampling.BILINEAR, box=box)
    scale = image_size / max(width, height)
    inner = (max(1, round(width * scale)), max(1, round(height * scale)))
    if inner != image.size:
        image = image.resize(inner, pillow().Resampling.BILINEAR)
    padded = pillow().new(image.mode, target)
    padded.paste(image, ((image_size - inner[0]) // 2, (image_size - inner[1]) // 2))
    return padded
