"""The command `cvtrain`: compose the settings, run the chosen task, turn errors into words and exit codes.

Imports neither torch nor the tasks before it knows that they are needed.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
import tempfile
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from cvtrain.arguments import parse_arguments
from cvtrain.config import config_dir
from cvtrain.engine import runtime
from cvtrain.errors import ConfigError, CvtrainError
from cvtrain.help import help_text
from cvtrain.record import memory_limit_of
from cvtrain.signals import StopRequest

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
    elif "--multirun" in arguments or "-m" in arguments:
        from cvtrain.multirun import Multirun

        Multirun(arguments, run_job=run_job).run()
    elif any(flag in arguments for flag in _HYDRA_FLAGS):
        from cvtrain.multirun import run_hydra

        run_hydra(arguments, run)
    else:
        run(arguments)


def run(arguments: Sequence[str]) -> Any:
    """Composes settings and runs their task; returns what the task returns."""
    from cvtrain.compose import compose

    config = compose(arguments)
    if config["task"] == "train" and config["choices"]["experiment"]:
        _say_what_is_left_out(arguments)
    return importlib.import_module(f"cvtrain.tasks.{config['task']}").run(config)


def _say_what_is_left_out(arguments: Sequence[str]) -> None:
    """Tells whoever runs one arm of an experiment that there are others."""
    from cvtrain.compose import arms_of_experiment
    from cvtrain.console import Console

    arms = arms_of_experiment(parse_arguments(arguments))
    if arms:
        swept = ", ".join(f"{key}={value}" for key, value in arms.items())
        Console().say(f"one run of an experiment with several: --multirun runs all ({swept})")


def run_job(arguments: Sequence[str], *, sweep_dir: Path) -> tuple[int, Any, Path | None]:
    """Runs one job of a multirun in a folder of the sweep that is named by the hash of its settings.

    Returns:
        Its exit code, what its task returns (None after an error), and the folder, which only training makes; no
        folder where an earlier job had the same settings: nothing is run then.
    """
    from cvtrain.compose import compose
    from cvtrain.config import config_hash

    found: list[Any] = []
    folder: Path | None = sweep_dir

    def job() -> None:
        nonlocal folder
        config = compose(arguments)
        folder = sweep_dir / config_hash(config)[:16]
        if folder.exists():
            folder = None
            return
        found.append(importlib.import_module(f"cvtrain.tasks.{config['task']}").run({**config, "folder": str(folder)}))

    code = exit_code_of(job)
    return code, found[0] if found else None, folder


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
