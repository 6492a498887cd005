"""What all schedules share: a linear warm-up, and the check of options.

Knows no particular schedule.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cvtrain.errors import CheckpointError, ConfigError


@dataclass(kw_only=True)
class Schedule:
    """What all schedules share: a linear warm-up, after which the schedule proper runs over the remaining steps.

    Steps count from 0. With w warm-up steps, step s < w has the factor
    `(warmup_start + (1 - warmup_start) * s / w) * first`, where `first` is the first factor of the schedule proper
    (1, except for `OneCycle`); the schedule proper counts its steps and epochs from step w.

    Args:
        total_steps: Steps of the whole training, warm-up included; 0 is allowed.
        steps_per_epoch: Converts epochs into steps.
        warmup_epochs: Length of the warm-up in epochs, fractions allowed.
        warmup_steps: The same in steps; give one of the two.
        warmup_start: First factor of the warm-up, in [0, 1].

    Raises:
        ConfigError: An option out of range, both lengths given, or a warm-up longer than the training.

    Source: linear warm-up, Goyal et al. 2017 (arXiv 1706.02677), section 2.2.
    """

    total_steps: int
    steps_per_epoch: int
    warmup_epochs: float = 0
    warmup_steps: int = 0
    warmup_start: float = 0.1

    def __post_init__(self) -> None:
        check("warmup_epochs", self.warmup_epochs, at_least=0)
        check("warmup_steps", self.warmup_steps, at_least=0, whole=True)
        check("warmup_start", self.warmup_start, at_least=0, at_most=1)
        if self.warmup_epochs and self.warmup_steps:
            raise ConfigError(
                f"scheduler.warmup_epochs={self.warmup_epochs} and scheduler.warmup_steps={self.warmup_steps} "
                "both set the length of the warm-up",
                hint="set one of them to 0",
            )
        self._num_warmup_steps = self.warmup_steps or self._to_steps(self.warmup_epochs)
        if self._num_warmup_steps > self.total_steps:
            raise ConfigError(
                f"the warm-up takes {self._num_warmup_steps} steps, the whole training {self.total_steps}",
                hint="shorten scheduler.warmup_epochs or scheduler.warmup_steps, or train longer",
            )
        self._num_steps = self.total_steps - self._num_warmup_steps

    def factor(self, step: int) -> float:
        """The multiplier of the lr in step `step` (from 0 on); past the end, that of the end."""
        if step < self._num_warmup_steps:
            progress = step / self._num_warmup_steps
            return (self.warmup_start + (1 - self.warmup_start) * progress) * self._proper(0)
        return self._proper(min(step, self.total_steps) - self._num_warmup_steps)

    def observe(self, val_loss: float) -> None:
        """Take note of an evaluation; only `Plateau` does."""

    def state_dict(self) -> dict[str, Any]:
        """What must be saved to continue, in plain Python values; empty for functions of the step."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a `state_dict` of the same class.

        Raises:
            CheckpointError: The state of another kind of schedule.
        """
        if set(state) != set(self.state_dict()):
            raise CheckpointError(
                f"the checkpoint's schedule saved {sorted(state)}, {type(self).__name__} needs "
                f"{sorted(self.state_dict())}",
                hint="resume with the scheduler of the run",
            )

    def _proper(self, step: int) -> float:
        """The factor at `step` in 0.._num_steps of the schedule proper; `_num_steps` is just past the last."""
        raise NotImplementedError  # the one method that every schedule must define

    def _to_steps(self, epochs: float) -> int:
        return round(epochs * self.steps_per_epoch)

    def _progress(self, step: int) -> float:
        """How much of the schedule proper lies behind, in [0, 1]; 0 when a warm-up fills the training."""
        return step / max(1, self._num_steps)


def check(name: str, value: Any, *, whole: bool = False, **bounds: float) -> None:
    """Refuse a value that is no finite number, no whole number if one is needed, or out of bounds.

    Args:
        name: The option, as in `scheduler.<name>`.
        value: What was given.
        whole: Only an int will do.
        **bounds: Any of `above`, `at_least`, `below`, `at_most`.

    Raises:
        ConfigError: Such a value.
    """
    number = isinstance(value, int if whole else int | float) and not isinstance(value, bool)
    holds = {
        "above": lambda bound: value > bound,
        "at_least": lambda bound: value >= bound,
        "below": lambda bound: value < bound,
        "at_most": lambda bound: value <= bound,
    }
    if number and math.isfinite(value) and all(holds[bound](limit) for bound, limit in bounds.items()):
        return
    kind = "a whole number" if whole else "a number"
    rule = " and ".join(f"{bound.replace('_', ' ')} {limit}" for bound, limit in bounds.items())
    raise ConfigError(f"scheduler.{name} is {value!r}; it must be {kind} {rule}")
