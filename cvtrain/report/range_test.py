"""The picture of a learning-rate range test: the loss against the learning rate, and where the suggestions lie.

Knows figures and words, not runs; matplotlib is imported when something is drawn.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from cvtrain.report.frame import COLORS, drawing


def range_test(
    path: Path,
    curves: Sequence[tuple[Sequence[float], Sequence[float], Sequence[float]]],
    *,
    suggestions: Mapping[str, float],
    title: str,
) -> None:
    """Draws the loss of every test against the lr, as it was measured and smoothed.

    Args:
        path: A PNG or SVG file.
        curves: Of each test the learning rates, the losses, and the smoothed losses.
        suggestions: What to call each, and its lr; drawn as upright lines.
        title: Stands above the picture.
    """
    with drawing(path, width=8.0, height=4.4) as figure:
        from matplotlib.ticker import FuncFormatter, NullFormatter

        axes = figure.subplots()
        for lrs, losses, smoothed in curves:
            axes.plot(lrs, losses, color=COLORS[6], linewidth=0.7, alpha=0.5)
            axes.plot(lrs, smoothed, color=COLORS[0])
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _position: f"{value:g}"))
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.set(xlabel="learning rate", ylabel="training loss of a batch", title=title)
        everything = np.concatenate([np.asarray(smoothed) for _, _, smoothed in curves])
        low, high = float(everything.min()), float(everything.max())
        room = max(high - low, 1e-9)
        axes.set_ylim(
            low - 0.1 * room, high + 0.25 * room
        )  # single losses may be huge: the smoothed ones set the scale
        for i, (words, lr) in enumerate(suggestions.items()):
            color = COLORS[1 + i]
            axes.axvline(lr, color=color, linewidth=1.4, linestyle=("-", "--", ":")[i % 3], label=f"{words}: {lr:.2g}")
        if suggestions:
            figure.legend(loc="outside lower center", ncols=len(suggestions))
