"""Image files as the file system and their headers show them: which are images, and opening one safely.

Does not know how pixels are brought to one colour space and size, nor torch, which worker processes must not import.
"""

from __future__ import annotations

import functools
import logging
import os
import stat
import struct
import warnings
import zlib
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
_MAX_SCAN_PIXELS = 20 * MAX_PIXELS  # of a JPEG, over all scans; cameras and encoders write 1 to 14 scans
_MAX_SLOW_VALUES = 4_000_000  # of what Pillow decodes in Python, at about a microsecond each
_START_OF_SCAN, _SCAN_BYTES = b"\xff\xda", 10  # and what a scan takes at least
_TIFF_TILE_WIDTH, _TIFF_TILE_HEIGHT = 322, 323

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


def has_image_name(name: str) -> bool:
    """Whether a file of this name is taken for an image."""
    return os.path.splitext(name)[1].lower() in EXTENSIONS


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
                fault = _excess(image, file)
                if image.format == "PNG" and not _checksums_hold(file):
                    fault = "is damaged (wrong checksum)"
                if fault is not None:
                    raise ImageError(path, fault)
                yield image
    except (ImageError, MemoryError):
        raise
    except image_module.DecompressionBombError:
        raise ImageError(path, _too_many_pixels("the image")) from None
    except Exception as error:  # decoders of foreign bytes raise anything: SyntaxError, struct.error, IndexError...
        raise ImageError(path, _reason(error)) from error


def _too_many_pixels(what: str) -> str:
    return f"{what} is more than {MAX_PIXELS // 1_000_000} million pixels"


def _excess(image: Image, file: BinaryIO) -> str | None:
    """Why an image of bearable size would still take minutes, or gigabytes, to decode; None for most."""
    width, height = image.size
    if image.format in ("JPEG", "MPO"):
        most_scans = os.fstat(file.fileno()).st_size // _SCAN_BYTES  # of most files enough to know
        if most_scans * width * height > _MAX_SCAN_PIXELS:
            num_scans = _num_scans(file)
            if num_scans * width * height > _MAX_SCAN_PIXELS:
                return f"{width}x{height} px in {num_scans:,} scans would take minutes to decode"
    if image.format == "TIFF":
        tile_width, tile_height = (image.tag_v2.get(tag, 0) for tag in (_TIFF_TILE_WIDTH, _TIFF_TILE_HEIGHT))
        if tile_width * tile_height > MAX_PIXELS:
            return _too_many_pixels(f"a tile of {tile_width}x{tile_height} px")
    is_slow = any(tile[0] in pillow().DECODERS for tile in image.tile)  # those are the ones written in Python
    if is_slow and width * height * len(image.getbands()) > _MAX_SLOW_VALUES:
        return f"{width}x{height} px of this kind of {image.format} would take minutes to decode: save it as PNG"
    return None


def _checksums_hold(file: BinaryIO) -> bool:
    """Whether what makes the pixels of a PNG is what was written; Pillow passes over these checksums.

    Source: PNG (third edition), sections 5.3 and 5.4.
    """
    position, num_bytes = file.tell(), os.fstat(file.fileno()).st_size
    file.seek(len(b"\x89PNG\r\n\x1a\n"))
    while len(head := file.read(8)) == 8:
        length, kind = struct.unpack(">I4s", head)
        if length > num_bytes:  # cut short, which the decoder tells
            break
        if not kind[:1].isupper() and kind != b"tRNS":  # metadata
            file.seek(length + 4, os.SEEK_CUR)
            continue
        content, checksum = file.read(length), file.read(4)
        if len(checksum) == 4 and zlib.crc32(kind + content) != int.from_bytes(checksum):
            return False
    file.seek(position)
    return True


def _num_scans(file: BinaryIO) -> int:
    """How often a JPEG goes over its pixels: inside of coded data these two bytes cannot stand."""
    position = file.tell()
    file.seek(0)
    num_scans = sum(block.count(_START_OF_SCAN) for block in iter(lambda: file.read(2**20), b""))
    file.seek(position)
    return num_scans


def _reason(error: Exception) -> str:
    from PIL import UnidentifiedImageError

    if isinstance(error, UnidentifiedImageError):
        return f"is not an image that can be read ({', '.join(_FORMATS)})"
    if isinstance(error, OSError) and error.strerror is not None:
        return error.strerror.lower()
    text = " ".join(str(error).split()) or type(error).__name__
    return f"is damaged ({printable(text[:120])})"
