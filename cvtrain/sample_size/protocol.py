"""How long the model is trained at each size, on what batches, and when it is stopped: the two protocols.

Knows settings and counts of images; not how training goes.

`posts` validates every epoch and stops after three without a better validation accuracy, whatever the size. With ten
images per class that is 20 images to validate and one step per epoch: what stops such a run is mostly chance, and the
curve is partly one of early stopping. `robust` gives every size steps enough to learn what it can, stops by
validation loss where accuracy is too coarse, and never before the learning rate has come down.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from typing import Any

from cvtrain import build
from cvtrain.config import Config
from cvtrain.data.batches import batch_bounds

POSTS_EPOCHS = 100
"""More than patience ever allows."""

POSTS_PATIENCE = 3

EARLY_EPOCHS = 10
"""Within which `posts` stops most trainings. On CIFAR-10, from 10 to 5,000 images per class: after 5 to 21 epochs."""

SMALLEST_BATCH, STEPS_PER_EPOCH = 8, 8
"""A small subset is trained in batches of an eighth of it, so that an epoch is more than one step."""

LOW_RATE = 0.1
"""Share of its peak below which the learning rate has come down: what is left of training changes little."""

FEWEST_FOR_ACCURACY = 500
"""Validation images below which the loss decides which weights are best: accuracy moves in steps of 1 / images."""


@dataclass(frozen=True)
class Course:
    """How one training goes.

    Args:
        batch_size: Images per step.
        steps_per_epoch: Batches in one pass.
        total_steps: At most so many.
        evaluate_every: Steps between evaluations.
        metric: `val_loss` or `val_accuracy`.
        patience: Evaluations without improvement.
        min_steps: Evaluations before it neither stop training nor are the best.
    """

    batch_size: int
    steps_per_epoch: int
    total_steps: int
    evaluate_every: int
    metric: str
    patience: int
    min_steps: int

    @property
    def num_images(self) -> int:
        """Images that training takes in, if it is not stopped early."""
        return self.total_steps * self.batch_size


def course_of(config: Config, *, num_train: int, num_val: int) -> Course:
    """What the protocol says for a size; where the trainer's own settings say something, that holds.

    Args:
        config: Of the sweep; what is null in `trainer` is open.
        num_train: Images to train on, of all classes.
        num_val: Images to validate.
    """
    robust = config["protocol"] == "robust"
    trainer, stopping, budget = config["trainer"], config["trainer"]["early_stopping"], config["budget"]
    batch_size = trainer["batch_size"]
    if robust:
        batch_size = min(batch_size, max(SMALLEST_BATCH, num_train // STEPS_PER_EPOCH))
    steps_per_epoch = len(batch_bounds(num_train, batch_size))
    if trainer["steps"] is not None:
        total_steps = trainer["steps"]
    elif trainer["epochs"] is not None:
        total_steps = trainer["epochs"] * steps_per_epoch
    elif robust:
        total_steps = _budget(budget, num_train=num_train, batch_size=batch_size)
    else:
        total_steps = POSTS_EPOCHS * steps_per_epoch
    evaluate_every = trainer["evaluate_every"]
    if evaluate_every == "epoch" or (evaluate_every is None and not robust):
        evaluate_every = steps_per_epoch
    by_loss = robust and num_val < FEWEST_FOR_ACCURACY
    min_steps = stopping["min_steps"]
    if min_steps is None:
        min_steps = _armed_from(config, total_steps, steps_per_epoch) if robust else 0
    return Course(
        batch_size=batch_size,
        steps_per_epoch=steps_per_epoch,
        total_steps=total_steps,
        evaluate_every=evaluate_every or max(steps_per_epoch, total_steps // budget["evaluations"]),
        metric=stopping["metric"] or ("val_loss" if by_loss else "val_accuracy"),
        patience=stopping["patience"] or (budget["patience"] if robust else POSTS_PATIENCE),
        min_steps=min_steps,
    )


def _budget(budget: dict[str, Any], *, num_train: int, batch_size: int) -> int:
    """Passes over the images, but neither too few steps for a small subset nor more than are wanted for a large one."""
    steps = max(budget["min_steps"], math.ceil(budget["epochs"] * num_train / batch_size))
    return steps if budget["max_steps"] is None else min(steps, budget["max_steps"])


def _armed_from(config: Config, total_steps: int, steps_per_epoch: int) -> int:
    """The step from which evaluations count: enough are taken, and the learning rate has come down for good.

    Measured with one_cycle on 50 CIFAR-10 images per class: the validation loss is lowest after 150 of 2,000 steps,
    where the accuracy is 11 points below that of the end.
    """
    factors = _rate_factors(config, total_steps, steps_per_epoch)
    low = LOW_RATE * max(factors)
    num_low = next((i for i, factor in enumerate(reversed(factors)) if factor > low), 0)
    came_down = total_steps - num_low if num_low else 0  # a rate that never comes down is waited for by no one
    return min(max(config["budget"]["min_steps"], came_down), total_steps)


def _rate_factors(config: Config, total_steps: int, steps_per_epoch: int) -> list[float]:
    """The factor of the learning rate at each step."""
    schedule = build.schedule(config, total_steps=total_steps, steps_per_epoch=steps_per_epoch)
    return [schedule.factor(step) for step in range(total_steps)]


def training_config(config: Config, course: Course, *, seed: int) -> Config:
    """The settings of one training: those of `task=train`, with nothing left open.

    Args:
        config: Of the sweep.
        course: Of its size.
        seed: Of its replicate.
    """
    made = {
        "seed": seed,
        "name": None,
        "output_dir": config["output_dir"],
        "plugins": config["plugins"],
        "task": "train",
        **{group: copy.deepcopy(config[group]) for group in _GROUPS},
        "choices": {**config["choices"], "task": "train"},
    }
    trainer = made["trainer"]
    trainer.update(
        epochs=None,
        steps=course.total_steps,
        batch_size=course.batch_size,
        evaluate_every=course.evaluate_every,
    )
    made["optimizer"].update(_scaled_rates(config, course))
    trainer["early_stopping"].update(
        metric=course.metric,
        patience=course.patience,
        min_steps=course.min_steps,
    )
    return made


def schedule_problem(config: Config, course: Course) -> str | None:
    """What is wrong with a schedule that early stopping ends before it has begun; None where nothing is."""
    if config["protocol"] != "posts":
        return None
    factors = _rate_factors(config, course.total_steps, course.steps_per_epoch)
    if max(factors[: EARLY_EPOCHS * course.steps_per_epoch]) > 0.5 * max(factors):
        return None
    return (
        f"protocol=posts stops most trainings within {EARLY_EPOCHS} epochs, and"
        f" scheduler={config['choices']['scheduler']} is still warming up then: type scheduler=constant"
    )


def _scaled_rates(config: Config, course: Course) -> dict[str, float]:
    """The learning rates of a batch smaller than the one that they are set for.

    Measured on 10 CIFAR-10 images per class in batches of 10, three trainings each: conv_pool reaches 30.3 % with the
    rate scaled by 10 / 128, 28.6 % by the root of that, and without it one of three learns nothing.
    Source: Goyal et al. 2017 (arXiv 1706.02677), section 2.1, for SGD; Malladi et al. 2022 (arXiv 2205.10287) for
    optimizers that divide by the size of the gradient.
    """
    share, optimizer = course.batch_size / config["trainer"]["batch_size"], config["optimizer"]
    if config["protocol"] != "robust" or not config["budget"]["scale_lr"]:
        return {}
    factor = share if str(optimizer["_target_"]).endswith(".SGD") else math.sqrt(share)
    return {key: optimizer[key] * factor for key in ("lr", "adamw_lr") if key in optimizer}


_GROUPS = ("trainer", "augment", "model", "loss", "optimizer", "scheduler", "data")
