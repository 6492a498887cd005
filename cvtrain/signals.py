"""Signals that ask a run to stop: remembered while it trains, raised at once while it does not.

Knows nothing of training.
"""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType, TracebackType

from cvtrain.errors import InterruptedBySignal

SIGNALS = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2") if hasattr(signal, name)
)


class StopRequest:
    """Takes the signals over for the time of a `with` block.

    A first signal is remembered in `signum`, for a loop to see at its next step. While nothing looks (`listening` is
    false: data are being read, results written) it is raised as `InterruptedBySignal` instead. A second SIGINT ends
    the process at once.
    """

    def __init__(self) -> None:
        self.signum: int | None = None
        self.listening = False
        self._before: dict[int, object] = {}

    def __bool__(self) -> bool:
        return self.signum is not None

    def __enter__(self) -> StopRequest:
        if threading.current_thread() is threading.main_thread():  # Python lets no other thread set handlers
            for number in SIGNALS:
                self._before[number] = signal.signal(number, self._receive)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def _receive(self, number: int, _frame: FrameType | None) -> None:
        if self.signum is not None:
            if number == signal.SIGINT:
                os._exit(128 + signal.SIGINT)
            return
        self.signum = number
        if not self.listening:
            raise InterruptedBySignal("stopped", signum=number)
