"""The settings in which runs differ, each run's in the words that would be typed for it.

Knows settings as plain dictionaries and the defaults of packaged options; not what runs reached.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping, Sequence
from typing import Any

from cvtrain.config import RESUME_MAY_CHANGE, Config, config_dir
from cvtrain.schema import leaves, shown
from cvtrain.sweeps.arms import TUNED_KEY

GROUPS = ("model", "optimizer", "augment", "loss", "scheduler", "trainer", "data")
"""Where runs may differ, what matters most first."""

_LENGTHS = ("trainer.epochs", "trainer.steps", "trainer.early_stopping.patience")
_WITHOUT_EFFECT = frozenset(RESUME_MAY_CHANGE) - set(_LENGTHS)
"""Settings of place and speed: they make no difference between two runs."""


def words_of(configs: Sequence[Config]) -> list[dict[str, str]]:
    """For each run the words, by key, that tell it from the others: `{"optimizer": "adam", "seed": "1"}`.

    Where runs chose different options of a group, what follows from the option alone is left out: a key that a run has
    no word for is one that its option has not, or that its option sets. The learning rate is always there.

    Args:
        configs: Of finished or unfinished trainings, as they were saved.
    """
    words: list[dict[str, str]] = [{} for _ in configs]
    for group in GROUPS:
        options = [config["choices"].get(group) for config in configs]
        if len(set(options)) > 1:
            for word, option in zip(words, options, strict=True):
                word[group] = str(option)
        _add_keys(words, group, configs)
    seeds = [_word(config.get("seed")) for config in configs]
    for word, seed in zip(words, seeds, strict=True):
        if len(set(seeds)) > 1:
            word["seed"] = seed
    return words


def _word(value: Any) -> str:
    """A value as it is typed, whole where a shortened one could be taken for another."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)  # 1.0 and 1 are one value
    short = shown(value)
    return short if len(short) < 57 else json.dumps(value, separators=(",", ":"), default=str)


def _add_keys(words: Sequence[dict[str, str]], group: str, configs: Sequence[Config]) -> None:
    """Adds the keys of one group in which runs differ."""
    options = [str(config["choices"].get(group)) for config in configs]
    defaults = [_defaults(group, option) for option in options]
    settings = [
        {**default, **_settings(config.get(group), group)} for default, config in zip(defaults, configs, strict=True)
    ]
    for key in dict.fromkeys(key for each in settings for key in each):
        if key.endswith("._target_") or key in _WITHOUT_EFFECT:
            continue
        values = [_word(each[key]) if key in each else None for each in settings]
        if len(set(values)) == 1 and key != TUNED_KEY:
            continue
        for i, value in enumerate(values):
            of_option = {other for option, other in zip(options, values, strict=True) if option == options[i]}
            is_own = len(of_option) > 1 or (key in defaults[i] and _word(defaults[i][key]) != value)
            is_unset_length = key in _LENGTHS and value == "null"  # the other length says it
            if value is not None and (is_own or key == TUNED_KEY) and not is_unset_length:
                words[i][key] = value


def _settings(node: Any, group: str) -> dict[str, Any]:
    return dict(leaves(node, f"{group}.")) if isinstance(node, Mapping) else {}


@functools.cache
def _defaults(group: str, option: str) -> Mapping[str, Any]:
    """The keys of a packaged option with their values; nothing for an option of the user's own.

    A key that a run lacks, because an earlier version made it, has its default: this is what later versions promise.
    """
    import yaml

    path = config_dir() / group / f"{option}.yaml"
    content = yaml.safe_load(path.read_text(encoding="utf-8")) if path.is_file() else {}
    found: dict[str, Any] = {}
    for parent in content.pop("defaults", []):
        if isinstance(parent, str) and parent != "_self_":
            found |= _defaults(group, parent)
    return found | _settings(content, group)
