"""Test pictures that differ from the training images as pictures of one's own do: turned, shifted, scaled, relit.

    python -m benchmarks.unlike_pictures SOURCE TARGET

SOURCE holds train/<class>/ and test/<class>/ as for data=image_folder. TARGET gets every test picture, changed, and the
first 20 training pictures of each class as they are, because every data set has some. The same each time.
"""

from __future__ import annotations

import argparse
import random
from pathlib import Path

from PIL import Image, ImageEnhance
from PIL.Image import Resampling, Transform

TURN_DEGREES, SHIFT, ZOOM, LIGHT = 25, 0.12, 0.2, 0.4
"""Up to so many degrees; shares of the side; of the size; of brightness, contrast and saturation."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path)
    parser.add_argument("target", type=Path)
    arguments = parser.parse_args()
    rng = random.Random(0)
    for path in sorted(arguments.source.glob("test/*/*")):
        target = (arguments.target / path.relative_to(arguments.source)).with_suffix(".png")
        target.parent.mkdir(parents=True, exist_ok=True)
        with Image.open(path) as picture:
            changed(picture.convert("RGB"), rng).save(target)
    for folder in sorted(arguments.source.glob("train/*")):
        for path in sorted(folder.iterdir())[:20]:
            target = arguments.target / path.relative_to(arguments.source)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(path.read_bytes())


def changed(picture: Image.Image, rng: random.Random) -> Image.Image:
    side, zoom = picture.width, rng.uniform(1 - ZOOM, 1 + ZOOM)
    shift = [rng.uniform(-SHIFT, SHIFT) * side for _ in range(2)]
    turned = picture.rotate(rng.uniform(-TURN_DEGREES, TURN_DEGREES), Resampling.BILINEAR, translate=tuple(shift))
    cut = side * (1 - 1 / zoom) / 2
    scaled = turned.transform((side, side), Transform.EXTENT, (cut, cut, side - cut, side - cut), Resampling.BILINEAR)
    for light in (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color):
        scaled = light(scaled).enhance(rng.uniform(1 - LIGHT, 1 + LIGHT))
    return scaled


if __name__ == "__main__":
    main()
