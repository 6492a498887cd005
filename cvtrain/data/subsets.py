"""Balanced subsets of the training images, for learning curves: seeded, nested within a replicate, split in two.

Knows labels only, not images.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from cvtrain.seeding import permutation


@dataclass(frozen=True)
class Subset:
    """Some images of every class.

    Args:
        train: int64, positions among the labels, ascending.
        val: int64, other positions, ascending.
    """

    train: Tensor
    val: Tensor


def num_val_of(per_class: int, val_fraction: float) -> int:
    """How many of `per_class` images validate: the share rounded, at least one, and at least one is left to train on.

    One more image adds one or none to them, so that a larger subset can hold the validation images of a smaller one.
    """
    return min(max(math.floor(per_class * val_fraction + 0.5), 1), per_class - 1)


def balanced_subset(labels: Tensor, *, per_class: int, val_fraction: float, seed: int, replicate: int) -> Subset:
    """The first `per_class` images of each class in an order that (seed, replicate) gives, parted in two.

    In one replicate a larger subset holds the training and the validation images of every smaller one in the same
    roles; the orders of different replicates are independent. Nothing else has a say, so that all models that are
    compared see the same images.

    Args:
        labels: int64 `(N,)`. Every class that occurs has at least `per_class` images.
        per_class: At least 2.
        val_fraction: Share of them that validates, above 0 and at most 0.5.
        seed: Of the study.
        replicate: 0, 1, ...
    """
    assert per_class >= 2, "one image to train on and one to validate"
    assert 0 < val_fraction <= 0.5, "a larger share would leave nothing of two images"
    counts = [num_val_of(n, val_fraction) for n in range(1, per_class + 1)]
    validates = torch.tensor([count > before for before, count in zip([0, *counts], counts, strict=False)])
    train, val = [], []
    for label in labels.unique().tolist():
        members = (labels == label).nonzero().squeeze(1)
        assert len(members) >= per_class, "the caller knows how many there are"
        chosen = members[permutation(len(members), seed, "subset", replicate, label)[:per_class]]
        train.append(chosen[~validates])
        val.append(chosen[validates])
    return Subset(torch.cat(train).sort().values, torch.cat(val).sort().values)
