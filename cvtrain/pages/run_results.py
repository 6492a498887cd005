"""What the page of a run says of its answers: the headline, the figures, the classes, the errors, the calibration.

Knows the files of a run as plain values and how figures are worded; not how a page looks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from cvtrain.analysis.calibration import CalibrationResult, calibration
from cvtrain.analysis.proportion import wilson_interval
from cvtrain.pages.run_files import RunFiles, picture_bytes
from cvtrain.report.charts import Axis, Series, bar_chart, line_chart, matrix_chart
from cvtrain.report.page_parts import Cell, Column, Picture
from cvtrain.report.words import interval, number, percent

MAX_MATRIX_CLASSES = 100
NUM_PAIRS = 10

Facts = list[tuple[Any, ...]]


def tested_split(files: RunFiles) -> str:
    """The split that the run was tested on: `test`, or what `task=evaluate` was told."""
    return str(files.card.get("split") or "test")


def test_figures(files: RunFiles) -> Mapping[str, Any]:
    """The figures of that split; none where the run came to no test."""
    return files.card.get(tested_split(files)) or {}


@dataclass(frozen=True)
class Headline:
    """The one figure that readers look for.

    Args:
        figure: `83.1 % [82.3, 83.8]`.
        words: What it is of how many.
    """

    figure: str
    words: str


def headline(files: RunFiles) -> Headline | None:
    """The accuracy with its interval; None where the run came to no test."""
    test = test_figures(files)
    if not test:
        return None
    num_images = test["num_images"]
    low, high = wilson_interval(round(test["accuracy"] * num_images), num_images)
    figure = interval(test["accuracy"], low, high)
    return Headline(
        figure, f"{tested_split(files)} accuracy, with its 95 % interval over {num_images:,} {things(files)}"
    )


def things(files: RunFiles) -> str:
    """What the inputs are called: those of a spiral are no pictures."""
    return "points" if files.card.get("image_size") == 1 else "images"


def figures(files: RunFiles) -> Facts:
    """The other figures of the tested split, and the best validation."""
    test, best = test_figures(files), files.card.get("best") or {}
    found: Facts = []
    if best.get("val_accuracy") is not None:
        found.append(("Best validation", percent(best["val_accuracy"]), f"epoch {best['epoch']:g}"))
    if test:
        num_classes = len(test["per_class"])
        found += [
            ("Balanced accuracy", percent(test["balanced_accuracy"]), "mean recall of the classes"),
            ("Macro F1", percent(test["macro_f1"]), ""),
        ]
        if num_classes > 5:
            found.append(("Top-5 accuracy", percent(test["top5_accuracy"]), ""))
        if num_classes == 2 and test.get("auroc") is not None:
            found.append(("AUROC", number(test["auroc"]), f"of class {test['per_class'][1]['name']}"))
        found += [
            ("Loss", number(test["loss"]), f"{tested_split(files)} {things(files)}"),
            ("Cross-entropy", number(test["cross_entropy"]), f"nats per {things(files)[:-1]}"),
        ]
    return found


# ------------------------------------------------------------------------------------------------- classes


CLASS_COLUMNS = (
    Column("Class"),
    Column("n", "count", "tested images that belong to it"),
    Column("Recall", "percent", "of the images that are, the share called so"),
    Column("Precision", "percent", "of the images called so, the share that are"),
    Column("F1", "percent", "harmonic mean of both"),
    Column("Trained on", "count", "training images of the class"),
)


def class_rows(files: RunFiles) -> list[list[Any]]:
    """A row per class; recall with its interval."""
    counts = files.card.get("class_counts") or [None] * len(test_figures(files)["per_class"])
    rows = []
    for row, trained_on in zip(test_figures(files)["per_class"], counts, strict=True):
        rows.append([row["name"], row["num_images"], _recall(row), row["precision"], row["f1"], trained_on])
    return rows


def _recall(row: Mapping[str, Any]) -> Cell | None:
    if row["recall"] is None:
        return None
    low, high = wilson_interval(round(row["recall"] * row["num_images"]), row["num_images"])
    return Cell(interval(row["recall"], low, high), row["recall"])


PAIR_COLUMNS = (
    Column("True class"),
    Column("Called"),
    Column("n", "count", "images of the true class that were called so"),
    Column("Share of the class", "percent"),
    Column("Share of all errors", "percent"),
)


def confused_pairs(files: RunFiles) -> list[list[Any]]:
    """The most frequent errors, the most frequent first."""
    matrix = test_figures(files)["confusion_matrix"]
    names = [row["name"] for row in test_figures(files)["per_class"]]
    pairs = [(n, i, j) for i, row in enumerate(matrix) for j, n in enumerate(row) if i != j and n]
    num_errors = sum(n for n, _, _ in pairs)
    pairs.sort(key=lambda pair: (-pair[0], pair[1], pair[2]))
    return [[names[i], names[j], n, n / sum(matrix[i]), n / num_errors] for n, i, j in pairs[:NUM_PAIRS]]


def confusion_chart(files: RunFiles) -> Markup | None:
    """The confusion matrix; None where there are too many classes to see anything."""
    matrix = test_figures(files)["confusion_matrix"]
    names = [row["name"] for row in test_figures(files)["per_class"]]
    if len(names) > MAX_MATRIX_CLASSES:
        return None
    return matrix_chart(matrix, names, title="Confusion matrix", rows="true class", columns="called")


# ------------------------------------------------------------------------------------------------- pictures


def answered(files: RunFiles, kind: str) -> list[Picture]:
    """Pictures of tested images: what they are, what they were called, how certain the model was."""
    return [_answered(picture) for picture in files.material.get(kind) or ()]


def _answered(picture: Mapping[str, Any]) -> Picture:
    is_right = picture["label"] == picture["prediction"]
    said = f"{picture['prediction']}, {percent(picture['probability'])}"
    lines = (said,) if is_right else (f"said {said}", f"is {picture['label']}")
    name = f"{picture['name']}: is {picture['label']}, said {said}"
    return Picture(picture_bytes(picture), name, lines, "good" if is_right else "bad")


# ---------------------------------------------------------------------------------------------- calibration


@dataclass(frozen=True)
class CalibrationSection:
    """What there is to say of probabilities.

    Args:
        chart: Accuracy against probability.
        histogram: How many images have which probability.
        facts: The errors.
        sentence: What they mean.
    """

    chart: Markup
    histogram: Markup
    facts: Facts
    sentence: str


def calibration_section(files: RunFiles) -> CalibrationSection | None:
    """Whether probabilities can be taken at their word; None without predictions."""
    if not files.answers:
        return None
    said = [answer.probability for answer in files.answers]
    result = calibration(said, [answer.label == answer.prediction for answer in files.answers])
    facts = [
        ("ECE", percent(result.ece), f"{len(result.bins)} bins of equal width, n = {result.num_images:,}"),
        ("Adaptive ECE", percent(result.adaptive_ece), f"{len(result.bins)} bins of equally many {things(files)}"),
        ("Mean probability", percent(result.confidence), "of the class that was said"),
        ("Accuracy", percent(result.accuracy), ""),
    ]
    return CalibrationSection(_reliability(result), _histogram(result, things(files)), facts, meaning(result))


def _reliability(result: CalibrationResult) -> Markup:
    bins = [each for each in result.bins if each.num_images]
    ends = [wilson_interval(round(each.accuracy * each.num_images), each.num_images) for each in bins]
    measured = Series(
        "measured",
        [each.confidence for each in bins],
        [each.accuracy for each in bins],
        low=[low for low, _ in ends],
        high=[high for _, high in ends],
        words=[f"n = {each.num_images:,}" for each in bins],
        drawn="points",
    )
    ideal = Series("as it should be", [0, 1], [0, 1], dashed=True, drawn="line", color=6)
    axis = {"kind": "percent", "low": 0.0, "high": 1.0}
    return line_chart(
        [measured, ideal],
        title="Share of right answers against probability",
        x=Axis("probability of the class that was said", **axis),
        y=Axis("right answers", **axis),
    )


def _histogram(result: CalibrationResult, things: str) -> Markup:
    middles = [(each.low + each.high) / 2 for each in result.bins]
    words = [f"from {percent(each.low)} to {percent(each.high)}" for each in result.bins]
    counts = Series(things, middles, [each.num_images for each in result.bins], words=words)
    x = Axis("probability of the class that was said", "percent", low=0.0, high=1.0)
    return bar_chart([counts], title="How often each probability was said", x=x, y=Axis(things, "count"))


def meaning(result: CalibrationResult) -> str:
    """The errors in words."""
    gap = result.confidence - result.accuracy
    far = (
        "Probabilities can be taken nearly at their word"
        if result.ece < 0.03
        else (
            f"A probability is on average {100 * result.ece:.1f} percentage points away from the share of right answers"
        )
    )
    if abs(gap) < 0.01:
        return f"{far}; on the whole the model is neither too certain nor too cautious."
    kind = "too certain" if gap > 0 else "too cautious"
    return f"{far}; on the whole the model is {kind}, by {100 * abs(gap):.1f} percentage points."
