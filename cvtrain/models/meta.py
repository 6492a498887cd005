"""Copies of models on the meta device, where tensors have shapes and no numbers.

Does not know what the copies are used for.
"""

from __future__ import annotations

import copy

from torch import nn


def on_meta(model: nn.Module) -> nn.Module:
    """A copy of `model` on the meta device; the model itself stays as it is, and its weights are not copied."""
    # deepcopy finds every tensor already copied, so that a large model does not take its memory twice.
    memo: dict[int, object] = {}
    for parameter in model.parameters():
        memo[id(parameter)] = nn.Parameter(parameter.detach().to("meta"), requires_grad=parameter.requires_grad)
    for buffer in model.buffers():
        memo[id(buffer)] = buffer.detach().to("meta")
    return copy.deepcopy(model, memo)
