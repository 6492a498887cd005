"""Points on the arms of a spiral: the smallest problem that no linear classifier solves.

Does not know of any file; everything follows from the arguments.
"""

from __future__ import annotations

import math

import numpy as np

from cvtrain.data.arrays import image_data
from cvtrain.data.images import ImageData, Progress
from cvtrain.data.statistics import Statistics
from cvtrain.errors import ConfigError

_RANGES = {"num_classes": (2, 20), "per_class": (1, 1_000_000), "seed": (0, 2**63 - 1)}
_TURN = 2 * math.pi


def load_spiral(
    *,
    num_classes: int = 3,
    per_class: int = 1000,
    noise: float = 0.2,
    seed: int = 0,
    progress: Progress | None = None,
) -> ImageData:
    """Points of the plane, one arm of a spiral per class, within the unit circle but for rounding.

    Point `i` of class `c` lies at `t_i (sin phi_i, cos phi_i)` with `t = linspace(0, 1, per_class)` and
    `phi = linspace(2 pi c / C, 2 pi (c + 2) / C, per_class) + noise * N(0, 1)`. The test split is as large and has
    noise of its own. The points of a split lie in random order. A point travels as an image of 1x1 pixel and 2
    channels, float32 `(N, 1, 1, 2)`, in the unit of images, 255 being 1.0; its statistics are mean 0 and deviation 1,
    so that a model sees the bare coordinates.

    Args:
        num_classes: Arms, 2 to 20.
        per_class: Training points of each class, and as many to test on.
        noise: Standard deviation of the angle, in radians.
        seed: Of the noise, drawn from raw Philox bits by Box and Muller's method: no generator whose stream may change
            with a library's version is asked.
        progress: Never called; all sources take it.

    Source: NYU Deep Learning (LeCun & Canziani, 2020), notebook 04, spiral classification. Philox: Salmon et al.
    2011, "Parallel Random Numbers: As Easy as 1, 2, 3". Box & Muller 1958.

    Raises:
        ConfigError: An argument is out of range.
    """
    _check(noise, num_classes=num_classes, per_class=per_class, seed=seed)
    splits = []
    for split in range(2):
        arms = [_arm(c, num_classes, per_class, noise, (seed, 2 * c + split)) for c in range(num_classes)]
        pixels, labels = np.concatenate(arms), np.repeat(np.arange(num_classes), per_class)
        # In random order: the first points of an arm, which `max_per_class` keeps, would all lie at the centre.
        order = np.argsort(_bits(len(labels), (seed, 2 * num_classes + split)), kind="stable")
        splits.append(((255 * pixels[order]).astype(np.float32).reshape(-1, 1, 1, 2), labels[order]))
    names = tuple(f"arm_{label}" for label in range(num_classes))
    return image_data(*splits, class_names=names, statistics=Statistics((0.0, 0.0), (1.0, 1.0)))


def _check(noise: float, **values: int) -> None:
    problems = []
    for name, value in values.items():
        low, high = _RANGES[name]
        if not isinstance(value, int) or not low <= value <= high:
            problems.append(f"data.{name} = {value} must be a whole number from {low} to {high}")
    if not isinstance(noise, int | float) or not 0 <= noise < math.inf:
        problems.append(f"data.noise = {noise} must be a number >= 0")
    if problems:
        raise ConfigError(problems)


def _arm(label: int, num_classes: int, count: int, noise: float, key: tuple[int, int]) -> np.ndarray:
    """The points of one class, float64 `(count, 2)`."""
    first, last = (_TURN * turn / num_classes for turn in (label, label + 2))
    angle = np.linspace(first, last, count) + noise * _normal(count, key)
    return np.linspace(0, 1, count)[:, None] * np.stack([np.sin(angle), np.cos(angle)], axis=1)


def _normal(count: int, key: tuple[int, int]) -> np.ndarray:
    """Standard normal variates, float64 `(count,)`."""
    bits = _bits(2 * count, key).reshape(count, 2)
    uniform = ((bits >> np.uint64(11)) + np.uint64(1)) * 2.0**-53  # in (0, 1]: the logarithm of 0 is none
    return np.sqrt(-2 * np.log(uniform[:, 0])) * np.cos(_TURN * uniform[:, 1])


def _bits(count: int, key: tuple[int, int]) -> np.ndarray:
    return np.random.Philox(key=np.array(key, np.uint64)).random_raw(count)
