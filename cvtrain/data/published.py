"""What somebody publishes as one file, and how to know that the file on this machine is that one.

Does not know how it gets onto the machine, nor what is in it.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import urlsplit

from cvtrain.data.reasons import reason
from cvtrain.errors import DataError


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

    def from_mirror(self, mirror: str | None) -> Download:
        """The same file at the https folder `mirror`; itself when there is no mirror."""
        return replace(self, address=f"{mirror.rstrip('/')}/{self.file_name}") if mirror else self


def data_folder(root: Path | str) -> Path:
    """`root` with `~` expanded, relative to the current directory, symbolic links followed.

    Raises:
        DataError: `root` is a file, or may not be looked at.
    """
    try:
        folder = Path(root).expanduser().resolve()
        is_file, is_open = folder.is_file(), not folder.exists() or os.access(folder, os.R_OK | os.X_OK)
    except (OSError, RuntimeError) as error:  # no permission on the way, a loop of links, no such user
        raise DataError(f"{root} cannot be read: {reason(error)}", hint="Name another: data.root=FOLDER") from error
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
        found = difference(path, download)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {reason(error)}") from error
    if found:
        raise DataError(
            f"{path} is not the published file:\n{found}",
            hint="Delete the file and start again, or put a good copy there.",
        )


def matches(path: Path, download: Download) -> bool:
    """Whether there is a readable file at `path` that is the published one."""
    with contextlib.suppress(OSError):
        return difference(path, download) is None
    return False


def difference(path: Path, download: Download) -> str | None:
    """Two lines that name the checksum found and the published one; None when they are equal.

    Raises:
        OSError: The file cannot be read.
    """
    kind, expected = ("SHA-256", download.sha256) if download.sha256 else ("MD5", download.md5)
    with path.open("rb") as file:
        found = hashlib.file_digest(file, kind.replace("-", "").lower()).hexdigest()
    if found == expected:
        return None
    return f"{kind} is {found} ({path.stat().st_size:,} bytes),\nit should be {expected}"


def plain_address(address: str) -> str:
    """The address without a password, query or odd characters, for messages."""
    parts = urlsplit(address)
    netloc = parts.netloc.rpartition("@")[2]
    return ascii(f"{parts.scheme}://{netloc}{parts.path}")[1:-1][:200]
