"""The schedule that follows the validation loss, and so has a state to save.

Knows nothing of optimizers.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from cvtrain.schedulers.schedule import Schedule, check


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
        check("patience", self.patience, at_least=0, whole=True)
        check("gamma", self.gamma, above=0, below=1)
        check("min_delta", self.min_delta, at_least=0)
        check("min_factor", self.min_factor, at_least=0, at_most=1)

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
