"""`task=benchmark`: how fast a config trains and evaluates, where the time of a step goes, how much memory it takes.

Reads like a recipe; knows settings, a folder and a console. What is trained meanwhile is kept nowhere.
"""

from __future__ import annotations

import copy
import json
import resource
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from cvtrain import build
from cvtrain.check import check
from cvtrain.config import Config, save_text
from cvtrain.console import Console, percent
from cvtrain.engine.memory import free_memory
from cvtrain.engine.phases import PHASES
from cvtrain.engine.throughput import SpeedResult, TrainingSpeedResult, measure_evaluation, measure_training
from cvtrain.errors import ConfigError, MemoryLimitError
from cvtrain.init_from import Start, read_start
from cvtrain.models.summary import summarise
from cvtrain.outputs import RunDir
from cvtrain.parts import Parts, make_parts, make_trainer
from cvtrain.prepared import PreparedData
from cvtrain.record import new_card, recorded
from cvtrain.rehearsal import check_determinism
from cvtrain.signals import StopRequest

RESULTS_NAME = "benchmark.json"

_PHASE_WORDS = {
    "data": "waiting for a batch, and moving it",
    "augmentation": "augmentation, normalisation",
    "forward": "forward: model and loss",
    "backward": "backward",
    "optimizer": "optimizer",
    "other": "checks, sums, averaged weights",
}
_FORWARD_PASSES = 3
"""Training costs about three forward passes. Source: Kaplan et al. 2020 (arXiv 2001.08361), section 2.1."""

_ENDLESS = 10**12


@dataclass(frozen=True)
class BatchSizeResult:
    """What training with a batch size takes.

    Args:
        batch_size: Images per step.
        training: How fast it is; None where memory did not suffice.
        device_peak_bytes: Most memory of the accelerator that was in use; None on a CPU.
    """

    batch_size: int
    training: TrainingSpeedResult | None
    device_peak_bytes: int | None


def run(config: Config) -> None:
    """Measures.

    Raises:
        ConfigError: Settings that do not fit each other or the data.
        DataError: Missing or damaged.
        MemoryLimitError: There is no room for a step of `trainer.batch_size`.
        OutputError: The folder cannot be written.
    """
    check_sizes(config)
    check(config, trains=True)
    check_determinism(config)
    build.limit_threads()
    name = f"{build.data_name(config)}-{build.model_name(config)}"
    run_dir = RunDir.create(Path(config["output_dir"]) / "benchmark" / name, suffix=config["name"])
    console, card = Console(run_dir.log), new_card(config)
    with StopRequest(), recorded(run_dir, card, discard_if_config_is_wrong=True):
        run_dir.write_text(run_dir.config_path, save_text(config))
        start = read_start(config)
        prepared = build.data(config, progress=console.progress)
        check_determinism(config, prepared.facts)
        parts = make_parts(config, prepared, precision=None, start=start, team=None)
        introduce(config, parts, card, console)
        first = measure(config, parts, console)
        evaluation = evaluation_speed(config, parts)
        host_peak_bytes = peak_of_process()
        found = figures(config, parts, first, evaluation) | {"host_peak_bytes": host_peak_bytes}
        del parts  # or a larger batch would have less room
        others = [measure_size(config, prepared, start, size, console) for size in config["batch_sizes"]]
        found["batch_sizes"] = [row_of(other) for other in others]
        run_dir.write_text(run_dir.path / RESULTS_NAME, json.dumps(found, indent=2) + "\n")
        card["images_per_second"] = found["training"]["images_per_second"]
        show(console, found)
        console.say(f"results  {run_dir.path / RESULTS_NAME}")


def check_sizes(config: Config) -> None:
    """Refuses batch sizes that cannot be parted as wished.

    Raises:
        ConfigError: Such a size.
    """
    parts = config["trainer"]["accumulate"]
    small = [size for size in config["batch_sizes"] if size < parts]
    if small:
        raise ConfigError(f"batch_sizes=[{','.join(map(str, small))}]: trainer.accumulate={parts} cannot part them")


# --------------------------------------------------------------------------------------------------------- measuring


def measure(config: Config, parts: Parts, console: Console) -> BatchSizeResult:
    """Trains for some rounds as a training with these settings would, without evaluations and checkpoints.

    Raises:
        MemoryLimitError: There is no room for a step.
        DivergedError: The lr is far too large.
    """
    device, settings = parts.compute.device, copy.deepcopy(config)
    settings["trainer"] |= {"epochs": None, "steps": _ENDLESS, "evaluate_every": _ENDLESS}
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    trainer = make_trainer(settings, parts, evaluate_fn=None, warn=console.warn)
    sizes = [high - low for low, high in trainer.inputs.batches.bounds]
    training = measure_training(trainer, sizes, rounds=config["rounds"], seconds=config["round_seconds"])
    peak = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None
    return BatchSizeResult(config["trainer"]["batch_size"], training, peak)


def measure_size(
    config: Config, prepared: PreparedData, start: Start | None, batch_size: int, console: Console
) -> BatchSizeResult:
    """The same with another batch size; one that there is no room for is a result too."""
    settings = {**config, "trainer": {**config["trainer"], "batch_size": batch_size}}
    parts = make_parts(settings, prepared, precision=None, start=start, team=None)
    try:
        return measure(settings, parts, console)
    except MemoryLimitError:
        return BatchSizeResult(batch_size, None, None)
    finally:
        device = parts.compute.device
        del parts
        free_memory(device)


def evaluation_speed(config: Config, parts: Parts) -> SpeedResult | None:
    """How fast the validation images are evaluated; None where there are none."""
    prepared, device = parts.prepared, parts.compute.device
    if not len(prepared.split.val):
        return None
    return measure_evaluation(
        parts.model,
        parts.loss_fn,
        build.eval_inputs(config, prepared, "val", facts=prepared.facts, device=device),
        compute=parts.compute,
        rounds=config["rounds"],
        seconds=config["round_seconds"],
    )


def peak_of_process() -> int:
    """Most memory that this process has had, in bytes: reading processes of their own are no part of it."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


# ----------------------------------------------------------------------------------------------------------- telling


def introduce(config: Config, parts: Parts, card: dict[str, Any], console: Console) -> None:
    """Says what is about to be measured, and notes it on the card."""
    prepared, facts = parts.prepared, parts.prepared.facts
    num_parameters = sum(p.numel() for p in parts.model.parameters())
    card.update(
        data_fingerprint=facts.fingerprint,
        num_parameters=num_parameters,
        device=parts.compute.name,
        precision=parts.compute.precision,
        warnings=list(prepared.source.warnings),
    )
    place = "held in memory" if build.fits_in_memory(prepared) else f"read by {build.num_workers(config)} processes"
    console.say(
        f"{build.model_name(config)} on {build.data_name(config)}: {len(prepared.split.train):,} training images,"
        f" {place}; {parts.compute.name}, {parts.compute.precision}"
    )
    for warning in card["warnings"]:
        console.warn(warning)


def figures(config: Config, parts: Parts, first: BatchSizeResult, evaluation: SpeedResult | None) -> dict[str, Any]:
    """What benchmark.json tells of the settings as they are."""
    facts, training = parts.prepared.facts, first.training
    assert training is not None, "an error would have been raised"
    summary = summarise(parts.model, in_channels=facts.in_channels, image_size=facts.image_size)
    flops = _FORWARD_PASSES * summary.flops
    return {
        "device": parts.compute.name,
        "precision": parts.compute.precision,
        "batch_size": first.batch_size,
        "num_parts": training.num_parts,
        "training": speed_of(training.speed),
        "shares": dict(training.shares),
        "split_step_seconds": training.split.seconds / training.split.num_steps,
        "evaluation": speed_of(evaluation) if evaluation else None,
        "eval_batch_size": config["trainer"]["eval_batch_size"],
        "device_peak_bytes": first.device_peak_bytes,
        "num_parameters": summary.num_parameters,
        "forward_flops_per_image": summary.flops,
        "training_gflops_per_second": flops * training.speed.images_per_second / 1e9,
    }


def speed_of(speed: SpeedResult) -> dict[str, Any]:
    """The figures of some rounds."""
    return {
        "images_per_second": speed.images_per_second,
        "least": speed.least,
        "most": speed.most,
        "step_seconds": speed.step_seconds,
        "rounds": [asdict(one) for one in speed.rounds],
    }


def row_of(result: BatchSizeResult) -> dict[str, Any]:
    """What benchmark.json tells of another batch size."""
    training = result.training
    return {
        "batch_size": result.batch_size,
        "num_parts": training.num_parts if training else None,
        "training": speed_of(training.speed) if training else None,
        "device_peak_bytes": result.device_peak_bytes,
    }


def show(console: Console, found: dict[str, Any]) -> None:
    """Prints the figures, and then where the time of a step goes."""
    training, evaluation, peak = found["training"], found["evaluation"], found["device_peak_bytes"]
    facts = [
        ("training", f"{_speed(training)}; {1e3 * training['step_seconds']:.3g} ms a step of {found['batch_size']}"),
        ("evaluation", f"{_speed(evaluation)}; batches of {found['eval_batch_size']}" if evaluation else "no images"),
        (
            "memory",
            f"{_size(found['host_peak_bytes'])} of this process" + (f", {_size(peak)} of the GPU" if peak else ""),
        ),
        (
            "model",
            f"{found['num_parameters']:,} parameters, {found['forward_flops_per_image'] / 1e6:,.4g} MFLOP an image",
        ),
        (
            "arithmetic",
            f"{found['training_gflops_per_second']:,.3g} GFLOP/s in training, taken as three forward passes",
        ),
    ]
    console.facts(facts)
    split = found["split_step_seconds"]
    rows = [
        (_PHASE_WORDS[phase], f"{1e3 * split * found['shares'][phase]:.3g}", percent(found["shares"][phase]))
        for phase in PHASES
    ]
    console.table("where the time of a step goes", ("", "ms", "share"), rows)
    if found["device"].partition(" ")[0] != "cpu":
        console.say(f"measured with the device waited for in between: {1e3 * split:.3g} ms a step, nothing at one time")
    if found["batch_sizes"]:
        show_sizes(console, found["batch_sizes"])
    console.say()


def show_sizes(console: Console, sizes: list[dict[str, Any]]) -> None:
    """Prints the table of batch sizes."""
    on_device = any(size["device_peak_bytes"] for size in sizes)
    rows = []
    for size in sizes:
        training, peak = size["training"], size["device_peak_bytes"]
        cells = ["out of memory", "", ""]
        if training is not None:
            spread = f"{training['least']:,.0f} to {training['most']:,.0f}"
            cells = [f"{training['images_per_second']:,.0f}", spread, f"{1e3 * training['step_seconds']:.3g}"]
        rows.append([str(size["batch_size"]), *cells, *([_size(peak) if peak else ""] if on_device else [])])
    memory = ["GPU memory"] if on_device else []
    console.table("batch sizes", ("images", "images/s", "least, most", "ms a step", *memory), rows)


def _speed(speed: dict[str, Any]) -> str:
    """`12,300 images/s (12,100 to 12,500 in 5 rounds)`."""
    spread = f"{speed['least']:,.0f} to {speed['most']:,.0f} in {len(speed['rounds'])} rounds"
    return f"{speed['images_per_second']:,.0f} images/s ({spread})"


def _size(num_bytes: int) -> str:
    return f"{num_bytes / 2**20:,.0f} MiB"
