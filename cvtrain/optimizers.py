"""Building an optimizer over a model's trainable parameters, with weight decay on weights only.

Knows nothing of configs, schedules or training loops.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import SGD, Adagrad, Adam, AdamW, Optimizer

from cvtrain.errors import ConfigError

FUSED_DEVICES: dict[type[Optimizer], tuple[str, ...]] = {
    SGD: ("cpu", "cuda", "mps"),
    Adam: ("cpu", "cuda", "mps"),
    AdamW: ("cpu", "cuda", "mps"),
    Adagrad: ("cpu",),
}
"""Where torch (from 2.11 on) has one kernel for the whole step of an optimizer."""

SET_HERE = ("params", "foreach", "fused")
"""Arguments of an optimizer that are no options: how a step is computed follows from the device."""


def build_optimizer(
    optimizer_class: type[Optimizer],
    model: nn.Module,
    *,
    weight_decay: float,
    decay_norm_and_bias: bool = False,
    device_type: str,
    **options: Any,
) -> Optimizer:
    """An optimizer over the parameters of a model that require a gradient.

    Args:
        optimizer_class: A class of `torch.optim`, or one with the same construction.
        model: Preferably on its device already; some optimizers make their state at once.
        weight_decay: The class's own kind of decay (L2 or decoupled) for parameters with two axes or more.
        decay_norm_and_bias: Decay parameters with fewer axes, norms and biases, as well.
        device_type: `cpu`, `cuda` or `mps`: where the steps will be taken.
        **options: The class's own arguments (lr, momentum, betas, ...); lists become tuples.

    Returns:
        An optimizer whose steps give the same bits when repeated on the same machine.

    Raises:
        ConfigError: All parameters are frozen; an option that the class does not have, or refuses.

    Source: no decay on norms and biases, He et al. 2019 (arXiv 1812.01187), section 3.1.
    """
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if not parameters:
        raise ConfigError("all parameters are frozen: there is nothing to optimize", hint="set trainer.freeze=[]")
    options = {name: _plain(value) for name, value in options.items()}
    _check_options(optimizer_class, {**options, "weight_decay": weight_decay})
    if device_type in FUSED_DEVICES.get(optimizer_class, ()):
        options["fused"] = all(parameter.is_floating_point() for parameter in parameters)
    groups = _decay_groups(parameters, weight_decay=weight_decay, decay_all=decay_norm_and_bias)
    try:
        optimizer = optimizer_class(groups, weight_decay=weight_decay, **options)
    except (ValueError, TypeError) as error:
        raise ConfigError(f"optimizer {optimizer_class.__name__} refuses its options: {error}") from error
    if options.get("fused"):
        optimizer.register_step_pre_hook(_align_memory)
    return optimizer


def _decay_groups(parameters: list[Tensor], *, weight_decay: float, decay_all: bool) -> list[dict[str, Any]]:
    decayed = [parameter for parameter in parameters if decay_all or parameter.ndim > 1]
    others = [parameter for parameter in parameters if not decay_all and parameter.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}]
    return [group for group in groups if group["params"]]


def _check_options(optimizer_class: type[Optimizer], options: dict[str, Any]) -> None:
    arguments = inspect.signature(optimizer_class).parameters
    known = [name for name in arguments if name not in SET_HERE]
    takes_any = any(argument.kind is argument.VAR_KEYWORD for argument in arguments.values())
    problems = []
    for name, value in options.items():
        if name not in known and (not takes_any or name in SET_HERE):
            nearest = get_close_matches(name, known, n=1, cutoff=0.5)
            suggestion = f"; did you mean {nearest[0]}?" if nearest else ""
            problems.append(f"optimizer {optimizer_class.__name__} has no option {name}{suggestion}")
        elif isinstance(value, float) and not math.isfinite(value):
            problems.append(f"optimizer.{name} is {value}; it must be finite")
    if problems:
        raise ConfigError(problems, hint=f"options of {optimizer_class.__name__}: {', '.join(known)}")


def _plain(value: Any) -> Any:
    return tuple(value) if isinstance(value, Sequence) and not isinstance(value, str) else value


def _align_memory(optimizer: Optimizer, *_: Any) -> None:
    """Lay gradients and state out in memory as their parameters are.

    The fused kernels walk through memory without looking at strides: with a channels-last weight and a momentum that
    was loaded from a contiguous one they would pair the wrong numbers, and say nothing.
    """
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            if parameter.grad is not None and not _same_layout(parameter.grad, parameter):
                parameter.grad = torch.empty_like(parameter).copy_(parameter.grad)
            state = optimizer.state.get(parameter, {})
            for name, value in state.items():
                if isinstance(value, Tensor) and not _same_layout(value, parameter):
                    state[name] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)


def _same_layout(tensor: Tensor, parameter: Tensor) -> bool:
    """Whether elements lie in the same order; tensors of another shape, such as step counters, pass."""
    if tensor.stride() == parameter.stride() or tensor.shape != parameter.shape:
        return True
    # Along an axis of length 1 (a 1x1 filter) any stride is right.
    pairs = zip(parameter.shape, tensor.stride(), parameter.stride(), strict=True)
    return all(length == 1 or ours == theirs for length, ours, theirs in pairs)
