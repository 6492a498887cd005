"""How many images a second a trainer trains on, and a model evaluates: rounds on the clock, after a warm-up.

Knows a trainer, a model and a device; not what figures are for.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch
from torch import nn

from cvtrain.engine.device import Compute
from cvtrain.engine.evaluator import evaluate
from cvtrain.engine.events import Step
from cvtrain.engine.phases import wait_for, watched_by_clock
from cvtrain.engine.trainer import Trainer

_WARM_UP_STEPS, _WARM_UP_SECONDS = 3, 1.0
"""The first steps make the optimizer's state, start reading processes, and choose or compile kernels."""


@dataclass(frozen=True)
class RoundResult:
    """What was done within a round.

    Args:
        num_images: At least 1.
        num_steps: Batches.
        seconds: From its begin until the device had done all.
    """

    num_images: int
    num_steps: int
    seconds: float

    @property
    def images_per_second(self) -> float:
        """Its rate."""
        return self.num_images / self.seconds


@dataclass(frozen=True)
class SpeedResult:
    """What some rounds of the same work measured."""

    rounds: tuple[RoundResult, ...]

    @property
    def images_per_second(self) -> float:
        """The median of the rounds."""
        return median(r.images_per_second for r in self.rounds)

    @property
    def least(self) -> float:
        """Images a second of the slowest round."""
        return min(r.images_per_second for r in self.rounds)

    @property
    def most(self) -> float:
        """Images a second of the fastest round."""
        return max(r.images_per_second for r in self.rounds)

    @property
    def step_seconds(self) -> float:
        """The median of the rounds."""
        return median(r.seconds / r.num_steps for r in self.rounds)


@dataclass(frozen=True)
class TrainingSpeedResult:
    """How fast a trainer trains.

    Args:
        speed: As it trains by itself.
        split: A round in which the device was waited for between phases.
        shares: Of the seconds of that round, by phase of `PHASES`; they sum to 1.
        num_parts: That each batch was computed in at the end.
    """

    speed: SpeedResult
    split: RoundResult
    shares: Mapping[str, float]
    num_parts: int


def measure_training(
    trainer: Trainer, batch_sizes: Sequence[int], *, rounds: int, seconds: float
) -> TrainingSpeedResult:
    """Takes steps until so many rounds have passed, and one more for the shares of the phases.

    Args:
        trainer: Has taken no step; never evaluates, and has steps enough.
        batch_sizes: Images of each batch of an epoch.
        rounds: At least 1.
        seconds: Of each, at least.

    Raises:
        DivergedError, MemoryLimitError: As in training.
    """
    clock, device = watched_by_clock(trainer), trainer.compute.device
    sizes = (batch_sizes[(event.step - 1) % len(batch_sizes)] for event in trainer.run() if isinstance(event, Step))
    _round(sizes, device, seconds=min(seconds, _WARM_UP_SECONDS), min_steps=_WARM_UP_STEPS)
    measured = tuple(_round(sizes, device, seconds=seconds) for _ in range(rounds))
    clock.start()
    split = _round(sizes, device, seconds=seconds)
    clock.stop()
    whole = sum(clock.seconds.values())
    shares = {phase: part / whole for phase, part in clock.seconds.items()}
    return TrainingSpeedResult(SpeedResult(measured), split, shares, trainer.num_parts)


def measure_evaluation(
    model: nn.Module, loss_fn: nn.Module, inputs: Iterable, *, compute: Compute, rounds: int, seconds: float
) -> SpeedResult:
    """Evaluates again and again until so many rounds have passed.

    Args:
        model: Maps images to logits.
        loss_fn: Maps logits and labels to losses.
        inputs: Can be gone through many times; has an image.
        compute: Device and number format.
        rounds: At least 1.
        seconds: Of each, at least.
    """

    stream = _endless(inputs)

    def one_round(seconds: float) -> RoundResult:
        sizes: list[int] = []
        wait_for(compute.device)
        started = time.perf_counter()
        evaluate(model, loss_fn, _until(stream, sizes, end=started + seconds), compute=compute)
        return RoundResult(sum(sizes), len(sizes), time.perf_counter() - started)

    one_round(min(seconds, _WARM_UP_SECONDS))
    return SpeedResult(tuple(one_round(seconds) for _ in range(rounds)))


def _endless(inputs: Iterable) -> Iterator[Any]:
    while True:
        yield from inputs


def _until(batches: Iterator[Any], sizes: list[int], *, end: float) -> Iterator[Any]:
    """Batches until a time is over, the last one begun before it; notes their sizes."""
    for batch in batches:
        sizes.append(len(batch.labels))
        yield batch
        if time.perf_counter() >= end:
            return


def _round(sizes: Iterator[int], device: torch.device, *, seconds: float, min_steps: int = 1) -> RoundResult:
    """Goes on until the time is over; `sizes` yields the images of a batch when it is done."""
    wait_for(device)
    started, num_images, num_steps = time.perf_counter(), 0, 0
    for size in sizes:
        num_images += size
        num_steps += 1
        if num_steps >= min_steps and time.perf_counter() - started >= seconds:
            break
    wait_for(device)
    return RoundResult(num_images, num_steps, time.perf_counter() - started)
