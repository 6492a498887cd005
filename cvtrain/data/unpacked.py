"""Unpacks an archive of images into a cache folder, once, and finds it there again.

Does not know what the images show, nor how they are read.

A folder is filled under another name and then renamed, so that what is found is whole; a file in it tells how much was
unpacked, and a folder from which something is missing is filled anew. The archive and its folder are never changed.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from cvtrain.data.archives import iterate_members
from cvtrain.data.cache import default_cache_dir
from cvtrain.data.file_lock import hold_lock
from cvtrain.data.image_file import EXTENSIONS, MAX_FILE_BYTES
from cvtrain.data.reasons import reason
from cvtrain.errors import DataError

if TYPE_CHECKING:  # it would load torch
    from cvtrain.data.images import Progress

MAX_RATIO = 20
"""Photographs hardly shrink when packed: what grows so many times over is no archive of photographs."""
MAX_BYTES = 64 * 2**30
_SMALL_BYTES = 64 * 2**20
_SUMMARY = ".unpacked.json"


def unpacked(archive: Path, *, cache_dir: str | os.PathLike[str] | None, progress: Progress | None = None) -> Path:
    """The folder with the images of an archive, which are unpacked if they are not there yet.

    Other files than images, hidden ones and links are left out.

    Args:
        archive: A zip or tar file.
        cache_dir: Where the folder is made; None: `$XDG_CACHE_HOME/cvtrain` or `~/.cache/cvtrain`.
        progress: Called as `progress(done, total, what)` with bytes of the archive's files.

    Raises:
        DataError: The archive is damaged, hostile or no archive, or there is no room to unpack it.
    """
    folder = Path(os.path.expanduser(cache_dir)) if cache_dir is not None else default_cache_dir()
    if folder is None:
        raise DataError(f"there is no home folder to unpack {archive} in", hint="Name one: data.cache_dir=FOLDER")
    report = progress or (lambda _done, _total, _what: None)
    try:
        target = folder / _name(archive)
        with hold_lock(folder / f"{target.name}.lock", lambda: report(0, 1, "waiting for another process to unpack")):
            if not _is_whole(target):
                _fill(target, archive, report)
    except OSError as error:
        raise DataError(
            f"{archive} cannot be unpacked into {folder}: {reason(error)}",
            hint="Name another folder, data.cache_dir=FOLDER, or unpack it yourself: data.root=FOLDER",
        ) from error
    return target


def _name(archive: Path) -> str:
    """What an archive's folder is called: another file, or another version of it, has another."""
    status = archive.stat()
    identity = f"{archive.resolve()}\0{status.st_size}\0{status.st_mtime_ns}"
    return f"unpacked-{hashlib.sha256(os.fsencode(identity)).hexdigest()[:32]}"


def _is_whole(target: Path) -> bool:
    try:
        summary = json.loads((target / _SUMMARY).read_text(encoding="ascii"))
    except (OSError, ValueError):
        return False
    return summary == _summary(target)


def _summary(folder: Path) -> dict[str, int]:
    sizes = [path.stat().st_size for path in folder.rglob("*") if path.name != _SUMMARY and path.is_file()]
    return {"num_files": len(sizes), "num_bytes": sum(sizes)}


def _fill(target: Path, archive: Path, report: Callable[[int, int, str], object]) -> None:
    """Unpack into a folder of another name, and rename it; called while the lock is held."""
    part = target.with_name(f"{target.name}.part")
    for leftover in (part, target):  # of a process that was killed; or no longer whole
        if leftover.exists():
            shutil.rmtree(leftover)
    part.mkdir(mode=0o700)
    try:
        for name, content in _images(archive, report):
            path = part / name
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                file = open(path, "xb")  # noqa: SIM115 - closed below; a full disk is another error than this one
            except (FileExistsError, NotADirectoryError):
                raise DataError(f"{archive} was refused: it holds {ascii(name)[:120]} twice") from None
            with file:
                file.write(content)
        (part / _SUMMARY).write_text(json.dumps(_summary(part)), encoding="ascii")
        os.replace(part, target)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise


def _images(archive: Path, report: Callable[[int, int, str], object]) -> Iterator[tuple[str, bytes]]:
    """Name and content of each image in the archive."""
    packed_bytes = archive.stat().st_size
    max_bytes = min(MAX_BYTES, max(_SMALL_BYTES, MAX_RATIO * packed_bytes))
    done_bytes = 0
    for member in iterate_members(archive, max_bytes=max_bytes):
        name = PurePosixPath(member.name)
        if not member.is_file or name.suffix.lower() not in EXTENSIONS or _is_hidden(name):
            continue
        if member.size_bytes > MAX_FILE_BYTES:
            raise DataError(f"{archive} was refused: {ascii(member.name)[:120]} is larger than an image can be")
        yield member.name, member.read()
        done_bytes += member.size_bytes
        report(min(done_bytes, packed_bytes), packed_bytes, "unpacking images")


def _is_hidden(name: PurePosixPath) -> bool:
    return any(part.startswith(".") or part == "__MACOSX" for part in name.parts)
