"""Schedules that are functions of the step, so that a resumed run needs no state of theirs.

Knows nothing of optimizers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from cvtrain.errors import ConfigError
from cvtrain.schedulers.schedule import Schedule, check


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
        check("step_epochs", self.step_epochs, above=0)
        check("gamma", self.gamma, above=0, at_most=1)

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
            check(f"milestones_epochs[{index}]", milestone, above=previous)
        check("gamma", self.gamma, above=0, at_most=1)

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
        check("gamma", self.gamma, above=0, at_most=1)

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
        check("final_factor", self.final_factor, at_least=0, at_most=1)

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
        check("final_factor", self.final_factor, at_least=0, at_most=1)

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
            check(name, getattr(self, name), at_least=0, at_most=1)
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


def _line(start: float, end: float, progress: float) -> float:
    return start + (end - start) * progress


def _cosine(start: float, end: float, progress: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * progress)) / 2
