"""`task=train`: read the data, train, keep the best weights, test them once.

Reads like a recipe; knows settings, a folder and a console.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

from cvtrain import build, drawings, results
from cvtrain import train_lines as lines
from cvtrain.check import check
from cvtrain.config import Config, config_hash, load_config, save_text
from cvtrain.console import Console, SilentConsole, percent
from cvtrain.engine.checkpoint import Loaded, load_newest, remove_leftovers
from cvtrain.engine.distributed.team import Team
from cvtrain.engine.evaluator import EvaluationResult
from cvtrain.errors import ConfigError, DataError, DivergedError, MemoryLimitError, ProcessFailedError
from cvtrain.fit import Run
from cvtrain.init_from import read_start
from cvtrain.launch import check_launch, resume_command
from cvtrain.outputs import RunDir, is_job
from cvtrain.place import Place
from cvtrain.record import DONE, new_card, recorded
from cvtrain.rehearsal import check_determinism
from cvtrain.signals import StopRequest
from cvtrain.together import joined
from cvtrain.tracking import tracked


def run(config: Config, *, place: Place | None = None) -> float | None:
    """Trains as the settings say, from the beginning or from where an earlier process stopped.

    Args:
        config: Checked settings.
        place: Of a job of a sweep.

    Returns:
        The best validation accuracy, for sweepers; None without validation.
    """
    rank = check_launch(config)
    check(config, trains=True)
    check_determinism(config)
    with joined(rank, build.device(config, rank)) as team:
        if team is not None and not team.is_first:
            return follow(config, team)
        if place is not None:
            return start_or_go_on(config, place, team)
        return start(config, team) if config["resume"] is None else resume(config, team)


def start(config: Config, team: Team | None) -> float | None:
    """A new run in a new folder."""
    name = f"{build.data_name(config)}-{build.model_name(config)}"
    run_dir = RunDir.create(Path(config["output_dir"]) / "train" / name, suffix=config["name"])
    console, card = Console(run_dir.log), new_card(config)
    with (
        StopRequest() as stop,
        drawings.page_of_failure(run_dir.path, console),
        recorded(run_dir, card, discard_if_config_is_wrong=True),
    ):
        run_dir.write_text(run_dir.config_path, save_text(config))
        job = assemble(config, run_dir=run_dir, console=console, stop=stop, team=team)
        return train(job, card)


def start_or_go_on(config: Config, place: Place, team: Team | None) -> float | None:
    """A job of a sweep in its own folder, from wherever an earlier process left it."""
    run_dir = RunDir.open_at(place.folder)
    run_dir.remove_leftovers()
    remove_leftovers(run_dir.checkpoint_dir)
    console, card = place.console(run_dir.log), new_card(config)
    with StopRequest() as stop, drawings.page_of_failure(run_dir.path, console), recorded(run_dir, card):
        run_dir.write_text(run_dir.config_path, save_text(config))
        checkpoint = load_newest(run_dir.checkpoint_dir)
        job = assemble(config, run_dir=run_dir, console=console, stop=stop, checkpoint=checkpoint, team=team)
        return train(job, card, checkpoint)


def resume(config: Config, team: Team | None) -> float | None:
    """An earlier run in its own folder, in which nothing is written before it is known that the run can go on."""
    run_dir = RunDir.reopen(Path(config["resume"]))
    with contextlib.closing(run_dir), StopRequest() as stop:
        if "per_class" in run_dir.read_card():
            sweep = run_dir.path.parent.parent
            raise ConfigError(
                f"{run_dir.path} is one training of a sample-size sweep",
                hint=f"continue the sweep: cvtrain resume={sweep}",
            )
        check_same_job(run_dir, config)
        run_dir.remove_leftovers()
        if is_finished(run_dir, config):
            return say_finished(run_dir, config)
        remove_leftovers(run_dir.checkpoint_dir)
        console, checkpoint = Console(run_dir.log), load_newest(run_dir.checkpoint_dir)
        job = assemble(config, run_dir=run_dir, console=console, stop=stop, checkpoint=checkpoint, team=team)
        before, card = run_dir.read_card(), new_card(config)
        card = before | card | {"typed": before.get("typed", {}) | card["typed"]}
        with drawings.page_of_failure(run_dir.path, console), recorded(run_dir, card):
            run_dir.write_text(run_dir.config_path, save_text(config))
            return train(job, card, checkpoint)


def follow(config: Config, team: Team) -> None:
    """What a process does that is not the first of its team: it computes its share, and writes and says nothing."""
    start = team.wait_for_start()
    if start is None:
        return  # the first process has found that there is nothing to do
    silent = SilentConsole(lambda _line: None, on_step=lambda _step: None)
    with StopRequest() as stop:
        try:
            job = assemble(config, run_dir=RunDir(Path(start)), console=silent, stop=stop, team=team)
            job.test(job.train())
        except ProcessFailedError as error:  # the first process may be the one that is gone
            error.hint = error.hint or f"continue with: {resume_command(Path(start), team.rank)}"
            raise


def check_same_job(run_dir: RunDir, config: Config) -> None:
    """Refuses to change a job of a sweep: its table would show figures of other settings than it names.

    Raises:
        ConfigError: Such a change.
    """
    path = run_dir.path
    if is_job(path) and not config_hash(config).startswith(path.name):
        raise ConfigError(
            f"{path} is a job of a sweep, which is known by its settings: they cannot be changed here",
            hint=f"continue it as it is: cvtrain resume={path}, or the whole sweep: cvtrain resume={path.parent}",
        )


def assemble(
    config: Config,
    *,
    run_dir: RunDir,
    console: Console,
    stop: StopRequest,
    checkpoint: Loaded | None = None,
    team: Team | None = None,
) -> Run:
    """Reads the data and makes what is needed to train on them."""
    build.limit_threads(team.rank if team else None)
    if team is not None:
        team.announce_start(str(run_dir.path))
        checkpoint = _handed_out(checkpoint, team)
    first_weights = None if checkpoint else read_start(config)
    with team.first_of_each_machine_first() if team else contextlib.nullcontext():
        prepared = build.warned_of_leaks(config, build.data(config, progress=console.progress))
    if team is not None:
        team.check_same({"data": prepared.facts.fingerprint, "split": prepared.facts.split_hash})
    return Run(
        config,
        prepared,
        run_dir=run_dir,
        console=console,
        stop=stop,
        checkpoint=checkpoint,
        start=first_weights,
        team=team,
    )


def _handed_out(checkpoint: Loaded | None, team: Team) -> Loaded | None:
    """The checkpoint that the first process has read, for all; no other process looks into the folder."""
    told = team.hand_out((str(checkpoint.path), checkpoint.state) if checkpoint else None)
    return checkpoint if checkpoint or told is None else Loaded(told[1], Path(told[0]))


@tracked
def train(job: Run, card: dict[str, Any], checkpoint: Loaded | None = None) -> float | None:
    """The recipe, inside a folder that is open."""
    run_dir, prepared = job.run_dir, job.prepared
    introduce(job, card, checkpoint)
    run_dir.write_split(build.save_split(prepared, names=True))
    run_dir.write_card(card)

    try:
        stop_reason = job.train()
        result = job.test(stop_reason)
    except (DivergedError, DataError, MemoryLimitError):
        leave_material(job, None)
        raise
    finally:
        card["warnings"] = [*job.warnings, *lines.warnings_of(job), *job.watch.messages]
        card["data_wait_share"] = job.trainer.data_wait_share

    names = prepared.facts.class_names
    card.update(results.card_figures(result), test=results.figures(result.test, names))
    rows = results.prediction_rows(result.test, prepared.names("test"), names)
    try:
        run_dir.write_predictions(results.PREDICTIONS_HEADER, rows)
        run_dir.write_card(card | DONE)  # the page tells of a run that is done
        leave_report(job, result.test)
    finally:  # the disk may be full by now: the figures are told all the same
        lines.say_result(job, result)
    best = result.selection.best
    return best.val_accuracy if best else None


def leave_report(job: Run, test: EvaluationResult) -> None:
    """Writes what people look at. A job of a sweep is one of many: it leaves its plots for `task=report` to draw."""
    folder, console = job.run_dir.path, job.console
    leave_material(job, test)
    drawings.leave_page(folder, console)
    drawings.draw_decision_boundary(job, test)
    if not is_job(folder):
        drawings.leave_plots(folder, console)


def leave_material(job: Run, test: EvaluationResult | None) -> None:
    """Writes what the page shows of the data and the model, and of the test if there was one."""
    about = {"model": job.model, "split": "test", "result": test, "console": job.console}
    drawings.leave_material(job.run_dir, job.config, job.prepared, **about)


def introduce(job: Run, card: dict[str, Any], checkpoint: Loaded | None) -> None:
    """Notes on the card what is about to be trained on what, and says it."""
    facts = job.facts
    card.update(
        data_fingerprint=facts.fingerprint,
        split_hash=facts.split_hash,
        class_names=list(facts.class_names),
        class_counts=list(facts.class_counts),
        image_size=facts.image_size,
        in_channels=facts.in_channels,
        num_parameters=lines.num_parameters(job),
        device=job.compute.name,
        num_processes=job.team.size if job.team else 1,
        precision=job.compute.precision,
        warnings=[*job.warnings, *lines.warnings_of(job), *job.watch.messages],
        **({"init_from": job.origin} if job.origin else {}),
    )
    lines.introduce(job, checkpoint)


def is_finished(run_dir: RunDir, config: Config) -> bool:
    """Whether a run is done and nothing was typed that would make it longer."""
    card = run_dir.read_card()
    if card.get("status") != "done":
        return False
    before, now = load_config(run_dir.path)["trainer"], config["trainer"]
    stopped_early = card.get("stop_reason") == "early_stopping"
    if stopped_early and before["early_stopping"]["patience"] != now["early_stopping"]["patience"]:
        return False
    return (before["epochs"], before["steps"]) == (now["epochs"], now["steps"])


def say_finished(run_dir: RunDir, config: Config) -> float | None:
    """Says that there is nothing left to do, and how to do more; makes a report that was cut short, nothing else."""
    card, length = run_dir.read_card(), config["trainer"]
    longer = f"epochs={length['epochs'] + 10}" if length["epochs"] else f"steps={2 * length['steps']}"
    console = Console()
    if not run_dir.report_path.is_file():
        drawings.leave_page(run_dir.path, console)
        drawings.leave_plots(run_dir.path, console)
    console.say(f"this run is finished: test accuracy {percent(card['test']['accuracy'])}, epoch {card['epochs']:g}")
    console.say(f"train longer with: cvtrain resume={run_dir.path} trainer.{longer}")
    best = card.get("best") or {}
    return best.get("val_accuracy")
