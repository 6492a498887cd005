"""All images of a data set in a row with what one look at each has left behind, and the pairs that show the same.

Does not know who looked, nor what is said about it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from cvtrain.data.audit.inspection import THUMBNAIL_SIZE, Seen
from cvtrain.data.audit.likeness import SAME_DETAIL, find_alike, threshold_for
from cvtrain.data.images import ImageData, ImageSet

SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class Survey:
    """The images of all splits, in the order of `SPLITS`.

    Args:
        split_of: int64 `(N,)`, the place of its split in `SPLITS`.
        labels: int64 `(N,)`.
        names: What to call each.
        class_names: The name of label 0, 1, ...
        seen: What was seen of each, or why it cannot be read.
    """

    split_of: Tensor
    labels: Tensor
    names: Sequence[str]
    class_names: Sequence[str]
    seen: Sequence[Seen | str]

    def readable(self) -> Iterator[tuple[int, Seen]]:
        """Number and look of each picture that can be read."""
        return ((i, seen) for i, seen in enumerate(self.seen) if not isinstance(seen, str))


class Pair(NamedTuple):
    """Two images that show the same; `first` comes later in the row.

    Args:
        kind: `same_file`, `same_pixels`, `near_duplicate`, or `mirrored` (and nearly the same).
        first: Its number.
        second: Its number.
        likeness: Of details, up to 1; 1 where the pixels are the same.
    """

    kind: str
    first: int
    second: int
    likeness: float


def sets_of(data: ImageData) -> dict[str, ImageSet]:
    """The splits that there are."""
    return {name: images for name in SPLITS if (images := getattr(data, name)) is not None}


def survey(data: ImageData, seen: Sequence[Seen | str]) -> Survey:
    """Puts together what is known.

    Args:
        data: The images.
        seen: Of the images of all splits in a row.
    """
    sets = sets_of(data)
    names = [name for images in sets.values() for name in images.names or map(str, range(len(images)))]
    split_of = torch.cat([torch.full((len(images),), SPLITS.index(name)) for name, images in sets.items()])
    labels = torch.cat([images.labels for images in sets.values()])
    assert len(seen) == len(labels), "a look at each image"
    return Survey(split_of, labels, names, data.class_names, seen)


def same_pictures(images: Survey) -> tuple[list[Pair], list[int]]:
    """Pairs with the same pixels: each image with the first of its kind; and the numbers of these first ones."""
    first: dict[bytes, int] = {}
    pairs = []
    for number, seen in images.readable():
        earlier = first.setdefault(seen.pixels, number)
        if earlier != number:
            other = images.seen[earlier]
            assert not isinstance(other, str)
            is_same_file = bool(seen.content) and seen.content == other.content
            pairs.append(Pair("same_file" if is_same_file else "same_pixels", number, earlier, 1.0))
    return pairs, list(first.values())


def alike_pictures(
    images: Survey, numbers: Sequence[int], *, progress: Callable[[int, int], None] = lambda _done, _total: None
) -> tuple[list[Pair], float]:
    """Pairs of different pixels that show the same, and from which likeness on they count as such; see `find_alike`.

    Args:
        images: All images.
        numbers: Those to compare, ascending.
        progress: Called with how many are done, and how many there are.
    """
    pictures = [number for number in numbers if images.seen[number].thumbnail]
    if not pictures:
        return [], SAME_DETAIL
    joined = bytearray(b"".join(images.seen[number].thumbnail for number in pictures))
    thumbnails = torch.frombuffer(joined, dtype=torch.uint8).view(-1, THUMBNAIL_SIZE, THUMBNAIL_SIZE)
    index = torch.tensor(pictures)
    found = find_alike(thumbnails, splits=images.split_of[index], labels=images.labels[index], progress=progress)
    threshold = threshold_for(found, labels=images.labels[index])
    rows = zip(
        index[found.first].tolist(),
        index[found.second].tolist(),
        found.likeness.tolist(),
        found.mirrored.tolist(),
        strict=True,
    )
    kinds = {False: "near_duplicate", True: "mirrored"}
    pairs = [Pair(kinds[mirrored], a, b, likeness) for a, b, likeness, mirrored in rows if likeness >= threshold]
    return pairs, threshold
