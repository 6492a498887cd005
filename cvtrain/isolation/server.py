"""The process that begins those of the calls, as copies of itself: what they need is loaded already.

Knows a socket to its driver; not what a call is. It has no threads and has not touched a GPU, so that a copy works.

`multiprocessing` has such a process too. This one belongs to one driver and leaves with it, stays out of the way of
signals to the driver's group, tells what cannot be loaded, and leaves nothing of the group of a call that has ended.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import signal
import socket
import struct
import sys
import time
from collections.abc import Sequence
from multiprocessing.connection import wait

from cvtrain.engine import runtime
from cvtrain.isolation.body import run_call
from cvtrain.workers.items import kind_and_text

NUMBER = struct.Struct("!i")
"""What goes into the pipe of a call: first the process's number, or -N for error N; at its end the exit code."""

_MARGIN_SECONDS = 1.0
"""Before this process ends by force, after the driver's death, what should have ended by itself."""

_PROGRAM = "import json, sys; sys.path[:] = json.loads(sys.argv[1]); from cvtrain.isolation.{} import {} as f; f()"


def command(module: str, function: str, *words: str) -> list[str]:
    """A command line for a function in a new interpreter, which finds modules where this one does.

    `-P`: without it a file of the working folder could stand in for any module.
    """
    paths = json.dumps([path or os.getcwd() for path in sys.path])
    return [sys.executable, "-P", "-c", _PROGRAM.format(module, function), paths, *words]


def main() -> None:
    """Loads what the command line names, says so, and copies itself until the driver has gone."""
    options = json.loads(sys.argv[2])
    control = socket.socket(fileno=0)
    problem = ""
    if options["copies"]:
        runtime.prepare()
        problem = _load(options["preload"])
    try:
        control.sendall(problem.encode() + b"\n")
    except ConnectionError:
        return
    _say_nothing_more()
    server = _Server(control, grace_seconds=options["grace_seconds"])
    if problem or not server.run():
        os._exit(0)  # nothing that a module wants done at the end is due here: nothing was done
    if options["copies"]:
        run_call()
    else:
        os.execv(sys.executable, command("body", "run_call"))


def _load(modules: Sequence[str]) -> str:
    """Loads modules; returns in one line what is wrong with one that cannot be."""
    for name in modules:
        try:
            importlib.import_module(name)
        except (Exception, SystemExit) as error:
            return f"cannot load {name}: {' '.join(kind_and_text(error).split())}"
    gc.collect()
    gc.freeze()  # else a collection in a copy would write to, and so copy, all that was loaded
    return ""


def _say_nothing_more() -> None:
    """Lets go of the driver's stderr: whoever reads it need not wait for this process."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError):
            stream.flush()  # else each copy would write what is held back
    with open(os.devnull, "w", encoding="ascii") as nothing:
        os.dup2(nothing.fileno(), 2)


class _Server:
    """The loop of the process, and the processes that it has begun."""

    def __init__(self, control: socket.socket, *, grace_seconds: float) -> None:
        self._control = control
        self._grace_seconds = grace_seconds
        self._pipes: dict[int, int] = {}  # by the number of the process
        self._wake_end, self._wake_start = os.pipe()

    def run(self) -> bool:
        """Returns true in every copy, and false here once the driver has gone, and all copies too."""
        os.set_blocking(self._wake_end, False)
        os.set_blocking(self._wake_start, False)
        signal.set_wakeup_fd(self._wake_start, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda number, frame: None)
        deadline = None
        while deadline is None or self._pipes:
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            ready = wait([self._wake_end, *([self._control] if deadline is None else [])], timeout=left)
            with contextlib.suppress(BlockingIOError):
                os.read(self._wake_end, 1 << 16)
            self._tell_ends()
            if self._control in ready:
                ends = _receive_ends(self._control)
                if not ends:
                    deadline = time.monotonic() + self._grace_seconds + _MARGIN_SECONDS
                elif self._copy(*ends):
                    return True
            if deadline is not None and time.monotonic() >= deadline:
                self._kill_all()
                deadline += _MARGIN_SECONDS
        return False

    def _copy(self, connection: int, pipe: int) -> bool:
        """Begins a process; returns whether this is it."""
        try:
            pid = os.fork()
        except OSError as error:
            pid = -error.errno
        if pid == 0:
            self._become_a_call(connection, pipe)
            return True
        os.close(connection)
        _write(pipe, pid)
        if pid > 0:
            self._pipes[pid] = pipe
        else:
            os.close(pipe)
        return False

    def _become_a_call(self, connection: int, pipe: int) -> None:
        """In the copy: a group of its own, the connection as its stdin, and nothing else of the server's."""
        os.setsid()
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        os.dup2(connection, self._control.detach())
        for number in (connection, pipe, self._wake_end, self._wake_start, *self._pipes.values()):
            os.close(number)

    def _tell_ends(self) -> None:
        """Ends what is left of the groups of processes that have ended, and tells their exit codes."""
        for pid in list(self._pipes):
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                with contextlib.suppress(OSError):
                    os.killpg(pid, signal.SIGKILL)
                pipe = self._pipes.pop(pid)
                _write(pipe, os.waitstatus_to_exitcode(status))
                os.close(pipe)

    def _kill_all(self) -> None:
        for pid in self._pipes:
            with contextlib.suppress(OSError):
                os.killpg(pid, signal.SIGKILL)


def _receive_ends(control: socket.socket) -> list[int]:
    """The connection and the pipe for a new process; nothing where the driver has gone."""
    try:
        message, ends, _, _ = socket.recv_fds(control, 1, 2)
    except ConnectionError:
        return []
    for end in ends:
        os.set_inheritable(end, False)
    return ends if message else []


def _write(pipe: int, number: int) -> None:
    with contextlib.suppress(BrokenPipeError):
        os.write(pipe, NUMBER.pack(number))
