"""Reads the batches of CIFAR-10 and CIFAR-100, pickled or binary, from memory and checks every number in them.

Does not know whether they came from an archive or from an unpacked folder.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from cvtrain.data.cifar_layout import SPLITS, CifarLayout, LabelColumn
from cvtrain.data.images import Progress
from cvtrain.data.pickles import load_plain_pickle
from cvtrain.errors import DataError

_PIXELS = 3 * 32 * 32


def convert_batches(
    layout: CifarLayout, files: Mapping[str, bytes], *, where: Path, progress: Progress | None = None
) -> tuple[dict[str, np.ndarray], list[list[str]]]:
    """The images and labels of both splits, and the class names.

    Args:
        layout: Which of the data sets it is.
        files: Content by file name; binary when the binary test batch is among them, else pickled.
        where: The archive or folder that the files came from, for messages.
        progress: Told about batches read.

    Returns:
        Arrays by name: `train_pixels` and `test_pixels`, uint8 `(N, 32, 32, 3)`, `train_labels` and `test_labels`,
        uint8 `(N, columns)`; and for each column the names of label 0, 1, ...

    Raises:
        DataError: A batch is missing, damaged, hostile or of a wrong shape, or a class has no proper name.
    """
    binary = f"{layout.test_batch}.bin" in files
    suffix, parse = (".bin", _parse_binary) if binary else ("", _parse_pickle)
    batches = [f"{name}{suffix}" for name in layout.batches]
    if missing := [name for name in batches if name not in files]:
        raise DataError(f"{where} lacks {', '.join(missing)}", hint="Fetch it again, or unpack it again.")
    parsed = []
    for done, name in enumerate(batches, 1):
        parsed.append(parse(layout, files[name], f"{where}: {name}"))
        if progress is not None:
            progress(done, len(batches), f"reading {layout.title}")
    arrays = {}
    for split, parts in zip(SPLITS, (parsed[:-1], parsed[-1:]), strict=True):
        arrays[f"{split}_pixels"] = _rows_last(parts)
        arrays[f"{split}_labels"] = np.concatenate([labels for _, labels in parts])
    return arrays, _class_names(layout, files, where=where, binary=binary)


def _rows_last(parts: Sequence[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    """Planes of red, green and blue `(N, 3072)` as one array `(N, 32, 32, 3)`."""
    pixels = np.empty((sum(len(planes) for planes, _ in parts), 32, 32, 3), np.uint8)
    start = 0
    for planes, _ in parts:
        pixels[start : start + len(planes)] = planes.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
        start += len(planes)
    return pixels


def _parse_binary(layout: CifarLayout, content: bytes, where: str) -> tuple[np.ndarray, np.ndarray]:
    """Records of one byte per label and 3,072 bytes of pixels."""
    width = len(layout.labels) + _PIXELS
    if not content or len(content) % width:
        raise DataError(f"{where} has {len(content):,} bytes, which is no whole number of {width:,}-byte records")
    records = np.frombuffer(content, np.uint8).reshape(-1, width)
    labels = records[:, : len(layout.labels)]
    for column, kind in enumerate(layout.labels):
        _check_labels(labels[:, column], kind, where)
    return records[:, len(layout.labels) :], labels


def _parse_pickle(layout: CifarLayout, content: bytes, where: str) -> tuple[np.ndarray, np.ndarray]:
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


def _check_labels(labels: Sequence[int] | np.ndarray, kind: LabelColumn, where: str) -> None:
    low, high, count = min(labels), max(labels), len(kind.official)
    if low < 0 or high >= count:
        raise DataError(f"{where}: `{kind.key}` go from {low} to {high}; 0 to {count - 1} are expected")


def _class_names(layout: CifarLayout, files: Mapping[str, bytes], *, where: Path, binary: bool) -> list[list[str]]:
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
