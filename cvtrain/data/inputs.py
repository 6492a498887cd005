"""What a model is fed: batches that are augmented, normalised and, if so wished, permuted on their device.

Knows data, not models: it joins batches, augmentation and normalisation, for training and for evaluation.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from cvtrain.data.augment import Augment
from cvtrain.data.batches import Batch, Batches
from cvtrain.data.draws import Draws
from cvtrain.data.permutation import PermutePixels
from cvtrain.data.shares import Share, part_sizes
from cvtrain.data.statistics import Normalize
from cvtrain.seeding import derive_seed, seed_generators


class Inputs(NamedTuple):
    """One batch, ready for the model.

    Args:
        images: float32 `(B, C, H, W)`, normalised.
        labels: int64 `(B,)`.
        other_labels: int64 `(B,)` of the images mixed in, or None.
        weight: float32 `(B,)`, the share of `labels` where images are mixed, or None.
        indices: int64 `(B,)`, which images of the data set these are, if that is known.
    """

    images: Tensor
    labels: Tensor
    other_labels: Tensor | None = None
    weight: Tensor | None = None
    indices: Tensor | None = None

    @property
    def batch_size(self) -> int:
        """Images of the batch."""
        return len(self.labels)

    @property
    def num_copies(self) -> int:
        """How many processes compute these images."""
        return 1

    def parts(self, num_parts: int) -> list[Inputs]:
        """The batch cut into at most `num_parts` parts of nearly equal size, none of a single image.

        A batch of one stays whole; batch normalisation cannot take the variance of one.
        """
        sizes = part_sizes(len(self.labels), num_parts)
        return [self.rows(sum(sizes[:i]), sum(sizes[: i + 1])) for i in range(len(sizes))]

    def rows(self, low: int, high: int) -> Inputs:
        """The images from `low` up to `high`."""
        return Inputs(*(None if column is None else column[low:high] for column in self))


class SharedPart(NamedTuple):
    """What this process computes of a part of a batch; as `Inputs`.

    Args:
        num_copies: How many processes compute just these images.
    """

    images: Tensor
    labels: Tensor
    other_labels: Tensor | None
    weight: Tensor | None
    indices: Tensor | None
    num_copies: int


class SharedInputs(NamedTuple):
    """One batch, of which this process has a share.

    Args:
        shares: Of each part that the batch is computed in.
        batch_size: Images of all processes together.
    """

    shares: list[SharedPart]
    batch_size: int

    def parts(self, _num_parts: int) -> list[SharedPart]:
        """The shares; in how many parts was decided when they were made."""
        return self.shares

    @property
    def images(self) -> Tensor:
        """float32 `(B, C, H, W)`: those of this process."""
        return torch.cat([share.images for share in self.shares])

    @property
    def indices(self) -> Tensor:
        """int64: which images of the data set those of this process are."""
        return torch.cat([share.indices for share in self.shares])


class TrainInputs:
    """Shuffled, augmented batches.

    Args:
        batches: Of the training split.
        augment: How images are varied.
        normalize: On the device of the batches.
        seed: Of the augmentation.
        permute: What comes last, after mixing too; None leaves the pixels where they are.
        share: Which images of each batch are for this process; None: all.
    """

    def __init__(
        self,
        batches: Batches,
        augment: Augment,
        normalize: Normalize,
        *,
        seed: int,
        permute: PermutePixels | None = None,
        share: Share | None = None,
    ) -> None:
        self.batches, self.augment, self.normalize, self.seed = batches, augment, normalize, seed
        self.permute, self.share = permute, share

    def __len__(self) -> int:
        return len(self.batches)

    def epoch(self, epoch: int, *, start: int = 0) -> Iterator[Inputs | SharedInputs]:
        """The batches of an epoch from number `start` on; the same for the same arguments."""
        if self.share is None:
            return self._whole(epoch, self.batches.shuffled(epoch, start=start), start=start)
        return self._shared(epoch, self.share, start=start)

    def _shared(self, epoch: int, share: Share, *, start: int) -> Iterator[SharedInputs]:
        """Images are varied each by itself, and mixed with the one before, which is read along where it is needed."""
        before = int(self.augment.mixes)

        def chosen(batch_size: int) -> Tensor:
            return share.positions(batch_size, with_neighbours=bool(before))

        sizes = [high - low for low, high in self.batches.bounds[start:]]
        batches = self._whole(epoch, self.batches.shuffled(epoch, start=start, chosen=chosen), start=start)
        for batch_size, inputs in zip(sizes, batches, strict=True):
            shares, row = [], 0
            for part in share.of(batch_size):
                end = row + before + part.high - part.low
                shares.append(SharedPart(*inputs.rows(row + before, end), part.num_copies))
                row = end
            yield SharedInputs(shares, batch_size)

    def _whole(self, epoch: int, batches: Iterator[Batch], *, start: int) -> Iterator[Inputs]:
        for number, batch in enumerate(batches, start):
            self._seed(epoch, number)
            draws = Draws(self.seed, epoch, batch.indices)
            images = self.normalize(self.augment(batch.images, draws))
            inputs = Inputs(images, batch.labels, indices=batch.indices)
            if self.augment.mixes:
                mixture = self.augment.mix(images, batch.labels, draws)
                columns = mixture.images, mixture.labels, mixture.other_labels, mixture.weight
                inputs = Inputs(*columns, batch.indices)
            yield inputs._replace(images=self.permute(inputs.images)) if self.permute else inputs

    def _seed(self, epoch: int, number: int) -> None:
        """Our augmentation draws by image; one of the user's may draw from the generators, as many have done before."""
        seed_generators(derive_seed(self.seed, "batch", epoch, number), device_type=self.batches.device.type)


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
        device_type = self.batches.device.type
        for number, batch in enumerate(self.batches.in_order()):
            seed = derive_seed(self.batches.seed, "evaluation", number)  # for a model that draws in evaluation too
            seed_generators(seed, device_type=device_type)
            images = self.normalize(batch.images)
            yield Inputs(self.permute(images) if self.permute else images, batch.labels, indices=batch.indices)
