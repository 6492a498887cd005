"""CIFAR-10 and CIFAR-100 from their official archives or unpacked folders, read without running pickled code.

Does not know how the archives get onto the machine, nor what is done with the images.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from cvtrain.data.archives import read_compressed, read_members
from cvtrain.data.arrays import CheckedArrays, check_arrays, image_data, load_arrays, store_arrays
from cvtrain.data.cifar_batches import convert_batches
from cvtrain.data.cifar_layout import CIFAR10, CIFAR10_ARCHIVES, CIFAR100, CIFAR100_ARCHIVES, SPLITS, CifarLayout
from cvtrain.data.download import fetch
from cvtrain.data.images import ImageData, Progress
from cvtrain.data.published import Download, data_folder, verify
from cvtrain.errors import ConfigError

_MAX_BYTES = 400_000_000  # the official members hold 186 MB
_NUM_IMAGES = (50_000, 10_000)  # to train and to test on


def load_cifar10(
    *,
    root: Path | str,
    download: bool = True,
    mirror: str | None = None,
    archives: Sequence[Download] = CIFAR10_ARCHIVES,
    progress: Progress | None = None,
) -> ImageData:
    """CIFAR-10: 50,000 training and 10,000 test images of 10 classes, uint8 `(N, 32, 32, 3)`.

    Taken from the first of these that is there: the arrays converted by an earlier start, an official archive, an
    unpacked folder, the network. An archive is verified before it is opened. All ways give the same fingerprint.

    Args:
        root: The data folder, or the unpacked folder itself.
        download: Fetch the archive when nothing is found.
        mirror: https folder that holds the same archives, for when the official server is slow.
        archives: Archives that are accepted; the first one is the one to fetch.
        progress: Told about bytes fetched and batches read.

    Source: Krizhevsky 2009, "Learning Multiple Layers of Features from Tiny Images", chapter 3.

    Raises:
        DataError: Nothing is found and nothing could be fetched, or what was found is damaged, hostile or of a
            wrong shape.
    """
    return _load(CIFAR10, 0, root=root, download=download, mirror=mirror, archives=archives, progress=progress)


def load_cifar100(
    *,
    root: Path | str,
    download: bool = True,
    mirror: str | None = None,
    label: str = "fine",
    archives: Sequence[Download] = CIFAR100_ARCHIVES,
    progress: Progress | None = None,
) -> ImageData:
    """CIFAR-100: 50,000 training and 10,000 test images, uint8 `(N, 32, 32, 3)`.

    Args:
        root: The data folder, or the unpacked folder itself.
        download: Fetch the archive when nothing is found.
        mirror: https folder that holds the same archives.
        label: `fine` (100 classes) or `coarse` (20 groups of five).
        archives: Archives that are accepted; the first one is the one to fetch.
        progress: Told about bytes fetched and batches read.

    Source: Krizhevsky 2009, "Learning Multiple Layers of Features from Tiny Images", chapter 3.

    Raises:
        ConfigError: `label` is neither of the two.
        DataError: As for `load_cifar10`.
    """
    if label not in ("fine", "coarse"):
        raise ConfigError(f"data.label = {label} must be fine or coarse")
    column = ("coarse", "fine").index(label)
    return _load(CIFAR100, column, root=root, download=download, mirror=mirror, archives=archives, progress=progress)


def _load(
    layout: CifarLayout,
    column: int,
    *,
    root: Path | str,
    download: bool,
    mirror: str | None,
    archives: Sequence[Download],
    progress: Progress | None,
) -> ImageData:
    folder = data_folder(root)
    read = (
        next(filter(None, (load_arrays(*_converted(folder, archive)) for archive in archives)), None)
        or _from_present(layout, folder, archives=archives, progress=progress)
        or _from_network(layout, folder, archives=archives, download=download, mirror=mirror, progress=progress)
    )
    splits = [(read.arrays[f"{split}_pixels"], read.arrays[f"{split}_labels"][:, column]) for split in SPLITS]
    return image_data(
        *splits,
        class_names=tuple(read.facts["class_names"][column]),
        warnings=tuple(read.facts["warnings"]),
        pixels_sha256=tuple(read.sha256[f"{split}_pixels"] for split in SPLITS),
    )


def _converted(folder: Path, archive: Download) -> tuple[Path, dict[str, str]]:
    """The file that holds the archive's images once they are converted, and what it must say about itself."""
    checksum = archive.sha256 or archive.md5
    return folder / f"{archive.file_name.partition('.')[0]}-{checksum[:16]}.arrays", {"archive": checksum}


def _from_present(
    layout: CifarLayout, folder: Path, *, archives: Sequence[Download], progress: Progress | None
) -> CheckedArrays | None:
    """Reads an archive that is there, else an unpacked folder; None when there is neither."""
    for archive in archives:
        if (path := folder / archive.file_name).is_file():
            verify(path, archive)
            return _from_archive(layout, path, archive=archive, progress=progress)
    unpacked = _unpacked_dir(layout, folder)
    return None if unpacked is None else _from_unpacked(layout, unpacked, progress=progress)


def _from_network(
    layout: CifarLayout,
    folder: Path,
    *,
    archives: Sequence[Download],
    download: bool,
    mirror: str | None,
    progress: Progress | None,
) -> CheckedArrays:
    first, *others = archives
    also = (*(other.file_name for other in others), *layout.dirs)
    path = fetch(replace(first.from_mirror(mirror), also=also), folder, enabled=download, progress=progress)
    return _from_archive(layout, path, archive=first, progress=progress)


def _from_archive(layout: CifarLayout, path: Path, *, archive: Download, progress: Progress | None) -> CheckedArrays:
    """Reads a verified archive and keeps the converted images beside it for the next start."""
    dirs, needed = layout.dirs, layout.files
    members = read_members(
        path, lambda name: name.partition("/")[0] in dirs and Path(name).name in needed, max_bytes=_MAX_BYTES
    )
    files = {Path(name).name: content for name, content in members.items()}
    arrays, names = convert_batches(layout, files, where=path, progress=progress)
    cache, facts = _converted(path.parent, archive)
    checked = check_arrays(arrays, {**facts, "class_names": names, "warnings": []})
    store_arrays(cache, checked)
    return checked


def _from_unpacked(layout: CifarLayout, unpacked: Path, *, progress: Progress | None) -> CheckedArrays:
    paths = [path for name in layout.files if (path := unpacked / name).is_file()]
    files = {path.name: bytes(read_compressed(path, max_bytes=_MAX_BYTES)) for path in paths}
    arrays, names = convert_batches(layout, files, where=unpacked, progress=progress)
    warnings = [f"{unpacked} is an unpacked copy of {layout.title}: no checksum vouches for it"]
    counts = tuple(len(arrays[f"{split}_labels"]) for split in SPLITS)
    if counts != _NUM_IMAGES:
        warnings.append(
            f"{unpacked} holds {counts[0]:,} training and {counts[1]:,} test images, "
            f"the whole of {layout.title} {_NUM_IMAGES[0]:,} and {_NUM_IMAGES[1]:,}"
        )
    return check_arrays(arrays, {"class_names": names, "warnings": warnings})


def _unpacked_dir(layout: CifarLayout, folder: Path) -> Path | None:
    candidates = [*(folder / name for name in layout.dirs), folder]
    tests = (layout.test_batch, f"{layout.test_batch}.bin")
    present = [path for path in candidates if any((path / test).is_file() for test in tests)]
    # A folder with the right name is meant even when its test batch is missing: the message will say so.
    return next(iter(present), next((path for path in candidates[:-1] if path.is_dir()), None))
