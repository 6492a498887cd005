"""Freezing parameters by name.

Knows names and modules, not what they are for.
"""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase

from torch import nn

from cvtrain.errors import ConfigError


def freeze(model: nn.Module, patterns: Sequence[str]) -> list[nn.Module]:
    """Stops training of the parameters whose names match a pattern such as `features.*`.

    Returns:
        The modules all of whose own parameters match (of modules without any, all buffers). They must stay in
        evaluation mode while the rest trains, each without its children, or the running statistics of a frozen batch
        normalisation would still move.

    Raises:
        ConfigError: A pattern matches nothing, or nothing is left to train.
    """
    names = [name for name, _ in model.named_parameters()]
    unmatched = [p for p in patterns if not any(fnmatchcase(name, p) for name in names)]
    if unmatched:
        groups = list(dict.fromkeys(f"{name.split('.')[0]}.*" for name in names))
        raise ConfigError(
            [f"trainer.freeze: {p!r} matches no parameter" for p in unmatched],
            hint=f"patterns are compared with names such as {names[0]}; there are {', '.join(groups[:8])}",
        )
    for name, parameter in model.named_parameters():
        if _matches(name, patterns):
            parameter.requires_grad_(False)
    if not any(p.requires_grad for p in model.parameters()):
        raise ConfigError("trainer.freeze leaves no parameter to train")
    return [module for name, module in model.named_modules() if _is_frozen(name, module, patterns)]


def _is_frozen(name: str, module: nn.Module, patterns: Sequence[str]) -> bool:
    prefix = f"{name}." if name else ""
    parameters = [prefix + own for own, _ in module.named_parameters(recurse=False)]
    # The statistics of a normalisation without weights of its own can be frozen by their names alone.
    own = parameters or [prefix + own for own, _ in module.named_buffers(recurse=False)]
    return bool(own) and all(_matches(one, patterns) for one in own)


def _matches(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)
