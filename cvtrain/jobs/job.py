"""One job of a multirun, in its own folder, in whichever process it is run.

Knows the task that settings name and how a command ends; not the other jobs.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cvtrain.compose import compose
from cvtrain.config import Config, config_hash, masked
from cvtrain.console import print_error
from cvtrain.ending import Ending, ending_of
from cvtrain.errors import OutputError
from cvtrain.jobs.grid import key_of
from cvtrain.jobs.job_folder import JobFolder, JobRecord
from cvtrain.jobs.ledger import Ledger
from cvtrain.jobs.preflight import trial_problems
from cvtrain.jobs.stream import JobOutcome, JobStream, Words
from cvtrain.outputs import RunDir
from cvtrain.place import Listener, Place
from cvtrain.record import git_state, versions

PLACED_TASKS = ("train", "sample_size_sweep")
"""Tasks whose results stand in the folder of the job; others make folders of their own, and print what they find."""


@dataclass(frozen=True)
class Assignment:
    """All that a process needs to know to do a job.

    Args:
        words: As typed.
        config: The settings that they make.
        folder: Its home.
    """

    words: Words
    config: Config
    folder: Path


@dataclass(frozen=True)
class SweepJob:
    """What Hydra's launchers call for every job, wherever they call it.

    Args:
        sweep_dir: The folder of the sweep.
        flags: Flags of the command line that every job has.
        swept: The keys that differ between jobs.
        drive: Runs the jobs of a stream in processes of their own; only in the process of the command itself.
        to_do: Which of the jobs of a grid are not done; only there.
    """

    sweep_dir: Path
    flags: tuple[str, ...]
    swept: tuple[str, ...]
    drive: Callable[[JobStream], None] | None = None
    to_do: Callable[[Sequence[Words]], list[Words]] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "drive": None, "to_do": None}

    def __call__(self, _config: Any) -> float:
        """Runs the job that Hydra has composed, in this process; returns what its task returns, or NaN."""
        from hydra.core.hydra_config import HydraConfig

        words = tuple(word.lstrip("+") for word in HydraConfig.get().overrides.task)
        outcome: list[JobOutcome | None] = []
        ending = ending_of(lambda: outcome.append(self._run(words)))
        if ending.lines:
            print_error(ending.lines)
        if not outcome or outcome[0] is None:
            return float("nan")
        if outcome[0].status == "stopped":
            # Whoever listened before us shall hear the signal too: SLURM's launcher queues the job again.
            os.kill(os.getpid(), outcome[0].exit_code - 128)
        value = outcome[0].value
        return float("nan") if value is None else value

    def _run(self, words: Words) -> JobOutcome | None:
        config, ledger = compose([*self.flags, *words]), Ledger(self.sweep_dir)
        folder = ledger.folder(config_hash(config))
        outcome = run_job(Assignment(words, config, folder.path))
        ledger.write_leaderboard(ledger.results(), swept=self.swept)
        return outcome


@dataclass(frozen=True)
class Trial:
    """The settings of jobs that are to be tried without data and without numbers before the first of them starts."""

    configs: Sequence[Config]


def work(task: Assignment | Trial, *, post: Listener) -> JobOutcome | list[str] | None:
    """What a process of its own is begun with: a job, see `run_job`; or a trial, which returns what is wrong."""
    return trial_problems(task.configs) if isinstance(task, Trial) else run_job(task, listener=post)


def run_job(assignment: Assignment, *, listener: Listener | None = None) -> JobOutcome | None:
    """Does a job from the beginning, or from where an earlier process left it; one that is done is left alone.

    Returns:
        What became of it; None where another process is at work on it.

    Raises:
        OutputError: The folder cannot be made or written.
    """
    folder = JobFolder(assignment.folder)
    with folder.claimed() as is_ours:
        if not is_ours:
            return None
        record = folder.read() or JobRecord({})
        if record.status != "done":
            record = _done_before(record, assignment) or _begun(record, assignment)
            folder.write(record)
        if record.status == "running":
            record = _ended(record, assignment, listener)
            folder.write(record)
        return outcome_of(record, assignment.words, folder)


def outcome_of(record: JobRecord, words: Words, folder: JobFolder) -> JobOutcome:
    """What is written about a job that has ended, as its stream hears of it."""
    return JobOutcome(
        words=words,
        status=record.status,  # type: ignore[arg-type]
        exit_code=record.exit_code or 0,
        value=record.value,
        folder=folder.path,
        error=record.error,
    )


def overrides_of(words: Sequence[str]) -> dict[str, str]:
    """The word typed for each key, secrets masked."""
    pairs = [(key_of(word), word.partition("=")[2]) for word in words]
    return {key: str(masked(value, key)) for key, value in pairs}


def _done_before(record: JobRecord, assignment: Assignment) -> JobRecord | None:
    """The record of a run that was done, and whose process was killed before it could say so here."""
    card = RunDir(assignment.folder).read_card()
    if card.get("status") != "done" or card.get("config_hash") != config_hash(assignment.config):
        return None
    best = card.get("best") or {}
    return replace(record, status="done", exit_code=0, error=None, value=best.get("val_accuracy"))


def _begun(record: JobRecord, assignment: Assignment) -> JobRecord:
    return replace(
        record,
        overrides=overrides_of(assignment.words),
        task=assignment.config["task"],
        status="running",
        exit_code=None,
        error=None,
        attempts=record.attempts + 1,
        versions=versions(),
        git=git_state(Path.cwd()),
    )


def _ended(record: JobRecord, assignment: Assignment, listener: Listener | None) -> JobRecord:
    """Runs the task, and says how that ended."""
    values: list[Any] = []
    ending = _ending_of(lambda: values.append(_run_task(assignment, listener)))
    if ending.lines:
        print_error(ending.lines)
    status = "done" if ending.exit_code == 0 else "stopped" if ending.exit_code >= 128 else "failed"
    error = " ".join(ending.lines[0].split())[:300] if ending.lines else None
    return replace(record, status=status, exit_code=ending.exit_code, error=error, value=values[0] if values else None)


def _ending_of(task: Callable[[], None]) -> Ending:
    """As `ending_of`; code of the user's that ends its process ends the job alone."""
    try:
        return ending_of(task)
    except SystemExit as error:
        return Ending(1, (f"sys.exit({'' if error.code is None else error.code!r}) was called",))


def _run_task(assignment: Assignment, listener: Listener | None) -> Any:
    config = assignment.config
    task = importlib.import_module(f"cvtrain.tasks.{config['task']}")
    if config["task"] in PLACED_TASKS:
        return task.run(config, place=Place(assignment.folder, listener))
    return task.run(config)


def write_ending(folder: JobFolder, assignment: Assignment, *, status: str, exit_code: int, error: str | None) -> None:
    """Writes how a job ended whose process could not do so itself.

    Raises:
        OutputError: The disk is full or not writable.
    """
    with folder.claimed() as is_ours:
        if not is_ours:
            raise OutputError(f"{folder.path} is in use although its process has ended")
        record = folder.read() or JobRecord(overrides_of(assignment.words), attempts=1)
        folder.write(replace(record, status=status, exit_code=exit_code, error=error))
