"""Food-11: 16,643 photographs of eleven kinds of food, with the label in the name of each file.

Knows the layout that the data set is handed out in, not how files are unpacked or read.

    training/0_0.jpg, 0_1.jpg, ... 10_708.jpg    the number before `_` is the label
    validation/...                               the validation split; without it, some of training/ validate
    evaluation/...                               the test split; without it, a fixed fifth of training/ tests

The folders may lie in one more folder (food-11/), and all of it in a zip file.

Source: Singla, Yuan & Ebrahimi 2016, "Food/Non-food Image Classification and Food Categorization using Pre-Trained
GoogLeNet Model", MADiMa, doi 10.1145/2986035.2986039.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from cvtrain.data.image_file import listed, printable
from cvtrain.data.images import ImageData, Progress
from cvtrain.data.labelled_images import Reading, check_options, read_images
from cvtrain.data.named_files import classes_by_name, images_of_folder, only_folder
from cvtrain.data.scan import Layout, Scan, check_counts, existing_root, subfolders, warn_of_ignored
from cvtrain.data.unpacked import unpacked
from cvtrain.errors import DataError

CLASS_NAMES = (
    *("Bread", "Dairy product", "Dessert", "Egg", "Fried food", "Meat"),
    *("Noodles/Pasta", "Rice", "Seafood", "Soup", "Vegetable/Fruit"),
)
LAYOUT = Layout(
    hint="wanted: training/0_0.jpg ... 10_708.jpg, and beside training/ the same as validation/ and evaluation/",
    classes="classes",
    train="training/",
    test="evaluation/ folder",
)
_SPLITS = {"train": "training", "val": "validation", "test": "evaluation"}
_NAME = re.compile(r"(\d{1,2})_")


def load_food11(
    *,
    root: str | os.PathLike[str] | None,
    image_size: int | None = 128,
    channels: int | str = 3,
    resize: str = "crop",
    loader: str = "auto",
    cache_dir: str | os.PathLike[str] | None = None,
    memory_limit_gb: float | None = 4.0,
    on_bad: str = "error",
    num_workers: int | None = None,
    progress: Progress | None = None,
) -> ImageData:
    """Read Food-11 from its folder, or from its zip file, which is unpacked once into the cache folder.

    Args:
        root: The folder that holds training/, the folder around that, or the zip file.
        image_size, channels, ...: See `cvtrain.data.labelled_images.Reading`.

    Raises:
        ConfigError: `root` is missing, or an option has an unknown value.
        DataError: The layout is not as described, the zip file is damaged or hostile, or images are unreadable.
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
    check_options(root, reading, layout=LAYOUT)
    path = Path(os.path.expanduser(os.fspath(root)))
    folder = unpacked(path, cache_dir=cache_dir, progress=progress) if os.path.isfile(path) else path
    return read_images(_scan(_inner_root(existing_root(folder, layout=LAYOUT), shown=path)), reading)


def _inner_root(root: str, *, shown: Path) -> str:
    """The folder that holds training/: the root, or the one folder in it that does."""
    if only_folder(root, (_SPLITS["train"],)):
        return root
    inner = [os.path.join(root, name) for name in subfolders(root)]
    found = [folder for folder in inner if os.access(folder, os.R_OK) and only_folder(folder, (_SPLITS["train"],))]
    if len(found) == 1:
        return found[0]
    if found:
        names = " and ".join(printable(os.path.basename(folder)) for folder in found)
        raise DataError(
            f"{printable(str(shown))} holds training/ in {names}", hint="name one of them: data.root=FOLDER"
        )
    folders = listed([os.path.basename(folder) for folder in inner], 8)
    inside = f"the folders there are: {folders}" if folders else "there are no folders in it"
    raise DataError(f"there is no training/ in {printable(str(shown))}; {inside}", hint=LAYOUT.hint)


def _scan(root: str) -> Scan:
    scan = Scan(root, layout=LAYOUT, class_order=CLASS_NAMES)
    folders = {split: only_folder(root, (name,)) for split, name in _SPLITS.items()}
    stamps = {split: images_of_folder(scan, folder) for split, folder in folders.items() if folder is not None}
    rule = f"do not begin with a number from 0 to {len(CLASS_NAMES) - 1} and '_'"
    classes_by_name(scan, [each for found in stamps.values() for each in found], label_of=_label, rule=rule)
    for split, found in stamps.items():  # whose names are right, then
        setattr(scan, split, classes_by_name(scan, found, label_of=_label, rule=rule))
    others = [name for name in subfolders(root) if name.casefold() not in _SPLITS.values()]
    scan.unvisited += [f"{name}/" for name in others]
    check_counts(scan, {name: len(stamps) for name, stamps in scan.train.items()})
    warn_of_ignored(scan)
    return scan


def _label(name: str) -> int | None:
    match = _NAME.match(name)
    return int(match[1]) if match and int(match[1]) < len(CLASS_NAMES) else None
