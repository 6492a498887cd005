"""Fetches one published file over https, resumes what was cut off, and lets nothing unverified get its name.

Does not know what is in the file, nor which data set it belongs to.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import shutil
import socket
import ssl
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit

from cvtrain.errors import DataError

if TYPE_CHECKING:
    from cvtrain.data.images import Progress

_CHUNK_BYTES = 1 << 18
_TIMEOUT_SECONDS = 20.0
_PAUSES_SECONDS = (0.3, 1.0)  # between three attempts in a row that brought nothing
_PROGRESS_BYTES = 1 << 20  # an attempt that brought this much does not count as one of the three
_MAX_ATTEMPTS = 100
_LOCK_POLL_SECONDS = 0.1
_RETRIED_STATUS = frozenset({408, 416, 425, 429, 500, 502, 503, 504})


@dataclass(frozen=True)
class Download:
    """A file that somebody publishes, and how to know that it arrived whole.

    Args:
        address: Where it is published; https only.
        file_name: Its name under the data folder.
        size_bytes: Its exact length; None when unknown.
        sha256: Hex digest; checked when given.
        md5: Hex digest, for publishers who give no better one; checked when there is no `sha256`.
        also: Other names under the data folder that serve as well; only told to people, never read here.
    """

    address: str
    file_name: str
    size_bytes: int | None = None
    sha256: str | None = None
    md5: str | None = None
    also: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        assert self.sha256 or self.md5, "a download without a checksum cannot be verified"
        assert Path(self.file_name).name == self.file_name, "a plain file name"


class _AttemptFailed(Exception):  # noqa: N818 - never leaves this module
    """One attempt brought no file; `final` when another attempt cannot help."""

    def __init__(self, reason: str, *, final: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.final = final


def data_folder(root: Path | str) -> Path:
    """`root` with `~` expanded, relative to the current directory, symbolic links followed.

    Raises:
        DataError: `root` is a file, or may not be looked at.
    """
    try:
        folder = Path(root).expanduser().resolve()
        is_file, is_open = folder.is_file(), not folder.exists() or os.access(folder, os.R_OK | os.X_OK)
    except (OSError, RuntimeError) as error:  # no permission on the way, a loop of links, no such user
        raise DataError(f"{root} cannot be read: {_words(error)}", hint="Name another: data.root=FOLDER") from error
    if is_file:
        raise DataError(f"{folder} is a file, not a folder", hint=f"Name its folder: data.root={folder.parent}")
    if not is_open:
        raise DataError(f"{folder} cannot be read: no permission", hint="Name another: data.root=FOLDER")
    return folder


def verify(path: Path, download: Download) -> None:
    """Compares the file at `path` with the published checksum, before anybody opens it.

    Raises:
        DataError: It differs, or cannot be read.
    """
    try:
        difference = _difference(path, download)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {_words(error)}") from error
    if difference:
        raise DataError(
            f"{path} is not the published file:\n{difference}",
            hint="Delete the file and start again, or put a good copy there.",
        )


def matches(path: Path, download: Download) -> bool:
    """Whether there is a readable file at `path` that is the published one."""
    with contextlib.suppress(OSError):
        return _difference(path, download) is None
    return False


def _difference(path: Path, download: Download) -> str | None:
    """Two lines that name both checksums; None when they are equal."""
    kind, expected = ("SHA-256", download.sha256) if download.sha256 else ("MD5", download.md5)
    with path.open("rb") as file:
        found = hashlib.file_digest(file, kind.replace("-", "").lower()).hexdigest()
    if found == expected:
        return None
    return f"{kind} is {found} ({_size(path):,} bytes),\nit should be {expected}"


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
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _only_one(folder / f".{download.file_name}.lock", progress):
            if not path.is_file():
                _download(download, folder, progress)
    except OSError as error:
        raise _missing(download, folder, f"{folder} cannot be written: {_words(error)}") from error
    verify(path, download)
    return path


def _download(download: Download, folder: Path, progress: Progress | None) -> None:
    """Attempts until the part is whole and verified, then gives it its name; the caller holds the lock."""
    part = folder / f"{download.file_name}.part"
    opener = _https_only_opener()
    failures = 0
    for _ in range(_MAX_ATTEMPTS):
        before = _size(part)
        try:
            _attempt(download, part, opener, progress)
            if not (difference := _difference(part, download)):
                break
            part.unlink()
            if before == 0:
                raise _wrong_content(download, difference)
            # The part may have been begun elsewhere: a clean attempt before the server is blamed.
        except _AttemptFailed as failed:
            failures = 1 if _size(part) - before >= _PROGRESS_BYTES else failures + 1
            if failed.final or failures > len(_PAUSES_SECONDS):
                raise _missing(download, folder, failed.reason) from failed
            time.sleep(_PAUSES_SECONDS[failures - 1])
    else:
        raise _missing(download, folder, f"it broke off {_MAX_ATTEMPTS} times")
    with part.open("rb") as file:
        os.fsync(file.fileno())
    part.replace(folder / download.file_name)
    _fsync_folder(folder)


def _attempt(download: Download, part: Path, opener: urllib.request.OpenerDirector, progress: Progress | None) -> None:
    """Sends one request and appends its answer to `part` (or starts `part` over)."""
    start = _size(part)
    if download.size_bytes is not None and start >= download.size_bytes:
        if start == download.size_bytes:
            return
        part.unlink()
        start = 0
    try:
        with _request(download, opener, start) as response:
            if response.status != 206 or _range_start(response) != start:
                start = 0
            total = _announced_size(download, response, start)
            _check_space(part.parent, total - _size(part))
            _copy(response, part, start, total, download.file_name, progress)
    except HTTPError as error:
        error.close()
        if error.code == 416:  # the part is as long as the file, or longer: only its checksum knows
            if not _difference(part, download):
                return
            part.unlink()
        raise _AttemptFailed(f"the server answered {error.code}", final=error.code not in _RETRIED_STATUS) from error
    except URLError as error:
        raise _network_failure(error.reason, connecting=True) from error
    except (HTTPException, TimeoutError, ConnectionError, ssl.SSLError) as error:
        raise _network_failure(error) from error


def _request(download: Download, opener: urllib.request.OpenerDirector, start: int) -> HTTPResponse:
    headers = {"User-Agent": "cvtrain", "Accept-Encoding": "identity"}
    if start:
        headers["Range"] = f"bytes={start}-"
    response = opener.open(urllib.request.Request(download.address, headers=headers), timeout=_TIMEOUT_SECONDS)
    if response.headers.get_content_type() in ("text/html", "application/xhtml+xml"):
        response.close()
        raise _AttemptFailed("the server answered with a web page instead of the file", final=True)
    return response


def _range_start(response: HTTPResponse) -> int | None:
    """The first byte that a partial answer holds; None when the server does not say it in plain form."""
    unit, _, rest = response.headers.get("Content-Range", "").partition(" ")
    first = rest.partition("-")[0]
    return int(first) if unit == "bytes" and first.isdecimal() else None


def _announced_size(download: Download, response: HTTPResponse, start: int) -> int:
    """The whole file's bytes by what the server says, 0 when it does not; refuses what cannot be the file."""
    length = response.headers.get("Content-Length", "")
    total = start + int(length) if length.isdecimal() else 0
    if download.size_bytes is None:
        return total
    if total not in (0, download.size_bytes):
        raise _AttemptFailed(
            f"the server offers {total:,} bytes where {download.size_bytes:,} are expected", final=True
        )
    return download.size_bytes


def _copy(response: HTTPResponse, part: Path, start: int, total: int, name: str, progress: Progress | None) -> None:
    """Appends the answer to the part; a server that sends more than the file is cut short."""
    done = start
    with part.open("ab" if start else "wb") as file:
        while chunk := response.read(_CHUNK_BYTES):
            done += len(chunk)
            if total and done > total:
                raise _AttemptFailed(f"the server sent more than {total:,} bytes", final=True)
            file.write(chunk)
            if progress is not None:
                progress(done, total, f"downloading {name}")
    if done < total:
        raise _AttemptFailed(f"the connection ended at {done:,} of {total:,} bytes")


class _HttpsRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, req, fp, code, msg, headers, newurl):
        if urlsplit(newurl).scheme != "https":
            fp.close()
            raise _AttemptFailed(f"it was redirected to {_plain(newurl)}, which is not https", final=True)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _https_only_opener() -> urllib.request.OpenerDirector:
    """An opener that knows https and nothing else, also after a redirect; proxies as the environment names them."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(),
        urllib.request.HTTPSHandler(),
        _HttpsRedirects(),
        urllib.request.HTTPErrorProcessor(),
        urllib.request.HTTPDefaultErrorHandler(),
    ):
        opener.add_handler(handler)
    return opener


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


def _check_space(folder: Path, needed_bytes: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < needed_bytes:
        raise _AttemptFailed(f"{needed_bytes / 1e6:,.0f} MB are needed and {free / 1e6:,.0f} MB are free", final=True)


def _fsync_folder(folder: Path) -> None:
    with contextlib.suppress(OSError):  # some file systems cannot; the file itself is synced
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _network_failure(cause: object, *, connecting: bool = False) -> _AttemptFailed:
    """The failure in words; without a name, a connection in time or a trusted certificate no retry can help."""
    if isinstance(cause, ssl.SSLCertVerificationError):
        return _AttemptFailed(f"the server's certificate is not trusted: {cause.verify_message}", final=True)
    hopeless = isinstance(cause, socket.gaierror) or (connecting and isinstance(cause, TimeoutError))
    return _AttemptFailed(f"{'no connection' if connecting else 'connection lost'}: {_words(cause)}", final=hopeless)


def _words(cause: object) -> str:
    """What went wrong, on one line, without codes, control characters or great length."""
    text = (cause.strerror if isinstance(cause, OSError) else None) or str(cause) or type(cause).__name__
    return "".join(c if c.isprintable() else "?" for c in text)[:120]


def _plain(address: str) -> str:
    """The address without a password, query or odd characters, for messages."""
    parts = urlsplit(address)
    netloc = parts.netloc.rpartition("@")[2]
    return ascii(f"{parts.scheme}://{netloc}{parts.path}")[1:-1][:200]


def _missing(download: Download, folder: Path, reason: str) -> DataError:
    size = f" ({download.size_bytes / 1e6:,.1f} MB)" if download.size_bytes else ""
    also = f"\nas good as it: {', '.join(download.also)}" if download.also else ""
    return DataError(
        f"{download.file_name}{size} is not in {folder} and was not downloaded: {reason}\n"
        f"address: {_plain(download.address)}{also}",
        hint=f"Put the file into {folder} by hand, or name the folder that has it: data.root=FOLDER",
    )


def _wrong_content(download: Download, difference: str) -> DataError:
    return DataError(
        f"{_plain(download.address)} did not send the published file:\n{difference}",
        hint=f"Nothing of it was kept. Put a good {download.file_name} into the data folder: data.root=FOLDER",
    )
