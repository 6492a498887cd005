"""The process that tells one tracker of one run: it reads the run folder whenever the training says a word.

Knows trackers by their names; nothing of how a run is trained. The training hears from it only that it has failed, or
that all is done.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from cvtrain.plain_text import printable
from cvtrain.trackers.options import make_tracker
from cvtrain.trackers.tracked_run import TrackedRun
from cvtrain.trackers.tracker import Journal, Status, journal_path

EVALUATED = "evaluated"
"""The word for: there is a row more. Every other word says how the run has ended, and is the last."""

PROGRESS = b"\n"
"""An answer that says only that the tracker is at work."""

_ORPHAN_SECONDS = 60
"""How long this process may live on when the training has vanished without a word."""
_ROWS_AT_ONCE = 100
_MAX_REASON = 160


def main() -> None:
    """Follows the run that the command line names, until its training says how it has ended, or vanishes."""
    option, folder = sys.argv[2:4]
    os.nice(5)  # the training goes first
    answers = os.dup(1)  # nothing that a library prints may be taken for an answer
    os.dup2(2, 1)
    try:
        run = TrackedRun(Path(folder))
        Following(option, run, on_progress=lambda: os.write(answers, PROGRESS)).follow(sys.stdin)
        answer: dict[str, Any] = {"is_done": True}
    except (Exception, SystemExit) as error:  # there are libraries that end the process where others raise
        sys.excepthook(type(error), error, error.__traceback__)
        answer = {"is_done": False, "reason": in_a_line(error)}
    with contextlib.suppress(OSError):
        os.write(answers, json.dumps(answer).encode() + b"\n")
    os._exit(0)  # what a library would still do at the end, such as waiting for a server, is nobody's wish


class Following:
    """One tracker, one run.

    Args:
        option: The tracker.
        run: What it is told of.
        on_progress: Called whenever it has taken something.
    """

    def __init__(self, option: str, run: TrackedRun, *, on_progress: Callable[[], object]) -> None:
        self.run, self._on_progress = run, on_progress
        self._journal_path = journal_path(run.path, option)
        journal = Journal.read(self._journal_path)
        self._tracker = make_tracker(option, run, journal)
        self._journal = journal if journal and journal.place == self._tracker.place else None

    def follow(self, words: Iterable[str]) -> None:
        """Begins, sends rows as they come, and ends the tracked run."""
        self._start()
        status = "stopped"
        for line in words:
            if line.strip() != EVALUATED:
                status = line.strip()
                break
            self._send_rows()
        else:  # no word of an end: the process that trained is gone
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.alarm(_ORPHAN_SECONDS)
        self._send_rows()
        self._end(cast(Status, status))

    def _start(self) -> None:
        known = self._journal
        rows = [row.step for row in self.run.rows()]
        step = max((s for s in rows if known and s <= known.step), default=0)
        run_id = self._tracker.start(self.run, known_id=known.run_id if known else None, after_step=step)
        self._note(Journal(self._tracker.place, run_id, step))
        self._send_rows()

    def _send_rows(self) -> None:
        assert self._journal is not None, "the tracked run has begun"
        rows = [row for row in self.run.rows() if row.step > self._journal.step]
        for i in range(0, len(rows), _ROWS_AT_ONCE):
            part = rows[i : i + _ROWS_AT_ONCE]
            self._tracker.add_rows(part)
            self._note(replace(self._journal, step=part[-1].step))

    def _end(self, status: Status) -> None:
        assert self._journal is not None, "the tracked run has begun"
        if status == "done":
            self._tracker.add_figures(self.run.figures(), step=self._journal.step)
            self._on_progress()
            self._tracker.add_files(self.run)
            self._on_progress()
        self._tracker.finish(status)
        self._note(replace(self._journal, status=status))

    def _note(self, journal: Journal) -> None:
        self._journal = journal
        journal.write(self._journal_path)
        with contextlib.suppress(BrokenPipeError):  # the training is gone
            self._on_progress()


def in_a_line(error: BaseException) -> str:
    """An error of a library in a line that can be shown."""
    if isinstance(error, SystemExit):
        return f"it has ended its process with code {error.code}"
    return printable(" ".join(f"{type(error).__name__}: {error}".split()))[:_MAX_REASON]
