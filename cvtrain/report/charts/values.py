"""The values of a chart as a table, for those who read rather than see.

Knows series and axes, not how they are drawn.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from markupsafe import Markup

from cvtrain.report.charts.parts import Axis, Series, runs_of
from cvtrain.report.charts.svg import element
from cvtrain.report.words import NOTHING, WRITERS

MAX_ROWS, MAX_COLUMNS = 40, 8
"""Charts of more values have no table of them: it would hide the page."""


def values_table(all_series: Sequence[Series], *, x: Axis, y: Axis) -> Markup:
    """The values behind a fold; nothing where there are many, or several of a series at one place."""
    by_name = bool(y.names)
    key_axis, value_axis = (y, x) if by_name else (x, y)
    columns = []
    for series in all_series:
        points = [p for run in runs_of(series, x=x, y=y) for p in run]
        column = {p.y if by_name else p.x: p.x if by_name else p.y for p in points}
        if len(column) < len(points):
            return Markup("")
        columns.append(column)
    keys = sorted(set().union(*columns))
    if not keys or len(keys) > MAX_ROWS or len(columns) > MAX_COLUMNS:
        return Markup("")
    head = [element("th", text, scope="col") for text in (key_axis.label, *(s.name for s in all_series))]
    rows = [
        element(
            "tr",
            element("th", _written(key_axis, key), scope="row"),
            *(element("td", _written(value_axis, column.get(key))) for column in columns),
        )
        for key in keys
    ]
    table = element("table", element("thead", element("tr", *head)), element("tbody", *rows))
    return element("details", element("summary", "Values"), element("div", table, class_="scroll"), class_="values")


def _written(axis: Axis, value: float | None) -> str:
    if value is None or not math.isfinite(value):
        return NOTHING
    if axis.names:
        return axis.names[round(value)]
    return WRITERS.get(axis.kind, WRITERS["number"])(value)
