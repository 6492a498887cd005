"""What the page of a run says of what it was made from: curves, data, model, time, settings, commands.

Knows the files of a run as plain values and how figures are worded; not how a page looks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from cvtrain.config import save_text
from cvtrain.pages.run_commands import (
    command_to_continue,
    command_to_reproduce,
    commands_to_use,
    typed_value,
)
from cvtrain.pages.run_files import RunFiles, picture_bytes
from cvtrain.pages.run_results import Facts, things
from cvtrain.report.charts import Axis, Mark, Series, line_chart
from cvtrain.report.page_parts import Column, Picture
from cvtrain.report.words import count, number, percent, seconds

SPLITS = {"train": "Training", "val": "Validation", "test": "Test"}

# --------------------------------------------------------------------------------------------------- curves


def curves(files: RunFiles) -> list[Markup]:
    """Loss, accuracy and learning rate against the epoch; none without evaluations."""
    if not files.rows:
        return []
    epochs = [row["epoch"] for row in files.rows]
    best = files.card.get("best") or {}
    marks = [Mark(best["epoch"], "best")] if best.get("epoch") is not None and best.get("val_loss") is not None else []
    x = Axis("epoch", "count" if all(epoch == int(epoch) for epoch in epochs) else "number")

    def chart(title: str, columns: Mapping[str, str], y: Axis, marks: Sequence[Mark] = marks) -> Markup:
        values = {name: [row.get(column) for row in files.rows] for column, name in columns.items()}
        series = [
            Series(name, epochs, column, color=color)
            for color, (name, column) in enumerate(values.items())
            if any(value is not None for value in column)
        ]
        return line_chart(series, title=title, x=x, y=y, marks=marks)

    losses = [row[name] for row in files.rows for name in ("train_loss", "val_loss") if row.get(name)]
    is_wide = bool(losses) and min(losses) > 0 and max(losses) > 30 * min(losses)
    return [
        chart("Loss", {"train_loss": "training", "val_loss": "validation"}, Axis("loss", log=is_wide)),
        chart("Accuracy", {"train_accuracy": "training", "val_accuracy": "validation"}, Axis("accuracy", "percent")),
        chart("Learning rate", {"lr": "learning rate"}, Axis("learning rate"), ()),
    ]


# ---------------------------------------------------------------------------------------------------- data


def data_facts(files: RunFiles) -> Facts:
    """How many images of what there are, and by what they are recognised."""
    card, counts = files.card, files.material.get("class_counts") or {}
    found: Facts = [("Data", card.get("data"), "")]
    if card.get("class_names"):
        found.append(("Classes", count(len(card["class_names"])), ""))
    if card.get("image_size"):
        size = f"{card['image_size']} x {card['image_size']} x {card['in_channels']}"
        found.append(("Input", size if things(files) == "images" else f"{card['in_channels']} numbers", ""))
    found += [(words, count(sum(counts[split])), things(files)) for split, words in SPLITS.items() if split in counts]
    for name, words, remark in (
        ("data_fingerprint", "Data hash", "the same data give the same hash"),
        ("split_hash", "Split hash", "the same images train, validate and test"),
    ):
        if card.get(name):
            found.append((words, card[name][:16], remark))
    return found


COUNT_COLUMNS = (Column("Class"), *(Column(words, "count") for words in SPLITS.values()))


def count_rows(files: RunFiles) -> list[list[Any]]:
    """Images of each class in each split."""
    counts = files.material.get("class_counts") or {}
    columns = [counts.get(split, []) for split in SPLITS]
    return [list(row) for row in zip(files.card.get("class_names") or (), *columns, strict=True)] if counts else []


def class_examples(files: RunFiles) -> list[Picture]:
    """A training image of each class."""
    examples = files.material.get("class_examples") or ()
    return [Picture(picture_bytes(p), f"{p['name']}: {p['label']}", (p["label"],)) for p in examples]


def augmented_examples(files: RunFiles) -> list[list[Picture]]:
    """The same training images as they look in the first epochs, a list for each image."""
    found: dict[str, list[Picture]] = {}
    for picture in files.material.get("augmented_examples") or ():
        lines = (f"epoch {picture['epoch']}", _mixture(picture))
        name = f"{picture['name']}, {': '.join(filter(None, lines))}"
        found.setdefault(picture["name"], []).append(Picture(picture_bytes(picture), name, tuple(filter(None, lines))))
    return list(found.values())


def _mixture(picture: Mapping[str, Any]) -> str:
    if "weight" not in picture:
        return ""
    weight = picture["weight"]
    return f"{percent(weight, 0)} {picture['label']}, {percent(1 - weight, 0)} {picture['other_label']}"


# --------------------------------------------------------------------------------------------------- model


def model_facts(files: RunFiles) -> Facts:
    """How large the model is."""
    card, model = files.card, files.material.get("model") or {}
    found: Facts = [("Model", card.get("model"), "")]
    if card.get("num_parameters") is not None:
        found.append(("Parameters", count(card["num_parameters"]), ""))
    if model:
        if model["num_trainable"] != model["num_parameters"]:
            found.append(("Trained", count(model["num_trainable"]), "parameters; the others are frozen"))
        found.append(("Work", _with_unit(model["flops"], "FLOPs"), "per image, forward; a multiply-add counts as 2"))
    if card.get("init_from"):
        found.append(("First weights", str(card["init_from"].get("checkpoint", "another run")), ""))
    return found


LAYER_COLUMNS = (
    Column("Layer"),
    Column("Kind"),
    Column("Output", hint="channels x height x width"),
    Column("Parameters", "count"),
    Column("FLOPs", "count", "per image, forward"),
)


def layer_rows(files: RunFiles) -> list[list[Any]]:
    """A row per layer."""
    layers = (files.material.get("model") or {}).get("layers") or ()
    return [
        [
            layer["name"] or "(the model itself)",
            layer["kind"],
            " x ".join(map(str, layer["output_shape"])),
            layer["num_parameters"],
            layer["flops"],
        ]
        for layer in layers
    ]


def _with_unit(value: float, unit: str) -> str:
    for prefix in ("", "k", "M", "G"):
        if value < 1000:
            return f"{value:.4g} {prefix}{unit}"
        value /= 1000
    return f"{value:.4g} T{unit}"


# ---------------------------------------------------------------------------------------------------- time


def time_facts(files: RunFiles) -> Facts:
    """How long it took, and what the time went into."""
    card, found = files.card, []
    training = sum(row.get("seconds") or 0 for row in files.rows)
    if card.get("seconds"):
        found.append(("All in all", seconds(card["seconds"]), "of all processes that worked on it"))
    if training:
        found.append(("Training", seconds(training), f"{len(files.rows):,} evaluations"))
    if card.get("seconds") and training and card["seconds"] > training:
        found.append(("The rest", seconds(card["seconds"] - training), "validation, test, checkpoints"))
    if card.get("images_per_second"):
        found.append(("Speed", f"{card['images_per_second']:,.0f} {things(files)}/s", "last epoch, training alone"))
    if card.get("data_wait_share") is not None:
        remark = "of the training time: a batch was prepared, or waited for"
        found.append(("Waiting for data", percent(card["data_wait_share"]), remark))
    if card.get("device"):
        found.append(("Device", card["device"], card.get("precision") or ""))
    if card.get("started"):
        found.append(("Started", str(card["started"]).replace("T", " "), ""))
    return found


# ------------------------------------------------------------------------------------------ settings, commands


def typed_rows(files: RunFiles) -> list[list[str]]:
    """What was typed: key and value."""
    typed = files.card.get("typed") or {}
    return [[key, typed_value(value)] for key, value in typed.items()]


def config_text(files: RunFiles) -> str:
    """All settings; secrets were masked when they were written, and are once more."""
    return save_text(files.config) if files.config else ""


def versions(files: RunFiles) -> Facts:
    """What the result depends on besides settings and data."""
    found: Facts = [(name, version, "") for name, version in (files.card.get("versions") or {}).items()]
    git = files.card.get("git")
    if git:
        remark = "with changes that are in no commit" if git.get("dirty") else ""
        found.append(("git commit of the folder it was started in", git["commit"][:12], remark))
    return found


def commands(files: RunFiles) -> Sequence[tuple[str, str]]:
    """What to type: what for, and the command."""
    found = [("Make the same run again", command_to_reproduce(files.card, files.config))]
    if files.card.get("task") != "train":
        return found
    if files.card.get("status") != "done":
        return [("Go on with this run", command_to_continue(files.folder)), *found] if can_go_on(files) else found
    return [*found, *commands_to_use(files.folder, can_predict=things(files) == "images")]


def can_go_on(files: RunFiles) -> bool:
    """Whether a run that is not done can be continued as it is: one that diverged would do so again."""
    return files.card.get("status") != "done" and files.card.get("stop_reason") != "diverged"


def run_facts(files: RunFiles) -> Facts:
    """What kind of run it is, in a few words."""
    card = files.card
    found: Facts = []
    if card.get("epochs") is not None:
        found.append(("Trained for", f"{card['epochs']:g} epochs", f"{card['steps']:,} steps"))
    if card.get("seconds"):
        found.append(("Time", seconds(card["seconds"]), ""))
    if card.get("seed") is not None:
        found.append(("Seed", number(card["seed"]) if card["seed"] < 1e6 else str(card["seed"]), ""))
    if card.get("num_parameters") is not None:
        found.append(("Parameters", count(card["num_parameters"]), card.get("model") or ""))
    return found
