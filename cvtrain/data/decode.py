"""The one rule by which an image file of any kind becomes a square uint8 array.

Does not know torch (worker processes that only decode must start fast), data sets, caches or labels.

The rule, in this order: the first frame; upright by its EXIF orientation; 16-bit grey scaled to 8 bits (the high
byte, nothing is clipped); palettes looked up; an alpha channel composited over black (a palette entry or colour key
that is marked transparent keeps its colour); CMYK and 1-bit converted; grey by ITU-R 601 luma, or RGB; then resized.
Pixels whose range is unknown (32-bit integers, floats) are refused, not guessed.
"""

from __future__ import annotations

import functools
import logging
import os
import stat
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cvtrain.errors import DataError

if TYPE_CHECKING:
    from types import ModuleType

    from PIL.Image import Image

EXTENSIONS = frozenset(  # compared in lower case
    {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp"}
    | {".ppm", ".pgm", ".pbm", ".pnm"}
)
RESIZE_POLICIES = ("crop", "stretch", "pad")
MAX_PIXELS = 50_000_000
MAX_FILE_BYTES = 256 * 2**20

# Only decoders that stay inside this process; Pillow would also hand files to Ghostscript and the like.
_FORMATS = ("JPEG", "PNG", "BMP", "GIF", "TIFF", "WEBP", "PPM")
_TINY_PIXELS = 8
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


class ImageError(DataError):
    """An image that cannot be read.

    Args:
        path: The file, as the message shall show it.
        reason: What is wrong with it, to be read after "path: ".
    """

    def __init__(self, path: str | os.PathLike[str], reason: str) -> None:
        super().__init__(f"{printable(os.fspath(path))}: {reason}")
        self.path = os.fspath(path)
        self.reason = reason

    def __reduce__(self) -> tuple[type[ImageError], tuple[str, str]]:
        return ImageError, (self.path, self.reason)


@dataclass(frozen=True)
class DecodeResult:
    """A decoded image and what is odd about it.

    Args:
        pixels: uint8 `(H, W, C)`, 0..255, C-contiguous.
        notes: Any of `frames` (more than one), `uniform` (a single colour), `tiny` (a side below 8 px) and `colour`
            (its colours were turned to grey).
    """

    pixels: NDArray[np.uint8]
    notes: tuple[str, ...]


class ImageHeader(NamedTuple):
    """What a file says of itself before it is decoded: `height`, `width` in pixels (upright), `channels` 1 or 3."""

    height: int
    width: int
    channels: int


def printable(name: str) -> str:
    r"""A file name as it can be shown and encoded: bytes that are no UTF-8 and control characters become `\x..`."""
    if name.isprintable():
        return name
    return "".join(character if character.isprintable() else _escape(character) for character in name)


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


def decode_with_notes(
    path: str | os.PathLike[str], *, image_size: int, channels: int, resize: str = "crop"
) -> DecodeResult:
    """As `decode_image`, with a word on what is odd about the image.

    Raises:
        ImageError: See `decode_image`.
    """
    assert channels in (1, 3)
    assert resize in RESIZE_POLICIES
    with _opened(path) as image:
        notes = ["frames"] if _has_frames(image) else []
        image.load()
        if min(image.size) < _TINY_PIXELS:
            notes.append("tiny")
        plain = _to_grey_or_rgb(path, _upright(image))
        if channels == 1 and plain.mode == "RGB":
            notes.append("colour")
        resized = _resized(plain.convert("L" if channels == 1 else "RGB"), image_size, resize)
        pixels = np.array(resized).reshape(image_size, image_size, channels)
    if np.array_equal(pixels[0], pixels[-1]) and bool((pixels == pixels[0, 0]).all()):
        notes.append("uniform")
    return DecodeResult(pixels=pixels, notes=tuple(notes))


def read_image_header(path: str | os.PathLike[str]) -> ImageHeader:
    """Size and kind of an image, from its header alone: what follows it may still be damaged.

    Raises:
        ImageError: Not a regular file, too large, or not an image of a known format.
    """
    with _opened(path) as image:
        width, height = image.size
        # A TIFF's size is upright already: Pillow turns these itself.
        if image.format != "TIFF" and _orientation(image) >= 5:
            width, height = height, width
        grey = image.mode in ("1", "L", "LA", "La", "I") or image.mode.startswith("I;16")
        return ImageHeader(height=height, width=width, channels=1 if grey else 3)


def read_image_size(path: str | os.PathLike[str]) -> tuple[int, int]:
    """`(height, width)` of an image in pixels, upright, from its header alone.

    Raises:
        ImageError: See `read_image_header`.
    """
    return read_image_header(path)[:2]


def _escape(character: str) -> str:
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:  # how Python carries a byte of a file name that is not UTF-8
        return f"\\x{code - 0xDC00:02x}"
    return character.encode("unicode_escape").decode("ascii")


@functools.cache
def _pillow() -> ModuleType:
    """`PIL.Image`, with every format of the list registered, so that Pillow need not import all that it has."""
    from PIL import (  # noqa: F401 - imported for their registration
        BmpImagePlugin,
        GifImagePlugin,
        Image,
        JpegImagePlugin,
        PngImagePlugin,
        PpmImagePlugin,
        TiffImagePlugin,
        WebPImagePlugin,
    )

    # Some plugins log what they also raise; without a handler Python would print that on stderr.
    logging.getLogger("PIL").addHandler(logging.NullHandler())
    return Image


def _open_file(path: str | os.PathLike[str]) -> BinaryIO:
    """Open a regular file of a bearable size; never waits for a pipe and never touches a device."""
    status = os.stat(path)
    if stat.S_ISREG(status.st_mode):
        # The name may lead elsewhere by now, hence the second look and an open that cannot block.
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
        file = os.fdopen(descriptor, "rb")
        status = os.fstat(descriptor)
        if stat.S_ISREG(status.st_mode) and 0 < status.st_size <= MAX_FILE_BYTES:
            return file
        file.close()
    reason = size_reason(status)
    assert reason is not None
    raise ImageError(path, reason)


def size_reason(status: os.stat_result) -> str | None:
    """Why a file with this status is no readable image, as far as the status alone tells; None if it may be one."""
    if stat.S_ISDIR(status.st_mode):
        return "is a folder"
    if not stat.S_ISREG(status.st_mode):
        return "is not a regular file"
    if status.st_size == 0:
        return "is empty (0 bytes)"
    if status.st_size > MAX_FILE_BYTES:
        return f"is larger than {MAX_FILE_BYTES // 2**20} MiB"
    return None


@contextmanager
def _opened(path: str | os.PathLike[str]) -> Iterator[Image]:
    """The opened, not yet decoded image; whatever goes wrong inside becomes an `ImageError` that names the file."""
    pillow = _pillow()
    try:
        with _open_file(path) as file, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with pillow.open(file, formats=_FORMATS) as image:
                width, height = image.size
                if width * height > MAX_PIXELS:
                    raise ImageError(path, _too_many_pixels(f"{width}x{height} px"))
                yield image
    except (ImageError, MemoryError):
        raise
    except pillow.DecompressionBombError:
        raise ImageError(path, _too_many_pixels("the image")) from None
    except Exception as error:  # decoders of foreign bytes raise anything: SyntaxError, struct.error, IndexError...
        raise ImageError(path, _reason(error)) from error


def _too_many_pixels(what: str) -> str:
    return f"{what} is more than {MAX_PIXELS // 1_000_000} million pixels"


def _reason(error: Exception) -> str:
    from PIL import UnidentifiedImageError

    if isinstance(error, UnidentifiedImageError):
        return f"is not an image that can be read ({', '.join(_FORMATS)})"
    if isinstance(error, OSError) and error.strerror is not None:
        return error.strerror.lower()
    text = " ".join(str(error).split()) or type(error).__name__
    return f"is damaged ({printable(text[:120])})"


def _has_frames(image: Image) -> bool:
    # MPO is what phones write: a photograph with a second view or a preview behind it. That is nothing odd.
    return image.format != "MPO" and bool(getattr(image, "is_animated", False))


def _orientation(image: Image) -> int:
    """EXIF orientation, 1..8; 1 (upright) where there is none or it makes no sense."""
    try:
        value = image.getexif().get(_ORIENTATION_TAG, 1)
    except Exception:  # broken metadata around good pixels: the picture is used as it stands
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _upright(image: Image) -> Image:
    orientation = _orientation(image)
    if orientation == 1:
        return image
    return image.transpose(getattr(_pillow().Transpose, _UPRIGHT[orientation]))


def _to_grey_or_rgb(path: str | os.PathLike[str], image: Image) -> Image:
    """An image of mode L or RGB."""
    pillow = _pillow()
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PPM", "PNG")):
        return pillow.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.mode in ("I", "F"):
        kind = "32-bit integer" if image.mode == "I" else "floating-point"
        raise ImageError(path, f"has {kind} pixels, whose range is unknown: save it with 8 or 16 bits")
    if image.mode in ("LA", "La"):
        image = image.convert("LA")
        return _over_black(image, image.getchannel("L"))
    if image.mode in ("RGBA", "RGBa"):
        image = image.convert("RGBA")
        return _over_black(image, image.convert("RGB"))
    if image.mode in ("1", "L"):
        return image.convert("L")
    if image.mode in ("P", "PA", "RGB", "RGBX", "CMYK", "YCbCr", "HSV"):
        return image.convert("RGB")
    raise ImageError(path, f"has a colour space that cannot be read ({image.mode})")


def _over_black(image: Image, colours: Image) -> Image:
    black = _pillow().new(colours.mode, colours.size)
    black.paste(colours, mask=image.getchannel("A"))
    return black


def _resized(image: Image, image_size: int, resize: str) -> Image:
    pillow = _pillow()
    width, height = image.size
    target = (image_size, image_size)
    if (width, height) == target:
        return image
    if resize == "stretch":
        return image.resize(target, pillow.Resampling.BILINEAR)
    if resize == "crop":
        # One step: the filter sees beyond the box, so this equals scaling everything and then cutting.
        side = min(width, height)
        left, top = (width - side) // 2, (height - side) // 2
        box = (left, top, left + side, top + side)
        return image.crop(box) if side == image_size else image.resize(target, pillow.Resampling.BILINEAR, box=box)
    scale = image_size / max(width, height)
    inner = (max(1, round(width * scale)), max(1, round(height * scale)))
    if inner != image.size:
        image = image.resize(inner, pillow.Resampling.BILINEAR)
    padded = pillow.new(image.mode, target)
    padded.paste(image, ((image_size - inner[0]) // 2, (image_size - inner[1]) // 2))
    return padded
