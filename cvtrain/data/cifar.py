"""CIFAR-10 and CIFAR-100 from their official archives or unpacked folders, read without running pickled code.

Does not know how the archives get onto the machine, nor what is done with the images.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from cvtrain.data.archives import (
    CheckedArrays,
    check_arrays,
    image_data,
    load_arrays,
    load_plain_pickle,
    read_compressed,
    read_members,
    store_arrays,
)
from cvtrain.data.download import Download, data_folder, fetch
from cvtrain.data.images import ImageData, Progress
from cvtrain.errors import ConfigError, DataError

_PAGE = "https://www.cs.toronto.edu/~kriz/"
_PIXELS = 3 * 32 * 32
_MAX_BYTES = 400_000_000  # the official members hold 186 MB
_SPLITS = ("train", "test")

# MD5 and file names: https://www.cs.toronto.edu/~kriz/cifar.html. The SHA-256 are not from that page: they are the
# ones that several independent projects pin for the same files.
CIFAR10_ARCHIVES = (
    Download(
        address=_PAGE + "cifar-10-python.tar.gz",
        file_name="cifar-10-python.tar.gz",
        size_bytes=170_498_071,
        sha256="6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce",
        md5="c58f30108f718f92721af3b95e74349a",
    ),
    Download(
        address=_PAGE + "cifar-10-binary.tar.gz",
        file_name="cifar-10-binary.tar.gz",
        size_bytes=170_052_171,
        sha256="c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
        md5="c32a1d4ab5d03f1284b67883e8d87530",
    ),
)
CIFAR100_ARCHIVES = (
    Download(
        address=_PAGE + "cifar-100-python.tar.gz",
        file_name="cifar-100-python.tar.gz",
        size_bytes=169_001_437,
        sha256="85cd44d02ba6437773c5bbd22e183051d648de2e7d6b014e1ef29b855ba677a7",
        md5="eb9058c3a382ffc7106e4002c42a8d85",
    ),
    Download(
        address=_PAGE + "cifar-100-binary.tar.gz",
        file_name="cifar-100-binary.tar.gz",
        size_bytes=168_513_733,
        sha256="58a81ae192c23a4be8b1804d68e518ed807d710a4eb253b1f2a199162a40d8ec",
        md5="03b5dce01913d631647c71ecec9e9cb8",
    ),
)

_CIFAR10_NAMES = "airplane automobile bird cat deer dog frog horse ship truck"
_COARSE_NAMES = (
    "aquatic_mammals fish flowers food_containers fruit_and_vegetables household_electrical_devices "
    "household_furniture insects large_carnivores large_man-made_outdoor_things "
    "large_natural_outdoor_scenes large_omnivores_and_herbivores medium_mammals non-insect_invertebrates people "
    "reptiles small_mammals trees vehicles_1 vehicles_2"
)
_FINE_NAMES = (
    "apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly camel can "
    "castle caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup dinosaur dolphin "
    "elephant flatfish forest fox girl hamster house kangaroo keyboard lamp lawn_mower leopard lion lizard lobster "
    "man maple_tree motorcycle mountain mouse mushroom oak_tree orange orchid otter palm_tree pear pickup_truck "
    "pine_tree plain plate poppy porcupine possum rabbit raccoon ray road rocket rose sea seal shark shrew skunk "
    "skyscraper snail snake spider squirrel streetcar sunflower sweet_pepper table tank telephone television tiger "
    "tractor train trout tulip turtle wardrobe whale willow_tree wolf woman worm"
)
CIFAR10_NAMES = tuple(_CIFAR10_NAMES.split())
CIFAR100_COARSE_NAMES = tuple(_COARSE_NAMES.split())
CIFAR100_FINE_NAMES = tuple(_FINE_NAMES.split())


@dataclass(frozen=True)
class _Labels:
    """One column of labels: its key in the pickles, where its class names stand, and the official names."""

    key: str
    names_key: str
    names_file: str
    official: tuple[str, ...]


@dataclass(frozen=True)
class _Layout:
    """How one of the data sets lies in its archives; labels in the order of the binary records."""

    title: str
    python_dir: str
    binary_dir: str
    train_batches: tuple[str, ...]
    test_batch: str
    python_names: str
    labels: tuple[_Labels, ...]


_CIFAR10 = _Layout(
    title="CIFAR-10",
    python_dir="cifar-10-batches-py",
    binary_dir="cifar-10-batches-bin",
    train_batches=tuple(f"data_batch_{i}" for i in range(1, 6)),
    test_batch="test_batch",
    python_names="batches.meta",
    labels=(_Labels("labels", "label_names", "batches.meta.txt", CIFAR10_NAMES),),
)
_CIFAR100 = _Layout(
    title="CIFAR-100",
    python_dir="cifar-100-python",
    binary_dir="cifar-100-binary",
    train_batches=("train",),
    test_batch="test",
    python_names="meta",
    labels=(
        _Labels("coarse_labels", "coarse_label_names", "coarse_label_names.txt", CIFAR100_COARSE_NAMES),
        _Labels("fine_labels", "fine_label_names", "fine_label_names.txt", CIFAR100_FINE_NAMES),
    ),
)


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
    return _load(_CIFAR10, 0, root, download, mirror, archives, progress)


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
    return _load(_CIFAR100, ("coarse", "fine").index(label), root, download, mirror, archives, progress)


def _load(
    layout: _Layout,
    column: int,
    root: Path | str,
    download: bool,
    mirror: str | None,
    archives: Sequence[Download],
    progress: Progress | None,
) -> ImageData:
    folder = data_folder(root)
    found = next(filter(None, (load_arrays(*_converted(folder, archive)) for archive in archives)), None)
    if found is None:
        found = _read(layout, folder, archives, download, mirror, progress)
    splits = [(found.arrays[f"{split}_pixels"], found.arrays[f"{split}_labels"][:, column]) for split in _SPLITS]
    return image_data(
        *splits,
        class_names=tuple(found.facts["class_names"][column]),
        warnings=tuple(found.facts["warnings"]),
        pixels_sha256=tuple(found.sha256[f"{split}_pixels"] for split in _SPLITS),
    )


def _converted(folder: Path, archive: Download) -> tuple[Path, dict[str, str]]:
    """The file that holds the archive's images once they are converted, and what it must say about itself."""
    checksum = archive.sha256 or archive.md5
    return folder / f"{archive.file_name.partition('.')[0]}-{checksum[:16]}.arrays", {"archive": checksum}


def _read(
    layout: _Layout,
    folder: Path,
    archives: Sequence[Download],
    download: bool,
    mirror: str | None,
    progress: Progress | None,
) -> CheckedArrays:
    """Reads an archive that is there, else an unpacked folder, else an archive from the network."""
    present = [archive for archive in archives if (folder / archive.file_name).is_file()]
    unpacked = None if present else _unpacked_dir(layout, folder)
    if unpacked is not None:
        return _from_unpacked(layout, unpacked, progress)
    archive = present[0] if present else _from_mirror(layout, archives, mirror)
    path = fetch(archive, folder, enabled=download, progress=progress)
    needed = _needed_files(layout)
    members = read_members(
        path, lambda name: name.partition("/")[0] in _dirs(layout) and Path(name).name in needed, max_bytes=_MAX_BYTES
    )
    files = {Path(name).name: content for name, content in members.items()}
    arrays, names = _convert(layout, files, path, progress)
    cache, facts = _converted(folder, archive)
    checked = check_arrays(arrays, {**facts, "class_names": names, "warnings": []})
    store_arrays(cache, checked)
    return checked


def _from_mirror(layout: _Layout, archives: Sequence[Download], mirror: str | None) -> Download:
    first, *others = archives
    address = f"{mirror.rstrip('/')}/{first.file_name}" if mirror else first.address
    return replace(first, address=address, also=(*(other.file_name for other in others), *_dirs(layout)))


def _from_unpacked(layout: _Layout, unpacked: Path, progress: Progress | None) -> CheckedArrays:
    paths = [path for name in _needed_files(layout) if (path := unpacked / name).is_file()]
    files = {path.name: bytes(read_compressed(path, max_bytes=_MAX_BYTES)) for path in paths}
    arrays, names = _convert(layout, files, unpacked, progress)
    warnings = [f"{unpacked} is an unpacked copy of {layout.title}: no checksum vouches for it"]
    counts = [len(arrays[f"{split}_labels"]) for split in _SPLITS]
    if counts != [50_000, 10_000]:
        warnings.append(
            f"{unpacked} holds {counts[0]:,} training and {counts[1]:,} test images, "
            f"the whole of {layout.title} 50,000 and 10,000"
        )
    return check_arrays(arrays, {"class_names": names, "warnings": warnings})


def _unpacked_dir(layout: _Layout, folder: Path) -> Path | None:
    candidates = [*(folder / name for name in _dirs(layout)), folder]
    tests = (layout.test_batch, f"{layout.test_batch}.bin")
    present = [path for path in candidates if any((path / test).is_file() for test in tests)]
    # A folder with the right name is meant even when its test batch is missing: the message will say so.
    return next(iter(present), next((path for path in candidates[:-1] if path.is_dir()), None))


def _dirs(layout: _Layout) -> tuple[str, str]:
    return layout.python_dir, layout.binary_dir


def _needed_files(layout: _Layout) -> frozenset[str]:
    batches = (*layout.train_batches, layout.test_batch)
    return frozenset(
        (*batches, *(f"{name}.bin" for name in batches), layout.python_names, *(c.names_file for c in layout.labels))
    )


def _convert(
    layout: _Layout, files: Mapping[str, bytes], where: Path, progress: Progress | None
) -> tuple[dict[str, np.ndarray], list[list[str]]]:
    """Pixels uint8 `(N, 32, 32, 3)` and labels uint8 `(N, columns)` of both splits, and the class names."""
    binary = f"{layout.test_batch}.bin" in files
    suffix, parse = (".bin", _parse_binary) if binary else ("", _parse_pickle)
    batches = [f"{name}{suffix}" for name in (*layout.train_batches, layout.test_batch)]
    if missing := [name for name in batches if name not in files]:
        raise DataError(f"{where} lacks {', '.join(missing)}", hint="Fetch it again, or unpack it again.")
    parsed = []
    for done, name in enumerate(batches, 1):
        parsed.append(parse(layout, files[name], f"{where}: {name}"))
        if progress is not None:
            progress(done, len(batches), f"reading {layout.title}")
    arrays = {}
    for split, parts in zip(_SPLITS, (parsed[:-1], parsed[-1:]), strict=True):
        arrays[f"{split}_pixels"] = _rows_last(parts)
        arrays[f"{split}_labels"] = np.concatenate([labels for _, labels in parts])
    return arrays, _class_names(layout, files, where, binary)


def _rows_last(parts: Sequence[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    """Planes of red, green and blue `(N, 3072)` as one array `(N, 32, 32, 3)`."""
    pixels = np.empty((sum(len(planes) for planes, _ in parts), 32, 32, 3), np.uint8)
    start = 0
    for planes, _ in parts:
        pixels[start : start + len(planes)] = planes.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
        start += len(planes)
    return pixels


def _parse_binary(layout: _Layout, content: bytes, where: str) -> tuple[np.ndarray, np.ndarray]:
    """Records of one byte per label and 3,072 bytes of pixels."""
    width = len(layout.labels) + _PIXELS
    if not content or len(content) % width:
        raise DataError(f"{where} has {len(content):,} bytes, which is no whole number of {width:,}-byte records")
    records = np.frombuffer(content, np.uint8).reshape(-1, width)
    labels = records[:, : len(layout.labels)]
    for column, kind in enumerate(layout.labels):
        _check_labels(labels[:, column], kind, where)
    return records[:, len(layout.labels) :], labels


def _parse_pickle(layout: _Layout, content: bytes, where: str) -> tuple[np.ndarray, np.ndarray]:
    """A dictionary with `data`, uint8 `(N, 3072)`, and lists of labels."""
    batch = load_plain_pickle(content, where)
    pixels = batch.get("data")
    if not isinstance(pixels, np.ndarray) or pixels.ndim != 2 or pixels.shape[1] != _PIXELS or not len(pixels):
        found = f"has the shape {pixels.shape}" if isinstance(pixels, np.ndarray) else "is no array"
        raise DataError(f"{where}: `data` {found}; N x {_PIXELS} bytes are expected")
    columns = []
    for kind in layout.labels:
        labels = batch.get(kind.key)
        if not isinstance(labels, list) or not all(type(label) is int for label in labels):
            raise DataError(f"{where}: `{kind.key}` is no list of whole numbers")
        if len(labels) != len(pixels):
            raise DataError(f"{where} has {len(pixels):,} images and {len(labels):,} `{kind.key}`")
        _check_labels(labels, kind, where)
        columns.append(labels)
    return pixels, np.array(columns, np.uint8).T


def _check_labels(labels: Sequence[int] | np.ndarray, kind: _Labels, where: str) -> None:
    low, high, count = min(labels), max(labels), len(kind.official)
    if low < 0 or high >= count:
        raise DataError(f"{where}: `{kind.key}` go from {low} to {high}; 0 to {count - 1} are expected")


def _class_names(layout: _Layout, files: Mapping[str, bytes], where: Path, binary: bool) -> list[list[str]]:
    """The names that came with the data, where they came; else the official ones."""
    meta = {}
    if not binary and layout.python_names in files:
        meta = load_plain_pickle(files[layout.python_names], f"{where}: {layout.python_names}")
    found = []
    for kind in layout.labels:
        names: object = list(kind.official)
        if binary and kind.names_file in files:
            names = files[kind.names_file].decode("utf-8", "replace").split()
        elif kind.names_key in meta:
            names = meta[kind.names_key]
        names = [name.decode("utf-8", "replace") if isinstance(name, bytes) else name for name in _listed(names)]
        if len(set(map(str, names))) != len(kind.official) or not all(_is_name(name) for name in names):
            raise DataError(f"{where}: its class names are not {len(kind.official)} different words")
        found.append(names)
    return found


def _listed(value: object) -> list:
    return value if isinstance(value, list) else []


def _is_name(value: object) -> bool:
    return isinstance(value, str) and 0 < len(value) <= 100 and value.isprintable()
