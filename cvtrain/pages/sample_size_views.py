"""What the page of a sample-size study shows of its figures: charts and tables.

Knows rows, the curve as plain values, and how figures are worded; neither folders nor how a curve was fitted.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from statistics import fmean
from typing import TYPE_CHECKING, Any

from cvtrain.analysis.comparison import mean_interval
from cvtrain.config import Config
from cvtrain.pages.curve_chart import curve_chart
from cvtrain.pages.sample_size_files import StudyFiles, Training
from cvtrain.pages.sample_size_words import FORMS
from cvtrain.report.charts import Axis, Mark, Series, line_chart, point_chart
from cvtrain.report.compared_curves import NamedCurve
from cvtrain.report.curves import FittedCurve, MeasuredSizes, SizeMark
from cvtrain.report.learning_curve import TargetMark
from cvtrain.report.page_parts import Cell, Column
from cvtrain.report.words import interval, number, percent
from cvtrain.sample_size.sentences import points
from cvtrain.sample_size.table import Row

if TYPE_CHECKING:
    from markupsafe import Markup

Table = tuple[Sequence[Column], list[list[Any]]]
_SIZE = Axis("images per class", "count", log=True)


def by_size(rows: Sequence[Row]) -> dict[int, list[Row]]:
    """The rows of each size, smallest first."""
    return {size: [row for row in rows if row.per_class == size] for size in sorted({row.per_class for row in rows})}


# -------------------------------------------------------------------------------------------------------- charts


def named_curve(name: str, curve: Mapping[str, Any]) -> NamedCurve | None:
    """What learning_curve.json tells of a curve, for `curve_chart`; None where nothing was measured."""
    measured, fit = curve.get("points") or (), curve.get("curve")
    if not measured:
        return None
    return NamedCurve(
        name,
        MeasuredSizes(
            per_class=[point["per_class"] for point in measured],
            accuracies=[list(point["accuracies"].values()) for point in measured],
            low=[point["low"] for point in measured],
            high=[point["high"] for point in measured],
            interval_name="95 % interval",
        ),
        fit and FittedCurve(fit["per_class"], fit["accuracy"], fit["low"], fit["high"], fit["others"]),
    )


def curve_of(files: StudyFiles) -> Markup | None:
    """The learning curve with everything that it answers."""
    curve = files.curve
    named = named_curve("", curve)
    if named is None:
        return None
    target, elbow = curve.get("target"), curve.get("elbow")
    return curve_chart(
        [named],
        title="Test accuracy by images per class",
        target=target and TargetMark(target["target"], "", target["per_class"], target["low"], target["high"]),
        elbow=SizeMark(elbow["per_class"], "", elbow["low"], elbow["high"]) if elbow and elbow["per_class"] else None,
        chance_accuracy=curve.get("chance_accuracy"),
    )


def accuracies_chart(rows: Sequence[Row]) -> Markup:
    """Training, validation and test accuracy by size, each the mean of its trainings with a t interval."""
    columns: dict[str, Callable[[Row], float]] = {
        "training": lambda row: row.train_accuracy,
        "validation": lambda row: row.val_accuracy,
        "test": lambda row: row.test_accuracy,
    }
    sizes, series = by_size(rows), []
    for color, (name, value) in zip((0, 1, 2), columns.items(), strict=True):
        means = [_mean([value(row) for row in some]) for some in sizes.values()]
        y, low, high = ([getattr(mean, end) if mean else None for mean in means] for end in ("mean", "low", "high"))
        low, high = ([_clipped(end) for end in ends] for ends in (low, high))
        series.append(Series(name, list(sizes), y, low=low, high=high, drawn="both", color=color))
    return line_chart(series, title="Accuracy of each split", x=_SIZE, y=Axis("accuracy", "percent"))


def _mean(values: Sequence[float]) -> Any:
    """None where a figure is missing."""
    return mean_interval(values) if all(map(math.isfinite, values)) else None


def _clipped(share: float | None) -> float | None:
    return None if share is None else min(max(share, 0.0), 1.0)


def cost_charts(rows: Sequence[Row]) -> list[Markup]:
    """Seconds and steps of a training by size; the band reaches from the least to the most."""
    columns: dict[str, tuple[Callable[[Row], float], Axis]] = {
        "Time of a training": (lambda row: row.seconds, Axis("seconds (log)", "seconds", log=True)),
        "Steps of a training": (lambda row: row.steps, Axis("steps (log)", "count", log=True)),
    }
    sizes, charts = by_size(rows), []
    for title, (value, axis) in columns.items():
        values = [[value(row) for row in some] for some in sizes.values()]
        series = Series(
            "mean, least and most",
            list(sizes),
            [fmean(some) for some in values],
            low=[min(some) for some in values],
            high=[max(some) for some in values],
            drawn="both",
        )
        charts.append(line_chart([series], title=title, x=_SIZE, y=axis))
    return charts


def gains_chart(curve: Mapping[str, Any]) -> Markup | None:
    """What each step between sizes gives per doubling, measured and by the curve."""
    gains, elbow = curve.get("gains") or [], curve.get("elbow") or {}
    if not gains:
        return None
    names = [f"{gain['per_class']:,} to {gain['next_per_class']:,}" for gain in gains]
    measured = [gain["measured"] or {} for gain in gains]
    columns = {end: [mean.get(end) for mean in measured] for end in ("mean", "low", "high")}
    places = list(map(float, range(len(gains))))
    pairs = [f"{mean['num_values']} pairs" if mean else "" for mean in measured]
    series = [
        Series("measured", places, columns["mean"], low=columns["low"], high=columns["high"], words=pairs, color=0),
        Series("by the fit", places, [gain["fitted"] for gain in gains], color=1),
    ]
    marks = [Mark(elbow["gain"], f"pays: {points(elbow['gain'])} points", axis="y")] if elbow.get("gain") else []
    return point_chart(
        series,
        title="Gain of a doubling",
        x=Axis("images per class", names=names),
        y=Axis("accuracy gained per doubling", "percent"),
        marks=marks,
    )


# -------------------------------------------------------------------------------------------------------- tables


def size_table(rows: Sequence[Row]) -> Table:
    """A row per size."""
    columns = (
        Column("per class", "count", "Labelled images of each class, those that validate included."),
        Column("n", "count", "Trainings."),
        Column("test [95 %]", "percent", "Mean over trainings with its t interval."),
        Column("sd", "number", "Standard deviation over trainings, in points."),
        Column("validation", "percent", "Mean accuracy."),
        Column("training", "percent", "Mean accuracy on images as they were trained on."),
        Column("steps", "count", "Mean."),
        Column("early", "count", "Trainings that early stopping ended."),
        Column("time", "seconds", "Mean of a training."),
        Column("train", "count", "Images trained on, of all classes."),
        Column("val", "count", "Images that validate, of all classes."),
    )
    return columns, [_size_row(size, some) for size, some in by_size(rows).items()]


def _size_row(size: int, rows: Sequence[Row]) -> list[Any]:
    test = mean_interval([row.test_accuracy for row in rows])
    train = _mean([row.train_accuracy for row in rows])
    return [
        size,
        len(rows),
        Cell(interval(test.mean, _clipped(test.low), _clipped(test.high)), test.mean),
        None if test.sd is None else Cell(f"{100 * test.sd:.1f}", test.sd),
        fmean(row.val_accuracy for row in rows),
        train and train.mean,
        fmean(row.steps for row in rows),
        sum(row.stop_reason == "early_stopping" for row in rows),
        fmean(row.seconds for row in rows),
        rows[0].train_size,
        rows[0].val_size,
    ]


def training_table(rows: Sequence[Row], trainings: Sequence[Training]) -> Table:
    """A row per training that is done, which leads to its folder."""
    there = {(training.per_class, training.replicate): f"runs/{training.name}" for training in trainings}
    columns = (
        Column("per class", "count"),
        Column("run", "count", "Those of one number share images and seed across sizes. Leads to its folder."),
        Column("test accuracy", "percent"),
        Column("test loss", "number"),
        Column("validation", "percent"),
        Column("training", "percent"),
        Column("steps", "count"),
        Column("best at", "count", "Step."),
        Column("ended", hint="early: by early stopping."),
        Column("time", "seconds"),
    )
    return columns, [
        [
            row.per_class,
            Cell(str(row.replicate), row.replicate, path=there.get((row.per_class, row.replicate), "")),
            row.test_accuracy,
            row.test_loss,
            row.val_accuracy,
            row.train_accuracy,
            row.steps,
            row.best_step,
            "early" if row.stop_reason == "early_stopping" else "last step",
            row.seconds,
        ]
        for row in rows
    ]


def failure_table(trainings: Sequence[Training]) -> Table:
    """A row per training that failed."""
    columns = (Column("per class", "count"), Column("run", "count"), Column("exit code", "count"), Column("error"))
    rows = [
        [
            training.per_class,
            Cell(str(training.replicate), training.replicate, path=f"runs/{training.name}"),
            training.card.get("exit_code"),
            training.card.get("error"),
        ]
        for training in trainings
        if training.status == "failed"
    ]
    return columns, rows


def course_table(courses: Mapping[int, Config]) -> Table:
    """How the trainings of each size go."""
    columns = (
        Column("per class", "count"),
        Column("batch", "count", "Images per step."),
        Column("steps", "count", "At most."),
        Column("evaluated every", "count", "Steps."),
        Column("best by", hint="What decides which weights are tested."),
        Column("patience", "count", "Evaluations without a better one."),
        Column("not stopped before", "count", "Steps."),
        Column("peak lr", "number"),
    )
    rows = []
    for size, config in sorted(courses.items()):
        trainer, stopping = config["trainer"], config["trainer"]["early_stopping"]
        rows.append(
            [
                size,
                trainer["batch_size"],
                trainer["steps"],
                trainer["evaluate_every"],
                str(stopping["metric"]).replace("val_", "validation "),
                stopping["patience"],
                stopping["min_steps"],
                config["optimizer"].get("lr"),
            ]
        )
    return columns, rows


def form_table(curve: Mapping[str, Any]) -> Table:
    """How much each form of curve is believed, and how well it predicted."""
    columns = (
        Column("form"),
        Column("share in the curve", "percent"),
        Column("miss", "number", "Root mean square of predicting the two largest sizes from those below, in points."),
        Column("formula"),
        Column("parameters"),
    )
    rows = []
    for form in sorted(curve.get("forms") or (), key=lambda form: -form["weight"]):
        name, formula = FORMS.get(form["name"], (form["name"], ""))
        miss = form["rolling_miss"]
        share = Cell("only shown", 0.0) if not form["weight"] else form["weight"]
        parameters = ", ".join(f"{key} {number(value)}" for key, value in form["parameters"].items())
        rows.append([name, share, None if miss is None else Cell(f"{100 * miss:.1f}", miss), formula, parameters])
    return columns, rows


def validation_table(curve: Mapping[str, Any]) -> Table:
    """What the curve said of sizes that it was not shown."""
    columns = (
        Column("fit up to", "count", "Largest images per class that the fit saw."),
        Column("per class", "count", "The size held out."),
        Column("measured", "percent"),
        Column("predicted [95 %]", "percent"),
        Column("miss", "number", "In points."),
        Column("last value", "number", "Miss of saying that it stays as good as at the last size, in points."),
        Column("log-linear", "number", "Miss of a straight line in the logarithm of the size, in points."),
    )
    predictions = (curve.get("validation") or {}).get("predictions") or ()
    return columns, [
        [
            each["fitted_up_to"],
            each["per_class"],
            each["measured"],
            Cell(
                interval(each["predicted"], each["low"], each["high"]) + ("" if each["is_hit"] else ", outside"),
                each["predicted"],
                tone="" if each["is_hit"] else "bad",
            ),
            *(Cell(points(each[key]), each[key]) for key in ("miss", "last_value_miss", "log_linear_miss")),
        ]
        for each in predictions
    ]


def largest_size_words(rows: Sequence[Row]) -> tuple[str, str]:
    """The test accuracy at the largest size, and what it is."""
    size, some = list(by_size(rows).items())[-1]
    test = mean_interval([row.test_accuracy for row in some])
    if len(some) == 1:
        return percent(test.mean), f"test accuracy with {size:,} images per class, one training"
    figure = interval(test.mean, _clipped(test.low), _clipped(test.high))
    return figure, f"test accuracy with {size:,} images per class, mean of {len(some)} trainings, 95 % interval"
