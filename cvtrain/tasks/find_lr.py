"""`task=find_lr`: raise the learning rate from far too small to far too large, and read three suggestions off the loss.

Reads like a recipe; knows settings, a folder and a console. The model that is trained for it is kept nowhere.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from cvtrain import build
from cvtrain.analysis.range_test import (
    RangeTestResult,
    SuggestionResult,
    analyse,
    combined,
    disagree,
    is_over,
)
from cvtrain.check import check
from cvtrain.config import Config, save_text
from cvtrain.console import Console
from cvtrain.engine.determinism import refusals_explained
from cvtrain.engine.events import Evaluation
from cvtrain.errors import ConfigError, DivergedError
from cvtrain.init_from import read_start
from cvtrain.outputs import RunDir
from cvtrain.pages.find_lr_page import HEADER, KINDS, TABLE_NAME, advice_of, draw_find_lr, write_find_lr_page
from cvtrain.parts import Parts, make_parts, make_trainer
from cvtrain.plain_text import csv_text
from cvtrain.record import new_card, recorded
from cvtrain.rehearsal import check_determinism
from cvtrain.resume import first_line
from cvtrain.signals import StopRequest

_DECADES_BELOW, _DECADES_ABOVE = 3, 2
"""Of the range around `optimizer.lr`, where no other is typed."""


@dataclass(frozen=True)
class Curve:
    """What one test measured.

    Args:
        lrs: Of each step, rising.
        losses: Of its batch, before the step; finite.
        num_steps: Those that the test was to take.
        end: Why it ended before, in words, or None.
    """

    lrs: list[float]
    losses: list[float]
    num_steps: int
    end: str | None


def run(config: Config) -> None:
    """Tests learning rates for the chosen model, data and optimizer.

    Raises:
        ConfigError: The range is none, or settings do not fit each other or the data.
        DataError: Missing or damaged.
        DivergedError: The loss is not finite from the first step on.
        OutputError: The folder cannot be written.
    """
    low, high = range_of(config)
    check(config, trains=True)
    check_determinism(config)
    build.limit_threads()
    name = f"{build.data_name(config)}-{build.model_name(config)}"
    run_dir = RunDir.create(Path(config["output_dir"]) / "find_lr" / name, suffix=config["name"])
    console, card = Console(run_dir.log), new_card(config)
    with StopRequest(), recorded(run_dir, card, discard_if_config_is_wrong=True):
        run_dir.write_text(run_dir.config_path, save_text(config))
        start = read_start(config)
        prepared = build.warned_of_leaks(config, build.data(config, progress=console.progress))
        check_determinism(config, prepared.facts)
        curves = []
        for number in range(config["repeats"]):
            parts = make_parts(with_seed(config, number), prepared, precision=None, start=start, team=None)
            if number == 0:
                introduce(config, parts, card, console, low=low, high=high)
            curves.append(measure(with_seed(config, number), parts, low=low, high=high, console=console))
        results = [analyse(curve.lrs, curve.losses) for curve in curves]
        suggestions = combined(results)
        notes = notes_of(curves, results, suggestions, low=low, high=high)
        card["find_lr"] = figures(config, curves, suggestions, notes, low=low, high=high)
        run_dir.write_text(run_dir.path / TABLE_NAME, csv_text(HEADER, rows_of(curves, results)))
        run_dir.write_card(card)
        show(config, console, curves, suggestions, notes)
        illustrate(run_dir.path, console)
        console.say(f"results  {run_dir.path}")


def range_of(config: Config) -> tuple[float, float]:
    """The lr of the first step and of the last.

    Raises:
        ConfigError: The optimizer has no lr, or the range is upside down.
    """
    lr = config["optimizer"].get("lr")
    if lr is None:
        raise ConfigError(f"optimizer={config['choices']['optimizer']} has no lr that could be tested")
    low, high = config["low"], config["high"]
    low = lr / 10**_DECADES_BELOW if low is None else low
    high = lr * 10**_DECADES_ABOVE if high is None else high
    if low >= high:
        raise ConfigError(f"the range of lr from {low:g} to {high:g} does not rise", hint="type low=... and high=...")
    return low, high


def with_seed(config: Config, number: int) -> Config:
    """The settings of a test: those of a run with another seed, which has other first weights and another order."""
    return {**config, "seed": config["seed"] + number}


# --------------------------------------------------------------------------------------------------------- measuring


def measure(config: Config, parts: Parts, *, low: float, high: float, console: Console) -> Curve:
    """Takes the steps of a training with these settings, but for the lr.

    Raises:
        DivergedError: The loss is not finite from the first step on, or a pixel is not.
    """
    base, num_steps = config["optimizer"]["lr"], config["num_steps"]
    trainer = make_trainer(
        as_range_test(config, first_factor=low / base, last_factor=high / base),
        parts,
        evaluate_fn=None,
        warn=console.warn,
    )
    lrs: list[float] = []
    losses: list[float] = []
    end = None
    try:
        with refusals_explained():
            for event in trainer.run():
                if not isinstance(event, Evaluation):
                    continue
                lrs.append(base * trainer.schedule.factor(event.step - 1))
                losses.append(event.train_loss)
                console.progress(event.step, num_steps, "raising the lr")
                if is_over(losses):
                    end = f"the loss was lost at lr {lrs[-1]:.3g}"
                    break
    except DivergedError as error:
        if not losses or "a pixel" in error.message:  # which no lr is the cause of
            error.hint = (
                error.hint if losses else f"type a smaller low, such as low={low / 1000:.3g}, or look at the data"
            )
            raise
        end = f"the loss was no finite number after lr {lrs[-1]:.3g}"
    finally:
        console.end_bar()
    return Curve(lrs, losses, num_steps, end)


def as_range_test(config: Config, *, first_factor: float, last_factor: float) -> Config:
    """The same settings for so many steps, each told of by itself, with a rising lr."""
    test = copy.deepcopy(config)
    test["scheduler"] = {
        "_target_": "cvtrain.schedulers.rising.Rising",
        "first_factor": first_factor,
        "last_factor": last_factor,
    }
    test["trainer"] |= {"epochs": None, "steps": config["num_steps"], "evaluate_every": 1, "ema": None}
    return test


# ----------------------------------------------------------------------------------------------------------- telling


def introduce(config: Config, parts: Parts, card: dict[str, Any], console: Console, *, low: float, high: float) -> None:
    """Says what is about to be tested on what, and notes it on the card."""
    prepared, facts = parts.prepared, parts.prepared.facts
    num_parameters = sum(p.numel() for p in parts.model.parameters())
    card.update(
        data_fingerprint=facts.fingerprint,
        split_hash=facts.split_hash,
        class_names=list(facts.class_names),
        class_counts=list(facts.class_counts),
        num_parameters=num_parameters,
        device=parts.compute.name,
        precision=parts.compute.precision,
        warnings=[*prepared.source.warnings, *(parts.taken.warnings if parts.taken else ())],
    )
    console.say(
        f"{build.model_name(config)} on {build.data_name(config)}: {num_parameters:,} parameters,"
        f" {len(prepared.split.train):,} training images; {parts.compute.name}, {parts.compute.precision}"
    )
    if parts.taken:
        console.say(parts.taken.sentence)
    for warning in card["warnings"]:
        console.warn(warning)
    times = f", {config['repeats']} times" if config["repeats"] > 1 else ""
    console.say(
        f"raises the lr of {config['choices']['optimizer']} from {low:.3g} to {high:.3g} in {config['num_steps']} steps"
        f" of {config['trainer']['batch_size']}{times}"
    )


def words_for(config: Config, lr: float) -> str:
    """What to type for a suggested lr: two digits, for a test tells no more; other rates of the optimizer go along."""
    settings, rounded = config["optimizer"], float(f"{lr:.2g}")
    others = [key for key, value in settings.items() if key.endswith("_lr") and isinstance(value, float)]
    along = [f"optimizer.{key}={settings[key] * rounded / settings['lr']:.2g}" for key in others]
    return " ".join([f"optimizer.lr={rounded:g}", *along])


def figures(
    config: Config,
    curves: Sequence[Curve],
    suggestions: Sequence[SuggestionResult],
    notes: Sequence[str],
    *,
    low: float,
    high: float,
) -> dict[str, Any]:
    """What the run card tells of the tests."""
    return {
        "low": low,
        "high": high,
        "num_steps": config["num_steps"],
        "repeats": config["repeats"],
        "optimizer": config["choices"]["optimizer"],
        "batch_size": config["trainer"]["batch_size"],
        "ends": [curve.end for curve in curves],
        "suggestions": [asdict(s) | {"words": words_for(config, s.lr)} for s in suggestions],
        "notes": list(notes),
    }


def rows_of(curves: Sequence[Curve], results: Sequence[RangeTestResult]) -> list[tuple[Any, ...]]:
    """The rows of find_lr.csv."""
    return [
        (repeat, step, lr, loss, smoothed)
        for repeat, (curve, result) in enumerate(zip(curves, results, strict=True))
        for step, (lr, loss, smoothed) in enumerate(
            zip(curve.lrs, curve.losses, result.smoothed.tolist(), strict=True), start=1
        )
    ]


def notes_of(
    curves: Sequence[Curve],
    results: Sequence[RangeTestResult],
    suggestions: Sequence[SuggestionResult],
    *,
    low: float,
    high: float,
) -> list[str]:
    """What keeps the tests from telling all that they could, and what to type then; by what most tests show."""
    most: Callable[[list[bool]], bool] = lambda found: 2 * sum(found) > len(found)  # noqa: E731
    num_steps, notes = curves[0].num_steps, []
    is_over_early = most([curve.end is not None and len(curve.lrs) < num_steps / 5 for curve in curves])
    if not most([result.has_fallen for result in results]):
        has_risen = most([r.has_risen or c.end is not None for r, c in zip(results, curves, strict=True)])
        words = f"type num_steps={2 * num_steps}, which gives each lr more steps"
        if is_over_early:
            words = f"type low={low / 1000:.3g}"
        elif not has_risen:
            words = f"type high={high * 100:.3g} or num_steps={2 * num_steps}"
        notes.append(f"the loss never fell clearly from lr {low:.3g} to {curves[0].lrs[-1]:.3g}: {words}")
    elif not any(suggestion.kind == "stable" for suggestion in suggestions):
        notes.append(
            f"the loss did not rise up to lr {curves[0].lrs[-1]:.3g}: type high={high * 100:.3g} to see where it does"
        )
    if suggestions and suggestions[0].lr <= 2 * low:
        notes.append(f"the loss fell from the first step on: type low={low / 1000:.3g} to see where that begins")
    if disagree(suggestions):
        notes.append("the suggestions lie more than 10 times apart: try them all, or type repeats=3")
    return notes


def show(
    config: Config,
    console: Console,
    curves: Sequence[Curve],
    suggestions: Sequence[SuggestionResult],
    notes: Sequence[str],
) -> None:
    """Prints what is suggested, and what to type."""
    taken, several = ", ".join(str(len(curve.lrs)) for curve in curves), len(curves) > 1
    end = "" if several or curves[0].end is None else f": {curves[0].end}"
    console.say(f"ended after {taken} of {curves[0].num_steps} steps{end}")
    rows = []
    for s in suggestions:
        spread = [f"{s.low:.2g} to {s.high:.2g}"] if several else []
        rows.append([KINDS[s.kind], f"{s.lr:.2g}", *spread, words_for(config, s.lr)])
    if rows:
        spread = ["least, largest"] if several else []
        console.table("learning rates to try", ("", "lr", *spread, "type"), rows)
        console.say()
        console.say(advice_of([asdict(s) for s in suggestions]))
    for note in notes:
        console.warn(note)


def illustrate(folder: Path, console: Console) -> None:
    """Draws the plots and writes the page; what fails costs a warning, for the figures are written."""
    for write in (draw_find_lr, write_find_lr_page):
        try:
            write(folder)
        except Exception as error:  # a full disk, a broken font, a library that is not there
            console.warn(f"a picture or the page could not be made: {first_line(error)}")
