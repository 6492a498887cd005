"""PALM: fundus photographs with and without pathologic myopia, labelled by name to train on, by a table to test on.

Knows the layout that the challenge hands out, not how files are read.

    PALM-Training400/     H0001.jpg, N0001.jpg (high myopia, normal: label 0), P0001.jpg (pathologic: label 1)
    PALM-Validation400/   V0001.jpg, ...
    labels.csv            imgName,Label: the table of the validation images, a spreadsheet saved as CSV

The folders may also be called train and val and the like, and lie in a folder of their own name, as unpacking leaves
them. The labelled validation images are what the test split is: they are read once, at the end, and the images that
choose the weights are carved from training. With `use_validation_as=val` they choose the weights, as in work that
reports the best validation accuracy; then a fixed fifth of every class of training is the test split, for figures of
images that have chosen nothing.

Source: Fu et al. 2019, "PALM: PAthoLogic Myopia Challenge", doi 10.21227/55pk-8z03.
"""

from __future__ import annotations

import difflib
import os
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from cvtrain.data.image_file import FileStamp, has_image_name, listed, printable
from cvtrain.data.images import ImageData, Progress
from cvtrain.data.label_file import Column, LabelFile, Row, read_label_file, refuse_problems
from cvtrain.data.labelled_images import Reading, check_options, read_images
from cvtrain.data.named_files import classes_by_name, images_of_folder, only_folder
from cvtrain.data.scan import Layout, Scan, check_counts, existing_root, subfolders, warn_of_ignored
from cvtrain.errors import DataError

CLASS_NAMES = ("normal", "pathologic")
LAYOUT = Layout(
    hint="wanted: PALM-Training400/ (H*, N*, P*.jpg), PALM-Validation400/ and labels.csv (imgName,Label)",
    classes="classes",
    train="the training folder",
    test="test split beside the validation images",
)
_LABEL_OF_LETTER = {"H": 0, "N": 0, "P": 1}
_TRAIN_NAMES = ("PALM-Training400", "PALM-Training", "Training400", "training", "train")
_VAL_NAMES = ("PALM-Validation400", "PALM-Validation", "Validation400", "validation", "valid", "val")
_LABELS_NAME = "labels.csv"
_COLUMNS = {"image": Column(("imgName",)), "label": Column(("Label",))}
_LABEL = re.compile(r"([01])(\.0*)?")  # a spreadsheet may have made 1.0 of 1


def load_palm(
    *,
    root: str | os.PathLike[str] | None,
    train_dir: str | None = None,
    val_dir: str | None = None,
    labels: str | None = None,
    use_validation_as: str = "test",
    image_size: int | None = 224,
    channels: int | str = 3,
    resize: str = "crop",
    loader: str = "auto",
    cache_dir: str | os.PathLike[str] | None = None,
    memory_limit_gb: float | None = 4.0,
    on_bad: str = "error",
    num_workers: int | None = None,
    progress: Progress | None = None,
) -> ImageData:
    """Read the images of the PALM challenge.

    Args:
        root: The folder that holds the training folder and the validation folder.
        train_dir: The training folder, relative to the root; None: found by its usual names.
        val_dir: The validation folder, relative to the root; None: found by its usual names.
        labels: The table of the validation images, relative to the root; None: labels.csv in the root, in the
            validation folder or in the folder around that.
        use_validation_as: `test`: the validation images are the test split, and those that validate are carved from
            training; `val`: they validate, and a fixed fifth of every class of training is the test split.
        image_size, channels, ...: See `cvtrain.data.labelled_images.Reading`.

    Raises:
        ConfigError: `root` is missing, or an option has an unknown value.
        DataError: The layout is not as described, (`LabelFileError`) the table does not fit the images, or
            (`BadImagesError`) images are unreadable.
        MemoryLimitError: `loader=memory` with more images than fit.
    """
    reading = Reading(
        image_size=image_size,
        channels=channels,
        resize=resize,
        loader=loader,
        cache_dir=cache_dir,
        memory_limit_gb=memory_limit_gb,
        on_bad=on_bad,
        num_workers=num_workers,
        progress=progress,
    )
    problems = []
    if use_validation_as not in ("test", "val"):
        problems.append(f"data.use_validation_as={use_validation_as!r} must be one of test, val")
    check_options(root, reading, layout=LAYOUT, problems=problems)
    scan = Scan(existing_root(root, layout=LAYOUT), layout=LAYOUT, class_order=CLASS_NAMES)
    _fill(scan, train_dir, val_dir, labels=labels, use_validation_as=use_validation_as)
    return read_images(scan, reading)


def _fill(
    scan: Scan, train_dir: str | None, val_dir: str | None, *, labels: str | None, use_validation_as: str
) -> None:
    """Put the images of both folders into the splits of the scan."""
    train_dir = _folder(scan.root, train_dir, names=_TRAIN_NAMES, key="data.train_dir")
    val_dir = _folder(scan.root, val_dir, names=_VAL_NAMES, key="data.val_dir")
    if train_dir == val_dir:
        raise DataError(f"data.train_dir and data.val_dir are both {printable(train_dir)}", hint=LAYOUT.hint)
    rule = "begin neither with H or N (normal) nor with P (pathologic)"
    stamps = images_of_folder(scan, train_dir)
    scan.train = classes_by_name(scan, stamps, label_of=lambda name: _LABEL_OF_LETTER.get(name[0].upper()), rule=rule)
    check_counts(scan, {name: len(stamps) for name, stamps in scan.train.items()})
    setattr(scan, use_validation_as, _validation_classes(scan, val_dir, labels))
    warn_of_ignored(scan)


# ------------------------------------------------------------------------------------------------------- folders


def _folder(root: str, typed: str | None, *, names: Sequence[str], key: str) -> str:
    """A folder relative to the root, and in it the folder of its own name if that is all that it holds."""
    if typed is not None:
        folder = os.path.normpath(typed)
        if os.path.isabs(folder) or folder == "." or folder.split(os.sep)[0] == "..":
            raise DataError(f"{key}={printable(typed)} is no folder in data.root", hint=LAYOUT.hint)
        if not os.path.isdir(os.path.join(root, folder)):
            raise DataError(f"{key}: there is no folder {printable(os.path.join(root, folder))}", hint=LAYOUT.hint)
    else:
        found = only_folder(root, names, key=key)
        if found is None:
            folders = listed(subfolders(root), 8)
            inside = f"the folders there are: {folders}" if folders else "there are no folders in it"
            wanted = ", ".join(f"{name}/" for name in names)
            raise DataError(
                f"none of {wanted} is in {printable(root)}; {inside}", hint=f"name it, {key}=FOLDER; {LAYOUT.hint}"
            )
        folder = found
    path = Path(root, folder)
    inner = only_folder(os.fspath(path), (path.name,))
    holds_images = any(has_image_name(file.name) for file in path.iterdir())
    return f"{folder}/{inner}" if inner and not holds_images else folder


def _label_path(root: str, val_dir: str, typed: str | None) -> Path:
    if typed is not None:
        path = Path(root, os.path.expanduser(typed))
        if os.path.isfile(path):
            return path
        here = Path(typed).absolute()
        hint = (
            f"did you mean data.labels={here}?" if here.is_file() else "it is relative to data.root: data.labels=FILE"
        )
        raise DataError(f"data.labels: there is no file {printable(str(path))}", hint=hint)
    folders = [Path(root), Path(root) / val_dir]
    folders += [folders[1].parent] if folders[1].parent != folders[0] else []
    found = [path for folder in folders for path in sorted(folder.iterdir()) if path.name.casefold() == _LABELS_NAME]
    if len(found) == 1:
        return found[0]
    if found:
        shown = " and ".join(printable(str(path)) for path in found)
        raise DataError(f"there are {shown}: which is meant?", hint="choose one: data.labels=FILE")
    raise DataError(
        f"there is no {_LABELS_NAME} in {printable(root)}, nor in its {printable(val_dir)}/",
        hint="the challenge's table is PM_Label_and_Fovea_Location.xlsx: save it as CSV, or name it: data.labels=FILE",
    )


# -------------------------------------------------------------------------------------------------------- labels


def _validation_classes(scan: Scan, val_dir: str, labels: str | None) -> dict[str, list[FileStamp]]:
    """`{class: validation images}`, sorted by name."""
    path = _label_path(scan.root, val_dir, labels)
    stamps = images_of_folder(scan, val_dir)
    if path.parent == Path(scan.root, val_dir):  # the table is no file that was passed over
        scan.ignored -= Counter({path.suffix.lower(): 1})
    file = read_label_file(path, _COLUMNS)
    label_of = _labels_of(file, stamps)
    if lacking := [stamp.name for stamp in stamps if stamp.name not in label_of]:
        text = f"{len(lacking):,} images have no row: {listed(lacking, 4)}"
        file.blame(None, None, text, kind="no row")
    refuse_problems([file], hint=f"every image of {printable(val_dir)}/ needs one row with its name and 0 or 1")
    return {
        class_name: [stamp for stamp in stamps if label_of[stamp.name] == label]
        for label, class_name in enumerate(CLASS_NAMES)
    }


def _labels_of(file: LabelFile, stamps: Sequence[FileStamp]) -> dict[str, int | None]:
    """The label of each image that has a row; None where the row has a fault that is noted."""
    full_names = {stamp.name.rpartition("/")[2]: stamp.name for stamp in stamps}
    by_folded_name: dict[str, list[str]] = {}
    for name in full_names:
        by_folded_name.setdefault(name.casefold(), []).append(name)
    labels: dict[str, int | None] = {}
    first_lines: dict[str, int] = {}
    for row in file.rows:
        typed, match = row.cells["image"], _LABEL.fullmatch(row.cells["label"])
        if not match and row.cells["label"]:
            file.blame(row, "label", f"{printable(row.cells['label'])[:40]!r} is neither 0 nor 1", kind="label")
        alike = [typed] if typed in full_names else by_folded_name.get(typed.casefold(), [])
        if not typed:
            continue  # noted already
        if len(alike) != 1:
            _blame_missing(file, row, by_folded_name)
        elif alike[0] in first_lines:
            file.blame(row, "image", f"{printable(typed)} is in line {first_lines[alike[0]]} already", kind="twice")
        else:
            first_lines[alike[0]] = row.line
            labels[full_names[alike[0]]] = int(match[1]) if match else None
    return labels


def _blame_missing(file: LabelFile, row: Row, names: dict[str, list[str]]) -> None:
    typed = row.cells["image"]
    text = f"there is no image {printable(typed)[:60]}"
    if not any(problem.kind == "missing" for problem in file.problems):  # one guess is enough
        near = difflib.get_close_matches(typed.casefold(), names, n=1)
        text += f" (did you mean {printable(names[near[0]][0])}?)" if near else ""
    file.blame(row, "image", text, kind="missing")
