"""The command `cvtrain`: compose the settings, run the chosen task, turn errors into words and exit codes.

Imports neither torch nor the tasks before it knows that they are needed.
"""

from __future__ import annotations

import contextlib
import importlib
import sys
from collections.abc import Sequence
from typing import Any

from cvtrain import schema
from cvtrain.arguments import parse_arguments
from cvtrain.config import Config, config_dir
from cvtrain.ending import exit_code_of
from cvtrain.engine import runtime
from cvtrain.errors import ConfigError
from cvtrain.help import help_text
from cvtrain.launch import check_launch, refuse_several

_HYDRA_FLAGS = ("--info", "-i", "--shell-completion", "-sc", "--hydra-help")
"""Flags of Hydra's own that need its machinery around the whole program."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs a command line and exits with its code.

    Args:
        arguments: Without the program's name; None takes the process's own.
    """
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    runtime.prepare()
    code = exit_code_of(lambda: dispatch(arguments))
    with contextlib.suppress(OSError):  # the reader has gone, or the terminal was closed
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
    elif "--multirun" in arguments or "-m" in arguments:
        from cvtrain.multirun import Multirun, resumed_sweep

        refuse_several("--multirun")
        (resumed_sweep(arguments) or Multirun(arguments)).run()
    elif any(flag in arguments for flag in _HYDRA_FLAGS):
        from cvtrain.multirun import run_hydra

        check_files(arguments)
        run_hydra(arguments, run)
    elif any(word.startswith("resume=") for word in arguments):
        from cvtrain.multirun import resumed_sweep

        sweep = resumed_sweep(arguments)
        run(arguments) if sweep is None else sweep.run()
    else:
        run(arguments)


def check_files(arguments: Sequence[str]) -> None:
    """Looks through the files of the user before Hydra itself reads them.

    Raises:
        ConfigError: They cannot be composed, or reach for what they may not.
    """
    from cvtrain.compose import compose

    if any(word.partition("=")[0] in ("--config-dir", "-cd") for word in arguments):
        kinds = ("all", "config", "defaults", "defaults-tree", "plugins", "searchpath")
        compose([word for word in arguments if word not in (*_HYDRA_FLAGS, *kinds)])


def run(arguments: Sequence[str]) -> Any:
    """Composes settings and runs their task; returns what the task returns.

    Raises:
        ConfigError: The settings are wrong, or are of a multirun.
    """
    from cvtrain.compose import compose, located

    config = compose(arguments)
    rank = check_launch(config)
    idle = [key for key in config["typed"] if key.startswith("sweep.") and not _is_own_sweep(key, config)]
    if idle:
        raise ConfigError([f"{key} works with --multirun only" for key in idle])
    if config["task"] == "train" and config["choices"]["experiment"]:
        _say_what_is_left_out(arguments)
    if rank is None or rank.is_first:
        _warn_of_oddities(config)
    try:
        return importlib.import_module(f"cvtrain.tasks.{config['task']}").run(config)
    except ConfigError as error:
        raise located(error, config, arguments) from None


def _warn_of_oddities(config: Config) -> None:
    """Tells of values that are right and hardly meant."""
    from cvtrain.console import Console

    for line in schema.oddities(config):
        Console().warn(line)


def _is_own_sweep(key: str, config: Config) -> bool:
    """Whether a setting of `sweep` is that of a sample-size sweep."""
    return config["task"] == "sample_size_sweep" and key in ("sweep.jobs", "sweep.threads")


def _say_what_is_left_out(arguments: Sequence[str]) -> None:
    """Tells whoever runs one arm of an experiment that there are others."""
    from cvtrain.compose import arms_of_experiment
    from cvtrain.console import Console

    arms = arms_of_experiment(parse_arguments(arguments))
    if arms:
        swept = ", ".join(f"{key}={value}" for key, value in arms.items())
        Console().say(f"one run of an experiment with several: --multirun runs all ({swept})")


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


if __name__ == "__main__":
    main()
