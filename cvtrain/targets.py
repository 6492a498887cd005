"""From the dotted name in `_target_` to the one class or function that it may stand for.

A config file may come from anywhere, so a name is looked up only in the packages that its group allows, and must be of
the kind that the group holds. Knows the groups, not what is built from them.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import sys
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cvtrain.errors import ConfigError
from cvtrain.suggestions import nearest


@dataclass(frozen=True)
class Kind:
    """What a group may hold.

    Args:
        packages: Where to look.
        makes: Dotted name of the class of which calling a target gives an instance.
        given: Arguments that come from code, not from the config.
    """

    packages: tuple[str, ...]
    makes: str
    given: tuple[str, ...]


KINDS = {
    "data": Kind(("cvtrain.data",), "cvtrain.data.images.ImageData", ("progress",)),
    "augment": Kind(("cvtrain.data.augment",), "cvtrain.data.augment.Augment", ()),
    "model": Kind(("cvtrain.models",), "torch.nn.Module", ("num_classes", "in_channels", "image_size")),
    "loss": Kind(("cvtrain.losses", "torch.nn"), "torch.nn.Module", ("num_classes", "class_counts")),
    "optimizer": Kind(("cvtrain.muon", "torch.optim"), "torch.optim.Optimizer", ("params",)),
    "scheduler": Kind(("cvtrain.schedulers",), "cvtrain.schedulers.Schedule", ("total_steps", "steps_per_epoch")),
}

SHARED_OPTIONS = {
    "data": ("val_fraction", "max_per_class", "permute_pixels"),
    "model": ("init_from",),
    "optimizer": ("weight_decay", "decay_norm_and_bias"),
}
"""Keys of a group that cvtrain itself reads, and does not hand to the target."""

_NOBODYS_OWN = {*sys.stdlib_module_names, "cvtrain", "hydra", "numpy", "omegaconf", "torch", "torchvision", "timm"}
"""Top-level packages that no user has written: a plugin opens a package to every config file of the command."""


def plugin_problems(plugins: Any, *, typed: bool) -> list[str]:
    """What keeps packages of the user's from being named by a `_target_`.

    They are looked for among the installed packages and in the current folder, and are not imported here.

    Args:
        plugins: The setting; other things than a list of words are left to the schema.
        typed: Whether it stood on the command line.
    """
    if not isinstance(plugins, list) or not all(isinstance(p, str) and p for p in plugins) or not plugins:
        return []
    if not typed:
        return [f"plugins=[{','.join(plugins)}] stands in a file: code is allowed on the command line only"]
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.append(here)
    problems = []
    for plugin in plugins:
        top = plugin.partition(".")[0]
        if top in _NOBODYS_OWN:
            problems.append(f"plugins=[{plugin}]: only a package of your own can be a plugin")
        elif not all(part.isidentifier() for part in plugin.split(".")) or importlib.util.find_spec(top) is None:
            problems.append(f"plugins=[{plugin}]: there is no package {top}, neither installed nor in {here}")
    return problems


def resolve(group: str, target: Any, *, plugins: Sequence[str] = ()) -> Callable[..., Any]:
    """Finds what a `_target_` names.

    Args:
        group: A key of `KINDS`.
        target: A dotted name.
        plugins: Packages of the user's that are allowed too.

    Raises:
        ConfigError: The name is not allowed, does not exist, or is of another kind.
    """
    check_name(group, target, plugins=plugins)
    kind, setting = KINDS[group], f"{group}._target_={target}"
    allowed = (*kind.packages, *plugins)
    module_name, _, name = target.rpartition(".")
    found = _find(module_name, name, setting)
    # A module also holds what it imports (`os`, `torch.load`): only what is defined in an allowed package counts.
    home = getattr(found, "__module__", None) or ""
    if not (inspect.isclass(found) or inspect.isfunction(found)) or not _lies_in(home, allowed):
        raise ConfigError(f"{setting}: not a class or function of {', '.join(allowed)}")
    if not _makes(found, _import(kind.makes), trusted=_lies_in(home, plugins)):
        raise ConfigError(f"{setting}: does not make a {kind.makes}")
    return found


def check_name(group: str, target: Any, *, plugins: Sequence[str] = ()) -> None:
    """Refuses what need not even be imported to be refused.

    Raises:
        ConfigError: It is no dotted name, or one of a package that may not be named.
    """
    setting = f"{group}._target_={target}"
    if not isinstance(target, str) or not all(part.isidentifier() for part in target.split(".")):
        raise ConfigError(f"{setting[:100]}: not a dotted name")
    if any(part.startswith("_") for part in target.split(".")):
        raise ConfigError(f"{setting}: names that begin with _ are private")
    allowed = (*KINDS[group].packages, *plugins)
    if not _lies_in(target.rpartition(".")[0], allowed):
        hint = "allow a package of your own on the command line: plugins=[my_package]"
        raise ConfigError(f"{setting}: only {', '.join(allowed)} may be named here", hint=hint)


def name_problems(settings: Mapping[str, Any]) -> list[str]:
    """What is wrong with the names of all groups, found without importing any of them."""
    plugins, problems = settings.get("plugins"), []
    allowed = [p for p in plugins if isinstance(p, str)] if isinstance(plugins, list) else []
    for group in KINDS:
        node = settings.get(group)
        if not isinstance(node, Mapping):
            continue
        try:
            check_name(group, node.get("_target_"), plugins=allowed)
        except ConfigError as error:
            problems += error.lines()
    return list(dict.fromkeys(problems))  # the hint once


def _find(module_name: str, name: str, setting: str) -> Any:
    """The object of a name in a module that may be imported."""
    try:
        module = importlib.import_module(module_name)
    except Exception as error:  # a module of the user's may fail in any way
        known = isinstance(error, ModuleNotFoundError) and f"{module_name}.".startswith(f"{error.name}.")
        reason = "there is no such module" if known else f"its module fails: {type(error).__name__}: {error}"
        raise ConfigError(f"{setting}: {reason.splitlines()[0]}") from None
    if not hasattr(module, name):
        match = nearest(name, [n for n in vars(module) if not n.startswith("_")])
        meant = f": did you mean {module_name}.{match}?" if match else ""
        raise ConfigError(f"{setting}: there is no such class or function{meant}")
    return getattr(module, name)


def _makes(found: Any, product: type, *, trusted: bool) -> bool:
    """Whether calling gives a `product`; a function of the user's own is believed, ours say so by annotation."""
    if inspect.isclass(found):
        return issubclass(found, product)
    if trusted:
        return True
    try:
        returned = typing.get_type_hints(found).get("return")
    except NameError:
        return False
    return inspect.isclass(returned) and issubclass(returned, product)


def _lies_in(module_name: str, packages: Sequence[str]) -> bool:
    return any(module_name == package or module_name.startswith(package + ".") for package in packages)


def _import(dotted: str) -> Any:
    module_name, _, name = dotted.rpartition(".")
    return getattr(importlib.import_module(module_name), name)


# ----------------------------------------------------------------------------------------------------- arguments


def options_of(group: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a group that are handed to its target."""
    shared = SHARED_OPTIONS.get(group, ())
    return {k: v for k, v in settings.items() if k != "_target_" and k not in shared}


def accepted(found: Callable[..., Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Those of the given arguments that a target takes: a model of the user's need not ask for every fact."""
    parameters = _parameters(found)
    takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    return {name: value for name, value in given.items() if takes_any or name in parameters}


def _parameters(found: Callable[..., Any]) -> Mapping[str, inspect.Parameter]:
    """What a target may be called with. `torch.nn.Module` itself seems to take anything, and refuses all of it."""
    if inspect.isclass(found) and found.__init__.__module__ == "torch.nn.modules.module":
        return {}
    return inspect.signature(found).parameters


def problems_of(group: str, settings: Mapping[str, Any], *, plugins: Sequence[str] = ()) -> list[str]:
    """What keeps the target of a group from being called with its settings."""
    try:
        found = resolve(group, settings.get("_target_"), plugins=plugins)
    except ConfigError as error:
        return error.lines()
    parameters = _parameters(found)
    takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    variable = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
    known = [n for n, p in parameters.items() if n not in KINDS[group].given and p.kind not in variable]
    options, problems = options_of(group, settings), []
    for name in options:
        if name not in known and not takes_any:
            match = nearest(name, known)
            takes = f"it takes {', '.join(known)}" if known else "it takes none"
            meant = f": did you mean {group}.{match}?" if match else f"; {takes}"
            problems.append(f"{group}.{name}: {settings['_target_']} has no such option{meant}")
    for name in known:
        if parameters[name].default is inspect.Parameter.empty and name not in options:
            problems.append(f"{group}.{name} is needed by {settings['_target_']}")
    return problems
