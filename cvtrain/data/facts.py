"""The facts of a data set that models, checkpoints and run cards need; from code, never from YAML.

Knows no images.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from cvtrain.data.appearance import Appearance
from cvtrain.data.images import Preprocessing
from cvtrain.data.statistics import Statistics


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
        """The reverse of `to_plain`, which may be of an older version."""
        appearance = plain.get("appearance")
        return cls(
            class_names=tuple(plain["class_names"]),
            class_counts=tuple(plain["class_counts"]),
            preprocessing=Preprocessing(**plain["preprocessing"]),
            statistics=Statistics(**{k: tuple(v) for k, v in plain["statistics"].items()}),
            fingerprint=plain["fingerprint"],
            split_hash=plain["split_hash"],
            appearance=None if appearance is None else Appearance.from_plain(appearance),
        )
