"""How figures are written on pages and beside charts: per cents, counts, intervals, durations.

Knows numbers; neither what they mean nor where they stand.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from numbers import Real
from typing import Literal

from cvtrain.plain_text import duration

Kind = Literal["text", "number", "count", "percent", "seconds"]
"""What a value is, and so how it is written; the script of the page writes the same."""

NOTHING = "\u2013"
"""Stands where there is no value."""


def is_missing(value: object) -> bool:
    """Whether there is no value: None, an empty text, or a number that is not finite."""
    return value is None or value == "" or (isinstance(value, Real) and not math.isfinite(value))


def percent(share: float | None, digits: int = 1) -> str:
    """A share of 0..1 as `83.1 %`."""
    return NOTHING if is_missing(share) else f"{100 * share:.{digits}f} %"


def count(value: float | None) -> str:
    """A whole number as `10,000`."""
    return NOTHING if is_missing(value) else f"{round(value):,}"


def number(value: float | None, digits: int = 4) -> str:
    """A number with so many significant digits, and all those before its point: `0.05`, `1.234`, `12,345`, `1e-6`."""
    if is_missing(value):
        return NOTHING
    shown = float(f"{value:.{digits}g}")
    if shown and not 1e-4 <= abs(shown) < 1e6:
        mantissa, _, exponent = f"{shown:e}".partition("e")
        return f"{float(mantissa):g}e{int(exponent)}"
    if abs(value) >= 10 ** (digits - 1):
        return f"{value:,.0f}"
    return f"{shown:,.10f}".rstrip("0").rstrip(".")


def seconds(value: float | None) -> str:
    """A duration as a person would say it: `12.3 s`, `2 min 05 s`."""
    return NOTHING if is_missing(value) else duration(value)


def interval(value: float | None, low: float | None, high: float | None) -> str:
    """A share of 0..1 with its interval: `83.1 % [82.3, 83.8]`."""
    if is_missing(value) or is_missing(low) or is_missing(high):
        return percent(value)
    return f"{percent(value)} [{100 * low:.1f}, {100 * high:.1f}]"


WRITERS: dict[Kind, Callable[[float | None], str]] = {
    "number": number,
    "count": count,
    "percent": percent,
    "seconds": seconds,
}
"""The function that writes a value of each kind that is a number."""
