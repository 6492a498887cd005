"""Generated images that a network can learn to tell apart: striped, with a bright spot, under noise.

Does not know of any file; everything follows from the arguments.
"""

from __future__ import annotations

import numpy as np

from cvtrain.data.arrays import image_data
from cvtrain.data.images import ImageData, Progress
from cvtrain.errors import ConfigError

# Stripes across and down an image; no pair is another one turned by half a circle.
_WAVES = (
    *((1, 0), (0, 1), (1, 1), (1, -1), (2, 0), (0, 2), (2, 1), (1, 2)),
    *((2, -1), (1, -2), (2, 2), (2, -2), (3, 0), (0, 3), (3, 1), (1, 3)),
)
_CELLS = 4  # the spot's places form a grid of 4 x 4
_MAX_CLASSES = len(_WAVES) * _CELLS**2
_STRIPES, _SPOT, _NOISE = 40, 56, 64  # amplitudes in grey levels
_RANGES = {
    "num_classes": (2, _MAX_CLASSES),
    "per_class": (1, 100_000),
    "image_size": (8, 256),
    "channels": (1, 3),
    "seed": (0, 2**63 - 1),
}


def load_synthetic(
    *,
    num_classes: int = 10,
    per_class: int = 100,
    image_size: int = 32,
    channels: int = 3,
    seed: int = 0,
    progress: Progress | None = None,
) -> ImageData:
    """Images whose class shows in the direction of stripes, the place of a spot and, weakly, the colour.

    The stripes' phase, the spot's exact place, the brightness and the noise differ from image to image. All
    arithmetic is in whole numbers from raw Philox bits: every machine makes the same pixels, and the first images of
    a class stay the same when `per_class` grows.

    Args:
        num_classes: 2 to 256.
        per_class: Training images of each class; a fifth as many, at least one, to test on.
        image_size: Height and width in pixels, 8 to 256.
        channels: 1 or 3.
        seed: Draws other images of the same classes.
        progress: Told about classes made.

    Returns:
        Images uint8 `(N, image_size, image_size, channels)`, classes in turn: 0, 1, ..., 0, 1, ...

    Source: Philox: Salmon et al. 2011, "Parallel Random Numbers: As Easy as 1, 2, 3".

    Raises:
        ConfigError: An argument is out of range.
    """
    _check(num_classes=num_classes, per_class=per_class, image_size=image_size, channels=channels, seed=seed)
    splits = []
    for split, count in enumerate((per_class, max(1, per_class // 5))):
        pixels = np.empty((count, num_classes, image_size, image_size, channels), np.uint8)
        for label in range(num_classes):
            pixels[:, label] = _class_images(label, count, image_size, channels, (seed, 2 * label + split))
            if progress is not None:
                progress(label + 1, num_classes, f"making {('training', 'test')[split]} images")
        labels = np.tile(np.arange(num_classes), count)
        splits.append((pixels.reshape(-1, image_size, image_size, channels), labels))
    return image_data(*splits, class_names=tuple(f"class_{label:03d}" for label in range(num_classes)))


def _check(**values: int) -> None:
    problems = []
    for name, value in values.items():
        low, high = _RANGES[name]
        if not isinstance(value, int) or not low <= value <= high or (name == "channels" and value == 2):
            allowed = "1 or 3" if name == "channels" else f"a whole number from {low} to {high}"
            problems.append(f"data.{name} = {value} must be {allowed}")
    if problems:
        raise ConfigError(problems)


def _class_images(label: int, count: int, size: int, channels: int, key: tuple[int, int]) -> np.ndarray:
    """`count` images of one class, uint8 `(count, size, size, channels)`."""
    num_noise = size * size * channels
    words = 1 + (2 * num_noise + 7) // 8  # eight bytes for the image, two for each of its values
    bits = np.random.Philox(key=np.array(key, np.uint64)).random_raw(count * words)
    drawn = bits.astype("<u8").view(np.uint8).reshape(count, 8 * words)
    noise = drawn[:, 8 : 8 + 2 * num_noise].reshape(count, size, size, channels, 2).astype(np.int16).sum(-1) - 255
    per_image = drawn[:, :4].astype(np.int32)
    grey = _stripes(label, size, per_image[:, 0]) + _spot(label, size, per_image[:, 1:3])
    grey += (per_image[:, 3] >> 3)[:, None, None] - 16
    base = 112 + np.array([(37 * label + 53 * channel) % 32 for channel in range(channels)], np.int32)
    return np.clip(base + grey[..., None] + (noise * _NOISE >> 8), 0, 255).astype(np.uint8)


def _stripes(label: int, size: int, phases: np.ndarray) -> np.ndarray:
    """A triangle wave, int32 `(count, size, size)`, from `-_STRIPES` to `_STRIPES`."""
    across, down = _WAVES[label % len(_WAVES)]
    y, x = np.ogrid[:size, :size]
    angle = (256 * (across * x + down * y) // size + phases[:, None, None]) & 255
    return ((np.abs(2 * angle - 255) - 128) * _STRIPES >> 7).astype(np.int32)


def _spot(label: int, size: int, jitter: np.ndarray) -> np.ndarray:
    """A bright disc that fades outwards, int32 `(count, size, size)`, from 0 to `_SPOT`."""
    wave, turn = label % len(_WAVES), label // len(_WAVES)
    row, column = divmod((5 * wave + turn) % _CELLS**2, _CELLS)
    # In 1/256 of a pixel: the middle of the cell, moved by up to a sixteenth of the image either way.
    centre_y = (2 * row + 1) * 256 * size // (2 * _CELLS) + (jitter[:, 0] - 128) * size // 8
    centre_x = (2 * column + 1) * 256 * size // (2 * _CELLS) + (jitter[:, 1] - 128) * size // 8
    y, x = (256 * axis + 128 for axis in np.ogrid[:size, :size])
    radius = 256 * size // 6
    distance = (y - centre_y[:, None, None]) ** 2 + (x - centre_x[:, None, None]) ** 2
    return np.maximum(0, _SPOT - _SPOT * distance // radius**2).astype(np.int32)
