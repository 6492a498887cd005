"""What the driver holds of other processes: the one that begins them, and that of each call.

Knows frames and signals; neither who is to run when, nor what happens inside.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from multiprocessing.connection import wait
from typing import Any

from cvtrain.isolation import frames
from cvtrain.isolation.body import Setup
from cvtrain.isolation.calls import Call, CallFn, Slot
from cvtrain.isolation.endings import ending_in_words
from cvtrain.isolation.server import NUMBER, command
from cvtrain.signals import StopRequest, signal_mask
from cvtrain.workers import WorkerStartError

_COPIES = sys.platform.startswith("linux")
"""Whether processes begin as copies of one that has torch loaded; Apple's libraries do not work in a copy."""

_LOOK_EVERY_SECONDS = 0.1
_LEAVE_SECONDS = 5.0


class CallProcess:
    """The process of a call, seen from the driver: its connection, its pipe, its end."""

    def __init__(self, call: Call, slot: Slot, *, pid: int, connection: socket.socket, pipe: int) -> None:
        self.call = call
        self.slot = slot
        self.started_at = time.monotonic()
        self.kill_at = float("inf")
        self.is_asked_to_stop = False
        self.is_killed = False
        self.has_ended = False
        self.exit_code: int | None = None
        self._pid = pid
        self._connection = connection
        self._inbox = frames.Inbox(connection)
        self._pipe: int | None = pipe

    @property
    def ends(self) -> list[Any]:
        """What to wait for."""
        connections = [] if self._inbox.is_closed else [self._connection]
        return connections if self._pipe is None else [*connections, self._pipe]

    def send(self, data: bytes) -> None:
        """Sends what it waits for; that it has died is noticed elsewhere."""
        with contextlib.suppress(ConnectionError):
            self._connection.sendall(data)

    def hear(self) -> Iterator[tuple[int, bytes]]:
        """What it has said since; all of it once it has ended."""
        self._look_for_end()  # first: what it said before is in the connection
        while self._inbox.read() and self.has_ended:
            pass
        yield from self._inbox.frames()

    def _look_for_end(self) -> None:
        if self._pipe is None:  # the process that would tell has died
            self.has_ended = self.has_ended or self._inbox.is_closed
        elif wait([self._pipe], timeout=0):
            data = os.read(self._pipe, NUMBER.size)
            if len(data) == NUMBER.size:
                self.has_ended, (self.exit_code,) = True, NUMBER.unpack(data)
            os.close(self._pipe)
            self._pipe = None

    def ask_to_stop(self, *, patience_seconds: float) -> None:
        """Sends SIGTERM, once, and lets the process be ended by force if it has not ended after some seconds."""
        if not self.is_asked_to_stop and not self.has_ended:
            self.is_asked_to_stop = True
            self.kill_at = min(self.kill_at, time.monotonic() + patience_seconds)
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._pid, signal.SIGTERM)

    def kill(self) -> None:
        """Ends it and all that it has begun."""
        self.is_killed = True
        with contextlib.suppress(OSError):
            os.killpg(self._pid, signal.SIGKILL)

    def close(self) -> None:
        """Gives back what the driver holds of a process that has ended."""
        if self.exit_code is None:
            self.kill()  # what is left of its group: there was nobody to do it
        self._connection.close()
        if self._pipe is not None:
            os.close(self._pipe)
            self._pipe = None


class ProcessStarter:
    """Begins processes for calls of one function, with the help of a process that has loaded what they need.

    Args:
        function: See `CallFn`.
        preload: Names of modules to load before.
        num_threads: For libraries that begin their threads as they are loaded.
        grace_seconds: How long a call may go on once this process has died.
    """

    def __init__(self, function: CallFn, *, preload: Sequence[str], num_threads: int, grace_seconds: float) -> None:
        self._function = frames.packed(frames.FUNCTION, function)
        self._preload = list(preload)
        self._num_threads = num_threads
        self._grace_seconds = grace_seconds
        self._server: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None

    def start(self, call: Call, slot: Slot, *, stop: StopRequest) -> CallProcess | None:
        """Begins the process of a call; None where a signal came before it could.

        Raises:
            WorkerStartError: It cannot be begun.
        """
        try:
            argument = frames.packed(frames.ARGUMENT, call.argument)
        except Exception as error:
            error.add_note(f"the argument of {call.key} cannot be sent to another process")
            raise
        try:
            for _ in range(2):  # the server may have died since, and may die as it is asked
                if stop or not self._is_ready(stop):
                    return None
                process = self._begin(call, slot)
                if process is not None:
                    process.send(self._setup(call, slot) + self._function + argument)
                    return process
                self.close()
        except OSError as error:
            raise WorkerStartError(f"no process can be begun: {error.strerror}") from None
        raise WorkerStartError("no process can be begun: the process that should do it dies again and again")

    def close(self) -> None:
        """Lets the helping process go, which leaves when all that it has begun have ended."""
        if self._server is not None and self._control is not None:
            self._control.close()
            try:
                self._server.wait(_LEAVE_SECONDS)
            except subprocess.TimeoutExpired:
                self._server.kill()
                self._server.wait()
        self._server = self._control = None

    def _begin(self, call: Call, slot: Slot) -> CallProcess | None:
        """Asks for a process; None where whoever should begin it has died."""
        connection, its_connection = socket.socketpair()
        pipe, its_pipe = os.pipe()
        try:
            with contextlib.suppress(ConnectionError):
                socket.send_fds(self._control, [b"+"], [its_connection.fileno(), its_pipe])
        finally:
            its_connection.close()
            os.close(its_pipe)
        data = os.read(pipe, NUMBER.size)
        pid = NUMBER.unpack(data)[0] if data else 0
        if pid > 0:
            return CallProcess(call, slot, pid=pid, connection=connection, pipe=pipe)
        connection.close()
        os.close(pipe)
        if pid < 0:
            raise OSError(-pid, os.strerror(-pid))
        return None

    def _setup(self, call: Call, slot: Slot) -> bytes:
        environment = {**os.environ, **slot.environment}
        setup = Setup(call.log_path, os.getcwd(), environment, sys.argv, slot.num_threads, self._grace_seconds)
        return frames.packed(frames.SETUP, setup)

    def _is_ready(self, stop: StopRequest) -> bool:
        """Whether the helping process lives and has loaded all; begins it where need be, and waits."""
        if self._server is not None and self._server.poll() is None:
            return True
        self.close()
        self._begin_server()
        heard = b""
        while not heard.endswith(b"\n"):
            if stop:
                self._server.kill()
                return False
            if wait([self._control], timeout=_LOOK_EVERY_SECONDS):
                part = self._control.recv(1 << 16)
                if not part:
                    break
                heard += part
        problem = heard.decode().strip()
        if not heard:
            problem = f"the process that begins them {ending_in_words(self._server.wait(_LEAVE_SECONDS))}"
        if problem:
            raise WorkerStartError(f"no process can be begun: {problem}")
        return True

    def _begin_server(self) -> None:
        options = {"copies": _COPIES, "preload": self._preload, "grace_seconds": self._grace_seconds}
        environment = {
            **os.environ,
            "OMP_NUM_THREADS": str(self._num_threads),
            "PYTORCH_NVML_BASED_CUDA_CHECK": "1",  # else looking for a GPU would make copies unable to use one
        }
        self._control, its_control = socket.socketpair()
        # In a session of its own, and with signals held back: one for the driver's group, or a whole job of a cluster,
        # is none for this process, and what it begins takes them when it is ready to.
        with its_control, signal_mask(signal.SIG_BLOCK):
            self._server = subprocess.Popen(
                command("server", "main", json.dumps(options)),
                stdin=its_control,
                stdout=subprocess.DEVNULL,
                stderr=None if sys.stderr is not None else subprocess.DEVNULL,
                env=environment,
                start_new_session=True,
            )
