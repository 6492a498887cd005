"""How long the jobs of a multirun will still take, judged by those that have ended and those that run.

Knows seconds and shares, neither processes nor terminals.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

MIN_SHARE = 0.02
"""Share of a job that must be seen done before its own speed is believed: first steps are slower than others."""


@dataclass(frozen=True)
class RunningJob:
    """What is known of a job that has not ended.

    Args:
        elapsed_seconds: Since it began.
        training_seconds: Of these, since it was first heard of; before come modules and data, which take the same
            time in a short job and in a long one.
        share_before: Of its steps done when it was first heard of, 0..1; a job that was resumed starts above 0.
        share_done: Of its steps done now, 0..1.
    """

    elapsed_seconds: float
    training_seconds: float = 0.0
    share_before: float = 0.0
    share_done: float = 0.0

    @property
    def all_steps_seconds(self) -> float | None:
        """Seconds for all of its steps at the speed seen; None where too few were seen."""
        share_seen = self.share_done - self.share_before
        return self.training_seconds / share_seen if share_seen >= MIN_SHARE else None

    @property
    def whole_seconds(self) -> float | None:
        """Seconds from its beginning to its end, had it been resumed nowhere; None where too few steps were seen."""
        steps_seconds = self.all_steps_seconds
        return None if steps_seconds is None else self.elapsed_seconds - self.training_seconds + steps_seconds

    def remaining_seconds(self, *, typical_seconds: float) -> float:
        """Seconds to its end.

        Args:
            typical_seconds: That a job takes, for one that has not told enough of itself.
        """
        steps_seconds = self.all_steps_seconds
        if steps_seconds is None:
            return max(typical_seconds - self.elapsed_seconds, 0.0)
        return steps_seconds * (1 - self.share_done)


def remaining_seconds(
    ended_seconds: Sequence[float], running: Sequence[RunningJob], *, num_waiting: int, num_slots: int
) -> float | None:
    """Seconds until all jobs have ended, each waiting one being started where a slot gets free first.

    A waiting job is taken to be as long as the mean of those known. That counts running jobs too: those that have ended
    are the short ones at first.

    Args:
        ended_seconds: Of each job that has ended.
        running: The jobs that have begun.
        num_waiting: Jobs that have not.
        num_slots: Jobs that may run at the same time.

    Returns:
        Never less than 0; None where there is nothing to judge by.
    """
    if not running and not num_waiting:
        return 0.0
    told = (job.whole_seconds for job in running)
    known = [*ended_seconds, *(seconds for seconds in told if seconds is not None)]
    if not known:
        return None
    typical_seconds = fmean(known)
    free_at = [job.remaining_seconds(typical_seconds=typical_seconds) for job in running]
    free_at += [0.0] * (max(num_slots, 1) - len(running))
    heapq.heapify(free_at)
    for _ in range(num_waiting):
        heapq.heapreplace(free_at, free_at[0] + typical_seconds)
    return max(free_at)


def coarse(seconds: float) -> str:
    """Seconds as roughly as an estimate can be meant: `20 s`, `12 min`, `45 min`, `3 h 30 min`, `14 h`, `3 days`."""
    if seconds < 55:
        return f"{10 * max(round(seconds / 10), 1)} s"
    minutes = round(seconds / 60) if seconds < 15 * 60 else 5 * round(seconds / 300)
    if minutes < 90:
        return f"{minutes} min"
    hours, is_half = divmod(round(seconds / 1800), 2)
    if hours < 10:
        return f"{hours} h 30 min" if is_half else f"{hours} h"
    hours = round(seconds / 3600)
    return f"{hours} h" if hours < 48 else f"{round(hours / 24)} days"
