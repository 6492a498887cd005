"""`task=sample_size_sweep`: train the same model on ever more images per class, and say how many are enough.

Reads like a recipe; knows settings, a folder and a console.
"""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from cvtrain import build
from cvtrain.check import check
from cvtrain.config import Config, load_config, save_text
from cvtrain.console import Console, duration
from cvtrain.data.images import ImageData
from cvtrain.errors import CheckpointError, ConfigError, DataError, InterruptedBySignal, JobsFailedError
from cvtrain.outputs import RunDir
from cvtrain.place import Place
from cvtrain.record import new_card, recorded
from cvtrain.rehearsal import check_determinism
from cvtrain.resume import first_line
from cvtrain.sample_size import sentences as say
from cvtrain.sample_size.cell import tidy
from cvtrain.sample_size.conclusion import Conclusion
from cvtrain.sample_size.outcome import draw_curve, test_of, write_conclusion
from cvtrain.sample_size.plan import Plan, make_plan
from cvtrain.sample_size.progress import Progress
from cvtrain.sample_size.table import Row, read_row, troubles, write_table
from cvtrain.sample_size.work import failure_of, train_all
from cvtrain.signals import StopRequest, described

RENEW_SECONDS = 10.0
"""Between two pages of a study at least: where all is done within seconds, one at the end is enough."""


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
        before, card = run_dir.read_card(), new_card(config)
        card = before | card | {"typed": before.get("typed", {}) | card["typed"]}
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

    written_at = time.monotonic()

    def at_size(rows: Sequence[Row]) -> None:
        nonlocal written_at
        if time.monotonic() - written_at < RENEW_SECONDS:
            return
        written_at = time.monotonic()
        with forgiven(console, "the report could not be renewed"):
            write_conclusion(rows, config, data, run_dir)
            write_page(run_dir.path)

    failures = train(config, plan, data, run_dir=run_dir, console=console, stop=stop, at_size=at_size)

    rows = [row for cell in plan.cells if (row := read_row(cell, run_dir.path))]
    write_table(run_dir, rows)
    conclusion = write_conclusion(rows, config, data, run_dir)
    if rows:
        with forgiven(console, "the learning curve could not be drawn"):
            draw_curve(run_dir, conclusion, title=title(config))
    with forgiven(console, "report.html could not be written"):
        write_page(run_dir.path)
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
    console.say(say.PLAN_LEGEND, wrap=True)
    console.say(f"writes to {run_dir.path}")


# ---------------------------------------------------------------------------------------------------- trainings


def train(
    config: Config,
    plan: Plan,
    data: ImageData,
    *,
    run_dir: RunDir,
    console: Console,
    stop: StopRequest,
    at_size: Callable[[Sequence[Row]], None],
) -> list[tuple[str, int]]:
    """Does every training that is not done yet.

    Args:
        config: Of the sweep.
        plan: All trainings.
        data: The images.
        run_dir: Of the sweep.
        console: Where everything is said.
        stop: Set by a signal.
        at_size: Takes all rows so far whenever no training of a size is left, but some of others are.

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
    num_left = Counter(cell.per_class for cell in left)
    for result in train_all(config, left, data, sweep_dir=run_dir.path, on_step=progress.step, stop=stop):
        cell = by_name[result.key]
        if row := read_row(cell, run_dir.path):
            rows[cell.name] = row
            write_table(run_dir, list(rows.values()))
            console.say(say.done_line(row, time=duration(row.seconds), progress=counted(len(rows), len(plan.cells))))
        elif stop.signum is None or not isinstance(result.error, InterruptedBySignal):
            code, reason = failure_of(result)
            failures.append((cell.name, code))
            console.warn(say.failed_line(cell, reason))
        progress.end_of(cell)
        num_left[cell.per_class] -= 1
        if rows and not num_left[cell.per_class] and num_left.total() and stop.signum is None:
            at_size(list(rows.values()))
    console.end_bar()
    if stop.signum is not None:
        raise InterruptedBySignal(
            f"stopped by {described(stop.signum)}; {len(rows)} of {len(plan.cells)} trainings are done",
            signum=stop.signum,
            hint=f"continue with: cvtrain resume={run_dir.path}",
        )
    return failures


def counted(done: int, total: int) -> str:
    """`[ 3/31]`: as wide for every training."""
    return f"[{done:>{len(str(total))}}/{total}]"


# ---------------------------------------------------------------------------------------------------- after


def title(config: Config) -> str:
    """What the sweep is about."""
    return f"{build.model_name(config)} on {build.data_name(config)}, protocol={config['protocol']}"


def write_page(folder: Path) -> None:
    """Writes report.html from the files of the folder."""
    from cvtrain.pages.sample_size_page import write_sample_size_page

    write_sample_size_page(folder)


@contextlib.contextmanager
def forgiven(console: Console, words: str) -> Iterator[None]:
    """Makes a warning of whatever goes wrong: a full disk, a broken font, no matplotlib; the results are safe."""
    try:
        yield
    except Exception as error:
        console.warn(f"{words}: {first_line(error)}")


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
        console.say(line, wrap=True)
    is_whole = len(rows) == len(plan.cells)
    more = "target=0.8 (or more sizes, more replicates)" if is_whole else "(tries again what failed)"
    console.facts(
        [
            ("results", str(run_dir.path)),
            *([("report", str(run_dir.report_path))] if run_dir.report_path.is_file() else []),
            ("next", f"cvtrain resume={run_dir.path} {more}"),
        ]
    )
