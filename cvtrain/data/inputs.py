"""What a model is fed: batches that are augmented, normalised and, if so wished, permuted on their device.

Knows data, not models: it joins batches, augmentation and normalisation, for training and for evaluation.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from torch import Tensor

from cvtrain.data.augment import Augment
from cvtrain.data.batches import Batches
from cvtrain.data.draws import Draws
from cvtrain.data.permutation import PermutePixels
from cvtrain.data.statistics import Normalize


class Inputs(NamedTuple):
    """One batch, ready for the model.

    Args:
        images: float32 `(B, C, H, W)`, normalised.
        labels: int64 `(B,)`.
        other_labels: int64 `(B,)` of the images mixed in, or None.
        weight: float32 `(B,)`, the share of `labels` where images are mixed, or None.
    """

    images: Tensor
    labels: Tensor
    other_labels: Tensor | None = None
    weight: Tensor | None = None

    def parts(self, num_parts: int) -> list[Inputs]:
        """The batch cut into at most `num_parts` parts of nearly equal size, none of a single image.

        A batch of one stays whole; batch normalisation cannot take the variance of one.
        """
        num_parts = max(min(num_parts, len(self.labels) // 2), 1)
        columns = [[None] * num_parts if c is None else c.tensor_split(num_parts) for c in self]
        return [Inputs(*row) for row in zip(*columns, strict=True)]


class TrainInputs:
    """Shuffled, augmented batches.

    Args:
        batches: Of the training split.
        augment: How images are varied.
        normalize: On the device of the batches.
        seed: Of the augmentation.
        permute: What comes last, after mixing too; None leaves the pixels where they are.
    """

    def __init__(
        self,
        batches: Batches,
        augment: Augment,
        normalize: Normalize,
        *,
        seed: int,
        permute: PermutePixels | None = None,
    ) -> None:
        self.batches, self.augment, self.normalize, self.seed = batches, augment, normalize, seed
        self.permute = permute

    def __len__(self) -> int:
        return len(self.batches)

    def epoch(self, epoch: int, *, start: int = 0) -> Iterator[Inputs]:
        """The batches of an epoch from number `start` on; the same for the same arguments."""
        for batch in self.batches.shuffled(epoch, start=start):
            draws = Draws(self.seed, epoch, batch.indices)
            images = self.normalize(self.augment(batch.images, draws))
            inputs = Inputs(images, batch.labels)
            if self.augment.mixes:
                mixture = self.augment.mix(images, batch.labels, draws)
                inputs = Inputs(mixture.images, mixture.labels, mixture.other_labels, mixture.weight)
            yield inputs._replace(images=self.permute(inputs.images)) if self.permute else inputs


class EvalInputs:
    """Every image of a split once, in order, as it is.

    Args:
        batches: Of the split.
        normalize: On the device of the batches.
        permute: What comes after it; None leaves the pixels where they are.
    """

    def __init__(self, batches: Batches, normalize: Normalize, *, permute: PermutePixels | None = None) -> None:
        self.batches, self.normalize, self.permute = batches, normalize, permute

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[Inputs]:
        for batch in self.batches.in_order():
            images = self.normalize(batch.images)
            yield Inputs(self.permute(images) if self.permute else images, batch.labels)
