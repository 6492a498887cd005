"""Lets one of several processes that train together say what went wrong, once, whichever of them it went wrong in.

Knows lines, exit codes and the launcher's environment; not what was done.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import time
from collections.abc import Callable, Sequence
from datetime import timedelta

from cvtrain.engine.distributed.rank import Rank, rank_from_environment
from cvtrain.errors import ConfigError

_WAIT_SECONDS = 10.0
"""How long a process waits for the first one to speak for it; that one may have gone without a word."""

_LEAVE_SECONDS = 2.0
"""How long the first process waits until the others have heard it."""


def say_as_one(lines: Sequence[str], exit_code: int, *, say: Callable[[Sequence[str]], None]) -> int:
    """Says how this command ends, unless another process says so for all.

    The first process speaks. Another one tells it what went wrong, waits until it has spoken, and is silent; it speaks
    for itself when nobody answers.

    Args:
        lines: What went wrong here.
        exit_code: Of this process.
        say: Shows lines to the user.

    Returns:
        The exit code of all.
    """
    try:
        rank = rank_from_environment()
    except ConfigError:
        rank = None
    if rank is None:
        say(lines)
        return exit_code
    expect_end()
    _tell_launcher(lines)
    if rank.is_first:
        say(lines)
        _told_to_others(rank, lines, exit_code)
        return exit_code
    code = _told_to_others(rank, lines, exit_code)
    if code is not None:
        return code
    say([f"process {rank.number} of {rank.size}: {lines[0]}", *lines[1:]])
    return exit_code


def expect_end() -> None:
    """Lets the signal pass by which a launcher ends all processes once one has ended: it must not cut off the words."""
    with contextlib.suppress(ValueError):  # not in the main thread
        signal.signal(signal.SIGTERM, signal.SIG_IGN)


def _told_to_others(rank: Rank, lines: Sequence[str], exit_code: int) -> int | None:
    """Leaves a message for all; for a process other than the first: the exit code of that one, if it answers."""
    from cvtrain.engine.distributed.board import Board, Failure, store

    with contextlib.suppress(RuntimeError):  # nobody can be told any more
        board = Board(store(timedelta(seconds=_WAIT_SECONDS)), rank.number)
        board.post_failure(Failure(rank.number, exit_code, "\n".join(lines), None))
        if rank.is_first:
            board.post_end(exit_code, num_others=rank.size - 1, seconds=_LEAVE_SECONDS)
        else:
            return board.wait_for_end(_WAIT_SECONDS)
    return None


def _tell_launcher(lines: Sequence[str]) -> None:
    """Puts the words where torchrun takes those of its own report from. Source: torch.distributed.elastic, errors."""
    path = os.environ.get("TORCHELASTIC_ERROR_FILE")
    if path:
        with contextlib.suppress(OSError), open(path, "w", encoding="utf-8") as file:
            words = "\n".join(lines)
            json.dump({"message": {"message": words, "extraInfo": {"timestamp": str(int(time.time()))}}}, file)
