"""The recent past of a run: its loss and accuracy in blocks of steps, and its evaluations.

Knows plain numbers, not what they mean.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

from cvtrain.engine.events import Evaluation

MIN_IMAGES, MIN_STEPS = 2000, 100
"""What recent figures are taken over, at least."""

KEPT_STEPS, KEPT_IMAGES = 400, 20_000


class Totals(NamedTuple):
    """Sums since the last evaluation: of losses, of correct answers, of images."""

    loss: float
    num_correct: int
    num_images: int


@dataclass(frozen=True)
class Block:
    """Some steps on end.

    Args:
        start: Steps taken before it.
        end: Steps taken after it.
        total_loss: Sum over its images.
        num_correct: Of its images.
        num_images: How many.
    """

    start: int
    end: int
    total_loss: float
    num_correct: int
    num_images: int

    @property
    def loss(self) -> float:
        """Mean over the images."""
        return self.total_loss / self.num_images

    @property
    def accuracy(self) -> float:
        """0..1."""
        return self.num_correct / self.num_images


class History:
    """Blocks and evaluations, as many as rules need."""

    def __init__(self) -> None:
        self.blocks: list[Block] = []
        self.first_loss: float | None = None
        self.val_losses: list[float] = []
        self.best_val_loss: float | None = None
        self.num_evaluations = 0
        self.val_was_above_chance = False
        self._read = Totals(0.0, 0, 0)

    def read(self, step: int, totals: Totals) -> None:
        """Takes in the sums since the last evaluation."""
        before = self._read
        num_images = totals.num_images - before.num_images
        if num_images <= 0:
            return
        start = self.blocks[-1].end if self.blocks else 0
        correct = totals.num_correct - before.num_correct
        self.blocks.append(Block(start, step, totals.loss - before.loss, correct, num_images))
        self._read = totals
        if self.first_loss is None:
            self.first_loss = self.blocks[0].loss
        while len(self.blocks) > 1 and self._is_old(self.blocks[0]):
            self.blocks.pop(0)

    def _is_old(self, block: Block) -> bool:
        later = sum(b.num_images for b in self.blocks) - block.num_images
        return block.end <= self.blocks[-1].end - KEPT_STEPS and later >= KEPT_IMAGES

    def evaluated(self, evaluation: Evaluation, is_at_chance: bool) -> None:
        """Takes in an evaluation, after which the sums start from nothing."""
        self._read = Totals(0.0, 0, 0)
        if evaluation.val_loss is None:
            return
        self.num_evaluations += 1
        self.val_was_above_chance |= not is_at_chance
        self.val_losses = [*self.val_losses[-3:], evaluation.val_loss]
        before = evaluation.val_loss if self.best_val_loss is None else self.best_val_loss
        self.best_val_loss = min(evaluation.val_loss, before)

    def span(self, start: int, end: int) -> Block | None:
        """The blocks that lie in these steps as one, or None."""
        inside = [b for b in self.blocks if b.start >= start and b.end <= end]
        if not inside:
            return None
        loss, correct, images = (sum(column) for column in zip(*((*_sums(b),) for b in inside), strict=True))
        return Block(inside[0].start, inside[-1].end, loss, correct, images)

    def recent(self) -> Block | None:
        """The last 2,000 images or 100 steps, whichever is more; None while there are fewer images."""
        for block in reversed(self.blocks):
            whole = self.span(block.start, self.blocks[-1].end)
            assert whole is not None, "the last block lies in it"
            if whole.num_images >= MIN_IMAGES and whole.end - whole.start >= MIN_STEPS:
                return whole
        return None

    def state_dict(self) -> dict[str, Any]:
        """Plain values, for a checkpoint."""
        return {
            "blocks": [[b.start, b.end, *_sums(b)] for b in self.blocks],
            "first_loss": self.first_loss,
            "val_losses": list(self.val_losses),
            "best_val_loss": self.best_val_loss,
            "num_evaluations": self.num_evaluations,
            "val_was_above_chance": self.val_was_above_chance,
            "read": list(self._read),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes over a saved state."""
        self.blocks = [Block(*row) for row in state["blocks"]]
        self.first_loss = state["first_loss"]
        self.val_losses = list(state["val_losses"])
        self.best_val_loss = state["best_val_loss"]
        self.num_evaluations = state["num_evaluations"]
        self.val_was_above_chance = state["val_was_above_chance"]
        self._read = Totals(*state["read"])


def _sums(block: Block) -> tuple[float, int, int]:
    return block.total_loss, block.num_correct, block.num_images
