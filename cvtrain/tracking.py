"""Trackers from the side of the training: each is a process beside it, told of every row and of the end.

Knows processes and the words between them; not what a tracker does. Whatever becomes of such a process costs a
warning, and at the end of a run a limited wait; never the run, nor its exit code.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from cvtrain.console import Console
from cvtrain.errors import InterruptedBySignal
from cvtrain.fit import Run
from cvtrain.signals import Interruption, StopRequest
from cvtrain.trackers.following import EVALUATED, PROGRESS
from cvtrain.trackers.options import OPTIONS
from cvtrain.trackers.tracker import Journal, journal_path

_PROGRAM = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); from cvtrain.trackers.following import main; main()"
)
_WAIT_SECONDS = 60.0
"""How long a run that is done waits for a tracker whose settings do not say."""
_STOPPED_WAIT_SECONDS = 5.0
"""How long one that was stopped waits, or that failed: who stops it wants it to end, and `resume=` sends the rest."""
_SILENT_SECONDS = 3.0

_PRIVATE = {"MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true"}
"""Told to all libraries where the user's environment says nothing else: a run is told to nobody who was not named."""


def tracked(train: Callable[..., Any]) -> Callable[..., Any]:
    """Lets trackers follow what a function trains that takes a run and its card."""

    @functools.wraps(train)
    def train_with_trackers(job: Run, card: dict[str, Any], *rest: Any) -> Any:
        options = job.config.get("tracker") or {}
        with Tracking(options, job.run_dir.path, card=card, console=job.console, stop=job.stop) as tracking:
            job.on_evaluation = tracking.tell_of_evaluation
            return train(job, card, *rest)

    return train_with_trackers


class Tracking:
    """The trackers of one run, for the time of a `with` block.

    Args:
        options: The settings of each tracker, by its name.
        folder: Of the run.
        card: Its run card, on which is noted what becomes of each tracker.
        console: Hears of a tracker that fails.
        stop: Once it is set, nothing is waited for any more.
    """

    def __init__(
        self,
        options: Mapping[str, Mapping[str, Any]],
        folder: Path,
        *,
        card: dict[str, Any],
        console: Console,
        stop: StopRequest,
    ) -> None:
        self._options, self._folder, self._card = options, folder, card
        self._console, self._stop = console, stop
        self._open: list[_Follower] = []

    def __enter__(self) -> Tracking:
        for option, settings in self._options.items():
            try:
                self._open.append(_Follower(option, self._folder, settings.get("wait_seconds", _WAIT_SECONDS)))
            except OSError as error:  # a full disk, no room for a process
                self._give_up(option, error.strerror or str(error))
        return self

    def tell_of_evaluation(self) -> None:
        """Says that there is a row more, and hears which trackers have failed; waits for nothing."""
        for follower in self._open:
            follower.say(EVALUATED)
        self._listen()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._end(_status_of(error))
        finally:
            for follower in self._open:
                follower.kill()

    def _end(self, status: str) -> None:
        """Tells all how the run has ended, and waits until they are done with it."""
        for follower in self._open:
            follower.say(status)
            follower.say_no_more()
        started, has_said, is_done = time.monotonic(), False, status == "done"
        limits = {f: f.wait_seconds if is_done else _STOPPED_WAIT_SECONDS for f in self._open}
        while self._listen():
            seconds = time.monotonic() - started
            silent = {f: min(seconds, time.monotonic() - f.heard_at) if is_done else seconds for f in self._open}
            for follower in [f for f in self._open if silent[f] > limits[f] or (is_done and self._stop)]:
                self._open.remove(follower)
                follower.kill()
                self._give_up(follower.option, f"it has not taken all {seconds:.0f} s after the end")
            if seconds > _SILENT_SECONDS and self._open and not has_said:
                names, longest = ", ".join(f.option for f in self._open), max(limits[f] for f in self._open)
                self._console.say(
                    f"waits for {names} to take all, {longest:g} s without progress at most; Ctrl-C ends the wait"
                )
                has_said = True
            select.select([f.answers for f in self._open], [], [], 0.2)

    def _listen(self) -> list[_Follower]:
        """Takes in what the processes have said; returns those that have not come to an end."""
        for follower in list(self._open):
            answer = follower.answer()
            if answer is None:
                continue
            self._open.remove(follower)
            follower.kill()
            if answer["is_done"]:
                self._note(follower.option, "done")
            else:
                self._give_up(follower.option, str(answer["reason"]))
        return self._open

    def _give_up(self, option: str, reason: str) -> None:
        log = journal_path(self._folder, option).with_suffix(".log")
        self._console.warn(f"tracker={option} has failed, and nothing else has: {reason} (more in {log})")
        self._note(option, "failed", reason)

    def _note(self, option: str, status: str, reason: str | None = None) -> None:
        journal = Journal.read(journal_path(self._folder, option))
        known = {"place": journal.place, "run_id": journal.run_id, "step": journal.step} if journal else {}
        noted = {"status": status, **known, **({"error": reason} if reason else {})}
        self._card["trackers"] = {**self._card.get("trackers", {}), option: noted}


def _status_of(error: BaseException | None) -> str:
    if error is None:
        return "done"
    return "stopped" if isinstance(error, InterruptedBySignal | Interruption) else "failed"


class _Follower:
    """The process of one tracker.

    It has a session of its own: a Ctrl-C is for the training, which then tells it what there is to tell.

    Args:
        option: The tracker.
        run: The folder of the run.
        wait_seconds: How long a run that has ended waits for it.

    Raises:
        OSError: It cannot be started.
    """

    def __init__(self, option: str, run: Path, wait_seconds: float) -> None:
        self.option, self.wait_seconds = option, wait_seconds
        self._answer, self.heard_at = b"", time.monotonic()
        log = journal_path(run, option).with_suffix(".log")
        log.parent.mkdir(exist_ok=True)
        paths = json.dumps([path or os.getcwd() for path in sys.path])
        with open(log, "ab") as errors:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-c", _PROGRAM, paths, option, str(run)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                start_new_session=True,
                env={**_PRIVATE, **OPTIONS[option].environment(), **os.environ},
            )
        assert self._process.stdin is not None, "it was asked for"
        assert self._process.stdout is not None, "it was asked for"
        self._words, self.answers = self._process.stdin.fileno(), self._process.stdout.fileno()
        os.set_blocking(self._words, False)
        os.set_blocking(self.answers, False)

    def say(self, word: str) -> None:
        """Says a word; one that finds no room, or nobody to hear it, is lost, and a later one does as well."""
        with contextlib.suppress(BlockingIOError, BrokenPipeError):
            os.write(self._words, f"{word}\n".encode())

    def say_no_more(self) -> None:
        """Lets the process know that nothing follows."""
        assert self._process.stdin is not None, "it was asked for"
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()

    def answer(self) -> dict[str, Any] | None:
        """The last word of the process; None while it is at work."""
        with contextlib.suppress(BlockingIOError):
            while part := os.read(self.answers, 4096):
                self._answer, self.heard_at = (self._answer + part).lstrip(PROGRESS), time.monotonic()
            if not self._answer.endswith(b"\n"):
                return {"is_done": False, "reason": f"its process has ended with code {self._process.wait()}"}
        return json.loads(self._answer) if self._answer.endswith(b"\n") else None

    def kill(self) -> None:
        """Ends the process, and all that it has started."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None, "it was asked for"
            with contextlib.suppress(OSError):
                pipe.close()
