"""`task=report`: the page of a folder, made again from the files in it.

Reads like a recipe; knows folders and a console. Nothing is trained, and no file changes but the page and its plots.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from cvtrain.config import Config, load_config
from cvtrain.console import Console
from cvtrain.errors import CheckpointError, ConfigError, OutputError
from cvtrain.outputs import RunDir
from cvtrain.sweeps.stored_sweep import is_sweep

TAKEN = ("task", "run")
"""Settings that matter here: all others are those of the run."""

TAKES = "run= takes the folder of a training, an evaluation, a sweep, a sample-size sweep, a comparison or a range test"


def run(config: Config) -> None:
    """Writes report.html into a folder, and its plots where there are none.

    Raises:
        ConfigError: `run=` does not name one folder, or a setting has no effect.
        CheckpointError: The folder holds nothing that has a page.
        OutputError: The page cannot be written.
    """
    idle = [f"{key} has no effect with task=report" for key in config.get("typed", ()) if key not in TAKEN]
    if idle:
        raise ConfigError(idle)
    folder, console = folder_of(config), Console()
    write_page, write_plots = writers_for(folder)
    console.say(str(write_page(folder)))
    if write_plots is not None and not any(RunDir(folder).plots_dir.glob("*.png")):
        try:
            write_plots(folder)
        except Exception as error:  # no matplotlib, a broken font: the page stands
            console.warn(f"a plot could not be drawn: {str(error).splitlines()[0] if str(error) else error!r}")


def folder_of(config: Config) -> Path:
    """The folder that is named, or that of the page that is named.

    Raises:
        ConfigError: None is named, or several.
        CheckpointError: There is no such folder.
    """
    named = config["run"]
    if named is None:
        raise ConfigError("task=report needs the folder of a run, and none is named: run=RUN", hint=TAKES)
    if not isinstance(named, str):
        raise ConfigError(
            f"task=report makes the page of one folder, and run= names {len(named)}",
            hint="type one command for each; task=compare runs=[A,B] makes one page of several runs",
        )
    folder = Path(named).expanduser()
    if folder.name == RunDir(folder).report_path.name and not folder.is_dir():
        folder = folder.parent
    if not folder.is_dir():
        raise CheckpointError(f"run={named}: there is no such folder", hint=TAKES)
    if not os.access(folder, os.W_OK):
        raise OutputError(f"cannot write to {folder}: copy the folder to where you may write, and name the copy")
    return folder.resolve()


def writers_for(folder: Path) -> tuple[Callable[[Path], Path], Callable[[Path], object] | None]:
    """What makes the page of a folder of its kind, and what draws its plots, if anything does.

    Raises:
        CheckpointError: No page is known for it.
    """
    if is_sweep(folder):
        from cvtrain.pages.sweep_page import write_sweep_page

        return write_sweep_page, None
    task = task_of(folder)
    if task in ("train", "evaluate"):
        from cvtrain.pages.run_page import write_run_page
        from cvtrain.pages.run_plots import write_run_plots

        return write_run_page, write_run_plots
    if task == "sample_size_sweep":
        from cvtrain.pages.sample_size_page import write_sample_size_page

        return write_sample_size_page, None
    if task == "compare":
        from cvtrain.pages.comparison_page import write_comparison_page

        return write_comparison_page, None
    if task == "find_lr":
        from cvtrain.pages.find_lr_page import draw_find_lr, write_find_lr_page

        return write_find_lr_page, draw_find_lr
    raise CheckpointError(f"{folder} holds a run of task={task}, which has no page", hint=TAKES)


def task_of(folder: Path) -> str:
    """What was done in a folder, by its run card, or by its settings where that is missing.

    Raises:
        CheckpointError: It is not known.
    """
    task = RunDir(folder).read_card().get("task")
    try:
        return str(task or load_config(folder)["task"])
    except (CheckpointError, KeyError) as error:
        reason = error.message if isinstance(error, CheckpointError) else f"{folder} holds no run"
        raise CheckpointError(reason, hint=TAKES) from None
