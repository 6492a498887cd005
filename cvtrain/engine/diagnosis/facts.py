"""What the diagnosis is told about a run, so that it can name the setting to type.

Knows plain values only.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class RunFacts:
    """A run as its settings describe it.

    Args:
        class_counts: Training images of each class, K numbers.
        num_val: Validation images.
        total_steps: Length of the run.
        steps_per_epoch: Batches in one pass over the training images.
        evaluate_every: Steps between evaluations.
        lr_factor: The course of the learning rate: the factor at each step.
        lr: `optimizer.lr`.
        weight_decay: `optimizer.weight_decay`.
        grad_clip: `trainer.grad_clip`.
        init: The initialisation used, `default` or `he`.
        model: The option chosen, or the name that a library knows it by.
        loss: The option chosen.
        freeze: `trainer.freeze`.
        model_options: Keys of the model's own settings.
        better_model: The same model with batch normalisation, if there is one.
    """

    class_counts: Sequence[int]
    num_val: int
    total_steps: int
    steps_per_epoch: int
    evaluate_every: int
    lr_factor: Callable[[int], float]
    lr: float
    weight_decay: float = 0.0
    grad_clip: float | None = None
    init: str = "default"
    model: str = ""
    loss: str = "cross_entropy"
    freeze: Sequence[str] = ()
    model_options: Sequence[str] = field(default=())
    better_model: str | None = None

    def lr_has_peaked(self, step: int) -> bool:
        """Whether the learning rate has been at least half of its largest by now."""
        return max(self._factors(step)) >= 0.5 * max(self._factors(self.total_steps))

    def at_peak(self, value: float, step: int) -> float:
        """What a change that is in proportion to the learning rate of a step would be at its largest."""
        now = self.lr_factor(max(step - 1, 0))
        return value * max(self._factors(self.total_steps)) / now if now > 0 else value

    def _factors(self, end: int) -> list[float]:
        return [self.lr_factor(step) for step in range(0, max(end, 1), max(end // 200, 1))]
