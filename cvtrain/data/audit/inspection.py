"""What one look at a picture leaves behind: digests, a thumbnail and a few facts, a kilobyte and a half in all.

Does not know torch (worker processes that only decode must start fast), labels, splits, or other pictures.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cvtrain.data.decode import odd_notes, orientation_of, plain_image
from cvtrain.data.image_file import ImageError, opened, pillow

if TYPE_CHECKING:
    from PIL.Image import Image

THUMBNAIL_SIZE = 32

_USUAL_MODES = ("1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX")
_EXTENSIONS = {
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif"),
    "MPO": (".jpg", ".jpeg", ".jpe", ".jfif"),  # a photograph with a preview behind it
    "PNG": (".png",),
    "BMP": (".bmp",),
    "GIF": (".gif",),
    "TIFF": (".tif", ".tiff"),
    "WEBP": (".webp",),
    "PPM": (".ppm", ".pgm", ".pbm", ".pnm"),
}


class Seen(NamedTuple):
    """A picture that could be read.

    Args:
        content: SHA-256 of the file; empty where the picture is none.
        pixels: SHA-256 of size and RGB values, upright, so that a file saved anew without loss has the same.
        thumbnail: `THUMBNAIL_SIZE`² uint8 of luma, row by row; empty where the input is no picture but a point.
        height: Of the upright picture, in pixels.
        width: The same.
        num_bytes: Of the file; 0 where the picture is none.
        mode: Pillow's name for the pixels of the file, such as `RGB` or `CMYK`.
        notes: Any of `frames`, `tiny`, `turned`, `transparent`, `sixteen_bit`, `colour_space`, `uniform`, `misnamed`.
    """

    content: bytes
    pixels: bytes
    thumbnail: bytes
    height: int
    width: int
    num_bytes: int
    mode: str
    notes: tuple[str, ...]


def inspect_files(_shared: object, paths: Sequence[str], **_of_worker: Any) -> list[Seen | str]:
    """Looks at files; in the place of one that cannot be read stands the reason."""
    found: list[Seen | str] = []
    for path in paths:
        try:
            found.append(inspect_file(path))
        except ImageError as error:
            found.append(error.reason)
        except MemoryError:
            found.append("is too large for the memory of this machine")
    return found


def inspect_file(path: str) -> Seen:
    """Looks at one file, which is not changed.

    Raises:
        ImageError: It cannot be read.
    """
    with opened(path) as image:
        notes, mode, file_format = odd_notes(image), image.mode, image.format
        if orientation_of(image) != 1:
            notes.append("turned")
        if image.has_transparency_data:
            notes.append("transparent")
        if mode.startswith("I"):
            notes.append("sixteen_bit")
        elif mode not in _USUAL_MODES:
            notes.append("colour_space")
        if PurePath(path).suffix.lower() not in _EXTENSIONS.get(str(file_format), ()):
            notes.append("misnamed")
        picture = plain_image(path, image).convert("RGB")
        with open(path, "rb") as file:  # a regular file, as `opened` has made sure
            num_bytes = os.fstat(file.fileno()).st_size
            content = hashlib.file_digest(file, "sha256").digest()
    return _seen(picture, content, num_bytes, mode=mode, notes=notes)


def inspect_pixels(images: NDArray[Any]) -> list[Seen | str]:
    """Looks at images in memory.

    Args:
        images: `(N, H, W, C)`. Where they are uint8 of 1 or 3 channels and more than a pixel they are pictures.
    """
    _, height, width, channels = images.shape
    is_picture = images.dtype == np.uint8 and channels in (1, 3) and height * width > 1
    found: list[Seen | str] = []
    for pixels in images:
        if is_picture:
            picture = pillow().fromarray(np.ascontiguousarray(pixels if channels == 3 else pixels[:, :, 0]))
            found.append(_seen(picture.convert("RGB"), b"", 0, mode="", notes=[]))
        else:
            digest = hashlib.sha256(np.ascontiguousarray(pixels).data).digest()
            found.append(Seen(b"", digest, b"", height, width, 0, "", ()))
    return found


def _seen(picture: Image, content: bytes, num_bytes: int, *, mode: str, notes: list[str]) -> Seen:
    width, height = picture.size
    if all(low == high for low, high in picture.getextrema()):
        notes.append("uniform")
    pixels = hashlib.sha256(f"{width}x{height}:".encode() + picture.tobytes()).digest()
    size = (THUMBNAIL_SIZE, THUMBNAIL_SIZE)
    luma = picture.convert("L").resize(size, pillow().Resampling.BILINEAR, reducing_gap=3.0)
    return Seen(content, pixels, luma.tobytes(), height, width, num_bytes, mode, tuple(notes))
