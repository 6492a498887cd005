"""Signals that ask a run to stop: remembered while it trains, raised at once while it does not.

Knows nothing of training.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from types import FrameType, TracebackType

from cvtrain.errors import InterruptedBySignal

SIGNALS = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2") if hasattr(signal, name)
)


_HANG_UP = getattr(signal, "SIGHUP", None)


class Interruption(BaseException):
    """A signal came while nothing was looking for one.

    Like `KeyboardInterrupt` it is no `Exception`: code that takes any exception of a decoder or an unpickler for
    damage must not take a signal for it. It becomes an `InterruptedBySignal` where the `with` block ends.
    """

    def __init__(self, signum: int) -> None:
        super().__init__(signum)
        self.error = InterruptedBySignal(f"stopped by {described(signum)}", signum=signum)


def described(signum: int) -> str:
    """`signal 15 (SIGTERM)`, and so on."""
    return f"signal {signum} ({signal.Signals(signum).name})"


@contextlib.contextmanager
def signal_mask(how: int) -> Iterator[None]:
    """Blocks the signals of a `StopRequest`, or lets them in, for this thread and all that begins in it."""
    before = signal.pthread_sigmask(how, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class StopRequest:
    """Takes the signals over for the time of a `with` block.

    A first signal is remembered in `signum`, for a loop to see at its next step. While nothing looks (`listening` is
    false: modules are being loaded, data read) it is raised instead. A second SIGINT ends the process at once.
    """

    def __init__(self) -> None:
        self.signum: int | None = None
        self.listening = False
        self._pid = os.getpid()
        self._before: dict[int, object] = {}
        self._watch: _Watch | None = None

    def __bool__(self) -> bool:
        return self.signum is not None

    def __enter__(self) -> StopRequest:
        self.listening = True  # a signal that comes before all is in place is remembered
        if threading.current_thread() is threading.main_thread():  # Python lets no other thread set handlers
            for number in SIGNALS:
                if number == _HANG_UP and signal.getsignal(number) is signal.SIG_IGN:
                    continue  # whoever typed `nohup` wants it so
                self._before[number] = signal.signal(number, self._receive)
            self._watch = _Watch()
        try:
            self.listening = False
            if self.signum is not None:
                raise Interruption(self.signum)
        except Interruption as interruption:
            self._give_back()
            raise interruption.error from None
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        is_over = self.signum is None and error is None
        self._give_back()
        while error is not None and not isinstance(error, Interruption):
            error = error.__context__  # libraries that are interrupted while they clean up may fail of that
        if error is not None:
            raise error.error from None
        if is_over and self.signum is not None:  # it came too late for this block: it is for the one around it
            outer = self._before.get(self.signum)
            if isinstance(getattr(outer, "__self__", None), StopRequest):
                outer(self.signum, None)  # type: ignore[operator]

    def _give_back(self) -> None:
        self.listening = True  # a signal that comes meanwhile is remembered
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]
        if self._watch is not None:
            self._watch.close()

    def _receive(self, number: int, _frame: FrameType | None) -> None:
        if os.getpid() != self._pid:
            _receive_in_copy(number)
        elif self.signum is None:
            self.signum = number
            if not self.listening:
                raise Interruption(number)
        elif number == signal.SIGINT:
            os._exit(128 + signal.SIGINT)


def _receive_in_copy(number: int) -> None:
    """In a forked worker: a signal to the whole group is for the main process, which ends its workers itself."""
    if number == signal.SIGTERM:
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)


class _Watch:
    """Leaves at a second Ctrl-C even while one long operation, such as a backward pass, keeps Python from handlers.

    The interpreter writes the number of each signal to a pipe the moment it comes; a thread waits at the other end.
    """

    def __init__(self) -> None:
        self._end, self._start = os.pipe()
        os.set_blocking(self._start, False)
        self._before = signal.set_wakeup_fd(self._start, warn_on_full_buffer=False)
        _open_watches.append(self)
        threading.Thread(target=self._wait, name="second Ctrl-C", daemon=True).start()

    def _wait(self) -> None:
        is_first = True
        while number := os.read(self._end, 1):
            if number[0] == signal.SIGINT and not is_first:
                os._exit(128 + signal.SIGINT)
            is_first = is_first and number[0] not in SIGNALS
        os.close(self._end)

    def close(self) -> None:
        """Gives the pipe back, and with it the thread."""
        _open_watches.remove(self)
        signal.set_wakeup_fd(self._before)
        os.close(self._start)


# A signal to a copy of this process, such as a worker, is none to this process. But a copy shares the pipe until it has
# been told not to: a Ctrl-C that reached it before that would count as a second one here.

_open_watches: list[_Watch] = []
_masks = threading.local()


def _before_fork() -> None:
    _masks.before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)


def _after_fork() -> None:
    signal.pthread_sigmask(signal.SIG_SETMASK, _masks.before)


def _after_fork_in_copy() -> None:
    if _open_watches:
        signal.set_wakeup_fd(-1)
    _after_fork()


os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork_in_copy)
