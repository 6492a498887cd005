"""Labelled image files as a data set: held in memory, or read from the files whenever they are needed.

Knows files with labels, not in what layout they lie or who gave them their labels; nothing of batches.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cvtrain.data.cache import load_or_decode
from cvtrain.data.decode import RESIZE_POLICIES, ImageHeader, decode_image, read_image_header
from cvtrain.data.decoders import DecodeSettings
from cvtrain.data.file_splits import (
    LabelledFiles,
    all_stamps,
    fingerprint_files,
    label_files,
    warn_of_missing,
    without_bad,
)
from cvtrain.data.image_file import FileStamp, ImageError, listed, printable
from cvtrain.data.images import ImageData, ImageSet, ImageStore, MemoryImages, Preprocessing, Progress
from cvtrain.data.scan import Layout, Scan
from cvtrain.errors import ConfigError

DEFAULT_IMAGE_SIZE = 224
_LARGEST_OWN_SIZE = 512
_HEADERS_READ = 256
# Starting processes takes about as long as decoding this much.
_FEW_FILES, _FEW_BYTES = 2_000, 50_000_000


@dataclass(frozen=True, kw_only=True)
class Reading:
    """How image files are read; the options that every source of image files has.

    Whatever the loader, every file is read once before its first use, and refused or left out if it is damaged. With
    `loader="files"` only what was found is kept, so that the next start need not look again.

    Args:
        image_size: Height and width to bring images to, in pixels. None: their own size, if up to 256 of them, spread
            evenly over all, are squares of one size up to 512; else 224, or their median shorter side if that is less.
        channels: 1 (grey), 3 (RGB), or `auto`: 1 if those images are all grey.
        resize: `crop`, `stretch` or `pad`; see `cvtrain.data.decode.decode_image`.
        loader: `memory` decodes all images once, `files` whenever they are needed, `auto` is `memory` up to the limit;
            `list`, for who looks at the files themselves: as `files`, but none is opened or left out before.
        cache_dir: Where decoded images are kept; None: `$XDG_CACHE_HOME/cvtrain` or `~/.cache/cvtrain`.
        memory_limit_gb: Most that `auto` puts into memory, in 10^9 bytes of pixels; None: no limit.
        on_bad: `error` refuses unreadable images and names them all, `skip` leaves them out with a warning.
        num_workers: Processes that decode; None: one per processor. Few images are decoded without any.
        progress: Called as `progress(done, total, what)`.
    """

    image_size: int | None
    channels: int | str
    resize: str
    loader: str
    cache_dir: str | os.PathLike[str] | None
    memory_limit_gb: float | None
    on_bad: str
    num_workers: int | None
    progress: Progress | None


def check_options(root: object, reading: Reading, *, layout: Layout, problems: Sequence[str] = ()) -> None:
    """Refuse options that cannot be, all at once.

    Args:
        root: Must be given.
        reading: What is checked.
        layout: For the hint.
        problems: What the caller has found wrong with options of its own.

    Raises:
        ConfigError: There is something wrong.
    """
    found = []
    if root is None or str(root) == "":
        found.append("data.root is needed: the folder that holds the images (data.root=DIR)")
    if reading.image_size is not None and (not isinstance(reading.image_size, int) or reading.image_size < 1):
        found.append(f"data.image_size={reading.image_size!r} must be a whole number >= 1 or null")
    allowed = {
        "channels": ("auto", 1, 3),
        "resize": RESIZE_POLICIES,
        "loader": ("auto", "memory", "files", "list"),
        "on_bad": ("error", "skip"),
    }
    for name, words in allowed.items():
        value = getattr(reading, name)
        if value not in words:
            found.append(f"data.{name}={value!r} must be one of {', '.join(map(str, words))}")
    if found or problems:
        raise ConfigError([*found, *problems], hint=layout.hint)


def read_images(scan: Scan, reading: Reading) -> ImageData:
    """The images of a scan as a data set; a test split that the scan lacks is carved from train.

    Raises:
        DataError: Too few images are left, or (`BadImagesError`) some are unreadable.
        MemoryLimitError: `loader=memory` with more images than fit.
    """
    splits = label_files(scan)
    fingerprint = fingerprint_files(splits, scan.class_names)
    if reading.loader == "list":
        channels = 3 if reading.channels == "auto" else int(reading.channels)
        unread = DecodeSettings(reading.image_size or DEFAULT_IMAGE_SIZE, channels, reading.resize)
        return _image_data(scan, splits, settings=unread, fingerprint=fingerprint)
    wanted = {"image_size": reading.image_size, "channels": reading.channels, "resize": reading.resize}
    settings, originals = _settle(scan, splits, **wanted)
    stamps = all_stamps(splits)
    in_memory = _in_memory(reading.loader, len(stamps), settings, reading.memory_limit_gb)
    decoded = load_or_decode(
        scan.root,
        stamps,
        settings=settings if in_memory else replace(settings, image_size=0),
        cache_dir=reading.cache_dir,
        num_workers=_num_processes(reading.num_workers, stamps),
        progress=reading.progress,
    )
    scan.warnings += [*decoded.warnings, *_notes(decoded.notes, stamps, auto_grey=reading.channels == "auto")]
    splits = without_bad(scan, splits, bad=decoded.bad, on_bad=reading.on_bad)
    pixels = decoded.pixels if in_memory else None
    found = _image_data(scan, splits, settings=settings, fingerprint=fingerprint, pixels=pixels)
    return replace(found, originals=originals)


@dataclass(frozen=True)
class FileImages:
    """Images that are read and decoded whenever they are needed; the same pixels as `MemoryImages` of these files.

    Args:
        paths: The files.
        image_size: Height and width of the images, in pixels.
        channels: 1 (grey) or 3 (RGB).
        resize: See `cvtrain.data.decode.decode_image`.
    """

    paths: Sequence[str]
    image_size: int
    channels: int
    resize: str = "crop"

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """`(N, C, H, W)`."""
        return len(self.paths), self.channels, self.image_size, self.image_size

    def read(self, indices: Tensor) -> Tensor:
        """The images at `indices` (int64, `(B,)`) as uint8 `(B, C, H, W)` in channels-last memory order.

        Raises:
            ImageError: A file cannot be read.
        """
        pixels = np.empty((len(indices), self.image_size, self.image_size, self.channels), dtype=np.uint8)
        for row, index in enumerate(indices.tolist()):
            pixels[row] = decode_image(
                self.paths[index], image_size=self.image_size, channels=self.channels, resize=self.resize
            )
        return torch.from_numpy(pixels).permute(0, 3, 1, 2)


def _settle(
    scan: Scan, splits: Sequence[LabelledFiles], *, image_size: int | None, channels: int | str, resize: str
) -> tuple[DecodeSettings, tuple[ImageHeader, ...]]:
    """Size and channels, from the headers of some images where they are not given; and these headers."""
    headers = []
    stamps = all_stamps(splits)
    for index in np.linspace(0, len(stamps) - 1, min(len(stamps), _HEADERS_READ)).round().astype(int):
        try:
            headers.append(read_image_header(f"{scan.root}/{stamps[index].name}"))
        except ImageError:
            continue  # told when all are decoded, or when this one is read
    if channels == "auto":
        channels = 1 if headers and all(header.channels == 1 for header in headers) else 3
    if image_size is None:
        image_size = _own_size([(header.height, header.width) for header in headers])
        if any((header.height, header.width) != (image_size, image_size) for header in headers):
            scan.warnings.append(f"not all images are {image_size}x{image_size} px: they are brought to it ({resize})")
    return DecodeSettings(image_size=image_size, channels=int(channels), resize=resize), tuple(headers)


def _own_size(sizes: Sequence[tuple[int, int]]) -> int:
    if not sizes:
        return DEFAULT_IMAGE_SIZE
    height, width = sizes[0]
    if height == width <= _LARGEST_OWN_SIZE and set(sizes) == {(height, width)}:
        return height
    return min(DEFAULT_IMAGE_SIZE, int(np.median([min(size) for size in sizes])))


def _in_memory(loader: str, num_images: int, settings: DecodeSettings, limit_gb: float | None) -> bool:
    if loader != "auto":
        return loader == "memory"
    return limit_gb is None or num_images * math.prod(settings.image_shape) <= limit_gb * 1e9


def _num_processes(num_workers: int | None, stamps: Sequence[FileStamp]) -> int:
    if len(stamps) < _FEW_FILES and sum(stamp.size_bytes for stamp in stamps) < _FEW_BYTES:
        return 0
    if num_workers is not None:
        return num_workers
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _notes(notes: Sequence[tuple[int, str]], stamps: Sequence[FileStamp], *, auto_grey: bool) -> list[str]:
    """A sentence for each kind of oddity that decoding came across."""
    sentences = {
        "frames": "hold several frames or pages, of which the first is used",
        "tiny": "are less than 8 px high or wide",
        "uniform": "are of one single colour",
    }
    if auto_grey:
        sentences["colour"] = "have colours but are read as grey like most others (data.channels=3 keeps them)"
    warnings = []
    for kind, sentence in sentences.items():
        names = [stamps[index].name for index, note in notes if note == kind]
        if names:
            warnings.append(f"{len(names):,} images {sentence}: {listed(names)}")
    return warnings


def _image_data(
    scan: Scan,
    splits: Sequence[LabelledFiles],
    *,
    settings: DecodeSettings,
    fingerprint: str,
    pixels: NDArray[np.uint8] | None = None,
) -> ImageData:
    warn_of_missing(scan, splits)
    train, val, test = _image_sets(scan.root, splits, settings=settings, pixels=pixels)
    return ImageData(
        train=train,
        val=val if len(val) else None,
        test=test,
        class_names=tuple(printable(name) for name in scan.class_names),
        preprocessing=Preprocessing(settings.image_size, settings.channels, settings.resize),
        fingerprint=fingerprint,
        warnings=tuple(scan.warnings),
    )


def _image_sets(
    root: str, splits: Sequence[LabelledFiles], *, settings: DecodeSettings, pixels: NDArray[np.uint8] | None
) -> list[ImageSet]:
    """One set per split; `pixels` holds the images of all splits in a row, or is None to read from files."""
    sets, start = [], 0
    for split in splits:
        images: ImageStore
        if pixels is None:
            images = FileImages(tuple(f"{root}/{stamp.name}" for stamp in split.stamps), **vars(settings))
        else:
            images = MemoryImages(torch.from_numpy(pixels[start : start + len(split.stamps)]))
        names = tuple(printable(stamp.name) for stamp in split.stamps)
        sets.append(ImageSet(images, torch.tensor(split.labels, dtype=torch.int64), names, split.stamps))
        start += len(split.stamps)
    return sets
