"""What is wrong with the images of a survey, a finding each, the gravest first.

Knows what was seen of every image; opens none, and writes nothing.
"""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import PurePath

from cvtrain.data.audit.inspection import Seen
from cvtrain.data.audit.survey import SPLITS, Pair, Survey

KINDS = {
    "unreadable": "cannot be read",
    "same_file": "the same file as another image",
    "same_pixels": "the same pixels as another image",
    "near_duplicate": "nearly the same as another image",
    "mirrored": "nearly the same as another image, mirrored",
    "missing_class": "class without images",
    "uniform": "of one single colour",
    "tiny": "less than 8 px high or wide",
    "odd_size": "of an unusual size or shape",
    "odd_file_size": "many more or fewer bytes than its pixels need",
    "colour_space": "CMYK or another colour space for print",
    "sixteen_bit": "more than 8 bits a channel",
    "frames": "several frames or pages, of which the first is used",
    "transparent": "transparent, shown over black",
    "turned": "turned upright by its EXIF data",
    "misnamed": "of another format than its name says",
}
"""Every kind of finding, and what it says of an image."""

SAME = ("same_file", "same_pixels")
ALIKE = ("near_duplicate", "mirrored")

_USUAL_SHARE = 0.9
_MANY_TIMES = 4
_LONG = 3
_FEW = 20
_SPREADS = 6


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong with one image, or with two.

    Args:
        kind: One of `KINDS`.
        split: Of the image; of a class, the split that lacks it.
        path: What the image is called.
        class_name: Its class.
        other_split: Of the image that shows the same.
        other_path: What that one is called.
        other_class: Its class.
        detail: The reason, the size, ...
    """

    kind: str
    split: str
    path: str
    class_name: str
    other_split: str = ""
    other_path: str = ""
    other_class: str = ""
    detail: str = ""

    @property
    def is_leak(self) -> bool:
        """Whether the two images lie in different splits."""
        return bool(self.other_split) and self.other_split != self.split

    @property
    def has_two_labels(self) -> bool:
        """Whether the two images have different classes."""
        return bool(self.other_split) and self.other_class != self.class_name

    def row(self) -> tuple[str, ...]:
        """The cells of a table, under `HEADER`."""
        return tuple(asdict(self).values())


HEADER = ("kind", "split", "path", "class", "other_split", "other_path", "other_class", "detail")


def findings_of(images: Survey, pairs: Sequence[Pair]) -> list[Finding]:
    """All findings: what cannot be read, then leaks, then two labels for one picture, then the rest by kind."""
    found = [
        *_unreadable(images),
        *(_of_pair(images, pair) for pair in pairs),
        *_missing_classes(images),
        *_notes(images),
        *_odd_sizes(images),
        *_odd_file_sizes(images),
    ]
    kinds = list(KINDS)
    return sorted(
        found, key=lambda f: (f.kind != "unreadable", not f.is_leak, not f.has_two_labels, kinds.index(f.kind))
    )


def _finding(images: Survey, kind: str, number: int, *, detail: str = "") -> Finding:
    return Finding(kind, *_place(images, number), detail=detail)


def _place(images: Survey, number: int) -> tuple[str, str, str]:
    """Split, path and class."""
    label = int(images.labels[number])
    return SPLITS[int(images.split_of[number])], images.names[number], images.class_names[label]


def _unreadable(images: Survey) -> Iterator[Finding]:
    for number, seen in enumerate(images.seen):
        if isinstance(seen, str):
            yield _finding(images, "unreadable", number, detail=seen)


def _of_pair(images: Survey, pair: Pair) -> Finding:
    found = Finding(pair.kind, *_place(images, pair.first), *_place(images, pair.second))
    words = [f"likeness {pair.likeness:.2f}"] if pair.kind in ALIKE else []
    words += ["leak"] if found.is_leak else []
    words += ["two labels"] if found.has_two_labels else []
    return Finding(**{**asdict(found), "detail": "; ".join(words)})


def _missing_classes(images: Survey) -> Iterator[Finding]:
    for split, counts in class_counts(images).items():
        for name, count in counts.items():
            if not count:
                yield Finding("missing_class", split, "", name)


def class_counts(images: Survey) -> dict[str, dict[str, int]]:
    """How many images of each class each split has."""
    counts = Counter(zip(images.split_of.tolist(), images.labels.tolist(), strict=True))
    present = sorted({split for split, _ in counts})
    return {SPLITS[s]: {name: counts[s, i] for i, name in enumerate(images.class_names)} for s in present}


def _notes(images: Survey) -> Iterator[Finding]:
    for number, seen in images.readable():
        for note in seen.notes:
            yield _finding(images, note, number, detail=f"{seen.width}x{seen.height} px {seen.mode}".rstrip())


def _odd_sizes(images: Survey) -> Iterator[Finding]:
    """Of a set with one usual size every other; else what is many times larger, smaller or longer than the middle."""
    sizes = [(seen.width, seen.height) for _, seen in images.readable()]
    if not sizes:
        return
    usual, count = Counter(sizes).most_common(1)[0]
    if count == len(sizes):
        return
    has_usual = count >= _USUAL_SHARE * len(sizes)
    middle = statistics.median(min(size) for size in sizes)
    words = f"most are {usual[0]}x{usual[1]}" if has_usual else f"the middle of the shorter sides is {middle:g}"
    for number, seen in images.readable():
        short, long = sorted((seen.width, seen.height))
        is_far = short * _MANY_TIMES < middle or short > middle * _MANY_TIMES or long > _LONG * short
        if (seen.width, seen.height) != usual if has_usual else is_far:
            yield _finding(images, "odd_size", number, detail=f"{seen.width}x{seen.height} px; {words}")


def _odd_file_sizes(images: Survey) -> Iterator[Finding]:
    """Files with four times fewer or more bytes a pixel than the middle of their kind, and far outside its spread."""
    kinds: dict[str, list[tuple[int, float]]] = {}
    for number, seen in images.readable():
        if seen.num_bytes:
            kinds.setdefault(PurePath(images.names[number]).suffix.lower(), []).append((number, _log_density(seen)))
    for rows in kinds.values():
        if len(rows) < _FEW:
            continue
        middle = statistics.median(density for _, density in rows)
        spread = 1.4826 * statistics.median(abs(density - middle) for _, density in rows)
        limit = max(_SPREADS * spread, math.log2(_MANY_TIMES))
        for number, density in rows:
            if abs(density - middle) > limit:
                per_pixel = f"{2**density:.3g} bytes a pixel; the middle is {2**middle:.3g}"
                yield _finding(images, "odd_file_size", number, detail=per_pixel)


def _log_density(seen: Seen) -> float:
    return math.log2(seen.num_bytes / (seen.height * seen.width))
