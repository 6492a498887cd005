"""What cvtrain asks of a tracker, and what it notes about one in the run folder.

Knows plain values; neither which trackers there are, nor their libraries.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from cvtrain.engine.durable import write_durably
from cvtrain.trackers.tracked_run import Row, TrackedRun

Status = Literal["done", "stopped", "failed"]


class TrackerError(Exception):
    """Why a run cannot be tracked, in a sentence."""


class Tracker(Protocol):
    """One run as a tracker keeps it; its methods are called in this order, in a process of their own.

    Any of them may raise anything.
    """

    place: str
    """Where the tracker keeps its runs: a run that goes on there is the same one."""

    def start(self, run: TrackedRun, *, known_id: str | None, after_step: int) -> str:
        """Begins a run, or goes on with one.

        Args:
            run: What is tracked.
            known_id: Of the run to go on with, or None.
            after_step: Rows up to this step have been sent; later ones that the tracker has are to be forgotten.

        Returns:
            The name by which the tracker knows the run.
        """

    def add_rows(self, rows: Sequence[Row]) -> None:
        """Takes evaluations, by step."""

    def add_figures(self, figures: Mapping[str, float], *, step: int) -> None:
        """Takes what a run that is done has come to."""

    def add_files(self, run: TrackedRun) -> None:
        """Takes pictures, documents and checkpoints."""

    def finish(self, status: Status) -> None:
        """Ends, and returns when all is where it belongs."""


@dataclass(frozen=True)
class Journal:
    """What is known in the run folder of its tracked run.

    Args:
        place: As of the tracker.
        run_id: By which the tracker knows the run.
        step: Rows up to here have been taken.
        status: `running` until it has ended.
    """

    place: str
    run_id: str
    step: int = 0
    status: str = "running"

    @classmethod
    def read(cls, path: Path) -> Journal | None:
        """What is written; None where nothing is, or nothing that can be read."""
        try:
            content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            journal = cls(**content)
        except (OSError, ValueError, TypeError):
            return None
        is_right = type(journal.step) is int and isinstance(journal.place, str) and isinstance(journal.run_id, str)
        return journal if is_right else None

    def write(self, path: Path) -> None:
        """Replaces what is written, in one move.

        Raises:
            OSError: The disk is full or not writable.
        """
        text = json.dumps(asdict(self), indent=2) + "\n"
        write_durably(path, text.encode(), temporary=path.with_name(f".{path.name}.tmp"))


def journal_path(run: Path, option: str) -> Path:
    """Where the journal of a tracker lies in a run folder; what its library says lies beside it, in a log."""
    return run / "trackers" / f"{option}.json"


def link_or_copy(source: Path, target: Path) -> None:
    """Gives a file that is never changed, such as a checkpoint, a second name, or a copy where that cannot be.

    Raises:
        OSError: It cannot be copied either.
    """
    import shutil

    target.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(FileNotFoundError):
        target.unlink()
    try:
        target.hardlink_to(source)
    except OSError:  # another disk, or one without links
        shutil.copyfile(source, target)
