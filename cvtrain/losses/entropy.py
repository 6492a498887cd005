"""Cross-entropy and its kin: functions of the probability that a model gives to the label.

Knows nothing of models, batches of images, or what is done with the values.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from cvtrain.errors import ConfigError
from cvtrain.losses.loss import ClassificationLoss, log_probability, upcast
from cvtrain.losses.options import check_smoothing, is_number, positive_weight


@dataclass(kw_only=True, eq=False, repr=False)
class CrossEntropy(ClassificationLoss):
    """Cross-entropy of the softmax, optionally against smoothed labels.

    Args: those of `ClassificationLoss` and
        label_smoothing: Share s in [0, 1) of the target spread evenly over all classes: 1 - s + s/K for the
            label, s/K for each other class.

    Raises:
        ConfigError: As `ClassificationLoss`; a share outside [0, 1).

    Source: label smoothing, Szegedy et al. 2016 (arXiv 1512.00567), section 7.
    """

    label_smoothing: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_smoothing(self.label_smoothing)

    def unweighted(self, logits: Tensor, labels: Tensor) -> Tensor:
        """See `ClassificationLoss`."""
        return F.cross_entropy(logits, labels, reduction="none", label_smoothing=self.label_smoothing)


@dataclass(kw_only=True, eq=False, repr=False)
class GeneralizedCrossEntropy(ClassificationLoss):
    """(1 - p_y^q) / q: from cross-entropy (q -> 0) to 1 - p_y (q = 1); robust to wrong labels and trainable.

    Args: those of `ClassificationLoss` and
        q: In (0, 1].

    Raises:
        ConfigError: As `ClassificationLoss`; q outside (0, 1].

    Source: Zhang & Sabuncu 2018 (arXiv 1805.07836), section 3; q = 0.7 is theirs.
    """

    q: float = 0.7

    def __post_init__(self) -> None:
        super().__post_init__()
        if not is_number(self.q) or not 0 < self.q <= 1:
            raise ConfigError(f"loss.q is {self.q!r}; it must be above 0 and at most 1")

    def unweighted(self, logits: Tensor, labels: Tensor) -> Tensor:
        """See `ClassificationLoss`."""
        return -(self.q * log_probability(logits, labels)).expm1() / self.q


@dataclass(kw_only=True, eq=False, repr=False)
class Focal(ClassificationLoss):
    """-(1 - p_y)^gamma log p_y: cross-entropy that fades for images which are already right.

    Args: those of `ClassificationLoss` (class weights are alpha in the paper) and
        gamma: At least 0; 0 is cross-entropy.

    Raises:
        ConfigError: As `ClassificationLoss`; a negative gamma.

    Source: Lin et al. 2017 (arXiv 1708.02002), equation 5; gamma = 2 is theirs.
    """

    gamma: float = 2.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not is_number(self.gamma) or self.gamma < 0:
            raise ConfigError(f"loss.gamma is {self.gamma!r}; it must be at least 0")

    def unweighted(self, logits: Tensor, labels: Tensor) -> Tensor:
        """See `ClassificationLoss`."""
        log_p = log_probability(logits, labels)
        # For p = 1 and gamma < 1 the slope of the power is infinite; under the clamp it is 0, and so is the limit.
        wrong = (-log_p.expm1()).clamp_min(torch.finfo(log_p.dtype).eps)
        return -wrong.pow(self.gamma) * log_p


class Squentropy(ClassificationLoss):
    """Cross-entropy plus the mean square of the logits of the other classes; no parameters of its own.

    Source: Hui, Belkin & Wright 2023 (arXiv 2302.03952), who find that the lr of cross-entropy serves.
    """

    def unweighted(self, logits: Tensor, labels: Tensor) -> Tensor:
        """See `ClassificationLoss`."""
        others = 1 - F.one_hot(labels, self.num_classes).to(logits.dtype)
        squares = (others * logits.square()).sum(dim=1) / (self.num_classes - 1)
        return F.cross_entropy(logits, labels, reduction="none") + squares


class BinaryCrossEntropy(ClassificationLoss):
    """Cross-entropy of one logit for two classes; equals `CrossEntropy` on two logits with z = z1 - z0.

    Args:
        num_classes: Must be 2.
        class_counts: Training images of class 0 and of class 1.
        pos_weight: Factor on the loss of images of class 1: None (1), `auto` for n_0 / n_1, or a number above 0.
        label_smoothing: Share s in [0, 1): the targets are 1 - s/2 and s/2.

    Raises:
        ConfigError: Not two classes; a weight that is not positive; `auto` with a class that has no training
            image; a share outside [0, 1).
    """

    def __init__(
        self,
        *,
        num_classes: int,
        class_counts: Sequence[int],
        pos_weight: str | float | None = None,
        label_smoothing: float = 0.0,
    ) -> None:
        if num_classes != 2:
            raise ConfigError(
                f"loss=bce has one output for 2 classes; the training images have {num_classes} classes",
                hint="use loss=cross_entropy",
            )
        super().__init__(num_classes=num_classes, class_counts=class_counts)
        check_smoothing(label_smoothing)
        self.label_smoothing = label_smoothing
        self.register_buffer("pos_weight", positive_weight(pos_weight, class_counts), persistent=False)

    @property
    def num_outputs(self) -> int:
        """One logit per image."""
        return 1

    def unweighted(self, logits: Tensor, labels: Tensor) -> Tensor:
        """See `ClassificationLoss`."""
        targets = labels.to(logits.dtype) * (1 - self.label_smoothing) + self.label_smoothing / 2
        return F.binary_cross_entropy_with_logits(
            logits.squeeze(1), targets, pos_weight=self.pos_weight, reduction="none"
        )

    def probabilities(self, logits: Tensor) -> Tensor:
        """Sigmoids of -z and z: `(B, 1)` -> float32 `(B, 2)`; class 1 is predicted where z > 0."""
        logits = upcast(logits)
        return torch.cat([-logits, logits], dim=1).sigmoid()
