"""How much of what is planted `task=audit` finds, and how much it finds that is not there, on photographs.

    python -m benchmarks.audit ROOT [--count 1000]

ROOT holds train/<class>/ and test/<class>/ as for data=image_folder. Copies of test pictures are changed as copies are,
each in one way, and looked for among all training pictures and the test pictures themselves. What is found beyond them,
and was not found among the unchanged pictures, counts as a false alarm. Exact copies and copies saved anew without loss
are planted too. Nothing in ROOT is changed. The same each time.
"""

from __future__ import annotations

import argparse
import io
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageEnhance, ImageFilter
from PIL.Image import Resampling, Transpose

from cvtrain.data.audit.inspection import THUMBNAIL_SIZE, Seen, inspect_files, inspect_pixels
from cvtrain.data.audit.likeness import find_alike
from cvtrain.data.audit.survey import Survey, same_pictures


def jpeg(quality: int) -> Callable[[Image.Image], Image.Image]:
    def change(picture: Image.Image) -> Image.Image:
        buffer = io.BytesIO()
        picture.save(buffer, "JPEG", quality=quality)
        return Image.open(buffer).convert("RGB")

    return change


def cut(share: float) -> Callable[[Image.Image], Image.Image]:
    """Takes a share of the width off at each side."""

    def change(picture: Image.Image) -> Image.Image:
        width, height = picture.size
        box = (share * width, share * height, (1 - share) * width, (1 - share) * height)
        return picture.resize(picture.size, Resampling.BILINEAR, box=box)

    return change


def scaled(factor: float) -> Callable[[Image.Image], Image.Image]:
    return lambda p: p.resize((round(p.width * factor), round(p.height * factor)), Resampling.BILINEAR)


def noisy(picture: Image.Image) -> Image.Image:
    noise = np.random.default_rng(0).normal(0, 8, (picture.height, picture.width, 3))
    return Image.fromarray((np.asarray(picture) + noise).clip(0, 255).astype(np.uint8))


CHANGES: dict[str, Callable[[Image.Image], Image.Image]] = {
    "JPEG quality 50": jpeg(50),
    "JPEG quality 20": jpeg(20),
    "3/4 of the size": scaled(0.75),
    "twice the size": scaled(2),
    "0.6 of the brightness": lambda p: ImageEnhance.Brightness(p).enhance(0.6),
    "1.4 of the brightness": lambda p: ImageEnhance.Brightness(p).enhance(1.4),
    "0.6 of the contrast": lambda p: ImageEnhance.Contrast(p).enhance(0.6),
    "1.5 of the contrast": lambda p: ImageEnhance.Contrast(p).enhance(1.5),
    "without colour": lambda p: p.convert("L").convert("RGB"),
    "blurred": lambda p: p.filter(ImageFilter.GaussianBlur(0.7)),
    "noise of 8 levels": noisy,
    "mirrored": lambda p: p.transpose(Transpose.FLIP_LEFT_RIGHT),
    "3 % cut off each side": cut(0.03),
    "6 % cut off each side": cut(0.06),
    "10 % cut off each side": cut(0.10),
    "turned by 2 degrees": lambda p: p.rotate(2, Resampling.BILINEAR),
    "turned by 5 degrees": lambda p: p.rotate(5, Resampling.BILINEAR),
    "turned by 10 degrees": lambda p: p.rotate(10, Resampling.BILINEAR),
    "turned by 90 degrees": lambda p: p.transpose(Transpose.ROTATE_90),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", type=Path)
    parser.add_argument("--count", type=int, default=1000, help="pictures that are copied")
    arguments = parser.parse_args()
    train, test = (sorted(map(str, arguments.root.glob(f"{split}/*/*"))) for split in ("train", "test"))
    chosen = np.sort(np.random.default_rng(0).permutation(len(test))[: arguments.count]).tolist()
    started = time.process_time()
    seen = [look for look in inspect_files(None, [*train, *test]) if isinstance(look, Seen)]
    assert len(seen) == len(train) + len(test), "a picture cannot be read"
    print(f"looking: {(time.process_time() - started) / len(seen) * 1e6:.0f} us of one core a picture")
    exact(seen, [test[i] for i in chosen])
    alike(seen, len(train), test, chosen)


def exact(seen: list[Seen], copied: list[str]) -> None:
    """Prints how many planted exact copies are found, and how many pairs more."""
    before = len(same_pictures(survey_of(seen))[0])
    with tempfile.TemporaryDirectory() as folder:
        paths = []
        for i, path in enumerate(copied):
            paths.append(Path(folder, f"{i}.jpg"))
            paths[-1].write_bytes(Path(path).read_bytes())
            paths.append(Path(folder, f"{i}.bmp"))
            Image.open(path).save(paths[-1])
        pairs, _ = same_pictures(survey_of([*seen, *inspect_files(None, list(map(str, paths)))]))
    kinds = {kind: sum(pair.kind == kind for pair in pairs) for kind in ("same_file", "same_pixels")}
    print(f"exact: {before} pairs as they are; with {len(copied)} copies and {len(copied)} saved anew: {kinds}")


def survey_of(seen: list[Seen | str]) -> Survey:
    zeros = torch.zeros(len(seen), dtype=torch.int64)
    return Survey(zeros, zeros, [str(i) for i in range(len(seen))], ("one",), seen)


def alike(seen: list[Seen], num_train: int, test: list[str], chosen: list[int]) -> None:
    """Prints what is found among the pictures as they are, then for each change recall and false alarms."""
    pictures = thumbnails_of(seen)
    known, seconds = pairs_of(pictures, num_train, len(test))
    leaks = {a for a, b in known if a >= num_train > b}
    print(f"alike: {len(leaks)} test pictures with one in train; {len(known)} pairs in all; {seconds:.0f} s of cores")
    near: dict[int, set[int]] = {}
    for a, b in known:
        near.setdefault(a, set()).add(b)
        near.setdefault(b, set()).add(a)
    print(f"{'change':24} {'recall':>7} {'false alarms':>13}")
    some = torch.randperm(num_train, generator=torch.Generator().manual_seed(0))[:10_000]
    gallery = torch.cat([some, torch.tensor([num_train + i for i in chosen])])
    for name, change in CHANGES.items():
        copies = [inspect_pixels(np.asarray(change(Image.open(test[i]).convert("RGB")))[None])[0] for i in chosen]
        found, _ = pairs_of(torch.cat([pictures[gallery], thumbnails_of(copies)]), len(some), len(chosen), len(chosen))
        recalled, false = set(), set()
        for a, b in found:
            if a < len(gallery) or b >= len(gallery):
                continue
            row, original, partner = a - len(gallery), num_train + chosen[a - len(gallery)], int(gallery[b])
            if partner == original:
                recalled.add(row)
            elif partner not in near.get(original, ()):
                false.add(row)
        print(
            f"{name:24} {100 * len(recalled) / len(chosen):5.1f} % {100 * len(false) / len(chosen):11.2f} %", flush=True
        )


def thumbnails_of(seen: list[Seen]) -> torch.Tensor:
    joined = bytearray(b"".join(look.thumbnail for look in seen))
    return torch.frombuffer(joined, dtype=torch.uint8).view(-1, THUMBNAIL_SIZE, THUMBNAIL_SIZE)


def pairs_of(thumbnails: torch.Tensor, *split_sizes: int) -> tuple[set[tuple[int, int]], float]:
    """The likest partner of each picture in each of some splits, which follow each other; and seconds of all cores."""
    splits = torch.repeat_interleave(torch.arange(len(split_sizes)), torch.tensor(split_sizes))
    started = time.process_time()
    found = find_alike(thumbnails, splits=splits, labels=torch.zeros_like(splits))
    return set(zip(found.first.tolist(), found.second.tolist(), strict=True)), time.process_time() - started


if __name__ == "__main__":
    main()
