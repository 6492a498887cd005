"""Splits whose images lie in one folder each, and have their class in their name.

Does not know which name means which class, nor what data set it is.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

from cvtrain.data.image_file import FileStamp, listed, printable
from cvtrain.data.scan import Scan, list_images, subfolders, unreadable
from cvtrain.errors import DataError

_NAMES_SHOWN = 20


def images_of_folder(scan: Scan, folder: str) -> list[FileStamp]:
    """The images right in a folder of the root, sorted by name.

    Raises:
        DataError: The folder cannot be read, or holds none.
    """
    try:
        stamps = sorted(list_images(scan, folder, deep=False))
    except OSError as error:
        raise unreadable(error, scan.root) from error
    if not stamps:
        inside = [name for name in scan.unvisited if name.startswith(f"{folder}/")]
        found = f"; there are folders in it: {listed(sorted(inside))}" if inside else ""
        raise DataError(f"no images in {printable(os.path.join(scan.root, folder))}{found}", hint=scan.layout.hint)
    return stamps


def classes_by_name(
    scan: Scan, stamps: Sequence[FileStamp], *, label_of: Callable[[str], int | None], rule: str
) -> dict[str, list[FileStamp]]:
    """`{class: its images}` with an entry for every class.

    Args:
        scan: Has a `class_order`.
        stamps: The images.
        label_of: The label that a file name (without folders) stands for; None if it stands for none.
        rule: Completes "... images have names that ..." for those without a label.

    Raises:
        DataError: A name stands for no label; all such names are told together.
    """
    names = scan.class_names
    classes: dict[str, list[FileStamp]] = {name: [] for name in names}
    unknown = []
    for stamp in stamps:
        label = label_of(stamp.name.rpartition("/")[2])
        if label is None:
            unknown.append(stamp.name)
        else:
            classes[names[label]].append(stamp)
    if unknown:
        count = f"{len(unknown):,} of {len(stamps):,} images in {printable(scan.root)} have names that {rule}"
        raise DataError(f"{count}: {listed(unknown, _NAMES_SHOWN)}", hint="rename or remove them")
    return classes


def only_folder(root: str, names: Sequence[str], *, key: str | None = None) -> str | None:
    """The one folder in `root` that has one of the names, in any case; None if there is none.

    Args:
        root: Where to look.
        names: In any case.
        key: The setting that chooses one, for the hint.

    Raises:
        DataError: There are several, or the root cannot be read.
    """
    folded = {name.casefold() for name in names}
    try:
        found = [folder for folder in subfolders(root) if folder.casefold() in folded]
    except OSError as error:
        raise unreadable(error, root) from error
    if len(found) > 1:
        hint = f"choose one: {key}={printable(found[0])}" if key else "remove or rename all but one"
        raise DataError(f"{printable(root)} holds {' and '.join(map(printable, found))}: which is meant?", hint=hint)
    return found[0] if found else None
