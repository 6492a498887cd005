"""Image files as the file system and their headers show them: which are images, and opening one safely.

Does not know how pixels are brought to one colour space and size, nor torch, which worker processes must not import.
"""

from __future__ import annotations

import functools
import logging
import os
import stat
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, BinaryIO, NamedTuple

from cvtrain.errors import DataError

if TYPE_CHECKING:
    from types import ModuleType

    from PIL.Image import Image

EXTENSIONS = frozenset(  # compared in lower case
    {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp"}
    | {".ppm", ".pgm", ".pbm", ".pnm"}
)
MAX_PIXELS = 50_000_000
MAX_FILE_BYTES = 256 * 2**20

# Only decoders that stay inside this process; Pillow would also hand files to Ghostscript and the like.
_FORMATS = ("JPEG", "PNG", "BMP", "GIF", "TIFF", "WEBP", "PPM")


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


class FileStamp(NamedTuple):
    """How a file is recognised without opening it: `name` relative to the root, `size_bytes`, `mtime_ns`."""

    name: str
    size_bytes: int
    mtime_ns: int


def printable(name: str) -> str:
    r"""A file name as it can be shown and encoded: bytes that are no UTF-8 and control characters become `\x..`."""
    if name.isprintable():
        return name
    return "".join(character if character.isprintable() else _escape(character) for character in name)


def listed(names: Sequence[str], count: int = 3) -> str:
    """The first `count` names as they can be shown, with dots if there are more."""
    return ", ".join(printable(name) for name in names[:count]) + (", ..." if len(names) > count else "")


def _escape(character: str) -> str:
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:  # how Python carries a byte of a file name that is not UTF-8
        return f"\\x{code - 0xDC00:02x}"
    return character.encode("unicode_escape").decode("ascii")


@functools.cache
def pillow() -> ModuleType:
    """The module `PIL.Image`, with all formats of the list registered, so that Pillow need not import others."""
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


@contextmanager
def opened(path: str | os.PathLike[str]) -> Iterator[Image]:
    """The opened, not yet decoded image; whatever goes wrong inside becomes an `ImageError` that names the file."""
    image_module = pillow()
    try:
        with _open_file(path) as file, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with image_module.open(file, formats=_FORMATS) as image:
                width, height = image.size
                if width * height > MAX_PIXELS:
                    raise ImageError(path, _too_many_pixels(f"{width}x{height} px"))
                yield image
    except (ImageError, MemoryError):
        raise
    except image_module.DecompressionBombError:
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
