"""Kinds of rules that a setting can obey: numbers in a range, words of a choice, lists of either.

Knows plain values only, and not which setting obeys which rule; that stands in `schema.py`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any


@dataclass(frozen=True)
class Rule:
    """What one setting may hold.

    Args:
        describe: Completes "must be ...".
        accepts: Whether a value is right.
        optional: Whether null is right too.
    """

    describe: str
    accepts: Callable[[Any], bool]
    optional: bool = False

    def problem(self, value: Any) -> str | None:
        """What is wrong with `value`, or None."""
        if (value is None and self.optional) or (value is not None and self.accepts(value)):
            return None
        return f"must be {self.describe}{' or null' if self.optional else ''}"


def optional(rule: Rule) -> Rule:
    """The same, or null."""
    return replace(rule, optional=True)


def is_number(value: Any) -> bool:
    """Whether a value is a finite number; true and false are none."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def number(low: float = -math.inf, high: float = math.inf, *, above: float | None = None) -> Rule:
    """A finite number in `[low, high]`, and greater than `above` where given."""
    if above is not None:
        words = f"a number > {above:g}" + (f" and <= {high:g}" if high < math.inf else "")
    elif high < math.inf:
        words = f"a number from {low:g} to {high:g}"
    else:
        words = f"a number >= {low:g}" if low > -math.inf else "a number"
    floor = -math.inf if above is None else above
    return Rule(words, lambda v: is_number(v) and low <= v <= high and (above is None or v > floor))


def fraction() -> Rule:
    """A number in [0, 1)."""
    return Rule("a number from 0 to less than 1", lambda v: is_number(v) and 0 <= v < 1)


def integer(low: int | None = None, high: int | None = None) -> Rule:
    """A whole number in `[low, high]`."""
    words = "a whole number"
    if low is not None and high is not None:
        words += f" from {low} to {high}"
    elif low is not None:
        words += f" >= {low}"

    def accepts(value: Any) -> bool:
        whole = isinstance(value, int) and not isinstance(value, bool)
        return whole and (low is None or value >= low) and (high is None or value <= high)

    return Rule(words, accepts)


def choice(*words: str) -> Rule:
    """One of a few words."""
    return Rule(" | ".join(words), lambda v: isinstance(v, str) and v in words)


def text(*, accepts: Callable[[str], bool] = bool, words: str = "a word") -> Rule:
    """A string that is not empty, or one that `accepts` takes."""
    return Rule(words, lambda v: isinstance(v, str) and accepts(v))


def sequence(of: Rule, *, words: str, length: int | None = None) -> Rule:
    """A list whose items all obey one rule."""

    def accepts(value: Any) -> bool:
        is_list = isinstance(value, list | tuple) and length in (None, len(value))
        return is_list and all(of.problem(item) is None for item in value)

    return Rule(words, accepts)


def either(*rules: Rule) -> Rule:
    """Any of several rules."""
    return Rule(" or ".join(r.describe for r in rules), lambda v: any(r.accepts(v) for r in rules))


BOOLEAN = Rule("true or false", lambda v: isinstance(v, bool))
COUNT = integer(1)
PATH = text(words="a path")
DICTIONARY = Rule("a dictionary {key: value, ...}", lambda v: isinstance(v, Mapping))
ANYTHING = Rule("anything", lambda _value: True, optional=True)


def of_default(default: Any) -> Rule:
    """The rule that a default implies: its own type."""
    if isinstance(default, bool):
        return BOOLEAN
    if isinstance(default, int):
        return integer()
    if isinstance(default, float):
        return number()
    if isinstance(default, str):
        return text()
    if isinstance(default, Mapping):
        return DICTIONARY
    if isinstance(default, list | tuple):
        return Rule("a list", lambda v: isinstance(v, list | tuple))
    return ANYTHING
