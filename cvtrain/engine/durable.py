"""Files that are on the disk, whole and under their own names, or not there at all.

Knows bytes and names; neither torch nor what is in a file.
"""

from __future__ import annotations

import contextlib
import errno
import os
from pathlib import Path

_NO_FOLDER_SYNC = (errno.EINVAL, errno.ENOTSUP, errno.EBADF)
"""What file systems answer that sync no folders, as some network shares: their names are as durable as they can be."""


def write_durably(final: Path, data: bytes | memoryview, *, temporary: Path) -> None:
    """Writes a file under a temporary name, which never stays, and gives it its own once all of it is on the disk.

    Args:
        final: Replaced in one move where it exists: readers see the old or the new content, never a part.
        data: All of it.
        temporary: In the same folder; what a killed process left there is written over.

    Raises:
        OSError: Of the first call that failed.
    """
    try:
        _write_synced(temporary, memoryview(data))
        os.replace(temporary, final)
        sync_folder(final.parent)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise


def _write_synced(path: Path, data: memoryview) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
    try:
        write_all(descriptor, data)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_all(descriptor: int, data: bytes | memoryview) -> None:
    """Writes until nothing is left: one call may take a part only, and the next one says why.

    Raises:
        OSError: Some of it could not be written.
    """
    while data:
        data = data[os.write(descriptor, data) :]


def sync_folder(folder: Path) -> None:
    """Makes names in a folder durable.

    Raises:
        OSError: They may not be.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _NO_FOLDER_SYNC:
            raise
    finally:
        os.close(descriptor)
