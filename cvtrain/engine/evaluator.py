"""Loss and accuracy of a model over all images of a split.

Knows nothing of training; sums over images and divides once, so that the batch size changes no figure.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from cvtrain.engine.device import Compute, memory_limit
from cvtrain.engine.distributed.team import Team
from cvtrain.engine.memory import EVALUATION, PartedWork
from cvtrain.engine.metrics import predicted_classes
from cvtrain.errors import DivergedError

SMALLEST_PROBABILITY = 1e-7
"""Losses that are no likelihoods give a probability of exactly 0, whose logarithm would drown all other images."""


@dataclass(frozen=True)
class EvaluationResult:
    """How a model did on one split.

    Args:
        loss: Mean over images.
        accuracy: 0..1.
        num_images: How many.
        cross_entropy: Mean over images of -log of the probability of the label, in nats, whatever the loss: what
            models trained with different losses can be compared by. A probability below 1e-7 counts as 1e-7.
        labels: int64 `(N,)`, if predictions were collected.
        probabilities: float32 `(N, K)`, if predictions were collected.
        predictions: int64 `(N,)`, the class of the largest logit, if predictions were collected. Probabilities of
            different logits may be equal, so these decide.
    """

    loss: float
    accuracy: float
    num_images: int
    cross_entropy: float
    labels: Tensor | None = None
    probabilities: Tensor | None = None
    predictions: Tensor | None = None

    @property
    def is_finite(self) -> bool:
        """Whether the figures are finite numbers."""
        return math.isfinite(self.loss) and math.isfinite(self.cross_entropy)

    def check_finite(self, split: str) -> None:
        """Refuses figures that mean nothing.

        Raises:
            DivergedError: The loss is not finite; the weights are, so it comes from pixels or from huge outputs.
        """
        if not self.is_finite:
            raise DivergedError(
                f"diverged: the loss of the {split} images is not a finite number",
                hint="look for images whose pixels are not finite numbers, or train with a smaller optimizer.lr",
            )


def image_losses(loss_fn: nn.Module, logits: Tensor, labels: Tensor) -> Tensor:
    """`(B,)`: the loss of each image; a foreign loss that gives one mean counts as that for every image."""
    losses = loss_fn(logits, labels)
    return losses if losses.ndim else losses.expand(len(labels))


def surprise(probabilities: Tensor, labels: Tensor) -> Tensor:
    """`(B,)`: -log of the probability of the label, in nats; one below `SMALLEST_PROBABILITY` counts as that."""
    return -probabilities.gather(1, labels[:, None]).squeeze(1).clamp_min(SMALLEST_PROBABILITY).log()


@torch.inference_mode()
def evaluate(
    model: nn.Module,
    loss_fn: nn.Module,
    inputs: Iterable,
    *,
    compute: Compute,
    collect: bool = False,
    should_stop: Callable[[], bool] = lambda: False,
    on_batch: Callable[[], None] = lambda: None,
    team: Team | None = None,
    parted: PartedWork | None = None,
) -> EvaluationResult | None:
    """Runs a model over all inputs in evaluation mode, and leaves its mode as it was; the same for the loss.

    Args:
        model: Maps images `(B, C, H, W)` to logits.
        loss_fn: Maps logits and labels to one loss per image.
        inputs: Batches with `images` and `labels`.
        compute: Device and number format.
        collect: Whether to keep labels and probabilities of every image.
        should_stop: Asked after each batch.
        on_batch: Called after each batch.
        team: The processes of which each has a share of the inputs, in their order; all get the same figures, and the
            first one alone what was collected.
        parted: Computes a batch in smaller parts where memory does not suffice, and remembers for the next time; None
            begins anew.

    Returns:
        The result, or None when `should_stop` said so, to any process.

    Raises:
        MemoryLimitError: The device has no room for the smallest parts of a batch.
    """
    was_training = model.training
    model.eval()
    loss_fn.eval()  # one that keeps statistics keeps those of training
    totals, is_stopped = _Totals(compute.device, collect=collect), False
    parted = parted or PartedWork(EVALUATION, compute.device)
    figures_of = partial(_figures, model, loss_fn, compute=compute, collect=collect)
    try:
        with memory_limit("out of memory while evaluating", hint="type a smaller trainer.eval_batch_size"):
            for batch in inputs:
                for figures in parted.compute(partial(figures_of, batch), batch_size=len(batch.labels)):
                    totals.add(figures)
                on_batch()
                is_stopped = should_stop()
                if is_stopped:
                    break
    finally:
        model.train(was_training)
        loss_fn.train(was_training)
    if team is not None:
        is_stopped = bool(team.start_largest([int(is_stopped)])()[0])
    if is_stopped:
        return None
    if team is not None:
        totals.join(team)
    return totals.result()


class _Figures(NamedTuple):
    """Of some images: sums, how many, and what is collected of each: labels, probabilities, predictions."""

    loss: Tensor
    cross_entropy: Tensor
    num_correct: Tensor
    num_images: int
    collected: tuple[Tensor, Tensor, Tensor] | None


def _figures(
    model: nn.Module, loss_fn: nn.Module, batch: Any, num_parts: int, *, compute: Compute, collect: bool
) -> list[_Figures]:
    """Of each of so many parts of a batch."""
    parts = []
    columns = batch.images.tensor_split(num_parts), batch.labels.tensor_split(num_parts)
    for images, labels in zip(*columns, strict=True):
        with compute.autocast():
            logits = model(images)
        probabilities, predictions = loss_fn.probabilities(logits), predicted_classes(logits)
        sums = image_losses(loss_fn, logits, labels).sum(), surprise(probabilities, labels).sum()
        kept = (labels.cpu(), probabilities.cpu(), predictions.cpu()) if collect else None
        parts.append(_Figures(*sums, (predictions == labels).sum(), len(labels), kept))
    return parts


class _Totals:
    """Sums over images, and what is kept of each."""

    def __init__(self, device: torch.device, *, collect: bool) -> None:
        dtype = torch.float64 if device.type != "mps" else torch.float32
        self.loss, self.cross_entropy = (torch.zeros((), dtype=dtype, device=device) for _ in range(2))
        self.num_correct, self.num_images = torch.zeros((), dtype=torch.int64, device=device), 0
        self.collected: list[tuple[Tensor, Tensor, Tensor]] | None = [] if collect else None

    def add(self, figures: _Figures) -> None:
        """Takes in a batch, or a part of one."""
        self.loss += figures.loss
        self.cross_entropy += figures.cross_entropy
        self.num_correct += figures.num_correct
        self.num_images += figures.num_images
        if self.collected is not None and figures.collected is not None:
            self.collected.append(figures.collected)

    def join(self, team: Team) -> None:
        """Adds up the sums of all processes, and puts what they collected together in their order."""
        figures = [self.loss, self.cross_entropy, self.num_correct, torch.tensor(self.num_images)]
        sums = torch.stack([figure.to(self.loss) for figure in figures])
        team.sum(sums)
        self.loss, self.cross_entropy, self.num_correct = sums[0], sums[1], sums[2].long()
        self.num_images = int(sums[3])
        if self.collected is not None:
            nothing = torch.empty(0, dtype=torch.int64)
            empty = nothing, torch.empty(0, 0), nothing
            columns = [torch.cat(parts) for parts in zip(*self.collected, strict=True)] or empty
            rows = [team.gather_rows(column) for column in columns]
            self.collected = [(rows[0], rows[1], rows[2])] if team.is_first else []

    def result(self) -> EvaluationResult:
        """Means over all images."""
        collected = [torch.cat(parts) for parts in zip(*self.collected, strict=True)] if self.collected else []
        return EvaluationResult(
            self.loss.item() / self.num_images,
            self.num_correct.item() / self.num_images,
            self.num_images,
            self.cross_entropy.item() / self.num_images,
            *collected,
        )
