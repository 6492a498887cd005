"""Images with exactly the same pixels in two splits, found in a moment: for the start of every training.

Knows pixels in memory; neither files nor pictures that are merely alike.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from cvtrain.data.images import ImageSet, MemoryImages

_WORDS = 32
_FACTOR = np.uint64(0x9E3779B97F4A7C15)
"""Odd, its bits without pattern: the fraction of the golden ratio. Source: Knuth, TAOCP 3, section 6.4."""


def leak_warning(parts: Mapping[str, tuple[ImageSet, Tensor]], *, command: str) -> str | None:
    """A sentence where images that validate or test are trained on too, or None.

    Args:
        parts: Of `train`, `val` and `test` the images and the indices that belong to it.
        command: What lists such images.
    """
    train, counts, example = parts["train"], [], ""
    if train[0].images.shape[2:] == (1, 1):  # points may coincide
        return None
    for split in ("val", "test"):
        images, indices = parts[split]
        found = shared_images(images, indices, *train)
        if found:
            counts.append(f"{len(found):,} of {len(indices):,} {split} images")
            example = example or f"{_name(images, found[0][0])} is {_name(train[0], found[0][1])}"
    if not counts:
        return None
    return f"{' and '.join(counts)} are trained on too ({example}): accuracy is too good there; {command} lists them"


def _name(images: ImageSet, index: int) -> str:
    return images.names[index] if images.names else f"image {index}"


def shared_images(images: ImageSet, indices: Tensor, others: ImageSet, other_indices: Tensor) -> list[tuple[int, int]]:
    """Images with a twin among others.

    Args:
        images: Of the one split.
        indices: int64, those that belong to it.
        others: Of the other split; may be the same images.
        other_indices: int64, those that belong to it.

    Returns:
        `(index, index of its first twin among the others)`; nothing where the pixels are not in memory.
    """
    if not (isinstance(images.images, MemoryImages) and isinstance(others.images, MemoryImages)):
        return []
    mine, theirs = (i.images.pixels.numpy() for i in (images, others))
    if mine.shape[1:] != theirs.shape[1:] or mine.dtype != theirs.dtype:
        return []
    keys, other_keys = _keys(mine)[indices.numpy()], _keys(theirs)[other_indices.numpy()]
    candidates = indices.numpy()[np.isin(keys, other_keys)]
    chosen = other_indices.numpy()[np.isin(other_keys, keys)]
    first: dict[bytes, int] = {}
    for index in chosen.tolist():
        first.setdefault(theirs[index].tobytes(), index)
    found = ((index, first.get(mine[index].tobytes())) for index in candidates.tolist())
    return [(index, twin) for index, twin in found if twin is not None]


def _keys(pixels: NDArray[np.generic]) -> NDArray[np.uint64]:
    """A number for each image, from some of its bytes: the same for the same pixels, seldom for others."""
    flat = pixels.reshape(len(pixels), -1).view(np.uint8)
    num_words = flat.shape[1] // 8
    if num_words == 0:
        flat, num_words = np.pad(flat, ((0, 0), (0, 8 - flat.shape[1]))), 1
    words = flat[:, : 8 * num_words].view(np.uint64)
    keys = np.zeros(len(pixels), np.uint64)
    for place in np.unique(np.linspace(0, num_words - 1, min(_WORDS, num_words)).astype(int)):
        keys = (keys ^ words[:, place]) * _FACTOR
        keys ^= keys >> np.uint64(29)
    return keys
