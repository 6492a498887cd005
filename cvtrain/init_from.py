"""The weights that a run starts from when they are not random: those of another run (`model.init_from=RUN|FILE`).

Knows checkpoints and models, and the words for what does not fit; not how a run goes on from there.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from cvtrain import build, schema
from cvtrain.check import expected_facts
from cvtrain.config import Config
from cvtrain.data.facts import DataFacts
from cvtrain.errors import CheckpointError, ConfigError
from cvtrain.finding import find_checkpoint
from cvtrain.saved_model import read_model

SETTING = "model.init_from"
_NAMES_SHOWN = 6


@dataclass(frozen=True)
class Start:
    """What another run hands on.

    Args:
        name: As it was typed.
        path: The checkpoint file.
        step: Steps that its weights have been trained.
        config: The settings of that run.
        facts: Of the data that it was trained on; its weights expect their normalisation.
        weights: Every tensor of the model by name.
        averages: Averaged parameters, in the order of the model's, or None.
        notes: Sentences about damaged checkpoints that were passed over.
    """

    name: str
    path: Path
    step: int
    config: Config
    facts: DataFacts
    weights: Mapping[str, Tensor]
    averages: list[Tensor] | None
    notes: tuple[str, ...] = ()

    def origin(self) -> dict[str, Any]:
        """For run cards and checkpoints: file, step and SHA-256 (hex) of the file."""
        with open(self.path, "rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        return {"path": str(self.path), "step": self.step, "sha256": digest}


@dataclass(frozen=True)
class Taken:
    """What was taken over, in words and for the record; the weights themselves are the model's now.

    Args:
        sentence: For the console.
        origin: File, step and SHA-256, for the run card and the checkpoints.
        warnings: What the user should know.
    """

    sentence: str
    origin: dict[str, Any]
    warnings: tuple[str, ...]


def read_start(config: Config) -> Start | None:
    """The weights that settings name, read and, where the shape of the images is known in advance, tried.

    Returns:
        None when they name none.

    Raises:
        CheckpointError: There is no checkpoint, or it cannot be used.
        ConfigError: It does not fit the model.
    """
    name = config["model"].get("init_from")
    if name is None:
        return None
    loaded = find_checkpoint(Path(name), setting=SETTING)
    saved = read_model(loaded)
    start = Start(
        name=str(name),
        path=saved.path,
        step=saved.step,
        config=saved.config,
        facts=saved.facts,
        weights=saved.weights,
        averages=saved.averages,
        notes=saved.notes,
    )
    _check_known(config, start)
    return start


def _check_known(config: Config, start: Start) -> None:
    """Compares with a model of shapes alone, where the settings tell of which images."""
    facts = expected_facts(config)
    if facts is None:
        return
    num_outputs = build.loss(config, facts).num_outputs
    with torch.device("meta"):
        model = build.model(build.without_pretrained(config), facts, num_outputs=num_outputs)
    _check_fits(model, start, config=config, facts=facts)


def take_weights(model: nn.Module, start: Start, *, config: Config, prepared: build.PreparedData) -> Taken:
    """Puts the weights into a model, averaged ones if there are any.

    The last layer stays as it is when it is another one: of another number of outputs, or without a bias.

    Args:
        model: Changed in place.
        start: The weights.
        config: The settings of the run here.
        prepared: The data here.

    Raises:
        ConfigError: Another tensor is missing, unknown or of another shape.
        CheckpointError: The averaged weights are not those of the model.
    """
    left_new = _check_fits(model, start, config=config, facts=prepared.facts)
    own = model.state_dict()
    taken = own.keys() - left_new
    with torch.no_grad():
        for name in taken:
            own[name].copy_(start.weights[name])
        if start.averages is not None:
            _take_averages(model, start, left_new)
    head = f", new head for {prepared.facts.num_classes} classes" if left_new else ""
    sentence = f"starts from {start.name} (step {start.step}): {len(taken)} of {len(own)} tensors{head}"
    found = (_leak_warning(start, prepared), _other_pixels(start, prepared), _other_activation(start, config))
    warnings = (*start.notes, *(warning for warning in found if warning))
    return Taken(f"{sentence}; its normalisation", start.origin(), warnings)


def _take_averages(model: nn.Module, start: Start, left_new: set[str]) -> None:
    assert start.averages is not None, "the caller has looked"
    parameters = dict(model.named_parameters())
    names = [name for name in start.weights if name in parameters or name in left_new]  # buffers have no average
    shapes = [tuple(start.weights[name].shape) for name in names]
    if [tuple(average.shape) for average in start.averages] != shapes:
        raise CheckpointError(f"{start.path} cannot be used: its averaged weights are not those of its model")
    for name, average in zip(names, start.averages, strict=True):
        if name not in left_new:
            parameters[name].copy_(average)


def with_normalisation(prepared: build.PreparedData, facts: DataFacts) -> build.PreparedData:
    """The same data, normalised by the statistics of others: those that weights were trained with."""
    own = dataclasses.replace(prepared.facts, statistics=facts.statistics)
    return dataclasses.replace(prepared, facts=own)


def _leak_warning(start: Start, prepared: build.PreparedData) -> str | None:
    """A sentence when the source was trained on images that validate here, or None."""
    theirs, ours = start.facts, prepared.facts
    other_split = theirs.fingerprint == ours.fingerprint and theirs.split_hash != ours.split_hash
    if not other_split or not prepared.split.val_from_train or not len(prepared.split.val):
        return None
    return (
        f"{SETTING}: {start.name} was trained on the same data, split otherwise: images that validate here may have"
        " trained it, so validation looks better than it is (the test images are the same)"
    )


def _other_pixels(start: Start, prepared: build.PreparedData) -> str | None:
    """A sentence when the source knows pixels in another order, or None."""
    theirs, ours = (facts.preprocessing.permute_pixels for facts in (start.facts, prepared.facts))
    if theirs == ours:
        return None
    return (
        f"{SETTING}: {start.name} was trained with data.permute_pixels={schema.shown(theirs)}, here it is"
        f" {schema.shown(ours)}: its weights know the pixels in another order"
    )


def _other_activation(start: Start, config: Config) -> str | None:
    """A sentence when the weights fit, but belong to a net with another function between its layers, or None."""
    theirs, ours = (settings["model"].get("activation") for settings in (start.config, config))
    if theirs == ours or None in (theirs, ours):
        return None
    return f"{SETTING}: {start.name} was trained with model.activation={theirs}, here it is {ours}"


# ------------------------------------------------------------------------------------------------- what fits


def _check_fits(model: nn.Module, start: Start, *, config: Config, facts: DataFacts) -> set[str]:
    """Compares names and shapes.

    Returns:
        The tensors of the last layer, if they are to be left new.

    Raises:
        ConfigError: With all that differs.
    """
    if start.facts.in_channels != facts.in_channels:
        theirs, ours = (f"{n} channel{'s' * (n > 1)}" for n in (start.facts.in_channels, facts.in_channels))
        raise ConfigError(
            f"{SETTING}={start.name}: the checkpoint takes images of {theirs}, these have {ours}",
            hint=f"for image folders type data.channels={start.facts.in_channels}",
        )
    own = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    saved = {name: tuple(tensor.shape) for name, tensor in start.weights.items()}
    left_new = _new_head(model, own, saved)
    differing = [n for n in own.keys() & saved.keys() - left_new if own[n] != saved[n]]
    lists = {
        "missing there": [n for n in own if n not in saved],
        "unknown here": [n for n in saved if n not in own and n not in left_new],
        "of another shape": [f"{n} ({_shown(saved[n])} there, {_shown(own[n])} here)" for n in own if n in differing],
    }
    if any(lists.values()):
        raise _misfit(start, lists, config=config, facts=facts)
    return left_new


def _new_head(model: nn.Module, own: Mapping[str, tuple], saved: Mapping[str, tuple]) -> set[str]:
    """The tensors of the last layer, here and there, when it differs in more than its numbers; else none."""
    layers = [n for n, m in model.named_modules() if isinstance(m, nn.Linear | nn.modules.conv._ConvNd)]
    if not layers:
        return set()
    here, there = ({n: s for n, s in of.items() if n.rpartition(".")[0] == layers[-1]} for of in (own, saved))
    weight = f"{layers[-1]}.weight"
    if here == there or weight not in here or weight not in there or here[weight][1:] != there[weight][1:]:
        return set()
    return {*here, *there}


def _misfit(start: Start, lists: Mapping[str, list[str]], *, config: Config, facts: DataFacts) -> ConfigError:
    """The error for tensors that do not fit: first what explains them, then their names."""
    theirs, ours = build.model_name(start.config), build.model_name(config)
    hint = None
    if theirs != ours:
        sentence = f"the checkpoint holds {theirs}, the model here is {ours}"
        hint = f"type model={start.config['choices']['model']}"
    else:
        before, now = (dict(schema.leaves(settings["model"])) for settings in (start.config, config))
        differing = [k for k in now if k in before and before[k] != now[k] and k != "init_from"]
        settings = [f"model.{k} is {schema.shown(before[k])} there, {schema.shown(now[k])} here" for k in differing]
        if start.facts.image_size != facts.image_size:
            settings.append(f"images have {start.facts.image_size} px there, {facts.image_size} px here")
        sentence = f"the checkpoint does not fit {ours}" + (f": {'; '.join(settings)}" if settings else "")
    named = [f"{len(n)} tensor{'s' * (len(n) > 1)} {what}: {_listed(n)}" for what, n in lists.items() if n]
    return ConfigError([f"{SETTING}={start.name}: {sentence}", *named], hint=hint)


def _listed(names: list[str]) -> str:
    more = f", and {len(names) - _NAMES_SHOWN} more" if len(names) > _NAMES_SHOWN else ""
    return ", ".join(names[:_NAMES_SHOWN]) + more


def _shown(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape)) or "a number"
