"""The layer that gives a model's logits: found by watching the model run, and replaced at its place.

Knows modules, not what is put in that place.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable

import torch
from torch import Tensor, nn

from cvtrain.errors import ConfigError
from cvtrain.models.meta import on_meta

_PLAIN = ("torch.nn.modules.linear.Linear", "timm.layers.linear.Linear")
"""Layers that are W x + b and no more, as other subclasses may be; timm's differs under TorchScript alone."""


def replace_head(
    model: nn.Module, make: Callable[[nn.Linear], nn.Module], *, in_channels: int, image_size: int, reason: str
) -> None:
    """Put another layer in place of the linear layer whose outputs are the model's logits, under the same name.

    Args:
        model: Changed in place; on any device. Takes float images `(B, in_channels, image_size, image_size)`.
        make: Makes the new layer from the old one.
        in_channels: Channels of the images.
        image_size: Height and width of the images, in pixels.
        reason: What asks for this, e.g. `loss=am_softmax`, for the message.

    Raises:
        ConfigError: The logits are not the outputs of one linear layer.
    """
    name = _name_of_head(model, images=torch.empty(2, in_channels, image_size, image_size, device="meta"))
    if not name:
        raise ConfigError(
            f"{reason} replaces the linear layer that gives the logits, and this model has none",
            hint="type loss=soft_margin_softmax, which takes the logits of any model, or another model",
        )
    model.set_submodule(name, make(model.get_submodule(name)))


def _name_of_head(model: nn.Module, *, images: Tensor) -> str | None:
    """The dotted name, or None. Nothing is computed, and torch's global random state stays as it was."""
    twin = on_meta(model).train()
    outputs: dict[str, list[Tensor]] = {}

    def watch(name: str, module: nn.Module) -> None:
        module.register_forward_hook(lambda _module, _inputs, output: outputs.setdefault(name, []).append(output))

    for name, module in twin.named_modules():
        if f"{type(module).__module__}.{type(module).__name__}" in _PLAIN:
            watch(name, module)
    # Not every library keeps its hands off the generator when it runs on the meta device.
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        logits = twin(images)
    # The last layer by name or order is not always it: some models average the logits of two.
    for name, results in outputs.items():
        if len(results) == 1 and (logits is results[0] or logits._base is results[0]):
            return name
    return None
