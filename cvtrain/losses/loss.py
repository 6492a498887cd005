"""What all losses share: one value per image, class weights, and how outputs become probabilities.

Knows no particular loss.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cvtrain.errors import ConfigError
from cvtrain.losses.options import weight_per_class


@dataclass(kw_only=True, eq=False, repr=False)
class ClassificationLoss(nn.Module):
    """What all losses share: one value per image, weighted by the class of its label.

    The value of an image with label y is `class_weights[y] * loss`. The trainer takes the mean over images,
    *not* over the sum of their weights as `torch.nn.CrossEntropyLoss` does, so that an image weighs the same in
    every batch; `auto` weights average to 1 over the training images, which keeps the scale of the gradient.

    A loss may have two methods more: `head(linear)`, the layer that it needs in place of the model's last one, and
    `set_step(step)`, which is told before each step which one it is, from 0.

    Args:
        num_classes: Number of classes K, at least 2.
        class_counts: Training images of each class, K numbers.
        class_weights: None (all 1), `auto` for N / (K n_c) with N training images of which n_c have class c,
            or K positive numbers.

    Attributes:
        num_outputs: How many numbers the model must emit per image.

    Raises:
        ConfigError: Fewer than two classes; class weights of the wrong number or sign; `auto` with a class that
            has no training image.
    """

    num_classes: int
    class_counts: Sequence[int]
    class_weights: str | Sequence[float] | None = None

    def __post_init__(self) -> None:
        super().__init__()
        assert len(self.class_counts) == self.num_classes, "one count per class"
        if self.num_classes < 2:
            raise ConfigError(f"the training images have {self.num_classes} class; a loss needs at least 2")
        # Not saved with a model: the weights follow from the data and the config.
        weights = weight_per_class(self.class_weights, self.class_counts)
        self.register_buffer("weight_per_class", weights, persistent=False)

    @property
    def num_outputs(self) -> int:
        """How many numbers the model must emit per image."""
        return self.num_classes

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """The loss of each image.

        Args:
            logits: Floating point `(B, num_outputs)`; half types are computed in float32.
            labels: int64 `(B,)`, each in `0..num_classes-1`.

        Returns:
            `(B,)`, float32 (float64 for float64 logits).
        """
        assert self.class_logits(logits).shape == (len(labels), self.num_outputs), "one row of outputs per label"
        losses = self.unweighted(upcast(logits), labels)
        return losses if self.weight_per_class is None else losses * self.weight_per_class[labels]

    def unweighted(self, logits: Tensor, labels: Tensor) -> Tensor:
        """As `forward`, before class weights, for logits that are float32 or float64."""
        raise NotImplementedError  # the one method that every loss must define

    def class_logits(self, outputs: Tensor) -> Tensor:
        """The `(B, num_outputs)` logits among the outputs of a model in training; most losses know no others."""
        return outputs

    def probabilities(self, logits: Tensor) -> Tensor:
        """Softmax of the outputs: `(B, num_outputs)` -> float32 `(B, num_classes)`, rows summing to 1."""
        return upcast(logits).softmax(dim=1)


def upcast(logits: Tensor) -> Tensor:
    """Half types as float32; float32 and float64 as they are."""
    return logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits


def log_probability(logits: Tensor, labels: Tensor) -> Tensor:
    """The logarithm of the softmax at the label, `(B,)`."""
    return -F.cross_entropy(logits, labels, reduction="none")


def normalised(outputs: Tensor) -> Tensor:
    """Outputs that estimate probabilities, clipped at 0 and divided by their sum; softmax where none is positive.

    Not clipped at 1: two outputs above 1 would tie, and the largest would no longer be the predicted class.
    """
    positive = outputs.clamp_min(0)
    total = positive.sum(dim=1, keepdim=True)
    return torch.where(total > 0, positive / total, outputs.softmax(dim=1))
