"""How a process ended, in words; and whether the kernel has ended one because memory ran out.

Knows exit codes and counters, no process.
"""

from __future__ import annotations

import signal
from collections.abc import Sequence
from pathlib import Path

from cvtrain.isolation.memory import control_groups, numbers_of
from cvtrain.signals import described

_MEANINGS = {"SIGSEGV": "segmentation fault", "SIGABRT": "aborted", "SIGBUS": "bus error", "SIGFPE": "arithmetic error"}


def ending_in_words(exit_code: int, *, is_out_of_memory: bool = False) -> str:
    """`killed by signal 9 (SIGKILL); out of memory?`, `ended with exit code 3`, and so on.

    Args:
        exit_code: Of a process that has said nothing of its end; -9 where signal 9 ended it.
        is_out_of_memory: Whether the kernel is likely to have done it.
    """
    if exit_code == 0:
        return "ended without a result"
    if exit_code > 0:
        return f"ended with exit code {exit_code}"
    try:
        name, words = signal.Signals(-exit_code).name, described(-exit_code)
    except ValueError:  # one of the real-time signals, of which but two have names
        name, words = "", f"signal {-exit_code}"
    meaning = _MEANINGS.get(name)
    return f"{meaning}: {words}" if meaning else f"killed by {words}{'; out of memory?' * is_out_of_memory}"


def seconds_in_words(seconds: float) -> str:
    """`90 s`, and `10 min` where it is whole minutes."""
    minutes = seconds / 60
    return f"{minutes:g} min" if seconds >= 60 and minutes.is_integer() else f"{seconds:g} s"


class OutOfMemoryKills:
    """Counts the processes that the kernel has killed for want of memory: here, or in what we share memory with.

    Args:
        counters: Files with a line `oom_kill N`, of which the first that has one counts; by default those of our own
            control groups, and of the whole machine.
    """

    def __init__(self, counters: Sequence[Path] | None = None) -> None:
        groups = [group.oom_path for group in control_groups()]
        self._counters = [*groups, Path("/proc/vmstat")] if counters is None else counters
        self._known = self._count()

    def take_one(self) -> bool:
        """Whether there is one that no process's end has been put down to yet; it is from now on."""
        is_new = self._count() > self._known
        self._known += is_new
        return is_new

    def _count(self) -> int:
        return next((n for path in self._counters if (n := numbers_of(path).get("oom_kill")) is not None), 0)
