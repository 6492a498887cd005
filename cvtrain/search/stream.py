"""The jobs of a search, one at a time: proposed, heard of while they run, stopped early or told of at their end.

Knows trials and the words of jobs; neither Hydra nor processes.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cvtrain.config import masked
from cvtrain.console import Console
from cvtrain.errors import ConfigError, JobsFailedError
from cvtrain.jobs.stream import JobOutcome, Words
from cvtrain.outputs import RunDir
from cvtrain.plain_text import finite
from cvtrain.search import sentences, trials
from cvtrain.search.options import SearchOptions
from cvtrain.search.space import Key, Space
from cvtrain.search.study import KeptStudy

if TYPE_CHECKING:
    from optuna.trial import Trial

MAX_FAILURES_AT_START = 5
_MAX_REPEATS = 10
"""So many proposals in a row that were made before: then one is drawn that was not."""


@dataclass
class _Running:
    trial: Trial
    steps: list[int]
    twins: list[Trial] = field(default_factory=list)  # trials with the same words, which hear its result


class SearchStream:
    """A `cvtrain.jobs.stream.JobStream` whose jobs are the trials of a search.

    A search is kept in its folder, and goes on there when the same is typed again. Trials whose job failed are begun
    again then, but for those that diverged. The same words are never run twice.

    Args:
        space: What is searched.
        options: How.
        sweep_dir: The folder of the sweep, which exists.
        flags: Flags of the command line that every job has.
        retry_failed: Begin failed trials again.
        console: Where it is told of.

    Raises:
        ConfigError: Optuna is not installed, the options are wrong, another process searches here, or earlier trials
            had other settings.
        CheckpointError: What is kept of an earlier search is damaged.
        OutputError: The folder cannot be written.
    """

    def __init__(
        self,
        space: Space,
        options: SearchOptions,
        sweep_dir: Path,
        *,
        flags: Sequence[str] = (),
        retry_failed: bool = True,
        console: Console | None = None,
    ) -> None:
        _check(space, options)
        self._space, self._options, self._sweep_dir, self._flags = space, options, sweep_dir, tuple(flags)
        self._console = console or Console()
        self._study = KeptStudy(sweep_dir / "search.journal", space=space, options=options, retry_failed=retry_failed)
        self._finished = self._study.finished()
        self._running: dict[Key, _Running] = {}
        self._failures: list[str] = []  # in a row, since the start of this process
        self._has_result = any(each.status in ("done", "pruned") for each in self._study.results())
        self._is_exhausted = False
        for line in sentences.introduction(space, options, self._study.results(), study=self._study):
            self._console.say(line)

    # -------------------------------------------------------------------------------------------- the stream

    def next_job(self) -> Words | None:
        """The next trial that is none of the earlier ones."""
        num_repeats = 0
        while not self.is_over():
            is_drawn = self._options.sampler == "grid" and not self._study.is_waiting()
            if is_drawn or num_repeats > _MAX_REPEATS:
                self._is_exhausted = not self._study.write_down_untried({**self._finished, **self._running})
                if self._is_exhausted:
                    break
            trial = self._study.ask()
            key = self._space.key(trial.params)
            if key in self._running:
                self._running[key].twins.append(trial)
            elif key in self._finished:
                self._study.tell_repeated(trial, self._finished[key])
            else:
                self._running[key] = _Running(trial, list(trial.user_attrs.get(trials.STEPS, [])))
                return self._space.words(trial.params)
            num_repeats += 1
        return None

    def is_over(self) -> bool:
        """Whether there are as many trials as were asked for, or no sense in more."""
        if self._is_exhausted or self.is_hopeless():
            return True
        return self._study.num_counted() >= self._options.num_trials and not self._study.is_waiting()

    def evaluated(self, words: Words, step: int, val_accuracy: float) -> bool:
        """Hears of an evaluation; returns whether the job is to be stopped for good."""
        running = self._running.get(self._space.key_of(words))
        # A job that goes on from its checkpoint may evaluate a step once more.
        if running is None or not math.isfinite(val_accuracy) or step in running.steps:
            return False
        running.steps.append(step)
        return self._study.report(running.trial, running.steps, val_accuracy)

    def ended(self, outcome: JobOutcome) -> None:
        """Writes down what became of a job; one that a signal stopped goes on with the next command."""
        key = self._space.key_of(outcome.words)
        running = self._running.pop(key, None)
        if running is None or outcome.status == "stopped":
            return
        state, error = _verdict(outcome)
        value = outcome.value if state == "COMPLETE" else None
        noted = {
            trials.FOLDER: self._from_sweep(outcome.folder),
            trials.ERROR: None if error is None else self._without_secrets(error),
            trials.EXIT_CODE: outcome.exit_code if state == "FAIL" else None,
        }
        self._study.tell(running.trial, state, value, **noted)
        self._finished[key] = running.trial.number
        for twin in running.twins:
            self._study.tell_repeated(twin, running.trial.number)
        if state == "FAIL":
            self._failures.append(noted[trials.ERROR] or "no reason given")
        self._has_result |= state != "FAIL"
        self.write()

    # -------------------------------------------------------------------------------------------- its end

    def is_hopeless(self) -> bool:
        """Whether every job has failed so far, and there were enough to think that all will."""
        return not self._has_result and len(self._failures) >= MAX_FAILURES_AT_START

    def close(self) -> None:
        """Says what was found, and lets other processes search here.

        Raises:
            JobsFailedError: No trial is done.
            OutputError: `search.json` cannot be written.
        """
        self.write()
        results = self._study.results()
        importances = self._study.importances() if sentences.are_enough(results, self._space) else {}
        if self.is_hopeless():
            self._console.warn(sentences.hopeless(self._failures))
        for line in sentences.conclusion(
            self._space, self._options, results, importances, sweep_dir=self._sweep_dir, flags=self._flags
        ):
            self._console.say(line)
        self._console.say(f"trials   {self._sweep_dir / 'search.json'}")
        self._study.close()
        if trials.best_of(results) is None:
            raise JobsFailedError([f"{' '.join(each.key)}: {each.error or each.status}" for each in results])

    def abandon(self) -> None:
        """Lets other processes search here, after a signal or an error."""
        self._study.close()

    def write(self) -> None:
        """Replaces `search.json`.

        Raises:
            OutputError: The disk is full or not writable.
        """
        results = self._study.results()
        best = trials.best_of(results)
        told = {
            "searched": {each.key: each.text for each in self._space.parameters},
            "fixed": self._space.fixed,
            "options": {k: v for k, v in asdict(self._options).items() if k != "batch_size"},
            "best": None if best is None else best.number,
            "trials": [_told(result) for result in results],
        }
        text = json.dumps(finite(told), indent=2, ensure_ascii=False) + "\n"
        RunDir(self._sweep_dir).write_text(self._sweep_dir / "search.json", text)

    def _from_sweep(self, folder: Path | None) -> str | None:
        if folder is None:
            return None
        return str(folder.relative_to(self._sweep_dir) if folder.is_relative_to(self._sweep_dir) else folder)

    def _without_secrets(self, text: str) -> str:
        for word in self._space.typed:
            if isinstance(word, str):
                key, _, value = word.lstrip("+").partition("=")
                text = text.replace(value, "***") if masked(value, key) == "***" else text
        return text


def _check(space: Space, options: SearchOptions) -> None:
    problems = options.problems()
    if options.sampler == "grid" and space.num_combinations is None:
        endless = ", ".join(each.key for each in space.parameters if each.num_values is None)
        problems.append(
            f"hydra.sweeper.sampler=grid: {endless} has endlessly many values: type some of them, or a range"
        )
    if problems:
        raise ConfigError(problems)


def check_installed() -> None:
    """Refuses a search that could not be made.

    Raises:
        ConfigError: Optuna is not installed.
    """
    try:
        import optuna  # noqa: F401
    except ImportError:
        raise ConfigError("hydra/sweeper=search needs Optuna: pip install 'cvtrain[hpo]'") from None


def _verdict(outcome: JobOutcome) -> tuple[str, str | None]:
    """Optuna's word for the end of a job, and why it is not done."""
    if outcome.status == "pruned":
        return "PRUNED", None
    if outcome.status == "failed":
        return "FAIL", outcome.error or f"exit code {outcome.exit_code}"
    if outcome.value is None or not math.isfinite(outcome.value):
        return "FAIL", "it has no validation accuracy, which a search goes by: data.val_fraction=0.1"
    return "COMPLETE", None


def _told(result: trials.TrialResult) -> dict[str, Any]:
    told = asdict(result)
    evaluations = told.pop("evaluations")
    words = told.pop("key")
    pruned_at = evaluations[-1][0] if result.status == "pruned" and evaluations else None
    return {**told, "words": list(words), "pruned_at_step": pruned_at, "evaluations": [list(e) for e in evaluations]}
