"""The flags of the command line, told apart from its settings.

Knows words; neither configs nor Hydra.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NoReturn

from cvtrain.errors import ConfigError

FLAGS = (
    *("--help", "-h", "--version", "--cfg", "-c", "--resolve", "--config-dir", "-cd", "--config-name", "-cn"),
    *("--multirun", "-m", "--info", "-i", "--shell-completion", "-sc", "--hydra-help"),
)

_MAX_CHARACTERS, _MAX_DEPTH = 100_000, 30
"""Of one setting. Hydra's parser calls itself for every bracket."""


@dataclass(frozen=True)
class Arguments:
    """A command line in parts.

    Args:
        settings: The words that set something.
        config_dir: The folder of the user's own configs, as typed.
        config_name: The root config.
        unknown: Flags that do not exist, each with the value that seems to belong to it (or an empty one).
    """

    settings: tuple[str, ...]
    config_dir: str | None
    config_name: str
    unknown: tuple[tuple[str, str], ...]


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise ConfigError(message.removeprefix("argument "), hint="see cvtrain --help")


def parse_arguments(arguments: Sequence[str]) -> Arguments:
    """Parts a command line into flags and settings.

    Raises:
        ConfigError: A flag without its value, or a setting that no parser can take.
    """
    parser = _Parser(add_help=False, allow_abbrev=False)
    parser.add_argument("settings", nargs="*")
    parser.add_argument("--config-dir", "-cd", default=None)
    parser.add_argument("--config-name", "-cn", default="config")
    words, unknown = _without_unknown_flags(list(arguments))
    parsed = parser.parse_intermixed_args(words)
    settings = without_no_experiment(parsed.settings)
    too_much = [word for word in settings if len(word) > _MAX_CHARACTERS or _depth(word) > _MAX_DEPTH]
    if too_much:
        raise ConfigError([f"{word[:40]}...: is longer, or deeper, than a setting can be" for word in too_much])
    return Arguments(settings, parsed.config_dir, parsed.config_name.removesuffix(".yaml"), unknown)


def _depth(word: str) -> int:
    """How deep the brackets of a word lie in each other."""
    depth = deepest = 0
    for character in word:
        depth += (character in "[{(") - (character in "]})")
        deepest = max(deepest, depth)
    return deepest


def without_no_experiment(words: Sequence[str]) -> tuple[str, ...]:
    """Without the words for no experiment: that is the default, which Hydra has no word for on a command line."""
    return tuple(word for word in words if word not in ("experiment=null", "~experiment"))


def _without_unknown_flags(words: list[str]) -> tuple[list[str], tuple[tuple[str, str], ...]]:
    kept: list[str] = []
    unknown: list[tuple[str, str]] = []
    rest = iter(range(len(words)))
    for i in rest:
        flag, _, value = words[i].partition("=")
        if not flag.startswith("-") or flag in FLAGS:
            kept.append(words[i])
            continue
        following = words[i + 1] if i + 1 < len(words) else ""
        if not value and following and "=" not in following and following[0] not in "-~":
            value = following
            next(rest)
        unknown.append((flag, value))
    return kept, tuple(unknown)
