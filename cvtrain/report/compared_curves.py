"""The picture of several learning curves: where they cross, and how they differ size by size.

Knows figures, arrays and ready sentences; neither runs nor how anything was fitted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cvtrain.report.curve_parts import (
    DPI,
    INK,
    WIDTH_INCHES,
    accuracy_axis,
    add_legend,
    add_words,
    draw_fit,
    draw_means,
    draw_points,
    percents,
    shown_accuracies,
    size_range,
    sizes_axis,
    write_beside,
)
from cvtrain.report.curves import FittedCurve, MeasuredSizes, SizeMark
from cvtrain.report.frame import COLORS, MARKERS, drawing, wrapped

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MAX_CURVES = 6


@dataclass(frozen=True)
class NamedCurve:
    """One of several curves.

    Args:
        name: As the legend shows it.
        measured: Its runs.
        fit: The curve through them; None where nothing was fitted.
    """

    name: str
    measured: MeasuredSizes
    fit: FittedCurve | None = None


@dataclass(frozen=True)
class PairedDifferences:
    """How much better one curve is than another, size by size.

    Args:
        per_class: Images per class `(k,)`, rising.
        means: `(k,)`, difference of accuracies, -1..1.
        low: `(k,)`, lower end of the interval of each; None where there is none, as with one pair.
        high: `(k,)`, upper end.
    """

    per_class: Sequence[float]
    means: Sequence[float]
    low: Sequence[float | None]
    high: Sequence[float | None]


@dataclass(frozen=True)
class ComparedCurvesPlot:
    """What the picture of several learning curves shows.

    Args:
        title: Data and protocol.
        caption: Replicates, test images and what else a reader must know.
        curves: Two to `MAX_CURVES`.
        differences: For the lower panel, which is left out without any. Where there are several, each is drawn in the
            colour of a curve: the first in that of the second curve, and so on.
        differences_title: What the lower panel shows, e.g. `resnet18 - lenet, paired: mean and 95 % t interval`.
        crossing: Where the first two curves cross.

    Raises:
        ValueError: There are too few or too many curves, or more differences than curves after the first.
    """

    title: str
    caption: str
    curves: Sequence[NamedCurve]
    differences: Sequence[PairedDifferences] = ()
    differences_title: str = ""
    crossing: SizeMark | None = None

    def __post_init__(self) -> None:
        if not 2 <= len(self.curves) <= MAX_CURVES:
            raise ValueError(f"2..{MAX_CURVES} curves fit in one picture, not {len(self.curves)}")
        if len(self.differences) >= len(self.curves):
            raise ValueError(f"{len(self.differences)} differences of {len(self.curves)} curves")


def compared_curves(path: Path, plot: ComparedCurvesPlot) -> None:
    """Draws accuracy against images per class of each curve, and below it the paired differences.

    Args:
        path: The file; SVG where its name ends so, else PNG.
        plot: What is shown.
    """
    with drawing(path, width=WIDTH_INCHES, height=7.6 if plot.differences else 6.2, dpi=DPI) as figure:
        draw_compared_curves(figure, plot)


def draw_compared_curves(figure: Figure, plot: ComparedCurvesPlot) -> None:
    """Draws what `compared_curves` writes onto an empty figure."""
    ratios = [3, 1.3] if plot.differences else [1]
    panels = figure.subplots(len(ratios), 1, sharex=True, squeeze=False, height_ratios=ratios)[:, 0]
    top, bottom = panels[0], panels[-1]
    low, high = size_range([curve.measured for curve in plot.curves], [curve.fit for curve in plot.curves])
    sizes = sorted({size for curve in plot.curves for size in curve.measured.per_class})
    sizes_axis(top, sizes, low=low, high=high)
    shown = [values for curve in plot.curves for values in shown_accuracies(curve.measured, curve.fit)]
    accuracy_axis(top, shown)
    entries = [*_draw_curves(top, plot.curves), *_explanations(plot.curves)]
    top.set_ylabel("test accuracy (%)")
    if plot.differences:
        _draw_differences(bottom, plot.differences)
        words = wrapped(plot.differences_title, num_letters=100)
        bottom.set_title(words, fontsize=10, fontweight="normal", color=INK)
    if plot.crossing is not None:
        _draw_crossing(panels, plot.crossing)
    bottom.set_xlabel("images per class")
    add_words(figure, title=plot.title, caption=plot.caption)
    add_legend(bottom, entries)


def _draw_curves(axes: Axes, curves: Sequence[NamedCurve]) -> list[tuple[Any, str]]:
    """Means and fits, a colour and a marker each; returns what the legend shows."""
    entries = []
    for curve, color, marker in zip(curves, COLORS, MARKERS, strict=False):
        sizes = curve.measured.per_class
        means = draw_means(axes, curve.measured, color=color, marker=marker)
        shown = (means,)
        if curve.fit is not None:
            within, _ = draw_fit(axes, curve.fit, first=sizes[0], last=sizes[-1], color=color)
            shown = (*(within or ()), means)
        entries.append((shown, curve.name))
    return entries


def _explanations(curves: Sequence[NamedCurve]) -> list[tuple[Any, str]]:
    """What bars, bands and dashes mean, for the legend; only what the picture has."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    entries: list[tuple[Any, str]] = []
    intervals = {c.measured.interval_name: None for c in curves if np.isfinite(percents(c.measured.low)).any()}
    if intervals:
        bar = Line2D([], [], color=INK, linestyle="none", marker="|", markersize=11, markeredgewidth=1.6)
        entries.append((bar, " or ".join(intervals)))
    fitted = [(curve.fit, curve.measured.per_class[-1]) for curve in curves if curve.fit is not None]
    if fitted:
        entries.append((Patch(color=INK, alpha=0.2, linewidth=0), "95 % interval of the fit"))
    if any(fit.per_class[-1] > last for fit, last in fitted):
        entries.append((Line2D([], [], color=INK, linestyle=(0, (4, 2))), "beyond what was measured"))
    return entries


def _draw_differences(axes: Axes, differences: Sequence[PairedDifferences]) -> None:
    """Points with error bars around a line at zero; those of several pairs beside one another."""
    from matplotlib.ticker import MaxNLocator

    axes.axhline(0, color=INK, linewidth=1.2, zorder=2)
    left, right = axes.get_xlim()
    for i, pair in enumerate(differences):
        color, marker = (COLORS[i + 1], MARKERS[i + 1]) if len(differences) > 1 else (INK, MARKERS[0])
        aside = (right / left) ** (0.008 * (i - (len(differences) - 1) / 2))
        sizes = aside * np.asarray(pair.per_class, dtype=float)
        low, high = percents(pair.low), percents(pair.high)
        draw_points(axes, sizes, percents(pair.means), low=low, high=high, color=color, marker=marker)
    axes.margins(y=0.12)
    axes.yaxis.set_major_locator(MaxNLocator(nbins=5, steps=[1, 2, 5, 10]))
    axes.set_ylabel("difference\n(points)")


def _draw_crossing(panels: Sequence[Axes], crossing: SizeMark) -> None:
    """A line through all panels, its interval a grey stripe; the words at the bottom, below rising curves."""
    low, high = panels[0].get_xlim()
    for axes in panels:
        axes.axvspan(crossing.low or low, crossing.high or high, color=INK, alpha=0.08, linewidth=0, zorder=0)
        axes.axvline(crossing.per_class, color=INK, linewidth=1, linestyle=":", zorder=1)
    write_beside(panels[0], crossing, color=INK)
