"""One attempt to bring one file over https, or the rest of it, into a part file.

Does not know how often to try, nor what the part becomes when it is whole.
"""

from __future__ import annotations

import shutil
import socket
import ssl
import urllib.request
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit

from cvtrain.data.published import Download, difference, plain_address
from cvtrain.data.reasons import reason

if TYPE_CHECKING:
    from cvtrain.data.images import Progress

_CHUNK_BYTES = 1 << 18
_TIMEOUT_SECONDS = 20.0
_RETRIED_STATUS = frozenset({408, 416, 425, 429, 500, 502, 503, 504})


class AttemptFailed(Exception):  # noqa: N818 - never reaches the user as it is
    """One attempt brought no file; `final` when another attempt cannot help."""

    def __init__(self, reason: str, *, final: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.final = final


def attempt(
    download: Download, part: Path, *, opener: urllib.request.OpenerDirector, progress: Progress | None = None
) -> None:
    """Sends one request and appends its answer to `part` (or starts `part` over).

    Args:
        download: What to get.
        part: The file that holds what came so far, if anything did.
        opener: From `https_only_opener`.
        progress: Called with bytes done, bytes in all (0 when unknown) and what is going on.

    Raises:
        AttemptFailed: The answer is not the file, or broke off; what came is kept in `part`.
        OSError: `part` cannot be written.
    """
    start = length_bytes(part)
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
            _check_space(part.parent, total - length_bytes(part))
            _copy(response, part, start, total, download.file_name, progress)
    except HTTPError as error:
        error.close()
        if error.code == 416:  # the part is as long as the file, or longer: only its checksum knows
            if not difference(part, download):
                return
            part.unlink()
        raise AttemptFailed(f"the server answered {error.code}", final=error.code not in _RETRIED_STATUS) from error
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
        raise AttemptFailed("the server answered with a web page instead of the file", final=True)
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
        raise AttemptFailed(f"the server offers {total:,} bytes where {download.size_bytes:,} are expected", final=True)
    return download.size_bytes


def _copy(response: HTTPResponse, part: Path, start: int, total: int, name: str, progress: Progress | None) -> None:
    """Appends the answer to the part; a server that sends more than the file is cut short."""
    done = start
    with part.open("ab" if start else "wb") as file:
        while chunk := response.read(_CHUNK_BYTES):
            done += len(chunk)
            if total and done > total:
                raise AttemptFailed(f"the server sent more than {total:,} bytes", final=True)
            file.write(chunk)
            if progress is not None:
                progress(done, total, f"downloading {name}")
    if done < total:
        raise AttemptFailed(f"the connection ended at {done:,} of {total:,} bytes")


class _HttpsRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, req, fp, code, msg, headers, newurl):
        if urlsplit(newurl).scheme != "https":
            fp.close()
            raise AttemptFailed(f"it was redirected to {plain_address(newurl)}, which is not https", final=True)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def https_only_opener() -> urllib.request.OpenerDirector:
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


def _check_space(folder: Path, needed_bytes: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < needed_bytes:
        raise AttemptFailed(f"{needed_bytes / 1e6:,.0f} MB are needed and {free / 1e6:,.0f} MB are free", final=True)


def length_bytes(path: Path) -> int:
    """The length of the file; 0 when there is none."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _network_failure(cause: object, *, connecting: bool = False) -> AttemptFailed:
    """The failure in words; without a name, a connection in time or a trusted certificate no retry can help."""
    if isinstance(cause, ssl.SSLCertVerificationError):
        return AttemptFailed(f"the server's certificate is not trusted: {cause.verify_message}", final=True)
    hopeless = isinstance(cause, socket.gaierror) or (connecting and isinstance(cause, TimeoutError))
    return AttemptFailed(f"{'no connection' if connecting else 'connection lost'}: {reason(cause)}", final=hopeless)
