"""`task=sample_size_sweep`: train the same model on ever more images per class, and say how many are enough.

Reads like a recipe; knows settings, a folder and a console.
"""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cvtrain import build
from cvtrain.check import check
from cvtrain.config import Config, load_config, save_text
from cvtrain.console import Console, duration
from cvtrain.data.images import ImageData
from cvtrain.data.splits import first_per_class
from cvtrain.engine.diagnosis.chance import chance_accuracy
from cvtrain.errors import CheckpointError, ConfigError, CvtrainError, DataError, InterruptedBySignal, JobsFailedError
from cvtrain.outputs import RunDir
from cvtrain.place import Place
from cvtrain.record import memory_limit_of, new_card, recorded
from cvtrain.rehearsal import check_determinism
from cvtrain.resume import first_line
from cvtrain.sample_size import sentences as say
from cvtrain.sample_size.cell import tidy
from cvtrain.sample_size.conclusion import Conclusion, conclude, json_text
from cvtrain.sample_size.picture import draw
from cvtrain.sample_size.plan import Plan, make_plan
from cvtrain.sample_size.progress import Progress
from cvtrain.sample_size.table import Row, read_row, troubles, write_table
from cvtrain.sample_size.work import train_all
from cvtrain.signals import StopRequest, described
from cvtrain.workers import UnexpectedError, WorkResult

_MIXED = ("mixup", "cutmix")
"""Augmentations after which training images have two labels, and training accuracy no meaning."""


def run(config: Config, *, place: Place | None = None) -> float:
    """Runs or continues a sweep.

    Args:
        config: Checked settings.
        place: Of a job of a multirun.

    Returns:
        The mean test accuracy at the largest size, 0..1.

    Raises:
        ConfigError: The settings do not fit each other.
        DataError: A class has too few images.
        CheckpointError: `resume=` names what cannot be continued.
        JobsFailedError: Some trainings failed.
        InterruptedBySignal: A signal came; what is done is done.
    """
    check(config, trains=True)
    check_determinism(config)
    return start(config, place) if config["resume"] is None else resume(config)


def start(config: Config, place: Place | None = None) -> float:
    """A new sweep in a new folder, or a job of a multirun from wherever an earlier process left it."""
    if place is not None:
        run_dir = RunDir.open_at(place.folder)
    else:
        name = f"{build.data_name(config)}-{build.model_name(config)}"
        run_dir = RunDir.create(Path(config["output_dir"]) / "sample_size_sweep" / name, suffix=config["name"])
    card = new_card(config)
    with StopRequest() as stop, recorded(run_dir, card, discard_if_config_is_wrong=place is None):
        run_dir.write_text(run_dir.config_path, save_text(config))
        return sweep(config, run_dir, card, stop)


def resume(config: Config) -> float:
    """An earlier sweep in its own folder: what is done stays, what is not is done."""
    run_dir = RunDir.reopen(Path(config["resume"]))
    with contextlib.closing(run_dir), StopRequest() as stop:
        check_same_courses(load_config(run_dir.path), config)
        run_dir.remove_leftovers()
        card = run_dir.read_card() | new_card(config)
        with recorded(run_dir, card):
            run_dir.write_text(run_dir.config_path, save_text(config))
            return sweep(config, run_dir, card, stop)


def check_same_courses(before: Config, now: Config) -> None:
    """Refuses a length that is not that of the trainings which are done: one table would hold two kinds of them.

    Raises:
        ConfigError: Such a length.
    """
    values = [(c["trainer"]["epochs"], c["trainer"]["steps"], c["trainer"]["early_stopping"]) for c in (before, now)]
    if values[0] != values[1]:
        raise ConfigError("the length and patience of trainings cannot be changed within a sweep; start a new one")


def sweep(config: Config, run_dir: RunDir, card: dict[str, Any], stop: StopRequest) -> float:
    """The recipe, inside a folder that is open."""
    console = Console(run_dir.log)
    data = read(config, console, card)
    plan = make_plan(config, data)
    introduce(config, plan, data, console, run_dir)
    card.update(sizes=list(plan.sizes), num_runs=len(plan.cells), class_names=list(data.class_names))
    run_dir.write_card(card)

    failures = train(config, plan, data, run_dir=run_dir, console=console, stop=stop)

    rows = [row for cell in plan.cells if (row := read_row(cell, run_dir.path))]
    write_table(run_dir, rows)
    conclusion = conclude(
        rows,
        chance_accuracy=chance_accuracy(torch.bincount(test_of(config, data)).tolist()),
        num_test=len(test_of(config, data)),
        target=config["target"],
        elbow=config["elbow"],
        validate=config["validate"],
        trains_to_the_end=config["protocol"] == "robust" and not any(config["augment"].get(k) for k in _MIXED),
    )
    run_dir.write_text(run_dir.path / "learning_curve.json", json_text(conclusion))
    if rows:
        draw_curve(run_dir, conclusion, title=title(config), warn=console.warn)
    say_result(config, plan, rows, conclusion, console, run_dir)
    if failures:
        lines = [f"failed with exit code {code}: {name}" for name, code in failures]
        raise JobsFailedError(lines, exit_code=failures[0][1])
    return conclusion.points[-1].mean_accuracy


# ---------------------------------------------------------------------------------------------------- before


def read(config: Config, console: Console, card: dict[str, Any]) -> ImageData:
    """Reads the data once for all trainings.

    Raises:
        CheckpointError: They are not those that a sweep was begun with.
        DataError: There are no test images.
    """
    data = build.read_data(config, progress=console.progress)
    if card.get("data_fingerprint") not in (None, data.fingerprint):
        raise CheckpointError("the data have changed since this sweep was started", hint="start a new one")
    if not len(data.test):
        raise DataError("no test images")
    notes = list(data.warnings)
    if data.val is not None:
        notes.append("the validation images of the data are left out: each subset has its own")
    for note in notes:
        console.warn(note)
    card.update(data_fingerprint=data.fingerprint, warnings=notes)
    return replace(data, val=None)


def introduce(config: Config, plan: Plan, data: ImageData, console: Console, run_dir: RunDir) -> None:
    """Says what is about to be trained."""
    for note in plan.notes:
        console.warn(note)
    console.say(
        f"{build.data_name(config)}, {build.model_name(config)}: {len(plan.cells)} trainings,"
        f" {len(plan.sizes)} sizes; {len(data.class_names)} classes, {len(test_of(config, data)):,} test images;"
        f" protocol={config['protocol']}"
    )
    console.table("to train at each size", say.PLAN_HEADER, say.plan_rows(plan))
    for line in say.PLAN_LEGEND:
        console.say(line)
    console.say(f"writes to {run_dir.path}")


def test_of(config: Config, data: ImageData) -> Tensor:
    """The labels of the test images."""
    return data.test.labels[first_per_class(data.test.labels, config["data"]["max_per_class"])]


# ---------------------------------------------------------------------------------------------------- trainings


def train(
    config: Config, plan: Plan, data: ImageData, *, run_dir: RunDir, console: Console, stop: StopRequest
) -> list[tuple[str, int]]:
    """Does every training that is not done yet.

    Returns:
        Which failed, with their exit codes.

    Raises:
        InterruptedBySignal: A signal came.
    """
    by_name = {cell.name: cell for cell in plan.cells}
    rows = {cell.name: row for cell in plan.cells if (row := read_row(cell, run_dir.path))}
    for name in rows:  # a process may have been killed before it could do this
        tidy(RunDir(by_name[name].folder(run_dir.path)), keep_model=config["keep_models"])
    left = [cell for cell in plan.cells if cell.name not in rows]
    if rows:
        console.say(f"{len(rows)} of {len(plan.cells)} trainings are done already")
    progress, failures = Progress(plan.cells, done=rows, console=console), []
    for result in train_all(config, left, data, sweep_dir=run_dir.path, on_step=progress.step, stop=stop):
        cell = by_name[result.key]
        if row := read_row(cell, run_dir.path):
            rows[cell.name] = row
            write_table(run_dir, list(rows.values()))
            console.say(say.done_line(row, time=duration(row.seconds), progress=f"[{len(rows)}/{len(plan.cells)}]"))
        elif stop.signum is None or not isinstance(result.error, InterruptedBySignal):
            code, reason = failure_of(result)
            failures.append((cell.name, code))
            console.warn(say.failed_line(cell, reason))
        progress.end_of(cell)
    console.end_bar()
    if stop.signum is not None:
        raise InterruptedBySignal(
            f"stopped by {described(stop.signum)}; {len(rows)} of {len(plan.cells)} trainings are done",
            signum=stop.signum,
            hint=f"continue with: cvtrain resume={run_dir.path}",
        )
    return failures


def failure_of(result: WorkResult) -> tuple[int, str]:
    """The exit code and the reason of a training that has no result."""
    error = result.error
    if isinstance(error, CvtrainError):
        return error.exit_code, error.lines()[0]
    if isinstance(error, UnexpectedError):
        return 1, first_line(error)
    if error is not None:
        limit = memory_limit_of(error)
        return (limit.exit_code, limit.message) if limit else (1, f"{type(error).__name__}: {first_line(error)}")
    if result.lost is not None and result.lost < 0:
        memory = "; if memory was short: sweep.jobs=1" if result.lost == -signal.SIGKILL else ""
        return 128 - result.lost, f"its process was ended by {described(-result.lost)}{memory}"
    return 1, f"its process ended with exit code {result.lost}"


# ---------------------------------------------------------------------------------------------------- after


def title(config: Config) -> str:
    """What the sweep is about."""
    return f"{build.model_name(config)} on {build.data_name(config)}, protocol={config['protocol']}"


def draw_curve(run_dir: RunDir, conclusion: Conclusion, *, title: str, warn: Callable[[str], None]) -> None:
    """Writes plots/learning_curve.png; a drawing that fails costs a warning."""
    try:
        draw(run_dir.plots_dir / "learning_curve.png", conclusion, title=title)
    except Exception as error:  # a full disk, a broken font, no matplotlib: the results are safe already
        warn(f"the learning curve could not be drawn: {first_line(error)}")


def say_result(
    config: Config, plan: Plan, rows: Sequence[Row], conclusion: Conclusion, console: Console, run_dir: RunDir
) -> None:
    """Ends with the table, the answers and what to type next."""
    if rows:
        console.table(title(config), say.RESULT_HEADER, say.result_rows(rows))
    for line in say.trouble_lines(troubles(plan, run_dir.path)):
        console.warn(line)
    if conclusion.validation is not None and conclusion.validation.predictions:
        console.table(
            "predicted without the largest sizes", say.VALIDATION_HEADER, say.validation_rows(conclusion.validation)
        )
    console.say()
    for line in say.answer_sentences(conclusion):
        console.say(line)
    console.say(f"results   {run_dir.path}")
    more = (
        "target=0.8 (or more sizes, more replicates)" if len(rows) == len(plan.cells) else "(tries again what failed)"
    )
    console.say(f"next      cvtrain resume={run_dir.path} {more}")
