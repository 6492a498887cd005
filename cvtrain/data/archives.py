"""Reads the archives that data sets are distributed in, member by member, and writes nothing to disk.

Does not know what the files mean, nor where the archive came from.
"""

from __future__ import annotations

import bz2
import contextlib
import gzip
import lzma
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO

from cvtrain.data.reasons import reason
from cvtrain.errors import DataError

Wanted = Collection[str] | Callable[[str], bool]

_MAX_MEMBERS = 1_000_000
_ZIP_MAGIC = (b"PK\x03\x04", b"PK\x05\x06")
_DAMAGED = (
    *(OSError, EOFError, tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError),
    *(ValueError, OverflowError, MemoryError),  # numbers in headers that cannot be
    *(NotImplementedError, RuntimeError),  # zip: unknown compression, a password
)


def read_members(path: Path, wanted: Wanted, *, max_bytes: int) -> dict[str, bytes]:
    """The wanted files of a tar (plain, gz, bz2, xz) or zip archive, read into memory; nothing is written to disk.

    Args:
        path: The archive.
        wanted: The names, or a function that tells whether a name is wanted; names use `/` and no leading `./`.
        max_bytes: The most that all members together, wanted or not, may hold uncompressed.

    Returns:
        Content by name; a wanted name that the archive lacks is absent.

    Raises:
        DataError: The archive cannot be read, is damaged or cut short, is larger than `max_bytes`, or holds
            anything but plain files and folders with names inside the archive (links, devices, `..`, `/...`).
    """
    accept = wanted if callable(wanted) else frozenset(wanted).__contains__
    return {m.name: m.read() for m in iterate_members(path, max_bytes=max_bytes) if m.is_file and accept(m.name)}


@dataclass(frozen=True)
class Member:
    """A file or folder in an archive.

    Args:
        name: With `/`, without a leading `./`, and never leading out of the archive.
        size_bytes: Uncompressed, as the archive claims; `read` gives that or raises a `DataError`.
        is_file: Else it is a folder.
        read: Its content; to be called before the next member is asked for.
    """

    name: str
    size_bytes: int
    is_file: bool
    read: Callable[[], bytes]


def iterate_members(path: Path, *, max_bytes: int) -> Iterator[Member]:
    """Each file and folder of an archive in turn.

    Args:
        path: The archive.
        max_bytes: The most that all members together may hold uncompressed.

    Raises:
        DataError: See `read_members`.
    """
    total_bytes = 0
    try:
        read_entries = _zip_entries if _magic(path).startswith(_ZIP_MAGIC) else _tar_entries
        with contextlib.closing(read_entries(path, max_bytes)) as entries:
            for count, entry in enumerate(entries, 1):
                name = _safe_name(path, entry)
                total_bytes += entry.size_bytes
                if count > _MAX_MEMBERS:
                    raise DataError(f"{path} holds more than {_MAX_MEMBERS:,} members")
                if total_bytes > max_bytes:
                    raise _too_large(path, max_bytes)
                yield Member(name, entry.size_bytes, entry.is_file, partial(_read, path, entry))
    except _DAMAGED as error:
        raise _damaged(path, error) from error


def _read(path: Path, entry: _Entry) -> bytes:
    try:
        return entry.read()
    except _DAMAGED as error:
        raise _damaged(path, error) from error


def read_compressed(path: Path, *, max_bytes: int) -> bytearray:
    """The content of one file, unpacked when it is compressed (gz, bz2, xz).

    Raises:
        DataError: It cannot be read, is damaged, or holds more than `max_bytes`.
    """
    content = bytearray()
    try:
        with _decompressed(path) as file:
            while chunk := file.read(1 << 20):
                content += chunk
                if len(content) > max_bytes:
                    raise DataError(f"{path} holds more than the {max_bytes:,} bytes that are possible")
    except _DAMAGED as error:
        raise _damaged(path, error) from error
    return content


@dataclass(frozen=True)
class _Entry:
    """A member of an archive; whatever is no file and no folder is a link, a device or the like."""

    name: str
    size_bytes: int
    is_file: bool
    is_dir: bool
    read: Callable[[], bytes]


def _tar_entries(path: Path, max_bytes: int) -> Iterator[_Entry]:
    # Headers and padding add at most a few blocks a member; the cap also stops headers that claim gigabytes.
    with _decompressed(path) as raw:
        stream = _Capped(raw, path, 2 * max_bytes + (1 << 20))
        tar = tarfile.TarFile(fileobj=stream)
        for member in tar:
            is_file = member.type in (tarfile.REGTYPE, tarfile.AREGTYPE) and member.size >= 0
            is_dir = member.isdir() and member.size >= 0
            yield _Entry(member.name, member.size, is_file, is_dir, partial(_read_tar_member, tar, member))
        while stream.read(1 << 16):
            pass  # to the end, where the compressed stream has its own checksum


def _read_tar_member(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    content = tar.extractfile(member).read()
    if len(content) != member.size:
        raise tarfile.ReadError(f"{member.name} ends early")
    return content


def _zip_entries(path: Path, max_bytes: int) -> Iterator[_Entry]:
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            kind = stat.S_IFMT(member.external_attr >> 16)
            ordinary, is_dir = kind in (0, stat.S_IFREG, stat.S_IFDIR), member.is_dir()
            read = partial(_read_zip_member, archive, member)
            yield _Entry(member.filename, member.file_size, ordinary and not is_dir, ordinary and is_dir, read)


def _read_zip_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> bytes:
    with archive.open(member) as file:
        return file.read(member.file_size + 1)


def _safe_name(path: Path, entry: _Entry) -> str:
    name = entry.name
    if not (entry.is_file or entry.is_dir):
        raise _refused(path, name, "is a link or a special file")
    pure = PurePosixPath(name)
    if pure.is_absolute() or ".." in pure.parts or "\\" in name or "\0" in name or ":" in name[:2]:
        raise _refused(path, name, "points outside the archive")
    return str(pure)


def _refused(path: Path, name: str, why: str) -> DataError:
    return DataError(f"{path} was refused: its member {ascii(name)[:120]} {why}", hint="Fetch the original archive.")


def _damaged(path: Path, error: Exception) -> DataError:
    return DataError(
        f"{path} cannot be read, or is damaged or cut short: {reason(error)}", hint="Put a good copy there."
    )


def _too_large(path: Path, max_bytes: int) -> DataError:
    return DataError(f"{path} would unpack to more than the {max_bytes:,} bytes that are possible")


def _magic(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(6)


def _decompressed(path: Path) -> IO[bytes]:
    magic = _magic(path)
    if magic[:2] == b"\x1f\x8b":
        return gzip.open(path)
    if magic[:3] == b"BZh":
        return bz2.open(path)
    if magic == b"\xfd7zXZ\0":
        return lzma.open(path)
    return path.open("rb")


class _Capped:
    """A stream that refuses to be read further than `limit` bytes, in one read or by seeking."""

    def __init__(self, raw: IO[bytes], path: Path, limit: int) -> None:
        self._raw, self._path, self._limit = raw, path, limit

    def read(self, size: int = -1) -> bytes:
        self._check(self._raw.tell() + size if size >= 0 else self._limit + 1)
        return self._raw.read(size)

    def seek(self, position: int, whence: int = 0) -> int:
        assert whence == 0, "tarfile seeks from the start"
        self._check(position)
        return self._raw.seek(position)

    def tell(self) -> int:
        return self._raw.tell()

    def _check(self, position: int) -> None:
        if position > self._limit:
            raise _too_large(self._path, self._limit)
