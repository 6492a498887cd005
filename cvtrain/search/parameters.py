"""One setting that is searched: options, evenly spaced numbers, or an interval.

Knows values, the words that they are typed as, and Optuna's name for such a space; not who chooses.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

Value = str | int | float
"""What Optuna knows of a choice: the word of an option, or a number."""

SIGNIFICANT_DIGITS = 4
_NEAR = 0.02
"""A value within this share of an interval from one of its ends is at its edge."""


@dataclass(frozen=True)
class Choice:
    """One of several words, without an order.

    Args:
        typed_key: With the pluses that it was typed with.
        text: Its values as they were typed.
        options: The words, each once.
    """

    typed_key: str = field(compare=False)
    text: str = field(compare=False)
    key: str
    options: tuple[str, ...]

    def distribution(self) -> BaseDistribution:
        """In Optuna's terms."""
        from optuna.distributions import CategoricalDistribution

        return CategoricalDistribution(self.options)

    @property
    def num_values(self) -> int:
        """How many values there are."""
        return len(self.options)

    def values(self) -> Sequence[Value]:
        """All values."""
        return self.options

    def holds(self, value: Value) -> bool:
        """Whether it is one of the values."""
        return value in self.options

    def rounded(self, value: Value) -> Value:
        """The word itself."""
        return value

    def is_at_edge(self, value: Value) -> bool:
        """Never: options have no order."""
        return False


@dataclass(frozen=True)
class Steps:
    """Evenly spaced numbers.

    Args:
        typed_key: With the pluses that it was typed with.
        text: Its values as they were typed.
        first: The smallest.
        step: Above 0.
        num_values: At least one.
        is_int: Whether all are whole numbers.
        is_log: Whether a factor counts, not a difference; whole numbers at a distance of 1 only.
    """

    typed_key: str = field(compare=False)
    text: str = field(compare=False)
    key: str
    first: Decimal
    step: Decimal
    num_values: int
    is_int: bool
    is_log: bool = False

    def distribution(self) -> BaseDistribution:
        """In Optuna's terms."""
        from optuna.distributions import FloatDistribution, IntDistribution

        low, high = self._value(0), self._value(self.num_values - 1)
        if self.is_int:
            return IntDistribution(int(low), int(high), log=self.is_log, step=int(self.step))
        return FloatDistribution(low, high, step=float(self.step))

    def _value(self, index: int) -> int | float:
        value = self.first + index * self.step
        return int(value) if self.is_int else float(value)

    def values(self) -> Sequence[Value]:
        """All values, the smallest first."""
        return [self._value(i) for i in range(self.num_values)]

    def holds(self, value: Value) -> bool:
        """Whether it is one of the values."""
        return not isinstance(value, str) and self.rounded(value) == value

    def rounded(self, value: Value) -> Value:
        """The nearest of the values."""
        index = round((float(value) - float(self.first)) / float(self.step))
        return self._value(min(max(index, 0), self.num_values - 1))

    def is_at_edge(self, value: Value) -> bool:
        """Whether it is the first or the last."""
        return value in (self._value(0), self._value(self.num_values - 1))


@dataclass(frozen=True)
class Interval:
    """All numbers between two, both included.

    Args:
        typed_key: With the pluses that it was typed with.
        text: Its values as they were typed.
        low: Below `high`.
        high: Finite.
        is_int: Whether only whole numbers count.
        is_log: Whether a factor counts, not a difference.
    """

    typed_key: str = field(compare=False)
    text: str = field(compare=False)
    key: str
    low: int | float
    high: int | float
    is_int: bool
    is_log: bool

    def distribution(self) -> BaseDistribution:
        """In Optuna's terms."""
        from optuna.distributions import FloatDistribution, IntDistribution

        if self.is_int:
            return IntDistribution(int(self.low), int(self.high), log=self.is_log)
        return FloatDistribution(self.low, self.high, log=self.is_log)

    @property
    def num_values(self) -> int | None:
        """How many whole numbers there are; None for real ones."""
        return int(self.high) - int(self.low) + 1 if self.is_int else None

    def values(self) -> Sequence[Value]:
        """All values, of whole numbers."""
        assert self.is_int, "real numbers cannot be listed"
        return range(int(self.low), int(self.high) + 1)

    def holds(self, value: Value) -> bool:
        """Whether it lies within."""
        return not isinstance(value, str) and self.low <= value <= self.high and not (self.is_int and value % 1)

    def rounded(self, value: Value) -> Value:
        """With four digits that count, of the value or of the interval: what is typed is what is known of."""
        if self.is_int or value == 0:
            return value
        finer = max(-_magnitude(float(value)), -_magnitude(self.high - self.low))
        return min(max(round(float(value), SIGNIFICANT_DIGITS - 1 + finer), self.low), self.high)

    def is_at_edge(self, value: Value) -> bool:
        """Whether it is close to one of the ends."""
        low, high, at = (math.log(x) if self.is_log else float(x) for x in (self.low, self.high, value))
        return not _NEAR < (at - low) / (high - low) < 1 - _NEAR


def _magnitude(value: float) -> int:
    return math.floor(math.log10(abs(value)))


Parameter = Choice | Steps | Interval


def word_of(value: Value) -> str:
    """A value as it is typed; a number comes back from its word as it went."""
    return value if isinstance(value, str) else repr(value)


def draw(parameter: Parameter, rng: random.Random) -> Value:
    """A value at random, all equally probable on the parameter's own scale."""
    if isinstance(parameter, Choice):
        return rng.choice(parameter.options)
    if isinstance(parameter, Steps):
        return parameter.rounded(float(parameter.first) + float(parameter.step) * rng.randrange(parameter.num_values))
    if parameter.is_log:
        value = math.exp(rng.uniform(math.log(parameter.low), math.log(parameter.high)))
        value = min(max(value, parameter.low), parameter.high)
        return round(value) if parameter.is_int else parameter.rounded(value)
    if parameter.is_int:
        return rng.randint(int(parameter.low), int(parameter.high))
    return parameter.rounded(rng.uniform(parameter.low, parameter.high))
