"""What every chart stands in: its place on the drawing, axes with ticks, bands and marks.

Knows series and axes, not in which shape series are drawn. Units of a drawing are about pixels on a wide screen; on a
phone it is shown at three fifths of that with larger letters, for which labels have room here.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from cvtrain.plain_text import printable
from cvtrain.report.charts.legend import color_of, legend
from cvtrain.report.charts.parts import Axis, Band, Mark, Point, Series
from cvtrain.report.charts.scale import Scale, ends_of, label_of, ticks_of
from cvtrain.report.charts.svg import element, joined, place, shortened
from cvtrain.report.charts.values import values_table

WIDTH, WIDE_WIDTH, HEIGHT, WIDE_HEIGHT = 560, 1120, 320, 420
_TOP, _RIGHT, _BOTTOM = 34, 30, 54
_LETTER, _TICK_LETTER = 7.4, 10.2
"""Width of a letter, and of one of a tick label on a phone, in units of the drawing."""

_ROW_HEIGHT = 26.0
"""Of a category on the y axis."""

_MOST_NAME_LETTERS, _MOST_TURNED_LETTERS = 38, 24
_LINE_HEIGHT = 16.0


@dataclass(frozen=True)
class Frame:
    """Where a chart stands on its drawing."""

    width: float
    height: float
    x: Scale
    y: Scale

    @property
    def is_named(self) -> bool:
        """Whether it has categories, whose names need their room on a phone too."""
        return bool(self.x.axis.names or self.y.axis.names)


def frame_of(x: Axis, y: Axis, all_series: Sequence[Series], *, wide: bool, bars: bool = False) -> Frame:
    """Finds the ends of both axes and the room that their labels need.

    Args:
        x: The horizontal axis.
        y: The vertical axis.
        all_series: All that is drawn; the intervals count too.
        wide: Twice as wide, and a little higher.
        bars: The axis of values has a place for 0.
    """
    ends = [v for s in all_series for column in (s.low, s.high) for v in column or ()]
    xs = [v for s in all_series for v in s.x] + (ends if y.names else [])
    ys = [v for s in all_series for v in s.y] + ([] if y.names else ends)
    x_ends = ends_of(x, xs, with_zero=bars and bool(y.names))
    y_ends = ends_of(y, ys, with_zero=bars and not y.names)
    width, height = (WIDE_WIDTH, WIDE_HEIGHT) if wide else (WIDTH, HEIGHT)
    left = _left_margin(y, *y_ends)
    bottom = _BOTTOM
    if y.names:
        height = _TOP + _BOTTOM + _ROW_HEIGHT * len(y.names)
    if x.names and _are_turned(x, width - left - _RIGHT):
        longest = max(len(shortened(name, num_letters=_MOST_TURNED_LETTERS)) for name in x.names)
        extra = 0.6 * _LETTER * longest
        bottom, height = bottom + extra, height + extra
    return Frame(
        width,
        height,
        Scale(x, *x_ends, left, width - _RIGHT),
        Scale(y, *(reversed(y_ends) if y.names else y_ends), height - bottom, _TOP),
    )


def _left_margin(y: Axis, low: float, high: float) -> float:
    if y.names:
        return 14 + _LETTER * max(len(shortened(name, num_letters=_MOST_NAME_LETTERS)) for name in y.names)
    ticks = ticks_of(y, low, high, most=6)
    return 14 + _TICK_LETTER * max((len(label_of(y, tick, ticks)) for tick in ticks), default=3)


def _are_turned(x: Axis, length: float) -> bool:
    """Whether names below their places would run into each other."""
    return max(len(name) for name in x.names) * _LETTER > length / len(x.names) - 6


# ---------------------------------------------------------------------------------------------------------- axes


def axes(frame: Frame) -> Markup:
    """Lines, ticks and labels of both axes."""
    return element("g", _y_axis(frame), _x_axis(frame), class_="axes")


def _x_axis(frame: Frame) -> Markup:
    scale, bottom = frame.x, frame.y.start
    names = scale.axis.names
    turned = bool(names) and _are_turned(scale.axis, scale.length)
    longest = 4 if names else 7
    most = max(2, int(scale.length / (_TICK_LETTER * longest)))
    ticks = ticks_of(scale.axis, scale.low, scale.high, most=int(scale.length / 18) if names else min(most, 9))
    parts = [element("line", class_="axis", x1=scale.start, x2=scale.end, y1=bottom, y2=bottom)]
    for tick in ticks:
        at = scale(tick)
        if not names:
            parts.append(element("line", class_="grid", x1=at, x2=at, y1=_TOP, y2=bottom))
            parts.append(element("line", class_="axis", x1=at, x2=at, y1=bottom, y2=bottom + 4))
        text = label_of(scale.axis, tick, ticks)
        if turned:
            text = shortened(text, num_letters=_MOST_TURNED_LETTERS)
            turn = f"translate({place(at + 4)} {place(bottom + 14)}) rotate(-40)"
            parts.append(element("text", text, class_="tick", transform=turn, text_anchor="end"))
        else:
            parts.append(element("text", text, class_="tick", x=at, y=bottom + 20, text_anchor="middle"))
    label = {"class_": "label", "x": scale.end, "y": frame.height - 8, "text_anchor": "end"}
    return joined([*parts, element("text", scale.axis.label, **label)])


def _y_axis(frame: Frame) -> Markup:
    scale = frame.y
    low, high = sorted((scale.low, scale.high))
    ticks = ticks_of(scale.axis, low, high, most=len(scale.axis.names) or (6 if frame.height <= HEIGHT else 8))
    parts = []
    for tick in ticks:
        at = scale(tick)
        text = shortened(label_of(scale.axis, tick, ticks), num_letters=_MOST_NAME_LETTERS)
        parts.append(element("line", class_="grid", x1=frame.x.start, x2=frame.x.end, y1=at, y2=at))
        parts.append(element("text", text, class_="tick", x=frame.x.start - 8, y=at + 4.5, text_anchor="end"))
    # Words across the page are read without turning one's head.
    return joined([*parts, element("text", scale.axis.label, class_="label", x=4, y=16)])


# --------------------------------------------------------------------------------------------- bands and marks


def bands_and_marks(frame: Frame, bands: Sequence[Band], marks: Sequence[Mark]) -> Markup:
    """Backgrounds and thin lines with their words, those of the x axis below each other; none beyond an axis."""
    parts, row = [], 0
    for band in bands:
        if band.high < _low(frame, band.axis) or band.low > _high(frame, band.axis):
            continue
        parts.append(_band(frame, band))
        if band.words:
            middle = (max(band.low, _low(frame, band.axis)) + min(band.high, _high(frame, band.axis))) / 2
            parts.append(_words(frame, band.axis, middle, band.words, row=row))
            row += band.axis == "x"
    for mark in marks:
        if not _low(frame, mark.axis) <= mark.at <= _high(frame, mark.axis):
            continue
        parts.append(_mark(frame, mark))
        if mark.words:
            parts.append(_words(frame, mark.axis, mark.at, mark.words, row=row))
            row += mark.axis == "x"
    return element("g", *parts, class_="marks") if parts else Markup("")


def _low(frame: Frame, axis: str) -> float:
    """The least value that has a place; the rows of categories go down, so that their scale is turned."""
    return min(getattr(frame, axis).low, getattr(frame, axis).high)


def _high(frame: Frame, axis: str) -> float:
    return max(getattr(frame, axis).low, getattr(frame, axis).high)


def _band(frame: Frame, band: Band) -> Markup:
    scale: Scale = getattr(frame, band.axis)
    first, last = sorted((scale(band.low), scale(band.high)))
    if band.axis == "x":
        return element("rect", class_="band", x=first, width=last - first, y=_TOP, height=frame.y.start - _TOP)
    return element("rect", class_="band", x=frame.x.start, width=frame.x.length, y=first, height=last - first)


def _mark(frame: Frame, mark: Mark) -> Markup:
    at = getattr(frame, mark.axis)(mark.at)
    if mark.axis == "x":
        return element("line", class_="mark", x1=at, x2=at, y1=_TOP, y2=frame.y.start)
    return element("line", class_="mark", x1=frame.x.start, x2=frame.x.end, y1=at, y2=at)


def _words(frame: Frame, axis: str, value: float, text: str, *, row: int) -> Markup:
    if axis == "y":
        at = {"x": frame.x.end - 4, "y": frame.y(value) - 5, "text_anchor": "end"}
    else:
        at_x = frame.x(value)
        is_right = at_x > (frame.x.start + frame.x.end) / 2
        at = {"x": at_x + (-5 if is_right else 5), "y": _TOP + 12 + _LINE_HEIGHT * row}
        at["text_anchor"] = "end" if is_right else "start"
    return element("text", text, class_="words", **at)


# ------------------------------------------------------------------------------------------ series, legend, whole


def series_group(series: Series, index: int, *parts: Markup, points: Sequence[Point]) -> Markup:
    """What is drawn of one series, with its values for the script of the page."""
    rows = [_trimmed([_short(p.x), _short(p.y), _short(p.low), _short(p.high), printable(p.words)]) for p in points]
    return element(
        "g",
        *parts,
        class_=f"series {color_of(series, index)}" + ("" if series.shown else " off"),
        data_series=index,
        data_name=series.name,
        data_values=json.dumps(rows, separators=(",", ":")),
    )


def _short(value: float | None) -> float | int | None:
    if value is None:
        return None
    shown = float(f"{value:.7g}")
    return int(shown) if shown.is_integer() and abs(shown) < 1e15 else shown


def _trimmed(row: list) -> list:
    while row[-1] in (None, ""):
        row.pop()
    return row


def chart(frame: Frame, *layers: Markup, title: str, all_series: Sequence[Series], look: str, hover: str) -> Markup:
    """The whole chart: its title, legend, drawing and values.

    Args:
        frame: Where it stands.
        layers: What is drawn, the hindmost first.
        title: Its heading; also what is read to those who do not see it.
        all_series: For the legend and the table.
        look: As for `legend`.
        hover: Which values the script shows: those above each other (`x`), beside each other (`y`), or of one `point`.
    """
    drawing = element(
        "svg",
        *layers,
        viewBox=f"0 0 {place(frame.width)} {place(frame.height)}",
        role="img",
        aria_label=f"{title}: {frame.y.axis.label} against {frame.x.axis.label}"
        + (f", {len(all_series)} series" if len(all_series) > 1 else ""),
        tabindex="0",
        data_x=_told(frame.x),
        data_y=_told(frame.y),
    )
    classes = "chart" + (" wide" if frame.width > WIDTH else "") + (" named" if frame.is_named else "")
    return element(
        "div",
        element("h3", title),
        legend(all_series, look=look),
        element("div", drawing, class_="scroll"),
        values_table(all_series, x=frame.x.axis, y=frame.y.axis),
        class_=classes,
        data_hover=hover,
    )


def empty_chart(title: str, why: str) -> Markup:
    """What stands in the place of a chart that has nothing to show."""
    return element("div", element("h3", title), element("p", why, class_="nothing"), class_="chart")


def _told(scale: Scale) -> str:
    axis = scale.axis
    told = {"label": printable(axis.label), "kind": axis.kind, "log": axis.log, "names": [*map(printable, axis.names)]}
    told |= {name: getattr(scale, name) for name in ("low", "high", "start", "end")}
    return json.dumps(told, separators=(",", ":"))
