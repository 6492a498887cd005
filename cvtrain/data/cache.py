"""Decodes many image files in parallel and keeps the pixels in a cache file that is verified whenever it is read.

Does not know torch, labels or splits: a list of files goes in, one uint8 array comes out.

A cache file is the length of a JSON text (8 bytes, little-endian), that text, the raw pixels, and the SHA-256 of all
this. It is written under another name, synced and renamed: a killed build leaves nothing that would be believed.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import secrets
import selectors
import signal
import subprocess
import sys
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cvtrain.data.decode import ImageError, decode_with_notes, printable
from cvtrain.errors import DataError, MemoryLimitError

_FORMAT_VERSION = 1
_LENGTH_BYTES = 8
_DIGEST_BYTES = 32
_BLOCK_BYTES = 2**20
_FILES_PER_JOB = 64  # small enough that a worker whose parent was killed ends within seconds
_OTHER_SETTINGS_KEPT = 3  # caches of one folder at other sizes, for those who switch between a few
_WORKER_COMMAND = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); from cvtrain.data.cache import serve; serve()"
)


class FileStamp(NamedTuple):
    """How a file is recognised without opening it: `name` relative to the root, `size_bytes`, `mtime_ns`."""

    name: str
    size_bytes: int
    mtime_ns: int


@dataclass(frozen=True)
class DecodeSettings:
    """The arguments of `decode_image` that all files of a data set share."""

    image_size: int
    channels: int
    resize: str

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """`(H, W, C)`."""
        return self.image_size, self.image_size, self.channels


_Replies = Generator[tuple[int, dict[str, Any]]]


@dataclass(frozen=True)
class DecodedResult:
    """The pixels of a list of files.

    Args:
        pixels: uint8 `(N, H, W, C)`: the readable files in the order of the list.
        bad: `(index in the list, reason)` of each file that cannot be read, by index.
        notes: `(index in the list, note)` of what is odd; see `cvtrain.data.decode.DecodeResult`.
        warnings: What the user should know of the cache.
    """

    pixels: NDArray[np.uint8]
    bad: tuple[tuple[int, str], ...]
    notes: tuple[tuple[int, str], ...]
    warnings: tuple[str, ...] = field(default=())


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
        settings: Size, channels and resize policy.
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

    folder = Path(cache_dir).expanduser() if cache_dir is not None else default_cache_dir()
    if folder is None:
        return _with_warnings(decode(), ["there is no home folder to keep a cache in: set data.cache_dir"])
    cache = _CacheFile(folder, root=os.path.realpath(root), settings=settings, key=_key(stamps, settings))
    found, warnings = cache.read()
    if found is not None:
        return found
    try:
        lock = cache.lock(lambda: progress and progress(0, len(paths), "waiting for another process to decode"))
    except OSError as error:
        return _with_warnings(decode(), [*warnings, _no_cache(folder, error)])
    with lock:
        found, _ = cache.read()  # whoever held the lock may have built just this
        if found is None:
            found = decode()
            try:
                cache.write(found)
            except OSError as error:
                warnings.append(_no_cache(folder, error))
    return _with_warnings(found, warnings)


def decode_files(
    paths: Sequence[str],
    settings: DecodeSettings,
    *,
    num_workers: int = 0,
    progress: Callable[[int, int, str], None] | None = None,
) -> DecodedResult:
    """Decode all files, in this process or in `num_workers` others; the result is the same.

    Raises:
        DataError: A decoding process died of a file.
        MemoryLimitError: The pixels do not fit into memory.
    """
    pixels = _empty(len(paths), *settings.image_shape)
    bad: list[tuple[int, str]] = []
    notes: list[tuple[int, str]] = []
    done = 0
    if num_workers == 0 or not sys.executable:
        jobs = _jobs_here(paths, settings, pixels)
    else:
        jobs = _jobs_in_processes(paths, settings, pixels, num_workers)
    with contextlib.closing(jobs):  # ends the processes at once when `progress` raises
        for start, reply in jobs:
            bad += [(start + row, reason) for row, reason in reply["bad"]]
            notes += [(start + row, note) for row, note in reply["notes"]]
            done += reply["count"]
            if progress is not None:
                progress(done, len(paths), "decoding images")
    pixels = _drop_rows(pixels, [index for index, _ in bad])
    return DecodedResult(pixels=pixels, bad=tuple(sorted(bad)), notes=tuple(sorted(notes)))


def serve() -> None:
    """A decoding process: does jobs from stdin until that closes, which it also does when the parent dies."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    replies = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever a library may print must not get between the replies
    with contextlib.suppress(BrokenPipeError):
        for line in sys.stdin.buffer:
            job = json.loads(line)
            settings = DecodeSettings(**job["settings"])
            rows = np.zeros((len(job["paths"]), *settings.image_shape), dtype=np.uint8)
            reply = _decode_rows(job["paths"], settings, rows)
            replies.write(json.dumps(reply).encode() + b"\n")
            replies.write(memoryview(rows).cast("B"))
            replies.flush()


def _decode_rows(paths: Sequence[str], settings: DecodeSettings, rows: NDArray[np.uint8]) -> dict[str, Any]:
    """Fill `rows` `(len(paths), H, W, C)`; the rows of bad images are left alone."""
    bad, notes = [], []
    for row, path in enumerate(paths):
        try:
            result = decode_with_notes(path, **vars(settings))
        except ImageError as error:
            bad.append((row, error.reason))
        else:
            rows[row] = result.pixels
            notes += [(row, note) for note in result.notes]
    return {"count": len(paths), "bad": bad, "notes": notes}


def _empty(*shape: int) -> NDArray[np.uint8]:
    try:
        return np.empty(shape, dtype=np.uint8)
    except MemoryError as error:
        message = f"the decoded images do not fit into memory ({math.prod(shape) / 1e9:.1f} GB)"
        raise MemoryLimitError(message, hint="data.loader=files reads them as they are needed") from error


def _jobs_here(paths: Sequence[str], settings: DecodeSettings, pixels: NDArray[np.uint8]) -> _Replies:
    """Decode job by job into `pixels`; yields the index of each job's first file and its reply."""
    for start in range(0, len(paths), _FILES_PER_JOB):
        end = start + _FILES_PER_JOB
        yield start, _decode_rows(paths[start:end], settings, pixels[start:end])


def _jobs_in_processes(
    paths: Sequence[str], settings: DecodeSettings, pixels: NDArray[np.uint8], num_workers: int
) -> _Replies:
    """Hand jobs to worker processes, each of which has one at a time; replies come in any order.

    These are plain child processes, not multiprocessing's: those import the main script again, which fails for
    scripts without a `__main__` guard, and inherit threads and locks when forked.
    """
    starts = iter(range(0, len(paths), _FILES_PER_JOB))
    with contextlib.ExitStack() as stack:
        selector = stack.enter_context(selectors.DefaultSelector())

        def send(worker: subprocess.Popen[bytes]) -> None:
            start = next(starts, None)
            if start is None:
                selector.unregister(worker.stdout)
                return
            job = {"settings": vars(settings), "paths": paths[start : start + _FILES_PER_JOB]}
            selector.modify(worker.stdout, selectors.EVENT_READ, (worker, start))
            with contextlib.suppress(BrokenPipeError):  # it died: the reply that does not come tells
                worker.stdin.write(json.dumps(job).encode() + b"\n")
                worker.stdin.flush()

        for _ in range(min(num_workers, -(-len(paths) // _FILES_PER_JOB))):
            worker = stack.enter_context(_worker())
            selector.register(worker.stdout, selectors.EVENT_READ)
            send(worker)
        while selector.get_map():
            for key, _ in selector.select():
                worker, start = key.data
                job_paths = paths[start : start + _FILES_PER_JOB]
                reply = _receive(worker, pixels[start : start + _FILES_PER_JOB])
                if reply is None:
                    raise _died(worker, job_paths)
                send(worker)
                yield start, reply


@contextlib.contextmanager
def _worker() -> Iterator[subprocess.Popen[bytes]]:
    """A decoding process, ended at the end of the block; outside our process group, so Ctrl-C does not reach it."""
    worker = subprocess.Popen(
        [sys.executable, "-c", _WORKER_COMMAND, json.dumps(sys.path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
        **({"process_group": 0} if os.name == "posix" else {}),
    )
    try:
        yield worker
    finally:
        worker.kill()
        with contextlib.suppress(OSError):
            worker.stdin.close()
        worker.stdout.close()
        worker.wait()


def _receive(worker: subprocess.Popen[bytes], rows: NDArray[np.uint8]) -> dict[str, Any] | None:
    """The reply to a job, with its pixels read into `rows`; None if the worker ended instead."""
    line = worker.stdout.readline()
    if not line.endswith(b"\n") or not _fill(worker.stdout, memoryview(rows).cast("B")):
        return None
    return json.loads(line)


def _fill(stream: BinaryIO, buffer: memoryview) -> bool:
    """Read until `buffer` is full; False if the stream ends before."""
    filled = 0
    while filled < len(buffer):
        count = stream.readinto(buffer[filled : filled + _BLOCK_BYTES])
        if not count:
            return False
        filled += count
    return True


def _died(worker: subprocess.Popen[bytes], paths: Sequence[str]) -> Exception:
    code = worker.wait()
    where = f"between {printable(paths[0])} and {printable(paths[-1])}"
    if code == -getattr(signal, "SIGKILL", 9):
        message = f"a decoding process was killed, most likely for want of memory, {where}"
        return MemoryLimitError(message, hint="data.num_workers=1 needs the least memory")
    return DataError(
        f"a decoding process ended with code {code} {where}",
        hint="data.num_workers=0 decodes without other processes; a file there may be damaged",
    )


def _drop_rows(pixels: NDArray[np.uint8], dropped: Sequence[int]) -> NDArray[np.uint8]:
    """`pixels` without some rows, moved together in place: there may be no room for a second copy."""
    if not dropped:
        return pixels
    kept = np.setdiff1d(np.arange(len(pixels)), dropped)
    for start in range(0, len(kept), 256):
        block = kept[start : start + 256]
        pixels[start : start + len(block)] = pixels[block]
    return pixels[: len(kept)]


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
                content = _empty(os.fstat(file.fileno()).st_size)
                result = self._verified(content) if _fill(file, memoryview(content)) else None
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
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            import fcntl
        except ImportError:  # no such locks on this system: two may build at once, and the last rename wins
            return contextlib.nullcontext()
        file = open(self.folder / f"{self.root_tag}.lock", "ab")  # noqa: SIM115 - the caller closes it
        try:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                when_waiting()
                fcntl.flock(file, fcntl.LOCK_EX)
        except BaseException:
            file.close()
            raise
        return file

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
