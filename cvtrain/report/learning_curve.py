"""The picture of one learning curve: what was measured, the fit and how sure it is, the answers that it gives.

Knows figures, arrays and ready sentences; neither runs nor how anything was fitted.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cvtrain.report.curve_parts import (
    DPI,
    GREY,
    HALO,
    INK,
    WIDTH_INCHES,
    accuracy_axis,
    add_legend,
    add_words,
    draw_fit,
    draw_means,
    percents,
    share_of_width,
    shown_accuracies,
    size_range,
    sizes_axis,
    write_beside,
)
from cvtrain.report.curves import FittedCurve, MeasuredSizes, SizeMark
from cvtrain.report.frame import COLORS, drawing, wrapped

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_BLUE, _VERMILION, _GREEN = COLORS[:3]
_THIN_STYLES = ((0, (6, 2, 1, 2)), (0, (2, 1.2)), (0, (8, 3)))


@dataclass(frozen=True)
class TargetMark:
    """How many images an accuracy needs.

    Args:
        accuracy: The target, 0..1.
        words: The answer in words; stands at the line.
        per_class: Images per class that reach it; None where it is not reached.
        low: Lower end of the interval of `per_class`; None where there is none.
        high: Upper end; None where it is open.
    """

    accuracy: float
    words: str
    per_class: float | None = None
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class CurvePlot:
    """What the picture of one learning curve shows.

    Args:
        title: Model, data, protocol.
        caption: Replicates, test images and what else a reader must know.
        measured: The runs.
        fit: The curve through them; None where nothing was fitted. It may end with the measured sizes.
        chance_accuracy: 0..1, of a guess.
        target: An accuracy and the images that it needs.
        elbow: Where another doubling begins to gain little.
    """

    title: str
    caption: str
    measured: MeasuredSizes
    fit: FittedCurve | None = None
    chance_accuracy: float | None = None
    target: TargetMark | None = None
    elbow: SizeMark | None = None


def learning_curve(path: Path, plot: CurvePlot) -> None:
    """Draws accuracy against images per class: runs, means, the fit and its band, the target, the elbow.

    Args:
        path: The file; SVG where its name ends so, else PNG.
        plot: What is shown.
    """
    with drawing(path, width=WIDTH_INCHES, height=6.2, dpi=DPI) as figure:
        draw_learning_curve(figure, plot)


def draw_learning_curve(figure: Figure, plot: CurvePlot) -> None:
    """Draws what `learning_curve` writes onto an empty figure."""
    axes = figure.subplots()
    measured, fit = plot.measured, plot.fit
    sizes = measured.per_class
    low, high = size_range([measured], [fit])
    sizes_axis(axes, sizes, low=low, high=high)
    _limit_accuracy(axes, plot)
    entries = _draw_runs(axes, measured)
    if fit is not None:
        within, beyond = draw_fit(axes, fit, first=sizes[0], last=sizes[-1], color=_BLUE)
        parts = [(within, "fit, 95 % interval"), (beyond, "beyond what was measured")]
        entries += [(part, name) for part, name in parts if part is not None]
        entries += _draw_others(axes, fit)
    if plot.chance_accuracy is not None:
        line = axes.axhline(100 * plot.chance_accuracy, color=INK, linestyle=(0, (1, 2)), linewidth=1.2, zorder=1.5)
        where = " (below)" if 100 * plot.chance_accuracy < axes.get_ylim()[0] else ""
        entries.append((line, f"chance, {100 * plot.chance_accuracy:.3g} %{where}"))
    if plot.elbow is not None:
        bottom = 0.07 if plot.target is None else _bottom_of_words(axes, plot.target)
        _draw_elbow(axes, plot.elbow, accuracy=_accuracy_at(plot, plot.elbow.per_class), bottom=bottom)
    if plot.target is not None:
        _draw_target(axes, plot.target)
    axes.set(xlabel="images per class", ylabel="test accuracy (%)")
    add_words(figure, title=plot.title, caption=plot.caption)
    add_legend(axes, entries)


def _limit_accuracy(axes: Axes, plot: CurvePlot) -> None:
    """Holds the curve and the target; the level of chance where it is near; room for what is written."""
    shown = shown_accuracies(plot.measured, plot.fit)
    if plot.target is not None:
        shown.append(np.array([100 * plot.target.accuracy]))
    values = np.concatenate(shown)
    low, high = np.nanmin(values), np.nanmax(values)
    if plot.chance_accuracy is not None and low - 100 * plot.chance_accuracy < 1.5 * (high - low) + 2:
        shown.append(np.array([100 * plot.chance_accuracy]))  # from further up it would squeeze the curve flat
    edge = 0.08 * (high - low)  # this near to an edge, a target needs room for its words
    target = math.nan if plot.target is None else 100 * plot.target.accuracy
    above, below = (0.14 if target > high - edge else 0.06), (0.14 if target < low + edge else 0.06)
    accuracy_axis(axes, shown, above=above, below=below)
    if plot.elbow is not None:
        bottom, top = axes.get_ylim()
        height = (100 * _accuracy_at(plot, plot.elbow.per_class) - bottom) / (top - bottom)
        accuracy_axis(axes, shown, above=above, below=max(below, 0.06 + 1.4 * (0.3 - height)))


def _draw_runs(axes: Axes, measured: MeasuredSizes) -> list[tuple[Any, str]]:
    means = draw_means(axes, measured, color=_BLUE)
    bars = f", {measured.interval_name}" if np.isfinite(percents(measured.low)).any() else ""
    if all(len(runs) == 1 for runs in measured.accuracies):
        return [(means, f"one run at each size{bars}")]
    sizes = np.repeat(measured.per_class, [len(runs) for runs in measured.accuracies])
    style = {"s": 28, "color": _BLUE, "alpha": 0.32, "linewidths": 0, "zorder": 3}
    dots = axes.scatter(sizes, 100 * np.concatenate([np.asarray(runs) for runs in measured.accuracies]), **style)
    return [(dots, "single run"), (means, f"mean{bars}")]


def _draw_others(axes: Axes, fit: FittedCurve) -> list[tuple[Any, str]]:
    entries = []
    for i, (name, accuracies) in enumerate(fit.others.items()):
        style = {"color": GREY, "linewidth": 1.2, "linestyle": _THIN_STYLES[i % len(_THIN_STYLES)], "zorder": 3}
        (line,) = axes.plot(fit.per_class, percents(accuracies), **style)
        entries.append((line, name))
    return entries


def _accuracy_at(plot: CurvePlot, per_class: float) -> float:
    """0..1, on the fit or, where there is none, between the means."""
    curve = plot.fit
    if curve is None:
        means = plot.measured.means
        curve = FittedCurve(plot.measured.per_class, means, means, means)
    return curve.accuracy(per_class)


def _draw_elbow(axes: Axes, elbow: SizeMark, *, accuracy: float, bottom: float) -> None:
    """A diamond on the curve and a line from it down to its size."""
    axes.plot(
        [elbow.per_class] * 2, [axes.get_ylim()[0], 100 * accuracy], color=_GREEN, linewidth=1, linestyle=":", zorder=3
    )
    look = {"markersize": 11, "color": "none", "markeredgecolor": _GREEN, "markeredgewidth": 2, "zorder": 6}
    axes.plot([elbow.per_class], [100 * accuracy], marker="D", **look)
    write_beside(axes, elbow, color=_GREEN, bottom=bottom)


def _bottom_of_words(axes: Axes, target: TargetMark) -> float:
    """Above the line of a target whose own words stand below it, in the lower right; else near the axis."""
    low, high = axes.get_ylim()
    height = (100 * target.accuracy - low) / (high - low)
    return height + 0.03 if height < 0.4 and not _is_late(axes, target) else 0.07


def _is_late(axes: Axes, target: TargetMark) -> bool:
    """Whether the curve meets the target in the right half, or never."""
    return target.per_class is None or share_of_width(axes, target.per_class) > 0.5


def _draw_target(axes: Axes, target: TargetMark) -> None:
    """A line at the accuracy, and on the horizontal axis the images that it needs, with their interval."""
    level = 100 * target.accuracy
    axes.axhline(level, color=_VERMILION, linewidth=1.2, zorder=3.5)
    is_late = _is_late(axes, target)
    share = share_of_width(axes, target.per_class or math.inf)
    num_letters = int(95 * (share if is_late else 1 - share))
    axes.annotate(  # above the line before the curve meets it, or below it after: there nothing else is
        wrapped(target.words, num_letters=num_letters, num_lines=3),
        xy=(0.01 if is_late else 0.99, level),
        xycoords=("axes fraction", "data"),
        xytext=(0, 4 if is_late else -5),
        textcoords="offset points",
        ha="left" if is_late else "right",
        va="bottom" if is_late else "top",
        color=_VERMILION,
        fontsize=9.5,
        bbox=HALO,
        zorder=6,
    )
    _draw_images_needed(axes, target, top=level)


def _draw_images_needed(axes: Axes, target: TargetMark, *, top: float) -> None:
    """Marks on the horizontal axis the size that reaches the target, and its interval; an arrow where that is open."""
    left, right = axes.get_xlim()
    on_axis = {"transform": axes.get_xaxis_transform(), "color": _VERMILION, "clip_on": False, "zorder": 7}
    size, low, high = target.per_class, target.low, target.high or math.inf
    if size is not None and size <= right:
        axes.plot([size, size], [axes.get_ylim()[0], top], color=_VERMILION, linewidth=1, linestyle=":")
        axes.plot([size], [0.018], marker="v", markersize=8, **on_axis)
    if low is not None:
        bar = np.clip([low, high], left, right)
        axes.plot(bar, [0, 0], linewidth=5, alpha=0.5, solid_capstyle="butt", **on_axis)
    if (low is not None and high > right) or (size is not None and size > right):
        axes.plot([right], [0], marker=">", markersize=9, **on_axis)
