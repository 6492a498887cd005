"""Arrays with checksums: kept in one file that is verified when it is read, and handed over as `ImageData`.

Does not know where the arrays came from.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from cvtrain.data.images import ImageData, ImageSet, MemoryImages, Preprocessing
from cvtrain.data.statistics import Statistics

_CACHE_FORMAT = 1
_MAX_HEADER_BYTES = 1 << 20


@dataclass(frozen=True)
class CheckedArrays:
    """Arrays by name, plain facts about them (as JSON gives them back), and the SHA-256 of each array."""

    arrays: Mapping[str, np.ndarray]
    facts: Mapping[str, object]
    sha256: Mapping[str, str]


def check_arrays(arrays: Mapping[str, np.ndarray], facts: Mapping[str, object]) -> CheckedArrays:
    """The arrays with their checksums."""
    return CheckedArrays(arrays, facts, {name: array_sha256(array) for name, array in arrays.items()})


def store_arrays(path: Path, checked: CheckedArrays) -> None:
    """Writes arrays, facts and checksums to one file, whole or not at all.

    A folder that cannot be written, or a full disk, is no error: the next start converts again.
    """
    layout = [(name, array.dtype.str, array.shape, checked.sha256[name]) for name, array in checked.arrays.items()]
    header = json.dumps({"format": _CACHE_FORMAT, "facts": dict(checked.facts), "arrays": layout}).encode()
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("xb") as file:
            file.write(hashlib.sha256(header).hexdigest().encode() + b"\n" + header + b"\n")
            for array in checked.arrays.values():
                np.ascontiguousarray(array).tofile(file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def load_arrays(path: Path, facts: Mapping[str, object]) -> CheckedArrays | None:
    """What `store_arrays` wrote, checked bit by bit.

    Args:
        path: The file.
        facts: Must be among the stored facts, with equal values.

    Returns:
        None when there is no such file or it does not verify.
    """
    try:
        with path.open("rb") as file:
            checksum, text = file.readline(100).strip(), file.readline(_MAX_HEADER_BYTES).strip()
            if hashlib.sha256(text).hexdigest().encode() != checksum:
                return None
            header = json.loads(text)
            if header["format"] != _CACHE_FORMAT or any(header["facts"].get(k) != v for k, v in facts.items()):
                return None
            arrays, sha256 = {}, {}
            for name, dtype, shape, expected in header["arrays"]:
                arrays[name] = np.fromfile(file, dtype, math.prod(shape)).reshape(shape)
                sha256[name] = expected
    except (OSError, ValueError):  # shorter than it says
        return None
    if any(array_sha256(array) != sha256[name] for name, array in arrays.items()):
        return None
    return CheckedArrays(arrays, header["facts"], sha256)


def array_sha256(array: np.ndarray) -> str:
    """SHA-256 (hex) over type, shape and content; the same on every machine."""
    little = np.ascontiguousarray(array).astype(array.dtype.newbyteorder("<"), copy=False)
    digest = hashlib.sha256(f"{little.dtype.str} {little.shape}\n".encode())
    digest.update(little.data if little.size else b"")
    return digest.hexdigest()


def image_data(
    train: tuple[np.ndarray, np.ndarray],
    test: tuple[np.ndarray, np.ndarray],
    *,
    class_names: tuple[str, ...],
    warnings: tuple[str, ...] = (),
    pixels_sha256: tuple[str, str] | None = None,
    statistics: Statistics | None = None,
) -> ImageData:
    """Arrays as `ImageData` without a validation split; its fingerprint covers pixels, labels and class names.

    Args:
        train: Pixels, uint8 or float32 `(N, H, W, C)`, and labels, whole numbers `(N,)`.
        test: The same for the test split.
        class_names: The name of label 0, 1, ...
        warnings: Sentences for the user.
        pixels_sha256: `array_sha256` of the pixels of both splits, where it is known already.
        statistics: To normalise by; None: they are measured.
    """
    pixels_sha256 = pixels_sha256 or (array_sha256(train[0]), array_sha256(test[0]))
    labels_sha256 = (array_sha256(labels.astype(np.int64)) for _, labels in (train, test))
    content = json.dumps([class_names, *pixels_sha256, *labels_sha256])
    _, size, _, channels = train[0].shape
    return ImageData(
        train=_image_set(*train),
        val=None,
        test=_image_set(*test),
        class_names=class_names,
        preprocessing=Preprocessing(image_size=size, channels=channels),
        fingerprint=hashlib.sha256(content.encode()).hexdigest(),
        warnings=warnings,
        statistics=statistics,
    )


def _image_set(pixels: np.ndarray, labels: np.ndarray) -> ImageSet:
    return ImageSet(
        images=MemoryImages(torch.from_numpy(np.ascontiguousarray(pixels))),
        labels=torch.from_numpy(labels.astype(np.int64)),
    )
