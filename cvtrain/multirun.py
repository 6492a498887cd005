"""Many jobs from one command line: every value is checked before the first starts, and all end in one table.

Knows Hydra's sweeper and launcher, not how a job is run.
"""

from __future__ import annotations

import math
import os
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cvtrain.arguments import Arguments, parse_arguments
from cvtrain.compose import arms_of_experiment, compose_parsed
from cvtrain.config import config_dir, masked
from cvtrain.console import Console, duration, percent
from cvtrain.errors import ConfigError, JobsFailedError
from cvtrain.help import GROUPS
from cvtrain.outputs import new_folder
from cvtrain.sweeps import leaderboard
from cvtrain.sweeps.leaderboard import Job, JobResult

if TYPE_CHECKING:
    from cvtrain.sweeps.verdict import ComparisonResult

RunJob = Callable[..., tuple[int, Any, Path | None]]
"""Runs a command line in a folder of a sweep: `run_job(arguments, sweep_dir=)` gives exit code, result and folder."""


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
    """The jobs of a multirun, run one after the other in this process.

    Each job says what it is; one that fails says why at once, the others go on, and the command ends with the exit
    code of the first that failed.

    Args:
        arguments: The command line.
        run_job: Runs one job.

    Raises:
        ConfigError: All that is wrong with any value.
    """

    def __init__(self, arguments: Sequence[str], *, run_job: RunJob) -> None:
        parsed = parse_arguments([word for word in arguments if word not in ("--multirun", "-m")])
        self.parsed = with_arms(parsed, arms_of_experiment(parsed))
        self.run_job = run_job
        self.config, self.num_jobs = check_sweep(self.parsed)
        self.swept = [_key(word) for word in self.parsed.settings if len(_alternatives(word)) > 1]
        self.num_done = 0
        self.failures: list[tuple[str, int]] = []
        self.jobs: list[Job] = []

    def run(self) -> None:
        """Runs all jobs.

        Raises:
            JobsFailedError: Some jobs failed.
            SystemExit: A signal ended a job.
        """
        self.sweep_dir = new_folder(Path(self.config["output_dir"]) / "sweeps", suffix=self.config["name"])
        self.leaderboard_path = self.sweep_dir / "leaderboard.csv"
        with tempfile.TemporaryDirectory(prefix="cvtrain-") as scratch:
            run_hydra(self._words_for_hydra(scratch), self._run_one)
        self._finish()

    def _words_for_hydra(self, scratch: str) -> list[str]:
        """The command line as Hydra takes it; its own notes, which may hold secrets, go to a folder that is removed."""
        own = [word for word in self.parsed.settings if _is_hydras(word)]
        words = [word.lstrip("+") for word in self.parsed.settings if not _is_hydras(word)]
        groups = [word if _key(word) in GROUPS else f"++{word}" for word in words]
        # The arms of an experiment are among the words already.
        return ["--multirun", *self._flags(), f"hydra.sweep.dir={scratch}", "hydra.sweeper.params=null", *own, *groups]

    def _flags(self) -> list[str]:
        folder = ["--config-dir", self.parsed.config_dir] if self.parsed.config_dir else []
        return [*folder, "--config-name", self.parsed.config_name]

    def _run_one(self, _config: Any) -> Any:
        """One job; returns what its task returns, or NaN."""
        from hydra.core.hydra_config import HydraConfig

        words = list(HydraConfig.get().overrides.task)
        self.num_done += 1
        # What all jobs have in common was typed a few lines above.
        name = " ".join(_without_secrets(word) for word in words if _key(word) in self.swept or not self.swept)
        of_all = f" of {self.num_jobs}" if self.num_jobs else ""
        Console().say(f"job {self.num_done}{of_all}: {name}")
        code, result, folder = self.run_job([*self._flags(), *words], sweep_dir=self.sweep_dir)
        if folder is None:
            Console().say("    the same settings as an earlier job: not run again")
            return float("nan")
        overrides = {_key(word): word.partition("=")[2] for word in words}
        self.jobs.append(Job(overrides, folder if folder.is_dir() else None, code))
        results = leaderboard.read_jobs(self.jobs)
        leaderboard.write_csv(self.leaderboard_path, results, swept=self.swept)
        if results[-1].is_done:
            Console().say(f"    {_outcome(results[-1])}")
        if code >= 128:
            sys.exit(code)  # a signal is meant for all jobs
        if code:
            self.failures.append((name, code))
        return float("nan") if code else result

    def _finish(self) -> None:
        """Says how many jobs are done, and what they show.

        Raises:
            JobsFailedError: Some are not done.
        """
        from cvtrain.sweeps.verdict import compare  # and NumPy, which a mistake need not wait for

        Console().say()
        Console().say(f"{self.num_done - len(self.failures)} of {self.num_done} jobs done")
        results = leaderboard.read_jobs(self.jobs)
        if len(results) > 1 and any(result.is_done for result in results):
            self._say_comparison(compare(results, swept=self.swept))
        else:
            Console().say(f"results  {self.leaderboard_path}")
        if self.failures:
            raise JobsFailedError(self.failures)

    def _say_comparison(self, comparison: ComparisonResult) -> None:
        console = Console()
        if comparison.lr_rows:
            console.table("validation accuracy by learning rate", comparison.lr_header, comparison.lr_rows)
        console.table("test accuracy", comparison.header, comparison.rows)
        if comparison.pair_rows:
            console.table("differences of the other pairs", comparison.pair_header, comparison.pair_rows)
        console.say()
        for sentence in comparison.sentences:
            console.say(sentence)
        console.say(f"results  {self.leaderboard_path}")
        if comparison.series:
            console.say(f"plot     {self._draw(comparison)}")

    def _draw(self, comparison: ComparisonResult) -> Path | str:
        """Draws the learning rates of all arms; a plot that cannot be drawn fails nothing."""
        from cvtrain.report import plots

        path = self.sweep_dir / "plots" / "lr_grid.png"
        try:
            plots.lr_grid(path, comparison.series, metric="validation accuracy", title="Each arm over its grid")
        except Exception as error:  # whatever a drawing library thinks of
            return f"not drawn: {error}"
        return path


def _outcome(result: JobResult) -> str:
    val = "" if result.val_accuracy is None else f"validation {percent(result.val_accuracy)}  "
    return f"{val}test {percent(result.test_accuracy)}  {duration(result.seconds or 0.0)}  {result.run_dir}"


def with_arms(parsed: Arguments, arms: Mapping[str, Any]) -> Arguments:
    """The command line with the values that an experiment sweeps over."""
    return replace(parsed, settings=(*parsed.settings, *(f"{key}={value}" for key, value in arms.items())))


def _key(word: str) -> str:
    return word.lstrip("+~").partition("=")[0]


def _without_secrets(word: str) -> str:
    key, _, value = word.lstrip("+").partition("=")
    return f"{key}={masked(value, key)}"


def _is_hydras(word: str) -> bool:
    return word.lstrip("+~").startswith(("hydra.", "hydra/"))


def check_sweep(parsed: Arguments) -> tuple[dict[str, Any], int | None]:
    """Composes every value of a multirun at least once, so that no mistake waits for the last job.

    Returns:
        The settings of the first job, and the number of jobs; None where a sweeper decides.

    Raises:
        ConfigError: The problems of all values at once.
    """
    settings = [word for word in parsed.settings if not _is_hydras(word)]
    choices = [_alternatives(word) for word in settings]
    problems = [
        f"{_key(word)}: one multirun has one {_key(word)}, for all its jobs"
        for word, words in zip(settings, choices, strict=True)
        if _key(word) in ("name", "output_dir") and len(words) > 1
    ]
    first: dict[str, Any] = {}
    for i in range(max((len(words) for words in choices), default=1)):
        words = tuple(words[min(i, len(words) - 1)] for words in choices)
        try:
            config = compose_parsed(replace(parsed, settings=words))
            first = first or config
        except ConfigError as error:
            problems += [problem for problem in error.lines() if problem not in problems]
    if problems:
        raise ConfigError(problems)
    return first, None if any("interval(" in word for word in settings) else math.prod(map(len, choices))


def _alternatives(word: str) -> list[str]:
    """The values of a sweep, each as a setting of its own; any other word as it is."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    try:
        override = OverridesParser.create().parse_override(word)
    except HydraException:
        return [word]
    if not override.is_sweep_override():
        return [word]
    key = override.get_key_element()
    if override.is_discrete_sweep():
        return [f"{key}={value}" for value in override.sweep_string_iterator()]
    interval = override.value()
    return [f"{key}={interval.start}", f"{key}={interval.end}"]
