"""What a model that has learnt nothing reaches: the accuracy of chance and the loss of a constant output.

Knows counts of classes and a loss as a function; nothing of models or of training.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

ALPHA = 1e-3
"""Share of the looks at which a model at chance passes as one that is above it."""

_MAX_IMAGES = 1000
"""Images that stand for the training images where a loss gives one mean for all."""


def chance_accuracy(class_counts: Sequence[int]) -> float:
    """What the best constant answer scores: the share of the commonest class, at least 1 / K."""
    return max(1 / len(class_counts), max(class_counts) / sum(class_counts))


def upper_tail(num_correct: int, num_images: int, share: float) -> float:
    """The probability of at least `num_correct` of `num_images` by chance, from the exact binomial distribution."""
    if num_correct <= 0:
        return 1.0
    if num_correct > num_images or share <= 0:
        return 0.0
    if share >= 1:
        return 1.0
    k = torch.arange(num_correct, num_images + 1, dtype=torch.float64)
    n = torch.tensor(float(num_images), dtype=torch.float64)
    ways = torch.lgamma(n + 1) - torch.lgamma(k + 1) - torch.lgamma(n - k + 1)
    return min(torch.logsumexp(ways + k * math.log(share) + (n - k) * math.log1p(-share), 0).exp().item(), 1.0)


def is_above(num_correct: int, num_images: int, share: float) -> bool:
    """Whether so many correct answers are too many for chance."""
    return upper_tail(num_correct, num_images, share) <= ALPHA


def chance_loss(loss_fn: nn.Module, class_counts: Sequence[int]) -> float | None:
    """The smallest mean loss over the training images that one and the same output for all of them can reach.

    Found by minimising over the output, so that it holds for any loss, smoothing, margin and weight of classes. For
    balanced classes cross-entropy gives ln K, smoothed or not; the mean squared error (1/K)(1 - 1/K).

    Args:
        loss_fn: Maps outputs `(B, num_outputs)` and labels to one loss per image, or to one mean; not changed.
        class_counts: Training images of each class, K numbers.

    Returns:
        The loss, or None for one that cannot be computed this way.
    """
    loss_fn = copy.deepcopy(loss_fn).cpu()
    num_classes = len(class_counts)
    num_outputs = getattr(loss_fn, "num_outputs", num_classes)
    frequencies = torch.tensor(class_counts, dtype=torch.float64) / sum(class_counts)
    if num_outputs != 1 and num_outputs % num_classes:
        return None

    def mean_loss(output: Tensor) -> Tensor:
        # Losses with more outputs than classes hold one set for each role; a constant output is the same in each.
        row = output.repeat(num_outputs // num_classes) if num_outputs > 1 else output
        return _mean_loss(loss_fn, row, frequencies)

    try:
        with torch.enable_grad():
            starts = _starts(frequencies, single=num_outputs == 1)
            starts = [start for start in starts if torch.isfinite(mean_loss(start))]
            starts.sort(key=lambda start: mean_loss(start).item())
            found = [mean_loss(start).item() for start in starts[:1]]
            found += [_minimum(mean_loss, start) for start in starts[:2]]
    except (RuntimeError, ValueError, TypeError, AttributeError):
        return None  # a loss of the user's own may ask for anything
    return min((value for value in found if math.isfinite(value)), default=None)


def _mean_loss(loss_fn: nn.Module, row: Tensor, frequencies: Tensor) -> Tensor:
    labels = torch.arange(len(frequencies))
    losses = loss_fn(row.expand(len(labels), -1), labels)
    if losses.ndim:
        return (losses.double() * frequencies).sum()
    labels = labels.repeat_interleave((frequencies * _MAX_IMAGES).round().long())
    return loss_fn(row.expand(len(labels), -1), labels)


def _starts(frequencies: Tensor, *, single: bool) -> list[Tensor]:
    if single:
        odds = (frequencies[1].clamp(1e-6, 1 - 1e-6)).logit()
        return [torch.zeros(1, dtype=torch.float64), odds[None]]
    majority = torch.zeros_like(frequencies)
    majority[frequencies.argmax()] = 1
    return [
        torch.zeros_like(frequencies),
        frequencies.clamp_min(1e-6).log(),
        frequencies.clone(),
        majority,
        20 * majority,
    ]


def _minimum(mean_loss, start: Tensor) -> float:
    output = start.clone().requires_grad_(True)
    optimizer = torch.optim.LBFGS([output], max_iter=40, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = mean_loss(output)
        loss.backward(inputs=[output])
        return loss

    optimizer.step(closure)
    return mean_loss(output).item()
