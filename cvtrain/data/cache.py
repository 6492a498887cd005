"""Keeps the pixels of many image files, or which cannot be read, in a cache file that is verified whenever it is read.

Does not know torch, labels or splits, nor how files are decoded: a list of files goes in, one uint8 array comes out.

A cache file is the length of a JSON text (8 bytes, little-endian), that text, the raw pixels, and the SHA-256 of all
this. It is written under another name, synced and renamed: a killed build leaves nothing that would be believed.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cvtrain.data.decoders import DecodedResult, DecodeSettings, allocate, decode_files, fill
from cvtrain.data.file_lock import hold_lock
from cvtrain.data.image_file import FileStamp, printable

_FORMAT_VERSION = 2  # 2: grey TIFF of 12 bits, and those whose 0 is white
_LENGTH_BYTES = 8
_DIGEST_BYTES = 32
_BLOCK_BYTES = 2**20
_OTHER_SETTINGS_KEPT = 3  # caches of one folder at other sizes, for those who switch between a few


def default_cache_dir() -> Path | None:
    """`$XDG_CACHE_HOME/cvtrain`, else `~/.cache/cvtrain`; None where there is no home.

    Source: XDG Base Directory Specification 0.8 (a relative `XDG_CACHE_HOME` is ignored).
    """
    configured = os.environ.get("XDG_CACHE_HOME", "")
    if os.path.isabs(configured):
        return Path(configured) / "cvtrain"
    try:
        return Path.home() / ".cache" / "cvtrain"
    except RuntimeError:
        return None


def load_or_decode(
    root: str,
    stamps: Sequence[FileStamp],
    *,
    settings: DecodeSettings,
    cache_dir: str | os.PathLike[str] | None = None,
    num_workers: int = 0,
    progress: Callable[[int, int, str], None] | None = None,
) -> DecodedResult:
    """The pixels of all files below `root`, from the cache if it holds exactly these, else decoded and cached.

    A cache that cannot be read or written costs time, never the result: there is a warning instead.

    Args:
        root: The folder that the names of `stamps` are relative to.
        stamps: The files, in the order wanted.
        settings: Size, channels and resize policy; of size 0 the files are read, and no pixels kept.
        cache_dir: Where caches lie; None: `default_cache_dir()`.
        num_workers: Processes to decode with; 0: this one.
        progress: Called as `progress(done, total, what)`.

    Raises:
        DataError: A decoding process died of a file.
        MemoryLimitError: The pixels do not fit into memory.
    """
    paths = [f"{root}{os.sep}{stamp.name}" for stamp in stamps]

    def decode() -> DecodedResult:
        return decode_files(paths, settings, num_workers=num_workers, progress=progress)

    folder = Path(os.path.expanduser(cache_dir)) if cache_dir is not None else default_cache_dir()
    if folder is None:
        return _with_warnings(decode(), ["there is no home folder to keep a cache in: set data.cache_dir"])
    cache = _CacheFile(folder, root=os.path.realpath(root), settings=settings, key=_key(stamps, settings))
    found, warnings = cache.read()
    if found is not None and _is_still_bad(found, paths):
        return found
    try:
        lock = cache.lock(lambda: progress and progress(0, len(paths), "waiting for another process to decode"))
    except OSError as error:
        return _with_warnings(decode(), [*warnings, _no_cache(folder, error)])
    with lock:
        found, _ = cache.read()  # whoever held the lock may have built just this
        if found is None or not _is_still_bad(found, paths):
            found = decode()
            try:
                cache.write(found)
            except OSError as error:
                warnings.append(_no_cache(folder, error))
    return _with_warnings(found, warnings)


def _is_still_bad(found: DecodedResult, paths: Sequence[str]) -> bool:
    """Whether what could not be read cannot be read now: neither permissions nor disks show in sizes and times."""
    bad = [paths[index] for index, _ in found.bad]
    return len(decode_files(bad, DecodeSettings(0, channels=3, resize="stretch")).bad) == len(bad)


def _with_warnings(result: DecodedResult, warnings: Sequence[str]) -> DecodedResult:
    return DecodedResult(result.pixels, result.bad, result.notes, (*result.warnings, *warnings))


def _no_cache(folder: Path, error: OSError) -> str:
    reason = (error.strerror or str(error)).lower()
    return f"decoded images cannot be kept in {printable(str(folder))} ({reason}): they are decoded at every start"


def _key(stamps: Sequence[FileStamp], settings: DecodeSettings) -> str:
    import PIL

    facts = [_FORMAT_VERSION, PIL.__version__, settings.image_size, settings.channels, settings.resize]
    lines = [repr(facts), *(f"{name}\0{size}\0{mtime}" for name, size, mtime in stamps)]
    return hashlib.sha256("\n".join(lines).encode("utf-8", "surrogateescape")).hexdigest()


class _CacheFile:
    """The file that holds, or will hold, the pixels of one list of files at one setting."""

    def __init__(self, folder: Path, *, root: str, settings: DecodeSettings, key: str) -> None:
        self.folder = folder
        self.root = root
        self.settings = settings
        self.key = key
        self.root_tag = hashlib.sha256(os.fsencode(root)).hexdigest()[:16]
        self.settings_tag = f"{settings.image_size}x{settings.channels}-{settings.resize}"
        self.path = folder / f"{self.root_tag}-{self.settings_tag}-{key[:32]}.images"

    def read(self) -> tuple[DecodedResult | None, list[str]]:
        """What the file holds, or None; and a warning if there is a file that is not what it should be."""
        try:
            with open(self.path, "rb") as file:
                content = allocate(os.fstat(file.fileno()).st_size)
                result = self._verified(content) if fill(file, memoryview(content)) else None
        except OSError:  # none there, or the folder is of no use: then the attempt to write tells
            return None, []
        if result is None:
            return None, [f"the image cache {printable(str(self.path))} was damaged and has been built again"]
        with contextlib.suppress(OSError):
            os.utime(self.path)  # tells `_tidy` that it is in use
        return result, []

    def _verified(self, content: NDArray[np.uint8]) -> DecodedResult | None:
        body, digest = content[:-_DIGEST_BYTES], content[-_DIGEST_BYTES:]
        if hashlib.sha256(body).digest() != digest.tobytes():
            return None
        pixels_start = _LENGTH_BYTES + int.from_bytes(body[:_LENGTH_BYTES].tobytes(), "little")
        header = json.loads(body[_LENGTH_BYTES:pixels_start].tobytes())
        if header["key"] != self.key:
            return None
        bad, notes = (tuple((index, text) for index, text in header[field]) for field in ("bad", "notes"))
        return DecodedResult(pixels=body[pixels_start:].reshape(header["shape"]), bad=bad, notes=notes)

    def lock(self, when_waiting: Callable[[], object]) -> contextlib.AbstractContextManager[object]:
        """Hold the right to build caches of this root; it falls free when this process ends, however it ends.

        Raises:
            OSError: The folder cannot be written to, or has no locks.
        """
        return hold_lock(self.folder / f"{self.root_tag}.lock", when_waiting)

    def write(self, result: DecodedResult) -> None:
        """Keep `result`; call it while the lock is held.

        Raises:
            OSError: The file cannot be written: no space, no permission.
        """
        facts = {"key": self.key, "root": self.root, "shape": result.pixels.shape}
        header = json.dumps({**facts, "bad": result.bad, "notes": result.notes}).encode()
        temporary = self.folder / f".tmp-{self.root_tag}-{os.getpid()}-{secrets.token_hex(4)}"
        digest = hashlib.sha256()
        try:
            with open(temporary, "xb") as file:
                for block in (len(header).to_bytes(_LENGTH_BYTES, "little"), header, *_blocks(result.pixels)):
                    digest.update(block)
                    file.write(block)
                file.write(digest.digest())
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, self.path)
        except BaseException:
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise
        self._tidy()

    def _tidy(self) -> None:
        """Remove what no start will read again: files of dead builders, outdated caches, all but a few settings."""
        with contextlib.suppress(OSError):  # somebody else may be tidying too
            for path in self.folder.glob(f".tmp-{self.root_tag}-*"):
                path.unlink()  # ours is renamed, and only the holder of the lock writes
            others = [path for path in self.folder.glob(f"{self.root_tag}-*.images") if path != self.path]
            others.sort(key=lambda path: path.stat().st_mtime, reverse=True)
            outdated = [path for path in others if path.name.startswith(f"{self.root_tag}-{self.settings_tag}-")]
            current = [path for path in others if path not in outdated]
            for path in outdated + current[_OTHER_SETTINGS_KEPT:]:
                path.unlink()


def _blocks(pixels: NDArray[np.uint8]) -> Iterator[memoryview]:
    view = memoryview(pixels.reshape(-1))
    return (view[start : start + _BLOCK_BYTES] for start in range(0, len(view), _BLOCK_BYTES))
