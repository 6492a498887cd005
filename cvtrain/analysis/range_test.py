"""What a learning-rate range test tells: where the loss falls, where it stops to be stable, which lr to try.

Knows losses and learning rates as numbers; not how they were measured.

Source: Smith 2017 (arXiv 1506.01186), section 3.3, for the test; Smith 2018 (arXiv 1803.09820), section 4.1, for a
tenth of the largest lr that is stable; Howard & Gugger 2020, fastai's `lr_find`, for the steepest place and the valley.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

SMOOTHING = 0.9
"""Weight of what was before in the running mean of losses: about ten steps count."""

HAS_FALLEN = 0.1
"""A loss that has fallen by this share of what it was at first has fallen clearly; noise of batches does less."""

EXPLODED = 4.0
"""A loss this many times as high as at first will not come back. Source: fastai's `lr_find`."""

BACK = 0.1
"""The lr is stable as long as the loss has not risen again by this share of its whole fall."""

FAR_APART = 10.0
"""Suggestions whose largest is more than this many times the smallest disagree."""

_NUM_FIRST = 10
_MIN_STEPS = 20


@dataclass(frozen=True)
class Suggestion:
    """A learning rate to try.

    Args:
        kind: `steepest`, `valley` or `stable`.
        lr: Above 0.
        index: Of the step in the test that it comes from; for `stable` that of the largest stable lr.
    """

    kind: str
    lr: float
    index: int


@dataclass(frozen=True)
class RangeTestResult:
    """What one curve tells.

    Args:
        smoothed: `(n,)`, the losses without the noise of batches.
        suggestions: In the order steepest, valley, stable; those that the curve does not tell are left out.
        has_fallen: Whether the loss fell clearly anywhere.
        has_risen: Whether it rose again after its least, or, if it never fell, above what it was at first.
    """

    smoothed: np.ndarray
    suggestions: tuple[Suggestion, ...]
    has_fallen: bool
    has_risen: bool


@dataclass(frozen=True)
class SuggestionResult:
    """What several tests suggest.

    Args:
        kind: As of a `Suggestion`.
        lr: The median of the tests.
        low: The least.
        high: The largest.
        num_tests: Tests that tell it.
    """

    kind: str
    lr: float
    low: float
    high: float
    num_tests: int


def combined(results: Sequence[RangeTestResult]) -> tuple[SuggestionResult, ...]:
    """The medians of what tests suggest; what half of them or fewer tell is left out."""
    found = []
    for kind in ("steepest", "valley", "stable"):
        rates = [s.lr for result in results for s in result.suggestions if s.kind == kind]
        if 2 * len(rates) > len(results):
            middle = float(np.exp(np.median(np.log(rates))))
            found.append(SuggestionResult(kind, middle, min(rates), max(rates), len(rates)))
    return tuple(found)


def disagree(suggestions: Sequence[SuggestionResult]) -> bool:
    """Whether suggestions lie too far apart to be believed."""
    rates = [suggestion.lr for suggestion in suggestions]
    return len(rates) > 1 and max(rates) > FAR_APART * min(rates)


def analyse(lrs: ArrayLike, losses: ArrayLike) -> RangeTestResult:
    """Reads a curve.

    Args:
        lrs: `(n,)`, above 0 and rising.
        losses: `(n,)`, finite.

    Raises:
        ValueError: The two differ in length, there is no step, or a number is not as it must be.
    """
    rates, values = np.asarray(lrs, dtype=float), np.asarray(losses, dtype=float)
    if rates.ndim != 1 or rates.shape != values.shape or not len(rates):
        raise ValueError(f"{rates.shape} learning rates and {values.shape} losses are no curve")
    if not (np.isfinite(values).all() and (rates > 0).all() and (np.diff(rates) > 0).all()):
        raise ValueError("losses are finite, learning rates rise from above 0")
    first = _first(values)
    smoothed = smooth(np.minimum(values, first + abs(first)))  # else an explosion reaches back into what was before
    least = int(smoothed.argmin())
    fall = first - smoothed[least]
    has_fallen = bool(len(values) >= _MIN_STEPS and fall > max(HAS_FALLEN * abs(first), 3 * _noise(values, smoothed)))
    if not has_fallen:
        return RangeTestResult(smoothed, (), False, bool(smoothed[-1] > first + HAS_FALLEN * abs(first)))
    risen = np.flatnonzero(smoothed[least:] > smoothed[least] + BACK * fall)
    suggestions = [_steepest(rates, smoothed, least), _valley(rates, smoothed, least, first=first)]
    if len(risen):
        last = least + int(risen[0]) - 1
        suggestions.append(Suggestion("stable", float(rates[last]) / 10, last))
    return RangeTestResult(smoothed, tuple(suggestions), True, bool(len(risen)))


def is_over(losses: Sequence[float]) -> bool:
    """Whether larger learning rates have nothing more to tell: the loss has exploded, or has lost all it had gained."""
    first, least, now = _first(losses), math.inf, 0.0
    for value in running_mean(losses):
        now, least = float(value), min(least, float(value))
    has_fallen = first - least > HAS_FALLEN * abs(first)
    return now - first > (EXPLODED - 1) * abs(first) or (has_fallen and now >= first)


def running_mean(values: ArrayLike, *, smoothing: float = SMOOTHING) -> np.ndarray:
    """`(n,)`: exponentially weighted means of all values so far, without the pull towards 0 of the first steps.

    Source: Kingma & Ba 2015 (arXiv 1412.6980), section 3, for the correction of that bias.
    """
    means, mean = [], 0.0
    for count, value in enumerate(np.asarray(values, dtype=float), start=1):
        mean = smoothing * mean + (1 - smoothing) * value
        means.append(mean / (1 - smoothing**count))
    return np.array(means)


def smooth(values: ArrayLike) -> np.ndarray:
    """`(n,)`: the running mean from both ends, which lags behind neither: a fall stays at the lr where it was."""
    forward, backward = running_mean(values), running_mean(np.asarray(values)[::-1])[::-1]
    return (forward + backward) / 2


def _first(losses: ArrayLike) -> float:
    """What the loss was before the lr had any effect."""
    return float(np.mean(np.asarray(losses, dtype=float)[:_NUM_FIRST]))


def _noise(values: np.ndarray, smoothed: np.ndarray) -> float:
    """By how much the smoothed losses may miss, judged by how far the losses lie from them before anything happens."""
    quiet = slice(0, max(len(values) // 4, _NUM_FIRST))
    return float(np.std((values - smoothed)[quiet])) * math.sqrt((1 - SMOOTHING) / (1 + SMOOTHING))


def _steepest(lrs: np.ndarray, smoothed: np.ndarray, least: int) -> Suggestion:
    """Where the loss falls fastest, per decade of the lr, over a tenth of the test: noise is steep for a step."""
    reach = max(len(lrs) // 20, 1)
    before, after = np.maximum(np.arange(len(lrs)) - reach, 0), np.minimum(np.arange(len(lrs)) + reach, len(lrs) - 1)
    slopes = (smoothed[after] - smoothed[before]) / np.log(lrs[after] / lrs[before])
    index = int(slopes[: least + 1].argmin())
    return Suggestion("steepest", float(lrs[index]), index)


def _valley(lrs: np.ndarray, smoothed: np.ndarray, least: int, *, first: float) -> Suggestion:
    """The middle, on the logarithmic axis, of the fall: from where it has begun (a tenth is done) to the least."""
    fall = first - smoothed[least]
    begun = np.flatnonzero(smoothed[: least + 1] > first - 0.1 * fall)
    middle = math.sqrt(lrs[begun[-1] if len(begun) else 0] * lrs[least])
    return Suggestion("valley", middle, int(np.abs(np.log(lrs / middle)).argmin()))
