"""Faults to plant in a run: models, and data, that cannot be learnt from for one known reason each.

Named by `_target_` under `plugins=[benchmarks]`, as a user's own would be.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from cvtrain.data.digits import load_digits
from cvtrain.data.images import ImageData, ImageSet, MemoryImages, Progress
from cvtrain.data.synthetic import load_synthetic
from cvtrain.models.cnn import lenet


def plain_stack(num_classes: int, in_channels: int, num_convolutions: int) -> nn.Sequential:
    """A narrow VGG: 3x3 convolutions and ReLUs without normalisation, a pool after every fourth."""
    layers: list[nn.Module] = []
    for number in range(num_convolutions):
        layers += [nn.Conv2d(in_channels if number == 0 else 8, 8, 3, padding=1), nn.ReLU()]
        if number % 4 == 1:
            layers.append(nn.MaxPool2d(2))
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, num_classes))


def thirteen_convolutions(num_classes: int, in_channels: int) -> nn.Module:
    """As deep as VGG-16."""
    return plain_stack(num_classes, in_channels, 13)


def sixteen_convolutions(num_classes: int, in_channels: int) -> nn.Module:
    """As deep as VGG-19."""
    return plain_stack(num_classes, in_channels, 16)


class Averaging(nn.Module):
    """Takes the mean over the batch where that over places was meant: the answer is the same for all images."""

    def __init__(self, num_classes: int, in_channels: int) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(in_channels, 8, 3), nn.ReLU(), nn.Conv2d(8, 16, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(2)
        )
        self.head = nn.Linear(64, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """`(B, C, H, W)` to `(B, K)`."""
        features = self.features(images).flatten(1)
        return self.head(features.mean(0, keepdim=True).expand_as(features))


def _lenet(num_classes: int, in_channels: int, image_size: int) -> nn.Module:
    return lenet(num_classes=num_classes, in_channels=in_channels, image_size=image_size)


def ends_in_softmax(num_classes: int, in_channels: int, image_size: int) -> nn.Module:
    """Gives probabilities to a loss that makes probabilities itself."""
    return nn.Sequential(_lenet(num_classes, in_channels, image_size), nn.Softmax(1))


class _Saturated(nn.Module):
    def forward(self, logits: Tensor) -> Tensor:
        return torch.sigmoid(40 * logits + 20)


def ends_in_sigmoid(num_classes: int, in_channels: int, image_size: int) -> nn.Module:
    """Outputs that are all 1, with no slope left."""
    return nn.Sequential(_lenet(num_classes, in_channels, image_size), _Saturated())


def dead_from_the_start(num_classes: int, in_channels: int, image_size: int) -> nn.Module:
    """Biases of -100 before every ReLU."""
    model = _lenet(num_classes, in_channels, image_size)
    layers = [m for m in model.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    for layer in layers[:-1]:
        nn.init.constant_(layer.bias, -100)
    return model


def all_zero(num_classes: int, in_channels: int, image_size: int) -> nn.Module:
    """Weights of zero, which all get the same gradient: none."""
    model = _lenet(num_classes, in_channels, image_size)
    for parameter in model.parameters():
        nn.init.zeros_(parameter)
    return model


class _Loud(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        return 255 * images + 30_000


def fed_raw_values(num_classes: int, in_channels: int, image_size: int) -> nn.Module:
    """Undoes the normalisation of its inputs, and more."""
    return nn.Sequential(_Loud(), _lenet(num_classes, in_channels, image_size))


def _with_labels(images: ImageSet, labels: Tensor) -> ImageSet:
    return ImageSet(images.images, labels, images.names)


def shuffled_labels(image_size: int = 16, progress: Progress | None = None) -> ImageData:
    """Digits with each other's labels."""
    data = load_digits(image_size=image_size)
    generator = torch.Generator().manual_seed(0)
    order = torch.randperm(len(data.train), generator=generator)
    return replace(data, train=_with_labels(data.train, data.train.labels[order]), fingerprint="shuffled")


def half_wrong_labels(image_size: int = 16, progress: Progress | None = None) -> ImageData:
    """Digits of which half have a label that was drawn."""
    data = load_digits(image_size=image_size)
    generator = torch.Generator().manual_seed(0)
    drawn = torch.randint(10, (len(data.train),), generator=generator)
    labels = torch.where(torch.rand(len(data.train), generator=generator) < 0.5, drawn, data.train.labels)
    return replace(data, train=_with_labels(data.train, labels), fingerprint="half wrong")


def shuffled_noise(num_classes: int = 10, image_size: int = 16, progress: Progress | None = None) -> ImageData:
    """Many images with labels that have nothing to do with them: too many to be learnt by heart."""
    data = load_synthetic(num_classes=num_classes, per_class=1000, image_size=image_size, channels=1)
    generator = torch.Generator().manual_seed(0)
    order = torch.randperm(len(data.train), generator=generator)
    return replace(data, train=_with_labels(data.train, data.train.labels[order]), fingerprint="noise")


def other_labels_to_validate(image_size: int = 16, progress: Progress | None = None) -> ImageData:
    """Digits whose validation labels follow another list of classes."""
    data = load_digits(image_size=image_size)
    return replace(data, val=_with_labels(data.test, (data.test.labels + 3) % 10), fingerprint="other map")


def same_images(image_size: int = 16, progress: Progress | None = None) -> ImageData:
    """The labels of the digits, and grey images."""
    data = load_digits(image_size=image_size)

    def grey(images: ImageSet) -> ImageSet:
        pixels = torch.full((len(images), image_size, image_size, 1), 128, dtype=torch.uint8)
        return ImageSet(MemoryImages(pixels), images.labels, images.names)

    return replace(data, train=grey(data.train), test=grey(data.test), fingerprint="grey")
