"""An exponential moving average of weights.

Knows a model's parameters and buffers, not how they are trained.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class WeightAverage:
    """The exponential moving average (EMA) of a model's parameters; buffers are taken as they are.

    The decay grows as (1 + t) / (10 + t) up to its value, so that the first steps do not dominate short runs.
    Source: Polyak & Juditsky 1992; the warm-up as in TensorFlow's ExponentialMovingAverage.

    Args:
        model: Whose weights are averaged.
        decay: Share of the old average that stays at each step, in [0, 1).
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.num_updates = 0
        self._parameters = list(model.parameters())
        self.averages = [p.detach().clone() for p in self._parameters]

    @torch.no_grad()
    def update(self) -> None:
        """Takes in the weights after a step."""
        decay = min(self.decay, (1 + self.num_updates) / (10 + self.num_updates))
        torch._foreach_lerp_(self.averages, self._parameters, 1 - decay)
        self.num_updates += 1

    @contextmanager
    def applied(self) -> Iterator[None]:
        """The model holds the averaged weights inside this context, and its own again after it."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    def _swap(self) -> None:
        for parameter, average in zip(self._parameters, self.averages, strict=True):
            parameter.data, average.data = average.data, parameter.data

    def state_dict(self) -> dict[str, int | list[Tensor]]:
        """For a checkpoint."""
        return {"num_updates": self.num_updates, "averages": self.averages}

    def load_state_dict(self, state: dict) -> None:
        """Takes over a saved state."""
        self.num_updates = state["num_updates"]
        with torch.no_grad():
            for average, saved in zip(self.averages, state["averages"], strict=True):
                average.copy_(saved)
