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
        The modules all of whose own parameters are frozen: they must stay in evaluation mode while the rest trains,
        or the running statistics of a frozen batch normalisation would still move.

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
        if any(fnmatchcase(name, pattern) for pattern in patterns):
            parameter.requires_grad_(False)
    if not any(p.requires_grad for p in model.parameters()):
        raise ConfigError("trainer.freeze leaves no parameter to train")
    own = [(module, list(module.parameters(recurse=False))) for module in model.modules()]
    return [module for module, ps in own if ps and not any(p.requires_grad for p in ps)]
