"""The file that a search is kept in: held by one process at a time, mended where one was killed, refused if damaged.

Knows Optuna's journal as lines of JSON; not what they say.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from cvtrain.errors import CheckpointError, ConfigError, OutputError

if TYPE_CHECKING:
    from optuna.storages import BaseStorage

_ANEW = "move it away to search anew: with the same seed the same jobs come first, and what is done is not run again"


class Journal:
    """A file that holds all trials of a search; an empty one is made where there is none.

    Optuna's own lock is left behind by a killed process, and delays the next one by half a minute. This one goes with
    its process.

    Args:
        path: Of the file.

    Raises:
        ConfigError: Another process searches here.
        CheckpointError: The file is damaged, or something else.
        OutputError: It cannot be made or written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor: int | None = None
        with self.writing():
            self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            try:
                fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                self.close()
                raise ConfigError(
                    f"another process searches in {path.parent}",
                    hint="wait until it ends, or choose another sweep.name; sweep.jobs=N runs N jobs at the same time",
                ) from None
        # A worker that outlives a killed process for some seconds must not keep its lock.
        os.register_at_fork(after_in_child=self.close)
        self._mend()

    def _mend(self) -> None:
        """Removes half a line, which a process was killed over, and makes sure of all others."""
        with self.writing():
            content = self.path.read_bytes()
            whole = content[: content.rfind(b"\n") + 1]
        for number, line in enumerate(whole.splitlines(), start=1):
            if not _is_record(line):
                raise CheckpointError(
                    f"{self.path} is damaged in line {number}, or is no record of a search", hint=_ANEW
                )
        if content and not whole:
            raise CheckpointError(f"{self.path} is no record of a search", hint=_ANEW)
        with self.writing():
            os.truncate(self.path, len(whole))

    def storage(self) -> BaseStorage:
        """The trials, as Optuna reads them.

        Raises:
            CheckpointError: They make no sense.
        """
        from optuna.storages import JournalStorage
        from optuna.storages.journal import JournalFileBackend

        try:
            return JournalStorage(JournalFileBackend(str(self.path), lock_obj=_Held()))  # type: ignore[arg-type]
        except Exception as error:  # whatever Optuna meets in records that do not fit together
            told = f"{type(error).__name__}: {error}"[:200]
            raise CheckpointError(f"{self.path} cannot be read by Optuna: {told}", hint=_ANEW) from None

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """Turns a failure of the disk into words.

        Raises:
            OutputError: The disk is full or not writable.
        """
        try:
            yield
        except OSError as error:
            raise OutputError(f"{self.path} could not be written: {error.strerror}") from None

    def close(self) -> None:
        """Lets other processes search here."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def _is_record(line: bytes) -> bool:
    try:
        record = json.loads(line)
    except ValueError:
        return False
    return isinstance(record, dict) and isinstance(record.get("op_code"), int)


class _Held:
    """In place of Optuna's lock: the journal is held already."""

    def acquire(self) -> bool:
        return True

    def release(self) -> None:
        pass
