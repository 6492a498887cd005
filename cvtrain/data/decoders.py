"""Decodes many image files into one array, in this process or in several others that import no torch.

Does not know caches, labels or splits, nor by which rule a single file is decoded.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import selectors
import signal
import subprocess
import sys
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from cvtrain.data.decode import check_image, decode_with_notes
from cvtrain.data.image_file import ImageError, printable
from cvtrain.errors import DataError, MemoryLimitError

_BLOCK_BYTES = 2**20
_FILES_PER_JOB = 64  # small enough that a worker whose parent was killed ends within seconds
_WORKER_COMMAND = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); from cvtrain.data.decoders import serve; serve()"
)


@dataclass(frozen=True)
class DecodeSettings:
    """The arguments of `decode_image` that all files of a data set share; of size 0 they are read and not kept."""

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
    pixels = allocate(len(paths), *settings.image_shape)
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
                progress(done, len(paths), "decoding images" if settings.image_size else "checking images")
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
            replies.write(rows.reshape(-1).data)
            replies.flush()


def _decode_rows(paths: Sequence[str], settings: DecodeSettings, rows: NDArray[np.uint8]) -> dict[str, Any]:
    """Fill `rows` `(len(paths), H, W, C)`; the rows of bad images are left alone."""
    bad, notes = [], []
    for row, path in enumerate(paths):
        try:
            if settings.image_size == 0:
                found = check_image(path, channels=settings.channels)
            else:
                result = decode_with_notes(path, **vars(settings))
                rows[row], found = result.pixels, result.notes
        except ImageError as error:
            bad.append((row, error.reason))
        else:
            notes += [(row, note) for note in found]
    return {"count": len(paths), "bad": bad, "notes": notes}


def allocate(*shape: int) -> NDArray[np.uint8]:
    """A uint8 array that holds anything.

    Raises:
        MemoryLimitError: There is no room for it.
    """
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
    if not line.endswith(b"\n") or not fill(worker.stdout, rows.reshape(-1).data):
        return None
    return json.loads(line)


def fill(stream: BinaryIO, buffer: memoryview) -> bool:
    """Read until the bytes of `buffer` are full; False if the stream ends before."""
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
