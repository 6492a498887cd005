"""What goes to a worker and what comes back: items, results, errors that survive the way.

Knows no process.
"""

from __future__ import annotations

import contextlib
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from cvtrain.errors import CvtrainError


@dataclass(frozen=True)
class WorkItem:
    """One piece of work.

    Args:
        key: Names it in messages and in its result.
        argument: What the function is called with; can be pickled.
        slots: Cores that it takes, and threads that it may use; at least 1.
    """

    key: str
    argument: Any
    slots: int = 1


@dataclass(frozen=True)
class WorkResult:
    """What became of an item.

    Args:
        key: Of the item.
        value: What the function returned; None where it did not.
        error: What it raised: as it was, or in words as an `UnexpectedError`; of a worker's, the traceback is in a
            note.
        lost: Exit code of a worker that died meanwhile: 1, 2, ..., or -9 where signal 9 ended it; else None.
    """

    key: str
    value: Any = None
    error: Exception | None = None
    lost: int | None = None


class UnexpectedError(Exception):
    """An error in words: its kind and message, and its traceback in a note.

    It stands for one that another process could not read, and for an attempt to end the process.
    """


class WorkerStartError(CvtrainError):
    """No worker process can be begun, or the function is not found in it."""


WorkFn = Callable[..., Any]
"""`function(shared, argument, post=, stop=)`, importable by name.

`post(message)` hands a small message to whoever waits for the results, and belongs to the thread that runs the
function. `stop` is that of a `StopRequest`: a signal is raised wherever it comes, unless the function sets
`stop.listening` and looks; then it saves what it has and raises `InterruptedBySignal`.
"""


ErrorParts = tuple[type[Exception], tuple[Any, ...], dict[str, Any]]
"""What an error is made of: kind, arguments, attributes.

As a whole it may not be read again: unpickling calls its class, without the keyword arguments that it may need.
"""


def parts_of(error: Exception) -> ErrorParts:
    """Takes an error apart; one of which a copy would not say the same becomes an `UnexpectedError`."""
    if not isinstance(error, CvtrainError | UnexpectedError):
        error.add_note(traceback_of(error))  # which stays behind
    with contextlib.suppress(Exception):  # its class is anybody's
        parts = type(error), error.__reduce__()[1], error.__dict__
        if str(from_parts(parts)) == str(error):
            return parts
    return parts_of(in_words(error))


def from_parts(parts: ErrorParts) -> Exception:
    """Puts an error together again, without calling what would have made it."""
    kind, args, state = parts
    error = kind.__new__(kind, *args)
    error.__dict__.update(state)
    return error


def in_words(error: BaseException) -> UnexpectedError:
    """Describes an error by what every process knows."""
    words = UnexpectedError(kind_and_text(error))
    for note in getattr(error, "__notes__", None) or [traceback_of(error)]:
        words.add_note(note)
    return words


def traceback_of(error: BaseException) -> str:
    """As it would be printed."""
    return "".join(traceback.format_exception(error)).rstrip()


def kind_and_text(error: BaseException) -> str:
    """`ValueError: no such word`, or the kind alone."""
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
