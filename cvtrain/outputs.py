"""The folder of one run: names and writes every file in it.

Knows files and plain values; neither torch nor the meaning of what is written.
"""

from __future__ import annotations

import contextlib
import csv
import errno
import fcntl
import json
import os
import shutil
import socket
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any

from cvtrain.errors import CheckpointError, ConfigError, OutputError
from cvtrain.plain_text import cell, csv_text, finite

METRICS_HEADER = (
    "epoch",
    "step",
    "train_loss",
    "train_accuracy",
    "val_loss",
    "val_accuracy",
    "lr",
    "seconds",
    "images_per_second",
    "val_cross_entropy",
)


def new_folder(parent: Path, *, suffix: str | None = None) -> Path:
    """Makes a new folder named by the time, which no other process has.

    Raises:
        OutputError: It cannot be made.
    """
    try:
        while True:
            name = datetime.now().strftime("%Y-%m-%d_%H-%M-%S-%f") + (f"-{suffix}" if suffix else "")
            with contextlib.suppress(FileExistsError):
                (parent / name).mkdir(parents=True)
                return parent / name
    except OSError as error:
        raise _not_writable(parent, error) from None


def missing_folders(folder: Path) -> list[Path]:
    """Of a folder and those above it the ones that do not exist, the innermost first."""
    return [each for each in (folder, *folder.parents) if not each.exists()]


def _not_writable(folder: Path, error: OSError) -> OutputError:
    return OutputError(
        f"cannot write to the output folder {folder}: {error.strerror}",
        hint="choose another one with output_dir=FOLDER",
    )


JOB_RECORD = "job.json"
"""In the folder of a job of a multirun: how the job stands."""


def is_job(folder: Path) -> bool:
    """Whether a folder is that of a job of a multirun."""
    return (folder / JOB_RECORD).is_file()


class RunDir:
    """One run, one folder, one process.

    Made with `create` or `reopen`; holds a lock on the folder until it is closed or the process ends.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config_path = path / "config.yaml"
        self.card_path = path / "run.json"
        self.metrics_path = path / "metrics.csv"
        self.predictions_path = path / "predictions.csv"
        self.split_path = path / "split.npz"
        self.log_path = path / "log.txt"
        self.error_path = path / "error.txt"
        self.checkpoint_dir = path / "checkpoints"
        self.plots_dir = path / "plots"
        self._lock: int | None = None
        self._unwritten_rows = b""
        self._made_for_it: list[Path] = []

    @classmethod
    def create(cls, parent: Path, *, suffix: str | None = None) -> RunDir:
        """Makes a new folder named by the time, which no other process has.

        Raises:
            OutputError: It cannot be made.
        """
        missing = missing_folders(parent)
        return cls._begin(new_folder(parent, suffix=suffix), missing)

    @classmethod
    def open_at(cls, path: Path) -> RunDir:
        """Makes the folder of a job, or opens it again as an earlier process left it, however early that ended.

        Raises:
            ConfigError: Another process is at work in it.
            OutputError: It cannot be made.
        """
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise _not_writable(path.parent, error) from None
        return cls._begin(path, [])

    @classmethod
    def _begin(cls, path: Path, missing: list[Path]) -> RunDir:
        run_dir = cls(path)
        run_dir._made_for_it = missing
        try:
            run_dir.checkpoint_dir.mkdir(exist_ok=True)
        except OSError as error:
            raise _not_writable(path.parent, error) from None
        run_dir._take_lock()
        return run_dir

    @classmethod
    def reopen(cls, path: Path) -> RunDir:
        """Opens the folder of an earlier run.

        Raises:
            CheckpointError: There is no run.
            ConfigError: Another process is at work in it.
        """
        run_dir = cls(path.expanduser().resolve())
        if not run_dir.config_path.is_file():
            raise CheckpointError(f"{path} holds no run: there is no {run_dir.config_path.name}")
        run_dir._take_lock()
        run_dir.checkpoint_dir.mkdir(exist_ok=True)
        return run_dir

    def _take_lock(self) -> None:
        """Takes the lock, which ends with the process however that ends."""
        try:
            self._lock = os.open(self.path / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.ftruncate(self._lock, 0)
            os.pwrite(self._lock, f"process {os.getpid()} on {socket.gethostname()}".encode(), 0)
        except BlockingIOError:
            holder = os.read(self._lock, 200).decode("utf-8", "replace") if self._lock else ""
            self.close()
            raise ConfigError(
                f"{self.path} is in use by {holder or 'another process'}", hint="wait until it ends, or stop it"
            ) from None
        except OSError as error:
            self.close()
            raise OutputError(f"cannot write to {self.path}: {error.strerror}") from None
        # A worker that outlives a killed process for some seconds must not keep its lock.
        os.register_at_fork(after_in_child=self._forget_lock)

    def discard(self) -> None:
        """Removes the folder of a run that never started, and those above it that were made for it alone."""
        shutil.rmtree(self.path, ignore_errors=True)
        for folder in self._made_for_it:
            with contextlib.suppress(OSError):  # another run has come to live there
                folder.rmdir()

    def close(self) -> None:
        """Gives the lock back."""
        if self._lock is not None:
            fcntl.flock(self._lock, fcntl.LOCK_UN)
            self._forget_lock()

    def _forget_lock(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    # -------------------------------------------------------------------------------------------- single files

    def write_text(self, path: Path, text: str) -> None:
        """Replaces a file in one move: readers see the old or the new content, never a part.

        Raises:
            OutputError: The disk is full or not writable.
        """
        temporary = path.with_name(f".{path.name}.tmp")
        try:
            with open(temporary, "w", encoding="utf-8", newline="") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except OSError as error:
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise OutputError(f"{path} could not be written: {error.strerror}") from None

    def remove_leftovers(self) -> None:
        """Removes temporary files of a process that was killed while it wrote; the lock must be held."""
        for temporary in self.path.glob(".*.tmp"):
            with contextlib.suppress(OSError):
                temporary.unlink()

    def write_card(self, card: Mapping[str, Any]) -> None:
        """Replaces the run card; numbers that are not finite become null, because JSON has none."""
        self.write_text(self.card_path, json.dumps(finite(card), indent=2, ensure_ascii=False) + "\n")

    def read_card(self) -> dict[str, Any]:
        """The run card, or an empty one."""
        try:
            return json.loads(self.card_path.read_text(encoding="utf-8"))
        except (OSError, json.JSONDecodeError):
            return {}

    def log(self, line: str) -> None:
        """Adds a line with the time to log.txt; a log that cannot be written stops nothing."""
        with contextlib.suppress(OSError), open(self.log_path, "a", encoding="utf-8", errors="replace") as file:
            file.write(f"{datetime.now().isoformat(timespec='milliseconds')} {line}\n")

    def write_split(self, data: bytes) -> None:
        """Writes split.npz: which image trains, validates, tests.

        Raises:
            OutputError: The disk is full or not writable.
        """
        try:
            self.split_path.write_bytes(data)
        except OSError as error:
            raise OutputError(f"{self.split_path} could not be written: {error.strerror}") from None

    def write_predictions(self, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
        """Writes predictions.csv."""
        self.write_text(self.predictions_path, csv_text(header, rows))

    # -------------------------------------------------------------------------------------------- metrics.csv

    def append_metrics(self, evaluation: Any) -> None:
        """Adds one row; one that cannot be written now is kept, and written before the next checkpoint is."""
        header = METRICS_HEADER if self.metrics_num_bytes() == 0 else None
        row = asdict(evaluation)
        self._unwritten_rows += csv_text(header, [[cell(row[key]) for key in METRICS_HEADER]]).encode()
        with contextlib.suppress(OutputError):
            self._write_rows()

    def _write_rows(self) -> None:
        """Writes rows in a single write; a part of them, as on a full disk, is taken back."""
        if not self._unwritten_rows:
            return
        try:
            descriptor = os.open(self.metrics_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
            try:
                num_bytes = os.fstat(descriptor).st_size
                if os.write(descriptor, self._unwritten_rows) < len(self._unwritten_rows):
                    os.ftruncate(descriptor, num_bytes)
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            finally:
                os.close(descriptor)
        except OSError as error:
            raise OutputError(f"{self.metrics_path} could not be written: {error.strerror}") from None
        self._unwritten_rows = b""

    def read_metrics(self) -> list[dict[str, str]]:
        """The rows of metrics.csv as text.

        Raises:
            OSError: It cannot be read.
        """
        with open(self.metrics_path, encoding="utf-8", newline="") as file:
            return list(csv.DictReader(file))

    def metrics_num_bytes(self) -> int:
        """The length of metrics.csv with all rows so far: a checkpoint remembers which rows belong to it."""
        written = self.metrics_path.stat().st_size if self.metrics_path.exists() else 0
        return written + len(self._unwritten_rows)

    def sync_metrics(self) -> None:
        """Makes the rows durable.

        Raises:
            OutputError: The disk is full or not writable.
        """
        self._write_rows()
        if self.metrics_path.exists():
            descriptor = os.open(self.metrics_path, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            except OSError as error:
                raise OutputError(f"{self.metrics_path} could not be written: {error.strerror}") from None
            finally:
                os.close(descriptor)

    def cut_metrics(self, num_bytes: int) -> bool:
        """Removes rows that were written after the checkpoint that training goes on from.

        Returns:
            Whether all rows up to there are still in the file.

        Raises:
            OutputError: The file cannot be written.
        """
        if self.metrics_num_bytes() <= num_bytes:
            return self.metrics_num_bytes() == num_bytes
        try:
            os.truncate(self.metrics_path, num_bytes)
        except OSError as error:
            raise OutputError(f"{self.metrics_path} could not be written: {error.strerror}") from None
        return True
