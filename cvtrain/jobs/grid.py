"""The combinations of values that a multirun is made of.

Knows the words that Hydra reads as several values; not what they set.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from typing import Any

from cvtrain.errors import ConfigError
from cvtrain.jobs.stream import Words

MAX_JOBS = 10_000
"""More than anybody waits for; `seed=range(1000000)` is a slip, and shall be told at once."""


def combinations(words: Sequence[str]) -> list[Words]:
    """Every combination of the values of all words, each once, the last word changing fastest.

    Args:
        words: As typed: `optimizer=sgd,adam`, `seed=range(3)`, `model=lenet`.

    Raises:
        ConfigError: There are too many.
    """
    choices = [alternatives(word) for word in words]
    if math.prod(map(len, choices)) > MAX_JOBS:
        most = max(words, key=lambda word: len(alternatives(word)))
        raise ConfigError(f"{most}: makes more than {MAX_JOBS:,} jobs", hint="take fewer values, or several commands")
    return list(dict.fromkeys(itertools.product(*choices)))


def each_value_once(words: Sequence[str]) -> Iterator[Words]:
    """As few jobs as have every value of every word."""
    choices = [alternatives(word) for word in words]
    for i in range(max((len(values) for values in choices), default=1)):
        yield tuple(values[min(i, len(values) - 1)] for values in choices)


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
        return list(itertools.islice(override.sweep_string_iterator(), MAX_JOBS + 1))
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
