"""The driver of a multirun: hands jobs to processes of their own, tells of them, keeps the leaderboard.

Knows folders of jobs, processes and lines on a terminal; not where the jobs come from, nor what they do. Drivers of the
same sweep know each other by the locks on the folders of jobs: each takes what is free, and waits for the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from cvtrain import isolation, signals
from cvtrain.config import Config, config_hash
from cvtrain.console import Console
from cvtrain.errors import ConfigError, InterruptedBySignal, OutputError
from cvtrain.job_lines import JobLines
from cvtrain.jobs.job import (
    Assignment,
    Trial,
    outcome_in_words,
    outcome_of,
    overrides_of,
    work,
    write_ending,
)
from cvtrain.jobs.ledger import Ledger
from cvtrain.jobs.stream import JobOutcome, JobStream, Words
from cvtrain.jobs.sweep_report import replace_page_if_due
from cvtrain.place import Evaluated, Stepped, Warned
from cvtrain.sweeps.job_folder import PLACED_TASKS, JobFolder, JobRecord
from cvtrain.sweeps.leaderboard import JobResult

PRELOADED = (
    *("cvtrain.tasks.train", "cvtrain.jobs.job", "cvtrain.report.plots"),
    *("torch._dynamo", "torch._decomp", "matplotlib.backends.backend_agg", "matplotlib.figure", "matplotlib.ticker"),
)
"""Imported once for all jobs, where the system can copy a process: two seconds less for each of them.

Every optimizer of torch imports `torch._dynamo`, compiled or not.
"""


_TRIAL = "trial"


class Driver:
    """Runs jobs in processes of their own.

    Args:
        ledger: The folder of the sweep.
        compose: Gives the settings of a job.
        name_of: What to call a job.
        settings: `sweep`: jobs, retry_failed, fail_fast, job_timeout.
        device: `trainer.device` of the jobs.
        jobs: Words of all jobs by the name of their folder, as far as they are known in advance.
        num_jobs: Of the whole sweep, done ones too; None where that is not known.
        swept: The keys that differ between jobs.
        to_try: Settings that are tried before the first job starts.
    """

    def __init__(
        self,
        ledger: Ledger,
        *,
        compose: Callable[[Words], Config],
        name_of: Callable[[Words], str],
        settings: Mapping[str, Any],
        device: str,
        jobs: Mapping[str, Words],
        num_jobs: int | None,
        swept: tuple[str, ...],
        to_try: Sequence[Config],
    ) -> None:
        self._ledger, self._compose, self._name_of = ledger, compose, name_of
        self._settings, self._swept = settings, swept
        self._jobs, self._num_jobs = dict(jobs), num_jobs
        self._slots = isolation.slots_of(settings["jobs"], num_jobs=len(jobs) or None, device=device)
        self._running: dict[str, Assignment] = {}
        self._elsewhere: list[Assignment] = []
        self._twins: list[Assignment] = []
        self._begun: set[str] = set()
        self._pruned: set[str] = set()
        self._warned: dict[str, set[str]] = {}  # names of jobs by what they warned of
        self._to_try, self._is_tried = to_try, not to_try
        self._is_closed = False
        self._cannot_write = False

    def run(self, stream: JobStream) -> None:
        """Runs the jobs of a stream until it is over.

        Raises:
            ConfigError: What the trial finds wrong.
            InterruptedBySignal: A signal came; what is done is done, what ran has saved its state.
            WorkerStartError: No process can be begun.
        """
        self._stream = stream
        minutes = self._settings["job_timeout"]
        with signals.StopRequest() as stop:
            stop.listening = True
            lines = JobLines(Console(), num_jobs=self._num_jobs, num_slots=len(self._slots))
            with lines as self._lines:
                results = isolation.run_isolated(
                    work,
                    self,
                    slots=self._slots,
                    preload=PRELOADED,
                    timeout_seconds=60 * minutes if minutes else None,
                    on_message=self._hear,
                    stop=stop,
                )
                for result in results:
                    self._take_in(result)
                self._say_common_warnings()
            if stop.signum is not None:
                raise InterruptedBySignal(f"stopped by {signals.described(stop.signum)}", signum=stop.signum)

    # -------------------------------------------------------------------------------------------- what to start

    def next_call(self) -> isolation.Call | None:
        """The next job that nobody does and nobody has done; `run_isolated` asks whenever it has room for one."""
        self._lines.refresh()
        if not self._is_tried:
            return self._trial()
        while not self._is_closed and (words := self._stream.next_job()) is not None:
            call = self._consider(words)
            if call is not None:
                return call
        return None if self._is_closed else self._take_over()

    def _trial(self) -> isolation.Call | None:
        """The trial, once; until it is over there is nothing else to start."""
        to_try, self._to_try = self._to_try, ()
        return isolation.Call(_TRIAL, Trial(to_try), self._ledger.path / f"{_TRIAL}.txt") if to_try else None

    def is_over(self) -> bool:
        """Whether nothing will have to be started any more."""
        if not self._is_tried:
            return False
        return self._is_closed or (self._stream.is_over() and not self._elsewhere and not self._twins)

    def _consider(self, words: Words) -> isolation.Call | None:
        words = tuple(word.lstrip("+") for word in words)
        try:
            config = self._compose(words)
        except ConfigError as error:
            outcome = JobOutcome(words, "failed", error.exit_code, error=" ".join(error.lines()))
            self._tell(outcome, seconds=None)
            return None
        name = config_hash(config)[:16]
        assignment = Assignment(words, config, self._ledger.folder(name).path)
        self._jobs.setdefault(name, words)
        if name in self._begun:
            self._twins.append(assignment)
            return None
        self._begun.add(name)
        return self._look_at(assignment)

    def _look_at(self, assignment: Assignment) -> isolation.Call | None:
        """A call for what is to be done; what is done is told of, what another driver does is kept in mind."""
        folder = JobFolder(assignment.folder)
        state, record = folder.state(), folder.read()
        if state == "running":
            self._elsewhere.append(assignment)
        elif record and (state in ("done", "pruned") or (state == "failed" and not self._settings["retry_failed"])):
            self._stream.ended(outcome_of(record, assignment.words, folder))
            self._lines.skips()
        else:
            return self._call(assignment)
        return None

    def _call(self, assignment: Assignment) -> isolation.Call:
        name = assignment.folder.name
        self._running[name] = assignment
        self._lines.begins(name, self._name_of(assignment.words))
        return isolation.Call(name, assignment, JobFolder(assignment.folder).log_path)

    def _take_over(self) -> isolation.Call | None:
        """A job that another driver began and did not end; those that it ended are told of."""
        self._tell_twins()
        for assignment in list(self._elsewhere):
            folder = JobFolder(assignment.folder)
            state, record = folder.state(), folder.read()
            if state == "running":
                continue
            self._elsewhere.remove(assignment)
            if record is None or state not in ("done", "pruned", "failed"):
                return self._call(assignment)
            self._tell(outcome_of(record, assignment.words, folder), seconds=None)
        return None

    def _tell_twins(self) -> None:
        """Tells of jobs that have the settings of another one, which has ended."""
        for assignment in list(self._twins):
            folder = JobFolder(assignment.folder)
            record = folder.read()
            if (
                record
                and assignment.folder.name not in self._running
                and folder.state() in ("done", "pruned", "failed")
            ):
                self._twins.remove(assignment)
                self._lines.say(f"{self._name_of(assignment.words)}: the same settings as another job: not run again")
                self._lines.skips()
                self._stream.ended(outcome_of(record, assignment.words, folder))

    # -------------------------------------------------------------------------------------------- what comes back

    def _hear(self, name: str, message: Stepped | Evaluated | Warned) -> bool:
        """Takes in what a running job says; returns whether it is to stop."""
        words = self._running[name].words
        if isinstance(message, Stepped):
            self._lines.moves(name, step=message.step, total_steps=message.total_steps)
        elif isinstance(message, Warned):
            self._warn(name, message.line)
        else:
            self._lines.evaluates(name, val_accuracy=message.val_accuracy)
            accuracy = message.val_accuracy
            if accuracy is not None and self._stream.evaluated(words, message.step, accuracy):
                self._pruned.add(name)
        return name in self._pruned

    def _warn(self, name: str, line: str) -> None:
        """Says a warning once; that other jobs have it too is said at the end."""
        if line not in self._warned:
            self._lines.say(f"{self._name_of(self._running[name].words)}: warning: {line}")
        self._warned.setdefault(line, set()).add(name)

    def _say_common_warnings(self) -> None:
        for line, names in self._warned.items():
            if len(names) > 1:
                self._lines.say(f"warning of {len(names)} jobs: {line}")

    def _take_in(self, result: isolation.CallResult) -> None:
        """Takes in how a process has ended."""
        if result.key == _TRIAL:
            self._take_in_trial(result)
            return
        assignment = self._running.pop(result.key)
        if result.error is None and result.value is None:
            self._elsewhere.append(assignment)
            name = self._name_of(assignment.words)
            self._lines.ends(result.key, f"{name}: another command is at work on it", seconds=None, is_failed=False)
            return
        try:
            outcome = self._settled(result, assignment)
        except OutputError as error:
            outcome = JobOutcome(assignment.words, "failed", error.exit_code, folder=None, error=error.message)
        if outcome.status == "done":
            self._print_output(assignment)
        self._tell(outcome, seconds=result.seconds)
        if outcome.status == "failed" and self._settings["fail_fast"] and not self._is_closed:
            self._is_closed = True
            self._lines.say("sweep.fail_fast: nothing more is started")

    def _take_in_trial(self, result: isolation.CallResult) -> None:
        """Lets the first job start, unless something is wrong.

        Raises:
            ConfigError: It is.
        """
        self._is_tried = True
        log_path = self._ledger.path / f"{_TRIAL}.txt"
        if result.is_asked_to_stop:
            return
        if result.error is not None:
            raise ConfigError(f"a model or a loss cannot be made on trial: {result.error}", hint=f"see {log_path}")
        log_path.unlink(missing_ok=True)
        if result.value:
            raise ConfigError(result.value)

    def _settled(self, result: isolation.CallResult, assignment: Assignment) -> JobOutcome:
        """What became of a job, written down where its own process could not know or could not write it."""
        folder, outcome = JobFolder(assignment.folder), result.value
        if outcome is None:
            status = "stopped" if result.is_asked_to_stop and not result.is_timed_out else "failed"
            write_ending(folder, assignment, status=status, exit_code=result.exit_code, error=result.error)
        elif outcome.status == "stopped" and result.key in self._pruned:
            folder.write(replace(_read(folder), status="pruned", error=None))
        elif outcome.status == "stopped" and result.is_timed_out:
            folder.write(replace(_read(folder), status="failed", error=result.error or "timed out"))
        return outcome_of(_read(folder), assignment.words, folder)

    def _print_output(self, assignment: Assignment) -> None:
        """Prints what a task has found that has no other place for it than the terminal."""
        if assignment.config["task"] not in PLACED_TASKS:
            try:
                text = JobFolder(assignment.folder).log_path.read_text(encoding="utf-8", errors="replace")
            except OSError:
                return
            for line in text.rstrip().splitlines():
                self._lines.say(line)

    def _tell(self, outcome: JobOutcome, *, seconds: float | None) -> None:
        """Tells the leaderboard, the terminal and the stream what became of a job."""
        results = self._ledger.results({name: overrides_of(words) for name, words in self._jobs.items()})
        self._write_leaderboard(results)
        key = outcome.folder.name if outcome.folder else " ".join(outcome.words)
        line = f"{self._name_of(outcome.words)}: {outcome_in_words(outcome, results)}"
        self._lines.ends(key, line, seconds=seconds, is_failed=outcome.status == "failed")
        self._stream.ended(outcome)

    def _write_leaderboard(self, results: Sequence[JobResult]) -> None:
        """Replaces the table, and the page where that is due; says once that one of them cannot be written."""
        try:
            self._ledger.write_leaderboard(results, swept=self._swept or None)
            trouble = replace_page_if_due(self._ledger.path, num_jobs=len(results))
        except OutputError as error:
            trouble = error.message
        if trouble and not self._cannot_write:
            self._lines.say(f"warning: {trouble}")
        self._cannot_write |= trouble is not None


def _read(folder: JobFolder) -> JobRecord:
    record = folder.read()
    if record is None:
        raise OutputError(f"{folder.path / 'job.json'} is gone or damaged")
    return record
