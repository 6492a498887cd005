"""The parts that pictures of learning curves are made of: means with error bars, fits with bands, the axis of sizes.

Knows curves as arrays and matplotlib's axes, neither runs nor how a curve was fitted.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from cvtrain.report.curves import FittedCurve, MeasuredSizes, SizeMark, interpolated
from cvtrain.report.frame import wrapped

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH_INCHES, DPI = 9.0, 130
HALO = {"boxstyle": "square,pad=0.15", "facecolor": "white", "edgecolor": "none", "alpha": 0.8}
_LEGEND_LETTERS, _HANDLE_LETTERS = 112, 9
"""Width of a legend, and of what stands before a label and behind it, in letters of its size."""

INK, GREY = "#333333", "#8A8A8A"
_LEAST_SPAN = 2.0
"""Of the vertical axis, in per cent: less would make noise look like a finding."""

_DIGIT_POINTS, _TICK_GAP_POINTS = 6.4, 9.0
"""Width of a digit of a tick label, and the least space between two labels, in points."""


# ------------------------------------------------------------------------------------------------------- drawing


def draw_means(axes: Axes, measured: MeasuredSizes, *, color: str, marker: str = "o") -> Any:
    """Draws the mean of each size with its error bar; returns what a legend shows of it."""
    means, low, high = 100 * measured.means, percents(measured.low), percents(measured.high)
    style = {"color": color, "marker": marker}
    return draw_points(axes, measured.per_class, means, low=low, high=high, **style)


def draw_points(
    axes: Axes, sizes: Sequence[float], values: np.ndarray, *, low: np.ndarray, high: np.ndarray, **style: Any
) -> Any:
    """Draws points with error bars, all in the axis' own units; a bar is left out where an end of it is NaN."""
    bars = np.nan_to_num(np.stack([values - low, high - values])).clip(min=0)
    look = {"markersize": 6.5, "markeredgecolor": "white", "markeredgewidth": 0.7, "linestyle": "none", "zorder": 5}
    return axes.errorbar(sizes, values, yerr=bars, capsize=3 if bars.any() else 0, elinewidth=1.6, **look, **style)


def draw_fit(axes: Axes, fit: FittedCurve, *, first: float, last: float, color: str) -> tuple[Any, Any]:
    """Draws a fit with its band: solid from the `first` to the `last` measured size, dashed and paler outside.

    Returns:
        What a legend shows of the part within, and of that outside; None where there is no such part.
    """
    within = _draw_span(axes, fit, max(first, fit.per_class[0]), last, color=color, linestyle="-", alpha=0.20)
    outside = _draw_span(axes, fit, last, fit.per_class[-1], color=color, linestyle=(0, (4, 2)), alpha=0.10)
    before = _draw_span(axes, fit, fit.per_class[0], first, color=color, linestyle=(0, (4, 2)), alpha=0.10)
    return within, outside or before


def _draw_span(
    axes: Axes, fit: FittedCurve, low: float, high: float, *, color: str, linestyle: Any, alpha: float
) -> tuple[Any, Any] | None:
    sizes = np.asarray(fit.per_class, dtype=float)
    high = min(high, sizes[-1])
    if not low < high:
        return None
    sizes = np.concatenate([[low], sizes[(sizes > low) & (sizes < high)], [high]])
    curve, bottom, top = (100 * interpolated(sizes, fit.per_class, v) for v in (fit.accuracies, fit.low, fit.high))
    band = axes.fill_between(sizes, bottom, top, color=color, alpha=alpha, linewidth=0, zorder=2)
    (line,) = axes.plot(sizes, curve, color=color, linestyle=linestyle, zorder=4)
    return band, line


def shown_accuracies(measured: MeasuredSizes, fit: FittedCurve | None) -> list[np.ndarray]:
    """All that the vertical axis must hold, in per cent; the other fits may leave it."""
    shown = [percents(runs) for runs in (*measured.accuracies, measured.low, measured.high)]
    return shown if fit is None else shown + [percents(v) for v in (fit.accuracies, fit.low, fit.high)]


def percents(values: Sequence[float | None]) -> np.ndarray:
    """float64, in per cent; NaN for None."""
    return 100 * np.array([math.nan if value is None else value for value in values], dtype=float)


# ---------------------------------------------------------------------------------------------------------- axes


def accuracy_axis(axes: Axes, shown: Sequence[np.ndarray], *, above: float = 0.06, below: float = 0.06) -> None:
    """Makes the vertical axis just hold the values shown, in per cent, with ticks in 0..100.

    Args:
        axes: The panel.
        shown: Arrays of any length, in per cent; what is not finite is left out.
        above: Room above all values, as a share of their range.
        below: The same below them.
    """
    from matplotlib.ticker import MaxNLocator

    values = np.concatenate([np.ravel(array) for array in shown])
    values = values[np.isfinite(values)].clip(0, 100)
    low, high = (values.min(), values.max()) if len(values) else (0.0, 100.0)
    spare = max(_LEAST_SPAN - (high - low), 0.0) / 2
    low, high = low - spare, high + spare
    bottom, top = low - below * (high - low), high + above * (high - low)
    axes.set_ylim(bottom, top)
    ticks = MaxNLocator(nbins=8, steps=[1, 2, 2.5, 5, 10]).tick_values(bottom, top)
    axes.set_yticks([tick for tick in ticks if max(bottom, 0) <= tick <= min(top, 100)])


def sizes_axis(axes: Axes, measured: Sequence[float], *, low: float, high: float) -> None:
    """Makes the horizontal axis logarithmic, with plain labels at the measured sizes, as many as there is room for.

    Args:
        axes: The panel.
        measured: Images per class that were measured; each has at least a small tick.
        low: Smallest size shown.
        high: Largest size shown.
    """
    from matplotlib.ticker import FixedFormatter, FixedLocator, NullFormatter

    margin = max(0.025 * math.log(high / low), 0.06) if high > low else math.log(2)
    left, right = low / math.exp(margin), high * math.exp(margin)
    axes.set(xscale="log", xlim=(left, right))
    width_points = 0.88 * 72 * axes.figure.get_figwidth()
    ticks = _labelled(measured, high, points_per_fold=width_points / math.log(right / left))
    axes.xaxis.set_major_locator(FixedLocator(ticks))
    axes.xaxis.set_major_formatter(FixedFormatter([count(tick) for tick in ticks]))
    axes.xaxis.set_minor_locator(FixedLocator(sorted(set(measured) - set(ticks))))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.tick_params(axis="x", which="minor", length=3.5, color=INK)


def size_range(measured: Sequence[MeasuredSizes], fits: Sequence[FittedCurve | None]) -> tuple[float, float]:
    """Smallest and largest size of all."""
    columns = [m.per_class for m in measured] + [fit.per_class for fit in fits if fit is not None]
    return float(min(c[0] for c in columns)), float(max(c[-1] for c in columns))


def share_of_width(axes: Axes, per_class: float) -> float:
    """Where a size is on the horizontal axis: 0 at the left edge or before it, 1 at the right."""
    low, high = axes.get_xlim()
    return math.log(min(max(per_class, low), high) / low) / math.log(high / low)


def _labelled(measured: Sequence[float], high: float, *, points_per_fold: float) -> list[float]:
    """The sizes that get a label: the ends of what was measured first, then round numbers, then the others."""
    powers = range(math.floor(math.log10(measured[-1])), math.ceil(math.log10(high)) + 1)
    beyond = [s * 10.0**p for p in powers for s in (1, 2, 5) if measured[-1] < s * 10.0**p <= high * (1 + 1e-9)]
    ends, inner = [measured[-1], measured[0]], sorted(measured[1:-1], key=_roundness)
    chosen: list[float] = []
    for size in (*ends, *inner, *beyond):
        needed = {other: _TICK_GAP_POINTS + _DIGIT_POINTS * (_width(size) + _width(other)) / 2 for other in chosen}
        if all(abs(math.log(size / other)) * points_per_fold >= room for other, room in needed.items()):
            chosen.append(size)
    return sorted(chosen)


def _roundness(size: float) -> int:
    """Smaller for rounder numbers: powers of ten, then 5 and 2, then the rest."""
    return {"1": 0, "5": 1, "2": 2}.get(f"{size:.12g}".rstrip("0"), 3)


def _width(size: float) -> float:
    """Of a label, in digits."""
    text = count(size)
    return len(text) - 0.5 * text.count(",")


def count(value: float) -> str:
    """A number as people write it: `10,000`."""
    return f"{value:,.10g}"


# --------------------------------------------------------------------------------------------------------- words


def add_words(figure: Figure, *, title: str, caption: str) -> None:
    """Puts a title above all panels and a caption below them."""
    num_letters = int(9.2 * figure.get_figwidth())
    top = wrapped(title, num_letters=num_letters, num_lines=2)
    figure.suptitle(top, x=0.012, ha="left", fontsize=12, fontweight="bold")
    bottom = wrapped(caption, num_letters=int(1.5 * num_letters), num_lines=3)
    figure.supxlabel(bottom, x=0.012, ha="left", fontsize=9, color="#555555")


def add_legend(axes: Axes, entries: Sequence[tuple[Any, str]]) -> None:
    """Puts the legend below the panel and its axis, where it covers no data."""
    from matplotlib.transforms import ScaledTranslation

    handles, names = zip(*entries, strict=True)
    labels = [wrapped(name, num_letters=48) for name in names]
    points = ScaledTranslation(0, -42 / 72, axes.figure.dpi_scale_trans)
    style = {"fontsize": 9.5, "handlelength": 2.6, "columnspacing": 1.8, "labelspacing": 0.5, "borderaxespad": 0}
    where = {"loc": "upper left", "bbox_to_anchor": (0, 0), "bbox_transform": axes.transAxes + points}
    axes.legend(handles, labels, ncols=_num_columns(labels), **where, **style)


def _num_columns(labels: Sequence[str]) -> int:
    """One row of few labels, two of more, or as few rows as there is room for."""
    widths = np.array([len(label) + _HANDLE_LETTERS for label in labels])
    most = len(labels) if len(labels) <= 4 else -(-len(labels) // 2)
    fitting = (n for n in range(most, 1, -1) if sum(max(c) for c in np.array_split(widths, n)) <= _LEGEND_LETTERS)
    return next(fitting, 1)


def write_beside(axes: Axes, mark: SizeMark, *, color: str, bottom: float = 0.07) -> None:
    """Writes the words of a mark beside its size, to the right where there is room: below a curve that rises.

    Those of a size outside of the axis stand at its edge.

    Args:
        axes: The panel.
        mark: Its words are broken into lines that fit.
        color: Of the words.
        bottom: Where the lowest line stands, as a share of the panel's height.
    """
    left, right = axes.get_xlim()
    share = share_of_width(axes, mark.per_class)
    is_right = share < 0.8
    room = int(100 * ((1 - share) if is_right else share))
    axes.annotate(
        wrapped(mark.words, num_letters=min(room, 36), num_lines=4),
        xy=(min(max(mark.per_class, left), right), bottom),
        xycoords=("data", "axes fraction"),
        xytext=(6 if is_right else -6, 0),
        textcoords="offset points",
        ha="left" if is_right else "right",
        va="bottom",
        color=color,
        fontsize=9.5,
        bbox=HALO,
        zorder=6,
    )
