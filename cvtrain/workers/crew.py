"""Who does what, and when: items on the cores that are free, results as they come, an end that leaves nobody behind.

Knows workers by their handles; not what happens inside of them.
"""

from __future__ import annotations

import atexit
import functools
import signal
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from multiprocessing.connection import wait
from typing import Any

from cvtrain.signals import StopRequest
from cvtrain.workers.call import outcome, unbroken
from cvtrain.workers.items import (
    ErrorParts,
    UnexpectedError,
    WorkerStartError,
    WorkFn,
    WorkItem,
    WorkResult,
    from_parts,
    kind_and_text,
)
from cvtrain.workers.process import Worker

_LOOK_EVERY_SECONDS = 0.2
"""How often to look for a signal, and for a dead worker whose own children keep its end of the pipe open."""

_GRACE_SECONDS = 5.0
"""How long a worker that nobody waits for any more has to save its state."""

_PASS_ON_SECONDS = 1.0
"""How long Ctrl-C may take to reach the workers by itself: SIGTERM beside it could look like a second Ctrl-C."""

_LEAVE_SECONDS = 1.0
"""How long the process of a worker that has nothing left to do may take to end."""


def run_all(
    function: WorkFn,
    items: Iterable[WorkItem],
    *,
    shared: Any,
    slots: int,
    on_message: Callable[[str, Any], None],
    stop: StopRequest,
) -> Iterator[WorkResult]:
    """Calls a function with every item, as many at a time as there are cores for, and yields results as they come.

    Items start in the given order; one that fits may overtake one that has to wait for more cores. Where no two can go
    on at the same time no other process is needed: then all is done in this one, and only what ends a process
    (`os._exit`, a crash) does more harm than in a worker.

    After a signal nothing more is started. What runs is asked to stop, and its results are still yielded; their
    `InterruptedBySignal` may name the signal that passed the request on, `stop.signum` the one that came. While
    results are waited for or taken in, `stop` listens.

    Args:
        function: See `WorkFn`.
        items: What to do.
        shared: First argument of every call; given to each worker once; can be pickled.
        slots: Cores to use, at least 1; an item that asks for more takes all.
        on_message: Called with the key and what was posted; what it raises ends everything and is raised here.
        stop: Of the caller, who has entered it.

    Raises:
        ValueError: There are no slots, or an item takes none.
        WorkerStartError: No worker can be begun.
    """
    items = list(items)
    if slots < 1 or any(item.slots < 1 for item in items):
        raise ValueError("work takes at least one slot")
    if len(items) <= 1 or sum(sorted(item.slots for item in items)[:2]) > slots:
        return _run_here(function, items, shared=shared, slots=slots, on_message=on_message, stop=stop)
    return _Crew(function, shared, slots=slots, on_message=on_message, stop=stop).run(items)


class _MessageFailed(BaseException):
    """Carries an error of `on_message` past the function that posted: it is none of the function's."""

    def __init__(self, error: Exception) -> None:
        super().__init__(error)
        self.error = error


def _run_here(
    function: WorkFn,
    items: Sequence[WorkItem],
    *,
    shared: Any,
    slots: int,
    on_message: Callable[[str, Any], None],
    stop: StopRequest,
) -> Iterator[WorkResult]:
    def post(key: str, message: Any) -> None:
        try:
            unbroken(lambda: on_message(key, message), stop=stop)
        except Exception as error:
            raise _MessageFailed(error) from None

    failure = None
    listened, stop.listening = stop.listening, True
    try:
        for item in items:
            if stop:
                return
            call = functools.partial(function, shared, item.argument, post=functools.partial(post, item.key), stop=stop)
            yield WorkResult(item.key, *outcome(call, num_threads=min(item.slots, slots), stop=stop))
    except _MessageFailed as failed:
        failure = failed.error
    finally:
        stop.listening = listened
    if failure is not None:
        raise failure


class _Crew:
    """The workers of one `run_all`, and who of them does what."""

    def __init__(
        self,
        function: WorkFn,
        shared: Any,
        *,
        slots: int,
        on_message: Callable[[str, Any], None],
        stop: StopRequest,
    ) -> None:
        self._function = function
        self._shared = shared
        self._slots = slots
        self._on_message = on_message
        self._stop = stop
        self._workers: list[Worker] = []
        self._any_has_begun = False
        self._stopped_at: float | None = None

    def run(self, items: Sequence[WorkItem]) -> Iterator[WorkResult]:
        """Does all; however it is left, no process stays behind."""
        listened, self._stop.listening = self._stop.listening, True
        atexit.register(self._end_all)  # else multiprocessing waits for our workers, should nobody close the generator
        results: list[WorkResult] = []
        try:
            while True:
                if self._stop:
                    self._pass_signal_on()
                else:
                    items = self._start_what_fits(items)  # before the caller has the results: cores need not wait
                yield from results
                if not self._busy():
                    return
                results = self._next_results()
        finally:
            self._end_all()
            atexit.unregister(self._end_all)
            self._stop.listening = listened

    def _pass_signal_on(self) -> None:
        """Asks the busy workers to stop; Ctrl-C goes to all processes of a terminal, other signals to one alone."""
        self._stopped_at = self._stopped_at or time.monotonic()
        wait_seconds = _PASS_ON_SECONDS if self._stop.signum == signal.SIGINT else 0.0
        if time.monotonic() - self._stopped_at >= wait_seconds:
            for worker in self._busy():
                worker.ask_to_stop()

    def _busy(self) -> list[Worker]:
        return [worker for worker in self._workers if worker.item]

    def _start_what_fits(self, items: Sequence[WorkItem]) -> list[WorkItem]:
        """Starts items, in their order, on the cores that are free; returns those that have to wait."""
        free = self._slots - sum(self._cores_of(worker.item) for worker in self._busy())
        waiting = []
        for item in items:
            if self._cores_of(item) <= free:
                free -= self._cores_of(item)
                self._start(item)
            else:
                waiting.append(item)
        return waiting

    def _cores_of(self, item: WorkItem) -> int:
        return min(item.slots, self._slots)

    def _start(self, item: WorkItem) -> None:
        cores = self._cores_of(item)
        worker = next((w for w in self._workers if not w.item and w.process.is_alive()), None)
        if worker is None:
            worker = Worker(cores)
            self._workers.append(worker)
            worker.send((self._function, self._shared), what="the function, or what all items share,")
        worker.item = item
        worker.send((item.argument, cores), what=f"the argument of {item.key}")

    def _next_results(self) -> list[WorkResult]:
        """Waits a moment and hears one thing from each worker that has one to say."""
        ends = [end for worker in self._workers for end in (worker.connection, worker.process.sentinel)]
        wait(ends, timeout=_LOOK_EVERY_SECONDS)
        results = []
        for worker in list(self._workers):
            is_dead = not worker.process.is_alive()  # asked first: what it said before it died is in the pipe
            if worker.connection.poll():
                results.append(self._hear(worker))
            elif is_dead:
                results.append(self._lost(worker))
        return [result for result in results if result]

    def _hear(self, worker: Worker) -> WorkResult | None:
        try:
            kind, content = worker.connection.recv()
        except (EOFError, OSError):
            return self._lost(worker)
        except Exception as failure:  # foreign classes may fail in any way as they are put together again
            error = UnexpectedError(f"what it sent cannot be read: {kind_and_text(failure)}")
            return WorkResult(self._dismiss(worker)[0].key, error=error)
        if kind == "listens":
            worker.listens = True
        elif kind == "begun":
            self._any_has_begun = True
        elif kind == "message":
            self._on_message(worker.item.key, content)
        elif kind == "cannot begin":
            error = WorkerStartError(f"a worker process cannot begin: {content}")
            if not self._any_has_begun:
                raise error
            return WorkResult(self._dismiss(worker)[0].key, error=error)
        else:
            return self._done(worker, *content)
        return None

    def _done(self, worker: Worker, value: Any, parts: ErrorParts | None, can_go_on: bool) -> WorkResult:
        key = worker.item.key
        worker.item = None
        if not can_go_on and not self._stop:
            self._dismiss(worker)  # a signal came to it alone: it would hold for the next item too
        return WorkResult(key, value, parts and from_parts(parts))

    def _lost(self, worker: Worker) -> WorkResult | None:
        item, exit_code = self._dismiss(worker)
        if item is None:
            return None
        if exit_code >= 0 and not self._any_has_begun and not self._stop:
            raise WorkerStartError(f"a worker process ended with exit code {exit_code} before it could begin")
        return WorkResult(item.key, lost=exit_code)

    def _dismiss(self, worker: Worker) -> tuple[WorkItem | None, int]:
        """Ends a worker that cannot be used again; returns what it was at, and its exit code."""
        item, worker.item = worker.item, None
        self._workers.remove(worker)
        return item, worker.end(deadline=time.monotonic() + _LEAVE_SECONDS)

    def _end_all(self) -> None:
        if self._busy() and self._stop.signum == signal.SIGINT:
            time.sleep(_PASS_ON_SECONDS)
        for worker in self._workers:
            if worker.item:
                worker.ask_to_stop()
            else:
                worker.connection.close()
        deadline = time.monotonic() + _GRACE_SECONDS
        while self._workers:
            self._workers.pop().end(deadline=deadline)
