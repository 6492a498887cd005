"""Where the jobs of a multirun come from, one at a time, and what is told of each.

Knows words of command lines; neither processes nor what a job does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

Words = tuple[str, ...]
"""What is typed for one job, e.g. `("optimizer=sgd", "optimizer.lr=0.1", "seed=3")`."""


@dataclass(frozen=True)
class JobOutcome:
    """What became of a job.

    Args:
        words: Of the job.
        status: `pruned` where the stream asked for its end; `stopped` by a signal to the whole command.
        exit_code: 0 where it is done; 128+N or -N after signal N.
        value: What its task returned: for training the best validation accuracy, 0..1.
        folder: Its folder in the sweep; None where its settings could not even be composed.
        error: Why it is not done, in one line.
    """

    words: Words
    status: Literal["done", "failed", "stopped", "pruned"]
    exit_code: int
    value: float | None = None
    folder: Path | None = None
    error: str | None = None


class JobStream(Protocol):
    """Gives jobs and hears of them; all calls come from one thread of the driver.

    A job that was done before the driver began is told of by `ended` too, without having been run again.
    """

    def next_job(self) -> Words | None:
        """The next job to start; None where there is none at the moment, or none any more."""

    def is_over(self) -> bool:
        """Whether no job will come any more."""

    def evaluated(self, words: Words, step: int, val_accuracy: float) -> bool:
        """Hears of an evaluation of a running job; returns whether the job is to be stopped for good (pruned)."""

    def ended(self, outcome: JobOutcome) -> None:
        """Hears what became of a job that `next_job` gave."""


class FixedJobs:
    """A grid: all jobs are known before the first starts.

    Args:
        jobs: In the order in which they are run.
    """

    def __init__(self, jobs: Sequence[Words]) -> None:
        self.all = tuple(jobs)
        self._waiting = list(reversed(jobs))
        self.outcomes: list[JobOutcome] = []

    def next_job(self) -> Words | None:
        """The next of the grid."""
        return self._waiting.pop() if self._waiting else None

    def is_over(self) -> bool:
        """Whether all have been given."""
        return not self._waiting

    def evaluated(self, words: Words, step: int, val_accuracy: float) -> bool:
        """Prunes nothing."""
        return False

    def ended(self, outcome: JobOutcome) -> None:
        """Keeps the outcome."""
        self.outcomes.append(outcome)
