"""Folders of images with a folder per class: scanning, checking, and loading into memory or from files.

Does not know how a file is decoded nor how pixels are cached, and nothing of batches.

    root/train/<class>/...    the classes are the folders here, sorted by name (by code point, so A..Z before a..z)
    root/val/<class>/...      optional; also valid/ or validation/
    root/test/<class>/...     optional; without it a fifth of every class of train/ becomes the test split

Class folders right in the root are taken as train/. Images may lie in folders below their class. Hidden files and
folders and other files than images are passed over; links to files are followed, links to folders are not (except
the root and train/, val/, test/ themselves).
"""

from __future__ import annotations

import difflib
import hashlib
import math
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from cvtrain.data.cache import DecodeSettings, FileStamp, load_or_decode
from cvtrain.data.decode import (
    EXTENSIONS,
    RESIZE_POLICIES,
    ImageError,
    decode_image,
    printable,
    read_image_header,
    size_reason,
)
from cvtrain.data.images import ImageData, ImageSet, ImageStore, MemoryImages, Preprocessing, Progress
from cvtrain.errors import ConfigError, DataError

TEST_FRACTION = 0.2
DEFAULT_IMAGE_SIZE = 224
_LARGEST_OWN_SIZE = 512
_HEADERS_READ = 256
_VAL_FOLDERS = ("val", "valid", "validation")
_LAYOUT = "wanted: train/<class>/*.jpg, and beside train/ the same as test/ and, if you like, val/"
# Starting processes takes about as long as decoding this much.
_FEW_FILES, _FEW_BYTES = 2_000, 50_000_000


class BadImagesError(DataError):
    """Some images cannot be read.

    Args:
        images: `(name, reason)` of each; the message shows the first three.
        num_images: How many images there are in all.
        root: The folder that the names are relative to.
    """

    def __init__(self, images: Sequence[tuple[str, str]], *, num_images: int, root: str) -> None:
        count = f"{len(images):,} of {num_images:,} images in {printable(root)} cannot be read"
        shown = [f"  {name}: {reason}" for name, reason in images[:3]]
        head = f"{count}:" if len(images) <= 3 else f"{count}, the first three are:"
        super().__init__("\n".join([head, *shown]), hint="mend or remove them, or leave them out: data.on_bad=skip")
        self.images = tuple(images)


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
    """Read a folder of images, laid out as the head of this module says.

    With `loader="files"` only what the file system tells is checked here (empty, huge, no regular file, broken link);
    a damaged image is found when it is read. In memory every image is decoded and checked before this returns.

    Args:
        root: The folder.
        image_size: Height and width to bring images to, in pixels. None: their own size, if up to 256 of them, spread
            evenly over all, are squares of one size up to 512; else 224, or their median shorter side if that is less.
        channels: 1 (grey), 3 (RGB), or `auto`: 1 if those images are all grey.
        resize: `crop`, `stretch` or `pad`; see `cvtrain.data.decode.decode_image`.
        loader: `memory` decodes all images once, `files` whenever they are needed, `auto` is `memory` up to the limit.
        cache_dir: Where decoded images are kept; None: `$XDG_CACHE_HOME/cvtrain` or `~/.cache/cvtrain`.
        memory_limit_gb: Most that `auto` puts into memory, in 10^9 bytes of pixels; None: no limit.
        on_bad: `error` refuses unreadable images and names them all, `skip` leaves them out with a warning.
        num_workers: Processes that decode; None: one per processor. Few images are decoded without any.
        progress: Called as `progress(done, total, what)`.

    Raises:
        ConfigError: `root` is missing, or an option has an unknown value.
        DataError: The folder or its layout is not as described, or (`BadImagesError`) images are unreadable.
        MemoryLimitError: `loader=memory` with more images than fit.
    """
    _check_options(root, image_size, channels=channels, resize=resize, loader=loader, on_bad=on_bad)
    scan = _scan_root(_existing_root(root))
    splits = _label(scan)
    fingerprint = _fingerprint(splits, scan.class_names)
    settings = _settle(scan, splits, image_size=image_size, channels=channels, resize=resize)
    stamps = _all_stamps(splits)
    if _in_memory(loader, len(stamps), settings, memory_limit_gb):
        processes = _num_processes(num_workers, stamps)
        decoded = load_or_decode(
            scan.root, stamps, settings=settings, cache_dir=cache_dir, num_workers=processes, progress=progress
        )
        bad, pixels = decoded.bad, torch.from_numpy(decoded.pixels)
        scan.warnings += [*decoded.warnings, *_notes(decoded.notes, stamps, auto_grey=channels == "auto")]
    else:
        bad = [(index, scan.unusable[stamp.name]) for index, stamp in enumerate(stamps) if stamp.name in scan.unusable]
        pixels = None
    if bad:
        splits = _without(bad, scan, splits, on_bad=on_bad)
    _warn_of_missing(scan, splits)
    train, val, test = _image_sets(scan.root, splits, settings, pixels)
    return ImageData(
        train=train,
        val=val if len(val) else None,
        test=test,
        class_names=tuple(printable(name) for name in scan.class_names),
        preprocessing=Preprocessing(settings.image_size, settings.channels, settings.resize),
        fingerprint=fingerprint,
        warnings=tuple(scan.warnings),
    )


@dataclass(frozen=True)
class _Split:
    """The images of one split, in the order of their labels and then names."""

    stamps: list[FileStamp]
    labels: list[int]


@dataclass
class _Scan:
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
        return sorted(self.train)


def _check_options(root: object, image_size: object, **options: object) -> None:
    problems = []
    if root is None or str(root) == "":
        problems.append("data.root is needed: the folder that holds the images (data.root=DIR)")
    if image_size is not None and (not isinstance(image_size, int) or image_size < 1):
        problems.append(f"data.image_size={image_size!r} must be a whole number >= 1 or null")
    allowed = {
        "channels": ("auto", 1, 3),
        "resize": RESIZE_POLICIES,
        "loader": ("auto", "memory", "files"),
        "on_bad": ("error", "skip"),
    }
    for name, value in options.items():
        if value not in allowed[name]:
            problems.append(f"data.{name}={value!r} must be one of {', '.join(map(str, allowed[name]))}")
    if problems:
        raise ConfigError(problems, hint=_LAYOUT)


def _existing_root(root: str | os.PathLike[str]) -> str:
    """The absolute path of `root`.

    Raises:
        DataError: There is no such folder.
    """
    path = os.path.abspath(os.path.expanduser(os.fspath(root)))
    if os.path.isdir(path):
        return path
    if os.path.exists(path):
        raise DataError(f"data.root is a file, not a folder: {printable(path)}", hint=_LAYOUT)
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
    raise DataError(message, hint=_LAYOUT)


def _subfolders(path: str) -> list[str]:
    with os.scandir(path) as entries:
        return sorted(entry.name for entry in entries if entry.is_dir() and not entry.name.startswith("."))


def _scan_root(root: str) -> _Scan:
    """Find the splits and list their files.

    Raises:
        DataError: The layout is not one that can be read, or a folder cannot be entered.
    """
    scan = _Scan(root)
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


def _no_train(root: str) -> str:
    parent, name = os.path.split(root)
    meant = f" (or did you mean data.root={printable(parent)}?)" if name == "train" else ""
    return f"there is no train/ folder: the class folders in the root are taken as train/{meant}"


def _refuse_other_layouts(root: str, folders: list[str], vals: list[str]) -> None:
    shown = printable(root)
    if "test" in folders or vals:
        raise DataError(f"{shown} has {vals[0] if vals else 'test'}/ but no train/", hint=_LAYOUT)
    for folder in folders:
        if os.path.isdir(os.path.join(root, folder, "train")):
            inner = printable(os.path.join(root, folder))
            raise DataError(f"{shown} has no train/, but its folder {printable(folder)} has", hint=f"data.root={inner}")


def _scan_split(scan: _Scan, split: str) -> dict[str, list[FileStamp]]:
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


def _walk(scan: _Scan, folder: str) -> list[FileStamp]:
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


def _stamp(scan: _Scan, entry: os.DirEntry[str], name: str) -> FileStamp:
    try:
        status = entry.stat()
    except OSError as error:  # a broken link, or a loop of them
        scan.unusable[name] = (error.strerror or str(error)).lower()
        return FileStamp(name, 0, 0)
    reason = size_reason(status)
    if reason is not None:
        scan.unusable[name] = reason
    return FileStamp(name, status.st_size, status.st_mtime_ns)


def _check_classes(scan: _Scan) -> None:
    """Refuse class folders that cannot be learnt from or tested on."""
    root = printable(scan.root)
    if not scan.train:
        found = f"; {len(scan.loose):,} images lie outside any class folder" if scan.loose else ""
        raise DataError(f"no class folders to train on in {root}{found}", hint=_LAYOUT)
    _check_counts({name: len(stamps) for name, stamps in scan.train.items()}, root)
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
                f"the {split} folder in {root} holds classes that train/ lacks: {_some(unknown)}",
                hint=f"{hint}classes are the folders in train/: {_some(scan.class_names, 8)}",
            )


def _check_counts(counts: dict[str, int], root: str) -> None:
    """Raises `DataError` unless there are two classes or more, each with images to train on."""
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
        raise DataError(f"only one class in {root} ({listed}): there is nothing to tell apart", hint=_LAYOUT)


def _warn_of_ignored(scan: _Scan) -> None:
    if scan.ignored:
        kinds = ", ".join(f"{printable(kind)} {count:,}" for kind, count in sorted(scan.ignored.items())[:8])
        scan.warnings.append(f"{scan.ignored.total():,} files that are no images were passed over: {kinds}")
    if scan.loose:
        scan.warnings.append(
            f"{len(scan.loose):,} images outside any class folder were passed over: {_some(scan.loose)}"
        )
    if scan.linked:
        scan.warnings.append(f"links to folders were not followed: {_some(sorted(scan.linked))}")


def _warn_of_missing(scan: _Scan, splits: Sequence[_Split]) -> None:
    for name, split in zip(("val", "test"), splits[1:], strict=True):
        found = set(split.labels)
        missing = [class_name for label, class_name in enumerate(scan.class_names) if label not in found]
        if missing and split.stamps:
            scan.warnings.append(f"no {name} images of {len(missing)} of {len(scan.train)} classes: {_some(missing)}")


def _label(scan: _Scan) -> tuple[_Split, _Split, _Split]:
    """Train, val (possibly empty) and test with labels; a missing test split is carved from train."""
    if scan.test is None:
        train, test = {}, {}
        for name, stamps in scan.train.items():
            train[name], test[name] = _carve(stamps)
        scan.warnings.append(
            f"there is no test/ folder: a fixed {TEST_FRACTION:.0%} of every class of train/ is the test split"
        )
    else:
        train, test = scan.train, scan.test
    if not any(test.values()):
        raise DataError(f"one image per class in {printable(scan.root)} leaves none to test on", hint=_LAYOUT)
    return tuple(_split(classes or {}, scan.class_names) for classes in (train, scan.val, test))


def _carve(stamps: list[FileStamp]) -> tuple[list[FileStamp], list[FileStamp]]:
    """Images to keep and images to test on: ranked by a hash of their names, so that a new file moves few others."""
    ranked = sorted(stamps, key=lambda stamp: hashlib.sha256(_encoded(stamp.name)).digest())
    count = min(max(1, round(TEST_FRACTION * len(stamps))), len(stamps) - 1)
    return sorted(ranked[count:]), sorted(ranked[:count])


def _split(classes: dict[str, list[FileStamp]], class_names: Sequence[str]) -> _Split:
    stamps = [stamp for name in class_names for stamp in classes.get(name, ())]
    labels = [label for label, name in enumerate(class_names) for _ in classes.get(name, ())]
    return _Split(stamps, labels)


def _fingerprint(splits: Sequence[_Split], class_names: Sequence[str]) -> str:
    """SHA-256 over names, sizes and labels of all files: not over times or places, so a copy has the same."""
    digest = hashlib.sha256(_encoded("\n".join(map(repr, class_names))))
    for split in splits:
        lines = (f"{s.name}\0{s.size_bytes}\0{label}\n" for s, label in zip(split.stamps, split.labels, strict=True))
        digest.update(_encoded(f"\0{len(split.stamps)}\n" + "".join(lines)))
    return digest.hexdigest()


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _settle(
    scan: _Scan, splits: Sequence[_Split], *, image_size: int | None, channels: int | str, resize: str
) -> DecodeSettings:
    """Size and channels, from the headers of some images where they are not given."""
    headers = []
    if image_size is None or channels == "auto":
        stamps = _all_stamps(splits)
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
    return DecodeSettings(image_size=image_size, channels=int(channels), resize=resize)


def _own_size(sizes: Sequence[tuple[int, int]]) -> int:
    if not sizes:
        return DEFAULT_IMAGE_SIZE
    height, width = sizes[0]
    if height == width <= _LARGEST_OWN_SIZE and set(sizes) == {(height, width)}:
        return height
    return min(DEFAULT_IMAGE_SIZE, int(np.median([min(size) for size in sizes])))


def _all_stamps(splits: Sequence[_Split]) -> list[FileStamp]:
    return [stamp for split in splits for stamp in split.stamps]


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
            warnings.append(f"{len(names):,} images {sentence}: {_some(names)}")
    return warnings


def _without(bad: Sequence[tuple[int, str]], scan: _Scan, splits: Sequence[_Split], *, on_bad: str) -> list[_Split]:
    """The splits without the unreadable images, which are given by their indices into all images.

    Raises:
        BadImagesError: They are not to be left out.
        DataError: No image of a class is left to train on, or none to test on.
    """
    stamps = _all_stamps(splits)
    images = [(printable(stamps[index].name), reason) for index, reason in bad]
    if on_bad == "error":
        raise BadImagesError(images, num_images=len(stamps), root=scan.root)
    shown = ", ".join(f"{name} ({reason})" for name, reason in images[:3])
    more = ", ..." if len(images) > 3 else ""
    scan.warnings.append(f"{len(images):,} of {len(stamps):,} images cannot be read and are left out: {shown}{more}")
    dropped = {index for index, _ in bad}
    kept, start = [], 0
    for split in splits:
        rows = [row for row in range(len(split.stamps)) if start + row not in dropped]
        kept.append(_Split([split.stamps[row] for row in rows], [split.labels[row] for row in rows]))
        start += len(split.stamps)
    counts = Counter(kept[0].labels)
    _check_counts({name: counts[label] for label, name in enumerate(scan.class_names)}, printable(scan.root))
    if not kept[2].stamps:
        raise DataError(f"no readable test image in {printable(scan.root)}")
    return kept


def _image_sets(root: str, splits: Sequence[_Split], settings: DecodeSettings, pixels: Tensor | None) -> list[ImageSet]:
    """One set per split; `pixels` holds the images of all splits in a row, or is None to read from files."""
    sets, start = [], 0
    for split in splits:
        images: ImageStore
        if pixels is None:
            images = FileImages(tuple(f"{root}/{stamp.name}" for stamp in split.stamps), **vars(settings))
        else:
            images = MemoryImages(pixels[start : start + len(split.stamps)])
        names = tuple(printable(stamp.name) for stamp in split.stamps)
        sets.append(ImageSet(images, torch.tensor(split.labels, dtype=torch.int64), names))
        start += len(split.stamps)
    return sets


def _some(names: Sequence[str], count: int = 3) -> str:
    return ", ".join(printable(name) for name in names[:count]) + (", ..." if len(names) > count else "")
