"""A line with the training loss every so many steps, for runs whose epochs are long.

Knows sums and steps, not models.
"""

from __future__ import annotations

from collections.abc import Callable

from cvtrain.engine.diagnosis.history import Totals
from cvtrain.engine.events import Evaluation, Step


class StepLog:
    """Says how training goes between evaluations.

    Args:
        every: Steps between lines; None says nothing.
        say: Takes a line.
    """

    def __init__(self, every: int | None, *, say: Callable[[str], None]) -> None:
        self.every, self.say = every, say
        self._told = Totals(0.0, 0, 0)

    def see(self, event: Step | Evaluation, totals: Callable[[], Totals]) -> None:
        """Takes in an event; `totals` gives the sums since the last evaluation, which are read for a line only."""
        if self.every is None:
            return
        if isinstance(event, Evaluation):
            self._told = Totals(0.0, 0, 0)
        elif event.step % self.every == 0:
            now = totals()
            num_images = now.num_images - self._told.num_images
            loss, num_correct = now.loss - self._told.loss, now.num_correct - self._told.num_correct
            self._told = now
            accuracy = f"{100 * num_correct / num_images:.1f} %"
            self.say(f"step {event.step}  train {loss / num_images:.4f}  {accuracy}  lr {event.lr:.3g}")
