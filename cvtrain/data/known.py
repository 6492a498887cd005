"""Shapes of the standard data sets, known before they are read or downloaded.

Knows the settings of the `data` group, not images.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple


class KnownFacts(NamedTuple):
    """Number of classes, channels, and side of the square images in pixels."""

    num_classes: int
    channels: int
    image_size: int


_KNOWN = {
    "cvtrain.data.cifar.load_cifar10": KnownFacts(10, 3, 32),
    "cvtrain.data.mnist.load_mnist": KnownFacts(10, 1, 28),
    "cvtrain.data.mnist.load_fashion_mnist": KnownFacts(10, 1, 28),
}
_CLASSES_OF_FILES = {"cvtrain.data.food11.load_food11": 11, "cvtrain.data.palm.load_palm": 2}


def known_facts(settings: Mapping[str, Any]) -> KnownFacts | None:
    """The facts that settings alone tell, or None."""
    target = settings["_target_"]
    if target == "cvtrain.data.cifar.load_cifar100":
        return KnownFacts(100 if settings["label"] == "fine" else 20, 3, 32)
    if target == "cvtrain.data.digits.load_digits":
        return KnownFacts(10, 1, settings["image_size"])
    if target == "cvtrain.data.synthetic.load_synthetic":
        return KnownFacts(settings["num_classes"], settings["channels"], settings["image_size"])
    if target == "cvtrain.data.spiral.load_spiral":
        return KnownFacts(settings["num_classes"], 2, 1)
    if target in _CLASSES_OF_FILES and settings["channels"] != "auto" and settings["image_size"] is not None:
        return KnownFacts(_CLASSES_OF_FILES[target], settings["channels"], settings["image_size"])
    return _KNOWN.get(target)
