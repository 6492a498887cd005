"""Two learning curves beside each other: where they differ, where they cross, and what A's images are worth to B.

Knows measured points of both; neither what was trained nor how the result is worded.

Both fits weigh the replicates of a resampled curve by their number alone, so that what a replicate draws well or badly
for A and B together cancels in their difference.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np

from cvtrain.analysis.comparison import PairedDifferenceResult, holm, paired_difference
from cvtrain.analysis.learning_curve.answers import (
    ACCURACY_LEVEL,
    SIZE_LEVEL,
    TRUSTED_FACTOR,
    first_size_reaching,
    median_and_interval,
    size_grid,
    whole_images,
)
from cvtrain.analysis.learning_curve.fit import CurveFit, fit_curve
from cvtrain.analysis.learning_curve.points import CurvePoint
from cvtrain.analysis.learning_curve.spread import resampled_errors, run_spread

CERTAIN_SHARE = 0.99
"""A leads for certain where it is ahead in so many of the plausible pairs of curves.

Two such sizes with different leaders make a crossing. Any of the sizes may be one by luck: measured, equal models seem
to cross in 2 to 3 of 100 comparisons at eight sizes, and in twice or three times as many with 0.975.
"""


@dataclass(frozen=True)
class SizeDifferenceResult:
    """A less B at one size.

    Args:
        per_class: Images per class.
        paired: Over the replicates that both have.
        holm_p_value: The p-value, adjusted for all compared sizes; None where a size has fewer than two pairs.
    """

    per_class: int
    paired: PairedDifferenceResult
    holm_p_value: float | None


@dataclass(frozen=True)
class CrossingResult:
    """Where the lead passes from one to the other.

    Args:
        per_class: From here on the other is ahead in more than half of the plausible pairs.
        low: Lower end of the 95 % interval: the last size at which `ahead_before` leads in 97.5 % of them.
        high: Upper end: the next at which `ahead_after` does.
        ahead_before: Who leads at fewer images.
        ahead_after: Who leads at more.
    """

    per_class: int
    low: int
    high: int
    ahead_before: Literal["A", "B"]
    ahead_after: Literal["A", "B"]


@dataclass(frozen=True)
class CrossingsResult:
    """Whether and where the curves cross from the smallest to the largest size that both measured.

    Args:
        crossings: Smallest size first; none where not both lead for certain somewhere, more than one where the lead
            comes back. Where there is one, at least 95 % of the plausible pairs cross.
        share_passed_on: 0..1, of the pairs that have one leader at the smallest size and the other at the largest.
        from_per_class: The smallest size of the range.
        to_per_class: The largest.
    """

    crossings: tuple[CrossingResult, ...]
    share_passed_on: float
    from_per_class: int
    to_per_class: int


@dataclass(frozen=True)
class EquivalenceResult:
    """How many images per class B needs to be as good as A is with some.

    Args:
        per_class: Of A.
        accuracy: Of A's curve there, 0..1.
        status: `measured` (within B's sizes), `extrapolated` (beyond them), `more` (most plausible pairs of curves do
            not come there up to `limit_per_class`), `fewer` (B's smallest size is already as good).
        b_per_class: Median over the plausible pairs; None for `more` and `fewer`.
        low: 5 % quantile; None where it lies below B's smallest size.
        high: 95 % quantile; None where it lies beyond `limit_per_class`.
        ratio: `b_per_class / per_class`: above 1, A makes more of its images.
        ratio_low: Lower end of its 90 % interval.
        ratio_high: Upper end.
        smallest_per_class: Of B.
        limit_per_class: How far B's curve is followed: `TRUSTED_FACTOR` times its largest size, or that size itself
            where its fit refuses to extrapolate.
    """

    per_class: int
    accuracy: float
    status: Literal["measured", "extrapolated", "more", "fewer"]
    b_per_class: int | None
    low: int | None
    high: int | None
    ratio: float | None
    ratio_low: float | None
    ratio_high: float | None
    smallest_per_class: int
    limit_per_class: int


@dataclass(frozen=True)
class CurveComparisonResult:
    """Two curves beside each other.

    Args:
        differences: A less B at each size that both have, smallest first.
        crossings: Where the lead changes; None where fewer than two sizes are common.
        equivalences: One for each size of A that was asked for.
        a_refusal: Why A's curve must not be followed beyond its sizes; None where it may.
        b_refusal: The same of B.
    """

    differences: tuple[SizeDifferenceResult, ...]
    crossings: CrossingsResult | None
    equivalences: tuple[EquivalenceResult, ...]
    a_refusal: str | None
    b_refusal: str | None


def compare_curves(
    a_points: Sequence[CurvePoint],
    b_points: Sequence[CurvePoint],
    *,
    chance_accuracy: float,
    num_test: int,
    per_class: Sequence[int] | None = None,
    num_curves: int = 2000,
    seed: int = 0,
) -> CurveComparisonResult:
    """Compares two sweeps whose replicates are paired: the same number means the same subset and seed.

    Args:
        a_points: Two sizes or more.
        b_points: The same; sizes may differ.
        chance_accuracy: 0..1, of a guess.
        num_test: Test images, the same for both.
        per_class: Sizes of A for which to find those of B, within A's measured sizes; None: all of A's sizes.
        num_curves: Plausible pairs of curves.
        seed: Of both fits.

    Raises:
        ValueError: A size that is asked for lies outside of A's sizes, or points are none that can be fitted.
    """
    a, b = (
        fit_curve(points, chance_accuracy=chance_accuracy, num_test=num_test, num_curves=num_curves, seed=seed)
        for points in (a_points, b_points)
    )
    asked = [point.per_class for point in a.points] if per_class is None else list(per_class)
    if not all(a.points[0].per_class <= size <= a.points[-1].per_class for size in asked):
        measured = f"{a.points[0].per_class} to {a.points[-1].per_class}"
        raise ValueError(f"A was measured from {measured} images per class, and is asked for {asked}")
    return CurveComparisonResult(
        differences=differences_by_size(a.points, b.points),
        crossings=crossings(a, b, num_curves=num_curves, seed=seed),
        equivalences=data_equivalences(a, b, per_class=asked),
        a_refusal=a.refusal,
        b_refusal=b.refusal,
    )


def differences_by_size(
    a_points: Sequence[CurvePoint], b_points: Sequence[CurvePoint]
) -> tuple[SizeDifferenceResult, ...]:
    """The paired difference at each common size, its p-values adjusted for the number of sizes."""
    of_b = {point.per_class: point for point in b_points}
    paired = {
        point.per_class: paired_difference(point.accuracies, of_b[point.per_class].accuracies, level=ACCURACY_LEVEL)
        for point in a_points
        if point.per_class in of_b
    }
    tested = [size for size, result in paired.items() if result.p_value is not None]
    adjusted = dict(zip(tested, holm([paired[size].p_value for size in tested]), strict=True))
    return tuple(SizeDifferenceResult(size, result, adjusted.get(size)) for size, result in paired.items())


def crossings(a: CurveFit, b: CurveFit, *, num_curves: int = 2000, seed: int = 0) -> CrossingsResult | None:
    """Where the lead passes from one to the other, between sizes where each leads for certain.

    The interval of a crossing holds the sizes at which a test at level 0.05 tells no leader. A lead somewhere is not
    claimed here: over many sizes one is soon found, and the paired differences correct for that.
    Source: Fieller 1954, Journal of the Royal Statistical Society B 16, 175-185, for intervals by inverting a test.

    Args:
        a: One curve.
        b: The other; what has the same replicate number in both is paired.
        num_curves: Plausible differences of the two.
        seed: Of what is resampled.

    Returns:
        None where fewer than two sizes are common.
    """
    common = sorted({point.per_class for point in a.points} & {point.per_class for point in b.points})
    if len(common) < 2:
        return None
    sizes = size_grid(common[0], common[-1])
    differences = _plausible_differences(a, b, sizes=sizes, common=common, num_curves=num_curves, seed=seed)
    share_a_ahead = 0.5 + 0.5 * np.sign(differences).mean(axis=0)
    return CrossingsResult(
        crossings=crossings_of(sizes, share_a_ahead),
        share_passed_on=float((differences[:, 0] * differences[:, -1] < 0).mean()),
        from_per_class=common[0],
        to_per_class=common[-1],
    )


def crossings_of(sizes: np.ndarray, share_a_ahead: np.ndarray) -> tuple[CrossingResult, ...]:
    """The crossings, from the share of plausible pairs in which A is ahead, (m,), at rising sizes (m,)."""
    tail, found = (1 - ACCURACY_LEVEL) / 2, []
    for (i, before), (j, after) in pairwise(_certain_leaders(share_a_ahead).items()):
        if before == after:
            continue
        share = share_a_ahead if after == "A" else 1 - share_a_ahead
        i += int(np.flatnonzero(share[i : j + 1] <= tail)[-1])
        middle, high = first_size_reaching(sizes[i:], np.stack([share[i:]] * 2), target=np.array([0.5, 1 - tail]))
        low, per_class, high = (whole_images(size) for size in (sizes[i], middle, high))
        found.append(CrossingResult(per_class, low, high, before, after))
    return tuple(found)


def data_equivalences(a: CurveFit, b: CurveFit, *, per_class: Sequence[int]) -> tuple[EquivalenceResult, ...]:
    """The images that give B the accuracy which A has with so many, from plausible pairs of curves.

    Args:
        a: Fitted with the seed of `b`, so that their curves are pairs.
        b: With as many curves.
        per_class: Sizes of A within its measured ones.
    """
    smallest, largest = b.points[0].per_class, b.points[-1].per_class
    sizes = size_grid(smallest, largest * (1.0 if b.refusal else TRUSTED_FACTOR))
    of_b = b.curves(sizes)
    asked = np.asarray(per_class, dtype=np.float64)
    results = []
    for size, accuracy, wanted in zip(per_class, a.accuracy(asked), a.curves(asked).T, strict=True):
        reached_at = first_size_reaching(sizes, of_b, target=wanted)
        # What B's smallest size already gives may take fewer images: no lower end.
        reached_at = np.where(reached_at <= smallest, -np.inf, reached_at)
        median, low, high = median_and_interval(reached_at, level=SIZE_LEVEL)
        status = "measured" if median <= largest else "extrapolated"
        if math.isinf(median):
            status = "fewer" if median < 0 else "more"
        results.append(
            EquivalenceResult(
                per_class=size,
                accuracy=float(accuracy),
                status=status,
                b_per_class=whole_images(median),
                low=whole_images(low),
                high=whole_images(high),
                ratio=_ratio(median, size),
                ratio_low=_ratio(low, size),
                ratio_high=_ratio(high, size),
                smallest_per_class=smallest,
                limit_per_class=round(sizes[-1]),
            )
        )
    return tuple(results)


def _certain_leaders(share_a_ahead: np.ndarray) -> dict[int, str]:
    """Who leads for certain, by the index of the size; sizes at which neither does are left out."""
    leaders = {}
    for i, share in enumerate(share_a_ahead):
        if share >= CERTAIN_SHARE or share <= 1 - CERTAIN_SHARE:
            leaders[i] = "A" if share > 0.5 else "B"
    return leaders


def _plausible_differences(
    a: CurveFit, b: CurveFit, *, sizes: np.ndarray, common: Sequence[int], num_curves: int, seed: int
) -> np.ndarray:
    """A less B, (num_curves, m): at common sizes as resampled, between them as the fitted curves run.

    Forms miss a size by a point now and then, which hides a difference that the runs show beyond doubt. At the common
    sizes the runs themselves are believed.
    """
    resampled = [_resampled_accuracies(fit, common, num_curves=num_curves, seed=seed) for fit in (a, b)]
    at = np.asarray(common, dtype=np.float64)
    off = resampled[0] - resampled[1] - (a.accuracy(at) - b.accuracy(at))
    above = np.clip(np.searchsorted(at, sizes), 1, len(at) - 1)
    part = np.clip(np.log(sizes / at[above - 1]) / np.log(at[above] / at[above - 1]), 0, 1)
    return a.accuracy(sizes) - b.accuracy(sizes) + (1 - part) * off[:, above - 1] + part * off[:, above]


def _resampled_accuracies(fit: CurveFit, common: Sequence[int], *, num_curves: int, seed: int) -> np.ndarray:
    """Mean accuracies (num_curves, k) at common sizes; replicates that two fits share are weighted alike."""
    spread = run_spread(fit.points, fit.chance_accuracy)
    sds = np.sqrt(spread.per_size / [point.num_replicates for point in fit.points])
    chosen = [i for i, point in enumerate(fit.points) if point.per_class in common]
    points = [fit.points[i] for i in chosen]
    return 1 - resampled_errors(points, sds[chosen], num_curves=num_curves, seed=seed)


def _ratio(b_per_class: float, per_class: int) -> float | None:
    return b_per_class / per_class if math.isfinite(b_per_class) else None
