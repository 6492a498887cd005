"""What a learning curve answers: images for an accuracy, where more stop paying, what two and four times as many give.

Knows a fitted curve; neither how it was fitted nor how an answer is worded. Every answer says how sure it is, and none
reaches further than the fit allows: a fit that refuses to extrapolate is read within the measured sizes alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np

from cvtrain.analysis.comparison import MeanResult, mean_interval
from cvtrain.analysis.learning_curve.fit import CurveFit
from cvtrain.analysis.learning_curve.validation import LogLinearResult, log_linear

TRUSTED_FACTOR = 4.0
"""How many times the largest measured size a curve is trusted. Source: Hoiem et al. 2021 (arXiv 2010.11029)."""

SIZE_LEVEL = 0.90
"""Of the intervals of sizes: from the 5 % to the 95 % quantile of what the plausible curves say."""

ACCURACY_LEVEL = 0.95
"""Of the intervals of accuracies and of their gains."""

LOG_LINEAR_ALPHA = 0.05
"""An elbow is looked for only where a straight line in the logarithm of the size is refuted at this level."""

_SIZES_PER_DOUBLING = 24


@dataclass(frozen=True)
class AheadResult:
    """What so many images give.

    Args:
        factor: Of the largest measured size.
        per_class: That many.
        accuracy: 0..1; None where refused.
        low: Lower end of the 95 % prediction interval.
        high: Upper end.
        reason: Why the fit refuses; None where it does not.
    """

    factor: float
    per_class: int
    accuracy: float | None
    low: float | None
    high: float | None
    reason: str | None


@dataclass(frozen=True)
class TargetResult:
    """How many images per class an accuracy takes.

    Args:
        target: Test accuracy, 0..1.
        status: `reached_at_smallest` (the smallest measured size is enough; fewer may be), `measured` (within the
            measured sizes), `extrapolated` (up to `TRUSTED_FACTOR` times the largest), `far` (beyond that),
            `not_reachable` (most plausible curves do not come there within the limit) or `refused`.
        per_class: Median over the plausible curves; None for the last two.
        low: 5 % quantile; the smallest measured size means "so many or fewer"; None where even those 5 %
            do not come there.
        high: 95 % quantile; None where more than 5 % of the curves do not come there: there is no upper end.
        sure_per_class: The fewest images with which new runs reach the target, in the mean, with a probability of
            95 %; never below `high`; None where the limit does not give as much.
        share_never: 0..1, of the curves that do not come there within the limit.
        limit: How far was looked, and what can be had there.
        reason: Why the answer is refused; None for every other status.
    """

    target: float
    status: Literal["reached_at_smallest", "measured", "extrapolated", "far", "not_reachable", "refused"]
    per_class: int | None
    low: int | None
    high: int | None
    sure_per_class: int | None
    share_never: float
    limit: AheadResult
    reason: str | None


@dataclass(frozen=True)
class GainResult:
    """What the step from one measured size to the next gives, per doubling of the images.

    Args:
        per_class: The smaller size.
        next_per_class: The larger.
        measured: Of the replicates that have both, with the 95 % t interval; None where none has both.
        fitted: Of the curve.
    """

    per_class: int
    next_per_class: int
    measured: MeanResult | None
    fitted: float


@dataclass(frozen=True)
class ElbowResult:
    """Where twice as many images stop paying.

    Args:
        gain: What twice as many images have to give to pay, in accuracy 0..1.
        status: `found`; `none` (as far as can be told, accuracy is a straight line in the logarithm of the size: every
            doubling gives the same, and no size is special); `beyond` (the last measured doubling still pays);
            `before` (the first one does not); `refused`.
        per_class: From here on every measured doubling gives less; of `found` alone.
        low: 5 % quantile over the plausible curves; None where it lies below the measured sizes.
        high: 95 % quantile; None where it lies beyond the last measured doubling.
        log_linear: The straight line, whose gain is the mean gain per doubling; None where refused.
        reason: Why the answer is refused; None for every other status.
    """

    gain: float
    status: Literal["found", "none", "beyond", "before", "refused"]
    per_class: int | None = None
    low: int | None = None
    high: int | None = None
    log_linear: LogLinearResult | None = None
    reason: str | None = None


def images_for_accuracy(fit: CurveFit, target: float, *, max_factor: float = 10.0) -> TargetResult:
    """How many labelled images per class reach an accuracy, from every plausible curve.

    A curve that fits well may still mislead about the data that an accuracy needs, so the median comes with the
    quantiles of the curves and with a size that is sure.
    Source: Mahmood et al. 2022 (arXiv 2207.01725), sections 3 and 4.

    Args:
        target: Test accuracy, 0..1.
        max_factor: How far to look, in multiples of the largest measured size.

    Raises:
        ValueError: The target is no accuracy, or `max_factor` is below 1.
    """
    if not 0 < target <= 1:
        raise ValueError(f"an accuracy lies above 0 and up to 1, not {target}")
    (limit,) = ahead(fit, (1.0 if fit.refusal else max_factor,))
    sizes = size_grid(fit.points[0].per_class, limit.per_class)
    reached_at = first_size_reaching(sizes, fit.curves(sizes), target=target)
    median, low, high = median_and_interval(reached_at, level=SIZE_LEVEL)
    is_refused = fit.refusal is not None and math.isinf(median)
    # The lower end of a two-sided 90 % interval is below the truth in 95 %.
    lower_bound, _ = fit.interval(sizes, level=0.90)
    sure = max(high, first_size_reaching(sizes, lower_bound[None], target=target)[0])
    return TargetResult(
        target=float(target),
        status="refused" if is_refused else _status(fit, median),
        per_class=whole_images(median),
        low=whole_images(low),
        high=whole_images(high),
        sure_per_class=whole_images(sure),
        share_never=float(np.isinf(reached_at).mean()),
        limit=limit,
        reason=fit.refusal if is_refused else None,
    )


def ahead(fit: CurveFit, factors: Sequence[float] = (2.0, 4.0)) -> tuple[AheadResult, ...]:
    """The accuracy of so many times the largest measured size, each with the 95 % prediction interval.

    Raises:
        ValueError: A factor is below 1.
    """
    if not all(factor >= 1 for factor in factors):
        raise ValueError(f"multiples of the largest size start at 1, not {list(factors)}")
    return tuple(_ahead(fit, float(factor)) for factor in factors)


def gains(fit: CurveFit) -> tuple[GainResult, ...]:
    """What each step between neighbouring measured sizes gives per doubling, as measured and as fitted."""
    sizes = np.array([point.per_class for point in fit.points], dtype=np.float64)
    num_doublings = np.diff(np.log2(sizes))
    fitted = np.diff(fit.accuracy(sizes)) / num_doublings
    results = []
    for i, (small, large) in enumerate(pairwise(fit.points)):
        both = [replicate for replicate in small.accuracies if replicate in large.accuracies]
        steps = [(large.accuracies[r] - small.accuracies[r]) / num_doublings[i] for r in both]
        measured = mean_interval(steps, level=ACCURACY_LEVEL) if steps else None
        results.append(GainResult(small.per_class, large.per_class, measured, float(fitted[i])))
    return tuple(results)


def elbow(fit: CurveFit, *, gain: float = 0.02) -> ElbowResult:
    """The size from which on every measured doubling gives less than `gain`, if the curve has such a place.

    A knee that is read off the shape of a plot (Satopaa et al. 2011, Kneedle) exists on every curve that has a linear
    axis, and moves with the last size. A gain per doubling does not depend on the axis, and on a straight line in the
    logarithm of the size it is the same everywhere: such a curve has no elbow.

    Args:
        gain: What twice as many images have to give, in accuracy 0..1.

    Raises:
        ValueError: `gain` is not positive.
    """
    if not gain > 0:
        raise ValueError(f"a gain that pays is above 0, not {gain}")
    smallest, largest = fit.points[0].per_class, fit.points[-1].per_class
    if reason := _no_elbow_reason(fit):
        return ElbowResult(gain, "refused", reason=reason)
    line = log_linear(fit.points, chance_accuracy=fit.chance_accuracy)
    if line.p_value >= LOG_LINEAR_ALPHA:
        return ElbowResult(gain, "none", log_linear=line)
    sizes = size_grid(smallest, largest / 2)
    curves = fit.curves(np.concatenate([sizes, 2 * sizes]))
    elbows = _last_falls_below(sizes, curves[:, len(sizes) :] - curves[:, : len(sizes)], gain)
    median, low, high = median_and_interval(elbows, level=SIZE_LEVEL)
    status = "found" if math.isfinite(median) else "before" if median < 0 else "beyond"
    return ElbowResult(gain, status, whole_images(median), whole_images(low), whole_images(high), line)


def size_grid(smallest: float, largest: float) -> np.ndarray:
    """Sizes from one to another, both included, 3 % apart: (m,), at least 2."""
    num_sizes = 2 + math.ceil(_SIZES_PER_DOUBLING * math.log2(max(1.0, largest / smallest)))
    return np.geomspace(smallest, largest, num_sizes)


def first_size_reaching(sizes: np.ndarray, curves: np.ndarray, *, target: float | np.ndarray) -> np.ndarray:
    """The size at which each curve first reaches its target, on straight lines between the sizes' logarithms.

    Args:
        sizes: (m,), rising.
        curves: Accuracies, (B, m).
        target: One for all curves or one for each, (B,).

    Returns:
        (B,); the first size where a curve starts at its target or above, infinity where it never comes there.
    """
    wanted = np.broadcast_to(np.asarray(target, dtype=np.float64), len(curves))
    has_reached = curves >= wanted[:, None]
    at, rows = has_reached.argmax(axis=1), np.arange(len(curves))
    before = np.maximum(at - 1, 0)
    rise = curves[rows, at] - curves[rows, before]
    part = (wanted - curves[rows, before]) / np.where(rise > 0, rise, 1.0)
    crossed = sizes[before] * (sizes[at] / sizes[before]) ** part
    return np.where(has_reached.any(axis=1), crossed, np.inf)


def median_and_interval(values: np.ndarray, *, level: float) -> tuple[float, float, float]:
    """Median and the ends of the interval, each one of the values: infinite ones (never reached) count and stay."""
    median, low, high = np.quantile(values, [0.5, 0.5 - level / 2, 0.5 + level / 2], method="inverted_cdf")
    return float(median), float(low), float(high)


def whole_images(size: float) -> int | None:
    """The next whole number of images, None for an infinite one."""
    return math.ceil(size * (1 - 1e-6)) if math.isfinite(size) else None


def _status(fit: CurveFit, median: float) -> str:
    largest = fit.points[-1].per_class
    if math.isinf(median):
        return "not_reachable"
    if median <= fit.points[0].per_class:
        return "reached_at_smallest"
    if median <= largest:
        return "measured"
    return "extrapolated" if median <= TRUSTED_FACTOR * largest else "far"


def _ahead(fit: CurveFit, factor: float) -> AheadResult:
    per_class = round(factor * fit.points[-1].per_class)
    if fit.refusal and factor > 1:
        return AheadResult(factor, per_class, None, None, None, fit.refusal)
    at = np.array([per_class], dtype=np.float64)
    low, high = fit.interval(at, level=ACCURACY_LEVEL)
    return AheadResult(factor, per_class, float(fit.accuracy(at)[0]), float(low[0]), float(high[0]), None)


def _no_elbow_reason(fit: CurveFit) -> str | None:
    sizes = [point.per_class for point in fit.points]
    if len(sizes) < 3:
        return f"{len(sizes)} sizes are measured: fewer than three show no bend"
    if sizes[-1] < 2 * sizes[0]:
        return f"from {sizes[0]} to {sizes[-1]} images per class nothing is doubled"
    return None


def _last_falls_below(sizes: np.ndarray, gained: np.ndarray, gain: float) -> np.ndarray:
    """(B,), the size from which each row of gains (B, m) stays below; -infinity: from the first, infinity: nowhere."""
    num_below_at_end = np.cumprod((gained < gain)[:, ::-1], axis=1).sum(axis=1)
    return np.concatenate([[-np.inf], sizes[1:], [np.inf]])[len(sizes) - num_below_at_end]
