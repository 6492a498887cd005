"""Images that a CSV file lists with their labels, as a data set.

Knows which columns mean what, not how the file is parsed nor how images are read.

    image,label,split        one row per image; the path is relative to the root, `/` or `\\` between folders
    a/1.jpg,cat,train        the label is a word or a number; classes are sorted, numbers by value
    a/2.jpg,dog,test         the split may be left out: then a fixed fifth of every class is the test split

Instead of a column `split` the rows of val and test may stand in files of their own. A row that says again what an
earlier one says is passed over. An image that no row names is no part of the data set.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path, PurePosixPath

from cvtrain.data.image_file import FileStamp, has_image_name, listed, printable
from cvtrain.data.images import ImageData, Progress
from cvtrain.data.label_file import Column, LabelFile, Row, read_label_file, refuse_problems
from cvtrain.data.labelled_images import Reading, check_options, read_images
from cvtrain.data.scan import Layout, Scan, check_counts, existing_root, is_folder, stamp_of, warn_of_alike
from cvtrain.errors import ConfigError, DataError

LAYOUT = Layout(
    hint="wanted: a CSV file with a row image,label per image (paths relative to data.root), and if you like split",
    classes="classes",
    train="the training rows",
    test="test row",
)
_LABELS_NAME = "labels.csv"
_IMAGE_NAMES = (
    *("image", "image_path", "file_name", "filename", "file", "filepath", "file_path", "path"),
    *("image_name", "imgname", "img", "image_id", "id_code", "id", "name"),
)
_LABEL_NAMES = ("label", "class", "class_name", "category", "target", "labels", "diagnosis", "y")
_SPLIT_NAMES = ("split", "subset", "partition", "set")
_SPLITS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "val"),
    **dict.fromkeys(("test", "testing", "evaluation"), "test"),
}
_WHOLE_NUMBER = re.compile(r"[+-]?\d{1,18}")
_NUMBER = re.compile(r"[+-]?\d{1,18}(\.\d{0,18})?")


def load_image_csv(
    *,
    root: str | os.PathLike[str] | None,
    labels: str | None = None,
    val_labels: str | None = None,
    test_labels: str | None = None,
    image_column: str | None = None,
    label_column: str | None = None,
    split_column: str | None = None,
    image_size: int | None = None,
    channels: int | str = "auto",
    resize: str = "crop",
    loader: str = "auto",
    cache_dir: str | os.PathLike[str] | None = None,
    memory_limit_gb: float | None = 4.0,
    on_bad: str = "error",
    num_workers: int | None = None,
    progress: Progress | None = None,
) -> ImageData:
    """Read the images that CSV files list.

    Args:
        root: The folder that the paths in the files are relative to.
        labels: The file, relative to the root; None: labels.csv.
        val_labels: A file of its own for the validation split; then `labels` has no column of splits.
        test_labels: A file of its own for the test split; then `labels` has no column of splits.
        image_column: The column of paths; None: the first of image, image_path, filename, file, path, ... there is.
        label_column: The column of labels; None: the first of label, class, category, target, ... there is.
        split_column: The column of train, val or test; None: split, subset, partition or set, if there is one.
        image_size, channels, ...: See `cvtrain.data.labelled_images.Reading`.

    Raises:
        ConfigError: `root` is missing, or an option has an unknown value.
        DataError: The files are not as described, (`LabelFileError`) rows cannot be used, or (`BadImagesError`)
            images are unreadable.
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
    paths = {"train": labels or _LABELS_NAME, "val": val_labels, "test": test_labels}
    own_files = [f"data.{split}_labels" for split in ("val", "test") if paths[split] is not None]
    problems = [f"data.split_column and {key} are both set: choose one" for key in own_files if split_column]
    check_options(root, reading, layout=LAYOUT, problems=problems)
    scan = Scan(existing_root(root, layout=LAYOUT), layout=LAYOUT)
    columns = _columns(image_column, label_column, split_column)
    if own_files:
        del columns["split"]
    files = {split: read_label_file(_path(scan.root, name), columns) for split, name in paths.items() if name}
    _fill(scan, files)
    return read_images(scan, reading)


def _columns(image: str | None, label: str | None, split: str | None) -> dict[str, Column]:
    """The columns typed, or the usual names of those that were not.

    Raises:
        ConfigError: One column is to be two.
    """
    typed = [name.casefold() for name in (image, label, split) if name]
    if len(set(typed)) < len(typed):
        raise ConfigError("two of data.image_column, data.label_column and data.split_column name the same column")
    return {
        "image": Column((image,) if image else _IMAGE_NAMES, key="data.image_column"),
        "label": Column((label,) if label else _LABEL_NAMES, key="data.label_column"),
        "split": Column((split,) if split else _SPLIT_NAMES, needed=split is not None, key="data.split_column"),
    }


def _path(root: str, name: str) -> Path:
    path = Path(root, os.path.expanduser(name))
    if os.path.isfile(path):
        return path
    here = Path(name).absolute()
    found = listed(sorted(file.name for file in Path(root).glob("*.csv")), 8)
    if here.is_file():
        hint = f"it is relative to data.root: did you mean {here}?"
    else:
        hint = f"the CSV files there are: {found}" if found else LAYOUT.hint
    raise DataError(f"there is no file of labels {printable(str(path))}", hint=hint)


@dataclass(frozen=True)
class _Listed:
    """A row with a split and a label, and its image if there is no fault with that."""

    file: LabelFile
    row: Row
    split: str
    label: str
    stamp: FileStamp | None


def _fill(scan: Scan, files: Mapping[str, LabelFile]) -> None:
    """Put the images of all rows into the splits of the scan; tells all that is wrong with the rows at once."""
    images = _read_rows(scan, files)
    _blame_numbers(images)
    names = {image.label for image in images if image.split == "train"}
    for image in images:
        if names and image.label not in names:
            text = f"{printable(image.label)[:60]} is no class of the training rows, but the label of a"
            image.file.blame(image.row, "label", f"{text} {image.split} row", kind="unknown class")
    refuse_problems(list(files.values()), hint="mend the rows or remove them")
    if not names:
        shown = printable(str(files["train"].path))
        raise DataError(f"there are no rows to train on in {shown}", hint=LAYOUT.hint)
    are_numbers = all(_WHOLE_NUMBER.fullmatch(name) for name in names)
    scan.class_order = tuple(sorted(names, key=_by_value if are_numbers else None))
    for split in ("train", "val", "test"):
        classes: dict[str, list[FileStamp]] = {name: [] for name in scan.class_order}
        for image in images:
            if image.split == split:
                assert image.stamp is not None, "else there was a problem"
                classes[image.label].append(image.stamp)
        if any(classes.values()):
            setattr(scan, split, {name: sorted(stamps) for name, stamps in classes.items()})
        elif split in files:
            raise DataError(f"{printable(str(files[split].path))} holds no rows", hint=LAYOUT.hint)
    check_counts(scan, {name: len(stamps) for name, stamps in scan.train.items()})
    warn_of_alike(scan)
    _warn_of_unlisted(scan, {image.stamp.name for image in images if image.stamp})


def _blame_numbers(images: Sequence[_Listed]) -> None:
    """Note labels that are the same number written in two ways, which would become two classes."""
    first: dict[Decimal, _Listed] = {}
    for image in images:
        if _NUMBER.fullmatch(image.label):
            other = first.setdefault(Decimal(image.label), image)
            if other.label != image.label:
                text = f"{image.label} is the number that line {other.row.line} calls {other.label}"
                image.file.blame(image.row, "label", text, kind="number")


def _warn_of_unlisted(scan: Scan, names: Set[str]) -> None:
    """Add a warning of images that lie beside those of the rows and have none."""
    unlisted = []
    for folder in sorted({name.rpartition("/")[0] for name in names}):
        with contextlib.suppress(OSError), os.scandir(os.path.join(scan.root, folder)) as entries:
            beside = (os.path.join(folder, e.name) for e in entries if not e.name.startswith(".") and not is_folder(e))
            unlisted += [name for name in beside if has_image_name(name) and name not in names]
    if unlisted:
        scan.warnings.append(f"{len(unlisted):,} images beside these have no row: {listed(sorted(unlisted))}")


def _by_value(label: str) -> tuple[int, str]:
    return int(label), label


def _read_rows(scan: Scan, files: Mapping[str, LabelFile]) -> list[_Listed]:
    """The rows that have a split and a label; what is wrong with them and others is noted."""
    images, paths = [], _Paths(scan)
    said: set[tuple[str, str, str | None]] = set()
    num_repeated = 0
    for split_of_file, file in files.items():
        for row in file.rows:
            split: str | None = split_of_file
            if "split" in row.cells:
                split = _SPLITS.get(row.cells["split"].casefold())
            if split is None:
                text = f"{printable(row.cells['split'])[:40]!r} is not train, val or test"
                file.blame(row, "split", text, kind="split")
            says = row.cells["image"], row.cells["label"], split
            if all(says) and says in said:
                num_repeated += 1
                continue
            said.add(says)
            stamp = paths.stamp(file, row) if row.cells["image"] else None
            if split and row.cells["label"]:
                images.append(_Listed(file, row, split, row.cells["label"], stamp))
    if num_repeated:
        scan.warnings.append(f"{num_repeated:,} rows say again what earlier ones say: each image counts once")
    return images


class _Paths:
    """From the text in a row to a file below the root that no other row names."""

    def __init__(self, scan: Scan) -> None:
        self._scan = scan
        self._real_root = os.path.realpath(scan.root)
        self._is_inside: dict[str, bool] = {}
        self._first: dict[str, tuple[LabelFile, Row]] = {}

    def stamp(self, file: LabelFile, row: Row) -> FileStamp | None:
        """The image of a row; None where there is none, which is noted."""
        typed = row.cells["image"]
        shown = printable(typed)[:80]
        name = self._below_root(typed)
        if name is None:
            file.blame(row, "image", f"{shown} leads out of data.root", kind="outside")
            return None
        if name in self._first:
            other, first = self._first[name]
            where = f"line {first.line}" if other is file else f"line {first.line} of {printable(other.path.name)}"
            label = first.cells["label"]
            as_what = f", as {printable(label)[:60]}" if label != row.cells["label"] else ""
            file.blame(row, "image", f"{shown} is in {where} already{as_what}", kind="twice")
            return None
        self._first[name] = file, row
        path = Path(self._scan.root, name)
        if not os.path.lexists(path):
            is_first = all(problem.kind != "missing" for problem in file.problems)  # a guess means a look at a folder
            meant = self._meant(path) if is_first else ""
            file.blame(row, "image", f"there is no file {shown}{meant}", kind="missing")
            return None
        return stamp_of(path, name)

    def _below_root(self, typed: str) -> str | None:
        """A path relative to the root without `.` and `..`; None if it leads out of the root."""
        path = PurePosixPath(typed.replace("\\", "/"))
        is_drive = len(typed) > 1 and typed[1] == ":"
        if path.is_absolute() or is_drive or ".." in path.parts or "\0" in typed or not path.parts:
            return None
        folder = str(path.parent)
        if folder not in self._is_inside:
            # Links to files are followed as everywhere, but no link to a folder opens another place to a table.
            real = os.path.realpath(os.path.join(self._scan.root, folder))
            self._is_inside[folder] = os.path.commonpath([real, self._real_root]) == self._real_root
        return str(path) if self._is_inside[folder] else None

    def _meant(self, path: Path) -> str:
        """A guess at a file whose extension was left out."""
        found = sorted(path.parent.glob(f"{_literal(path.name)}.*")) if path.parent.is_dir() else []
        return f" (did you mean {printable(found[0].name)}?)" if found else ""


def _literal(name: str) -> str:
    """A name in which nothing stands for other characters when it is looked for by pattern."""
    return re.sub(r"([*?[])", r"[\1]", name)
