"""`task=summary`: a model layer by layer, computed from shapes alone.

Reads like a recipe; knows settings and a console.
"""

from __future__ import annotations

import torch

from cvtrain import build
from cvtrain.check import check, expected_facts
from cvtrain.config import Config
from cvtrain.console import Console
from cvtrain.data.facts import DataFacts
from cvtrain.models.summary import ModelSummary, summarise


def run(config: Config) -> None:
    """Prints the summary of the model for images of the chosen data.

    Raises:
        ConfigError: The model does not take such images.
        DataError: The shape of the images is not known without the data, and they are not there.
    """
    check(config, trains=True)
    console = Console()
    facts = expected_facts(config) or build.data(config, progress=console.progress).facts
    num_outputs = build.loss(config, facts).num_outputs
    with torch.device("meta"):  # shapes need no weights, neither drawn nor downloaded
        model = build.model(build.without_pretrained(config), facts, num_outputs=num_outputs)
    summary = summarise(model, in_channels=facts.in_channels, image_size=facts.image_size)
    show(console, config, facts, summary)


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
    console.say()
    console.say(f"parameters  {summary.num_parameters:,} ({summary.num_trainable:,} trainable)")
    console.say(f"FLOPs       {count(summary.flops)} per image, forward (a multiply-add counts as 2)")


def count(number: float) -> str:
    """A large number with a unit, e.g. 626.2 M."""
    for unit in ("", " k", " M", " G"):
        if number < 1000:
            return f"{number:.4g}{unit}"
        number /= 1000
    return f"{number:.4g} T"
