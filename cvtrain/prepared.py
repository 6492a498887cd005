"""Data that have been read, split and measured.

Knows images, which of them do what, and facts about them; not settings.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from cvtrain.data.facts import DataFacts
from cvtrain.data.images import ImageData, ImageSet
from cvtrain.data.splits import Split


@dataclass(frozen=True)
class PreparedData:
    """Images, which of them do what, and the facts about them."""

    source: ImageData
    split: Split
    facts: DataFacts

    def part(self, split: str) -> tuple[ImageSet, Tensor]:
        """The images of `train`, `val` or `test` and the indices that belong to it."""
        if split == "val":
            images = self.source.train if self.split.val_from_train else self.source.val
            assert images is not None, "a validation split of its own has images"
            return images, self.split.val
        return (self.source.train, self.split.train) if split == "train" else (self.source.test, self.split.test)

    def names(self, split: str) -> list[str]:
        """What to call each image of a split: its path, or its index."""
        images, indices = self.part(split)
        if images.names is None:
            return [str(i) for i in indices.tolist()]
        return [images.names[i] for i in indices.tolist()]
