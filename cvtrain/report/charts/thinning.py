"""Fewer points that draw the same line.

Knows values and their order, not how they are drawn.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from cvtrain.report.charts.parts import Axis, Series, is_drawable

MAX_POINTS = 1000
"""Of a series; the drawing is narrower than half of it."""

MAX_POINTS_OF_CHART = 20_000
"""Of all series together, so that a chart of a hundred runs stays small."""

_KEPT_OF_BUCKET = 5


def thinned(all_series: Sequence[Series], *, y: Axis) -> list[Series]:
    """The same series with at most `MAX_POINTS` points each.

    Of each stretch of a line its first, last, least and greatest values are kept, and one that is missing: peaks and
    gaps stay where they are.

    Source: Jugel, Jerzak, Hackenbroich & Markl 2014, "M4: A Visualization-Oriented Time Series Data Aggregation",
    section 4.
    """
    most = max(50, min(MAX_POINTS, MAX_POINTS_OF_CHART // max(len(all_series), 1)))
    return [_thinned(series, most=most, y=y) for series in all_series]


def _thinned(series: Series, *, most: int, y: Axis) -> Series:
    count = len(series.x)
    if count <= most:
        return series
    num_buckets = most // _KEPT_OF_BUCKET
    kept: list[int] = []
    for bucket in range(num_buckets):
        indices = range(bucket * count // num_buckets, (bucket + 1) * count // num_buckets)
        kept += sorted(_extremes(series.y, indices, y=y))
    columns = (series.x, series.y, series.low, series.high, series.words)
    x, values, low, high, words = (None if c is None else [c[i] for i in kept] for c in columns)
    return replace(series, x=x, y=values, low=low, high=high, words=words)


def _extremes(values: Sequence[float | None], indices: range, *, y: Axis) -> set[int]:
    there = [i for i in indices if is_drawable(values[i], y)]
    missing = [i for i in indices if not is_drawable(values[i], y)][:1]
    if not there:
        return set(missing)
    key = values.__getitem__
    return {there[0], there[-1], min(there, key=key), max(there, key=key), *missing}
