"""All that is searched and all that is fixed, read from the words of a command line.

Knows what Hydra's parser makes of a word, by its methods alone; not Hydra itself, and not how a search goes about it.
"""

from __future__ import annotations

import hashlib
import itertools
import math
import random
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from cvtrain.config import RUN_ONLY_KEYS, masked
from cvtrain.errors import ConfigError
from cvtrain.jobs.stream import Words
from cvtrain.search.parameters import Choice, Interval, Parameter, Steps, Value, draw, word_of

_TAGS = ("log", "int")
_MAX_DRAWS = 1000
_EXAMPLE = "optimizer.lr='tag(log,interval(1e-4,1e-1))'"

Key = tuple[str, ...]
"""The searched words of a trial, in the order of their keys: two trials with the same are the same."""


@dataclass(frozen=True)
class Space:
    """What the trials of a search have in common, and what they differ in.

    Args:
        typed: In the order in which they were typed: fixed words, and what stands for those that are searched.
    """

    typed: tuple[str | Parameter, ...]

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        """What is searched, by key."""
        found = [each for each in self.typed if not isinstance(each, str)]
        return tuple(sorted(found, key=lambda parameter: parameter.key))

    @property
    def fixed(self) -> dict[str, str]:
        """The other words by their keys, secrets masked, without those that change no result."""
        words = [each.lstrip("+") for each in self.typed if isinstance(each, str)]
        pairs = {key: value for key, _, value in (word.partition("=") for word in words)}
        return {k: str(masked(v, k)) for k, v in sorted(pairs.items()) if k.partition(".")[0] not in RUN_ONLY_KEYS}

    def name(self) -> str:
        """The same for the same values of the same keys, however they were typed."""
        said = "/".join(repr((type(each).__name__, *_defining(each))) for each in self.parameters)
        return f"search-{hashlib.sha256(said.encode()).hexdigest()[:12]}"

    def words(self, values: Mapping[str, Value]) -> Words:
        """What is typed for a trial."""
        return tuple(
            each if isinstance(each, str) else f"{each.typed_key}={word_of(values[each.key])}" for each in self.typed
        )

    def key(self, values: Mapping[str, Value]) -> Key:
        """The searched words of a trial."""
        return tuple(f"{each.key}={word_of(values[each.key])}" for each in self.parameters)

    def key_of(self, words: Words) -> Key:
        """The searched words among those of a job."""
        searched = {each.key for each in self.parameters}
        plain = [word.lstrip("+") for word in words]
        mine = [word for word in plain if word.partition("=")[0] in searched]
        return tuple(sorted(mine, key=lambda word: word.partition("=")[0]))

    def holds(self, values: Mapping[str, Value]) -> bool:
        """Whether a trial, perhaps of another space, is one of this space."""
        return {each.key for each in self.parameters} == set(values) and all(
            each.holds(values[each.key]) for each in self.parameters
        )

    @property
    def num_combinations(self) -> int | None:
        """How many trials differ; None where an interval of real numbers is searched."""
        sizes = [each.num_values for each in self.parameters]
        return None if None in sizes else math.prod(sizes)  # type: ignore[arg-type]

    def untried(self, tried: Collection[Key], rng: random.Random) -> dict[str, Value] | None:
        """A trial that is not among those tried, at random; None where there is none, or none is found."""
        for _ in range(_MAX_DRAWS):
            values = {each.key: draw(each, rng) for each in self.parameters}
            if self.key(values) not in tried:
                return values
        if self.num_combinations is None:
            return None
        # So many draws in vain mean that few are left.
        names = [each.key for each in self.parameters]
        for combination in itertools.product(*(each.values() for each in self.parameters)):
            values = dict(zip(names, combination, strict=True))
            if self.key(values) not in tried:
                return values
        return None


def _defining(parameter: Parameter) -> tuple[Any, ...]:
    return tuple(value for name, value in vars(parameter).items() if name not in ("typed_key", "text"))


# --------------------------------------------------------------------------------------------- reading words


def space_of(overrides: Sequence[Any]) -> Space:
    """The space that parsed words span; of a key that was typed twice the last word counts.

    Args:
        overrides: Hydra's `Override`, one a word.

    Raises:
        ConfigError: All that is wrong with any of them, or there is nothing to search.
    """
    last = {override.key_or_group: override for override in overrides}
    problems: list[str] = []
    typed: list[str | Parameter] = []
    for override in last.values():
        if override.is_sweep_override():
            parameter = _parameter(override, problems)
            typed += [parameter] if parameter else []
        else:
            typed.append(override.input_line)
    if not problems and all(isinstance(each, str) for each in typed):
        problems.append(f"nothing to search: no word has several values; type, for example, {_EXAMPLE}")
    if problems:
        raise ConfigError(problems)
    return Space(tuple(typed))


def _parameter(override: Any, problems: list[str]) -> Parameter | None:
    text = override.get_value_string()
    problem = _key_problem(override.key_or_group) or _tag_problem(override)
    found: Parameter | str
    if problem:
        found = problem
    elif override.value_type.name == "GLOB_CHOICE_SWEEP":
        found = "list the options that are meant, as in optimizer=sgd,adam"
    elif getattr(override.value(), "shuffle", False):
        found = "the sampler decides on the order: leave shuffle() out"
    elif override.is_interval_sweep():
        found = _interval(override, text)
    elif override.is_range_sweep():
        found = _steps(override, text)
    else:
        found = _choice(override, text)
    if isinstance(found, str):
        problems.append(f"{override.key_or_group}={text}: {found}")
        return None
    return found


def _key_problem(key: str) -> str | None:
    if key == "seed" or key.endswith(".seed"):
        return "a search would keep the luckiest seed; give it one, and compare the best settings over several seeds"
    if key.partition(".")[0] in RUN_ONLY_KEYS:
        return "it changes no result: give it one value"
    if masked("word", key) != "word":
        return "a secret is not searched: give it one value"
    return None


def _tag_problem(override: Any) -> str | None:
    tags = getattr(override.value(), "tags", set())
    unknown = sorted(tags - set(_TAGS))
    if unknown:
        return f"unknown tag {', '.join(unknown)}: there are {' and '.join(_TAGS)}"
    if tags and override.is_choice_sweep():
        return f"the tag {' and '.join(sorted(tags))} is for interval(), not for options"
    return None


def _choice(override: Any, text: str) -> Choice | str:
    key = override.key_or_group
    options = tuple(dict.fromkeys(override.sweep_string_iterator()))
    if any(masked(option, key) != option for option in options):
        return "a secret is not searched: give it one value"
    return Choice(override.get_key_element(), text, key, options)


def _interval(override: Any, text: str) -> Interval | str:
    value = override.value()
    low, high = value.start, value.end
    if not (math.isfinite(low) and math.isfinite(high)):
        return "an interval needs two finite ends"
    is_int, is_log = "int" in value.tags or (isinstance(low, int) and isinstance(high, int)), "log" in value.tags
    if is_int and (low % 1 or high % 1):
        return "an interval of whole numbers has whole ends"
    if low >= high:
        return f"the interval is empty: {low:g} is not below {high:g}"
    if is_log and low <= 0:
        return f"the logarithm of {low:g} does not exist: the lower end must be above 0"
    if is_int:
        low, high = int(low), int(high)
    return Interval(override.get_key_element(), text, override.key_or_group, low, high, is_int, is_log)


def _steps(override: Any, text: str) -> Steps | str:
    value = override.value()
    ends = (value.start, value.stop, value.step)
    if not all(math.isfinite(each) for each in ends) or value.step == 0:
        return "a range needs finite ends and a step other than 0"
    start, stop, step = (Decimal(repr(each)) for each in ends)
    num_values = math.ceil((stop - start) / step)
    if num_values < 1:
        return "the range is empty"
    is_int, is_log = all(isinstance(each, int) for each in ends), "log" in value.tags
    if "int" in value.tags and not is_int:
        return "the tag int is for interval(); a range of whole numbers has whole ends and steps"
    first = min(start, start + (num_values - 1) * step)
    if is_log and (not is_int or abs(step) != 1):
        return "a range has steps of one size; tag(log,interval(...)) has factors of one size"
    if is_log and first <= 0:
        return f"the logarithm of {first} does not exist: the lower end must be above 0"
    key = override.key_or_group
    return Steps(override.get_key_element(), text, key, first, abs(step), num_values, is_int, is_log)
