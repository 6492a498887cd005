"""What the options of losses may be, and the weights that follow from them.

Knows numbers and counts of classes, not losses.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from cvtrain.errors import ConfigError


def weight_per_class(weights: str | Sequence[float] | None, counts: Sequence[int]) -> Tensor | None:
    """float32 `(K,)`: the factor on the images of each class, from what was typed; None for none.

    Raises:
        ConfigError: Another number of weights than of classes, one that is not positive, or `auto` with an empty class.
    """
    if weights is None:
        return None
    if weights == "auto":
        _check_every_class("class_weights", counts)
        return torch.tensor([sum(counts) / (len(counts) * count) for count in counts])
    if isinstance(weights, str) or not isinstance(weights, Sequence):
        raise ConfigError(f"loss.class_weights is {weights!r}", hint="use null, auto or a list of numbers")
    if len(weights) != len(counts):
        raise ConfigError(f"loss.class_weights has {len(weights)} numbers for {len(counts)} classes")
    for label, weight in enumerate(weights):
        check_positive(f"class_weights[{label}]", weight)
    return torch.tensor([float(weight) for weight in weights])


def positive_weight(weight: str | float | None, counts: Sequence[int]) -> Tensor | None:
    """The factor on the images of class 1 of two, float32 `()`; None for none.

    Raises:
        ConfigError: It is not positive, or is `auto` with an empty class.
    """
    if weight is None:
        return None
    if weight == "auto":
        _check_every_class("pos_weight", counts)
        return torch.tensor(counts[0] / counts[1])
    check_positive("pos_weight", weight)
    return torch.tensor(float(weight))


def _check_every_class(name: str, counts: Sequence[int]) -> None:
    for label, count in enumerate(counts):
        if count == 0:
            raise ConfigError(
                f"loss.{name}=auto cannot weigh class {label}: it has no training image",
                hint=f"use loss.{name}=null",
            )


def check_smoothing(share: float) -> None:
    """Refuses a share of smoothing outside [0, 1).

    Raises:
        ConfigError: Such a share.
    """
    if not is_number(share) or not 0 <= share < 1:
        raise ConfigError(f"loss.label_smoothing is {share!r}; it must be at least 0 and below 1")


def check_positive(name: str, value: float) -> None:
    """Refuses what is no number above 0; `name` is that of the option.

    Raises:
        ConfigError: Such a value.
    """
    if not is_number(value) or value <= 0:
        raise ConfigError(f"loss.{name} is {value!r}; it must be a number above 0")


def check_at_least_zero(name: str, value: float) -> None:
    """Refuses what is no number from 0 up; `name` is that of the option.

    Raises:
        ConfigError: Such a value.
    """
    if not is_number(value) or value < 0:
        raise ConfigError(f"loss.{name} is {value!r}; it must be a number >= 0")


def is_number(value: object) -> bool:
    """Whether a value is a finite number."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
