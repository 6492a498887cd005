"""What happens to processes that read images for a training: how they start, and in words how they died.

Knows processes and signals; neither images nor where they are.
"""

from __future__ import annotations

import errno
import multiprocessing
import os
import resource
import signal
import threading
import time
import warnings
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from multiprocessing import queues
from typing import Any

import torch
from torch.utils.data import DataLoader

from cvtrain.errors import ConfigError, CvtrainError, DataError, MemoryLimitError

FEWER = "type fewer processes to read images, such as data.num_workers=0"

_LOOK_SECONDS = 2
"""Between looks whether the main process is still there."""

_NO_SHARED_MEMORY, _NO_DESCRIPTORS = 70, 71
"""Exit codes of a process that could not hand over what it has read."""

_DESCRIPTORS_PER_PROCESS, _DESCRIPTORS_BESIDE = 6, 16
"""Pipes, and the two batches that each has on their way."""


def started(loader: DataLoader) -> Iterator[Any]:
    """Begins to read; the death of a process is seen where its images are waited for, within five seconds.

    Without this torch raises it at the moment of the signal, in whatever the main process is doing: in the middle of a
    forward pass, or of writing a checkpoint.
    """
    if loader.num_workers and loader._iterator is None:
        _check_descriptors(_DESCRIPTORS_PER_PROCESS * loader.num_workers + _DESCRIPTORS_BESIDE)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's opinion of how many processes a machine should have
        if not loader.num_workers or threading.current_thread() is not threading.main_thread():
            return iter(loader)
        before = signal.getsignal(signal.SIGCHLD)
        try:
            return iter(loader)
        finally:
            signal.signal(signal.SIGCHLD, before if before is not None else signal.SIG_DFL)


def end_with(owner: object, loader: DataLoader) -> None:
    """Ends the processes of a loader when the object that reads through it is gone.

    Left to itself a loader that is garbage together with its queues cannot reach its processes any more: it waits five
    seconds for each of them.
    """
    weakref.finalize(owner, _end, loader, os.getpid())


def _end(loader: DataLoader, pid: int) -> None:
    if loader._iterator is not None and os.getpid() == pid:  # in a copy of this process they belong to another
        loader._iterator._shutdown_workers()


def _check_descriptors(needed: int) -> None:
    """Looks whether so many more files can be opened: torch that runs out of them leaves tracebacks, or waits for ever.

    Raises:
        ConfigError: They cannot, with the limit.
    """
    opened: list[int] = []
    try:
        while len(opened) < needed:
            opened.append(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
    except OSError as error:
        if error.errno not in (errno.EMFILE, errno.ENFILE):
            raise
        raise _too_few_descriptors() from None
    finally:
        for descriptor in opened:
            os.close(descriptor)


def _too_few_descriptors() -> ConfigError:
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return ConfigError(
        f"a process may open {limit:,} files here (ulimit -n): too few for so many processes that read images",
        hint=f"raise it, as with ulimit -n 4096, or {FEWER}",
    )


@contextmanager
def deaths_explained(loader: DataLoader) -> Iterator[None]:
    """Says what killed a process of a loader.

    Raises:
        MemoryLimitError: Something killed it, as systems do that run out of memory; or it cannot hand images over.
        ConfigError: Too few files can be opened.
        DataError: It crashed.
    """
    try:
        yield
    except (RuntimeError, ConnectionError, EOFError, FileNotFoundError) as error:
        # The others than RuntimeError come where a process dies while it hands over where in memory its images are.
        dead = _dead_of(getattr(loader._iterator, "_workers", []))
        if not dead and "ancillary data" in str(error):  # what Python says where no descriptor can be received
            raise _too_few_descriptors() from error
        if not dead:
            raise
        raise _death(dead[0].pid, dead[0].exitcode) from error


def _dead_of(processes: Sequence[Any]) -> list[Any]:
    """The processes that have died; waits a moment for one that is just about to be known as dead."""
    dead: list[Any] = []
    for _ in range(20 if processes else 0):
        dead = [process for process in processes if process.exitcode]
        if dead:
            break
        time.sleep(0.02)
    return dead


def _death(pid: int, exit_code: int) -> CvtrainError:
    if exit_code == _NO_SHARED_MEMORY:
        return MemoryLimitError("there is no room in the shared memory (/dev/shm) to pass images on", hint=FEWER)
    if exit_code == _NO_DESCRIPTORS:
        return _too_few_descriptors()
    who = f"process {pid}, which read images,"
    if exit_code > 0:
        return DataError(f"{who} ended with exit code {exit_code}", hint=f"{FEWER}, to see why")
    words = f"was killed by signal {-exit_code} ({signal.Signals(-exit_code).name})"
    if -exit_code == signal.SIGKILL:
        return MemoryLimitError(f"{who} {words}, as systems do where memory runs out", hint=FEWER)
    if -exit_code == signal.SIGBUS:
        return MemoryLimitError(f"{who} {words}: there is no room in /dev/shm, or a file was cut short", hint=FEWER)
    return DataError(f"{who} {words}", hint=f"{FEWER}, to see at which image")


def start_process(_number: int) -> None:
    """A process that reads leaves signals to the whole process group to the main one; it needs one thread only."""
    for name in ("SIGINT", "SIGHUP", "SIGUSR1", "SIGUSR2"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    if hasattr(signal, "sigtimedwait"):
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        threading.Thread(target=_end_when_parent_says_so, daemon=True).start()
    torch.set_num_threads(1)
    # Iterators that were copied with the main process have their processes there: collected here, they would complain.
    torch.utils.data._utils.python_exit_status = True
    # What cannot be handed over is left out by Python with a traceback, and the main process would wait for ever.
    queues.Queue._on_queue_feeder_error = staticmethod(_end_unheard)  # type: ignore[method-assign]


def _end_unheard(error: Exception, _what: object) -> None:
    is_of_files = isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE)
    os._exit(_NO_DESCRIPTORS if is_of_files or "Too many open files" in str(error) else _NO_SHARED_MEMORY)


def _end_when_parent_says_so() -> None:
    """Ends this process when the main one asks for it, or is gone.

    One that ended at anybody's SIGTERM would look like a crash to a main process that is about to save. torch looks for
    the main process too, but takes whoever it is that has adopted a process that had just been started for it.
    """
    parent = multiprocessing.parent_process()
    assert parent is not None, "a process that reads images was started by another"
    while os.getppid() == parent.pid:
        signalled = signal.sigtimedwait({signal.SIGTERM}, _LOOK_SECONDS)
        if signalled and signalled.si_pid == parent.pid:
            break
    os._exit(0)
