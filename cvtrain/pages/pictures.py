"""Small pictures for a page: which images of a run are shown, and how they are kept in a JSON file.

Knows images, labels and predictions; neither runs nor pages.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from cvtrain.data.augment import Augment
from cvtrain.data.draws import Draws
from cvtrain.data.images import ImageSet
from cvtrain.engine.evaluator import EvaluationResult
from cvtrain.plain_text import printable
from cvtrain.seeding import permutation

LARGEST_SIDE = 96
"""Pixels of a stored picture; larger ones are shrunk."""
_LOSSLESS_SIDE = 48
"""Up to here PNG: a small picture takes 2 to 5 kB so, and JPEG would blur what a model sees in it."""
_LONGEST_NAME = 200

NUM_WORST, NUM_RANDOM, NUM_CLASSES, NUM_AUGMENTED, NUM_EPOCHS = 12, 12, 12, 4, 5
"""Pictures of each kind: 12 + 12 + 12 + 4 * 5 = 56."""


@dataclass(frozen=True)
class Shown:
    """An image set, the images of one split in it, and the names of classes and images.

    Args:
        images: All of them.
        indices: int64 `(N,)`, those of the split.
        class_names: By label.
    """

    images: ImageSet
    indices: Tensor
    class_names: tuple[str, ...]

    def name(self, position: int) -> str:
        """What to call an image: its path, or its index."""
        index, names = int(self.indices[position]), self.images.names
        return printable(names[index])[-_LONGEST_NAME:] if names is not None else str(index)

    def read(self, positions: Sequence[int]) -> Tensor:
        """The pixels `(B, C, H, W)` at some positions of the split."""
        return self.images.images.read(self.indices[torch.as_tensor(positions, dtype=torch.int64)])


def can_be_shown(images: ImageSet) -> bool:
    """Whether these are pictures: grey or in colour, and of more than one pixel."""
    _, channels, height, width = images.images.shape
    return channels in (1, 3) and height * width > 1


def answered_pictures(shown: Shown, result: EvaluationResult, positions: Sequence[int]) -> list[dict[str, Any]]:
    """Images of an evaluated split with what they were taken for.

    Args:
        shown: The split.
        result: With predictions, in the order of the split.
        positions: Of the images in the split.
    """
    if not positions:
        return []
    assert result.labels is not None, "predictions were collected"
    assert result.predictions is not None, "predictions were collected"
    probabilities = _top(result)
    return [
        {
            "image": encoded(pixels),
            "name": shown.name(at),
            "label": shown.class_names[int(result.labels[at])],
            "prediction": shown.class_names[int(result.predictions[at])],
            "probability": round(float(probabilities[at]), 6),
        }
        for at, pixels in zip(positions, shown.read(positions), strict=True)
    ]


def worst_errors(result: EvaluationResult) -> list[int]:
    """Positions of the wrong answers of the highest probability, the most certain first."""
    wrong = (result.labels != result.predictions).nonzero().squeeze(1)
    order = _top(result)[wrong].argsort(descending=True, stable=True)
    return wrong[order][:NUM_WORST].tolist()


def random_answers(result: EvaluationResult, *, seed: int) -> list[int]:
    """Positions of a few answers, right and wrong as they come; the same for the same seed."""
    return permutation(result.num_images, seed, "shown in the report")[:NUM_RANDOM].tolist()


def _top(result: EvaluationResult) -> Tensor:
    assert result.probabilities is not None, "predictions were collected"
    assert result.predictions is not None, "predictions were collected"
    return result.probabilities.gather(1, result.predictions[:, None]).squeeze(1)


def class_examples(shown: Shown) -> list[dict[str, Any]]:
    """The first image of each of the first classes that have one."""
    positions = _firsts(shown)
    return [
        {"image": encoded(pixels), "name": shown.name(at), "label": shown.class_names[label]}
        for (label, at), pixels in zip(positions.items(), shown.read(list(positions.values())), strict=True)
    ]


def _firsts(shown: Shown) -> dict[int, int]:
    """The position of the first image of each class, by label."""
    labels = shown.images.labels[shown.indices]
    found: dict[int, int] = {}
    for label in range(min(len(shown.class_names), 1_000)):
        members = (labels == label).nonzero()
        if len(members):
            found[label] = int(members[0])
        if len(found) == NUM_CLASSES:
            break
    return found


def augmented_examples(shown: Shown, augment: Augment, *, seed: int) -> list[dict[str, Any]]:
    """The same images as training sees them in its first epochs; mixed ones are mixed with each other.

    Args:
        shown: The training split.
        augment: How images are varied.
        seed: Of the augmentation.
    """
    positions = list(_firsts(shown).values())[:NUM_AUGMENTED]
    pixels, indices = shown.read(positions), shown.indices[positions]
    labels = shown.images.labels[indices]
    found = []
    for epoch in range(NUM_EPOCHS):
        draws = Draws(seed, epoch, indices)
        images, weights, others = augment(pixels, draws), [1.0] * len(positions), labels
        if augment.mixes:
            mixture = augment.mix(images.float(), labels, draws)
            images, others, weights = mixture.images, mixture.other_labels, mixture.weight.tolist()
        for at, image, label, other, weight in zip(positions, images, labels, others, weights, strict=True):
            words = {"label": shown.class_names[label], "epoch": epoch + 1}
            if weight < 1:
                words |= {"other_label": shown.class_names[other], "weight": round(weight, 4)}
            found.append({"image": encoded(image), "name": shown.name(at), **words})
    return found


def encoded(pixels: Tensor) -> str:
    """A picture as a file in base 64: PNG where it is small, else JPEG.

    Args:
        pixels: `(C, H, W)`, uint8 or float, 0..255; what lies beyond is cut off.
    """
    from PIL import Image

    array = pixels.float().round().clamp(0, 255).to(torch.uint8).permute(1, 2, 0).cpu().numpy()
    picture = Image.fromarray(array[:, :, 0] if array.shape[2] == 1 else array)
    picture.thumbnail((LARGEST_SIDE, LARGEST_SIDE), Image.Resampling.BOX)
    buffer = io.BytesIO()
    if max(picture.size) <= _LOSSLESS_SIDE:
        picture.save(buffer, "PNG", optimize=True)
    else:
        picture.save(buffer, "JPEG", quality=85)
    return base64.b64encode(buffer.getvalue()).decode("ascii")
