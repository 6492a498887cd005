"""Charts of lines and of points in a plane, alone or together.

Knows series and axes; neither runs nor the page.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

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
from cvtrain.report.charts.legend import dash_of, shape_of
from cvtrain.report.charts.parts import Axis, Band, Mark, Point, Series, runs_of
from cvtrain.report.charts.svg import element, joined, marker, path_of
from cvtrain.report.charts.thinning import thinned

_SPREAD = 0.24
"""Half the width over which points of one category are spread, as a share of the room of a category."""


def line_chart(
    series: Sequence[Series],
    *,
    title: str,
    x: Axis,
    y: Axis,
    bands: Sequence[Band] = (),
    marks: Sequence[Mark] = (),
    wide: bool = False,
) -> Markup:
    """Draws series as lines, with a band where they have intervals; a lone point is a dot, a missing one a gap.

    Args:
        series: Any number; each with at most some thousand points is drawn by at most 1,000 of them, peaks kept.
        title: Its heading.
        x: The horizontal axis.
        y: The vertical axis.
        bands: Stretches of an axis with another background.
        marks: Places on an axis.
        wide: As wide as the page; else half of it.

    Returns:
        Markup for `parts.chart`; a sentence where there is no value.
    """
    return _plane(series, title=title, x=x, y=y, bands=bands, marks=marks, wide=wide, look="line", hover="x")


def point_chart(
    series: Sequence[Series],
    *,
    title: str,
    x: Axis,
    y: Axis,
    bands: Sequence[Band] = (),
    marks: Sequence[Mark] = (),
    wide: bool = False,
) -> Markup:
    """Draws series as points, with bars where they have intervals; several of one category stand beside each other.

    The arguments are those of `line_chart`. Either axis may have categories (`Axis(names=...)`): many, or long names,
    are read best on the y axis, which has a row for each.
    """
    return _plane(series, title=title, x=x, y=y, bands=bands, marks=marks, wide=wide, look="points", hover="point")


def _plane(
    series: Sequence[Series],
    *,
    title: str,
    x: Axis,
    y: Axis,
    bands: Sequence[Band],
    marks: Sequence[Mark],
    wide: bool,
    look: str,
    hover: str,
) -> Markup:
    if not any(runs_of(s, x=x, y=y) for s in series):
        return empty_chart(title, "There are no values to draw.")
    series = thinned(series, y=y)
    frame = frame_of(x, y, series, wide=wide)
    drawn = [_series(frame, s, i, look=s.drawn or look) for i, s in enumerate(series)]
    layers = (axes(frame), bands_and_marks(frame, bands, marks), *drawn)
    return chart(frame, *layers, title=title, all_series=series, look=look, hover=hover)


def _series(frame: Frame, series: Series, index: int, *, look: str) -> Markup:
    runs = runs_of(series, x=frame.x.axis, y=frame.y.axis)
    parts: list[Markup] = []
    if look in ("line", "both"):
        parts += [_area(frame, run) for run in runs]
        parts += [_line(frame, run, dash=dash_of(series, index)) for run in runs]
    points = [p for run in runs for p in run]
    if look in ("points", "both"):
        many = _is_crowded(frame, points)
        points = _spread(frame, points) if many else points
        parts += [_whisker(frame, p) for p in points if look == "points"]
        parts += [marker(shape_of(index), frame.x(p.x), frame.y(p.y), size=3.4 if many else 4.5) for p in points]
    return series_group(series, index, *parts, points=points)


def _line(frame: Frame, run: Sequence[Point], *, dash: str | None) -> Markup:
    places = [(frame.x(p.x), frame.y(p.y)) for p in run]
    if len(places) == 1:
        return marker("circle", *places[0], size=3)
    return element("path", class_="line", d=path_of(places), stroke_dasharray=dash)


def _area(frame: Frame, run: Sequence[Point]) -> Markup:
    """The band of the intervals along a line, broken where they are missing."""
    parts, there = [], []
    for point in [*run, None]:
        if point is not None and point.low is not None:
            there.append(point)
            continue
        if len(there) > 1:
            upper = [(frame.x(p.x), frame.y(p.high)) for p in there]
            lower = [(frame.x(p.x), frame.y(p.low)) for p in reversed(there)]
            parts.append(element("path", class_="area", d=path_of(upper + lower) + "Z"))
        there = []
    return joined(parts)


def _whisker(frame: Frame, point: Point) -> Markup:
    if point.low is None or point.high is None:
        return Markup("")
    if frame.y.axis.names:
        at, low, high = frame.y(point.y), frame.x(point.low), frame.x(point.high)
        caps = [[(end, at - 4), (end, at + 4)] for end in (low, high)]
        stem = [(low, at), (high, at)]
    else:
        at, low, high = frame.x(point.x), frame.y(point.low), frame.y(point.high)
        caps = [[(at - 4, end), (at + 4, end)] for end in (low, high)]
        stem = [(at, low), (at, high)]
    return element("path", class_="whisker", d="".join(map(path_of, (stem, *caps))))


def _is_crowded(frame: Frame, points: Sequence[Point]) -> bool:
    """Whether a category has several points."""
    if not frame.is_named:
        return False
    places = Counter(p.y if frame.y.axis.names else p.x for p in points)
    return max(places.values(), default=0) > 1


def _spread(frame: Frame, points: Sequence[Point]) -> list[Point]:
    """Sets the points of each category beside each other, in their order."""
    which = "y" if frame.y.axis.names else "x"
    counts = Counter(getattr(p, which) for p in points)
    seen: Counter[float] = Counter()
    spread = []
    for point in points:
        at = getattr(point, which)
        step = 2 * _SPREAD / max(counts[at] - 1, 1)
        offset = -_SPREAD + step * seen[at] if counts[at] > 1 else 0.0
        seen[at] += 1
        spread.append(replace(point, **{which: at + offset}))
    return spread
