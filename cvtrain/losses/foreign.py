"""Losses on logits that were not made for cvtrain.

Knows what cvtrain asks of a loss, not where the loss comes from.
"""

from __future__ import annotations

from torch import Tensor, nn


class ForeignLoss(nn.Module):
    """A loss on logits from elsewhere, with what cvtrain asks of a loss besides its value.

    Args:
        loss_fn: Maps logits and labels to one value per image, or to one mean.
        num_classes: K, which is also the number of outputs.
    """

    def __init__(self, loss_fn: nn.Module, num_classes: int) -> None:
        super().__init__()
        self.loss_fn = loss_fn
        self.num_outputs = num_classes

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """The loss of `(B, K)` logits."""
        return self.loss_fn(logits.float(), labels)

    def class_logits(self, outputs: Tensor) -> Tensor:
        """The outputs themselves."""
        return outputs

    def probabilities(self, logits: Tensor) -> Tensor:
        """Softmax, float32 `(B, K)`."""
        return logits.float().softmax(1)
