"""Where a job of a sweep is at home, and who hears what becomes of it.

Knows a folder and a listener; neither sweeps nor what the job does.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cvtrain.console import Console, SilentConsole

if TYPE_CHECKING:
    from cvtrain.engine.events import Evaluation

POST_EVERY_SECONDS = 0.5


@dataclass(frozen=True)
class Stepped:
    """A job has come so far."""

    step: int
    total_steps: int


@dataclass(frozen=True)
class Evaluated:
    """A job has validated its model; the accuracy is 0..1, or None without validation images."""

    step: int
    val_accuracy: float | None


@dataclass(frozen=True)
class Warned:
    """A job has something to say that its user should act on."""

    line: str


Listener = Callable[[Stepped | Evaluated | Warned], None]


@dataclass(frozen=True)
class Place:
    """The home of a job.

    Args:
        folder: Its run folder; may hold what an earlier process left.
        listener: Hears of steps, evaluations and warnings; None where nobody listens: then warnings are printed.
    """

    folder: Path
    listener: Listener | None = None

    def console(self, log: Callable[[str], None]) -> Console:
        """The console of the job, which prints at most its warnings."""
        return Console(log, quiet=True) if self.listener is None else _PostingConsole(log, self.listener)


class _PostingConsole(SilentConsole):
    def __init__(self, log: Callable[[str], None], listener: Listener) -> None:
        super().__init__(log, on_step=self._post_step)
        self._listener, self._total_steps, self._posted_at = listener, 0, 0.0

    def training_starts(self, *, step: int, total_steps: int, steps_per_epoch: int, evaluate_every: int) -> None:
        super().training_starts(
            step=step, total_steps=total_steps, steps_per_epoch=steps_per_epoch, evaluate_every=evaluate_every
        )
        self._total_steps = total_steps
        self._listener(Stepped(step, total_steps))

    def _post_step(self, step: int) -> None:
        if time.monotonic() - self._posted_at > POST_EVERY_SECONDS:
            self._posted_at = time.monotonic()
            self._listener(Stepped(step, self._total_steps))

    def evaluation(self, evaluation: Evaluation, *, is_best: bool) -> None:
        super().evaluation(evaluation, is_best=is_best)
        self._listener(Evaluated(evaluation.step, evaluation.val_accuracy))

    def warn(self, line: str) -> None:
        super().warn(line)
        self._listener(Warned(line))
