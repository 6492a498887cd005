"""`task=train`: read the data, train, keep the best weights, test them once.

Reads like a recipe; knows settings, a folder and a console.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import torch

from cvtrain import build, results
from cvtrain.check import check
from cvtrain.config import Config, config_hash, load_config, save_text
from cvtrain.console import Console, SilentConsole, duration, percent
from cvtrain.drawings import draw
from cvtrain.engine.checkpoint import Loaded, load_newest, remove_leftovers
from cvtrain.engine.distributed.rank import Rank
from cvtrain.engine.distributed.team import Team
from cvtrain.engine.runtime import available_cores
from cvtrain.errors import ConfigError, ProcessFailedError
from cvtrain.fit import Run
from cvtrain.init_from import read_start
from cvtrain.launch import check_launch, resume_command
from cvtrain.outputs import RunDir, is_job
from cvtrain.place import Place
from cvtrain.record import new_card, recorded
from cvtrain.rehearsal import check_determinism
from cvtrain.signals import StopRequest
from cvtrain.together import joined


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
    with StopRequest() as stop, recorded(run_dir, card, discard_if_config_is_wrong=True):
        run_dir.write_text(run_dir.config_path, save_text(config))
        job = assemble(config, run_dir=run_dir, console=console, stop=stop, team=team)
        return train(job, card)


def start_or_go_on(config: Config, place: Place, team: Team | None) -> float | None:
    """A job of a sweep in its own folder, from wherever an earlier process left it."""
    run_dir = RunDir.open_at(place.folder)
    run_dir.remove_leftovers()
    remove_leftovers(run_dir.checkpoint_dir)
    console, card = place.console(run_dir.log), new_card(config)
    with StopRequest() as stop, recorded(run_dir, card):
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
        if is_finished(run_dir, config):
            return say_finished(run_dir, config)
        run_dir.remove_leftovers()
        remove_leftovers(run_dir.checkpoint_dir)
        console, checkpoint = Console(run_dir.log), load_newest(run_dir.checkpoint_dir)
        job = assemble(config, run_dir=run_dir, console=console, stop=stop, checkpoint=checkpoint, team=team)
        card = run_dir.read_card() | new_card(config)
        with recorded(run_dir, card):
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


def train(job: Run, card: dict[str, Any], checkpoint: Loaded | None = None) -> float | None:
    """The recipe, inside a folder that is open."""
    run_dir, prepared = job.run_dir, job.prepared
    introduce(job, card, checkpoint)
    run_dir.write_split(build.save_split(prepared, names=True))
    run_dir.write_card(card)

    try:
        stop_reason = job.train()
    finally:
        card["warnings"] = [*job.warnings, *warnings_of(job), *job.watch.messages]
    result = job.test(stop_reason)

    names = prepared.facts.class_names
    card.update(results.card_figures(result), test=results.figures(result.test, names))
    rows = results.prediction_rows(result.test, prepared.names("test"), names)
    try:
        run_dir.write_predictions(results.PREDICTIONS_HEADER, rows)
        draw(job, result.test)
    finally:  # the disk may be full by now: the figures are told all the same
        say_result(job, result)
    best = result.selection.best
    return best.val_accuracy if best else None


def introduce(job: Run, card: dict[str, Any], checkpoint: Loaded | None) -> None:
    """Says what is about to be trained on what, and notes it on the card."""
    prepared, facts, console, config = job.prepared, job.facts, job.console, job.config
    num_parameters = sum(p.numel() for p in job.model.parameters())
    card.update(
        data_fingerprint=facts.fingerprint,
        split_hash=facts.split_hash,
        class_names=list(facts.class_names),
        class_counts=list(facts.class_counts),
        num_parameters=num_parameters,
        device=job.compute.name,
        num_processes=job.team.size if job.team else 1,
        precision=job.compute.precision,
        warnings=[*job.warnings, *warnings_of(job), *job.watch.messages],
        **({"init_from": job.origin} if job.origin else {}),
    )
    sizes = [len(getattr(prepared.split, split)) for split in ("train", "val", "test")]
    console.say(
        f"{build.data_name(config)}: {sizes[0]:,} {things(job)} to train on, {sizes[1]:,} to validate,"
        f" {sizes[2]:,} to test;"
        f" {facts.num_classes} classes, {facts.image_size}x{facts.image_size}x{facts.in_channels}"
    )
    init = ", He initialisation" if job.init == "he" and job.taken is None else ""
    console.say(
        f"{build.model_name(config)}: {num_parameters:,} parameters{init}; {job.compute.name}, {job.compute.precision}"
        + (f"; {job.team.size} processes" if job.team else "")
    )
    if checkpoint:
        for note in checkpoint.notes:
            console.warn(note)
        console.say(f"goes on after step {job.trainer.step} of {job.trainer.total_steps}")
    elif config["resume"]:
        console.say("there is no checkpoint yet: starts from the beginning")
    if job.taken:
        console.say(job.taken.sentence)
    for warning in warnings_of(job):
        console.warn(warning)
    console.say(f"writes to {job.run_dir.path}")


def warnings_of(job: Run) -> list[str]:
    """What the user should know before training starts."""
    warnings = [*job.prepared.source.warnings, *(job.taken.warnings if job.taken else ())]
    num_train, batch_size = len(job.prepared.split.train), job.config["trainer"]["batch_size"]
    if num_train < batch_size:
        warnings.append(
            f"{num_train} training {things(job)} are fewer than trainer.batch_size={batch_size}: each step takes all"
        )
    pretrained = job.origin or any(job.config["model"].get(key) for key in ("weights", "pretrained"))
    if job.config["trainer"]["freeze"] and not pretrained:
        warnings.append("trainer.freeze keeps layers at random weights: model.init_from=RUN starts from trained ones")
    if job.team:
        warnings += idle_cores(job.team.rank, job.compute.device.type)
    empty = [n for n, c in zip(job.facts.class_names, job.facts.class_counts, strict=True) if c == 0]
    if empty:
        warnings.append(f"no training images of class {', '.join(empty[:5])}")
    return warnings


def idle_cores(rank: Rank, device_type: str) -> list[str]:
    """A warning where cores would be left over: torchrun gives each process one thread unless it is told otherwise."""
    used, there = torch.get_num_threads(), available_cores(rank.local_size)
    if device_type != "cpu" or used >= there:
        return []
    words = f"OMP_NUM_THREADS={there} torchrun ... uses all"
    return [f"each of {rank.local_size} processes computes with {used} of {there} cores that it could have: {words}"]


def things(job: Run) -> str:
    """What the inputs are called."""
    return "points" if job.facts.preprocessing.is_point else "images"


def say_result(job: Run, result: results.FitResult) -> None:
    """Ends with the facts that matter, where they are, and what to type next."""
    best, console, run_dir = result.selection.best, job.console, job.run_dir
    console.say()
    if result.stop_reason == "early_stopping":
        console.say(
            f"stopped early at step {result.num_steps}: no improvement for {result.selection.patience} evaluations"
        )
    console.say(f"test accuracy  {percent(result.test.accuracy)} of {result.test.num_images:,} {things(job)}")
    if best and best.val_accuracy is not None:
        console.say(f"validation     {percent(best.val_accuracy)} (best, epoch {best.epoch:g})")
    console.say(
        f"time           {duration(result.seconds)}, {result.images_per_second:,.0f} {things(job)}/s in training"
    )
    console.say(f"results        {run_dir.path}")
    to_do = "evaluate" if job.facts.preprocessing.is_point else "predict"
    words = "" if to_do == "evaluate" else " input=PICTURES"
    console.say(f"next           cvtrain task={to_do} checkpoint={run_dir.path}{words}")


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
    """Says that there is nothing left to do, and how to do more; changes nothing in the folder."""
    card, length = run_dir.read_card(), config["trainer"]
    longer = f"epochs={length['epochs'] + 10}" if length["epochs"] else f"steps={2 * length['steps']}"
    console = Console()
    console.say(f"this run is finished: test accuracy {percent(card['test']['accuracy'])}, epoch {card['epochs']:g}")
    console.say(f"train longer with: cvtrain resume={run_dir.path} trainer.{longer}")
    best = card.get("best") or {}
    return best.get("val_accuracy")
