"""The handwritten digits that travel inside the package, so that a first run needs no network.

Does not know what is done with the images.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np

from cvtrain.data.arrays import image_data
from cvtrain.data.images import ImageData, Progress
from cvtrain.errors import ConfigError

_FILE = Path(__file__).with_name("digits.npz")
_NATIVE_SIZE = 8
_MAX_VALUE = 16
_NUM_CLASSES = 10
_TEST_PER_CLASS = 36
_MAX_SIZE = 512


def load_digits(*, image_size: int = 32, progress: Progress | None = None) -> ImageData:
    """1,797 real images of handwritten digits: 1,437 to train on, 360 (36 of each digit) to test on.

    The originals are 8x8 with values 0..16 (how many of 16 dots were inked). They are enlarged bilinearly in whole
    numbers, so that every machine gets the same pixels, uint8 `(N, image_size, image_size, 1)`.

    The test images are chosen by a fixed hash of their position. This is a split by image, not by writer: the
    packaged copy is the original's test part (13 writers) and names no writers, so the same hand may be on both
    sides and accuracy is a little flattering.

    Args:
        image_size: Height and width to show them at, 8 to 512 pixels.
        progress: Never called; all sources take it.

    Source: Alpaydin & Kaynak 1998, "Optical Recognition of Handwritten Digits", UCI Machine Learning Repository,
    doi 10.24432/C50P49, CC BY 4.0.

    Raises:
        ConfigError: `image_size` is out of range.
    """
    if not isinstance(image_size, int) or not _NATIVE_SIZE <= image_size <= _MAX_SIZE:
        raise ConfigError(f"data.image_size = {image_size} must be {_NATIVE_SIZE} to {_MAX_SIZE}")
    with np.load(_FILE, allow_pickle=False) as file:
        images, labels = file["images"], file["labels"]
    pixels = _enlarged(images, image_size)[..., None]
    test = _test_mask(labels)
    data = image_data(
        (pixels[~test], labels[~test]),
        (pixels[test], labels[test]),
        class_names=tuple(str(digit) for digit in range(_NUM_CLASSES)),
    )
    return replace(data, originals=tuple((size, size, 1) for size in (_NATIVE_SIZE, image_size)))


def _enlarged(images: np.ndarray, size: int) -> np.ndarray:
    """Bilinear interpolation of `(N, 8, 8)`, 0..16, to uint8 `(N, size, size)`, 0..255, halves rounded up."""
    low, high, weight = _neighbours(size)
    values = images.astype(np.int64)
    rows = values[:, low] * (2 * size - weight)[:, None] + values[:, high] * weight[:, None]
    sums = rows[:, :, low] * (2 * size - weight) + rows[:, :, high] * weight
    whole = _MAX_VALUE * (2 * size) ** 2
    return ((2 * 255 * sums + whole) // (2 * whole)).astype(np.uint8)


def _neighbours(size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """For each new row: the two old rows that it lies between, and the weight of the second in 1 / (2 size).

    The centre of new row i lies at (i + 1/2) 8 / size - 1/2 among the old rows; multiplied by 2 size it is whole.
    """
    position = (2 * np.arange(size) + 1) * _NATIVE_SIZE - size
    low, weight = np.divmod(position, 2 * size)
    return np.clip(low, 0, _NATIVE_SIZE - 1), np.clip(low + 1, 0, _NATIVE_SIZE - 1), weight


def _test_mask(labels: np.ndarray) -> np.ndarray:
    """True for the images to test on: in each class the ones with the smallest hash of their position.

    A hash, because the streams of random generators may change with the version of the library.
    """
    ranks = np.array([hashlib.sha256(b"cvtrain digits test split 0: %d" % i).digest()[:8] for i in range(len(labels))])
    mask = np.zeros(len(labels), bool)
    for label in range(_NUM_CLASSES):
        members = np.flatnonzero(labels == label)
        mask[members[np.argsort(ranks[members], kind="stable")[:_TEST_PER_CLASS]]] = True
    return mask
