"""The combinations of values that a multirun is made of.

Knows the words that Hydra reads as several values; not what they set.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

from cvtrain.errors import ConfigError
from cvtrain.jobs.stream import Words


def combinations(words: Sequence[str]) -> list[Words]:
    """Every combination of the values of all words, the last word changing fastest.

    Args:
        words: As typed: `optimizer=sgd,adam`, `seed=range(3)`, `model=lenet`.

    Raises:
        HydraException: A word names a range of real numbers, which only a search can sweep over.
    """
    return list(itertools.product(*(alternatives(word) for word in words)))


def alternatives(word: str) -> list[str]:
    """The values of a sweep, each as a setting of its own; of an interval its two ends; any other word as it is.

    Raises:
        ConfigError: It names values in a way that has none.
    """
    override = _parsed(word)
    if override is None or not override.is_sweep_override():
        return [word]
    key = override.get_key_element()
    if override.is_discrete_sweep():
        return [f"{key}={value}" for value in _values(override, word)]
    interval = override.value()
    ends = (interval.start, interval.end)
    return [f"{key}={int(end) if 'int' in interval.tags else end}" for end in ends]


def _values(override: Any, word: str) -> list[str]:
    from hydra.core.override_parser.types import Glob

    if isinstance(override.value(), Glob):
        raise ConfigError(f"{word}: glob() is not taken; name the options, such as model=mlp,lenet")
    try:
        return list(override.sweep_string_iterator())
    except (ValueError, ZeroDivisionError) as error:
        raise ConfigError(f"{word}: {error}") from None


def is_interval(word: str) -> bool:
    """Whether a word stands for infinitely many values."""
    override = _parsed(word)
    return override is not None and override.is_sweep_override() and not override.is_discrete_sweep()


def key_of(word: str) -> str:
    """What a word sets."""
    return word.lstrip("+~").partition("=")[0]


def is_hydras(word: str) -> bool:
    """Whether a word sets something of Hydra's own."""
    return word.lstrip("+~").startswith(("hydra.", "hydra/"))


def _parsed(word: str) -> Any:
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    try:
        return OverridesParser.create().parse_override(word)
    except HydraException:
        return None
