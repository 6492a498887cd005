"""Lets one process at a time do what several would do at once.

Does not know what is done.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path


def hold_lock(path: Path, when_waiting: Callable[[], object]) -> contextlib.AbstractContextManager[object]:
    """Hold the lock of a name; it falls free at the end of the `with`, and when this process ends, however it ends.

    Args:
        path: The lock file; it and its folder are made when missing.
        when_waiting: Called once if another process holds the lock.

    Raises:
        OSError: The folder cannot be written to, or has no locks.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        import fcntl
    except ImportError:  # no such locks on this system: several may work at once, and the last rename wins
        return contextlib.nullcontext()
    file = open(path, "ab")  # noqa: SIM115 - the caller closes it
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
