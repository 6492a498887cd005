"""Walks a folder of images with a folder per class: which files there are, and whether they can be learnt from.

Does not open a file, and does not know labels, pixels or torch.

    root/train/<class>/...    the classes are the folders here, sorted by name (by code point, so A..Z before a..z)
    root/val/<class>/...      optional; also valid/ or validation/
    root/test/<class>/...     optional; without it a fifth of every class of train/ becomes the test split

Class folders right in the root are taken as train/. Images may lie in folders below their class. Hidden files and
folders and other files than images are passed over; links to files are followed, links to folders are not (except
the root and train/, val/, test/ themselves).
"""

from __future__ import annotations

import difflib
import os
from collections import Counter
from dataclasses import dataclass, field

from cvtrain.data.image_file import EXTENSIONS, FileStamp, listed, printable, size_reason
from cvtrain.errors import DataError

LAYOUT = "wanted: train/<class>/*.jpg, and beside train/ the same as test/ and, if you like, val/"
_VAL_FOLDERS = ("val", "valid", "validation")


@dataclass
class Scan:
    """What lies in the root: `{class folder: files}` for each split, and what was passed over on the way."""

    root: str
    train: dict[str, list[FileStamp]] = field(default_factory=dict)
    val: dict[str, list[FileStamp]] | None = None
    test: dict[str, list[FileStamp]] | None = None
    unusable: dict[str, str] = field(default_factory=dict)
    ignored: Counter[str] = field(default_factory=Counter)
    linked: list[str] = field(default_factory=list)
    loose: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    @property
    def class_names(self) -> list[str]:
        """The folders of train, by code point."""
        return sorted(self.train)


def existing_root(root: str | os.PathLike[str]) -> str:
    """The absolute path of `root`.

    Raises:
        DataError: There is no such folder.
    """
    path = os.path.abspath(os.path.expanduser(os.fspath(root)))
    if os.path.isdir(path):
        return path
    if os.path.exists(path):
        raise DataError(f"data.root is a file, not a folder: {printable(path)}", hint=LAYOUT)
    parent, missing = os.path.split(path)
    while not os.path.isdir(parent):
        parent, missing = os.path.split(parent)
    message = f"data.root does not exist: {printable(path)}\nthe nearest folder that does: {printable(parent)}"
    try:
        near = difflib.get_close_matches(missing, os.listdir(parent), n=1)
    except OSError:
        near = []
    if near:
        message += f" (did you mean {printable(near[0])} in it?)"
    raise DataError(message, hint=LAYOUT)


def scan_root(root: str) -> Scan:
    """Find the splits and list their files.

    Raises:
        DataError: The layout is not one that can be read, or a folder cannot be entered.
    """
    scan = Scan(root)
    try:
        folders = _subfolders(root)
        vals = [name for name in _VAL_FOLDERS if name in folders]
        if len(vals) > 1:
            raise DataError(f"{printable(root)} holds {' and '.join(vals)}: only one can be the validation split")
        if "train" in folders:
            scan.train = _scan_split(scan, "train")
            scan.val = _scan_split(scan, vals[0]) if vals else None
            scan.test = _scan_split(scan, "test") if "test" in folders else None
        else:
            _refuse_other_layouts(root, folders, vals)
            scan.train = _scan_split(scan, "")
            scan.warnings.append(_no_train(root))
    except OSError as error:
        where = printable(str(error.filename or root))
        raise DataError(f"{where} cannot be read ({(error.strerror or str(error)).lower()})") from error
    _check_classes(scan)
    _warn_of_ignored(scan)
    return scan


def _subfolders(path: str) -> list[str]:
    with os.scandir(path) as entries:
        return sorted(entry.name for entry in entries if entry.is_dir() and not entry.name.startswith("."))


def _no_train(root: str) -> str:
    parent, name = os.path.split(root)
    meant = f" (or did you mean data.root={printable(parent)}?)" if name == "train" else ""
    return f"there is no train/ folder: the class folders in the root are taken as train/{meant}"


def _refuse_other_layouts(root: str, folders: list[str], vals: list[str]) -> None:
    shown = printable(root)
    if "test" in folders or vals:
        raise DataError(f"{shown} has {vals[0] if vals else 'test'}/ but no train/", hint=LAYOUT)
    for folder in folders:
        if os.path.isdir(os.path.join(root, folder, "train")):
            inner = printable(os.path.join(root, folder))
            raise DataError(f"{shown} has no train/, but its folder {printable(folder)} has", hint=f"data.root={inner}")


def _scan_split(scan: Scan, split: str) -> dict[str, list[FileStamp]]:
    """`{class folder: its images, sorted by name}` of one split."""
    classes = {}
    prefix = f"{split}/" if split else ""
    with os.scandir(os.path.join(scan.root, split)) as entries:
        for entry in entries:
            name = f"{prefix}{entry.name}"
            if entry.is_dir():
                if entry.is_symlink():
                    scan.linked.append(name)
                elif not entry.name.startswith("."):
                    classes[entry.name] = sorted(_walk(scan, name))
            elif os.path.splitext(entry.name)[1].lower() in EXTENSIONS:
                scan.loose.append(name)
    return classes


def _walk(scan: Scan, folder: str) -> list[FileStamp]:
    """The images in `folder` (relative to the root) and below it."""
    stamps = []
    with os.scandir(f"{scan.root}/{folder}") as entries:
        for entry in entries:
            name = f"{folder}/{entry.name}"
            if entry.is_dir(follow_symlinks=False):
                if not entry.name.startswith("."):
                    stamps += _walk(scan, name)
            elif entry.is_symlink() and entry.is_dir():
                scan.linked.append(name)
            elif entry.name.startswith("."):
                scan.ignored["hidden"] += 1
            elif (extension := os.path.splitext(entry.name)[1].lower()) not in EXTENSIONS:
                scan.ignored[extension or "without an extension"] += 1
            else:
                stamps.append(_stamp(scan, entry, name))
    return stamps


def _stamp(scan: Scan, entry: os.DirEntry[str], name: str) -> FileStamp:
    try:
        status = entry.stat()
    except OSError as error:  # a broken link, or a loop of them
        scan.unusable[name] = (error.strerror or str(error)).lower()
        return FileStamp(name, 0, 0)
    reason = size_reason(status)
    if reason is not None:
        scan.unusable[name] = reason
    return FileStamp(name, status.st_size, status.st_mtime_ns)


def _check_classes(scan: Scan) -> None:
    """Refuse class folders that cannot be learnt from or tested on."""
    root = printable(scan.root)
    if not scan.train:
        found = f"; {len(scan.loose):,} images lie outside any class folder" if scan.loose else ""
        raise DataError(f"no class folders to train on in {root}{found}", hint=LAYOUT)
    check_counts({name: len(stamps) for name, stamps in scan.train.items()}, root)
    for split in ("val", "test"):
        classes = getattr(scan, split)
        if classes is None:
            continue
        if not any(classes.values()):
            raise DataError(f"the {split} folder in {root} holds no images", hint="fill it or remove it")
        unknown = sorted(name for name, stamps in classes.items() if stamps and name not in scan.train)
        if unknown:
            near = difflib.get_close_matches(unknown[0], scan.class_names, n=1)
            hint = f"did you mean {printable(near[0])}? " if near else ""
            raise DataError(
                f"the {split} folder in {root} holds classes that train/ lacks: {listed(unknown)}",
                hint=f"{hint}classes are the folders in train/: {listed(scan.class_names, 8)}",
            )


def check_counts(counts: dict[str, int], root: str) -> None:
    """Refuse fewer than two classes, and any without images to train on.

    Raises:
        DataError: So it is.
    """
    listed = ", ".join(
        f"{printable(name)} {counts[name]:,}" for name in sorted(counts, key=lambda n: (counts[n], n))[:8]
    )
    listed += ", ..." if len(counts) > 8 else ""
    empty = [name for name, count in counts.items() if not count]
    if empty:
        raise DataError(
            f"{len(empty)} of {len(counts)} class folders in {root} have no images to train on ({listed})",
            hint="add images, or remove the empty folders",
        )
    if len(counts) < 2:
        raise DataError(f"only one class in {root} ({listed}): there is nothing to tell apart", hint=LAYOUT)


def _warn_of_ignored(scan: Scan) -> None:
    if scan.ignored:
        kinds = ", ".join(f"{printable(kind)} {count:,}" for kind, count in sorted(scan.ignored.items())[:8])
        scan.warnings.append(f"{scan.ignored.total():,} files that are no images were passed over: {kinds}")
    if scan.loose:
        scan.warnings.append(
            f"{len(scan.loose):,} images outside any class folder were passed over: {listed(scan.loose)}"
        )
    if scan.linked:
        scan.warnings.append(f"links to folders were not followed: {listed(sorted(scan.linked))}")
