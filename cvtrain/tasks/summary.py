"""`task=summary`: a model layer by layer, computed from shapes alone.

Reads like a recipe; knows settings and a console.
"""

from __future__ import annotations

import torch

from cvtrain import build
from cvtrain.config import Config
from cvtrain.console import Console
from cvtrain.data.facts import DataFacts
from cvtrain.data.images import Preprocessing
from cvtrain.data.known import known_facts
from cvtrain.data.statistics import Statistics
from cvtrain.models.summary import ModelSummary, summarise


def run(config: Config) -> None:
    """Prints the summary of the model for images of the chosen data.

    Raises:
        ConfigError: The model does not take such images.
        DataError: The shape of the images is not known without the data, and they are not there.
    """
    build.check(config)
    console = Console()
    facts = facts_of(config)
    num_outputs = build.loss(config, facts).num_outputs
    with torch.device("meta"):
        model = build.model(config, facts, num_outputs=num_outputs)
    summary = summarise(model, in_channels=facts.in_channels, image_size=facts.image_size)
    show(console, config, facts, summary)


def facts_of(config: Config) -> DataFacts:
    """Classes and image shape: known in advance for the standard data sets, read from the data otherwise."""
    known = known_facts(config["data"])
    if known is None:
        return build.data(config, progress=Console().progress).facts
    names = tuple(f"class {i}" for i in range(known.num_classes))
    channels = known.channels
    return DataFacts(
        class_names=names,
        class_counts=(1,) * len(names),
        preprocessing=Preprocessing(known.image_size, channels),
        statistics=Statistics((0.5,) * channels, (0.25,) * channels),
        fingerprint="",
        split_hash="",
    )


def show(console: Console, config: Config, facts: DataFacts, summary: ModelSummary) -> None:
    """Prints the layers and the sums."""
    rows = [
        (
            layer.name,
            layer.kind,
            "x".join(map(str, layer.output_shape)),
            f"{layer.num_parameters:,}",
            count(layer.flops),
        )
        for layer in summary.layers
    ]
    shape = f"{facts.in_channels}x{facts.image_size}x{facts.image_size}"
    title = f"{build.model_name(config)} on {build.data_name(config)}: {shape} images, {facts.num_classes} classes"
    console.table(title, ("layer", "kind", "output", "parameters", "FLOPs"), rows)
    console.say(f"parameters  {summary.num_parameters:,} ({summary.num_trainable:,} trainable)")
    console.say(f"FLOPs       {count(summary.flops)} per image, forward (a multiply-add counts as 2)")


def count(number: float) -> str:
    """A large number with a unit, e.g. 626.2 M."""
    for unit in ("", " k", " M", " G"):
        if number < 1000:
            return f"{number:.4g}{unit}"
        number /= 1000
    return f"{number:.4g} T"
