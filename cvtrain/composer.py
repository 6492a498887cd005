"""Hydra, set up to compose the packaged configs and the user's, with its errors in our words.

Knows configs as Hydra does; not which settings are right.
"""

from __future__ import annotations

import copy
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cvtrain import hydra_settings, schema
from cvtrain.arguments import Arguments
from cvtrain.config import Config, check_root_config, config_dir, user_config_dir
from cvtrain.errors import ConfigError
from cvtrain.help import GROUPS, options_of
from cvtrain.origins import Part
from cvtrain.suggestions import unknown_option, unresolved
from cvtrain.user_configs import in_short, known_to_hydra, words_in

_COMPOSED: dict[tuple[str, ...], Any] = {}
_DEFAULTS: dict[tuple[str, ...], Any] = {}
_MAX_REMEMBERED = 64

SEVERAL_AT_ONCE = ("tracker",)
"""Groups of which several options may be chosen, as in tracker=[tensorboard,mlflow]."""

_MAX_VALUES, _MAX_CHARACTERS = 10_000, 10_000_000
"""What references may be written out to: a few lines of them can stand for billions."""


def _remembered(memory: dict[tuple[str, ...], Any], key: tuple[str, ...], make: Callable[[], Any]) -> Any:
    """A copy of what was made for a key, the first time it was asked for; the oldest is forgotten for a new one."""
    if key not in memory:
        made = make()
        while len(memory) >= _MAX_REMEMBERED:
            del memory[next(iter(memory))]
        memory[key] = made
    return copy.deepcopy(memory[key])


class Composer:
    """Hydra, set up for composing with the packaged configs and, after them, the user's."""

    def __init__(self, parsed: Arguments) -> None:
        if re.search(r"\.\.|^[/~]", parsed.config_name):
            raise ConfigError(f"--config-name {parsed.config_name}: is no name; --config-dir DIR names its folder")
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

        # In a multirun Hydra is at work around us: its state is put back afterwards.
        self._outer = GlobalHydra.instance().hydra
        GlobalHydra.instance().clear()
        with known_to_hydra(self.folders[1:]):
            self._context = initialize_config_dir(str(config_dir()), version_base="1.3")
        self._context.__enter__()
        return self

    def __exit__(self, *exception: object) -> None:
        from hydra.core.global_hydra import GlobalHydra

        self._context.__exit__(*exception)
        GlobalHydra.instance().hydra = self._outer

    def compose(self, overrides: list[str], *, config_name: str | None = None) -> Any:
        """Composes settings, of another root config where one is named; of none where its name is empty.

        Raises:
            ConfigError: A file that cannot be read, or names what does not exist.
        """
        from hydra import compose

        try:
            name = self.config_name if config_name is None else config_name or None
            return compose(name, overrides=overrides, return_hydra_config=True)
        except ConfigError:
            raise
        except Exception as error:  # files of the user's trip Hydra in many ways, and it has no class for most of them
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

        chosen = [word.split("=", 1) for word in choices]
        is_packaged = all(option in options_of(group, config_dir()) for group, option in chosen)
        return _remembered(_DEFAULTS if is_packaged else self._defaults, tuple(choices), make)

    def parts_of(self, choices: list[str]) -> list[Part]:
        """The files that options are composed of, later ones win; Hydra's own left out.

        Raises:
            ConfigError: As `compose`.
        """
        from hydra.core.global_hydra import GlobalHydra
        from hydra.types import RunMode

        loader = GlobalHydra.instance().config_loader()
        try:
            found = loader.compute_defaults_list(self.config_name, choices, RunMode.RUN).defaults
        except Exception as error:
            raise ConfigError(self._explain(error)) from None
        named = [(each.config_path, each.package or "") for each in found if each.config_path]
        paths = [(name, package, *self._file_of(name)) for name, package in named]
        return [
            Part(path, "" if package == "_global_" else package, name, is_packaged)
            for name, package, path, is_packaged in paths
            if path.is_file()
        ]

    def _file_of(self, name: str) -> tuple[Path, bool]:
        """The file of a config, and whether it came with cvtrain."""
        found = [folder for folder in self.folders if (folder / f"{name}.yaml").is_file()]
        folder = found[0] if found else self.folders[0]
        return folder / f"{name}.yaml", folder == self.folders[0]

    def foreign_hydra_settings(self, composed: Any, *, typed: list[str]) -> list[str]:
        """What files of the user set of Hydra's own settings, and may not.

        Raises:
            ConfigError: As `compose`.
        """
        from omegaconf import OmegaConf

        if not self.folders[1:]:
            return []
        chosen = composed.hydra.runtime.choices
        words = [f"hydra/{group}={chosen[f'hydra/{group}']}" for group in ("launcher", "sweeper")]
        packaged = _remembered(_COMPOSED, ("config", *words), lambda: self.compose(words, config_name="config"))
        hydras = _remembered(_COMPOSED, ("",), lambda: self.compose([], config_name=""))
        plain = [OmegaConf.to_container(each.hydra, resolve=False) for each in (composed, packaged, hydras)]
        return hydra_settings.file_problems(*plain, typed=typed)

    def _explain(self, error: Exception) -> str:
        """Hydra's words for a failed composition, in one sentence."""
        if isinstance(error, RecursionError):
            return "the config cannot be composed: files of yours name each other in a circle"
        message = in_short(error)
        missing = re.match(r"(?:In '([^']+)': )?Could not (?:find|load) '([^'/]+)/([^']+)'", message)
        if missing and missing[2] in self.groups:
            where = f"in {missing[1]}: " if missing[1] not in (None, "config") else ""
            group, _, option = missing[3].rpartition("/")
            if group in self.groups:
                return f"{where}an option of another group is chosen by: - override /{group}: {option}"
            return where + unknown_option(missing[2], missing[3], self.options(missing[2]))
        message = re.sub(r"^In '([^']+)': ", r"in \1: ", message)
        if "Cannot merge" in message:
            message = message.split("ConfigTypeError")[0] + "a list stands where keys belong, or keys where a list does"
        return f"the config cannot be composed: {message}"

    def options(self, group: str) -> list[str]:
        """The options of a group, the user's included."""
        return options_of(group, *self.folders)

    def unknown_options(self, group: str, value: Any) -> list[Any]:
        """What a typed value names that is no option of a group; of trackers there may be several, `[a,b]`."""
        values = value if isinstance(value, list) and group in SEVERAL_AT_ONCE else [value]
        return [each for each in values if str(each) not in self.options(group)]

    def selected(self, composed: Any, words: list[str]) -> dict[str, str]:
        """The option of each group that a composition of words has; several at once, which Hydra does not note."""
        noted = composed.hydra.runtime.choices.items()
        chosen = {group: str(option) for group, option in noted if group in self.groups and option is not None}
        for group in SEVERAL_AT_ONCE:
            if group not in chosen:
                parts = [part.option.partition("/") for part in self.parts_of(words)]
                options = [option for of_group, _, option in parts if of_group == group]
                chosen[group] = schema.shown(options) if options else "none"
        return chosen

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

    Raises:
        ConfigError: Written out, the references would fill the memory.
    """
    from omegaconf import OmegaConf, open_dict
    from omegaconf.errors import OmegaConfBaseException

    with open_dict(composed):
        composed.pop("hydra")
    words = [word for word in words_in(OmegaConf.to_container(composed, resolve=False)) if "${" in word]
    # No reference is met twice on one way, so this is the most that any text can become.
    most = max(map(len, words), default=0) * math.prod(word.count("${") for word in words)
    num_values = 0

    def resolve(node: Any, key: str) -> Any:
        nonlocal num_values
        num_values += 1
        if most > _MAX_CHARACTERS or num_values > _MAX_VALUES:
            raise ConfigError(f"{key or schema.shown(words[0])}: written out, its references are too much for a config")
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

    settings = resolve(composed, "")
    if not settings.get("tracker", True):  # with none of them there is no key, and none may be set
        del settings["tracker"]
    return settings


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
