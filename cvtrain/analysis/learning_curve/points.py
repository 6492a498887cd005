"""What was measured: test accuracies of several runs at several sizes.

Knows figures only; neither how they came about nor what curve goes through them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class CurvePoint:
    """One size.

    Args:
        per_class: Labelled images per class, those to validate with included; at least 1.
        accuracies: Test accuracy, 0..1, of each replicate. What has the same replicate number at another size, or in
            another curve, shares subset and seed with it: such figures are paired.
    """

    per_class: int
    accuracies: Mapping[int, float]

    @property
    def mean_accuracy(self) -> float:
        """Over replicates."""
        return float(np.mean(list(self.accuracies.values())))

    @property
    def num_replicates(self) -> int:
        """Runs at this size."""
        return len(self.accuracies)


def points_of(figures: Sequence[tuple[int, int, float]]) -> tuple[CurvePoint, ...]:
    """Points, smallest first, from `(per_class, replicate, accuracy)` in any order."""
    by_size: dict[int, dict[int, float]] = {}
    for per_class, replicate, accuracy in figures:
        by_size.setdefault(per_class, {})[replicate] = accuracy
    return tuple(CurvePoint(size, dict(sorted(by_size[size].items()))) for size in sorted(by_size))
