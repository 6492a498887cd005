"""Where the time of training steps goes: a clock that is in one phase at any moment, moved on from inside the trainer.

Knows a trainer and its device; neither what is trained nor who asks.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from cvtrain.engine.diagnosis.measures import StepMeasure
from cvtrain.engine.trainer import Trainer

PHASES = ("data", "augmentation", "forward", "backward", "optimizer", "other")
"""Waiting for a batch and moving it; varying and normalising it; model and loss; gradients; the step with clipping; the
rest: checks that all numbers are finite, running sums, averaged weights."""


class PhaseClock:
    """Adds up the seconds of each phase; as one phase begins where another ends, they sum to the whole.

    Args:
        device: Waited for at each change of phase: else its work would be counted to whoever waits for it.

    Attributes:
        is_on: While it is not, nothing is waited for and nothing counted.
        seconds: Of each phase.
    """

    def __init__(self, device: torch.device) -> None:
        self.device, self.is_on = device, False
        self.seconds = dict.fromkeys(PHASES, 0.0)
        self._phase, self._since = "other", 0.0

    def start(self) -> None:
        """Begins to count, from 0."""
        wait_for(self.device)
        self.is_on, self.seconds = True, dict.fromkeys(PHASES, 0.0)
        self._phase, self._since = "other", time.perf_counter()

    def enter(self, phase: str) -> None:
        """Ends the present phase and begins another."""
        if not self.is_on:
            return
        wait_for(self.device)
        now = time.perf_counter()
        self.seconds[self._phase] += now - self._since
        self._phase, self._since = phase, now

    def stop(self) -> None:
        """Ends the present phase."""
        self.enter("other")
        self.is_on = False


def wait_for(device: torch.device) -> None:
    """Returns when a device has done all that it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def watched_by_clock(trainer: Trainer) -> PhaseClock:
    """A clock that follows a trainer, which has taken no step yet; off at first."""
    clock = PhaseClock(trainer.compute.device)
    trainer.inputs = _TimedInputs(trainer.inputs, clock)
    trainer.loss_fn.register_forward_pre_hook(lambda *_: clock.enter("forward"))
    trainer.loss_fn.register_forward_hook(lambda *_: clock.enter("backward"))
    trainer.measure = lambda _step: _TimedStep(clock) if clock.is_on else None
    return clock


class _TimedStep(StepMeasure):
    """Moves the clock on instead of measuring anything else."""

    def __init__(self, clock: PhaseClock) -> None:
        self._clock = clock

    def part_begins(self) -> None:
        self._clock.enter("forward")

    def outputs(self, images: Tensor, outputs: Tensor) -> None:
        """The loss comes next, and is counted with the model."""

    def gradients(self) -> None:
        self._clock.enter("optimizer")

    def update(self) -> None:
        self._clock.enter("other")


class _TimedInputs:
    """Training inputs, with the clock in `augmentation` while they make a batch of what the batches below yield."""

    def __init__(self, inputs: Any, clock: PhaseClock) -> None:
        self._inputs, self._clock = inputs, clock
        inputs.batches = _TimedBatches(inputs.batches, clock)

    def __len__(self) -> int:
        return len(self._inputs)

    def epoch(self, number: int, *, start: int = 0) -> Iterator[Any]:
        yield from _timed(self._inputs.epoch(number, start=start), self._clock, "augmentation", then="other")


class _TimedBatches:
    """Batches, with the clock in `data` until one is there."""

    def __init__(self, batches: Any, clock: PhaseClock) -> None:
        self._batches, self._clock = batches, clock

    def __len__(self) -> int:
        return len(self._batches)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._batches, name)

    def shuffled(self, epoch: int, **options: Any) -> Iterator[Any]:
        self._clock.enter("data")  # here the order of the epoch is drawn
        return _timed(self._batches.shuffled(epoch, **options), self._clock, "data", then="augmentation")


def _timed(values: Iterator[Any], clock: PhaseClock, phase: str, *, then: str) -> Iterator[Any]:
    nothing = object()
    while True:
        clock.enter(phase)
        value = next(values, nothing)
        clock.enter(then)
        if value is nothing:
            return
        yield value
