"""Hydra, set up to compose the packaged configs and the user's, with its errors in our words.

Knows configs as Hydra does; not which settings are right.
"""

from __future__ import annotations

import copy
import functools
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

from cvtrain import schema
from cvtrain.arguments import Arguments
from cvtrain.config import Config, check_root_config, config_dir, user_config_dir
from cvtrain.errors import ConfigError
from cvtrain.help import GROUPS, options_of
from cvtrain.suggestions import unknown_option, unresolved

_COMPOSED: dict[tuple[str, ...], Any] = {}
_DEFAULTS: dict[tuple[str, ...], Any] = {}
_MAX_REMEMBERED = 64


def _remembered(memory: dict[tuple[str, ...], Any], key: tuple[str, ...], make: Callable[[], Any]) -> Any:
    """A copy of what was made for a key, the first time it was asked for; the oldest is forgotten for a new one."""
    if key not in memory:
        made = make()
        while len(memory) >= _MAX_REMEMBERED:
            del memory[next(iter(memory))]
        memory[key] = made
    return copy.deepcopy(memory[key])


@functools.cache
def _user_configs_plugin() -> Any:
    """Hydra's way to learn of a further folder of configs, root configs among them."""
    from hydra.core.config_search_path import ConfigSearchPath
    from hydra.plugins.search_path_plugin import SearchPathPlugin

    class UserConfigs(SearchPathPlugin):
        folders: ClassVar[list[Path]] = []

        def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
            for folder in self.folders:
                search_path.append("user", f"file://{folder}")

    return UserConfigs


class Composer:
    """Hydra, set up for composing with the packaged configs and, after them, the user's."""

    def __init__(self, parsed: Arguments) -> None:
        user_dir = user_config_dir(parsed.config_dir)
        self.folders = [config_dir(), *([user_dir] if user_dir else [])]
        check_root_config(parsed.config_name, self.folders)
        self.config_name = parsed.config_name
        self.groups = list(GROUPS)
        # What the package brings does not change while a process lives; what the user brings may.
        self._composed, self._defaults = ({}, {}) if self.folders[1:] else (_COMPOSED, _DEFAULTS)

    def __enter__(self) -> Composer:
        from hydra import initialize_config_dir
        from hydra.core.global_hydra import GlobalHydra
        from hydra.core.plugins import Plugins

        # In a multirun Hydra is at work around us: its state is put back afterwards.
        self._outer = GlobalHydra.instance().hydra
        GlobalHydra.instance().clear()
        user_configs = _user_configs_plugin()
        Plugins.instance().register(user_configs)
        user_configs.folders = self.folders[1:]
        self._context = initialize_config_dir(str(config_dir()), version_base="1.3")
        user_configs.folders = []
        self._context.__enter__()
        return self

    def __exit__(self, *exception: object) -> None:
        from hydra.core.global_hydra import GlobalHydra

        self._context.__exit__(*exception)
        GlobalHydra.instance().hydra = self._outer

    def compose(self, overrides: list[str], *, config_name: str | None = None) -> Any:
        """Composes settings.

        Raises:
            ConfigError: A file that cannot be read, or names what does not exist.
        """
        from hydra import compose
        from hydra.errors import HydraException
        from omegaconf.errors import OmegaConfBaseException
        from yaml import YAMLError

        try:
            return compose(config_name or self.config_name, overrides=overrides, return_hydra_config=True)
        except (HydraException, OmegaConfBaseException, YAMLError, ValueError, OSError) as error:
            raise ConfigError(self._explain(error)) from None

    def compose_choices(self, choices: list[str]) -> Any:
        """As `compose`, for words that choose options; what many jobs have in common is composed once.

        Raises:
            ConfigError: As `compose`.
        """
        return _remembered(self._composed, (self.config_name, *choices), lambda: self.compose(choices))

    def defaults_of(self, choices: list[str]) -> Config:
        """The settings of options as the packaged root config has them, without any value of the user.

        Raises:
            ConfigError: As `compose`.
        """

        def make() -> Config:
            return plain_settings(self.compose(choices, config_name="config"), {}, [])

        return _remembered(self._defaults, tuple(choices), make)

    def _explain(self, error: Exception) -> str:
        """Hydra's words for a failed composition, in one sentence."""
        message = " ".join(str(error).split())
        missing = re.match(r"(?:In '([^']+)': )?Could not (?:find|load) '([^'/]+)/([^']+)'", message)
        if missing and missing[2] in self.groups:
            where = f"in {missing[1]}: " if missing[1] not in (None, "config") else ""
            return where + unknown_option(missing[2], missing[3], self.options(missing[2]))
        message = re.sub(r"^In '([^']+)': ", r"in \1: ", message)
        for tail in ("Available options", "Config search path", "To append to your", "full_key:", "Did you mean"):
            message = message.split(tail)[0].rstrip()
        return f"the config cannot be composed: {message[:300]}"

    def options(self, group: str) -> list[str]:
        """The options of a group, the user's included."""
        return options_of(group, *self.folders)

    @staticmethod
    def hydras_options(group: str) -> list[str]:
        """The options of a group of Hydra's own; none where there is no such group."""
        from hydra.core.global_hydra import GlobalHydra

        return GlobalHydra.instance().config_loader().get_group_options(group)

    def known_keys(self) -> list[str]:
        """The keys of a command without any word."""
        return [key for key, _ in schema.leaves(self.defaults_of([])) if not key.endswith("_target_")]


def plain_settings(composed: Any, reference: Config, problems: list[str]) -> Config:
    """The settings as plain, resolved containers, without Hydra's own.

    A value that cannot be resolved becomes a problem, and is replaced by that of `reference`.
    """
    from omegaconf import OmegaConf, open_dict
    from omegaconf.errors import OmegaConfBaseException

    with open_dict(composed):
        composed.pop("hydra")

    def resolve(node: Any, key: str) -> Any:
        if OmegaConf.is_dict(node):
            return {k: take(node, k, f"{key}.{k}" if key else str(k)) for k in node}
        if OmegaConf.is_list(node):
            return [take(node, i, f"{key}[{i}]") for i in range(len(node))]
        return node

    def take(node: Any, name: Any, key: str) -> Any:
        try:
            return resolve(node[name], key)
        except (OmegaConfBaseException, RecursionError) as error:
            problems.append(unresolved(key, OmegaConf.to_container(node, resolve=False)[name], error))
            return schema.look_up(reference, key)[1]

    return resolve(composed, "")


def with_values(composed: Any, values: list[Any]) -> tuple[Any, list[Any]]:
    """A composition with values set in it, whether their keys exist or not, and the overrides that do not fit."""
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    misfits = []
    for override in values:
        try:
            OmegaConf.update(composed, override.key_or_group, override.value(), merge=True, force_add=True)
        except (OmegaConfBaseException, AssertionError, TypeError, ValueError):
            misfits.append(override)
    return composed, misfits
