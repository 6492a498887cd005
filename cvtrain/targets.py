"""From the dotted name in `_target_` to the one class or function that it may stand for.

A config file may come from anywhere, so a name is looked up only in the packages that its group allows, and must be of
the kind that the group holds. Knows the groups, not what is built from them.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cvtrain.errors import ConfigError
from cvtrain.schema import nearest


@dataclass(frozen=True)
class Kind:
    """What a group may hold.

    Args:
        packages: Where to look.
        base: Dotted name of the class that it must derive from; None: a function or a class.
        given: Arguments that come from code, not from the config.
    """

    packages: tuple[str, ...]
    base: str | None
    given: tuple[str, ...]


KINDS = {
    "data": Kind(("cvtrain.data",), None, ("progress",)),
    "augment": Kind(("cvtrain.data.augment",), None, ()),
    "model": Kind(("cvtrain.models",), None, ("num_classes", "in_channels", "image_size")),
    "loss": Kind(("cvtrain.losses", "torch.nn"), "torch.nn.Module", ("num_classes", "class_counts")),
    "optimizer": Kind(("cvtrain.muon", "torch.optim"), "torch.optim.Optimizer", ("params",)),
    "scheduler": Kind(("cvtrain.schedulers",), None, ("total_steps", "steps_per_epoch")),
}

SHARED_OPTIONS = {
    "data": ("val_fraction", "max_per_class"),
    "optimizer": ("weight_decay", "decay_norm_and_bias"),
}
"""Keys of a group that cvtrain itself reads, and does not hand to the target."""


def resolve(group: str, target: Any, *, plugins: Sequence[str] = ()) -> Callable[..., Any]:
    """Finds what a `_target_` names.

    Args:
        group: A key of `KINDS`.
        target: A dotted name.
        plugins: Packages of the user's that are allowed too.

    Raises:
        ConfigError: The name is not allowed, does not exist, or is of another kind.
    """
    kind = KINDS[group]
    if not isinstance(target, str) or not all(part.isidentifier() for part in target.split(".")):
        raise ConfigError(f"{group}._target_={target}: not a dotted name")
    module_name, _, name = target.rpartition(".")
    allowed = (*kind.packages, *plugins)
    if not _lies_in(module_name, allowed):
        raise ConfigError(
            f"{group}._target_={target}: only {', '.join(allowed)} may be named here",
            hint="allow a package of your own on the command line: plugins=[my_package]",
        )
    try:
        found = getattr(importlib.import_module(module_name), name)
    except (ImportError, AttributeError):
        raise ConfigError(f"{group}._target_={target}: there is no such class or function") from None
    # A module also holds what it imports (`os`, `torch.load`): only what is defined in an allowed package counts.
    home = getattr(found, "__module__", None) or ""
    if not (inspect.isclass(found) or inspect.isfunction(found)) or not _lies_in(home, allowed):
        raise ConfigError(f"{group}._target_={target}: not a class or function of {', '.join(allowed)}")
    if kind.base and not (inspect.isclass(found) and issubclass(found, _import(kind.base))):
        raise ConfigError(f"{group}._target_={target}: not a {kind.base}")
    return found


def _lies_in(module_name: str, packages: Sequence[str]) -> bool:
    return any(module_name == package or module_name.startswith(package + ".") for package in packages)


def _import(dotted: str) -> Any:
    module_name, _, name = dotted.rpartition(".")
    return getattr(importlib.import_module(module_name), name)


def options_of(group: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a group that are handed to its target."""
    shared = SHARED_OPTIONS.get(group, ())
    return {k: v for k, v in settings.items() if k != "_target_" and k not in shared}


def problems_of(group: str, settings: Mapping[str, Any], *, plugins: Sequence[str] = ()) -> list[str]:
    """What keeps the target of a group from being called with its settings."""
    try:
        found = resolve(group, settings.get("_target_"), plugins=plugins)
    except ConfigError as error:
        return error.lines()
    parameters = inspect.signature(found).parameters
    if any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        return []
    known = [name for name in parameters if name not in KINDS[group].given and name != "self"]
    problems = []
    for name in options_of(group, settings):
        if name not in known:
            match = nearest(name, known)
            meant = f": did you mean {group}.{match}?" if match else f"; it takes {', '.join(known)}"
            problems.append(f"{group}.{name}: {settings['_target_']} has no such option{meant}")
    return problems
