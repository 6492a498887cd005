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
import unicodedata
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from cvtrain.data.image_file import FileStamp, has_image_name, listed, printable
from cvtrain.errors import DataError

_VAL_FOLDERS = ("val", "valid", "validation")


@dataclass(frozen=True)
class Layout:
    """The words in which messages speak of where a kind of source keeps its files.

    Args:
        hint: What is wanted, for the end of an error.
        classes: What the classes are, in the plural.
        train: Where the images to train on are.
        test: What is missing when there is no test split.
    """

    hint: str
    classes: str
    train: str
    test: str


FOLDER_PER_CLASS = Layout(
    hint="wanted: train/<class>/*.jpg, and beside train/ the same as test/ and, if you like, val/",
    classes="class folders",
    train="train/",
    test="test/ folder",
)


@dataclass
class Scan:
    """What lies in the root: `{class: files}` for each split, and what was passed over on the way.

    Labels follow `class_order`, or where that is None the order of the classes of train by code point.
    """

    root: str
    layout: Layout = FOLDER_PER_CLASS
    class_order: tuple[str, ...] | None = None
    train: dict[str, list[FileStamp]] = field(default_factory=dict)
    val: dict[str, list[FileStamp]] | None = None
    test: dict[str, list[FileStamp]] | None = None
    ignored: Counter[str] = field(default_factory=Counter)
    linked: list[str] = field(default_factory=list)
    unvisited: list[str] = field(default_factory=list)
    loose: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    @property
    def class_names(self) -> list[str]:
        """The name of label 0, 1, ..."""
        return sorted(self.train) if self.class_order is None else list(self.class_order)


def existing_root(root: str | os.PathLike[str], *, layout: Layout = FOLDER_PER_CLASS) -> str:
    """The absolute path of `root`.

    Raises:
        DataError: There is no such folder.
    """
    path = os.path.abspath(os.path.expanduser(os.fspath(root)))
    if os.path.isdir(path):
        return path
    if os.path.exists(path):
        raise DataError(f"data.root is a file, not a folder: {printable(path)}", hint=layout.hint)
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
    raise DataError(message, hint=layout.hint)


def scan_root(root: str) -> Scan:
    """Find the splits and list their files.

    Raises:
        DataError: The layout is not one that can be read, or a folder cannot be entered.
    """
    scan = Scan(root)
    try:
        folders = subfolders(root)
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
        raise unreadable(error, root) from error
    _check_classes(scan)
    warn_of_alike(scan)
    warn_of_ignored(scan)
    return scan


def unreadable(error: OSError, root: str) -> DataError:
    """The error that tells which file or folder, below the root or the root itself, the system refused to read."""
    where = printable(str(error.filename or root))
    return DataError(f"{where} cannot be read ({(error.strerror or str(error)).lower()})")


def subfolders(path: str) -> list[str]:
    """The names of the folders in a folder but for hidden ones, sorted.

    Raises:
        OSError: It cannot be read.
    """
    with os.scandir(path) as entries:
        return sorted(entry.name for entry in entries if is_folder(entry) and not entry.name.startswith("."))


def is_folder(entry: os.DirEntry[str]) -> bool:
    """Whether a name leads to a folder; a link that leads round in a circle does not."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def _no_train(root: str) -> str:
    parent, name = os.path.split(root)
    meant = f" (or did you mean data.root={printable(parent)}?)" if name == "train" else ""
    return f"there is no train/ folder: the class folders in the root are taken as train/{meant}"


def _refuse_other_layouts(root: str, folders: list[str], vals: list[str]) -> None:
    shown = printable(root)
    if "test" in folders or vals:
        raise DataError(f"{shown} has {vals[0] if vals else 'test'}/ but no train/", hint=FOLDER_PER_CLASS.hint)
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
            if is_folder(entry):
                if entry.is_symlink():
                    scan.linked.append(name)
                elif not entry.name.startswith("."):
                    classes[entry.name] = sorted(list_images(scan, name))
            elif has_image_name(entry.name):
                scan.loose.append(name)
    return classes


def list_images(scan: Scan, folder: str, *, deep: bool = True) -> list[FileStamp]:
    """The images in `folder` (relative to the root) and, where `deep`, below it; in no order.

    What is passed over is noted in `scan`.

    Raises:
        OSError: A folder cannot be read.
    """
    stamps = []
    with os.scandir(f"{scan.root}/{folder}") as entries:
        for entry in entries:
            name = f"{folder}/{entry.name}"
            if entry.is_dir(follow_symlinks=False):
                if entry.name.startswith("."):
                    continue
                if deep:
                    stamps += list_images(scan, name)
                else:
                    scan.unvisited.append(f"{name}/")
            elif entry.is_symlink() and is_folder(entry):
                scan.linked.append(name)
            elif entry.name.startswith("."):
                scan.ignored["hidden"] += 1
            elif not has_image_name(entry.name):
                scan.ignored[os.path.splitext(entry.name)[1].lower() or "without an extension"] += 1
            else:
                stamps.append(stamp_of(entry, name))
    return stamps


def stamp_of(file: os.DirEntry[str] | Path, name: str) -> FileStamp:
    """The stamp of a file that is called `name` below the root; of size and time 0 if it leads nowhere."""
    try:
        status = file.stat()
    except OSError:  # a broken link, or a loop of them: told when it is read
        return FileStamp(name, 0, 0)
    return FileStamp(name, status.st_size, status.st_mtime_ns)


def _check_classes(scan: Scan) -> None:
    """Refuse class folders that cannot be learnt from or tested on."""
    root = printable(scan.root)
    if not scan.train:
        found = f"; {len(scan.loose):,} images lie outside any class folder" if scan.loose else ""
        raise DataError(f"no class folders to train on in {root}{found}", hint=scan.layout.hint)
    check_counts(scan, {name: len(stamps) for name, stamps in scan.train.items()})
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


def check_counts(scan: Scan, counts: dict[str, int]) -> None:
    """Refuse fewer than two classes, and any without images to train on.

    Raises:
        DataError: So it is.
    """
    root, layout = printable(scan.root), scan.layout
    listed = ", ".join(
        f"{printable(name)} {counts[name]:,}" for name in sorted(counts, key=lambda n: (counts[n], n))[:8]
    )
    listed += ", ..." if len(counts) > 8 else ""
    empty = [name for name, count in counts.items() if not count]
    if empty:
        raise DataError(
            f"{len(empty)} of {len(counts)} {layout.classes} in {root} have no images to train on ({listed})",
            hint="add images, or remove the empty folders" if layout is FOLDER_PER_CLASS else layout.hint,
        )
    if len(counts) < 2:
        raise DataError(f"only one class in {root} ({listed}): there is nothing to tell apart", hint=layout.hint)


def warn_of_alike(scan: Scan) -> None:
    """Add a warning if names of classes differ in case only, or in how Unicode writes the same characters."""
    alike: dict[str, list[str]] = {}
    for name in scan.class_names:
        alike.setdefault(unicodedata.normalize("NFKC", name).casefold(), []).append(name)
    twins = [" and ".join(map(ascii, names)) for names in alike.values() if len(names) > 1]
    if twins:
        scan.warnings.append(f"names of classes differ in case or spelling only: {listed(twins)}")


def warn_of_ignored(scan: Scan) -> None:
    """Add a warning for each kind of thing that was passed over."""
    if scan.ignored:
        kinds = ", ".join(f"{printable(kind)} {count:,}" for kind, count in sorted(scan.ignored.items())[:8])
        scan.warnings.append(f"{scan.ignored.total():,} files that are no images were passed over: {kinds}")
    if scan.loose:
        scan.warnings.append(
            f"{len(scan.loose):,} images outside any class folder were passed over: {listed(scan.loose)}"
        )
    if scan.linked:
        scan.warnings.append(f"links to folders were not followed: {listed(sorted(scan.linked))}")
    if scan.unvisited:
        scan.warnings.append(f"folders were not looked into: {listed(sorted(scan.unvisited))}")
