"""How the series of a chart are told apart: colours, dashes, shapes, and the legend that names them.

Knows series, not where they stand.
"""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from cvtrain.report.charts.parts import NUM_COLORS, Series
from cvtrain.report.charts.svg import DASHES, SHAPES, element, marker


def color_of(series: Series, index: int) -> str:
    """Class of the colour of a series."""
    return f"s{(index if series.color is None else series.color) % NUM_COLORS}"


def dash_of(series: Series, index: int) -> str | None:
    """How its line is broken: whole for the first seven, so that further ones of a colour differ."""
    return "6 4" if series.dashed else DASHES[index // NUM_COLORS % len(DASHES)] or None


def shape_of(index: int) -> str:
    """Shape of its points."""
    return SHAPES[index % len(SHAPES)]


def legend(all_series: Sequence[Series], *, look: str) -> Markup:
    """A button for each series that switches it on and off; nothing for a single one. The script enables them.

    Args:
        all_series: In their order.
        look: `line`, `points` or `bar`, for series that do not say how they are drawn.
    """
    if len(all_series) < 2:
        return Markup("")
    keys = [
        element(
            "button",
            _sample(series, i, look=series.drawn or look),
            series.name,
            type="button",
            class_=f"key {color_of(series, i)}",
            disabled=True,
            aria_pressed="true" if series.shown else "false",
            data_series=i,
        )
        for i, series in enumerate(all_series)
    ]
    return element("div", *keys, class_="legend")


def _sample(series: Series, index: int, *, look: str) -> Markup:
    parts = []
    if look in ("line", "both"):
        parts.append(element("path", class_="line", d="M0 7L26 7", stroke_dasharray=dash_of(series, index)))
    if look in ("points", "both"):
        parts.append(marker(shape_of(index), 13, 7))
    if look == "bar":
        parts.append(element("rect", class_="bar", x=6, y=1, width=14, height=12))
    return element("svg", *parts, viewBox="0 0 26 14", width=26, height=14, aria_hidden="true")
