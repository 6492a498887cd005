"""The folder of one job: how the job stands, and who is at work on it.

Knows files and locks, so that whoever looks sees the same: this driver, another one, or a command next week. Knows
neither processes nor what a job does.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from cvtrain.errors import OutputError
from cvtrain.outputs import JOB_RECORD, RunDir
from cvtrain.plain_text import finite

JobState = Literal["waiting", "running", "done", "failed", "stopped", "pruned"]
"""`stopped`: by a signal, or because its process vanished; it is continued from its checkpoint."""

PLACED_TASKS = ("train", "sample_size_sweep")
"""Tasks whose results stand in the folder of the job; others make folders of their own, and print what they find."""

_CLAIM_TRIES, _CLAIM_WAIT_SECONDS = 20, 0.02
"""Whoever looks whether a job is running holds its lock for an instant: a claim tries again."""


@dataclass(frozen=True)
class JobRecord:
    """What is written about a job, in `job.json`.

    Args:
        overrides: The word typed for each key, secrets masked.
        task: What it does.
        status: As it was last written; a process that vanished could not write how it ended.
        exit_code: None until it ends.
        error: Why it is not done, in one line.
        value: What its task returned.
        attempts: How often it was begun.
        versions: Of what a result depends on.
        git: Of the user's own repository; None outside of one.
    """

    overrides: Mapping[str, str]
    task: str = ""
    status: str = "waiting"
    exit_code: int | None = None
    error: str | None = None
    value: float | None = None
    attempts: int = 0
    versions: Mapping[str, str] = field(default_factory=dict)
    git: Mapping[str, Any] | None = None


class JobFolder:
    """The home of one job; whoever works on it holds its lock."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.log_path = path / "log.txt"
        self._record_path = path / JOB_RECORD
        self._lock_path = path / ".job.lock"

    def read(self) -> JobRecord | None:
        """What is written; None where nothing is, or nothing that can be read.

        A job that was done and has lost its figures since is one that was stopped: it is to be done once more.
        """
        try:
            content = json.loads(self._record_path.read_text(encoding="utf-8"))
            known = {name: content[name] for name in JobRecord.__dataclass_fields__ if name in content}
            record = JobRecord(**known)
            if not isinstance(record.overrides, Mapping) or not isinstance(record.status, str):
                return None
        except (OSError, ValueError, TypeError):
            return None
        is_lost = record.status == "done" and record.task in PLACED_TASKS and not self._has_card()
        return replace(record, status="stopped", error="run.json is gone or damaged") if is_lost else record

    def _has_card(self) -> bool:
        try:
            return "status" in RunDir(self.path).read_card()
        except (ValueError, TypeError):  # bytes that are no text, or no object
            return False

    def write(self, record: JobRecord) -> None:
        """Replaces the record.

        Raises:
            OutputError: The disk is full or not writable.
        """
        RunDir(self.path).write_text(self._record_path, json.dumps(finite(asdict(record)), indent=2) + "\n")

    def state(self) -> JobState:
        """How the job stands now, whoever is at work."""
        record = self.read()
        if self.is_claimed():
            return "running"
        if record is None:
            return "waiting"
        if record.status in ("done", "failed", "pruned"):
            return record.status  # type: ignore[return-value]
        return "stopped" if record.attempts else "waiting"

    def is_claimed(self) -> bool:
        """Whether a process holds the job."""
        try:
            descriptor = os.open(self._lock_path, os.O_RDWR | os.O_CLOEXEC)
        except OSError:
            return False
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(descriptor)
        return False

    @contextlib.contextmanager
    def claimed(self) -> Iterator[bool]:
        """Holds the job while the block runs, or gives False where another process does.

        Raises:
            OutputError: The folder cannot be made.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(self._lock_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise OutputError(f"cannot write to {self.path}: {error.strerror}") from None
        is_open = [True]

        def forget() -> None:  # a copy of this process, such as a loader of images, must not keep the job
            if is_open:
                os.close(descriptor)
                is_open.clear()

        os.register_at_fork(after_in_child=forget)
        try:
            yield _lock(descriptor)
        finally:
            fcntl.flock(descriptor, fcntl.LOCK_UN)  # a copy that is just being made has it open for an instant
            forget()


def _lock(descriptor: int) -> bool:
    for _ in range(_CLAIM_TRIES):
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        time.sleep(_CLAIM_WAIT_SECONDS)
    return False
