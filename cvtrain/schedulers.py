"""Learning-rate schedules: for each training step, the factor that multiplies the optimizer's lr.

Knows nothing of optimizers; only `Plateau` remembers anything, all others are functions of the step.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
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
        _check("warmup_epochs", self.warmup_epochs, at_least=0)
        _check("warmup_steps", self.warmup_steps, at_least=0, whole=True)
        _check("warmup_start", self.warmup_start, at_least=0, at_most=1)
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
        raise NotImplementedError

    def _to_steps(self, epochs: float) -> int:
        return round(epochs * self.steps_per_epoch)

    def _progress(self, step: int) -> float:
        """How much of the schedule proper lies behind, in [0, 1]; 0 when a warm-up fills the training."""
        return step / max(1, self._num_steps)


@dataclass(kw_only=True)
class Constant(Schedule):
    """The factor 1 after the warm-up.

    Args: those of `Schedule`.
    """

    def _proper(self, step: int) -> float:
        return 1.0


@dataclass(kw_only=True)
class Step(Schedule):
    """Multiplied by `gamma` after every `step_epochs` epochs; constant in between.

    Args: those of `Schedule` and
        step_epochs: Epochs between two changes, above 0.
        gamma: Above 0 and at most 1.
    """

    step_epochs: float = 30
    gamma: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        _check("step_epochs", self.step_epochs, above=0)
        _check("gamma", self.gamma, above=0, at_most=1)

    def _proper(self, step: int) -> float:
        return self.gamma ** (step // max(1, self._to_steps(self.step_epochs)))


@dataclass(kw_only=True)
class Multistep(Schedule):
    """Multiplied by `gamma` at each milestone; constant in between.

    Args: those of `Schedule` and
        milestones_epochs: Epochs after the warm-up, above 0, rising; those past the end have no effect.
        gamma: Above 0 and at most 1.
    """

    milestones_epochs: Sequence[float] = (60, 120, 160)
    gamma: float = 0.2

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.milestones_epochs, Sequence) or isinstance(self.milestones_epochs, str):
            raise ConfigError(
                f"scheduler.milestones_epochs is {self.milestones_epochs!r}", hint="give a list: [60,120,160]"
            )
        for index, milestone in enumerate(self.milestones_epochs):
            previous = self.milestones_epochs[index - 1] if index else 0
            _check(f"milestones_epochs[{index}]", milestone, above=previous)
        _check("gamma", self.gamma, above=0, at_most=1)

    def _proper(self, step: int) -> float:
        return self.gamma ** sum(step >= self._to_steps(epochs) for epochs in self.milestones_epochs)


@dataclass(kw_only=True)
class Exponential(Schedule):
    """Multiplied by `gamma` after every epoch; constant within an epoch.

    Args: those of `Schedule` and
        gamma: Above 0 and at most 1.
    """

    gamma: float = 0.95

    def __post_init__(self) -> None:
        super().__post_init__()
        _check("gamma", self.gamma, above=0, at_most=1)

    def _proper(self, step: int) -> float:
        return self.gamma ** (step // max(1, self.steps_per_epoch))


@dataclass(kw_only=True)
class Cosine(Schedule):
    """Half a cosine wave from 1 to `final_factor`, changing in every step.

    The final factor is that of the step after the last, so that no step is spent on an lr of 0.

    Args: those of `Schedule` and
        final_factor: In [0, 1].

    Source: Loshchilov & Hutter 2017 (arXiv 1608.03983), equation 5, without restarts.
    """

    final_factor: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        _check("final_factor", self.final_factor, at_least=0, at_most=1)

    def _proper(self, step: int) -> float:
        return _cosine(1.0, self.final_factor, self._progress(step))


@dataclass(kw_only=True)
class Linear(Schedule):
    """A straight line from 1 to `final_factor`, changing in every step; the end lies one step past the last.

    Args: those of `Schedule` and
        final_factor: In [0, 1].
    """

    final_factor: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        _check("final_factor", self.final_factor, at_least=0, at_most=1)

    def _proper(self, step: int) -> float:
        return _line(1.0, self.final_factor, self._progress(step))


@dataclass(kw_only=True)
class OneCycle(Schedule):
    """Up from `start_factor` to 1 and down to `final_factor`, changing in every step.

    The peak falls on a whole step; the end lies one step past the last. All factors are shares of the optimizer's
    lr, which is the peak. It needs no warm-up; with one, the warm-up leads to `start_factor`.

    Args: those of `Schedule` and
        peak_fraction: Share of the steps before the peak, in [0, 1].
        start_factor: In [0, 1].
        final_factor: In [0, 1].
        anneal: `cosine` or `linear`: the shape of both flanks.

    Source: Smith & Topin 2018 (arXiv 1708.07120), section 3; the defaults of torch's OneCycleLR, nearly.
    """

    peak_fraction: float = 0.3
    start_factor: float = 0.04
    final_factor: float = 1e-4
    anneal: str = "cosine"

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("peak_fraction", "start_factor", "final_factor"):
            _check(name, getattr(self, name), at_least=0, at_most=1)
        if self.anneal not in ("cosine", "linear"):
            raise ConfigError(
                f"scheduler.anneal is {self.anneal!r}", hint="use scheduler.anneal=cosine or scheduler.anneal=linear"
            )

    def _proper(self, step: int) -> float:
        between = _cosine if self.anneal == "cosine" else _line
        peak = round(self.peak_fraction * self._num_steps)
        if step < peak:
            return between(self.start_factor, 1.0, step / peak)
        if step == peak:
            return 1.0
        return between(1.0, self.final_factor, (step - peak) / (self._num_steps - peak))


@dataclass(kw_only=True)
class Plateau(Schedule):
    """Multiplied by `gamma` when the validation loss has not improved in more than `patience` evaluations.

    Evaluations during the warm-up count like all others. A loss that is not a number is no improvement.

    Args: those of `Schedule` and
        patience: Evaluations without improvement that are borne, at least 0.
        gamma: Above 0 and below 1.
        min_delta: By how much the loss must fall below the best to be an improvement, at least 0.
        min_factor: The factor never falls below it, in [0, 1].
    """

    patience: int = 5
    gamma: float = 0.1
    min_delta: float = 0.0
    min_factor: float = 0.0
    _scale: float = field(default=1.0, init=False)
    _best_val_loss: float | None = field(default=None, init=False)
    _num_bad: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        _check("patience", self.patience, at_least=0, whole=True)
        _check("gamma", self.gamma, above=0, below=1)
        _check("min_delta", self.min_delta, at_least=0)
        _check("min_factor", self.min_factor, at_least=0, at_most=1)

    def observe(self, val_loss: float) -> None:
        """Take note of an evaluation; may lower the factor of all later steps."""
        best = math.inf if self._best_val_loss is None else self._best_val_loss
        if val_loss < best - self.min_delta:
            self._best_val_loss = val_loss
            self._num_bad = 0
            return
        self._num_bad += 1
        if self._num_bad > self.patience:
            self._scale = max(self._scale * self.gamma, self.min_factor)
            self._num_bad = 0

    def state_dict(self) -> dict[str, Any]:
        """See `Schedule`."""
        return {"scale": self._scale, "best_val_loss": self._best_val_loss, "num_bad": self._num_bad}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """See `Schedule`."""
        super().load_state_dict(state)
        self._scale = state["scale"]
        self._best_val_loss = state["best_val_loss"]
        self._num_bad = state["num_bad"]

    def _proper(self, step: int) -> float:
        return self._scale


def _line(start: float, end: float, progress: float) -> float:
    return start + (end - start) * progress


def _cosine(start: float, end: float, progress: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * progress)) / 2


def _check(name: str, value: Any, *, whole: bool = False, **bounds: float) -> None:
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
