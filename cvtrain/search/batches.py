"""A search under a launcher that takes jobs in batches and tells of them when the whole batch has ended.

Knows a stream and a function that launches; neither Hydra nor what a job does.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from cvtrain.console import Console
from cvtrain.jobs.stream import JobOutcome, JobStream, Words

Launch = Callable[[Sequence[Words], int], Sequence[JobOutcome]]
"""Runs a batch, whose first job has a number; returns an outcome for each job, in their order."""


def run_in_batches(stream: JobStream, launch: Launch, *, batch_size: int, console: Console) -> None:
    """Runs the jobs of a stream, `batch_size` at a time; none is stopped early.

    A launcher that dies takes its batch with it: its jobs have failed then, and the next batch is launched.

    Args:
        stream: Gives the jobs.
        launch: Runs a batch.
        batch_size: At least 1.
        console: Where it is told of.
    """
    num_launched = 0
    while batch := _batch(stream, batch_size):
        console.say(f"jobs {num_launched + 1} to {num_launched + len(batch)}")
        try:
            outcomes = launch(batch, num_launched)
        except Exception as error:  # whatever a launcher of somebody else's comes to
            told = " ".join(f"{type(error).__name__}: {error}".split())[:300]
            outcomes = [JobOutcome(words, "failed", 1, error=f"the launcher failed: {told}") for words in batch]
        for outcome in outcomes:
            stream.ended(outcome)
        num_launched += len(batch)


def _batch(stream: JobStream, batch_size: int) -> list[Words]:
    batch: list[Words] = []
    while len(batch) < batch_size and (words := stream.next_job()) is not None:
        batch.append(words)
    return batch
