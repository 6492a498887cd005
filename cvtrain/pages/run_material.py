"""What the page of a run shows and no other file of the run holds: pictures, counts of each split, the layers.

Knows a model and its data at the end of a run, and writes `report.json`; not what a page looks like.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import torch
from torch import nn

from cvtrain import build
from cvtrain.config import Config
from cvtrain.data.augment import Augment
from cvtrain.engine.evaluator import EvaluationResult
from cvtrain.models.summary import summarise
from cvtrain.outputs import RunDir
from cvtrain.pages import pictures
from cvtrain.pages.pictures import Shown
from cvtrain.pages.run_files import MATERIAL_NAME
from cvtrain.plain_text import finite
from cvtrain.prepared import PreparedData
from cvtrain.seeding import derive_seed


def write_material(
    run_dir: RunDir,
    config: Config,
    prepared: PreparedData,
    *,
    model: nn.Module,
    split: str,
    result: EvaluationResult | None,
    warn: Callable[[str], None],
) -> None:
    """Writes report.json; what cannot be had, such as the shapes of a model that runs with real numbers only, is left.

    Args:
        run_dir: Of the run.
        config: Its settings.
        prepared: The data.
        model: Any weights.
        split: That `result` is of.
        result: With predictions; None where the run came to none.
        warn: Takes a sentence on each part that is left out.
    """
    content: dict[str, Any] = {"class_counts": _class_counts(prepared)}
    parts: dict[str, Callable[[], Any]] = {"model": lambda: _layers(model, prepared)}
    if pictures.can_be_shown(prepared.part("train")[0]):
        parts |= _picture_parts(config, prepared, split, result)
    for name, part in parts.items():
        try:
            content[name] = part()
        except Exception as error:  # an image that is gone, a model of the user's own: the report does without
            reason = (str(error) or type(error).__name__).splitlines()[0]
            warn(f"the report lacks its {name.replace('_', ' ')}: {reason}")
    text = json.dumps(finite(content), ensure_ascii=False, separators=(",", ":"))
    run_dir.write_text(run_dir.path / MATERIAL_NAME, text + "\n")


def _picture_parts(
    config: Config, prepared: PreparedData, split: str, result: EvaluationResult | None
) -> dict[str, Callable[[], Any]]:
    names, seed = prepared.facts.class_names, config["seed"]
    train = Shown(*prepared.part("train"), names)
    parts: dict[str, Callable[[], Any]] = {"class_examples": lambda: pictures.class_examples(train)}
    if config["task"] == "train":
        augment = build.augmentation(config, prepared.facts)
        augment_seed = derive_seed(seed, "augment")
        if augment != Augment():
            parts["augmented_examples"] = lambda: pictures.augmented_examples(train, augment, seed=augment_seed)
    if result is not None:
        shown = Shown(*prepared.part(split), names)
        worst, chosen = pictures.worst_errors(result), pictures.random_answers(result, seed=seed)
        parts["worst_errors"] = lambda: pictures.answered_pictures(shown, result, worst)
        parts["random_predictions"] = lambda: pictures.answered_pictures(shown, result, chosen)
    return parts


def _class_counts(prepared: PreparedData) -> dict[str, list[int]]:
    """Images of each class in each split, by label."""
    found = {}
    for split in ("train", "val", "test"):
        images, indices = prepared.part(split)
        found[split] = torch.bincount(images.labels[indices], minlength=prepared.facts.num_classes).tolist()
    return found


def _layers(model: nn.Module, prepared: PreparedData) -> dict[str, Any]:
    facts = prepared.facts
    return asdict(summarise(model, in_channels=facts.in_channels, image_size=facts.image_size))
