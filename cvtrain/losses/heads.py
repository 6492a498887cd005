"""Last layers that losses with a margin put in place of a model's own: they keep what angles are made of.

Knows features and weights of classes, not labels or margins.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cvtrain.losses.loss import upcast

SMALLEST_NORM = 1e-6
"""Features or weights no longer than this have no direction: all their cosines are 0, and so is their gradient."""


class CosineLinear(nn.Linear):
    """The cosine between the features and the weights of each class, times a scale; no bias.

    Maps `(B, F)` to `(B, K)`, each in `-scale..scale`. Half types are computed in float32, under autocast too.

    Args:
        linear: The layer to replace; its weights are taken over, its bias is not. Weights that are all zero, as
            transformers begin with, are drawn anew: they have no direction that could be turned.
        scale: Above 0.

    Source: Wang et al. 2018 (arXiv 1801.05599), section 3.1.
    """

    def __init__(self, linear: nn.Linear, *, scale: float) -> None:
        # On the meta device, so that nothing is drawn that is thrown away.
        super().__init__(linear.in_features, linear.out_features, bias=False, device="meta")
        self.weight = linear.weight
        self.scale = scale
        if not self.weight.is_meta and not self.weight.any():
            self.reset_parameters()

    def forward(self, features: Tensor) -> Tensor:
        """See the class."""
        with _without_autocast(features):
            return self.scale * F.linear(_direction(upcast(features)), _direction(upcast(self.weight)))


class LargeMarginLinear(nn.Linear):
    """W x without bias; in training also the products of the norms |W_j| |x|, which an angular margin needs.

    Maps `(B, F)` to `(B, 2K)` in training, first W_j x, then |W_j| |x|; to `(B, K)`, plain logits, in evaluation.
    Half types are computed in float32, under autocast too.

    Args:
        linear: The layer to replace; its weights are taken over, its bias is not.

    Source: Liu et al. 2016 (arXiv 1612.02295), section 3.2.
    """

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__(linear.in_features, linear.out_features, bias=False, device="meta")
        self.weight = linear.weight
        self._with_norms = True

    def train(self, mode: bool = True) -> LargeMarginLinear:
        """As `nn.Module.train`; a frozen layer, whose `training` alone is switched off, keeps its margin."""
        self._with_norms = mode
        return super().train(mode)

    def forward(self, features: Tensor) -> Tensor:
        """See the class."""
        with _without_autocast(features):
            features, weight = upcast(features), upcast(self.weight)
            logits = F.linear(features, weight)
            if not self._with_norms:
                return logits
            norms = torch.linalg.vector_norm(features, dim=-1, keepdim=True)
            return torch.cat([logits, norms * torch.linalg.vector_norm(weight, dim=-1)], dim=-1)


def _direction(vectors: Tensor) -> Tensor:
    """Vectors `(..., F)` of length 1. Clamping the norm instead would blow the gradient up where there is none."""
    norms = torch.linalg.vector_norm(vectors, dim=-1, keepdim=True)
    is_long = norms > SMALLEST_NORM
    return torch.where(is_long, vectors / torch.where(is_long, norms, 1.0), 0.0)


def _without_autocast(tensor: Tensor) -> AbstractContextManager:
    """Switches autocast off, where it is on: an exported or summarised model shows no trace of it."""
    device_type = tensor.device.type
    if device_type == "meta" or not torch.is_autocast_enabled(device_type):
        return nullcontext()
    return torch.autocast(device_type, enabled=False)
