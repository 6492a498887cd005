"""What a person sees while a multirun works: a line per running job, and one for all of them.

Knows names and figures, neither processes nor files.

The lines stand below the cursor, which waits on an empty line above them. So whatever else is written to the terminal,
by Ctrl-C or by another part of the program, comes above them; what is left of them is what lies below the cursor,
however the window was resized; and a driver that is killed leaves no cursor hidden.
"""

from __future__ import annotations

import errno
import math
import sys
import time
from dataclasses import dataclass
from types import TracebackType

from cvtrain.console import Console, percent, terminal_size
from cvtrain.job_estimate import RunningJob, coarse, remaining_seconds
from cvtrain.job_rows import clock, folded, job_rows
from cvtrain.plain_text import printable

REDRAW_SECONDS = 0.25
"""At most so often are figures renewed; a line that is said or a job that begins or ends is shown at once."""

_START_OF_LINE, _CLEAR_LINE, _CLEAR_BELOW = "\r", "\x1b[K", "\x1b[J"
_FOLD_OFF, _FOLD_ON = "\x1b[?7l", "\x1b[?7h"


@dataclass
class _Job:
    """A job that runs."""

    name: str
    began_at: float
    first_heard_at: float | None = None
    first_step: int = 0
    step: int = 0
    total_steps: int = 0
    val_accuracy: float | None = None

    def move(self, step: int, total_steps: int, *, now: float) -> None:
        if self.first_heard_at is None:
            self.first_heard_at, self.first_step = now, step
        self.step, self.total_steps = min(step, total_steps), total_steps

    def progress(self, *, now: float) -> RunningJob:
        """For an estimate."""
        if self.first_heard_at is None or not self.total_steps:
            return RunningJob(now - self.began_at)
        return RunningJob(
            now - self.began_at,
            training_seconds=now - self.first_heard_at,
            share_before=self.first_step / self.total_steps,
            share_done=self.step / self.total_steps,
        )

    def cells(self, *, now: float) -> dict[str, str]:
        """Its figures, by column."""
        return {
            "share": f"{100 * self.step // self.total_steps} %" if self.total_steps else "",
            "step": f"step {self.step} of {self.total_steps}" if self.total_steps else "starting",
            "val": "" if self.val_accuracy is None else f"val {percent(self.val_accuracy)}",
            "time": clock(now - self.began_at),
        }


class JobLines:
    """Shows jobs while they run; all calls come from one thread.

    On a terminal the lines are live as long as the `with` block lasts, and are gone after it. Elsewhere a job is a line
    when it begins and a line when it ends. The log gets these two in any case.

    Args:
        console: Prints and logs what stays.
        num_jobs: Of the multirun, those that were done before included; None where a search decides.
        num_slots: Jobs that may run at the same time.
    """

    def __init__(self, console: Console, *, num_jobs: int | None, num_slots: int) -> None:
        self.num_jobs, self.num_slots = num_jobs, num_slots
        self._console = console
        self._running: dict[str, _Job] = {}
        self._failed: dict[str, bool] = {}  # by the key of a job that has ended
        self._ended_seconds: list[float] = []
        self._num_skipped = 0
        self._is_live = False
        self._drawn_at = self._estimated_at = -math.inf
        self._estimate: float | None = None

    def __enter__(self) -> JobLines:
        self._is_live = self._console.can_redraw and not self._console.quiet
        self._draw()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._erase()
        self._is_live = False

    # -------------------------------------------------------------------------------------------- what happens

    def begins(self, key: str, name: str) -> None:
        """A job starts, for the first time or again.

        Args:
            key: Tells it from others.
            name: For a person, e.g. `job 3 of 12: optimizer=sgd optimizer.lr=0.1 seed=1`.
        """
        self._failed.pop(key, None)
        self._running[key] = _Job(self._shown(name), time.monotonic())
        self._estimated_at = -math.inf
        if self._is_live:
            self._console.log(printable(name))
            self._draw()
        else:
            self.say(name)

    def moves(self, key: str, *, step: int, total_steps: int) -> None:
        """A running job has taken so many steps."""
        if key in self._running:
            self._running[key].move(step, total_steps, now=time.monotonic())
        self.refresh()

    def evaluates(self, key: str, *, val_accuracy: float | None) -> None:
        """A running job has been validated: 0..1, or None where it was not."""
        if key in self._running and val_accuracy is not None:
            self._running[key].val_accuracy = val_accuracy
        self.refresh()

    def ends(self, key: str, line: str, *, seconds: float | None, is_failed: bool) -> None:
        """A job has ended, whether or not it was said to begin.

        Args:
            key: Of the job.
            line: What became of it.
            seconds: That it took; None where that tells nothing of other jobs.
            is_failed: Counts it as failed, and its seconds for nothing: it ended before its time.
        """
        self._running.pop(key, None)
        self._failed[key] = is_failed
        if seconds is not None and not is_failed:
            self._ended_seconds.append(seconds)
        self._estimated_at = -math.inf
        self.say(line)

    def skips(self, num_jobs: int = 1) -> None:
        """Jobs that were done before, or that another driver does."""
        self._num_skipped += num_jobs
        self.refresh()

    def say(self, line: str) -> None:
        """Prints any other line, above the live ones."""
        self._erase()
        try:
            self._console.say(line)
        except OSError as error:
            if error.errno != errno.EIO:
                raise
            # The terminal was closed. The log has the line, and the jobs are still to be ended well.
        self._draw()

    def refresh(self) -> None:
        """Renews the figures, unless that was a moment ago; for a driver that hears nothing of its jobs for a while."""
        if time.monotonic() - self._drawn_at >= REDRAW_SECONDS:
            self._draw()

    # -------------------------------------------------------------------------------------------- the lines in all

    def _line_in_all(self, *, now: float) -> list[str]:
        """The parts of the last line, e.g. `7 of 20 done`, `1 failed`, `2 running`, `about 12 min left`."""
        num_failed = sum(self._failed.values())
        num_done = len(self._failed) - num_failed + self._num_skipped
        parts = [f"{num_done} done" if self.num_jobs is None else f"{num_done} of {self.num_jobs} done"]
        parts += [f"{num_failed} failed"] if num_failed else []
        parts += [f"{len(self._running)} running"] if self._running else []
        seconds = self._remaining_seconds(now)
        return parts if seconds is None else [*parts, f"about {coarse(seconds)} left"]

    def _remaining_seconds(self, now: float) -> float | None:
        """Estimated once a second, which is often enough for minutes; None where it is not known or nothing is left."""
        if self.num_jobs is not None and now - self._estimated_at >= 1:
            num_waiting = max(self.num_jobs - self._num_skipped - len(self._failed) - len(self._running), 0)
            running = [job.progress(now=now) for job in self._running.values()]
            how = {"num_waiting": num_waiting, "num_slots": self.num_slots}
            is_over = not running and not num_waiting
            self._estimate = None if is_over else remaining_seconds(self._ended_seconds, running, **how)
            self._estimated_at = now
        return self._estimate

    def _rows(self, *, width: int, height: int) -> list[str]:
        """All that stands below the cursor, as many rows as the screen has room for under the empty one."""
        now = time.monotonic()
        last = folded(self._line_in_all(now=now), width=width)
        room, jobs = max(height - 1 - len(last), 0), list(self._running.values())
        if len(jobs) > room:
            jobs = jobs[: max(room - 1, 0)]
            last = [*([f"and {len(self._running) - len(jobs)} more"] if room else []), *last]
        names = tuple(job.name for job in jobs)
        rows = job_rows(names, [job.cells(now=now) for job in jobs], width=width)
        return [*rows, *last][: max(height - 1, 0)]

    # -------------------------------------------------------------------------------------------- the terminal

    def _shown(self, text: str) -> str:
        """Text that the terminal can take."""
        encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
        return printable(text).encode(encoding, "backslashreplace").decode(encoding)

    def _draw(self) -> None:
        if not self._is_live:
            return
        self._drawn_at = time.monotonic()
        width, height = terminal_size()
        rows = self._rows(width=width - 1, height=height)  # the last cell of a row makes some terminals fold it
        below = "".join(f"\r\n{row}{_CLEAR_LINE}" for row in rows)
        back = f"\x1b[{len(rows)}A" if rows else ""
        # A name that the terminal counts wider than we do must not fold a row: the way back would be too short.
        self._write(f"{_START_OF_LINE}{_FOLD_OFF}{_CLEAR_LINE}{below}{_CLEAR_BELOW}{_FOLD_ON}{back}{_START_OF_LINE}")

    def _erase(self) -> None:
        if self._is_live:
            self._write(f"{_START_OF_LINE}{_CLEAR_BELOW}")

    def _write(self, text: str) -> None:
        """In one piece, so that a signal finds the cursor where it belongs."""
        try:
            sys.stdout.write(text)
            sys.stdout.flush()
        except OSError:  # the terminal was closed
            self._is_live = False
