"""One job of a multirun, in its own folder, in whichever process it is run.

Knows the task that settings name and how a command ends; not the other jobs.
"""

from __future__ import annotations

import contextlib
import importlib
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cvtrain.compose import compose
from cvtrain.config import Config, config_hash, masked
from cvtrain.console import Console, duration, percent, print_error
from cvtrain.ending import Ending, ending_of
from cvtrain.engine.distributed.rank import Rank, rank_from_environment
from cvtrain.errors import OutputError
from cvtrain.jobs import elsewhere
from cvtrain.jobs.grid import key_of
from cvtrain.jobs.ledger import Ledger
from cvtrain.jobs.preflight import trial_problems
from cvtrain.jobs.stream import JobOutcome, JobStream, Words
from cvtrain.jobs.sweep_report import replace_page_if_due
from cvtrain.outputs import RunDir
from cvtrain.place import Evaluated, Listener, Place, Stepped, Warned
from cvtrain.record import git_state, versions
from cvtrain.sweeps.job_folder import PLACED_TASKS, JobFolder, JobRecord
from cvtrain.sweeps.leaderboard import JobResult


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
        to_do: The folders of those jobs of a grid that have not come to an end yet; only there.
    """

    sweep_dir: Path
    flags: tuple[str, ...]
    swept: tuple[str, ...]
    drive: Callable[[JobStream], None] | None = None
    to_do: Callable[[Sequence[Words]], dict[Words, JobFolder]] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "drive": None, "to_do": None}

    def __call__(self, _config: Any) -> float:
        """Runs the job that Hydra has composed, in this process; returns what its task returns, or NaN.

        Raises:
            SystemExit: A signal came, and SLURM shall decide what becomes of the job.
        """
        from hydra.core.hydra_config import HydraConfig

        hydra = HydraConfig.get()
        words = tuple(word.lstrip("+") for word in hydra.overrides.task)
        is_drivers_own = self.to_do is not None
        if not is_drivers_own:
            elsewhere.settle(hydra.launcher.get("cpus_per_task"))
        outcomes: list[JobOutcome | None] = []
        ending = ending_of(lambda: outcomes.append(self._run(words)))
        if ending.lines:
            print_error(ending.lines)
        outcome = outcomes[0] if outcomes else None
        exit_code = outcome.exit_code if outcome else ending.exit_code
        if exit_code > 128:  # whoever listened before us shall hear the signal too
            signum = exit_code - 128
            signal.raise_signal(signum) if is_drivers_own else elsewhere.pass_on(signum)
        return float("nan") if outcome is None or outcome.value is None else outcome.value

    def _run(self, words: Words) -> JobOutcome | None:
        """Runs a job, says a line when it begins and one when it ends; all else goes to its log."""
        config, ledger = compose([*self.flags, *words]), Ledger(self.sweep_dir)
        assignment = Assignment(words, config, ledger.folder(config_hash(config)).path)
        rank = rank_from_environment()
        if rank is not None and not rank.is_first:
            _run_task(assignment, None)  # the first process has the folder, and speaks
            return None
        name = " ".join(f"{k}={v}" for k, v in overrides_of(words).items() if k in self.swept) or "the job"
        with _said_in_log(assignment) as say:
            say(f"{name}: begins")
            attempts = _attempts(assignment)
            outcome = run_job(assignment, listener=lambda message: _say_warning(message, name, say))
            if rank is not None and _attempts(assignment) == attempts:
                _send_home(rank, config)
            results = ledger.results()
            say(f"{name}: {outcome_in_words(outcome, results) if outcome else 'another process is at work on it'}")
        ledger.write_leaderboard(results, swept=self.swept)
        replace_page_if_due(ledger.path, num_jobs=len(results))
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


def outcome_in_words(outcome: JobOutcome, results: Sequence[JobResult]) -> str:
    """What became of a job, in a line.

    Args:
        outcome: Of the job.
        results: Of all jobs of its sweep.
    """
    if outcome.status == "done":
        result = next((each for each in results if each.run_dir == outcome.folder), None)
        return f"done; results {outcome.folder}" if result and not result.is_done else _figures(result)
    if outcome.status == "pruned":
        return "stopped, as others did better so far"
    log = f"; log {JobFolder(outcome.folder).log_path}" if outcome.folder else ""
    return f"{outcome.status}: {outcome.error}{log}"


def _figures(result: JobResult | None) -> str:
    if result is None:
        return "done"
    val = "" if result.val_accuracy is None else f"validation {percent(result.val_accuracy)}  "
    return f"{val}test {percent(result.test_accuracy)}  {duration(result.seconds or 0.0)}"


def _attempts(assignment: Assignment) -> int:
    record = JobFolder(assignment.folder).read()
    return record.attempts if record else 0


def _send_home(rank: Rank, config: Config) -> None:
    """Lets the other processes of a job know that there was nothing to do."""
    from cvtrain import build
    from cvtrain.together import joined

    with joined(rank, build.device(config, rank)):
        pass


@contextlib.contextmanager
def _said_in_log(assignment: Assignment) -> Iterator[Callable[[str], None]]:
    """Lets a job say all in its log; yields what says a line to the user nevertheless.

    A task whose results have no other place than the terminal says them there.
    """
    terminal = sys.stdout

    def say(line: str) -> None:
        with contextlib.redirect_stdout(terminal):
            Console().say(line)

    if assignment.config["task"] not in PLACED_TASKS:
        yield say
        return
    try:
        assignment.folder.mkdir(parents=True, exist_ok=True)
        log = open(JobFolder(assignment.folder).log_path, "a", encoding="utf-8", buffering=1)  # noqa: SIM115
    except OSError as error:
        raise OutputError(f"cannot write to {assignment.folder}: {error.strerror}") from None
    with log, contextlib.redirect_stdout(log), contextlib.redirect_stderr(log):
        yield say


def _say_warning(message: Stepped | Evaluated | Warned, name: str, say: Callable[[str], None]) -> None:
    if isinstance(message, Warned):
        say(f"{name}: warning: {message.line}")


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
