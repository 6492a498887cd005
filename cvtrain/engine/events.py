"""What the training loop tells its caller, and the little that it asks of a learning-rate schedule.

Knows no tensors.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class Step:
    """A step was taken.

    Args:
        step: Steps taken so far, from 1.
        lr: Learning rate of the first parameter group at this step.
    """

    step: int
    lr: float


@dataclass(frozen=True)
class Evaluation:
    """The figures at one evaluation: a row of metrics.csv.

    Args:
        epoch: Passes over the training images so far; whole at the end of an epoch.
        step: Steps taken so far.
        train_loss: Mean over the images since the last evaluation, as they were trained on (augmented).
        train_accuracy: Of the same images, 0..1.
        val_loss: Mean over the validation images; None without validation.
        val_accuracy: 0..1, or None.
        lr: Learning rate of the last step.
        seconds: Of training since the last evaluation.
        images_per_second: While training.
        val_cross_entropy: Mean over the validation images, in nats, whatever the loss; None without validation.
    """

    epoch: float
    step: int
    train_loss: float
    train_accuracy: float
    val_loss: float | None
    val_accuracy: float | None
    lr: float
    seconds: float
    images_per_second: float
    val_cross_entropy: float | None = None


@dataclass(frozen=True)
class RunningFigures:
    """How training goes between two evaluations, as far as one process knows.

    Args:
        train_loss: Mean over its images since the last evaluation.
        images_per_second: While training, of all processes together if each is as fast as this one.
    """

    train_loss: float
    images_per_second: float


class Schedule(Protocol):
    """The learning rate as a factor per step."""

    def factor(self, step: int) -> float:
        """The factor of step 0, 1, ..."""

    def observe(self, val_loss: float) -> None:
        """Takes in a validation loss."""

    def state_dict(self) -> dict:
        """Plain values."""

    def load_state_dict(self, state: dict) -> None:
        """Takes over a saved state."""
