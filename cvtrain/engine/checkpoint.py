"""Checkpoints that cannot lie: complete, durable and verified, or not there at all.

Knows files and plain state, not what the state means. A file is written under a temporary name, synced, and renamed to
a name that holds its own SHA-256; it holds tensors and plain values only, and nothing is ever unpickled freely.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import os
import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import torch

from cvtrain.engine.durable import sync_folder, write_durably
from cvtrain.engine.plain_state import check_archive, check_plain
from cvtrain.errors import CheckpointError, OutputError

FORMAT = 1
_NAME = re.compile(r"^(step|best)-(\d{9})-([0-9a-f]{16})\.ckpt$")
_TEMPORARY = re.compile(r"^\.tmp-(\d+)-")
_NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK)
"""What file systems without hard links answer."""


@dataclass(frozen=True)
class CheckpointFile:
    """A checkpoint as its name describes it.

    Args:
        path: Of the file.
        kind: `step` or `best`.
        step: Steps taken when it was written.
        digest: The first 16 hex digits of the SHA-256 of its bytes.
    """

    path: Path
    kind: str
    step: int
    digest: str


def list_checkpoints(folder: Path, kind: str) -> list[CheckpointFile]:
    """The checkpoints of a kind, by step, oldest first; names decide, not times of files.

    Raises:
        CheckpointError: The folder cannot be read.
    """
    try:
        return _named_in(folder, kind)
    except OSError as error:
        raise CheckpointError(f"{folder} cannot be read: {error.strerror}") from None


def _named_in(folder: Path, kind: str) -> list[CheckpointFile]:
    try:
        names = os.listdir(folder)
    except (FileNotFoundError, NotADirectoryError):
        return []
    matches = [(folder / name, _NAME.match(name)) for name in names]
    found = [CheckpointFile(p, m[1], int(m[2]), m[3]) for p, m in matches if m and m[1] == kind]
    return sorted(found, key=lambda f: (f.step, f.path.name))


def save_checkpoint(
    folder: Path, state: dict[str, Any], *, step: int, sync_first: Callable[[], None] = lambda: None
) -> CheckpointFile:
    """Writes a checkpoint so that it exists wholly or not at all, whatever happens meanwhile.

    Args:
        folder: Of the checkpoints of a run.
        state: Tensors and plain values.
        step: Steps taken so far.
        sync_first: Makes what the state refers to (rows of metrics) durable, before the checkpoint is.

    Raises:
        OutputError: The disk is full or the folder cannot be written; nothing is left behind.
    """
    buffer = _roomy_buffer(state)
    torch.save({**state, "format": FORMAT, "torch": str(torch.__version__)}, buffer)
    buffer.truncate()
    data = buffer.getbuffer()
    digest = hashlib.sha256(data).hexdigest()[:16]
    final = folder / f"step-{step:09d}-{digest}.ckpt"
    sync_first()
    try:
        _write(final, data)
    except OSError as error:
        raise OutputError(
            f"the checkpoint of step {step} could not be written to {folder}: {error.strerror}"
        ) from error
    return CheckpointFile(final, "step", step, digest)


def _write(final: Path, data: memoryview) -> None:
    write_durably(final, data, temporary=final.with_name(f".tmp-{os.getpid()}-{final.name}"))


def _roomy_buffer(state: Any) -> io.BytesIO:
    """A buffer with room for a state: one that grows is copied again and again, and in memory twice meanwhile."""

    def num_bytes(value: Any) -> int:
        if isinstance(value, torch.Tensor):
            return value.nbytes + 512
        values = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ()
        return 512 + sum(map(num_bytes, values))

    buffer = io.BytesIO()
    buffer.seek(num_bytes(state))
    buffer.write(b"\0")
    buffer.seek(0)
    return buffer


def mark_best(checkpoint: CheckpointFile) -> CheckpointFile:
    """Gives a checkpoint a second name, `best-...`, as a hard link; older best names go only after it is durable.

    Raises:
        OutputError: The link cannot be made.
    """
    folder = checkpoint.path.parent
    path = folder / checkpoint.path.name.replace("step-", "best-", 1)
    try:
        with contextlib.suppress(FileExistsError):
            _link(checkpoint.path, path)
        sync_folder(folder)
        best = _named_in(folder, "best")
    except OSError as error:
        raise OutputError(f"{path.name} could not be made in {folder}: {error.strerror}") from error
    for old in best:
        if old.path != path:
            _remove(old)
    return CheckpointFile(path, "best", checkpoint.step, checkpoint.digest)


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        _write(target, memoryview(source.read_bytes()))


def prune(newest: CheckpointFile, *, keep: int) -> None:
    """Removes all but the newest `keep` step checkpoints, last of all; failures cost disk space only.

    Args:
        newest: Was just written: of two with its step (before and after an evaluation) it is the one that stays.
        keep: How many steps to keep a checkpoint of.
    """
    files = []
    with contextlib.suppress(OSError):
        files = _named_in(newest.path.parent, "step")
    earlier = [file for file in files if file.step != newest.step]
    same_step = [file for file in files if file.step == newest.step and file.path != newest.path]
    for old in same_step + earlier[: len(earlier) + 1 - keep]:
        _remove(old)


def _remove(file: CheckpointFile) -> None:
    with contextlib.suppress(OSError):
        file.path.unlink()


def remove_leftovers(folder: Path) -> None:
    """Removes temporary files of processes that were killed while saving; the caller holds the lock of the run."""
    for path in folder.glob(".tmp-*"):
        if _TEMPORARY.match(path.name):
            with contextlib.suppress(OSError):
                path.unlink()


@dataclass(frozen=True)
class Loaded:
    """A state and where it came from.

    Args:
        state: As it was given to `save_checkpoint`.
        path: The file.
        notes: Sentences about files that were passed over.
    """

    state: dict[str, Any]
    path: Path
    notes: tuple[str, ...] = ()


class _DamagedError(CheckpointError):
    """The content of a file is wrong, so it will never be a checkpoint again."""


class _UnreadableError(_DamagedError):
    """The disk cannot give the content; that may be for ever, or once."""


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Reads and verifies one checkpoint file; no code in it can run.

    Raises:
        CheckpointError: Missing, damaged, of another format, or no checkpoint of cvtrain.
    """
    match = _NAME.match(path.name)
    try:
        with open(path, "rb") as file:  # not read as a whole: a big model would be in memory twice
            start, digest = file.read(64), hashlib.file_digest(_rewound(file), "sha256").hexdigest()
            if match and digest[:16] != match[3]:
                raise _DamagedError(f"{path} is damaged: its content does not match the checksum in its name")
            state = _load(path, _rewound(file), start)
    except OSError as error:
        # What is no fault of the disk can be mended, such as permissions and mounts.
        kind = _UnreadableError if error.errno == errno.EIO else CheckpointError
        raise kind(f"{path} cannot be read: {error.strerror}") from None
    if not isinstance(state, dict) or not isinstance(state.get("format"), int):
        raise _DamagedError(f"{path} is not a checkpoint of cvtrain: it has no format number")
    if state["format"] != FORMAT:
        raise CheckpointError(
            f"{path} has format {state['format']}, written with torch {str(state.get('torch'))[:40]};"
            f" this version of cvtrain reads format {FORMAT}"
        )
    return state


def _rewound(file: BinaryIO) -> BinaryIO:
    file.seek(0)
    return file


def _load(path: Path, file: BinaryIO, start: bytes) -> Any:
    try:
        check_archive(file)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of kinds of tensors that are refused anyhow
            state = torch.load(_rewound(file), map_location="cpu", weights_only=True)
        check_plain(state, num_bytes=os.fstat(file.fileno()).st_size)
        return state
    except (MemoryError, OSError):
        raise
    except Exception as error:  # a foreign file makes the reader fail in any way
        raise _DamagedError(f"{path} is not a checkpoint of cvtrain: {_what_it_is(start, error)}") from None


def _what_it_is(data: bytes, error: Exception) -> str:
    """What a file that cannot be loaded seems to be, in words of ours where we have them."""
    start = data[:64].lstrip().lower()
    if not data:
        return "it is empty"
    if start.startswith((b"<!doctype html", b"<html")):
        return "it is a web page"
    if not data.startswith(b"PK\x03\x04"):
        return "it is no file of torch.save"
    if "Weights only load failed" in str(error):
        return "it holds more than tensors and plain values"
    return str(error).splitlines()[0][:120] if str(error) else type(error).__name__


def load_newest(folder: Path, kind: str = "step", *, set_aside: bool = True) -> Loaded | None:
    """The newest checkpoint that verifies, and what is to be told of damaged ones.

    Args:
        folder: Of the checkpoints of a run.
        kind: `step` or `best`.
        set_aside: Whether damaged files get `.bad` added to their names; for the process that holds the run's lock.

    Returns:
        None when there is no checkpoint at all.

    Raises:
        CheckpointError: There are checkpoints, and all are damaged, none of which is deleted; or one, or the folder,
            cannot be read although nothing says that it is damaged.
    """
    notes: list[str] = []
    for file in reversed(list_checkpoints(folder, kind)):
        try:
            return Loaded(read_checkpoint(file.path), file.path, tuple(notes))
        except _DamagedError as error:
            notes.append(error.message)
            if set_aside and not isinstance(error, _UnreadableError):
                with contextlib.suppress(OSError):
                    file.path.rename(file.path.with_name(file.path.name + ".bad"))
        except CheckpointError:
            if file.path.exists():
                raise  # else the run that is at work here has removed it since
    damaged = sorted(path.name for path in folder.glob(f"{kind}-*.ckpt.bad"))
    if notes or damaged:
        reason = notes[0] if notes else f"damaged: {damaged[-1]}"
        raise CheckpointError(
            f"every {kind} checkpoint in {folder} is damaged ({max(len(notes), len(damaged))}):\n{reason}",
            hint="start a new run; the damaged files are kept with .bad added to their names",
        )
    return None
