"""What a config file may set of Hydra's own settings: what an experiment sweeps over, and plain figures.

A file may come from anywhere, and Hydra's settings name folders, shell commands, environment variables and classes to
call. What is not on the list has to be typed. Knows plain containers, not Hydra.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

_PARAMS = "sweeper.params."
_NAMES = (
    *("launcher.partition", "launcher.qos", "launcher.account", "launcher.constraint", "launcher.gres"),
    *("launcher.name", "launcher.comment", "launcher.exclude", "launcher.backend", "launcher.prefer"),
    *("sweeper.sampler", "sweeper.pruner"),
)
"""Settings of launchers and sweepers that hold a name, and reach no shell, no file and no import."""

_OF_EVERY_COMMAND = ("runtime.", "overrides.", "job.config_name", "job.override_dirname")
"""What Hydra itself writes down of a command."""


def file_problems(composed: Mapping[str, Any], *known: Mapping[str, Any], typed: Sequence[str]) -> list[str]:
    """What files set that they may not, wherever in them it stands.

    Args:
        composed: The `hydra` node, not resolved, with the files of the user.
        known: The same launcher and sweeper without them, and what Hydra has of its own.
        typed: The words that were composed, which a file must not add to.
    """
    before = [dict(_leaves(each)) for each in known]
    foreign = [
        f"{f'hydra.{key}'[:80]} stands in a file, where of Hydra's only hydra.sweeper.params and figures of"
        " hydra.launcher and hydra.sweeper may stand: type it"
        for key, value in _leaves(composed)
        if not key.startswith(_OF_EVERY_COMMAND)
        and all(each.get(key) != value for each in before)
        and not may_stand_in_file(key, value)
    ]
    overrides = composed.get("overrides")
    if overrides != {"hydra": [], "task": list(typed)}:
        foreign.append("hydra.overrides stands in a file: words have to be typed")
    return foreign


def may_stand_in_file(key: str, value: Any) -> bool:
    """Whether a setting of Hydra's own is harmless whoever wrote it.

    Args:
        key: Without `hydra.`.
        value: As it stands there, not resolved.
    """
    if key == "sweeper.params":  # none
        return value is None or value == {}
    if key.startswith(_PARAMS):
        return _is_swept(key.removeprefix(_PARAMS))
    if not key.startswith(("launcher.", "sweeper.")) or key.count(".") != 1:
        return False
    if isinstance(value, bool | int | float) or value is None:
        return True
    return key in _NAMES and isinstance(value, str) and re.fullmatch(r"[\w.,:+-]*", value) is not None


def may_be_read_back(key: str, value: str) -> bool:
    """Whether a word that was typed once may be taken from the file that it was written into.

    Args:
        key: Of any setting.
        value: As it was typed.
    """
    if key in ("hydra/launcher", "hydra/sweeper"):
        return True
    if key.startswith("hydra."):
        is_plain = re.fullmatch(r"[\d.eE+-]*|true|false|null", value) is not None
        return may_stand_in_file(key.removeprefix("hydra."), None if is_plain else value)
    return _is_swept(key)


def _is_swept(key: str) -> bool:
    """Whether an experiment may have values for a key: code and Hydra's own settings are named by who types."""
    is_key = re.fullmatch(r"[A-Za-z_][\w.]*", key) is not None
    return is_key and key.partition(".")[0] not in ("hydra", "plugins")


def _leaves(node: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in node.items():
        key = f"{prefix}{name}"
        if f"{key}." == _PARAMS and isinstance(value, Mapping):  # whose keys have dots, and whose values are words
            yield from ((f"{_PARAMS}{k}", v) for k, v in value.items())
        elif isinstance(value, Mapping) and value:
            yield from _leaves(value, f"{key}.")
        else:
            yield key, value
