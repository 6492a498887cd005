"""Learning curves as a picture needs them: what was measured, what was fitted, a place on a curve.

Knows numbers and names; neither runs, nor fits, nor matplotlib.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike


@dataclass(frozen=True)
class MeasuredSizes:
    """What was measured at each size.

    Args:
        per_class: Images per class of each size `(k,)`, rising, above 0.
        accuracies: Of each size the test accuracy, 0..1, of every run; at least one.
        low: `(k,)`, the lower end of the error bar of each mean, 0..1; None where there is none, as with one run.
        high: `(k,)`, the upper end.
        interval_name: What the error bars are, e.g. `95 % t interval`.

    Raises:
        ValueError: The sizes do not rise from above 0, the parts differ in length, or a size has no run.
    """

    per_class: Sequence[float]
    accuracies: Sequence[Sequence[float]]
    low: Sequence[float | None]
    high: Sequence[float | None]
    interval_name: str

    def __post_init__(self) -> None:
        _check_sizes(self.per_class, self.accuracies, self.low, self.high)
        if not all(len(runs) for runs in self.accuracies):
            raise ValueError("every size needs a run")

    @property
    def means(self) -> np.ndarray:
        """`(k,)`, 0..1."""
        return np.array([np.mean(runs) for runs in self.accuracies])


@dataclass(frozen=True)
class FittedCurve:
    """A curve through the means; what lies beyond the measured sizes is drawn as extrapolated.

    Args:
        per_class: Images per class `(m,)`, rising, above 0; finely spaced.
        accuracies: `(m,)`, 0..1.
        low: `(m,)`, the lower edge of the band, 0..1.
        high: `(m,)`, the upper edge.
        others: Other curves `(m,)` by name, shown for comparison as thin grey lines.

    Raises:
        ValueError: The sizes do not rise from above 0, or the parts differ in length.
    """

    per_class: Sequence[float]
    accuracies: Sequence[float]
    low: Sequence[float]
    high: Sequence[float]
    others: Mapping[str, Sequence[float]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _check_sizes(self.per_class, self.accuracies, self.low, self.high, *self.others.values())

    def accuracy(self, per_class: float) -> float:
        """At one size, 0..1: between the given ones interpolated in the logarithm of the size."""
        return float(interpolated(per_class, self.per_class, self.accuracies))


@dataclass(frozen=True)
class SizeMark:
    """A place on a curve, such as its elbow or where two cross.

    Args:
        per_class: Images per class.
        words: What is there.
        low: Lower end of the interval of `per_class`; None where it is open.
        high: Upper end; None where it is open.
    """

    per_class: float
    words: str
    low: float | None = None
    high: float | None = None


def _check_sizes(per_class: Sequence[float], *columns: Sequence[Any]) -> None:
    sizes = np.asarray(per_class, dtype=float)
    if sizes.ndim != 1 or not len(sizes) or not (sizes > 0).all() or not (np.diff(sizes) > 0).all():
        raise ValueError(f"sizes rise from above 0, not {per_class}")
    if any(len(column) != len(sizes) for column in columns):
        raise ValueError(f"{len(sizes)} sizes, but columns of {[len(column) for column in columns]}")


def interpolated(at: ArrayLike, per_class: Sequence[float], values: Sequence[float]) -> np.ndarray:
    """Values at other sizes, float64: straight lines between the given ones over the logarithm of the size."""
    return np.interp(np.log(at), np.log(per_class), np.asarray(values, dtype=float))
