"""A worker: the process that does one item after the other, and the handle by which its parent holds it.

Knows a function and a pipe; neither other workers nor who is to do what.
"""

from __future__ import annotations

import contextlib
import functools
import multiprocessing
import os
import signal
import threading
import time
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from typing import Any

from cvtrain.engine import runtime
from cvtrain.errors import InterruptedBySignal
from cvtrain.signals import StopRequest, signal_mask
from cvtrain.workers.call import outcome, unbroken
from cvtrain.workers.items import UnexpectedError, WorkerStartError, WorkItem, in_words, kind_and_text, parts_of


class Worker:
    """A process, this end of the pipe to it, and the item that it works on."""

    def __init__(self, num_threads: int) -> None:
        self.item: WorkItem | None = None
        self.listens = False
        self.is_asked_to_stop = False
        try:
            self.connection, there = multiprocessing.Pipe()
            self.process = multiprocessing.get_context("spawn").Process(
                target=_work, args=(there, num_threads, multiprocessing.get_start_method()), daemon=False
            )
            resource_tracker.ensure_running()  # which would let signals in again, were it begun with the process
            with there, signal_mask(signal.SIG_BLOCK):
                self.process.start()
        except OSError as error:
            raise WorkerStartError(f"no worker process can be begun: {error}") from None

    def send(self, content: Any, *, what: str) -> None:
        """Sends something to a worker that waits for it; one that has died is noticed where it is read from."""
        try:
            self.connection.send(content)
        except OSError:
            pass
        except Exception as error:
            error.add_note(f"{what} cannot be sent to a worker process")
            raise

    def ask_to_stop(self) -> None:
        """Sends SIGTERM, once; not before signals are let in: of several that waited, the last would come first."""
        if self.listens and not self.is_asked_to_stop:
            self.is_asked_to_stop = True
            self.process.terminate()

    def end(self, *, deadline: float) -> int:
        """Lets a busy worker save its state, then ends it, by force where need be; returns its exit code.

        Args:
            deadline: On the clock of `time.monotonic()`.
        """
        with contextlib.suppress(Exception):  # whatever it says now, or fails to say, is for nobody
            while self.item and (left := deadline - time.monotonic()) > 0 and self.connection.poll(left):
                kind = self.connection.recv()[0]
                self.listens = self.listens or kind == "listens"
                self.ask_to_stop()
                if kind in ("done", "cannot begin"):
                    self.item = None
        self.connection.close()
        self.process.join(max(0.0, deadline - time.monotonic()))
        if self.process.is_alive():
            self.process.kill()
            self.process.join()
        exit_code = self.process.exitcode
        self.process.close()
        return exit_code


# ------------------------------------------------------------------------------------------------ in the new process


def _work(connection: Connection, num_threads: int, start_method: str) -> None:
    """What a worker does: takes items until the other end of the pipe is closed."""
    threading.Thread(target=_end_with_parent, name="end with parent", daemon=True).start()
    multiprocessing.set_start_method(start_method, force=True)  # for processes of its own: as everywhere, not "spawn"
    runtime.prepare()
    # Signals were held back until here, and are again from when the handlers go: neither end shows a traceback.
    with StopRequest() as stop:
        stop.listening = True
        with signal_mask(signal.SIG_UNBLOCK), contextlib.suppress(EOFError, OSError):  # nobody waits for results
            connection.send(("listens", None))
            _take_items(connection, num_threads, stop=stop)


def _end_with_parent() -> None:
    wait([multiprocessing.parent_process().sentinel])
    os._exit(1)


def _take_items(connection: Connection, num_threads: int, *, stop: StopRequest) -> None:
    """Answers every item with what became of it."""

    def post(message: Any) -> None:
        unbroken(lambda: connection.send(("message", message)), stop=stop)

    # The function brings its modules along, which may take seconds: a signal need not wait for them.
    begun, error = outcome(connection.recv, num_threads=num_threads, stop=stop)
    if isinstance(error, InterruptedBySignal):
        return _report(connection, None, error, stop=stop)
    if error is not None:
        return connection.send(("cannot begin", kind_and_text(error)))
    connection.send(("begun", None))
    function, shared = begun
    while True:
        try:
            argument, num_threads = connection.recv()
        except (EOFError, OSError):
            raise
        except Exception as failure:  # foreign classes may fail in any way as they are put together again
            _report(connection, None, in_words(failure), stop=stop)
            continue
        call = functools.partial(function, shared, argument, post=post, stop=stop)
        _report(connection, *outcome(call, num_threads=num_threads, stop=stop), stop=stop)


def _report(connection: Connection, value: Any, error: Exception | None, *, stop: StopRequest) -> None:
    """Sends what became of an item, or words for why it cannot be sent, and whether the worker can take another."""
    can_go_on = not stop
    try:
        connection.send(("done", (value, error and parts_of(error), can_go_on)))
    except OSError:
        raise
    except Exception as failure:
        reason = f"what it returned cannot be sent: {kind_and_text(failure)}"
        words = UnexpectedError(reason) if error is None else in_words(error)
        connection.send(("done", (None, parts_of(words), can_go_on)))
