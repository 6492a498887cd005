"""Losses that measure how far the outputs of a model lie from the one-hot label.

Knows nothing of models, batches of images, or what is done with the values.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from cvtrain.errors import ConfigError
from cvtrain.losses.loss import ClassificationLoss, log_probability, normalised, upcast
from cvtrain.losses.options import check_positive


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
        check_positive("target_scale", self.target_scale)
        check_positive("target_value", self.target_value)

    def unweighted(self, logits: Tensor, labels: Tensor) -> Tensor:
        """See `ClassificationLoss`."""
        one_hot = F.one_hot(labels, self.num_classes).to(logits.dtype)
        scales = 1 + (self.target_scale - 1) * one_hot
        return (scales * (logits - self.target_value * one_hot).square()).mean(dim=1)

    def probabilities(self, logits: Tensor) -> Tensor:
        """The outputs, clipped below and normalised: `(B, K)` -> float32 `(B, K)`. See `normalised`."""
        return normalised(upcast(logits))


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
            return -2 * log_probability(logits, labels).expm1() / self.num_classes
        return (logits - F.one_hot(labels, self.num_classes)).abs().mean(dim=1)

    def probabilities(self, logits: Tensor) -> Tensor:
        """Softmax, or clipped and normalised outputs (see `normalised`): `(B, K)` -> float32 `(B, K)`."""
        return super().probabilities(logits) if self.compare == "softmax" else normalised(upcast(logits))
