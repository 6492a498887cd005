"""The command `cvtrain`: compose the settings, run the chosen task, turn errors into words and exit codes.

Imports neither torch nor the tasks before it knows that they are needed.
"""

from __future__ import annotations

import contextlib
import importlib
import math
import os
import sys
import tempfile
import traceback
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from cvtrain.arguments import Arguments, parse_arguments
from cvtrain.config import config_dir, masked
from cvtrain.engine import runtime
from cvtrain.errors import ConfigError, CvtrainError, JobsFailedError
from cvtrain.help import GROUPS, help_text
from cvtrain.record import memory_limit_of
from cvtrain.signals import StopRequest

_HYDRA_FLAGS = ("--multirun", "-m", "--info", "-i", "--shell-completion", "-sc", "--hydra-help")
"""Flags of Hydra's own that need its machinery around the whole program."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs a command line and exits with its code.

    Args:
        arguments: Without the program's name; None takes the process's own.
    """
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    runtime.prepare()
    code = exit_code_of(lambda: dispatch(arguments))
    with contextlib.suppress(BrokenPipeError):
        sys.stdout.flush()
    sys.exit(code)


def dispatch(arguments: list[str]) -> None:
    """Does what the flags ask for; without flags, runs the task."""
    if "--help" in arguments or "-h" in arguments:
        print(help_text(config_dir()), end="")
    elif "--version" in arguments:
        from cvtrain.record import versions

        print("  ".join(f"{name} {version}" for name, version in versions().items()))
    elif any(word.partition("=")[0] in ("--cfg", "-c") for word in arguments):
        print_config(arguments)
    elif any(flag in arguments for flag in _HYDRA_FLAGS):
        run_hydra(arguments)
    else:
        run(arguments)


def run(arguments: Sequence[str]) -> Any:
    """Composes settings and runs their task; returns what the task returns."""
    from cvtrain.compose import compose

    config = compose(arguments)
    return importlib.import_module(f"cvtrain.tasks.{config['task']}").run(config)


def print_config(arguments: list[str]) -> None:
    """Prints the settings that a command would use, as a root config that composes to the same settings again.

    Raises:
        ConfigError: The settings are wrong, or something other than the job's config is asked for.
    """
    from cvtrain.compose import compose
    from cvtrain.config import save_text

    at = next(i for i, word in enumerate(arguments) if word.partition("=")[0] in ("--cfg", "-c"))
    wanted = arguments[at].partition("=")[2] or "".join(arguments[at + 1 : at + 2])
    if wanted != "job":
        raise ConfigError(f"--cfg {wanted}: type --cfg job")
    rest = arguments[:at] + arguments[at + (1 if "=" in arguments[at] else 2) :]
    config = compose([word for word in rest if word != "--resolve"])
    choices = {group: option for group, option in config.pop("choices").items() if group != "experiment"}
    del config["plugins"]  # code is named on the command line, never in a file
    print("# cvtrain --config-dir FOLDER --config-name NAME uses this as FOLDER/NAME.yaml")
    print("defaults:\n- config")
    print("".join(f"- override /{group}: {option}\n" for group, option in choices.items() if option), end="")
    print("- _self_\n" + save_text(config), end="")


# ------------------------------------------------------------------------------------------------- multirun


def run_hydra(arguments: list[str]) -> None:
    """Hands the command line to Hydra: completion, info, multirun.

    Every value of a multirun is checked before the first job starts. Each job says what it is; one that fails says why
    at once, the others go on, and the command ends with the exit code of the first that failed.

    Raises:
        ConfigError: A value of the sweep is wrong, or Hydra's own settings are.
        JobsFailedError: Some jobs failed.
        SystemExit: A signal ended a job.
    """
    import hydra
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    os.environ["HYDRA_FULL_ERROR"] = "1"  # errors come to us instead of being printed with a traceback
    jobs = _Jobs(arguments) if {"--multirun", "-m"} & set(arguments) else None
    with tempfile.TemporaryDirectory(prefix="cvtrain-") as scratch:
        words = jobs.words_for_hydra(scratch) if jobs else arguments
        sys.argv = [sys.argv[0], *words]
        job = jobs.run if jobs else run
        try:
            hydra.main(version_base="1.3", config_path=str(config_dir()), config_name="config")(job)()
        except (HydraException, OmegaConfBaseException) as error:
            raise ConfigError(" ".join(str(error).partition("Config search path")[0].split())[:300]) from None
    if jobs:
        jobs.finish()


class _Jobs:
    """The jobs of a multirun, run one after the other in this process.

    Args:
        arguments: The command line.

    Raises:
        ConfigError: All that is wrong with any value.
    """

    def __init__(self, arguments: list[str]) -> None:
        self.parsed = parse_arguments([word for word in arguments if word not in ("--multirun", "-m")])
        self.num_jobs = check_sweep(self.parsed)
        self.num_done = 0
        self.failures: list[tuple[str, int]] = []

    def words_for_hydra(self, scratch: str) -> list[str]:
        """The command line as Hydra takes it; its own notes, which may hold secrets, go to a folder that is removed."""
        own = [word for word in self.parsed.settings if _is_hydras(word)]
        words = [word.lstrip("+") for word in self.parsed.settings if not _is_hydras(word)]
        groups = [word if word.partition("=")[0] in GROUPS else f"++{word}" for word in words]
        return ["--multirun", *self._flags(), f"hydra.sweep.dir={scratch}", *own, *groups]

    def _flags(self) -> list[str]:
        folder = ["--config-dir", self.parsed.config_dir] if self.parsed.config_dir else []
        return [*folder, "--config-name", self.parsed.config_name]

    def run(self, _config: Any) -> Any:
        """One job; returns what its task returns, or NaN."""
        from hydra.core.hydra_config import HydraConfig

        from cvtrain.console import Console

        words = list(HydraConfig.get().overrides.task)
        self.num_done += 1
        name = " ".join(_without_secrets(word) for word in words)
        of_all = f" of {self.num_jobs}" if self.num_jobs else ""
        Console().say()
        Console().say(f"job {self.num_done}{of_all}: {name}")
        results: list[Any] = []
        code = exit_code_of(lambda: results.append(run([*self._flags(), *words])))
        if code >= 128:
            sys.exit(code)  # a signal is meant for all jobs
        if code:
            self.failures.append((name, code))
        return results[0] if results else float("nan")

    def finish(self) -> None:
        """Says how many jobs are done.

        Raises:
            JobsFailedError: Some are not.
        """
        from cvtrain.console import Console

        Console().say()
        Console().say(f"{self.num_done - len(self.failures)} of {self.num_done} jobs done")
        if self.failures:
            raise JobsFailedError(self.failures)


def _without_secrets(word: str) -> str:
    key, _, value = word.lstrip("+").partition("=")
    return f"{key}={masked(value, key)}"


def _is_hydras(word: str) -> bool:
    return word.lstrip("+~").startswith(("hydra.", "hydra/"))


def check_sweep(parsed: Arguments) -> int | None:
    """Composes every value of a multirun at least once, so that no mistake waits for the last job.

    Returns:
        The number of jobs; None where a sweeper decides.

    Raises:
        ConfigError: The problems of all values at once.
    """
    from cvtrain.compose import compose_parsed

    settings = [word for word in parsed.settings if not _is_hydras(word)]
    choices = [_alternatives(word) for word in settings]
    problems: list[str] = []
    for i in range(max((len(words) for words in choices), default=1)):
        words = tuple(words[min(i, len(words) - 1)] for words in choices)
        try:
            compose_parsed(replace(parsed, settings=words))
        except ConfigError as error:
            problems += [problem for problem in error.lines() if problem not in problems]
    if problems:
        raise ConfigError(problems)
    return None if any("interval(" in word for word in settings) else math.prod(map(len, choices))


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


# --------------------------------------------------------------------------------------------------- errors


def exit_code_of(command: Callable[[], Any]) -> int:
    """Runs a command and turns whatever it raises into an exit code and, at most, six lines."""
    try:
        with StopRequest():
            command()
    except CvtrainError as error:
        _show(error.lines())
        return error.exit_code
    except BrokenPipeError:
        # Whoever read our output has gone: nothing is wrong, and nothing can be said.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        limit = memory_limit_of(error)
        _show(limit.lines() if limit else internal_error(error))
        return limit.exit_code if limit else 1
    return 0


def _show(lines: Sequence[str]) -> None:
    from cvtrain.console import print_error

    print_error(lines)


def internal_error(error: Exception) -> list[str]:
    """The words for a bug of ours; the traceback goes to a file."""
    notes = [
        note.partition(": ")[2] for note in getattr(error, "__notes__", []) if note.startswith("cvtrain-traceback")
    ]
    if not notes:
        path = Path(tempfile.gettempdir()) / f"cvtrain-error-{os.getpid()}.txt"
        with contextlib.suppress(OSError):
            path.write_text(traceback.format_exc(), encoding="utf-8")
        notes = [str(path)]
    first = str(error).splitlines()[0] if str(error) else ""
    return [
        f"internal error: {type(error).__name__}: {first}",
        f"this is a bug in cvtrain; the traceback is in {notes[0]}",
    ]


if __name__ == "__main__":
    main()
