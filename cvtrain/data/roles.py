"""Which image trains, validates or tests in a run, kept as a file that tells later what has changed since.

Knows images by name, size and label, not by content; neither runs nor checkpoints.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cvtrain.data.image_file import listed
from cvtrain.data.images import ImageData
from cvtrain.data.splits import Split

_SEPARATOR = "\0"
"""Stands in no name of a file."""


def roles_file(source: ImageData, split: Split, *, names: bool) -> bytes:
    """The content of an `.npz` file: the indices of every split and, if so wished, the files that they point to.

    Args:
        source: The images; those that are no files have no names here.
        split: Their roles.
        names: Whether to write names, sizes, times and labels of all files, about 6 bytes a file.
    """
    arrays = {"train": split.train, "val": split.val, "test": split.test}
    content = {name: indices.numpy() for name, indices in arrays.items()}
    content["val_from_train"] = np.array(split.val_from_train)
    files = _files(source) if names else {}
    if files:
        content["names"] = np.frombuffer(_SEPARATOR.join(files).encode("utf-8", "surrogateescape"), np.uint8)
        for field in ("label", "size_bytes", "mtime_ns"):
            content[field] = np.array([getattr(file, field) for file in files.values()], np.int64)
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **content)
    return buffer.getvalue()


@dataclass(frozen=True)
class _File:
    """A labelled image file as it can be recognised without opening it."""

    label: int
    size_bytes: int
    mtime_ns: int


def _files(source: ImageData) -> dict[str, _File]:
    """The files of all splits by name; none where the images are no files."""
    found: dict[str, _File] = {}
    for images in (source.train, source.val, source.test):
        if images is not None and images.stamps is not None:
            labels = images.labels.tolist()
            found |= {
                s.name: _File(label, s.size_bytes, s.mtime_ns) for s, label in zip(images.stamps, labels, strict=True)
            }
    return found


def _read(path: Path) -> dict[str, _File]:
    """The files that a roles file names; none where it is missing, damaged, or older than such names."""
    try:
        with np.load(path, allow_pickle=False) as content:
            names = content["names"].tobytes().decode("utf-8", "surrogateescape").split(_SEPARATOR)
            columns = [content[field].tolist() for field in ("label", "size_bytes", "mtime_ns")]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return {}
    return {name: _File(*row) for name, *row in zip(names, *columns, strict=True)}


def changes_since(path: Path, source: ImageData) -> str | None:
    """What a user would have to undo for the images to be those of an earlier start, up to three files of each kind.

    Args:
        path: The roles file of that start.
        source: The images as they are now.

    Returns:
        Words such as `1 file added (train/a/7.png)`, or None where names, sizes and labels tell no difference.
    """
    before, now = _read(path), _files(source)
    if not before or not now:
        return None
    both = [name for name in now if name in before]
    kinds: Mapping[str, list[str]] = {
        "added": [name for name in now if name not in before],
        "removed": [name for name in before if name not in now],
        "relabelled": [name for name in both if now[name].label != before[name].label],
        "of another size": [name for name in both if now[name].size_bytes != before[name].size_bytes],
    }
    words = [_counted(names, kind) for kind, names in kinds.items() if names]
    return "; ".join(words) or None


def rewritten_since(path: Path, source: ImageData) -> str | None:
    """A warning of files that were written anew at the same size, so that nothing else tells whether they changed.

    A copy of all images, whose times are all new, is no reason to warn.
    """
    before, now = _read(path), _files(source)
    both = [name for name in now if name in before]
    names = [name for name in both if now[name].mtime_ns != before[name].mtime_ns]
    if not names or len(names) == len(both):
        return None
    return (
        f"{_counted(names, 'written')} since this run was started, at the same size: if their content has changed,"
        " start a new run"
    )


def _counted(names: list[str], what: str) -> str:
    return f"{len(names):,} {'file' if len(names) == 1 else 'files'} {what} ({listed(names)})"
