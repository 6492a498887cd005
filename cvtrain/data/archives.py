"""Reads what data sets are distributed in without unpacking it or running it, and keeps converted arrays beside it.

Does not know what the files mean, nor where the archive came from.
"""

from __future__ import annotations

import bz2
import contextlib
import gzip
import hashlib
import io
import json
import lzma
import math
import os
import pickle
import pickletools
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

import numpy as np
import torch

from cvtrain.data.images import ImageData, ImageSet, MemoryImages, Preprocessing
from cvtrain.errors import DataError

Wanted = Collection[str] | Callable[[str], bool]

_MAX_MEMBERS = 1_000_000
_MAX_MEMO = 10_000_000
_CACHE_FORMAT = 1
_MAX_HEADER_BYTES = 1 << 20
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
    try:
        read = _read_zip if _magic(path).startswith(_ZIP_MAGIC) else _read_tar
        return read(path, accept, max_bytes)
    except _DAMAGED as error:
        raise _damaged(path, error) from error


def read_compressed(path: Path, *, max_bytes: int) -> bytearray:
    """The content of one file, unpacked when it is a gzip file.

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


def _read_tar(path: Path, accept: Callable[[str], bool], max_bytes: int) -> dict[str, bytes]:
    found = {}
    # Headers and padding add at most a few blocks a member; the cap also stops headers that claim gigabytes.
    with _decompressed(path) as raw:
        stream = _Capped(raw, path, 2 * max_bytes + (1 << 20))
        tar = tarfile.TarFile(fileobj=stream)
        total = 0
        for count, member in enumerate(tar, 1):
            plain = member.type in (tarfile.REGTYPE, tarfile.AREGTYPE)
            if member.size < 0 or not (plain or member.isdir()):
                raise _refused(path, member.name, "is a link or a special file")
            name = _safe_name(path, member.name)
            total = _counted(path, count, total + member.size, max_bytes)
            if plain and accept(name):
                content = tar.extractfile(member).read()
                if len(content) != member.size:
                    raise tarfile.ReadError(f"{name} ends early")
                found[name] = content
        while stream.read(1 << 16):
            pass  # to the end, where the compressed stream has its own checksum
    return found


def _read_zip(path: Path, accept: Callable[[str], bool], max_bytes: int) -> dict[str, bytes]:
    found = {}
    with zipfile.ZipFile(path) as archive:
        total = 0
        for count, member in enumerate(archive.infolist(), 1):
            kind = stat.S_IFMT(member.external_attr >> 16)
            if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
                raise _refused(path, member.filename, "is a link or a special file")
            name = _safe_name(path, member.filename)
            total = _counted(path, count, total + member.file_size, max_bytes)
            if not member.is_dir() and accept(name):
                with archive.open(member) as file:
                    found[name] = file.read(member.file_size + 1)
    return found


def _counted(path: Path, members: int, total: int, max_bytes: int) -> int:
    if members > _MAX_MEMBERS:
        raise DataError(f"{path} holds more than {_MAX_MEMBERS:,} members")
    if total > max_bytes:
        raise DataError(f"{path} would unpack to more than the {max_bytes:,} bytes that are possible")
    return total


def _safe_name(path: Path, name: str) -> str:
    pure = PurePosixPath(name)
    if pure.is_absolute() or ".." in pure.parts or "\\" in name or "\0" in name or ":" in name[:2]:
        raise _refused(path, name, "points outside the archive")
    return str(pure)


def _refused(path: Path, name: str, why: str) -> DataError:
    return DataError(f"{path} was refused: its member {ascii(name)[:120]} {why}", hint="Fetch the original archive.")


def _damaged(path: Path, error: Exception) -> DataError:
    reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return DataError(f"{path} cannot be read, or is damaged or cut short: {reason}", hint="Put a good copy there.")


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
            raise DataError(f"{self._path} would unpack to more than the {self._limit:,} bytes that are possible")


def load_plain_pickle(content: bytes, where: str) -> dict[str, object]:
    """A pickled dictionary of numbers, text, bytes, lists, dictionaries and uint8 arrays; anything else is refused.

    No name in the pickle is ever looked up: the few that numpy's arrays need are acted out by `_Rebuild`.

    Args:
        content: The pickle.
        where: File name, for the message.

    Raises:
        DataError: It is damaged, no such dictionary, or asks for anything else.
    """
    try:
        _check_memo(content, where)
        value = _PlainUnpickler(io.BytesIO(content), where).load()
    except DataError:
        raise
    except Exception as error:  # a damaged pickle can raise anything
        raise DataError(f"{where} is damaged or cut short: {type(error).__name__}", hint="Fetch it again.") from error
    if not isinstance(value, dict):
        raise DataError(f"{where} holds no dictionary")
    return {_text(key): v.to_numpy(where) if isinstance(v, _PickledArray) else v for key, v in value.items()}


def _check_memo(content: bytes, where: str) -> None:
    """Refuses a pickle that makes the reader reserve memory for billions of slots."""
    for opcode, argument, _ in pickletools.genops(content):
        if opcode.name in ("PUT", "LONG_BINPUT") and argument > _MAX_MEMO:
            raise DataError(f"{where} was refused: it asks for {argument:,} memory slots")


class _PlainUnpickler(pickle.Unpickler):
    def __init__(self, file: io.BytesIO, where: str) -> None:
        super().__init__(file, encoding="bytes")
        self._where = where

    def find_class(self, module: str, name: str) -> object:
        if (module, name) not in _REBUILT:
            raise DataError(
                f"{self._where} was refused: it asks to run {ascii(module)[1:-1][:60]}.{ascii(name)[1:-1][:60]}",
                hint="This is no original file of the data set. Delete it, and do not trust where it came from.",
            )
        return _Rebuild(name)


_REBUILT = frozenset(
    {
        ("numpy", "ndarray"),
        ("numpy", "dtype"),
        ("_codecs", "encode"),  # how Python 3 writes bytes for Python 2
        *((f"numpy.{core}.multiarray", "_reconstruct") for core in ("core", "_core")),
        *((f"numpy.{core}.numeric", "_frombuffer") for core in ("core", "_core")),
    }
)


class _Rebuild:
    """Stands for a function that array pickles call; its state cannot be changed by a pickle."""

    __slots__ = ("_name",)

    def __init__(self, name: str) -> None:
        self._name = name

    def __setstate__(self, state: object) -> None:
        raise pickle.UnpicklingError("a function has no state")

    def __call__(self, *arguments: object) -> object:
        if self._name == "encode" and arguments[1:] == ("latin1",):
            return arguments[0].encode("latin1")
        if self._name == "dtype":
            return _PickledType(_text(arguments[0]))
        if self._name == "_reconstruct":
            return _PickledArray()
        if self._name == "_frombuffer":
            data, dtype, shape, order = arguments[:4]
            array = _PickledArray()
            array.__setstate__((1, shape, dtype, order == "F", data))
            return array
        raise pickle.UnpicklingError(f"{self._name} cannot be called so")


class _PickledType:
    __slots__ = ("code",)

    def __init__(self, code: str) -> None:
        self.code = code

    def __setstate__(self, state: object) -> None:
        """Byte order and the like; of no meaning for single bytes."""


class _PickledArray:
    __slots__ = ("_state",)

    def __setstate__(self, state: object) -> None:
        self._state = state

    def to_numpy(self, where: str) -> np.ndarray:
        """The array, if it is one of uint8; numpy's own unpickling is never used."""
        _, shape, dtype, columns_first, data = self._state
        if not isinstance(dtype, _PickledType) or dtype.code not in ("u1", "uint8"):
            raise DataError(f"{where} holds an array that is not of uint8")
        return np.frombuffer(data, np.uint8).reshape(shape, order="F" if columns_first else "C")


def _text(value: object) -> str:
    return value.decode("latin1") if isinstance(value, bytes) else str(value)


@dataclass(frozen=True)
class CheckedArrays:
    """Arrays by name, plain facts about them (as JSON gives them back), and the SHA-256 of each array."""

    arrays: Mapping[str, np.ndarray]
    facts: Mapping[str, object]
    sha256: Mapping[str, str]


def check_arrays(arrays: Mapping[str, np.ndarray], facts: Mapping[str, object]) -> CheckedArrays:
    """The arrays with their checksums."""
    return CheckedArrays(arrays, facts, {name: array_sha256(array) for name, array in arrays.items()})


def store_arrays(path: Path, checked: CheckedArrays) -> None:
    """Writes arrays, facts and checksums to one file, whole or not at all.

    A folder that cannot be written, or a full disk, is no error: the next start converts again.
    """
    layout = [(name, array.dtype.str, array.shape, checked.sha256[name]) for name, array in checked.arrays.items()]
    header = json.dumps({"format": _CACHE_FORMAT, "facts": dict(checked.facts), "arrays": layout}).encode()
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("xb") as file:
            file.write(hashlib.sha256(header).hexdigest().encode() + b"\n" + header + b"\n")
            for array in checked.arrays.values():
                np.ascontiguousarray(array).tofile(file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def load_arrays(path: Path, facts: Mapping[str, object]) -> CheckedArrays | None:
    """What `store_arrays` wrote, checked bit by bit.

    Args:
        path: The file.
        facts: Must be among the stored facts, with equal values.

    Returns:
        None when there is no such file or it does not verify.
    """
    try:
        with path.open("rb") as file:
            checksum, text = file.readline(100).strip(), file.readline(_MAX_HEADER_BYTES).strip()
            if hashlib.sha256(text).hexdigest().encode() != checksum:
                return None
            header = json.loads(text)
            if header["format"] != _CACHE_FORMAT or any(header["facts"].get(k) != v for k, v in facts.items()):
                return None
            arrays, sha256 = {}, {}
            for name, dtype, shape, expected in header["arrays"]:
                arrays[name] = np.fromfile(file, dtype, math.prod(shape)).reshape(shape)
                sha256[name] = expected
    except (OSError, ValueError):  # shorter than it says
        return None
    if any(array_sha256(array) != sha256[name] for name, array in arrays.items()):
        return None
    return CheckedArrays(arrays, header["facts"], sha256)


def array_sha256(array: np.ndarray) -> str:
    """SHA-256 (hex) over type, shape and content; the same on every machine."""
    little = np.ascontiguousarray(array).astype(array.dtype.newbyteorder("<"), copy=False)
    digest = hashlib.sha256(f"{little.dtype.str} {little.shape}\n".encode())
    digest.update(little.data if little.size else b"")
    return digest.hexdigest()


def image_data(
    train: tuple[np.ndarray, np.ndarray],
    test: tuple[np.ndarray, np.ndarray],
    *,
    class_names: tuple[str, ...],
    warnings: tuple[str, ...] = (),
    pixels_sha256: tuple[str, str] | None = None,
) -> ImageData:
    """Arrays as `ImageData` without a validation split; its fingerprint covers pixels, labels and class names.

    Args:
        train: Pixels, uint8 `(N, H, W, C)`, and labels, whole numbers `(N,)`.
        test: The same for the test split.
        class_names: The name of label 0, 1, ...
        warnings: Sentences for the user.
        pixels_sha256: `array_sha256` of the pixels of both splits, where it is known already.
    """
    pixels_sha256 = pixels_sha256 or (array_sha256(train[0]), array_sha256(test[0]))
    labels_sha256 = (array_sha256(labels.astype(np.int64)) for _, labels in (train, test))
    content = json.dumps([class_names, *pixels_sha256, *labels_sha256])
    _, size, _, channels = train[0].shape
    return ImageData(
        train=_image_set(*train),
        val=None,
        test=_image_set(*test),
        class_names=class_names,
        preprocessing=Preprocessing(image_size=size, channels=channels),
        fingerprint=hashlib.sha256(content.encode()).hexdigest(),
        warnings=warnings,
    )


def _image_set(pixels: np.ndarray, labels: np.ndarray) -> ImageSet:
    return ImageSet(
        images=MemoryImages(torch.from_numpy(np.ascontiguousarray(pixels))),
        labels=torch.from_numpy(labels.astype(np.int64)),
    )
