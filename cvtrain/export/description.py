"""What a program must know to use an exported model, as plain values: inputs, outputs, class names, preparation.

Knows facts of data and losses, not files.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from cvtrain.data.images import Preprocessing
from cvtrain.export.exported_model import ExportedModel
from cvtrain.losses.loss import normalised

DESCRIPTION_FORMAT = 1

_RESIZE = {
    "crop": "scale the shorter side to {size} px and cut the centre",
    "pad": "scale the longer side to {size} px and fill up with black, the picture in the centre",
    "stretch": "scale to {size}x{size} px whatever the aspect ratio",
}


def describe(exported: ExportedModel, loss_fn: nn.Module, *, num_outputs: int) -> dict[str, Any]:
    """What there is to say of inputs and outputs, whatever the format.

    Args:
        exported: The model.
        loss_fn: The loss that it was trained with.
        num_outputs: Numbers that the bare model gives per input.
    """
    facts, rule = exported.facts, exported.facts.preprocessing
    shape = ["N", *exported.input_shape]
    described: dict[str, Any] = {
        "format": DESCRIPTION_FORMAT,
        "class_names": list(facts.class_names),
        "input": {"name": exported.input_name, "dtype": "float32", "shape": shape},
        "output": {"name": "probabilities", "dtype": "float32", "shape": ["N", facts.num_classes]},
    }
    if not rule.is_point:
        described["input"] |= {"range": [0, 1], "colours": "grey" if rule.channels == 1 else "RGB"}
        described["preprocessing"] = {
            "image_size": rule.image_size,
            "channels": rule.channels,
            "resize": rule.resize,
            "steps": _steps(rule),
        }
    order = None if exported.permute is None else exported.permute.order.tolist()
    described["bare_model"] = {
        "mean": list(facts.statistics.mean),
        "std": list(facts.statistics.std),
        "pixel_order": order,
        "num_outputs": num_outputs,
        "probabilities": probabilities_rule(loss_fn, num_outputs),
        "layers": repr(exported.model).splitlines(),
    }
    return described


def as_json(description: Mapping[str, Any], *, indent: int | None = None) -> str:
    """Pure ASCII, so that class names of any bytes survive every container."""
    return json.dumps(description, indent=indent, ensure_ascii=True, allow_nan=False)


def _steps(rule: Preprocessing) -> list[str]:
    """How a picture becomes an input, in words."""
    colours = "grey by ITU-R 601 luma" if rule.channels == 1 else "RGB"
    return [
        "the first frame, upright by its EXIF orientation",
        "8 bits a channel; transparency over black",
        colours,
        f"{_RESIZE[rule.resize].format(size=rule.image_size)}, antialiased bilinear",
        "divided by 255; channels first",
    ]


def probabilities_rule(loss_fn: nn.Module, num_outputs: int) -> str:
    """By what name the outputs of the bare model become probabilities; found by trying, so that it is what is done.

    Returns:
        `softmax`, `sigmoid` (of one output: the probability of the second class), `clipped` (negative outputs count as
        0, the others are divided by their sum; softmax where none is positive) or `unknown`.
    """
    outputs = torch.linspace(-3, 5, 6 * num_outputs).view(6, num_outputs)  # the first row has no positive one
    found = loss_fn.probabilities(outputs)
    if num_outputs == 1:
        return "sigmoid" if torch.allclose(found[:, 1:], outputs.sigmoid()) else "unknown"
    for name, rule in (("softmax", lambda each: each.softmax(1)), ("clipped", normalised)):
        if found.shape == outputs.shape and torch.allclose(found, rule(outputs)):
            return name
    return "unknown"
