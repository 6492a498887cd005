"""Charts of bars: a value per category or per stretch of an axis.

Knows series and axes; neither runs nor the page.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from markupsafe import Markup

from cvtrain.report.charts.frame import (
    Frame,
    axes,
    bands_and_marks,
    chart,
    empty_chart,
    frame_of,
    series_group,
)
from cvtrain.report.charts.legend import dash_of
from cvtrain.report.charts.parts import Axis, Band, Mark, Point, Series, runs_of
from cvtrain.report.charts.svg import element, path_of

_SHARE = 0.82
"""Of the room of a category that its bars take together."""


def bar_chart(
    series: Sequence[Series],
    *,
    title: str,
    x: Axis,
    y: Axis,
    bands: Sequence[Band] = (),
    marks: Sequence[Mark] = (),
    stacked: bool = False,
    wide: bool = False,
) -> Markup:
    """Draws a bar from 0 for each value; several series stand beside each other, or on each other.

    Args:
        series: Points `(category, value)`, the category a place in `x.names`, or the middle of a bin of a plain x axis.
            With names on the y axis it is the other way round, and the bars lie: best for many names. A series with
            `drawn="line"` is drawn as a line over the bars.
        title: Its heading.
        x: The horizontal axis; for bins give `low` and `high`, the outer edges of the first and the last.
        y: The vertical axis.
        bands: Stretches of an axis with another background.
        marks: Places on an axis.
        stacked: On each other, in their order; values must not be negative.
        wide: As wide as the page; else half of it.

    Returns:
        Markup for `parts.chart`; a sentence where there is no value.
    """
    if not any(runs_of(s, x=x, y=y) for s in series):
        return empty_chart(title, "There are no values to draw.")
    lies = bool(y.names)
    bars = [(i, s) for i, s in enumerate(series) if s.drawn != "line"]
    tops = _stacked([s for _, s in bars], lies=lies) if stacked else [s for _, s in bars]
    frame = frame_of(x, y, [*tops, *(s for s in series if s.drawn == "line")], wide=wide, bars=True)
    width = _SHARE * _room(frame, [s for _, s in bars])
    drawn = []
    for place, (i, one) in enumerate(bars):
        floor = tops[place - 1] if stacked and place else None
        offset, thickness = (0.0, width) if stacked else _beside(place, len(bars), width)
        drawn.append(_bars(frame, one, i, top=tops[place], floor=floor, offset=offset, thickness=thickness))
    drawn += [_line(frame, s, i) for i, s in enumerate(series) if s.drawn == "line"]
    layers = (axes(frame), bands_and_marks(frame, bands, marks), *drawn)
    return chart(frame, *layers, title=title, all_series=series, look="bar", hover="y" if lies else "x")


def _beside(place: int, count: int, width: float) -> tuple[float, float]:
    """Where the bar of one of several series stands within its category, and how thick it is."""
    return (place - (count - 1) / 2) * width / count, width / count


def _stacked(series: Sequence[Series], *, lies: bool) -> list[Series]:
    """Each series with its upper ends as values: the sums of all up to it."""
    sums: dict[float, float] = {}
    tops = []
    for one in series:
        keys, values = (one.y, one.x) if lies else (one.x, one.y)
        for key, value in zip(keys, values, strict=True):
            sums[key] = sums.get(key, 0.0) + (value or 0.0)
        ends = [sums[key] for key in keys]
        tops.append(Series(one.name, ends if lies else keys, keys if lies else ends))
    return tops


def _room(frame: Frame, bars: Sequence[Series]) -> float:
    """Of a category, in units of the drawing: that of a name, or the least distance of two values."""
    scale = frame.y if frame.y.axis.names else frame.x
    if scale.axis.names:
        return scale.length / len(scale.axis.names)
    places = sorted({scale(v) for s in bars for v in s.x if v is not None})
    gaps = [b - a for a, b in pairwise(places) if b - a > 1e-9]
    return min(gaps, default=scale.length / 4)


def _bars(
    frame: Frame, series: Series, index: int, *, top: Series, floor: Series | None, offset: float, thickness: float
) -> Markup:
    points = [p for run in runs_of(series, x=frame.x.axis, y=frame.y.axis) for p in run]
    lies = bool(frame.y.axis.names)
    ends, floors = _lengths(top, lies=lies), _lengths(floor, lies=lies) if floor else {}
    parts = []
    for point in points:
        key = point.y if lies else point.x
        parts.append(_bar(frame, key, floors.get(key, 0.0), ends[key], offset=offset, thickness=thickness))
    return series_group(series, index, *parts, points=points)


def _lengths(series: Series, *, lies: bool) -> dict[float | None, float | None]:
    """The value of each category."""
    return dict(zip(*((series.y, series.x) if lies else (series.x, series.y)), strict=True))


def _bar(frame: Frame, key: float, low: float, high: float, *, offset: float, thickness: float) -> Markup:
    along, across = (frame.x, frame.y) if frame.y.axis.names else (frame.y, frame.x)
    first, last = sorted((along(low), along(high)))
    side = across(key) + offset - thickness / 2
    if frame.y.axis.names:
        return element("rect", class_="bar", x=first, width=last - first, y=side, height=thickness)
    return element("rect", class_="bar", x=side, width=thickness, y=first, height=last - first)


def _line(frame: Frame, series: Series, index: int) -> Markup:
    runs: list[list[Point]] = runs_of(series, x=frame.x.axis, y=frame.y.axis)
    dash = dash_of(series, index)
    lines = [
        element("path", class_="line", d=path_of([(frame.x(p.x), frame.y(p.y)) for p in run]), stroke_dasharray=dash)
        for run in runs
    ]
    return series_group(series, index, *lines, points=())  # a guide, whose values nobody asks for
