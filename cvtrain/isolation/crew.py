"""Which call runs when and where: slots that are free, results as they come, deadlines, an end that leaves nobody.

Knows processes by their handles; not what happens inside of them.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import wait
from typing import Any

from cvtrain.isolation import frames
from cvtrain.isolation.calls import Call, CallFn, CallResult, CallSource, Patience, Slot
from cvtrain.isolation.endings import OutOfMemoryKills, ending_in_words, seconds_in_words
from cvtrain.isolation.process import CallProcess, ProcessStarter
from cvtrain.signals import StopRequest
from cvtrain.workers import WorkerStartError
from cvtrain.workers.items import kind_and_text

_LOOK_EVERY_SECONDS = 0.2
"""How often to look for a signal."""


def run_isolated(
    function: CallFn,
    source: CallSource,
    *,
    slots: Sequence[Slot],
    preload: Sequence[str],
    timeout_seconds: float | None,
    on_message: Callable[[str, Any], bool],
    stop: StopRequest,
    patience: Patience | None = None,
) -> Iterator[CallResult]:
    """Calls a function again and again, each time in a process of its own, and yields results as they come.

    Whatever becomes of such a process (an exception, `sys.exit`, a crash, signal 9, a hang) harms no other. It leads
    a group of its own, which ends with it: what it has begun does not outlive it.

    After a signal nothing more is started; what runs is asked to stop by SIGTERM, and its results are still yielded.
    A call that had not begun by then has no result. Should this process die, each call sends itself that SIGTERM.
    While results are waited for or taken in, `stop` listens.

    Args:
        function: See `CallFn`.
        source: Of the calls. It is asked when the result before has been taken in; it ends all by being over.
        slots: Room for as many calls at a time.
        preload: Modules that the function needs, loaded but once where the platform allows it (Linux).
        timeout_seconds: How long a call may take.
        on_message: Called with the key and what was posted; returns whether the call is to be asked to stop. What it
            raises ends everything and is raised here.
        stop: Of the caller, who has entered it.
        patience: How long to wait for whom.

    Raises:
        ValueError: There are no slots.
        WorkerStartError: No process can be begun, or the function is not found in it.
    """
    if not slots:
        raise ValueError("calls take at least one slot")
    patience = patience or Patience()
    starter = ProcessStarter(
        function,
        preload=preload,
        num_threads=max(slot.num_threads for slot in slots),
        grace_seconds=patience.stop_seconds,
    )
    crew = _Crew(starter, slots, timeout_seconds=timeout_seconds, on_message=on_message, stop=stop, patience=patience)
    return crew.run(source)


@dataclass
class _Running:
    """A call that runs, and what is known of its end."""

    process: CallProcess
    is_asked_to_stop: bool = False
    is_timed_out: bool = False
    report: tuple[Any, int, str | None] | None = None
    """Value, exit code and error, as the process has told."""

    @property
    def key(self) -> str:
        return self.process.call.key


class _Crew:
    """The calls of one `run_isolated` that run now."""

    def __init__(
        self,
        starter: ProcessStarter,
        slots: Sequence[Slot],
        *,
        timeout_seconds: float | None,
        on_message: Callable[[str, Any], bool],
        stop: StopRequest,
        patience: Patience,
    ) -> None:
        self._starter = starter
        self._free = list(slots)
        self._timeout_seconds = math.inf if timeout_seconds is None else timeout_seconds
        self._on_message = on_message
        self._stop = stop
        self._patience = patience
        self._running: list[_Running] = []
        self._memory = OutOfMemoryKills()
        self._any_has_begun = False
        self._ask_at = -math.inf

    def run(self, source: CallSource) -> Iterator[CallResult]:
        """Does all; however it is left, no process stays behind."""
        listened, self._stop.listening = self._stop.listening, True
        try:
            while True:
                if not self._stop:
                    yield from self._start_calls(source)
                if self._stop:
                    self._ask_all_to_stop()
                if not self._running and (self._stop or source.is_over()):
                    return
                self._wait(until=self._ask_at if self._free and not self._stop else math.inf)
                yield from self._results()
        finally:
            self._end_all()
            self._starter.close()
            self._stop.listening = listened

    def _start_calls(self, source: CallSource) -> Iterator[CallResult]:
        """Starts what the source gives, as long as there is room; yields what could not be started."""
        while self._free and not self._stop and time.monotonic() >= self._ask_at:
            call = source.next_call()
            if call is None:
                self._ask_at = time.monotonic() + self._patience.ask_again_seconds
                return
            result = self._start(call)
            if result is not None:
                yield result

    def _start(self, call: Call) -> CallResult | None:
        try:
            process = self._starter.start(call, self._free[0], stop=self._stop)
        except WorkerStartError as error:
            if not self._any_has_begun:
                raise
            return CallResult(call.key, exit_code=error.exit_code, error=error.message)
        if process is not None:
            self._any_has_begun = True
            self._running.append(_Running(process))
            self._free.pop(0)
        return None

    def _wait(self, *, until: float = math.inf) -> None:
        """Waits for something to be heard, but not beyond the next thing to do."""
        now = time.monotonic()
        next_at = min([until, now + _LOOK_EVERY_SECONDS, *map(self._due_at, self._running)])
        wait([end for running in self._running for end in running.process.ends], timeout=max(0.0, next_at - now))

    def _due_at(self, running: _Running) -> float:
        if running.is_timed_out or running.report:
            return running.process.kill_at
        return min(running.process.kill_at, running.process.started_at + self._timeout_seconds)

    def _results(self) -> list[CallResult]:
        """Hears all that run, and meets their deadlines; returns the results of those that have ended."""
        results = []
        for running in list(self._running):
            for kind, data in running.process.hear():
                self._take(running, kind, data)
            if running.process.has_ended:
                results.append(self._ended(running))
            else:
                self._meet_deadlines(running)
        return results

    def _take(self, running: _Running, kind: int, data: bytes) -> None:
        """Takes in one frame."""
        try:
            content = frames.unpacked(data)
        except Exception as error:  # foreign classes may fail in any way as they are put together again
            what = "posted" if kind == frames.MESSAGE else "returned"
            running.report = (None, 1, f"what it {what} cannot be read: {kind_and_text(error).splitlines()[0]}")
            running.process.ask_to_stop(patience_seconds=self._patience.stop_seconds)
            return
        if kind == frames.MESSAGE:
            if self._on_message(running.key, content):
                self._ask_to_stop(running)
        elif kind == frames.CANNOT_BEGIN:
            raise WorkerStartError(f"the function is not found in another process: {content}")
        elif running.report is None:
            running.report = (content, 0, None) if kind == frames.DONE else (None, *content)
            running.process.kill_at = time.monotonic() + self._patience.leave_seconds

    def _meet_deadlines(self, running: _Running) -> None:
        now = time.monotonic()
        if now >= running.process.kill_at:
            running.process.kill()
            running.process.kill_at = now + 1.0  # once more, should it have begun something meanwhile
        elif now >= self._due_at(running):
            running.is_timed_out = True
            running.process.ask_to_stop(patience_seconds=self._patience.timeout_seconds)

    def _ask_all_to_stop(self) -> None:
        for running in self._running:
            self._ask_to_stop(running)

    def _ask_to_stop(self, running: _Running) -> None:
        if running.report is None:
            running.is_asked_to_stop = True
            running.process.ask_to_stop(patience_seconds=self._patience.stop_seconds)

    def _ended(self, running: _Running) -> CallResult:
        """The result of a call whose process has ended; its slot is free again."""
        process = running.process
        value, exit_code, error = running.report or (None, *self._death(running))
        if running.is_timed_out:
            error = f"timed out after {seconds_in_words(self._timeout_seconds)}"
        self._running.remove(running)
        self._free.insert(0, process.slot)
        self._ask_at = -math.inf  # what the source makes of the result may be a new call
        process.close()
        seconds = time.monotonic() - process.started_at
        return CallResult(
            running.key, value, exit_code, error, running.is_timed_out, running.is_asked_to_stop, round(seconds, 3)
        )

    def _death(self, running: _Running) -> tuple[int, str]:
        """Exit code and words for a process that ended without a word."""
        exit_code = running.process.exit_code
        if exit_code is None:
            return 1, "ended, nobody knows how: the process that had begun it was killed"
        if exit_code == -9 and running.process.is_killed:
            seconds = seconds_in_words(self._patience.stop_seconds)
            return exit_code, f"asked to stop, it did not within {seconds}, and was ended by force"
        is_out_of_memory = exit_code == -9 and self._memory.take_one()
        return exit_code or 1, ending_in_words(exit_code, is_out_of_memory=is_out_of_memory)

    def _end_all(self) -> None:
        """Asks all to stop and waits for them; what they say now is for nobody."""
        for running in self._running:
            running.process.ask_to_stop(patience_seconds=self._patience.stop_seconds)
        while self._running:
            self._wait()
            for running in list(self._running):
                for _ in running.process.hear():
                    pass
                if running.process.has_ended:
                    running.process.close()
                    self._running.remove(running)
                else:
                    self._meet_deadlines(running)
