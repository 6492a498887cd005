"""Whether probabilities can be taken at their word: of the images called so with 80 %, how many are so.

Knows probabilities and answers, not models or files.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

NUM_BINS = 15
"""Source: Guo et al. 2017, section 4."""


@dataclass(frozen=True)
class CalibrationBin:
    """The images whose probability lies in one range.

    Args:
        low: Lower end of the range, exclusive but for 0.
        high: Upper end, inclusive.
        num_images: How many.
        confidence: Mean probability of the class that was said, 0..1; None without images.
        accuracy: Share of right answers, 0..1; None without images.
    """

    low: float
    high: float
    num_images: int
    confidence: float | None
    accuracy: float | None


@dataclass(frozen=True)
class CalibrationResult:
    """How far probabilities and shares of right answers are apart.

    Args:
        bins: Of equal width, from 0 to 1.
        num_images: Of all bins.
        confidence: Mean probability of the class that was said, 0..1.
        accuracy: Share of right answers, 0..1.
        ece: Expected calibration error, 0..1: the mean distance over images, in bins of equal width.
        adaptive_ece: The same in as many bins of equally many images, which a crowd near 1 does not dominate.
    """

    bins: tuple[CalibrationBin, ...]
    num_images: int
    confidence: float
    accuracy: float
    ece: float
    adaptive_ece: float


def calibration(probabilities: ArrayLike, is_right: ArrayLike, *, num_bins: int = NUM_BINS) -> CalibrationResult:
    """Compares the probability of the class that was said with how often it was right.

    Args:
        probabilities: `(N,)`, of the class that was said, 0..1; at least one.
        is_right: bool `(N,)`.
        num_bins: At least 1.

    Returns:
        Source: Guo et al. 2017 (arXiv 1706.04599), section 2 and equation 3; bins of equally many images: Nixon et al.
        2019 (arXiv 1904.01685), section 3.

    Raises:
        ValueError: No image, columns of different length, or a probability outside of 0..1.
    """
    said, right = np.asarray(probabilities, dtype=float), np.asarray(is_right, dtype=float)
    if not len(said) or said.shape != right.shape:
        raise ValueError(f"{len(said)} probabilities for {len(right)} answers")
    if not ((said >= 0) & (said <= 1)).all():
        raise ValueError("probabilities lie between 0 and 1")
    edges = np.linspace(0, 1, num_bins + 1)
    number = np.clip(np.searchsorted(edges, said, side="left") - 1, 0, num_bins - 1)
    bins = [_bin(edges[i], edges[i + 1], said[number == i], right[number == i]) for i in range(num_bins)]
    order = np.argsort(said, kind="stable")
    return CalibrationResult(
        bins=tuple(bins),
        num_images=len(said),
        confidence=float(said.mean()),
        accuracy=float(right.mean()),
        ece=_error([(said[number == i], right[number == i]) for i in range(num_bins)]),
        adaptive_ece=_error([(said[part], right[part]) for part in np.array_split(order, num_bins)]),
    )


def _bin(low: float, high: float, said: np.ndarray, right: np.ndarray) -> CalibrationBin:
    if not len(said):
        return CalibrationBin(float(low), float(high), 0, None, None)
    return CalibrationBin(float(low), float(high), len(said), float(said.mean()), float(right.mean()))


def _error(bins: list[tuple[np.ndarray, np.ndarray]]) -> float:
    """The distance of each bin, weighted by its images."""
    total = sum(len(said) for said, _ in bins)
    return float(sum(abs(said.sum() - right.sum()) for said, right in bins) / total)
