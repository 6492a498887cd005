"""Which evaluation was the best, and when to stop waiting for a better one.

Knows the figures of evaluations, not weights or files.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any

from cvtrain.engine.events import Evaluation


@dataclass(frozen=True)
class Best:
    """The best evaluation so far, as the run card shows it."""

    epoch: float
    step: int
    val_loss: float | None
    val_accuracy: float | None
    val_cross_entropy: float | None = None


class Selection:
    """Keeps the best evaluation and counts evaluations without improvement.

    Args:
        metric: `val_accuracy` (higher is better; equal accuracies are decided by the lower loss) or `val_loss`.
        patience: Evaluations without improvement after which training stops; None never stops.
        min_delta: The smallest change of the metric that counts as an improvement for patience. The best weights
            follow every change for the better, however small.
        min_epochs: Never stops before so many epochs.
        min_steps: Evaluations before this step count neither for patience nor as the best: while the learning rate is
            high, the loss of a few validation images is at its lowest long before the weights are at their best.
    """

    def __init__(
        self,
        *,
        metric: str,
        patience: int | None = None,
        min_delta: float = 0.0,
        min_epochs: int = 0,
        min_steps: int = 0,
    ) -> None:
        self.metric, self.patience, self.min_delta = metric, patience, min_delta
        self.min_epochs, self.min_steps = min_epochs, min_steps
        self.best: Best | None = None
        self.num_waited = 0
        self._reference: float | None = None

    def observe(self, evaluation: Evaluation) -> bool:
        """Takes in an evaluation and returns whether it is the best so far; without validation the last one is."""
        if evaluation.val_loss is not None and evaluation.step < self.min_steps:
            return False
        self._count(evaluation)
        if self.best is None or evaluation.val_loss is None or self._rank(evaluation) > self._rank(self.best):
            self.best = Best(**{field.name: getattr(evaluation, field.name) for field in fields(Best)})
            return True
        return False

    @property
    def out_of_patience(self) -> bool:
        """Whether training should stop."""
        return self.patience is not None and self.num_waited >= self.patience

    def forgive(self) -> None:
        """Starts counting anew: for a stopped run that is asked to go on."""
        self.num_waited = 0

    def _rank(self, figures: Evaluation | Best) -> tuple[float, float]:
        assert figures.val_loss is not None, "ranked figures come from validation"
        assert figures.val_accuracy is not None, "ranked figures come from validation"
        if self.metric == "val_loss":
            return -figures.val_loss, figures.val_accuracy
        return figures.val_accuracy, -figures.val_loss

    def _count(self, evaluation: Evaluation) -> None:
        if evaluation.val_loss is None:
            return
        value = self._rank(evaluation)[0]
        if self._reference is None or value > self._reference + self.min_delta:
            self._reference, self.num_waited = value, 0
        elif evaluation.epoch >= self.min_epochs:
            self.num_waited += 1

    def state_dict(self) -> dict[str, Any]:
        """Plain values for a checkpoint."""
        best = asdict(self.best) if self.best else None
        return {"best": best, "num_waited": self.num_waited, "reference": self._reference}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes over a saved state."""
        self.best = Best(**state["best"]) if state["best"] else None
        self.num_waited, self._reference = state["num_waited"], state["reference"]
