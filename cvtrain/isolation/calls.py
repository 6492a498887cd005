"""What goes to the process of a call and what comes back: calls, results, slots, and how long to wait for whom.

Knows no process.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

CallFn = Callable[..., Any]
"""`function(argument, post=)`, importable by name.

`post(message)` hands a small message to whoever waits for the results; it has left the process when `post` returns.
Until the function takes signals over itself, one that comes is raised in it and ends the call.
"""


@dataclass(frozen=True)
class Call:
    """One call of the function, in a process of its own.

    Args:
        key: Names it in messages and in its result; unique among those that run.
        argument: What the function is called with; can be pickled.
        log_path: What the process writes to stdout and stderr, C code too, is appended here; its folder is made.
    """

    key: str
    argument: Any
    log_path: Path


@dataclass(frozen=True)
class CallResult:
    """What became of a call.

    Args:
        key: Of the call.
        value: What the function returned; None where it did not.
        exit_code: 0 where it returned; else that of its process: 1, 2, ..., or -9 where signal 9 ended it; never 0.
        error: Why it did not return, or that it ran out of time, in one line for people; else None.
        is_timed_out: It was asked to stop because it took too long; it may have returned nevertheless.
        is_asked_to_stop: `on_message` asked it to stop, or the whole command was stopped while it ran.
        seconds: From the start of its process to its end.
    """

    key: str
    value: Any = None
    exit_code: int = 0
    error: str | None = None
    is_timed_out: bool = False
    is_asked_to_stop: bool = False
    seconds: float = 0.0


@dataclass(frozen=True)
class Slot:
    """Room for one call at a time.

    Args:
        num_threads: That the call may use.
        environment: Variables that the process of the call has beside those of the driver.
    """

    num_threads: int
    environment: Mapping[str, str]


class CallSource(Protocol):
    """Gives calls; it is asked from one thread of the driver whenever a slot is free."""

    def next_call(self) -> Call | None:
        """The next call to start; None where there is none at the moment, or none any more."""

    def is_over(self) -> bool:
        """Whether no call will come any more."""


@dataclass(frozen=True)
class Patience:
    """How many seconds to wait for what.

    Args:
        stop_seconds: For a call that was asked to stop, or whose driver has died, to save its state.
        timeout_seconds: For a call that was asked to stop because it took too long.
        leave_seconds: For the process of a call that has said what became of it.
        ask_again_seconds: Before a source that had no call is asked again.
    """

    stop_seconds: float = 60.0
    timeout_seconds: float = 30.0
    leave_seconds: float = 10.0
    ask_again_seconds: float = 0.3
