"""What stored predictions say: which test images a run answered right, and whether two runs answered the same ones.

Knows predictions.csv; not what follows from a comparison.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cvtrain.errors import CheckpointError
from cvtrain.outputs import RunDir

COLUMNS = ("image", "label", "prediction")
"""Those that are read."""


@dataclass(frozen=True)
class Predictions:
    """The answers of one run to its test images.

    Args:
        images: Names, or indices in words.
        labels: Class names, in the order of the images.
        is_right: bool `(N,)`.
    """

    images: tuple[str, ...]
    labels: tuple[str, ...]
    is_right: np.ndarray


def read_predictions(run: Path, card: Mapping[str, Any]) -> Predictions:
    """Reads the answers of a run that is done, and checks them against its run card.

    Raises:
        CheckpointError: The file is missing, damaged or not that of the run.
    """
    path = RunDir(run).predictions_path
    try:
        with open(path, encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file, strict=True))
    except FileNotFoundError:
        raise CheckpointError(f"{path} is missing") from None
    except (OSError, ValueError, csv.Error) as error:
        raise CheckpointError(f"{path} cannot be read: {error}".splitlines()[0]) from None
    if not rows or any(row.get(column) is None for row in rows for column in COLUMNS):
        raise CheckpointError(f"{path} is damaged: each row needs {', '.join(COLUMNS)}")
    images, labels, predictions = (tuple(row[column] for row in rows) for column in COLUMNS)
    is_right = np.array([label == prediction for label, prediction in zip(labels, predictions, strict=True)])
    _check(path, is_right, card)
    return Predictions(images, labels, is_right)


def _check(path: Path, is_right: np.ndarray, card: Mapping[str, Any]) -> None:
    """Refuses answers that give other figures than the run card does.

    Raises:
        CheckpointError: With both.
    """
    test = card.get("test") or {}
    num_images, accuracy = test.get("num_images"), test.get("accuracy")
    if num_images is None or accuracy is None:
        raise CheckpointError(f"{path}: the run card beside it tells no test accuracy")
    if len(is_right) != num_images:
        raise CheckpointError(f"{path} holds {len(is_right):,} images, and the run was tested on {num_images:,}")
    if abs(is_right.mean() - accuracy) > 1e-6:
        raise CheckpointError(
            f"{path} gives a test accuracy of {is_right.mean():.4f}, and the run card one of {accuracy:.4f}"
        )


def are_of_same_images(predictions: Sequence[Predictions]) -> bool:
    """Whether all runs answered the same images, with the same labels, in the same order."""
    return all((each.images, each.labels) == (predictions[0].images, predictions[0].labels) for each in predictions)
