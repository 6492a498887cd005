"""Folders that no two processes share: made under a name of its own, and held by one process at a time.

Knows names and locks; not what the folders are for.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import socket
import time
from datetime import datetime
from pathlib import Path

from cvtrain.errors import ConfigError, OutputError


def new_folder(parent: Path, *, suffix: str | None = None) -> Path:
    """Makes a new folder named by the time, which no other process has.

    Raises:
        OutputError: It cannot be made.
    """
    try:
        while True:
            name = datetime.now().strftime("%Y-%m-%d_%H-%M-%S-%f") + (f"-{suffix}" if suffix else "")
            with contextlib.suppress(FileExistsError):
                (parent / name).mkdir(parents=True)
                return parent / name
    except OSError as error:
        raise not_writable(parent, error) from None


def missing_folders(folder: Path) -> list[Path]:
    """Of a folder and those above it the ones that do not exist, the innermost first."""
    return [each for each in (folder, *folder.parents) if not os.path.exists(each)]


def not_writable(folder: Path, error: OSError) -> OutputError:
    """What to say of a folder in which none can be made."""
    return OutputError(
        f"cannot write to the output folder {folder}: {error.strerror}",
        hint="choose another one with output_dir=FOLDER",
    )


class FolderLock:
    """Holds a folder until it is released or the process ends, however that ends.

    Args:
        folder: That exists.

    Raises:
        ConfigError: Another process is at work in it.
        OutputError: The folder cannot be written.
    """

    def __init__(self, folder: Path) -> None:
        self._descriptor: int | None = None
        try:
            self._descriptor = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.ftruncate(self._descriptor, 0)
            os.pwrite(self._descriptor, f"process {os.getpid()} on {socket.gethostname()}".encode(), 0)
        except BlockingIOError:
            assert self._descriptor is not None, "what cannot be locked was opened"
            holder = _holder(self._descriptor)
            self._forget()
            raise ConfigError(f"{folder} is in use by {holder}", hint="wait until it ends, or stop it") from None
        except OSError as error:
            self._forget()
            raise OutputError(f"cannot write to {folder}: {error.strerror}") from None
        # A worker that outlives a killed process for some seconds must not keep its lock.
        os.register_at_fork(after_in_child=self._forget)

    def release(self) -> None:
        """Gives the folder back."""
        if self._descriptor is not None:
            fcntl.flock(self._descriptor, fcntl.LOCK_UN)
            self._forget()

    def _forget(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def _holder(descriptor: int) -> str:
    """Who holds a lock, by its file: just after it was taken, that may still name a process that is gone."""
    for _ in range(20):
        words = os.pread(descriptor, 200, 0).decode("utf-8", "replace")
        if words and not _is_gone(words):
            return words
        time.sleep(0.05)
    return "another process"


def _is_gone(words: str) -> bool:
    """Whether what a lock file says names a process of this machine that has ended."""
    named = re.fullmatch(r"process (\d{1,9}) on (.*)", words)
    if named is None or named[2] != socket.gethostname():
        return False
    try:
        os.kill(int(named[1]), 0)
    except ProcessLookupError:
        return True
    except OSError:  # somebody else's
        return False
    return False
