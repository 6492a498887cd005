"""The losses: functions of a model's outputs and the labels, one value per image.

Knows nothing of models, batches of images, or what is done with the values.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cvtrain.errors import ConfigError


@dataclass(kw_only=True, eq=False, repr=False)
class ClassificationLoss(nn.Module):
    """What all losses share: one value per image, weighted by the class of its label.

    The value of an image with label y is `class_weights[y] * loss`. The trainer takes the mean over images,
    *not* over the sum of their weights as `torch.nn.CrossEntropyLoss` does, so that an image weighs the same in
    every batch; `auto` weights average to 1 over the training images, which keeps the scale of the gradient.

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
        weights = _weight_per_class(self.class_weights, self.class_counts)
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
        assert logits.shape == (len(labels), self.num_outputs), "one row of outputs per label"
        losses = self.unweighted(_upcast(logits), labels)
        return losses if self.weight_per_class is None else losses * self.weight_per_class[labels]

    def unweighted(self, logits: Tensor, labels: Tensor) -> Tensor:
        """As `forward`, before class weights, for logits that are float32 or float64."""
        raise NotImplementedError

    def probabilities(self, logits: Tensor) -> Tensor:
        """Softmax of the outputs: `(B, num_outputs)` -> float32 `(B, num_classes)`, rows summing to 1."""
        return _upcast(logits).softmax(dim=1)


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
        _check_smoothing(self.label_smoothing)

    def unweighted(self, logits: Tensor, labels: Tensor) -> Tensor:
        """See `ClassificationLoss`."""
        return F.cross_entropy(logits, labels, reduction="none", label_smoothing=self.label_smoothing)


@dataclass(kw_only=True, eq=False, repr=False)
class MeanSquaredError(ClassificationLoss):
    """Squared distance of the raw outputs f from the label: (1/K) [k (f_y - M)^2 + sum over j != y of f_j^2].

    With k = M = 1 this is the mean squared distance from the one-hot label. No softmax: its gradient would
    vanish for images that are wrong and confident.

    Args: those of `ClassificationLoss` and
        target_scale: k, above 0: the weight of the output of the label.
        target_value: M, above 0: the value that the output of the label should take.

    Raises:
        ConfigError: As `ClassificationLoss`; a scale or value that is not positive.

    Source: Hui & Belkin 2021 (arXiv 2006.07322), where k and M above 1 serve many classes (ImageNet).
    """

    target_scale: float = 1.0
    target_value: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_positive("target_scale", self.target_scale)
        _check_positive("target_value", self.target_value)

    def unweighted(self, logits: Tensor, labels: Tensor) -> Tensor:
        """See `ClassificationLoss`."""
        one_hot = F.one_hot(labels, self.num_classes).to(logits.dtype)
        scales = 1 + (self.target_scale - 1) * one_hot
        return (scales * (logits - self.target_value * one_hot).square()).mean(dim=1)

    def probabilities(self, logits: Tensor) -> Tensor:
        """The outputs, clipped below and normalised: `(B, K)` -> float32 `(B, K)`. See `_normalised`."""
        return _normalised(_upcast(logits))


@dataclass(kw_only=True, eq=False, repr=False)
class MeanAbsoluteError(ClassificationLoss):
    """Mean over the classes of the absolute distance from the one-hot label.

    On the softmax this is 2 (1 - p_y) / K: robust to wrong labels, slow on hard data. On raw outputs the optimum
    is the conditional median: 0 for every class of an image that no class claims with more than one half.

    Args: those of `ClassificationLoss` and
        compare: `softmax` or `outputs`: what is compared with the one-hot label.

    Raises:
        ConfigError: As `ClassificationLoss`; another `compare`.

    Source: Ghosh et al. 2017 (arXiv 1712.09482); Zhang & Sabuncu 2018 (arXiv 1805.07836), section 3.
    """

    compare: str = "softmax"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.compare not in ("softmax", "outputs"):
            raise ConfigError(
                f"loss.compare is {self.compare!r}", hint="use loss.compare=softmax or loss.compare=outputs"
            )

    def unweighted(self, logits: Tensor, labels: Tensor) -> Tensor:
        """See `ClassificationLoss`."""
        if self.compare == "softmax":
            return -2 * _log_probability(logits, labels).expm1() / self.num_classes
        return (logits - F.one_hot(labels, self.num_classes)).abs().mean(dim=1)

    def probabilities(self, logits: Tensor) -> Tensor:
        """Softmax, or clipped and normalised outputs (see `_normalised`): `(B, K)` -> float32 `(B, K)`."""
        return super().probabilities(logits) if self.compare == "softmax" else _normalised(_upcast(logits))


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
        if not _is_number(self.q) or not 0 < self.q <= 1:
            raise ConfigError(f"loss.q is {self.q!r}; it must be above 0 and at most 1")

    def unweighted(self, logits: Tensor, labels: Tensor) -> Tensor:
        """See `ClassificationLoss`."""
        return -(self.q * _log_probability(logits, labels)).expm1() / self.q


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
        if not _is_number(self.gamma) or self.gamma < 0:
            raise ConfigError(f"loss.gamma is {self.gamma!r}; it must be at least 0")

    def unweighted(self, logits: Tensor, labels: Tensor) -> Tensor:
        """See `ClassificationLoss`."""
        log_p = _log_probability(logits, labels)
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
        _check_smoothing(label_smoothing)
        self.label_smoothing = label_smoothing
        self.register_buffer("pos_weight", _positive_weight(pos_weight, class_counts), persistent=False)

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
        logits = _upcast(logits)
        return torch.cat([-logits, logits], dim=1).sigmoid()


def _upcast(logits: Tensor) -> Tensor:
    return logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits


def _log_probability(logits: Tensor, labels: Tensor) -> Tensor:
    """The logarithm of the softmax at the label, `(B,)`."""
    return -F.cross_entropy(logits, labels, reduction="none")


def _normalised(outputs: Tensor) -> Tensor:
    """Outputs that estimate probabilities, clipped at 0 and divided by their sum; softmax where none is positive.

    Not clipped at 1: two outputs above 1 would tie, and the largest would no longer be the predicted class.
    """
    positive = outputs.clamp_min(0)
    total = positive.sum(dim=1, keepdim=True)
    return torch.where(total > 0, positive / total, outputs.softmax(dim=1))


def _weight_per_class(weights: str | Sequence[float] | None, counts: Sequence[int]) -> Tensor | None:
    if weights is None:
        return None
    if weights == "auto":
        _check_every_class("class_weights", counts)
        return torch.tensor([sum(counts) / (len(counts) * count) for count in counts])
    if isinstance(weights, str) or not isinstance(weights, Sequence):
        raise ConfigError(f"loss.class_weights is {weights!r}", hint="use null, auto or a list of numbers")
    if len(weights) != len(counts):
        raise ConfigError(f"loss.class_weights has {len(weights)} numbers for {len(counts)} classes")
    for label, weight in enumerate(weights):
        _check_positive(f"class_weights[{label}]", weight)
    return torch.tensor([float(weight) for weight in weights])


def _positive_weight(weight: str | float | None, counts: Sequence[int]) -> Tensor | None:
    if weight is None:
        return None
    if weight == "auto":
        _check_every_class("pos_weight", counts)
        return torch.tensor(counts[0] / counts[1])
    _check_positive("pos_weight", weight)
    return torch.tensor(float(weight))


def _check_every_class(name: str, counts: Sequence[int]) -> None:
    for label, count in enumerate(counts):
        if count == 0:
            raise ConfigError(
                f"loss.{name}=auto cannot weigh class {label}: it has no training image",
                hint=f"use loss.{name}=null",
            )


def _check_smoothing(share: float) -> None:
    if not _is_number(share) or not 0 <= share < 1:
        raise ConfigError(f"loss.label_smoothing is {share!r}; it must be at least 0 and below 1")


def _check_positive(name: str, value: float) -> None:
    if not _is_number(value) or value <= 0:
        raise ConfigError(f"loss.{name} is {value!r}; it must be a number above 0")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
