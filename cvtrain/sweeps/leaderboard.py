"""The jobs of a sweep as rows: what was typed for each, how it ended, what it reached.

Knows run cards and CSV; not what a good result is.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cvtrain.config import masked
from cvtrain.outputs import RunDir
from cvtrain.plain_text import csv_text

FIGURES = (
    "best_epoch",
    "val_accuracy",
    "val_loss",
    "val_cross_entropy",
    "test_accuracy",
    "test_loss",
    "seconds",
    "images_per_second",
    "num_parameters",
)
"""Columns of leaderboard.csv after `status`."""

ENDINGS = ("stop_reason", "error")
"""Columns between the figures and `run`: why a job ended where it did."""


@dataclass(frozen=True)
class Job:
    """One job of a sweep, as the sweep knows it.

    Args:
        overrides: The word typed for each key, e.g. `{"optimizer": "sgd", "optimizer.lr": "0.1", "seed": "3"}`.
        run_dir: Its run folder; None where none was made.
        exit_code: Of the job; None while it runs or waits.
        error: Why it is not done, in one line, where the sweep knows better than the run card; a process that was
            killed could not write `killed by signal 9` there.
        status: As in `JobResult`, where the sweep knows better.
    """

    overrides: Mapping[str, str]
    run_dir: Path | None
    exit_code: int | None
    error: str | None = None
    status: str | None = None


@dataclass(frozen=True)
class JobResult:
    """One job of a sweep, as its run card tells it; figures that it lacks are None.

    Args:
        overrides: As in `Job`, secrets masked.
        run_dir: Its run folder, or None.
        status: `done`, `failed`, `stopped` (by a signal), `pruned` (a search ended it early, which is no failure),
            `running`, or `waiting`, which has not been started.
        stop_reason: `finished`, `early_stopping`, `signal`, `diverged`, or None.
        seed: Of the run.
        split_hash: Which image trains, validates, tests.
        best_epoch: Of the weights that were tested.
        val_accuracy: Of those weights, 0..1.
        val_loss: Of those weights.
        val_cross_entropy: Of those weights.
        test_accuracy: 0..1.
        test_loss: Of the test images.
        seconds: The job took.
        images_per_second: In training.
        num_parameters: Of the model.
        device: On which it was trained.
        error: Why it is not done, in one line.
    """

    overrides: Mapping[str, str]
    run_dir: Path | None
    status: str
    stop_reason: str | None = None
    seed: int | None = None
    split_hash: str | None = None
    best_epoch: float | None = None
    val_accuracy: float | None = None
    val_loss: float | None = None
    val_cross_entropy: float | None = None
    test_accuracy: float | None = None
    test_loss: float | None = None
    seconds: float | None = None
    images_per_second: float | None = None
    num_parameters: float | None = None
    device: str | None = None
    error: str | None = None

    @property
    def is_done(self) -> bool:
        """Whether the run came to its end and was tested: only such runs are compared."""
        return self.status == "done" and self.test_accuracy is not None


def read_jobs(jobs: Sequence[Job]) -> list[JobResult]:
    """Reads the run card of every job; a card that is missing or damaged leaves a job without figures."""
    return [_read(job) for job in jobs]


def _read(job: Job) -> JobResult:
    overrides = {key.lstrip("+"): str(masked(str(word), key)) for key, word in job.overrides.items()}
    card = _card(job.run_dir)
    best, test = _part(card, "best"), _part(card, "test")
    seed = _number(card.get("seed"))
    if seed is None:
        seed = _number_in(overrides.get("seed"))
    return JobResult(
        overrides=overrides,
        run_dir=job.run_dir,
        status=_status(card, job),
        stop_reason=_text(card.get("stop_reason")),
        seed=None if seed is None else int(seed),
        split_hash=_text(card.get("split_hash")),
        best_epoch=_number(best.get("epoch")),
        val_accuracy=_number(best.get("val_accuracy")),
        val_loss=_number(best.get("val_loss")),
        val_cross_entropy=_number(best.get("val_cross_entropy")),
        test_accuracy=_number(test.get("accuracy")),
        test_loss=_number(test.get("loss")),
        seconds=_number(card.get("seconds")),
        images_per_second=_number(card.get("images_per_second")),
        num_parameters=_number(card.get("num_parameters")),
        device=_text(card.get("device")),
        error=_one_line(job.error if job.error is not None else _text(card.get("error"))),
    )


def _card(run_dir: Path | None) -> dict[str, Any]:
    if run_dir is None:
        return {}
    try:
        card = RunDir(run_dir).read_card()
    except ValueError:  # bytes that are no text
        return {}
    return card if isinstance(card, dict) else {}


def _status(card: Mapping[str, Any], job: Job) -> str:
    """What the sweep knows, else what the card says, unless the process ended before it could say how."""
    if job.status is not None:
        return job.status
    status = card.get("status")
    if status in ("done", "failed", "stopped"):
        return status
    if job.exit_code == 0 and job.run_dir is None:
        return "done"  # a task that makes no run folder
    if job.exit_code is not None:
        return "failed"
    return "running" if status == "running" else "waiting"


def _part(card: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    part = card.get(name)
    return part if isinstance(part, Mapping) else {}


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _one_line(text: str | None) -> str | None:
    """Text without line breaks; None for none."""
    return " ".join(text.split()) or None if text else None


def _number(value: Any) -> float | None:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return value if is_number and math.isfinite(value) else None


def _number_in(word: str | None) -> float | None:
    """The finite number that a word spells, or None."""
    try:
        return _number(float(word)) if word is not None else None
    except ValueError:
        return None


def lr_of(result: JobResult) -> float | None:
    """The `optimizer.lr` that was typed; None where none was."""
    return _number_in(result.overrides.get("optimizer.lr"))


def swept_keys(results: Sequence[JobResult]) -> list[str]:
    """The keys whose words differ between jobs, in the order in which they were typed."""
    keys = dict.fromkeys(key for result in results for key in result.overrides)
    return [key for key in keys if len({result.overrides.get(key) for result in results}) > 1]


def rows(
    results: Sequence[JobResult], *, swept: Collection[str] | None = None
) -> tuple[tuple[str, ...], list[tuple[Any, ...]]]:
    """The leaderboard as a header and rows of plain values, best validation accuracy first.

    Never sorted by test accuracy: whoever takes the first row has then not chosen by the test images.

    Args:
        results: From `read_jobs`.
        swept: Keys that get a column each; None takes those that differ.
    """
    keys = [key for key in (swept_keys(results) if swept is None else swept) if key != "seed"]
    header = (*keys, "seed", "status", *FIGURES, *ENDINGS, "run")
    ranked = sorted(results, key=lambda result: -merit(result))
    return header, [_row(result, keys) for result in ranked]


def merit(result: JobResult) -> float:
    """What jobs are ranked by: validation accuracy; jobs without one come after, those that are not done last."""
    if not result.is_done:
        return -2.0
    return -1.0 if result.val_accuracy is None else result.val_accuracy


def _row(result: JobResult, keys: Sequence[str]) -> tuple[Any, ...]:
    typed = [_typed(result.overrides.get(key, "")) for key in keys]
    figures = [_shown(getattr(result, name)) for name in FIGURES]
    endings = [getattr(result, name) or "" for name in ENDINGS]
    seed = "" if result.seed is None else result.seed
    return (*typed, seed, result.status, *figures, *endings, "" if result.run_dir is None else str(result.run_dir))


def _typed(word: str) -> Any:
    """A word as it was typed; a number with a sign stays a number and is not taken for a formula."""
    number = _number_in(word) if word[:1] in ("+", "-") else None
    return word if number is None else number


def _shown(value: float | None) -> Any:
    """Ten digits; a number rather than text, so that a minus does not make it look like a formula."""
    if value is None:
        return ""
    return value if isinstance(value, int) else float(f"{value:.10g}")


def write_csv(path: Path, results: Sequence[JobResult], *, swept: Collection[str] | None = None) -> None:
    """Replaces leaderboard.csv in one move; columns and order as in `rows`.

    Raises:
        OutputError: The disk is full or not writable.
    """
    header, body = rows(results, swept=swept)
    RunDir(path.parent).write_text(path, csv_text(header, body))
