"""What charts are made of, as plain values: series, axes, bands and marks.

Knows numbers and names, not how they are drawn.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from cvtrain.report.words import Kind

NUM_COLORS = 7
"""Classes `s0` to `s6` of the page's style; further series repeat them with other dashes or shapes."""

LARGEST = 1e100
"""Of what is drawn: no figure of a training is larger, and sums of these are still finite."""


@dataclass(frozen=True)
class Axis:
    """A direction of a chart.

    Args:
        label: What is measured, with its unit where it has one.
        kind: How values are written; `percent` for shares of 0..1, `count` for whole numbers.
        log: Logarithmic, where all values are above 0; others are left out.
        low: Fixed lower end; None takes what the values need.
        high: Fixed upper end.
        names: Of a direction of categories, from left to right or from top to bottom: a value is a place in it, from 0.

    Raises:
        ValueError: A logarithmic axis has an end that is not above 0.
    """

    label: str
    kind: Kind = "number"
    log: bool = False
    low: float | None = None
    high: float | None = None
    names: Sequence[str] = ()

    def __post_init__(self) -> None:
        if self.log and any(end is not None and end <= 0 for end in (self.low, self.high)):
            raise ValueError(f"a logarithmic axis has no place for 0: {self.low} to {self.high}")


@dataclass(frozen=True)
class Series:
    """Values that belong together and have a colour.

    Args:
        name: For the legend and the values shown.
        x: Of each point.
        y: Of each point; as many.
        low: Lower ends of intervals of `y` (of `x` where the y axis has categories): a band along a line, bars at
            points.
        high: Upper ends.
        words: More on each point, shown with its value, e.g. `seed 3`.
        drawn: `line`, `points` or `both`; empty: as the chart draws.
        dashed: Of a line, e.g. beyond what was measured.
        color: 0 to 6; None: by its place among the series.
        shown: False leaves it switched off at first.

    Raises:
        ValueError: The parts differ in length.
    """

    name: str
    x: Sequence[float | None]
    y: Sequence[float | None]
    low: Sequence[float | None] | None = None
    high: Sequence[float | None] | None = None
    words: Sequence[str] | None = None
    drawn: Literal["", "line", "points", "both"] = ""
    dashed: bool = False
    color: int | None = None
    shown: bool = True

    def __post_init__(self) -> None:
        columns = [c for c in (self.y, self.low, self.high, self.words) if c is not None]
        if any(len(column) != len(self.x) for column in columns) or (self.low is None) != (self.high is None):
            raise ValueError(f"series {self.name!r}: {len(self.x)} x, but columns of {[len(c) for c in columns]}")


@dataclass(frozen=True)
class Band:
    """A stretch of an axis with another background, e.g. the interval of an answer.

    Args:
        low: Where it begins.
        high: Where it ends.
        words: What it is.
        axis: `x` or `y`.
    """

    low: float
    high: float
    words: str = ""
    axis: Literal["x", "y"] = "x"


@dataclass(frozen=True)
class Mark:
    """A place on an axis, drawn as a thin line with words, e.g. the best epoch or the accuracy of guessing.

    Args:
        at: Where.
        words: What is there; short.
        axis: `x` or `y`.
    """

    at: float
    words: str = ""
    axis: Literal["x", "y"] = "x"


@dataclass(frozen=True)
class Point:
    """A place of a series that can be drawn."""

    x: float
    y: float
    low: float | None = None
    high: float | None = None
    words: str = ""


def runs_of(series: Series, *, x: Axis, y: Axis) -> list[list[Point]]:
    """The points of a series that can be drawn, broken where a value is missing."""
    runs: list[list[Point]] = [[]]
    for i, (at, value) in enumerate(zip(series.x, series.y, strict=True)):
        if not (is_drawable(at, x) and is_drawable(value, y)):
            runs.append([])
            continue
        spread = x if y.names else y
        low, high = (_end(ends, i, spread) for ends in (series.low, series.high))
        if low is None or high is None:
            low = high = None
        runs[-1].append(Point(float(at), float(value), low, high, series.words[i] if series.words else ""))
    return [run for run in runs if run]


def _end(ends: Sequence[float | None] | None, index: int, axis: Axis) -> float | None:
    return None if ends is None or not is_drawable(ends[index], axis) else float(ends[index])


def is_drawable(value: float | None, axis: Axis) -> bool:
    """Whether an axis has a place for a value."""
    return value is not None and abs(value) <= LARGEST and (value >= 1 / LARGEST or not axis.log)
