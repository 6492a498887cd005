"""Many jobs from one command line: all are checked before the first starts, and all end in one table.

Knows Hydra's sweepers and launchers, and what is said before and after; not how a job is run.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from cvtrain.arguments import Arguments, parse_arguments
from cvtrain.compose import JobComposer, arms_of_experiment, launcher_and_sweeper
from cvtrain.config import Config, config_dir, config_hash, masked
from cvtrain.console import Console
from cvtrain.errors import ConfigError, CvtrainError, InterruptedBySignal, JobsFailedError, OutputError
from cvtrain.help import GROUPS
from cvtrain.jobs.elsewhere import launcher_folder, trouble_in_words
from cvtrain.jobs.grid import alternatives, is_hydras, key_of
from cvtrain.jobs.job import SweepJob, overrides_of
from cvtrain.jobs.ledger import Command, Ledger
from cvtrain.jobs.preflight import (
    compose_grid,
    distinct_configs,
    hydra_problems,
    launcher_problems,
    trial_problems,
    word_problems,
)
from cvtrain.jobs.stream import JobStream, Words
from cvtrain.jobs.sweep_report import replace_page
from cvtrain.schema import oddities
from cvtrain.signals import StopRequest
from cvtrain.sweep_again import typed_before
from cvtrain.sweeps.command import command_again
from cvtrain.sweeps.job_folder import JobFolder


def run_hydra(arguments: Sequence[str], job: Callable[..., Any]) -> None:
    """Hands a command line to Hydra: completion, info, multirun.

    Raises:
        ConfigError: Hydra's own settings are wrong.
        SystemExit: A signal ended a job.
    """
    import hydra
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    os.environ["HYDRA_FULL_ERROR"] = "1"  # errors come to us instead of being printed with a traceback
    sys.argv = [sys.argv[0], *arguments]
    try:
        hydra.main(version_base="1.3", config_path=str(config_dir()), config_name="config")(job)()
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(" ".join(str(error).partition("Config search path")[0].split())[:300]) from None


class Multirun:
    """The jobs of one command line, each in a process and a folder of its own.

    Args:
        arguments: The command line.
        sweep_dir: The folder of a sweep that is continued; None where the settings name it.

    Raises:
        ConfigError: All that is wrong with any job.
    """

    def __init__(self, arguments: Sequence[str], *, sweep_dir: Path | None = None) -> None:
        typed = parse_arguments([word for word in arguments if word not in ("--multirun", "-m")])
        self.typed, self.sweep_dir = typed, sweep_dir
        self.parsed = with_arms(typed, arms_of_experiment(typed))
        self.settings = [word.lstrip("+") for word in self.parsed.settings if not is_hydras(word)]
        self.swept = tuple(key_of(word) for word in self.settings if len(alternatives(word)) != 1)
        self.composer = JobComposer(replace(self.parsed, settings=()))
        launcher, sweeper = launcher_and_sweeper(typed)
        self.is_grid = _chosen(self.parsed, "hydra/sweeper", sweeper) in ("grid", "basic")
        self.launcher = _chosen(self.parsed, "hydra/launcher", launcher)
        self.configs = self._preflight()
        self.config = next(iter(self.configs.values()))
        self.numbers = {words: i for i, words in enumerate(self.configs, start=1)}

    def _preflight(self) -> dict[Words, Config]:
        """The settings of all jobs; where a search decides, of jobs that have every value that it may start from."""
        own = [word for word in self.parsed.settings if is_hydras(word)]
        experiment = [word for word in self.settings if key_of(word) == "experiment"][-1:]
        problems = hydra_problems(self.composer, own, experiment=experiment, launcher=self.launcher)
        if misread := word_problems(self.settings, is_grid=self.is_grid):
            raise ConfigError([*misread, *problems])
        try:
            configs = compose_grid(self.composer, self.settings, is_grid=self.is_grid)
        except ConfigError as error:
            raise ConfigError([*error.problems, *problems], hint=error.hint) from None
        problems += launcher_problems(configs.values(), self.launcher)
        if self.launcher != "isolated" and not problems:  # else in the first of the processes that are begun anyway
            problems += trial_problems(distinct_configs(configs.values()))
        if problems:
            raise ConfigError(problems)
        return configs

    def run(self) -> None:
        """Runs all jobs.

        Raises:
            JobsFailedError: Some jobs failed.
            InterruptedBySignal: A signal came; what is done is done.
            OutputError: The folder of the sweep cannot be written.
        """
        parent = Path(self.config["output_dir"]) / "sweeps"
        name, suffix = self.config["sweep"]["name"], self.config["name"]
        self.ledger = Ledger(self.sweep_dir) if self.sweep_dir else Ledger.open(parent, name=name, suffix=suffix)
        self.ledger.write_command(self._command())
        self.folders = {config_hash(config)[:16]: words for words, config in self.configs.items()}
        self._introduce()
        trouble = None
        try:
            with self._hydras_folder() as folder:
                run_hydra(self._words_for_hydra(folder), self._job())
        except InterruptedBySignal as interruption:
            replace_page(self.ledger.path)
            raise self._interrupted(interruption) from None
        except ConfigError as error:
            self.ledger.take_back_command()
            if not error.hint:  # which would name a file in the folder
                self.ledger.discard_if_empty()
            raise
        except CvtrainError:
            replace_page(self.ledger.path)
            raise
        except Exception as error:  # of a launcher of somebody else's
            if self.launcher == "isolated":
                raise
            trouble = f"hydra/launcher={self.launcher}: {trouble_in_words(error)}"
        self._finish(trouble)

    def _command(self) -> Command:
        settings = [f"{key_of(word)}={masked(word.partition('=')[2], key_of(word))}" for word in self.typed.settings]
        plain = [f"{key_of(word)}={word.partition('=')[2]}" for word in self.typed.settings]
        return Command(settings, self.typed.config_dir, self.typed.config_name, has_secrets=settings != plain)

    def _job(self) -> SweepJob:
        is_here = self.launcher == "isolated"
        return SweepJob(
            self.ledger.path,
            tuple(self._flags()),
            self.swept,
            drive=self._drive if is_here else None,
            to_do=self._to_do,
        )

    # -------------------------------------------------------------------------------------------- jobs

    def _drive(self, stream: JobStream) -> None:
        """Runs the jobs of a stream in processes of their own."""
        from cvtrain.jobs.driver import Driver

        Driver(
            self.ledger,
            compose=lambda words: self.configs.get(words) or self.composer.compose(words),
            name_of=self._name_of,
            settings=self.config["sweep"],
            device=self.config["trainer"]["device"],
            jobs=self.folders if self.is_grid else {},
            num_jobs=len(self.configs) if self.is_grid else None,
            swept=self.swept,
            to_try=distinct_configs(self.configs[words] for words in self._to_do(list(self.configs))),
        ).run(stream)

    def _to_do(self, jobs: Sequence[Words]) -> dict[Words, JobFolder]:
        """The folders of those jobs of a grid that have not come to an end yet."""
        plain = [tuple(word.lstrip("+") for word in words) for words in jobs]
        folders = [self.ledger.folder(config_hash(self.configs[words])) for words in plain]
        ended = ("done", "pruned") if self.config["sweep"]["retry_failed"] else ("done", "pruned", "failed")
        return {words: folder for words, folder in zip(jobs, folders, strict=True) if folder.state() not in ended}

    def _name_of(self, words: Words) -> str:
        """What to call a job: its number, and what it does not share with the others."""
        own = [word for word in words if key_of(word) in self.swept]
        number = self.numbers.get(words) if self.is_grid else None
        name = [f"job {number} of {len(self.configs)}"] if number else []
        shown = " ".join(f"{key}={value}" for key, value in overrides_of(own if name or own else words).items())
        return ": ".join([*name, shown] if shown else name)

    # -------------------------------------------------------------------------------------------- Hydra

    def _words_for_hydra(self, folder: str) -> list[str]:
        """The command line as Hydra takes it."""
        own = [word for word in self.parsed.settings if is_hydras(word)]
        groups = [word if key_of(word) in GROUPS else f"++{word}" for word in self.settings]
        # The arms of an experiment are among the words already.
        where = "hydra.sweep.dir='" + folder.replace("'", r"\'") + "'"
        return ["--multirun", *self._flags(), where, "hydra.sweeper.params=null", *own, *groups]

    @contextlib.contextmanager
    def _hydras_folder(self) -> Iterator[str]:
        """Where Hydra and its launchers write; our own job needs nothing of it, and it may hold secrets."""
        if self.launcher == "isolated":
            yield str(self.ledger.path / "hydra")  # which is never made
            return
        with StopRequest(), launcher_folder(self.ledger.path, launcher=self.launcher) as folder:
            yield str(folder)

    def _flags(self) -> list[str]:
        folder = ["--config-dir", self.parsed.config_dir] if self.parsed.config_dir else []
        return [*folder, "--config-name", self.parsed.config_name]

    # -------------------------------------------------------------------------------------------- words

    def _introduce(self) -> None:
        """Says what is to be done, and what is there already."""
        console = Console()
        states = [self.ledger.folder(name).state() for name in self.folders]
        if self.is_grid:
            jobs = "1 job" if len(states) == 1 else f"{len(states)} jobs"
            done = f", {states.count('done')} of them done already" if "done" in states else ""
            is_left = "failed" in states and not self.config["sweep"]["retry_failed"]
            left = f", {states.count('failed')} failed before and are left so" if is_left else ""
            console.say(f"{jobs}{done}{left}; writes to {self.ledger.path}")
        else:
            console.say(f"writes to {self.ledger.path}")
        for line in dict.fromkeys(line for config in self.configs.values() for line in oddities(config)):
            console.warn(line)
        for difference in self.ledger.differences(self.folders if self.is_grid else None):
            console.warn(difference)

    @property
    def _again(self) -> str:
        return command_again(self.ledger.path, self.parsed.settings)

    def _interrupted(self, interruption: InterruptedBySignal) -> InterruptedBySignal:
        states = [self.ledger.folder(name).state() for name in self.folders]
        done = f"; {states.count('done')} of {len(states)} jobs are done" if self.is_grid else ""
        return InterruptedBySignal(
            f"{interruption.message}{done}",
            signum=interruption.exit_code - 128,
            hint=f"continue with: {self._again}",
        )

    def _finish(self, trouble: str | None) -> None:
        """Says how many jobs are done, and what they show.

        Raises:
            JobsFailedError: Some are not done.
            OutputError: The leaderboard cannot be written.
        """
        from cvtrain.jobs.summary import say_summary  # and NumPy, which a mistake need not wait for

        waiting = {name: overrides_of(words) for name, words in self.folders.items()} if self.is_grid else {}
        results = self.ledger.results(waiting)
        cannot_write = None
        try:
            self.ledger.write_leaderboard(results, swept=self.swept or None)
        except OutputError as error:  # the figures are still to be seen
            cannot_write = OutputError(error.message, hint=f"once it can: {self._again}")
        say_summary(results, self.ledger, swept=self.swept or None, compares=self.is_grid)
        if trouble is not None:
            raise JobsFailedError([trouble], hint=f"continue with: {self._again}")
        self._raise_failures()
        if cannot_write is not None:
            raise cannot_write

    def _raise_failures(self) -> None:
        failures = []
        for name, words in self.folders.items() if self.is_grid else ():
            folder = self.ledger.folder(name)
            record, state = folder.read(), folder.state()
            if state not in ("done", "pruned"):
                error = record.error if record and record.error else state
                failures.append(f"{self._name_of(words)}: {error}")
        if failures:
            again = "" if self.config["sweep"]["retry_failed"] else " sweep.retry_failed=true"
            raise JobsFailedError(failures, hint=f"once more: {self._again}{again}")


def with_arms(parsed: Arguments, arms: Mapping[str, Any]) -> Arguments:
    """The command line with the values that an experiment sweeps over."""
    return replace(parsed, settings=(*parsed.settings, *(f"{key}={value}" for key, value in arms.items())))


def resumed_sweep(arguments: Sequence[str]) -> Multirun | None:
    """The sweep whose folder `resume=` names, as it was typed; None where it names none.

    Raises:
        CheckpointError: What was typed cannot be read.
        ConfigError: It held secrets or code, which are not read from a file, or is to be changed.
    """
    found = typed_before(arguments)
    return Multirun(found.words, sweep_dir=found.folder) if found else None


def _chosen(parsed: Arguments, group: str, default: str) -> str:
    words = [word for word in parsed.settings if key_of(word) == group]
    return words[-1].partition("=")[2] if words else default
