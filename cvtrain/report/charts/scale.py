"""Axes as numbers: where a value stands, which ends an axis has, and the ticks that a person would choose.

Knows numbers, not how they are drawn.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from cvtrain.report.charts.parts import Axis, is_drawable
from cvtrain.report.words import count, number

_PAD = 0.04
"""Room beyond the values, as a share of their range."""

_LEAST_SHARE_SPAN = 0.02
"""Of an axis of shares: less would make noise look like a finding."""

_STEPS, _SHARE_STEPS = (1, 2, 2.5, 5, 10), (1, 2, 5, 10)
_TIMES = (
    *(f * 10.0**p for p in range(-6, 1) for f in (1, 2, 5)),
    *(10.0, 20.0, 30.0),
    *(60.0 * minutes for minutes in (1, 2, 5, 10, 20, 30)),
    *(3600.0 * hours for hours in (1, 2, 3, 6, 12)),
    *(86400.0 * f * 10**p for p in range(4) for f in (1, 2, 5)),
)
"""Durations in seconds that people count in."""

_UNITS = ((86400, "d"), (3600, "h"), (60, "min"))


@dataclass(frozen=True)
class Scale:
    """An axis with its ends, and where they stand on the drawing.

    Args:
        axis: What it shows.
        low: Value at `start`.
        high: Value at `end`.
        start: Place on the drawing, in its units.
        end: The same of the other end.
    """

    axis: Axis
    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        """Where a value stands; what lies beyond an end stands at it."""
        lowest, highest = sorted((self.low, self.high))
        values = (self.low, self.high, min(max(value, lowest), highest))
        low, high, at = map(math.log, values) if self.axis.log else values
        return self.start + (at - low) / (high - low) * (self.end - self.start)

    @property
    def length(self) -> float:
        """In units of the drawing."""
        return abs(self.end - self.start)


def ends_of(axis: Axis, values: Iterable[float | None], *, with_zero: bool = False) -> tuple[float, float]:
    """The values at the two ends of an axis, the first below the second.

    Args:
        axis: Its own ends come first.
        values: All that is drawn; what has no place is passed over.
        with_zero: Begin or end at 0, as bars do.
    """
    if axis.names:
        return -0.5, len(axis.names) - 0.5
    drawable = [float(v) for v in values if is_drawable(v, axis)]
    drawable = drawable or ([1.0, 10.0] if axis.log else [0.0, 1.0])
    low, high = min(drawable), max(drawable)
    low, high = _padded_log(low, high) if axis.log else _padded(low, high, axis=axis, with_zero=with_zero)
    low = low if axis.low is None else axis.low
    high = high if axis.high is None else axis.high
    return (low, high) if low < high else (low, low * 10 if axis.log and low > 0 else low + 1)


def _padded(low: float, high: float, *, axis: Axis, with_zero: bool) -> tuple[float, float]:
    if with_zero:
        low, high = min(low, 0.0), max(high, 0.0)
    least = _LEAST_SHARE_SPAN if axis.kind == "percent" else 1e-9 * max(abs(low), abs(high)) or 1.0
    if high - low < least:
        spare = least / 2 if axis.kind == "percent" else 0.5 if axis.kind == "count" else 0.1 * abs(high) or 0.5
        low, high = low - spare, high + spare
    pad = _PAD * (high - low)
    padded_low = 0.0 if low >= 0 and low - pad < 0 else low - pad
    padded_high = min(high + pad, max(high, 1.0)) if axis.kind == "percent" else high + pad
    return (low if with_zero and low == 0 else padded_low), padded_high


def _padded_log(low: float, high: float) -> tuple[float, float]:
    factor = (high / low) ** _PAD if high > low * (1 + 1e-9) else 1.5
    return low / factor, high * factor


def ticks_of(axis: Axis, low: float, high: float, *, most: int) -> list[float]:
    """Values that are labelled, rising, all from `low` to `high`.

    Args:
        axis: Categories and logarithms have ticks of their own.
        low: Value at the lower end.
        high: Value at the upper end.
        most: How many labels there is room for, at least 2.
    """
    if axis.names:
        step = max(1, math.ceil(len(axis.names) / most))
        return [float(i) for i in range(0, len(axis.names), step)]
    if axis.kind == "seconds":
        return _time_ticks(low, high, log=axis.log, most=most)
    if axis.log:
        return _log_ticks(low, high, most=most)
    steps = _SHARE_STEPS if axis.kind == "percent" else _STEPS
    return _linear_ticks(low, high, most=most, steps=steps, least_step=1.0 if axis.kind == "count" else 0.0)


def _time_ticks(low: float, high: float, *, log: bool, most: int) -> list[float]:
    """Durations that people count in, or multiples of one."""
    if not log:
        step = next((t for t in _TIMES if (high - low) / t < most), high - low)
        return [i * step for i in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]
    ticks = [t for t in _TIMES if low <= t <= high]
    if len(ticks) < 2:
        return _linear_ticks(low, high, most=most)
    return ticks[:: math.ceil(len(ticks) / most)]


def _linear_ticks(
    low: float, high: float, *, most: int, steps: Sequence[float] = _STEPS, least_step: float = 0.0
) -> list[float]:
    power = 10.0 ** math.floor(math.log10((high - low) / most))
    for step in (s * power * scale for scale in (1, 10, 100) for s in steps):
        if step < least_step or (least_step and step % 1):
            continue
        first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
        if last - first + 1 <= most:
            return [float(f"{i * step:.12g}") for i in range(first, last + 1)]
    return [low, high]


def _log_ticks(low: float, high: float, *, most: int) -> list[float]:
    """1, 2 and 5 times powers of ten where there is room for them, else 1 and 3 times, else powers alone.

    As on a plain axis where there would be one at most.
    """
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for factors in ((1, 2, 5), (1, 3), (1,)):
        ticks = [tick for tick in (f * 10.0**p for p in powers for f in factors) if low <= tick <= high]
        if len(ticks) <= most:
            break
    return ticks[:: math.ceil(len(ticks) / most)] if len(ticks) > 1 else _linear_ticks(low, high, most=most)


def label_of(axis: Axis, tick: float, ticks: Sequence[float]) -> str:
    """How a tick is written: as short as keeps it apart from its neighbours."""
    if axis.names:
        return axis.names[round(tick)]
    gap = min((b - a for a, b in pairwise(ticks)), default=0.0)
    if axis.kind == "percent":
        digits = 0 if axis.log or not gap else max(0, math.ceil(-math.log10(100 * gap) - 1e-9))
        return f"{number(100 * tick)} %" if axis.log else f"{100 * tick:.{digits}f} %"
    if axis.kind == "seconds":
        counted = tick if axis.log else gap or tick
        size, unit = next(((s, u) for s, u in _UNITS if counted >= s), (1, "s"))
        return f"{number(tick / size)} {unit}"
    if axis.kind == "count":
        return count(tick)
    return number(tick, max(4, 1 + math.ceil(math.log10(max(map(abs, ticks)) / gap))) if gap else 4)
