"""The process of one call, seen from inside: its log, its threads, its signals, and what it says of its end.

Knows a function and a socket; neither other calls nor how this process was begun.
"""

from __future__ import annotations

import atexit
import contextlib
import faulthandler
import os
import queue
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

from cvtrain.engine import runtime
from cvtrain.errors import CvtrainError, OutputError
from cvtrain.isolation import frames
from cvtrain.signals import Interruption, StopRequest, signal_mask
from cvtrain.workers.call import limited_threads
from cvtrain.workers.items import kind_and_text


@dataclass(frozen=True)
class Setup:
    """What a process is told before it hears what to call.

    Args:
        log_path: Where stdout and stderr go.
        folder: To work in.
        environment: All its variables.
        arguments: Those of the driver, as `sys.argv`.
        num_threads: That it may use.
        grace_seconds: How long it may go on once its driver has died.
    """

    log_path: Path
    folder: str
    environment: Mapping[str, str]
    arguments: Sequence[str]
    num_threads: int
    grace_seconds: float


def run_call() -> None:
    """Does the call that the socket on stdin tells of, and ends this process.

    Signals are held back (by whoever began it) until they can be taken, and are again at the end.
    """
    connection = _connection_on_stdin()
    try:
        setup: Setup = frames.unpacked(frames.receive(connection))
        function, argument = frames.receive(connection), frames.receive(connection)
    except (EOFError, OSError):
        sys.exit(1)  # the driver has died
    threading.Thread(target=_end_with_driver, args=(connection, setup.grace_seconds), daemon=True).start()
    outbox = Outbox(connection)
    with StopRequest() as stop:
        stop.listening = True
        with signal_mask(signal.SIG_UNBLOCK):
            kind, content, exit_code = _ending(setup, function, argument, outbox, stop=stop)
            try:
                outbox.send(kind, content)
            except Exception as error:
                exit_code = _explain(error)
                outbox.send(frames.FAILED, (1, f"what it returned cannot be sent: {_line(error)}"))
    _leave(exit_code)


def _leave(exit_code: int) -> None:
    """Ends as the interpreter would, as `multiprocessing` does it, but for taking apart all that is loaded.

    That took 0.3 to 0.7 seconds with torch.
    """
    threading._shutdown()
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(exit_code)


def _connection_on_stdin() -> socket.socket:
    """The socket under another number, which processes that begin here do not inherit; stdin is empty from now on."""
    connection = socket.socket(fileno=os.dup(0))
    with open(os.devnull, encoding="ascii") as nothing:
        os.dup2(nothing.fileno(), 0)
    return connection


def _end_with_driver(connection: socket.socket, grace_seconds: float) -> None:
    """Asks this process to stop when its driver dies, as the driver would have, and ends it and its own after a time.

    Nothing more is sent here: what comes is the end of the connection.
    """
    wait([connection])
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(grace_seconds)
    os.killpg(0, signal.SIGKILL)


class Outbox:
    """Sends from a thread of its own: a signal, which is raised in the main thread, cuts no frame in two."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._pid = os.getpid()
        self._frames: queue.SimpleQueue[tuple[bytes, threading.Event]] = queue.SimpleQueue()
        threading.Thread(target=self._send_all, name="outbox", daemon=True).start()

    def send(self, kind: int, content: Any) -> None:
        """Returns when it has left; what the driver did not live to hear is dropped."""
        if os.getpid() != self._pid:
            raise RuntimeError("only the process of the call itself can post")
        sent = threading.Event()
        self._frames.put((frames.packed(kind, content), sent))
        sent.wait()

    def _send_all(self) -> None:
        while True:
            frame, sent = self._frames.get()
            with contextlib.suppress(OSError):
                self._connection.sendall(frame)
            sent.set()


def _ending(
    setup: Setup, function: bytes, argument: bytes, outbox: Outbox, *, stop: StopRequest
) -> tuple[int, Any, int]:
    """Makes the call; returns what to say of its end, and the exit code."""
    try:
        try:
            stop.listening = False
            if stop.signum is not None:
                raise Interruption(stop.signum)
            _settle(setup)
            try:
                call = frames.unpacked(function)
            except Exception as error:
                return frames.CANNOT_BEGIN, _line(error), _explain(error)
            with limited_threads(setup.num_threads):
                value = call(frames.unpacked(argument), post=lambda message: outbox.send(frames.MESSAGE, message))
            return frames.DONE, value, 0
        finally:
            stop.listening = True
    except Interruption as interruption:
        error: BaseException = interruption.error
    except SystemExit:
        raise
    except BaseException as other:
        error = other
    exit_code = _explain(error)
    return frames.FAILED, (exit_code, _line(error)), exit_code


def _settle(setup: Setup) -> None:
    """Makes the process that of the call.

    Raises:
        OutputError: The log cannot be written.
        OSError: The folder has gone.
    """
    os.chdir(setup.folder)
    os.environ.clear()
    os.environ.update(setup.environment)
    sys.argv[:] = setup.arguments
    if "torch" not in sys.modules:
        runtime.prepare()
    try:
        setup.log_path.parent.mkdir(parents=True, exist_ok=True)
        log = os.open(setup.log_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    except OSError as error:
        raise OutputError(f"its log {setup.log_path} cannot be written: {error.strerror}") from None
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.close(log)
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(line_buffering=True)  # what was said before a sudden death is in the log
    faulthandler.enable()
    if "numpy.random" in sys.modules:  # loaded before this process began, it would draw the same in all of them
        sys.modules["numpy.random"].seed()


def _explain(error: BaseException) -> int:
    """Writes the traceback to the log; returns the exit code."""
    with contextlib.suppress(OSError):
        traceback.print_exception(error)
    return error.exit_code if isinstance(error, CvtrainError) else 1


def _line(error: BaseException) -> str:
    """An error in one line: its kind and what it says; of one that is made for people only what it says."""
    text = str(error) if isinstance(error, CvtrainError) else kind_and_text(error)
    return (text.splitlines() or [type(error).__name__])[0]
