"""How a command ends: whatever it raises becomes an exit code and, at most, six lines.

Knows errors and their codes; not what the command does.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cvtrain.errors import CvtrainError, OutputError
from cvtrain.last_words import say_as_one
from cvtrain.record import memory_limit_of
from cvtrain.signals import Interruption, StopRequest


@dataclass(frozen=True)
class Ending:
    """How a command ended.

    Args:
        exit_code: 0 where all went well.
        lines: What went wrong, most important first.
    """

    exit_code: int
    lines: tuple[str, ...] = ()


def exit_code_of(command: Callable[[], Any]) -> int:
    """Runs a command, shows what went wrong, and returns the exit code."""
    ending = ending_of(command)
    if not ending.lines:
        return ending.exit_code
    from cvtrain.console import print_error

    return say_as_one(ending.lines, ending.exit_code, say=print_error)


def ending_of(command: Callable[[], Any]) -> Ending:
    """Runs a command and puts whatever it raises into words."""
    try:
        with StopRequest():
            command()
    except CvtrainError as error:
        return Ending(error.exit_code, tuple(error.lines()))
    except Interruption as interruption:  # at the very moment in which the block was left
        return Ending(interruption.error.exit_code, tuple(interruption.error.lines()))
    except BrokenPipeError:  # nothing is wrong, and nothing can be said
        from cvtrain.console import forget_reader

        forget_reader()
    except Exception as error:
        known = memory_limit_of(error) or no_temporary_folder(error)
        return Ending(known.exit_code, tuple(known.lines())) if known else Ending(1, tuple(internal_error(error)))
    return Ending(0)


def no_temporary_folder(error: Exception) -> OutputError | None:
    """The words for a machine without room for temporary files, in which torch cannot be loaded; None of another error.

    Source: `tempfile.gettempdir`, which finds a folder by writing a file into it.
    """
    if not isinstance(error, FileNotFoundError) or "No usable temporary directory" not in str(error):
        return None
    return OutputError(
        "no folder for temporary files can be written, and torch cannot be loaded without one",
        hint="name one with TMPDIR=FOLDER; `df` shows full disks, and `ulimit -f` the limit of files",
    )


def internal_error(error: Exception) -> list[str]:
    """The words for a bug of ours; the traceback goes to a file."""
    notes = [
        note.partition(": ")[2] for note in getattr(error, "__notes__", []) if note.startswith("cvtrain-traceback")
    ]
    if not notes:
        notes = ["no file: no folder could be written"]
        with contextlib.suppress(OSError):
            path = Path(tempfile.gettempdir()) / f"cvtrain-error-{os.getpid()}.txt"
            path.write_text(traceback.format_exc(), encoding="utf-8")
            notes = [str(path)]
    first = str(error).splitlines()[0] if str(error) else ""
    return [
        f"internal error: {type(error).__name__}: {first}",
        f"this is a bug in cvtrain; the traceback is in {notes[0]}",
    ]
