"""Fetches one published file over https, resumes what was cut off, and lets nothing unverified get its name.

Does not know what is in the file, nor which data set it belongs to.
"""

from __future__ import annotations

import contextlib
import errno
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from cvtrain.data.published import Download, data_folder, difference, plain_address, verify
from cvtrain.data.reasons import reason
from cvtrain.data.transfer import AttemptFailed, attempt, https_only_opener, length_bytes
from cvtrain.errors import DataError

if TYPE_CHECKING:
    from cvtrain.data.images import Progress

_PAUSES_SECONDS = (0.3, 1.0)  # between three attempts in a row that brought nothing
_PROGRESS_BYTES = 1 << 20  # an attempt that brought this much does not count as one of the three
_MAX_ATTEMPTS = 100
_LOCK_POLL_SECONDS = 0.1


def fetch(download: Download, root: Path | str, *, enabled: bool = True, progress: Progress | None = None) -> Path:
    """The verified file under `root`; downloaded when it is not there yet.

    Of several processes one downloads and the others wait. What was cut off is kept as `<file_name>.part` and
    continued; the file gets its own name only after its checksum was found right.

    Args:
        download: What to get.
        root: The data folder; made when missing.
        enabled: False: never touch the network, only say what is missing.
        progress: Called with bytes done, bytes in all (0 when unknown) and what is going on.

    Raises:
        DataError: No such file and no way to get it (no network, an answer that is not the file, a full disk, a
            folder that cannot be written), or a file whose checksum is wrong.
    """
    folder = data_folder(root)
    path = folder / download.file_name
    if path.is_file():
        verify(path, download)
        return path
    if not enabled:
        raise _missing(download, folder, "data.download=false")
    if urlsplit(download.address).scheme != "https":
        raise _missing(download, folder, "only https addresses are allowed")
    if "@" in urlsplit(download.address).netloc:  # it would be asked for as a part of the server's name
        raise _missing(download, folder, "an address with a password in it is not asked for")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _only_one(folder / f".{download.file_name}.lock", progress):
            if not path.is_file():
                _download(download, folder, progress)
    except OSError as error:
        raise _missing(download, folder, f"{folder} cannot be written: {reason(error)}") from error
    verify(path, download)
    return path


def _download(download: Download, folder: Path, progress: Progress | None) -> None:
    """Attempts until the part is whole and verified, then gives it its name; the caller holds the lock."""
    part = folder / f"{download.file_name}.part"
    opener = https_only_opener()
    failures = 0
    for _ in range(_MAX_ATTEMPTS):
        before = length_bytes(part)
        try:
            attempt(download, part, opener=opener, progress=progress)
            if not (found := difference(part, download)):
                break
            part.unlink()
            if before == 0:
                raise _wrong_content(download, found)
            # The part may have been begun elsewhere: a clean attempt before the server is blamed.
        except AttemptFailed as failed:
            failures = 1 if length_bytes(part) - before >= _PROGRESS_BYTES else failures + 1
            if failed.final or failures > len(_PAUSES_SECONDS):
                raise _missing(download, folder, failed.reason) from failed
            time.sleep(_PAUSES_SECONDS[failures - 1])
    else:
        raise _missing(download, folder, f"it broke off {_MAX_ATTEMPTS} times")
    with part.open("rb") as file:
        os.fsync(file.fileno())
    part.replace(folder / download.file_name)
    _fsync_folder(folder)


@contextlib.contextmanager
def _only_one(lock: Path, progress: Progress | None) -> Iterator[None]:
    """Holds an advisory lock that dies with its process; elsewhere than on POSIX systems it locks nothing."""
    try:
        import fcntl
    except ImportError:
        yield
        return
    while True:
        with lock.open("ab") as file:
            if not _locked(fcntl, file.fileno()):
                if progress is not None:
                    progress(0, 0, "waiting for another process that downloads the same file")
                time.sleep(_LOCK_POLL_SECONDS)
                continue
            if not _same_file(file.fileno(), lock):  # its former holder removed it: lock the new one
                continue
            try:
                yield
            finally:
                lock.unlink(missing_ok=True)
            return


def _locked(fcntl, descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS):
            raise
    return True  # a file system without locks: the checksum still guards the result


def _same_file(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def _fsync_folder(folder: Path) -> None:
    with contextlib.suppress(OSError):  # some file systems cannot; the file itself is synced
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _missing(download: Download, folder: Path, why: str) -> DataError:
    size = f" ({download.size_bytes / 1e6:,.1f} MB)" if download.size_bytes else ""
    also = f"\nas good as it: {', '.join(download.also)}" if download.also else ""
    return DataError(
        f"{download.file_name}{size} is not in {folder} and was not downloaded: {why}\n"
        f"address: {plain_address(download.address)}{also}",
        hint=f"Put the file into {folder} by hand, or name the folder that has it: data.root=FOLDER",
    )


def _wrong_content(download: Download, found: str) -> DataError:
    return DataError(
        f"{plain_address(download.address)} did not send the published file:\n{found}",
        hint=f"Nothing of it was kept. Put a good {download.file_name} into the data folder: data.root=FOLDER",
    )
