"""What a training says to its user: what it begins with, what it warns of, what came of it and what to type next.

Knows a run and a console; not what the run does.
"""

from __future__ import annotations

import torch

from cvtrain import build, results
from cvtrain.analysis.proportion import wilson_interval
from cvtrain.console import duration, percent
from cvtrain.drawings import page_or_folder
from cvtrain.engine.checkpoint import Loaded
from cvtrain.engine.distributed.rank import Rank
from cvtrain.engine.evaluator import EvaluationResult
from cvtrain.engine.runtime import available_cores
from cvtrain.fit import Run


def introduce(job: Run, checkpoint: Loaded | None) -> None:
    """Says what is about to be trained on what.

    Args:
        job: That has not begun.
        checkpoint: What it goes on from, or None.
    """
    prepared, facts, console, config = job.prepared, job.facts, job.console, job.config
    sizes = [len(getattr(prepared.split, split)) for split in ("train", "val", "test")]
    console.say(
        f"{build.data_name(config)}: {sizes[0]:,} {things(job)} to train on, {sizes[1]:,} to validate,"
        f" {sizes[2]:,} to test;"
        f" {facts.num_classes} classes, {facts.image_size}x{facts.image_size}x{facts.in_channels}"
    )
    init = ", He initialisation" if job.init == "he" and job.taken is None else ""
    console.say(
        f"{build.model_name(config)}: {num_parameters(job):,} parameters{init};"
        f" {job.compute.name}, {job.compute.precision}" + (f"; {job.team.size} processes" if job.team else "")
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


def num_parameters(job: Run) -> int:
    """Of the model."""
    return sum(p.numel() for p in job.model.parameters())


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
    if result.stop_reason == "early_stopping":
        console.say()
        console.say(
            f"stopped early at step {result.num_steps}: no improvement for {result.selection.patience} evaluations"
        )
    to_do = "evaluate" if job.facts.preprocessing.is_point else "predict"
    words = "" if to_do == "evaluate" else " input=PICTURES"
    facts = [
        (
            "test accuracy",
            f"{percent(result.test.accuracy)} {interval_of(result.test)}, n = {result.test.num_images:,}",
        ),
        ("time", f"{duration(result.seconds)}, {result.images_per_second:,.0f} {things(job)}/s in training"),
        ("results", page_or_folder(run_dir)),
        ("next", f"cvtrain task={to_do} checkpoint={run_dir.path}{words}"),
    ]
    if best and best.val_accuracy is not None:
        facts.insert(1, ("validation", f"{percent(best.val_accuracy)} (best, epoch {best.epoch:g})"))
    console.facts(facts)


def interval_of(test: EvaluationResult) -> str:
    """The 95 % interval of an accuracy, in per cent."""
    low, high = wilson_interval(round(test.accuracy * test.num_images), test.num_images)
    return f"[{100 * low:.1f}, {100 * high:.1f}]"
