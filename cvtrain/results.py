"""The figures of an evaluated split and its predictions, in the form that run cards, tables and CSV files show.

Knows evaluation results and names; not where they are written.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from cvtrain.engine.evaluator import EvaluationResult
from cvtrain.engine.events import Evaluation
from cvtrain.engine.metrics import (
    auroc,
    balanced_accuracy,
    class_figures,
    confusion_matrix,
    macro_f1,
    top_k_accuracy,
)
from cvtrain.engine.selection import Selection

PREDICTIONS_HEADER = ("image", "label", "prediction", "probability")


@dataclass(frozen=True)
class FitResult:
    """How a run ended.

    Args:
        selection: Knows the best evaluation.
        last: The last evaluation.
        test: The best weights on the test images.
        stop_reason: `finished` or `early_stopping`.
        num_steps: Steps taken.
        epochs: Passes over the training images.
        seconds: Of all processes that worked on this run.
        images_per_second: While training.
    """

    selection: Selection
    last: Evaluation | None
    test: EvaluationResult
    stop_reason: str
    num_steps: int
    epochs: float
    seconds: float
    images_per_second: float


def figures(result: EvaluationResult, class_names: tuple[str, ...]) -> dict[str, Any]:
    """Every figure of one split as plain values; accuracies are 0..1. AUROC for two classes only."""
    assert result.labels is not None, "predictions were collected"
    assert result.probabilities is not None, "predictions were collected"
    assert result.predictions is not None, "predictions were collected"
    confusion = confusion_matrix(result.labels, result.predictions, len(class_names))
    per_class = class_figures(confusion, class_names)
    found = {
        "loss": result.loss,
        "cross_entropy": result.cross_entropy,
        "accuracy": result.accuracy,
        "num_images": result.num_images,
        "top5_accuracy": top_k_accuracy(result.probabilities, result.labels, 5),
        "balanced_accuracy": balanced_accuracy(confusion),
        "macro_f1": macro_f1(per_class),
    }
    if len(class_names) == 2:
        found["auroc"] = auroc(result.probabilities[:, 1], result.labels == 1)
    return {**found, "per_class": [asdict(row) for row in per_class], "confusion_matrix": confusion.tolist()}


def prediction_rows(
    result: EvaluationResult, images: Sequence[str], class_names: tuple[str, ...]
) -> Iterator[tuple[str, str, str, str]]:
    """One row of predictions.csv per image: its name, its label, what it was taken for, with what probability."""
    assert result.labels is not None, "predictions were collected"
    assert result.probabilities is not None, "predictions were collected"
    assert result.predictions is not None, "predictions were collected"
    top = result.probabilities.gather(1, result.predictions[:, None]).squeeze(1).tolist()
    columns = zip(images, result.labels.tolist(), result.predictions.tolist(), top, strict=True)
    for image, label, prediction, probability in columns:
        yield image, class_names[label], class_names[prediction], f"{probability:.6g}"


def card_figures(result: FitResult) -> dict[str, Any]:
    """What a finished run adds to its run card."""
    best = asdict(result.selection.best) if result.selection.best else None
    card: dict[str, Any] = {
        "steps": result.num_steps,
        "epochs": result.epochs,
        "best": best,
        "stop_reason": result.stop_reason,
        "seconds": round(result.seconds, 3),
    }
    if result.last is not None:
        card["last"] = asdict(result.last)
        card["images_per_second"] = round(result.images_per_second, 1)
    return card
