"""One call of a function, in whichever process: its threads, its errors, the signals that come meanwhile.

Knows no other process.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from typing import Any

from cvtrain.signals import Interruption, StopRequest
from cvtrain.workers.items import in_words


def outcome(call: Callable[[], Any], *, num_threads: int, stop: StopRequest) -> tuple[Any, Exception | None]:
    """What a call returns, or what it raises; `stop` listens afterwards.

    Args:
        call: Is not called where a signal has come already.
        num_threads: That it may use.
        stop: Does not listen unless the call says so.
    """
    try:
        try:
            stop.listening = False
            if stop.signum is not None:
                raise Interruption(stop.signum)
            with limited_threads(num_threads):
                return call(), None
        except Exception as error:
            return None, error
        except SystemExit as error:
            return None, in_words(error)
        finally:
            stop.listening = True
    except Interruption as interruption:
        return None, interruption.error


def unbroken(action: Callable[[], Any], *, stop: StopRequest) -> None:
    """Does what a signal must not cut in two, such as writing to a pipe; one that comes meanwhile is raised after."""
    listened, was_set = stop.listening, bool(stop)
    stop.listening = True
    try:
        action()
    finally:
        stop.listening = listened
    if stop.signum is not None and not was_set and not listened:
        raise Interruption(stop.signum)


@contextlib.contextmanager
def limited_threads(count: int) -> Iterator[None]:
    """Limits the threads of torch, loaded already or not, and of libraries that ask OpenMP."""
    variable, torch = os.environ.get("OMP_NUM_THREADS"), sys.modules.get("torch")
    before = torch.get_num_threads() if torch else 0
    os.environ["OMP_NUM_THREADS"] = str(count)
    if torch:
        torch.set_num_threads(count)
    try:
        yield
    finally:
        if variable is None:
            del os.environ["OMP_NUM_THREADS"]
        else:
            os.environ["OMP_NUM_THREADS"] = variable
        if torch:
            torch.set_num_threads(before)
