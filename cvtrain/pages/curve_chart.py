"""Learning curves as a chart of a page: runs, means with intervals, the fit with its band, and answers as marks.

Knows curves as figures; neither folders nor how a curve was fitted.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from cvtrain.report.charts import Axis, Band, Mark, Series, point_chart
from cvtrain.report.compared_curves import NamedCurve
from cvtrain.report.curves import FittedCurve, MeasuredSizes, SizeMark
from cvtrain.report.learning_curve import TargetMark

if TYPE_CHECKING:
    from markupsafe import Markup

_FIT_POINTS = 60
"""Of a fit that are drawn: a smooth line, between whose points the pointer finds a value."""

_GREY = 6


def curve_chart(
    curves: Sequence[NamedCurve],
    *,
    title: str,
    target: TargetMark | None = None,
    elbow: SizeMark | None = None,
    crossing: SizeMark | None = None,
    chance_accuracy: float | None = None,
) -> Markup:
    """Draws test accuracy against images per class; one colour per curve, and all its runs where it is alone.

    Args:
        curves: Up to seven.
        title: The heading of the chart.
        target: An accuracy, and the images that it takes.
        elbow: Where more images stop paying.
        crossing: Where two curves cross.
        chance_accuracy: 0..1, of a guess; drawn where it is near what was measured.

    Returns:
        Markup for `parts.chart`.
    """
    is_alone = len(curves) == 1
    series = [each for i, curve in enumerate(curves) for each in _series(curve, color=i, is_alone=is_alone)]
    last_size = max(size for each in series for size in each.x)
    bands, marks = _answers(target, elbow, crossing, last_size=last_size)
    low, high = _accuracy_range(series)
    if chance_accuracy is not None and low - chance_accuracy < 0.5 * (high - low):
        marks.append(Mark(chance_accuracy, f"guessing {100 * chance_accuracy:.3g} %", axis="y"))
    levels = [mark.at for mark in marks if mark.axis == "y"]
    low, high = min([low, *levels]), max([high, *levels])
    spare = max(0.06 * (high - low), 0.01)
    return point_chart(
        series,
        title=title,
        x=Axis("images per class", "count", log=True),
        y=Axis("test accuracy", "percent", low=max(low - spare, 0.0), high=min(high + 1.5 * spare, 1.0)),
        bands=bands,
        marks=marks,
        wide=True,
    )


def _series(curve: NamedCurve, *, color: int, is_alone: bool) -> Iterator[Series]:
    measured, fit = curve.measured, curve.fit
    name = "mean" if is_alone else curve.name
    if is_alone and max(map(len, measured.accuracies)) > 1:
        yield _runs(measured)
    counts = [len(runs) for runs in measured.accuracies]
    yield Series(
        f"{name}, {measured.interval_name}" if is_alone else name,
        list(measured.per_class),
        measured.means.tolist(),
        low=list(measured.low),
        high=list(measured.high),
        words=[f"{count} run{'s' if count > 1 else ''}" for count in counts],
        drawn="points",
        color=color,
    )
    if fit is not None:
        yield from _fit(fit, measured, name="fit" if is_alone else f"{curve.name}, fit", color=color)
        if is_alone:
            yield from _others(fit)


def _runs(measured: MeasuredSizes) -> Series:
    """Every training as a point."""
    pairs = [(size, run) for size, runs in zip(measured.per_class, measured.accuracies, strict=True) for run in runs]
    return Series("single runs", [size for size, _ in pairs], [run for _, run in pairs], drawn="points", color=5)


def _fit(fit: FittedCurve, measured: MeasuredSizes, *, name: str, color: int) -> Iterator[Series]:
    """The line with its band within the measured sizes, and broken beyond them."""
    last = measured.per_class[-1]
    kept = range(0, len(fit.per_class), max(1, len(fit.per_class) // _FIT_POINTS))
    indices = sorted({*kept, len(fit.per_class) - 1})
    within = [i for i in indices if fit.per_class[i] <= last * (1 + 1e-9)]
    beyond = [i for i in indices if i >= within[-1]]
    for some, words, dashed in ((within, "95 % interval", False), (beyond, "beyond what was measured", True)):
        if len(some) > 1:
            columns = ([column[i] for i in some] for column in (fit.per_class, fit.accuracies, fit.low, fit.high))
            x, y, low, high = columns
            yield Series(f"{name}, {words}", x, y, low=low, high=high, drawn="line", dashed=dashed, color=color)


def _others(fit: FittedCurve) -> Iterator[Series]:
    """Forms that others would have drawn, switched off at first."""
    for name, accuracies in fit.others.items():
        yield Series(name, list(fit.per_class), list(accuracies), drawn="line", color=_GREY, shown=False)


def _answers(
    target: TargetMark | None, elbow: SizeMark | None, crossing: SizeMark | None, *, last_size: float
) -> tuple[list[Band], list[Mark]]:
    """Marks with the intervals of their sizes; what lies beyond the drawing is told by sentences alone."""
    bands, marks = [], []
    if target is not None:
        is_drawn = target.per_class is not None and target.per_class <= last_size
        words = f"target {100 * target.accuracy:.3g} %"  # where the curve comes there, it stands beside the size
        marks.append(Mark(target.accuracy, "" if is_drawn else words, axis="y"))
        bands += _size_answer(marks, target, words=f"{words}: ", last_size=last_size)
    for answer, word in ((elbow, "elbow: "), (crossing, "crossing: ")):
        if answer is not None:
            bands += _size_answer(marks, answer, words=word, last_size=last_size)
    return bands, marks


def _size_answer(marks: list[Mark], answer: TargetMark | SizeMark, *, words: str, last_size: float) -> list[Band]:
    """Adds the mark of a size; returns the band of its interval."""
    size = answer.per_class
    if size is None or size > last_size:
        return []
    marks.append(Mark(size, f"{words}{float(f'{size:.3g}'):,.0f} per class"))
    return [] if answer.low is None else [Band(answer.low, min(answer.high or last_size, last_size))]


def _accuracy_range(series: Sequence[Series]) -> tuple[float, float]:
    """Of all that is shown at first."""
    shown = [each for each in series if each.shown]
    values = [v for each in shown for column in (each.y, each.low, each.high) for v in column or () if v is not None]
    return max(min(values), 0.0), min(max(values), 1.0)
