"""What processes tell each other by name instead of all at once: who is there, who has failed and why, who is done.

Knows the key-value store that the launcher names; not what is trained, nor how anything is shown.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta

import torch.distributed as dist

from cvtrain.errors import ProcessFailedError

PATIENCE = timedelta(minutes=10)
"""How long processes wait for each other where all should come by at the same time, before they give up."""

_LOOK_EVERY_SECONDS = 0.02


@dataclass(frozen=True)
class Failure:
    """Why a process has ended.

    Args:
        rank: Of the process.
        exit_code: Its own.
        message: What to say, in one or more lines.
        hint: What to type, or None.
    """

    rank: int
    exit_code: int
    message: str
    hint: str | None


class Board:
    """A few words under agreed names, for all processes of one training to read.

    Args:
        store: Of the launcher, or of the first process.
        rank: Of this process.
    """

    def __init__(self, store: dist.Store, rank: int) -> None:
        self.store, self.rank = dist.PrefixStore("cvtrain", store), rank

    def post(self, name: str, text: str = "") -> None:
        """Puts a text under a name."""
        self.store.set(name, text)

    def read(self, name: str) -> str | None:
        """The text under a name, or None as long as there is none."""
        return self.store.get(name).decode() if self.store.check([name]) else None

    def wait_for(self, *names: str) -> str:
        """The text under the first of some names that has one, however long that takes.

        Raises:
            ProcessFailedError: Another process has failed meanwhile.
        """
        pause = _LOOK_EVERY_SECONDS
        while True:
            for name in names:
                text = self.read(name)
                if text is not None:
                    return text
            self.raise_failure()
            time.sleep(pause)
            pause = min(pause * 1.5, 0.5)

    # ------------------------------------------------------------------------------------------ ends

    def post_failure(self, failure: Failure) -> None:
        """Says why this process ends; of several the first one counts."""
        if self.store.add("num_failed", 1) == 1:
            words = [failure.rank, failure.exit_code, failure.message, failure.hint]
            self.store.set("failure", json.dumps(words))

    def failure(self) -> Failure | None:
        """Why another process has ended, or None."""
        text = self.read("failure")
        return Failure(*json.loads(text)) if text else None

    def raise_failure(self) -> None:
        """Ends this process too when another one has failed.

        Raises:
            ProcessFailedError: With its words and its exit code.
        """
        failure = self.failure()
        if failure is not None and failure.rank != self.rank:
            words = f"process {failure.rank}: {failure.message}"
            raise ProcessFailedError(words, exit_code=failure.exit_code, hint=failure.hint)

    def post_end(self, exit_code: int, *, num_others: int = 0, seconds: float = 0.0) -> None:
        """Says that the first process has said and written everything.

        Args:
            exit_code: Of all.
            num_others: How many processes to wait for until they have heard it: the store may end with this process.
            seconds: How long to wait; some may be gone.
        """
        self.store.set("end", str(exit_code))
        end = time.monotonic() + seconds
        while self.store.add("num_heard", 0) < num_others and time.monotonic() < end:
            time.sleep(_LOOK_EVERY_SECONDS)

    def wait_for_end(self, seconds: float) -> int | None:
        """The exit code of the first process; None when it says nothing within some seconds."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            text = self.read("end")
            if text is not None:
                self.store.add("num_heard", 1)
                return int(text)
            time.sleep(_LOOK_EVERY_SECONDS)
        return None


_connections: list[dist.Store] = []


def store(patience: timedelta = PATIENCE) -> dist.Store:
    """The store at MASTER_ADDR:MASTER_PORT, which all processes of this training reach; one connection a process.

    Raises:
        RuntimeError: It cannot be reached.
    """
    if not _connections:
        _connections.append(next(iter(dist.rendezvous("env://", timeout=patience)))[0])
    return _connections[0]


def quietly(action: Callable[[], None]) -> None:
    """Tells or asks the others something, if the store is still there."""
    with contextlib.suppress(RuntimeError):
        action()
