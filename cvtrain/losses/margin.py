"""Cross-entropies that ask more of the label than to win: its logit, cosine or angle must win by a margin.

Knows outputs and labels, and the last layers in `heads.py`; not models, batches of images, or how steps are counted.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cvtrain.errors import ConfigError
from cvtrain.losses.heads import CosineLinear, LargeMarginLinear
from cvtrain.losses.loss import ClassificationLoss
from cvtrain.losses.options import check_at_least_zero, check_positive, is_number

ANGLE_MARGINS = (1, 2, 3, 4)
"""Multiples of the angle for which L-Softmax is published."""

SMALLEST_PRODUCT = 1e-10
"""Of the norms of features and weights: below it the angle between them is taken as 90 degrees."""


@dataclass(kw_only=True, eq=False, repr=False)
class SoftMarginSoftmax(ClassificationLoss):
    """Cross-entropy after the logit of the label is lowered by a margin; works on the logits of any model.

    The scale of logits is free: large weights can outgrow the margin, which weight decay keeps them from.

    Args: those of `ClassificationLoss` and
        margin: m, at least 0; 0 is cross-entropy.

    Raises:
        ConfigError: As `ClassificationLoss`; a negative margin.

    Source: Liang et al. 2017, "Soft-Margin Softmax for Deep Classification" (10.1007/978-3-319-70096-0_43), section 3.
    """

    margin: float = 0.3

    def __post_init__(self) -> None:
        super().__post_init__()
        check_at_least_zero("margin", self.margin)

    def unweighted(self, logits: Tensor, labels: Tensor) -> Tensor:
        """See `ClassificationLoss`."""
        return _cross_entropy_below(logits, labels, margin=self.margin)


@dataclass(kw_only=True, eq=False, repr=False)
class AdditiveMarginSoftmax(ClassificationLoss):
    """Cross-entropy of s cos(theta_j), the cosine of the label lowered by a margin; features and weights have length 1.

    For the label to reach the probability P among K classes that lie as far apart as they can, s must be at least
    ln((K-1) P / (1-P)) / (1 - m + 1/(K-1)): 12 for K = 10, 17 for 100 and 21 for 1000, at P = 0.999 and m = 0.35.

    Args: those of `ClassificationLoss` and
        margin: m, at least 0.
        scale: s, above 0.
        embedding: Width of a linear layer without ReLU before the cosines; None: no such layer. Features that come
            from a ReLU are never negative, so no two of them are more than 90 degrees apart.

    Raises:
        ConfigError: As `ClassificationLoss`; a negative margin; a scale that is not positive; a width below 1.

    Source: Wang et al. 2018 (arXiv 1801.05599), equations 5 and 6; m = 0.35 is theirs (and s = 30, for thousands of
    faces); the bound on s: Wang et al. 2018 (arXiv 1801.09414), section 3.3.
    """

    margin: float = 0.35
    scale: float = 15.0
    embedding: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_at_least_zero("margin", self.margin)
        check_positive("scale", self.scale)
        if self.embedding is not None and (type(self.embedding) is not int or self.embedding < 1):
            raise ConfigError(f"loss.embedding is {self.embedding!r}; it must be a whole number >= 1 or null")

    def head(self, linear: nn.Linear) -> nn.Module:
        """The layer that gives s cos(theta_j), `(B, F)` to `(B, K)`, in place of the model's last one."""
        if self.embedding is None:
            return CosineLinear(linear, scale=self.scale)
        classes = nn.Linear(self.embedding, linear.out_features, bias=False)
        return nn.Sequential(
            OrderedDict(
                embedding=nn.Linear(linear.in_features, self.embedding),
                cosine=CosineLinear(classes, scale=self.scale),
            )
        )

    def unweighted(self, logits: Tensor, labels: Tensor) -> Tensor:
        """See `ClassificationLoss`."""
        return _cross_entropy_below(logits, labels, margin=self.scale * self.margin)


@dataclass(kw_only=True, eq=False, repr=False)
class LargeMarginSoftmax(ClassificationLoss):
    """Cross-entropy of W_j x, that of the label made smaller as if its angle were m times as wide.

    The logit of the label is |W_y| |x| (lambda cos(theta) + psi(theta)) / (1 + lambda), see `large_margin_cosine`.
    Lambda falls with the steps from nearly plain cross-entropy to the full margin; it is a function of the step
    alone. In evaluation the loss is plain cross-entropy: with the margin, values of two steps could not be compared.

    Args: those of `ClassificationLoss` and
        margin: m, one of 1 (cross-entropy), 2, 3 and 4.
        lambda_start: At step 0, at least 0; 0: the full margin from the first step, which rarely trains.
        lambda_decay: Factor per step, in (0, 1].
        lambda_min: What lambda does not fall below, in [0, lambda_start].

    Raises:
        ConfigError: As `ClassificationLoss`; an option out of its range.

    Source: Liu et al. 2016 (arXiv 1612.02295), equations 4 to 7 and section 5.1.
    """

    margin: int = 2
    lambda_start: float = 100.0
    lambda_decay: float = 0.99
    lambda_min: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not is_number(self.margin) or self.margin not in ANGLE_MARGINS:
            raise ConfigError(f"loss.margin is {self.margin!r}; of l_softmax it must be 1, 2, 3 or 4")
        check_at_least_zero("lambda_start", self.lambda_start)
        check_at_least_zero("lambda_min", self.lambda_min)
        if not is_number(self.lambda_decay) or not 0 < self.lambda_decay <= 1:
            raise ConfigError(f"loss.lambda_decay is {self.lambda_decay!r}; it must be above 0 and at most 1")
        if self.lambda_min > self.lambda_start:
            raise ConfigError(f"loss.lambda_min={self.lambda_min} is above loss.lambda_start={self.lambda_start}")
        self.set_step(0)

    def set_step(self, step: int) -> None:
        """Says which step, from 0, the next losses belong to."""
        self.lambda_now = max(self.lambda_min, self.lambda_start * self.lambda_decay**step)

    def head(self, linear: nn.Linear) -> nn.Module:
        """The layer that gives the products of norms too while it trains, in place of the model's last one."""
        return LargeMarginLinear(linear)

    def class_logits(self, outputs: Tensor) -> Tensor:
        """The W_j x among outputs `(B, 2K)` of training; outputs `(B, K)` of evaluation as they are."""
        return outputs[:, : self.num_classes]

    def unweighted(self, logits: Tensor, labels: Tensor) -> Tensor:
        """See `ClassificationLoss`; with a margin for `(B, 2K)`, plain cross-entropy for `(B, K)`."""
        if logits.shape[1] == self.num_classes:
            return F.cross_entropy(logits, labels, reduction="none")
        assert logits.shape[1] == 2 * self.num_classes, "logits and products of norms"
        logits, products = logits.split(self.num_classes, dim=1)
        label = labels[:, None]
        plain, product = logits.gather(1, label), products.gather(1, label)
        cosine = plain / product.clamp_min(SMALLEST_PRODUCT)
        wide = product * large_margin_cosine(cosine, margin=int(self.margin))
        # Both over 1 + lambda, not lambda / (1 + lambda): lambda may be as large as one likes.
        lowered = plain + (wide - plain) / (1 + self.lambda_now)
        return F.cross_entropy(logits.scatter(1, label, lowered), labels, reduction="none")


def large_margin_cosine(cosine: Tensor, *, margin: int) -> Tensor:
    """psi(theta) = (-1)^k cos(m theta) - 2k, with k so that k pi/m <= theta <= (k+1) pi/m, from cos(theta).

    Falls from 1 at 0 degrees to 1 - 2m at 180, and is nowhere above cos(theta). cos(m theta) is a polynomial in the
    cosine (Chebyshev's), so that the gradient is finite at 0 and 180 degrees, where that of the angle is not.

    Args:
        cosine: Floating point, any shape, in -1..1.
        margin: m, at least 1.

    Source: Liu et al. 2016 (arXiv 1612.02295), equations 6 and 7.
    """
    before, multiple = torch.ones_like(cosine), cosine
    for _ in range(margin - 1):
        before, multiple = multiple, 2 * cosine * multiple - before
    # theta has passed k of the m - 1 angles pi/m, 2 pi/m, ... where its cosine is below that of k of them.
    turns = sum((cosine.detach() < math.cos(j * math.pi / margin)).to(cosine.dtype) for j in range(1, margin))
    return (1 - 2 * (turns % 2)) * multiple - 2 * turns if margin > 1 else multiple


def _cross_entropy_below(logits: Tensor, labels: Tensor, *, margin: float) -> Tensor:
    one_hot = F.one_hot(labels, logits.shape[1]).to(logits.dtype)
    return F.cross_entropy(logits - margin * one_hot, labels, reduction="none")
