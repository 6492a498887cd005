"""The drawings: a decision boundary, training curves, confusions, calibration, accuracy against learning rate.

Knows figures and arrays, neither runs nor models; matplotlib is imported when something is drawn.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import cycle, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cvtrain.analysis.calibration import CalibrationResult
from cvtrain.report.frame import COLORS, MARKERS, drawing, wrapped

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_GRID = 240
_MAX_POINTS = 5_000


def _colors(count: int) -> list[str]:
    return list(islice(cycle(COLORS), count))


# ------------------------------------------------------------------------------------------- decision boundary


def decision_boundary(
    path: Path,
    points: np.ndarray,
    labels: np.ndarray,
    *,
    probabilities_fn: Callable[[np.ndarray], np.ndarray],
    class_names: Sequence[str],
    title: str,
) -> None:
    """Draws points of the plane over the regions that a model gives to each class, paler where it is less sure.

    Args:
        path: The PNG file.
        points: Numbers `(N, 2)`; of very many a part is shown.
        labels: Whole numbers `(N,)`, the true class of each point.
        probabilities_fn: Maps points `(M, 2)` to the probability of each class, `(M, K)`.
        class_names: K names.
        title: Stands above the picture.
    """
    extent = _extent(points)
    with drawing(path, width=7.0, height=6.4) as figure:
        axes = figure.subplots()
        _regions(axes, extent, probabilities_fn, len(class_names))
        shown = np.arange(len(points))[:: -(-len(points) // _MAX_POINTS)]
        area = 14 if len(shown) < 1500 else 9
        colors = _colors(len(class_names))
        for label, (name, color) in enumerate(zip(class_names, colors, strict=True)):
            own = shown[labels[shown] == label]
            marker = MARKERS[label // len(COLORS) % len(MARKERS)]
            style = {"s": area, "marker": marker, "color": color, "edgecolors": "white", "linewidths": 0.3}
            axes.scatter(points[own, 0], points[own, 1], label=name, zorder=3, **style)
        axes.set(xlim=extent[:2], ylim=extent[2:], aspect="equal", xlabel="x", ylabel="y", title=title)
        axes.grid(visible=False)
        columns = min(len(class_names), 6)
        figure.legend(loc="outside lower center", ncols=columns, markerscale=2.5, handletextpad=0.2, columnspacing=1.5)


def _extent(points: np.ndarray) -> tuple[float, float, float, float]:
    """Left, right, bottom, top: a square around all points, with a margin."""
    low, high = points.min(0), points.max(0)
    middle, half = (low + high) / 2, 0.56 * max(float((high - low).max()), 1e-6)
    return middle[0] - half, middle[0] + half, middle[1] - half, middle[1] + half


def _regions(
    axes: Axes, extent: tuple[float, ...], probabilities_fn: Callable[[np.ndarray], np.ndarray], num_classes: int
) -> None:
    """Colours every place by its most probable class, and draws the lines between the classes."""
    from matplotlib.colors import to_rgb

    x, y = np.linspace(*extent[:2], _GRID), np.linspace(*extent[2:], _GRID)
    grid = np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2)
    probabilities = np.asarray(probabilities_fn(grid), dtype=float)
    winner = probabilities.argmax(1).reshape(_GRID, _GRID)
    # From 0, no class before another, to 1, certain; the palest region can still be told from white.
    surplus = (probabilities.max(1) - 1 / num_classes) / (1 - 1 / num_classes)
    strength = (0.12 + 0.38 * surplus.clip(0, 1)).reshape(_GRID, _GRID, 1)
    colors = np.array([to_rgb(color) for color in _colors(num_classes)])[winner]
    image = 1 - strength * (1 - colors)
    axes.imshow(image, extent=extent, origin="lower", interpolation="bilinear", aspect="equal", zorder=0)
    for label in np.unique(winner)[1:]:  # how far it is before, or behind, the best of the others: smooth at 0
        lead = probabilities[:, label] - np.delete(probabilities, label, axis=1).max(1)
        axes.contour(x, y, lead.reshape(_GRID, _GRID), levels=[0], colors="#333333", linewidths=1, zorder=2)


# --------------------------------------------------------------------------------------------- training curves


def training_curves(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Draws loss and accuracy of training and validation against the epoch, as a PNG and an SVG file.

    Args:
        path: The PNG file.
        rows: Of metrics.csv; of each the keys `epoch`, `train_loss`, `train_accuracy`, `val_loss` and `val_accuracy`,
            as numbers, as text, or empty where there is none.
    """
    epochs = _column(rows, "epoch")
    with drawing(path, width=9.0, height=4.0, also_svg=True, layout="none") as figure:
        from matplotlib.ticker import MaxNLocator

        loss, accuracy = figure.subplots(1, 2)
        figure.subplots_adjust(left=0.07, right=0.98, top=0.92, bottom=0.22, wspace=0.16)
        for axes, figure_name, scale in ((loss, "loss", 1), (accuracy, "accuracy", 100)):
            for color, split, name in ((COLORS[0], "train", "training"), (COLORS[1], "val", "validation")):
                values = scale * _column(rows, f"{split}_{figure_name}")
                there = np.isfinite(values)
                if there.any():
                    marker = MARKERS[0] if there.sum() <= 40 else None
                    axes.plot(epochs[there], values[there], color=color, label=name, marker=marker, markersize=3.5)
            axes.set(xlabel="epoch", title=figure_name if scale == 1 else f"{figure_name} (%)")
            axes.margins(x=0.02)
            axes.xaxis.set_major_locator(MaxNLocator(integer=bool((epochs % 1 == 0).all()), nbins=7))
        losses = np.concatenate([_column(rows, f"{split}_loss") for split in ("train", "val")])
        losses = losses[np.isfinite(losses)]
        if len(losses) and losses.min() > 0 and losses.max() > 30 * losses.min():
            _log_axis(loss, "y")
        figure.legend(*loss.get_legend_handles_labels(), loc="lower center", ncols=2)


def _log_axis(axes: Axes, which: str) -> None:
    """Makes an axis logarithmic, with plain numbers at its powers of ten, or at more where it spans few of them."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    axes.set(**{f"{which}scale": "log"})
    low, high = axes.dataLim.intervalx if which == "x" else axes.dataLim.intervaly
    steps = (1.0,) if high > 100 * low else (1.0, 2.0, 5.0)
    axis = axes.xaxis if which == "x" else axes.yaxis
    axis.set_major_locator(LogLocator(subs=steps))
    axis.set_major_formatter(FuncFormatter(lambda value, _position: f"{value:g}"))
    axis.set_minor_locator(NullLocator())


def _column(rows: Sequence[Mapping[str, Any]], key: str) -> np.ndarray:
    """float64 `(rows,)`; NaN where there is no number."""
    return np.array([float("nan") if row.get(key) in ("", None) else float(row[key]) for row in rows])


# --------------------------------------------------------------------------------------- confusions, calibration


def confusion_matrix(path: Path, counts: Sequence[Sequence[int]], class_names: Sequence[str], *, title: str) -> None:
    """Draws how many images of each class were called what, as a PNG and an SVG file.

    Colours show shares of a row; of up to 20 classes the counts are written, of up to 40 the names.

    Args:
        path: The PNG file.
        counts: `(K, K)`: a row per true class, a column per prediction.
        class_names: K names.
        title: Stands above the picture.
    """
    matrix = np.asarray(counts, dtype=float)
    size, num_images = len(matrix), matrix.sum(1, keepdims=True)
    shares = np.divide(matrix, num_images, out=np.zeros_like(matrix), where=num_images > 0)
    names = [wrapped(name, num_letters=16) for name in class_names] if size <= 40 else []
    margin = 0.8 + 0.08 * max(map(len, names), default=0)  # inches; a letter takes about that
    side = margin + 0.5 + min(max(2.5, 0.42 * size), 9.0)
    with drawing(path, width=side, height=side, also_svg=True, layout="none") as figure:
        axes = figure.subplots()
        figure.subplots_adjust(
            left=margin / side, right=1 - 0.1 / side, top=1 - 0.4 / side, bottom=(margin - 0.1) / side
        )
        axes.imshow(np.sqrt(shares), cmap="Blues", vmin=0, vmax=1)  # the root lets rare confusions be seen
        axes.grid(visible=False)
        axes.set(xlabel="called", ylabel="true class", title=title)
        if names:
            axes.set_xticks(range(size), names, rotation=45 if max(map(len, names)) > 2 else 0, ha="right")
            axes.set_yticks(range(size), names)
        if size <= 20:
            for row, column in zip(*matrix.nonzero(), strict=True):
                color = "white" if shares[row, column] > 0.3 else "#222222"
                words = f"{matrix[row, column]:.0f}"
                axes.text(column, row, words, ha="center", va="center", color=color, fontsize=9)


def calibration(path: Path, result: CalibrationResult, *, title: str) -> None:
    """Draws the share of right answers against the probability that was said, as a PNG and an SVG file.

    Args:
        path: The PNG file.
        result: Of predictions.
        title: Stands above the picture.
    """
    bins = [each for each in result.bins if each.num_images]
    with drawing(path, width=5.0, height=5.4, also_svg=True, layout="none") as figure:
        above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
        figure.subplots_adjust(left=0.15, right=0.96, top=0.93, bottom=0.1, hspace=0.12)
        above.plot([0, 100], [0, 100], color="#7F7F7F", linestyle="--", linewidth=1, label="as it should be")
        confidence, accuracy = (100 * np.array([getattr(each, key) for each in bins]) for key in _BIN_FIGURES)
        above.plot(confidence, accuracy, color=COLORS[0], marker=MARKERS[0], markersize=5, label="measured")
        above.set(ylabel="right answers (%)", title=title, ylim=(-2, 102))
        above.legend(loc="upper left")
        widths = [100 * (each.high - each.low) for each in bins]
        lows = [100 * each.low for each in bins]
        below.bar(lows, [each.num_images for each in bins], width=widths, align="edge", color=COLORS[0], linewidth=0)
        below.set(xlabel="probability of the class that was said (%)", ylabel="images", xlim=(-2, 102))


_BIN_FIGURES = ("confidence", "accuracy")


# ---------------------------------------------------------------------------------------------- learning rates


def lr_grid(path: Path, series: Mapping[str, Sequence[tuple[float, float, float]]], *, metric: str, title: str) -> None:
    """Draws a figure of merit against the learning rate, a line with a band of one standard deviation per arm.

    Args:
        path: The PNG file.
        series: For each arm, by name, its `(lr, mean, sd)`; `mean` and `sd` are 0..1 where `metric` is an accuracy.
        metric: What the vertical axis shows, e.g. `test accuracy`.
        title: Stands above the picture.
    """
    scale, unit = (100, " (%)") if "accuracy" in metric else (1, "")
    with drawing(path, width=8.0, height=4.8) as figure:
        axes = figure.subplots()
        ends = []
        for i, (name, triples) in enumerate(series.items()):
            lr, mean, sd = np.array(sorted(triples), dtype=float).reshape(-1, 3).T
            mean, sd, color = scale * mean, scale * np.nan_to_num(sd), COLORS[i % len(COLORS)]
            axes.fill_between(lr, mean - sd, mean + sd, color=color, alpha=0.15, linewidth=0)
            axes.plot(lr, mean, color=color, marker=MARKERS[i % len(MARKERS)], markersize=5.5)
            if len(lr):
                ends.append((name, color, float(lr[-1]), float(mean[-1])))
        _log_axis(axes, "x")
        axes.set(xlabel="learning rate", ylabel=f"{metric.replace('_', ' ')}{unit}", title=title)
        if scale == 100:
            low, high = axes.get_ylim()
            axes.set_ylim(max(low, -1), min(high, 101))
        _name_lines(axes, ends)


def _name_lines(axes: Axes, ends: Sequence[tuple[str, str, float, float]]) -> None:
    """Writes each name beside the right end of its line, moved up or down until none covers another."""
    if not ends:
        return
    low, high = axes.get_ylim()
    gap, right = 0.055 * (high - low), max(end[2] for end in ends)
    ordered = sorted((e for e in ends if math.isfinite(e[3])), key=lambda end: end[3])
    places: list[float] = []
    for end in ordered:
        places.append(max(end[3], places[-1] + gap) if places else end[3])
    excess = max(places[-1] - (high - gap / 2), 0) if places else 0
    for i in reversed(range(len(places))):  # back below the top edge, the lower ones as far as they must
        ceiling = places[i + 1] - gap if i + 1 < len(places) else places[i] - excess
        places[i] = min(places[i], ceiling)
    for (name, color, lr, mean), place in zip(ordered, places, strict=True):
        axes.annotate(
            name,
            xy=(lr, mean),
            xytext=(1.02, place),
            textcoords=("axes fraction", "data"),
            color=color,
            fontweight="bold",
            va="center",
            annotation_clip=False,
            arrowprops={"arrowstyle": "-", "color": color, "linewidth": 0.8, "alpha": 0.6} if lr < right else None,
        )
