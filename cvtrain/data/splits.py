"""Which images train and which validate: stratified, seeded, and identified by a hash.

Knows labels only, not images.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import torch
from torch import Tensor

from cvtrain.errors import DataError
from cvtrain.seeding import permutation


@dataclass(frozen=True)
class Split:
    """Indices into the images that a source hands over.

    Args:
        train: int64, into the source's training images, ascending.
        val: int64, into the source's validation images if it has any, else into its training images.
        test: int64, into its test images.
        val_from_train: Whether `val` indexes the training images.
    """

    train: Tensor
    val: Tensor
    test: Tensor
    val_from_train: bool

    def hash(self) -> str:
        """SHA-256 (hex) of all indices: two runs with the same hash saw the same images in the same roles."""
        digest = hashlib.sha256(str(self.val_from_train).encode())
        for indices in (self.train, self.val, self.test):
            digest.update(f"/{len(indices)}/".encode())
            digest.update(indices.numpy().astype("<i8").tobytes())
        return digest.hexdigest()


def first_per_class(labels: Tensor, limit: int | None) -> Tensor:
    """The indices of the first `limit` images of each class, ascending; all of them without a limit."""
    if limit is None:
        return torch.arange(len(labels))
    chosen = [(labels == label).nonzero().squeeze(1)[:limit] for label in labels.unique()]
    return torch.cat(chosen).sort().values if chosen else torch.arange(0)


def stratified_split(labels: Tensor, fraction: float, *, seed: int) -> tuple[Tensor, Tensor]:
    """Carves a share of every class.

    Args:
        labels: int64 `(N,)`.
        fraction: The share to carve, 0..1. A class with two images or more gives at least one and keeps at least one.
        seed: Chooses which.

    Returns:
        The positions kept and the positions carved, each ascending.
    """
    if fraction == 0 or not len(labels):
        return torch.arange(len(labels)), torch.arange(0)
    kept, carved = [], []
    for label in labels.unique().tolist():
        members = (labels == label).nonzero().squeeze(1)
        members = members[permutation(len(members), seed, "split", label)]
        count = min(max(round(fraction * len(members)), 1), len(members) - 1)
        carved.append(members[:count])
        kept.append(members[count:])
    return torch.cat(kept).sort().values, torch.cat(carved).sort().values


def make_split(
    train_labels: Tensor,
    val_labels: Tensor | None,
    test_labels: Tensor,
    *,
    val_fraction: float,
    max_per_class: int | None,
    seed: int,
) -> Split:
    """Decides the role of every image.

    Raises:
        DataError: There are no images to train on, or none to test.
    """
    train = first_per_class(train_labels, max_per_class)
    test = first_per_class(test_labels, max_per_class)
    if val_labels is not None:
        split = Split(train, first_per_class(val_labels, max_per_class), test, val_from_train=False)
    else:
        kept, carved = stratified_split(train_labels[train], val_fraction, seed=seed)
        split = Split(train[kept], train[carved], test, val_from_train=True)
    if len(split.train) < 2:
        raise DataError(f"{len(split.train)} images to train on: at least 2 are needed")
    if not len(split.test):
        raise DataError("no test images")
    return split
