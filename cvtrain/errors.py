"""The errors that cvtrain shows to people, each with the exit code that it ends a command with.

Knows nothing of consoles, configs or torch: raising is all that happens here.

    CvtrainError                 1   (never raised itself)
    ├── ConfigError              2   what was typed, or written in a YAML file
    ├── DataError                3   images, labels, archives, downloads
    ├── CheckpointError          4   a checkpoint that cannot be read, or does not fit
    ├── OutputError              4   a run folder that cannot be made or written
    ├── DivergedError            5   the loss or a weight is no longer finite
    ├── NotLearningError         5   nothing is learnt, and the run was told to stop then
    ├── MemoryLimitError         6   the device has no room for a step
    ├── JobsFailedError        1..6   some jobs of a multirun (1) or trainings of a sweep, each told of when it failed
    ├── ProcessFailedError     1..   another process of the same training has failed (its code), or is gone (1)
    └── InterruptedBySignal  128+N   stopped by signal N after saving a checkpoint
"""

from __future__ import annotations

from collections.abc import Sequence

_MAX_JOBS_SHOWN = 4
"""With a line before them and a hint after them that makes the six lines of an error."""


class CvtrainError(Exception):
    """A failure that the user can understand and mend.

    Args:
        message: What was found and where, in one sentence; may hold line breaks.
        hint: What to type or do instead.
    """

    exit_code = 1

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def lines(self) -> list[str]:
        """The lines to print, most important first."""
        return self.message.splitlines() + (self.hint.splitlines() if self.hint else [])


class ConfigError(CvtrainError):
    """One or more settings that cannot be used.

    Args:
        problems: One sentence a problem; a single string is one problem.
        hint: What to type instead, where one hint serves all problems.
    """

    exit_code = 2

    def __init__(self, problems: str | Sequence[str], *, hint: str | None = None) -> None:
        self.problems = [problems] if isinstance(problems, str) else list(problems)
        super().__init__("\n".join(self.problems), hint=hint)


class DataError(CvtrainError):
    """Data that is missing, damaged or of the wrong kind."""

    exit_code = 3


class CheckpointError(CvtrainError):
    """A checkpoint that is missing, damaged, hostile or made for something else."""

    exit_code = 4


class OutputError(CvtrainError):
    """A folder or file of results that cannot be made or written."""

    exit_code = 4


class DivergedError(CvtrainError):
    """A loss, gradient or weight that is not a finite number."""

    exit_code = 5


class NotLearningError(CvtrainError):
    """A run at chance, with the cause and what to type; only where `trainer.on_not_learning=stop`."""

    exit_code = 5


class MemoryLimitError(CvtrainError):
    """Out of memory, with the batch size to try."""

    exit_code = 6


class JobsFailedError(CvtrainError):
    """Some jobs of many are not done; each was told of when it failed.

    Args:
        jobs: A line for each.
        exit_code: Of the command.
        hint: What to type.
    """

    def __init__(self, jobs: Sequence[str], *, exit_code: int = 1, hint: str | None = None) -> None:
        shown = [*jobs[: _MAX_JOBS_SHOWN - 1], f"... and {len(jobs) - _MAX_JOBS_SHOWN + 1} more"]
        counted = [f"{len(jobs)} jobs are not done:"] if len(jobs) > 1 else []
        super().__init__("\n".join([*counted, *(jobs if len(jobs) <= _MAX_JOBS_SHOWN else shown)]), hint=hint)
        self.exit_code = exit_code


class ProcessFailedError(CvtrainError):
    """Another of the processes that train one model together has failed, or has ended without a word.

    Args:
        message: Its own words where it left any.
        exit_code: Its exit code.
        hint: What to type.
    """

    def __init__(self, message: str, *, exit_code: int = 1, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.exit_code = exit_code


class InterruptedBySignal(CvtrainError):  # noqa: N818 - an interruption is no error of anybody's
    """Stopped by a signal after the state was saved; `resume=` continues.

    Args:
        message: Where the run stopped.
        signum: The number of the signal.
        hint: The command that continues the run.
    """

    def __init__(self, message: str, *, signum: int, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.exit_code = 128 + signum
