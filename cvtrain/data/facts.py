"""The facts of a data set that models, checkpoints and run cards need; from code, never from YAML.

Knows no images.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import asdict, dataclass
from typing import Any

from cvtrain.data.appearance import NUM_FIGURES, Appearance
from cvtrain.data.images import Preprocessing
from cvtrain.data.statistics import Statistics
from cvtrain.errors import DataError

MAX_CLASSES = 100_000
MAX_IMAGE_SIZE = 8_192
"""Height and width that an input may have, in pixels; twice what `data.image_size` takes."""
MAX_CHANNELS = 4_096
"""Coordinates of a point; pictures have 1 or 3."""
_MAX_NAME = 1_000


@dataclass(frozen=True)
class DataFacts:
    """What there is to know of a data set and of how it is split.

    Args:
        class_names: The name of label 0, 1, ...
        class_counts: Training images of each class.
        preprocessing: How a picture becomes an input.
        statistics: Mean and standard deviation that images are normalised by.
        fingerprint: SHA-256 (hex) of the data.
        split_hash: SHA-256 (hex) of which image trains, validates, tests.
        appearance: What the training images look like; None where that is not known, or has no meaning.
    """

    class_names: tuple[str, ...]
    class_counts: tuple[int, ...]
    preprocessing: Preprocessing
    statistics: Statistics
    fingerprint: str
    split_hash: str
    appearance: Appearance | None = None

    def __post_init__(self) -> None:
        """Refuses data whose checkpoints `from_plain` would not take back.

        Raises:
            DataError: Such data.
        """
        if self.num_classes > MAX_CLASSES:
            raise DataError(f"there are {self.num_classes:,} classes: {MAX_CLASSES:,} at most")
        longest = max((str(name) for name in self.class_names), key=len, default="")
        if len(longest) > _MAX_NAME:
            raise DataError(
                f"the class {longest[:40]}... has a name of {len(longest):,} letters: {_MAX_NAME:,} at most"
            )

    @property
    def num_classes(self) -> int:
        """How many classes there are."""
        return len(self.class_names)

    @property
    def in_channels(self) -> int:
        """1 (grey), 3 (RGB), or the number of coordinates of a point."""
        return self.preprocessing.channels

    @property
    def image_size(self) -> int:
        """Height and width in pixels."""
        return self.preprocessing.image_size

    def to_plain(self) -> dict[str, Any]:
        """Plain containers, for a checkpoint."""
        return asdict(self)

    @classmethod
    def from_plain(cls, plain: dict[str, Any]) -> DataFacts:
        """The reverse of `to_plain`, which may be of an older version; `plain` may come from anywhere.

        Raises:
            KeyError, TypeError, ValueError: Facts that are missing, of another type, or that no data can have.
        """
        appearance, preprocessing = plain.get("appearance"), Preprocessing(**plain["preprocessing"])
        _check_preprocessing(preprocessing)
        statistics = Statistics(**{k: tuple(v) for k, v in plain["statistics"].items()})
        for numbers, least in ((statistics.mean, -math.inf), (statistics.std, 0)):
            if len(numbers) != preprocessing.channels or not all(_is_finite(n) and n > least for n in numbers):
                raise ValueError("mean and standard deviation of each channel")
        names, counts = tuple(plain["class_names"]), tuple(plain["class_counts"])
        _check_classes(plain["class_names"], counts)
        for key in ("fingerprint", "split_hash"):
            if not isinstance(plain[key], str):
                raise TypeError(f"{key} as text")
        return cls(
            class_names=names,
            class_counts=counts,
            preprocessing=preprocessing,
            statistics=statistics,
            fingerprint=plain["fingerprint"],
            split_hash=plain["split_hash"],
            appearance=None if appearance is None else _appearance(appearance),
        )


def _check_preprocessing(rule: Preprocessing) -> None:
    from cvtrain.data.decode import RESIZE_POLICIES  # decoders are not needed where no picture is read

    if not _is_whole(rule.image_size, 1, MAX_IMAGE_SIZE):
        raise ValueError(f"an image size from 1 to {MAX_IMAGE_SIZE}")
    if not _is_whole(rule.channels, 1, MAX_CHANNELS):
        raise ValueError("a number of channels")
    if rule.resize not in RESIZE_POLICIES:
        raise ValueError(f"resize as one of {', '.join(RESIZE_POLICIES)}")
    if rule.permute_pixels is not None and not _is_whole(rule.permute_pixels, 0, 2**62):
        raise ValueError("permute_pixels as a seed")


def _check_classes(names: Any, counts: Collection[Any]) -> None:
    if not isinstance(names, list | tuple) or not 2 <= len(names) <= MAX_CLASSES:
        raise ValueError(f"the names of 2 to {MAX_CLASSES:,} classes")
    if not all(type(name) is str and len(name) <= _MAX_NAME for name in names) or len(set(names)) < len(names):
        raise ValueError("class names that are different texts")
    if len(counts) != len(names) or not all(_is_whole(count, 0, 2**62) for count in counts):
        raise ValueError("a count for each class")


def _appearance(plain: Any) -> Appearance:
    """Whatever they say, the worst is a wrong remark on a picture; but every figure that is asked for must be there."""
    found = Appearance.from_plain(plain)
    columns = (found.low, found.high, found.mean, found.std, found.inverse, *found.inverse)
    if not all(isinstance(column, tuple) and len(column) == len(found.low) for column in columns):
        raise ValueError("what training images look like")
    numbers = [*sum((*columns[:4], *found.inverse), ()), *found.sides]
    numbers += [found.limit, found.grey_share, found.aspect_ratio]
    if len(found.low) not in NUM_FIGURES or len(found.sides) != 2 or not all(map(_is_number, numbers)):
        raise ValueError("what training images look like")
    return found


def _is_whole(value: Any, low: int, high: int) -> bool:
    return type(value) is int and low <= value <= high


def _is_number(value: Any) -> bool:
    return type(value) in (int, float)


def _is_finite(value: Any) -> bool:
    return _is_number(value) and math.isfinite(value)
