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

from cvtrain.engine import runtime
from cvtrain.errors import CvtrainError

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
        from cvtrain.config import config_dir
        from cvtrain.help import help_text

        print(help_text(config_dir()), end="")
    elif "--version" in arguments:
        from cvtrain.record import versions

        print("  ".join(f"{name} {version}" for name, version in versions().items()))
    elif "--cfg" in arguments or "-c" in arguments:
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
    """Prints the settings that a command would use."""
    from cvtrain.compose import compose
    from cvtrain.config import save_text

    rest = [word for word in arguments if word not in ("--cfg", "-c", "job", "all", "hydra", "--resolve")]
    settings = {k: v for k, v in compose(rest).items() if k != "choices"}
    print(save_text(settings), end="")


def run_hydra(arguments: list[str]) -> None:
    """Hands the command line to Hydra: multirun, completion, info."""
    import hydra

    from cvtrain.config import config_dir

    def job(_config: Any) -> Any:
        from hydra.core.hydra_config import HydraConfig

        return run(list(HydraConfig.get().overrides.task))

    sys.argv = [sys.argv[0], *arguments]
    hydra.main(version_base="1.3", config_path=str(config_dir()), config_name="config")(job)()


def exit_code_of(command: Callable[[], Any]) -> int:
    """Runs a command and turns whatever it raises into an exit code and, at most, six lines."""
    from cvtrain.console import print_error

    try:
        command()
    except CvtrainError as error:
        print_error(error.lines())
        return error.exit_code
    except KeyboardInterrupt:
        print_error(["interrupted before the run had started"])
        return 130
    except BrokenPipeError:
        # Whoever read our output has gone: nothing is wrong, and nothing can be said.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        print_error(internal_error(error))
        return 1
    return 0


def internal_error(error: Exception) -> list[str]:
    """The words for a bug of ours; the traceback goes to a file."""
    from cvtrain.engine.trainer import is_out_of_memory  # if torch can be loaded at all, it is by now

    if is_out_of_memory(error):
        return ["out of memory", "type a smaller trainer.batch_size or trainer.eval_batch_size"]
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
