"""The learning curves of many runs, beside each other: run by run, and as the mean of the runs of an arm.

Knows metrics.csv and charts; not why the runs are compared.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from cvtrain.outputs import RunDir
from cvtrain.report.charts import Axis, Series, line_chart

if TYPE_CHECKING:
    from markupsafe import Markup

MAX_BEST, MAX_WORST = 30, 5
"""Of more runs than these the curves of the best and of the worst are shown."""

MAX_ARMS = 30

MAX_BANDS = 6
"""Of more arms the bands would hide each other."""

_WIDE = 100.0
"""From so many times the smallest loss on the axis is logarithmic."""

Measure = Literal["val_accuracy", "val_loss", "train_accuracy", "train_loss"]
COLUMNS: tuple[Measure, ...] = ("val_accuracy", "val_loss", "train_accuracy", "train_loss")
_LABELS = {
    "val_accuracy": "validation accuracy",
    "val_loss": "validation loss",
    "train_accuracy": "training accuracy",
    "train_loss": "training loss",
}


@dataclass(frozen=True)
class RunCurve:
    """What a run measured while it was trained.

    Args:
        name: Of the run.
        arm: Name of those that it is averaged with.
        rank: Of its merit; greater is better.
        epochs: At which it was evaluated, rising.
        values: By measure, as many each; NaN where there is none.
    """

    name: str
    arm: str
    rank: float
    epochs: Sequence[float]
    values: dict[Measure, list[float]]


@dataclass(frozen=True)
class CurveCharts:
    """The drawings of the curves of many runs.

    Args:
        by_arm: Means over the runs of each arm; nothing where each arm has one run.
        by_run: Of single runs.
        words: Which runs are shown where not all are.
        has_bands: Whether the means have bands.
    """

    by_arm: tuple[Markup, ...]
    by_run: tuple[Markup, ...]
    words: tuple[str, ...]
    has_bands: bool = False


def read_curve(run_dir: Path, *, name: str, arm: str, rank: float) -> RunCurve | None:
    """Reads the curve of a run; None where there is none, or none that can be read."""
    try:
        with open(RunDir(run_dir).metrics_path, encoding="utf-8", newline="") as file:
            header, *rows = csv.reader(file)
        columns = dict(zip(header, zip(*(row for row in rows if len(row) == len(header)), strict=True), strict=False))
        epochs = [_number(word) for word in columns["epoch"]]
        values = {measure: [_number(word) for word in columns[measure]] for measure in COLUMNS}
    except (OSError, ValueError, KeyError, csv.Error):
        return None
    return RunCurve(name, arm, rank, epochs, values)


def _number(word: str) -> float:
    return float(word) if word else math.nan


def curve_charts(curves: Sequence[RunCurve]) -> CurveCharts:
    """Draws accuracy and loss against the epoch: of validation images where there are any, else of training images."""
    has_validation = any(math.isfinite(value) for curve in curves for value in curve.values["val_accuracy"])
    measures: tuple[Measure, ...] = COLUMNS[:2] if has_validation else COLUMNS[2:]
    ranked = sorted(curves, key=lambda curve: -curve.rank)
    arms: dict[str, list[RunCurve]] = {}
    for curve in ranked:
        arms.setdefault(curve.arm, []).append(curve)
    by_arm = arms if len(arms) < len(curves) else {}
    shown = ranked if len(ranked) <= MAX_BEST + MAX_WORST else [*ranked[:MAX_BEST], *ranked[-MAX_WORST:]]
    words = []
    if len(by_arm) > MAX_ARMS:
        words.append(f"Of {len(by_arm):,} arms the {MAX_ARMS} with the best runs are shown.")
    if len(shown) < len(ranked):
        words.append(
            f"Of {len(ranked):,} runs the best {MAX_BEST} and the worst {MAX_WORST} by validation accuracy are shown."
        )
    return CurveCharts(
        by_arm=tuple(_chart_of_arms(by_arm, measure) for measure in measures) if by_arm else (),
        by_run=tuple(_chart_of_runs(shown, measure, arms=list(by_arm)) for measure in measures) if shown else (),
        words=tuple(words),
        has_bands=len(by_arm) <= MAX_BANDS,
    )


def _chart_of_runs(curves: Sequence[RunCurve], measure: Measure, *, arms: Sequence[str]) -> Markup:
    """A line for each run, in the colour of its arm where arms have several runs."""
    series = [
        Series(curve.name, curve.epochs, curve.values[measure], color=arms.index(curve.arm) if arms else None)
        for curve in curves
    ]
    return _chart(series, measure, of="each run")


def _chart_of_arms(arms: Mapping[str, Sequence[RunCurve]], measure: Measure) -> Markup:
    has_bands = len(arms) <= MAX_BANDS
    series = [_mean_series(arm, own, measure, has_band=has_bands) for arm, own in list(arms.items())[:MAX_ARMS]]
    return _chart(series, measure, of="each arm")


def _mean_series(arm: str, curves: Sequence[RunCurve], measure: Measure, *, has_band: bool) -> Series:
    """The mean of the runs at each epoch that all of them reached; its band ends at the least and the greatest."""
    by_epoch: dict[float, list[float]] = {}
    for curve in curves:
        for epoch, value in zip(curve.epochs, curve.values[measure], strict=True):
            by_epoch.setdefault(epoch, []).append(value)
    whole = sorted((epoch, values) for epoch, values in by_epoch.items() if len(values) == len(curves))
    return Series(
        f"{arm} (n = {len(curves)})",
        [epoch for epoch, _ in whole],
        [sum(values) / len(values) for _, values in whole],
        low=[min(values) for _, values in whole] if has_band else None,
        high=[max(values) for _, values in whole] if has_band else None,
    )


def _chart(series: Sequence[Series], measure: Measure, *, of: str) -> Markup:
    label = _LABELS[measure]
    y = Axis(label, "percent") if measure.endswith("accuracy") else Axis(label, log=_is_wide(series))
    return line_chart(series, title=f"{label.capitalize()} of {of}", x=Axis("epoch"), y=y)


def _is_wide(series: Sequence[Series]) -> bool:
    """Whether values differ so much that on a plain axis only the largest would be seen."""
    values = [value for each in series for value in each.y if value is not None and math.isfinite(value)]
    return bool(values) and min(values) > 0 and max(values) > _WIDE * min(values)
