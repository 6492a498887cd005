"""Folders of images with a folder per class, as a data set.

Does not know how the folder is walked, nor how files are decoded, cached or held.
"""

from __future__ import annotations

import os

from cvtrain.data.images import ImageData, Progress
from cvtrain.data.labelled_images import Reading, check_options, read_images
from cvtrain.data.scan import FOLDER_PER_CLASS, existing_root, scan_root


def load_image_folder(
    *,
    root: str | os.PathLike[str] | None,
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
    """Read a folder of images, laid out as the head of `cvtrain.data.scan` says.

    Args:
        root: The folder.
        image_size, channels, ...: See `cvtrain.data.labelled_images.Reading`.

    Raises:
        ConfigError: `root` is missing, or an option has an unknown value.
        DataError: The folder or its layout is not as described, or (`BadImagesError`) images are unreadable.
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
    check_options(root, reading, layout=FOLDER_PER_CLASS)
    return read_images(scan_root(existing_root(root)), reading)
