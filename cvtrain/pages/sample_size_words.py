"""The words of the page of a sample-size study: how it was done, how its figures are to be read, what it leaves open.

Knows settings and counts; neither files nor what a page looks like.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cvtrain.config import Config

FORMS = {
    "hoiem": ("power law with an offset, slope held near a half", "error = alpha + eta n^gamma"),
    "saturating": ("saturating power law that begins at chance (M4)", "(e - e_inf) / (e_0 - e)^a = b n^-c"),
    "hill": ("logistic in the logarithm of the size", "e / (e_0 - e) = b n^-c"),
    "power": ("power law with an offset", "error = alpha + eta n^gamma"),
    "log_linear": ("straight line in the logarithm of the size", "accuracy = intercept + slope ln n"),
}
"""Name and formula of each form, e the error, e_0 that of guessing, n the images per class."""


def protocol_sentences(config: Config) -> list[str]:
    """How the trainings were made, from the settings of the study."""
    share = 100 * config["data"]["val_fraction"]
    lines = [
        "Each training sees the same number of images of every class, drawn anew for each replicate. Within a replicate"
        " a larger subset holds all images of the smaller ones.",
        f"{share:g} % of the images of a size are not trained on: they choose the best weights. The size counts them.",
        "All test images are looked at once per training, at its end, with its best weights.",
    ]
    return [*lines, *(_robust(config) if config["protocol"] == "robust" else _POSTS), *_changes(config)]


def _robust(config: Config) -> list[str]:
    budget = config["budget"]
    most = "" if budget["max_steps"] is None else f" and at most {budget['max_steps']:,}"
    lines = [
        f"Protocol robust: {budget['epochs']:g} passes over the images of a size, at least {budget['min_steps']:,}"
        f" steps{most}, validated about {budget['evaluations']} times. After {budget['patience']} evaluations without a"
        " better one a training is stopped, but not before the learning rate has come down.",
    ]
    if budget["scale_lr"]:
        lines.append("Small sizes take smaller batches, and the learning rate is made smaller with them.")
    return lines


_POSTS = ("Protocol posts: validated after every epoch, stopped after three without a better validation accuracy.",)


def _changes(config: Config) -> list[str]:
    """Settings of the trainer that take the place of the budget."""
    trainer = config["trainer"]
    typed = {key: trainer[key] for key in ("epochs", "steps", "evaluate_every") if trainer[key] is not None}
    typed |= {f"early_stopping.{k}": v for k, v in trainer["early_stopping"].items() if k == "patience" and v}
    if not typed:
        return []
    words = ", ".join(f"trainer.{key}={value}" for key, value in typed.items())
    return [f"Set by hand, in place of the budget: {words}."]


def reading_sentences(curve: Mapping[str, Any], *, has_replicates: bool) -> list[str]:
    """What points, bars and bands mean."""
    lines = ["The horizontal axis is logarithmic: equal steps are equal factors, so a doubling is as wide everywhere."]
    if has_replicates:
        lines.append(
            "A bar at a mean is its 95 % t interval over trainings, which differ in their images and in their seed."
        )
    else:
        lines.append("Each size was trained once: how much chance there is in a point is not known.")
    if curve.get("curve"):
        lines += [
            "The line is a mix of three forms, each believed as much as it predicted the largest sizes from those"
            " below. The band holds the mean of as many new trainings as the largest size has, with 95 % probability.",
            "Beyond the largest measured size the line is broken: nothing was measured there. Up to four times that"
            " size it may serve for planning.",
            "Intervals of sizes, such as [250, 410] images per class, hold 90 % of the curves that fit as well.",
        ]
    return lines


def open_questions(config: Config, *, num_test: int | None) -> list[str]:
    """What the study does not show, whatever its figures."""
    test = f"the same {num_test:,} test images" if num_test else "the same test images"
    return [
        f"All figures are of {test}. How another choice of test images would move them is not part of any interval.",
        "One model and one set of settings: learning rate and augmentation were not tuned for each size. A larger"
        " model, or other settings, may have another curve.",
        "Every class has as many images as every other one. With unequal classes more images may be needed.",
        "New images are taken to be like those at hand: from the same source, labelled with the same care.",
    ]


def commands(folder_word: str, *, is_done: bool, num_replicates: int) -> list[tuple[str, str]]:
    """What to type next: what for, and the command.

    Args:
        folder_word: The folder as one types it.
        is_done: Whether every training is done.
        num_replicates: Of the size that has most of them.
    """
    found = [] if is_done else [("Do what is left", f"cvtrain resume={folder_word}")]
    return [
        *found,
        ("Ask for another target; nothing is trained again", f"cvtrain resume={folder_word} target=0.8"),
        ("Check the curve on its own largest sizes", f"cvtrain resume={folder_word} validate=true"),
        ("Add trainings at each size", f"cvtrain resume={folder_word} replicates={num_replicates + 5}"),
        ("Lay it beside another study of the same data", f"cvtrain task=compare runs=[{folder_word},OTHER]"),
    ]
