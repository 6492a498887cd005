"""The choice between PyTorch's own initialisation and He's, which very deep plain nets need.

Does not know how a model was made, nor pretrained weights beyond the fact that they are not PyTorch's defaults.
"""

from __future__ import annotations

import math

import torch
from torch import nn

from cvtrain.errors import ConfigError

INITIALISATIONS = ("auto", "default", "he")

# Up to eight convolutions (VGG-11) the default's shrinkage by sqrt(6) a layer is still overcome in training.
MAX_PLAIN_CONVOLUTIONS = 8

_Conv = nn.modules.conv._ConvNd


def initialise(model: nn.Module, *, init: str, generator: torch.Generator | None = None) -> str:
    """Initialise the weights of `model` in place, and say how.

    `default` leaves every weight as it is. `he` draws convolutions from N(0, 2 / fan_out) and linear layers from
    N(0, 2 / fan_in), with zero biases; all else is left alone. `auto` takes `he` where the default fails: more than
    eight convolutions, no normalisation layer, and weights that are PyTorch's defaults (a library's own
    initialisation and pretrained weights are never overwritten).

    Why: PyTorch draws a convolution with variance 1 / (3 fan_in), a sixth of He's. After the 13 convolutions of a
    plain VGG-16 the logits of different images differ by about 1e-7, and nothing is learnt.

    Args:
        model: Changed in place.
        init: `auto`, `default` or `he`.
        generator: Source of the draws; None: torch's global generator.

    Returns:
        `he` or `default`: what was used.

    Raises:
        ConfigError: An unknown `init`.

    Source: He et al. 2015 (1502.01852), section 2.2, equations 10 and 14.
    """
    if init not in INITIALISATIONS:
        raise ConfigError(f"trainer.init={init} is unknown", hint="take " + ", ".join(INITIALISATIONS))
    if init == "default" or (init == "auto" and not _needs_he(model)):
        return "default"
    for module in model.modules():
        if isinstance(module, _Conv | nn.Linear):
            mode = "fan_in" if isinstance(module, nn.Linear) else "fan_out"
            nn.init.kaiming_normal_(module.weight, mode=mode, nonlinearity="relu", generator=generator)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    return "he"


def _needs_he(model: nn.Module) -> bool:
    convs = [module for module in model.modules() if isinstance(module, _Conv)]
    if len(convs) <= MAX_PLAIN_CONVOLUTIONS:
        return False
    # By name, since libraries bring normalisation layers of their own that share no class with PyTorch's.
    if any("norm" in type(module).__name__.lower() for module in model.modules()):
        return False
    return all(_is_within_default_bound(conv) for conv in convs)


def _is_within_default_bound(conv: nn.Module) -> bool:
    """Whether the weights can come from PyTorch's default, which is uniform within 1 / sqrt(fan_in)."""
    fan_in = conv.weight[0].numel()
    return conv.weight.detach().abs().max().item() <= 1.0001 / math.sqrt(fan_in)
