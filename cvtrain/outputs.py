"""The folder of one run: names and writes every file in it.

Knows files and plain values; neither torch nor the meaning of what is written.
"""

from __future__ import annotations

import contextlib
import csv
import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any

from cvtrain.engine.durable import sync_folder, write_all, write_durably
from cvtrain.errors import CheckpointError, OutputError
from cvtrain.folders import FolderLock, missing_folders, new_folder, not_writable
from cvtrain.plain_text import cell, csv_text, finite, printable

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


def _not_written(path: Path, error: OSError) -> OutputError:
    return OutputError(f"{path} could not be written: {error.strerror}")


def _checksum(card: Mapping[str, Any]) -> str:
    """Of what a run card says, in whatever order and layout."""
    return hashlib.sha256(json.dumps(card, sort_keys=True).encode()).hexdigest()[:16]


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
        self.report_path = path / "report.html"
        self._lock: FolderLock | None = None
        self._unwritten_rows = b""
        self._torn_at: int | None = None
        self._rows_ended_at = 0
        self._made_for_it: list[Path] = []

    @classmethod
    def create(cls, parent: Path, *, suffix: str | None = None) -> RunDir:
        """Makes a new folder named by the time, which no other process has.

        Raises:
            OutputError: It cannot be made.
        """
        missing = missing_folders(parent)
        run_dir = cls(new_folder(parent, suffix=suffix))
        run_dir._made_for_it = missing
        try:
            return run_dir._begin()
        except OutputError:
            run_dir.discard()
            raise

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
            raise not_writable(path.parent, error) from None
        return cls(path)._begin()

    def _begin(self) -> RunDir:
        try:
            self.checkpoint_dir.mkdir(exist_ok=True)
            sync_folder(self.path)
            for above in {self.path.parent, *(made.parent for made in self._made_for_it)}:
                with contextlib.suppress(PermissionError):  # who may make names in a folder need not be able to read it
                    sync_folder(above)
        except OSError as error:
            raise not_writable(self.path.parent, error) from None
        self._lock = FolderLock(self.path)
        return self

    @classmethod
    def reopen(cls, path: Path) -> RunDir:
        """Opens the folder of an earlier run.

        Raises:
            CheckpointError: There is no run, or nobody may look into it.
            ConfigError: Another process is at work in it.
            OutputError: It cannot be written.
        """
        run_dir = cls(path.expanduser().resolve())
        try:
            is_run = run_dir.config_path.is_file()
        except OSError as error:
            raise CheckpointError(f"{path} cannot be read: {error.strerror}") from None
        if not is_run:
            raise CheckpointError(f"{path} holds no run: there is no {run_dir.config_path.name}")
        return run_dir._begin()

    def discard(self) -> None:
        """Removes the folder of a run that never started, and those above it that were made for it alone."""
        shutil.rmtree(self.path, ignore_errors=True)
        for folder in self._made_for_it:
            with contextlib.suppress(OSError):  # another run has come to live there
                folder.rmdir()

    def close(self) -> None:
        """Gives the lock back."""
        if self._lock is not None:
            self._lock.release()

    # -------------------------------------------------------------------------------------------- single files

    def write_text(self, path: Path, text: str) -> None:
        """Replaces a file in one move: readers see the old or the new content, never a part.

        Raises:
            OutputError: The disk is full or not writable.
        """
        self._replace(path, text.encode("utf-8", "backslashreplace"))

    def _replace(self, path: Path, data: bytes) -> None:
        try:
            write_durably(path, data, temporary=path.with_name(f".{path.name}.tmp"))
        except OSError as error:
            raise _not_written(path, error) from None

    def remove_leftovers(self) -> None:
        """Removes temporary files of a process that was killed while it wrote; the lock must be held."""
        for temporary in (*self.path.glob(".*.tmp"), *self.plots_dir.glob(".*.tmp")):
            with contextlib.suppress(OSError):
                temporary.unlink()

    def write_card(self, card: Mapping[str, Any]) -> None:
        """Replaces the run card; numbers that are not finite become null, because JSON has none."""
        content = finite(card)
        content["checksum"] = _checksum(content)
        self.write_text(self.card_path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")

    def read_card(self) -> dict[str, Any]:
        """The run card, or an empty one where there is none that is as it was written."""
        try:
            card = json.loads(self.card_path.read_text(encoding="utf-8"))
            stated = card.pop("checksum", None)  # cards of older versions have none
        except (OSError, ValueError, AttributeError, TypeError, RecursionError):
            return {}
        return card if stated in (None, _checksum(card)) else {}

    def log(self, line: str) -> None:
        """Adds a line, or several, each with the time, to log.txt; a log that cannot be written stops nothing."""
        with contextlib.suppress(OSError), open(self.log_path, "a", encoding="utf-8", errors="replace") as file:
            now = datetime.now().isoformat(timespec="milliseconds")
            file.writelines(f"{now} {printable(part)}\n" for part in line.split("\n"))

    def write_split(self, data: bytes) -> None:
        """Writes split.npz: which image trains, validates, tests.

        Raises:
            OutputError: The disk is full or not writable.
        """
        self._replace(self.split_path, data)

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
        """Writes rows after whole ones; a part of them (the disk is full) is taken back, next time at the latest."""
        if not self._unwritten_rows:
            return
        try:
            descriptor = os.open(self.metrics_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o666)
            try:
                self._append(descriptor)
            finally:
                os.close(descriptor)
        except OSError as error:
            raise _not_written(self.metrics_path, error) from None
        self._unwritten_rows = b""

    def _append(self, descriptor: int) -> None:
        end = os.fstat(descriptor).st_size
        if self._torn_at is not None and end > self._torn_at:
            end = self._torn_at
            os.ftruncate(descriptor, end)
        self._torn_at = end
        try:
            write_all(descriptor, self._unwritten_rows)
        except OSError:
            with contextlib.suppress(OSError):
                os.ftruncate(descriptor, end)
            raise
        self._torn_at = None

    def read_metrics(self) -> list[dict[str, str]]:
        """The rows of metrics.csv as text.

        Raises:
            OSError: It cannot be read.
        """
        with open(self.metrics_path, encoding="utf-8", newline="") as file:
            return list(csv.DictReader(file))

    def metrics_num_bytes(self) -> int:
        """The length of metrics.csv with all rows so far: a checkpoint remembers which rows belong to it."""
        try:
            end = self.metrics_path.stat().st_size
            self._rows_ended_at = end if self._torn_at is None else min(end, self._torn_at)
        except FileNotFoundError:
            self._rows_ended_at = 0
        except OSError:
            pass  # it cannot be looked at now: it ends where it did
        return self._rows_ended_at + len(self._unwritten_rows)

    def metrics_checksum(self) -> str | None:
        """The SHA-256 of metrics.csv with all rows so far; None where it cannot be read."""
        end = self.metrics_num_bytes() - len(self._unwritten_rows)
        try:
            written = self.metrics_path.read_bytes()[:end] if end else b""
        except OSError:
            return None
        return hashlib.sha256(written + self._unwritten_rows).hexdigest()

    def sync_metrics(self) -> None:
        """Makes the rows durable.

        Raises:
            OutputError: The disk is full or not writable.
        """
        self._write_rows()
        try:
            descriptor = os.open(self.metrics_path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        except FileNotFoundError:
            return  # no rows yet
        except OSError as error:
            raise _not_written(self.metrics_path, error) from None

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
            raise _not_written(self.metrics_path, error) from None
        return True
