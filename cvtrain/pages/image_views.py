"""Which test images only one of two models answers right: names, what was said, and pictures where runs kept some.

Knows the answers and pictures that runs left in their folders; not what follows from them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cvtrain.errors import CheckpointError
from cvtrain.pages.run_files import Answer, RunFiles, picture_bytes, read_run
from cvtrain.report.page_parts import Column, Picture
from cvtrain.report.words import percent
from cvtrain.sweeps.from_json import StoredComparison
from cvtrain.sweeps.image_verdict import run_of

MAX_PAIRS, MAX_ROWS, MAX_PICTURES = 5, 200, 24

_KINDS = ("worst_errors", "random_predictions")


@dataclass(frozen=True)
class ImageDifferences:
    """The images that tell two models apart.

    Args:
        first: Name of the arm with the higher accuracy.
        second: Name of the other.
        columns: Of the table.
        rows: One for each image, those of which the wrong model was most certain first.
        pictures: Of as many of them as a run has kept.
        words: How many there are, and how many are shown.
    """

    first: str
    second: str
    columns: list[Column]
    rows: list[list[object]]
    pictures: list[Picture]
    words: str


def image_differences(comparison: StoredComparison) -> list[ImageDifferences]:
    """The best model beside each other one, as far as their folders tell their answers; empty where arms have seeds."""
    best = comparison.arms[0].arm.name
    paths = {arm.arm.name: run.run_dir for arm in comparison.arms if (run := run_of(arm)) and run.run_dir}
    wanted = [pair for pair in comparison.image_pairs if pair.first == best][:MAX_PAIRS]
    files = {name: _read(paths[name]) for pair in wanted for name in (pair.first, pair.second) if name in paths}
    found = []
    for pair in wanted:
        first, second = files.get(pair.first), files.get(pair.second)
        if first and second and _are_of_same_images(first.answers, second.answers):
            found.append(_between(pair.first, first, pair.second, second))
    return found


def _read(path: Path) -> RunFiles | None:
    try:
        return read_run(path)
    except CheckpointError:
        return None


def _are_of_same_images(first: Sequence[Answer], second: Sequence[Answer]) -> bool:
    of_first, of_second = ([(answer.image, answer.label) for answer in each] for each in (first, second))
    return bool(of_first) and of_first == of_second


def _between(first_name: str, first: RunFiles, second_name: str, second: RunFiles) -> ImageDifferences:
    apart = [(a, b) for a, b in zip(first.answers, second.answers, strict=True) if _is_right(a) != _is_right(b)]
    apart.sort(key=lambda pair: -_wrong(*pair).probability)
    num_first = sum(_is_right(a) for a, _ in apart)
    stored = _pictures_of(first) | _pictures_of(second)
    with_picture = [pair for pair in apart if pair[0].image in stored][:MAX_PICTURES]
    return ImageDifferences(
        first=first_name,
        second=second_name,
        columns=[
            Column("image"),
            Column("is"),
            Column("right"),
            Column(f"{first_name} said"),
            Column(f"{second_name} said"),
        ],
        rows=[
            [a.image, a.label, first_name if _is_right(a) else second_name, _said(a), _said(b)]
            for a, b in apart[:MAX_ROWS]
        ],
        pictures=[_picture(stored[a.image], a, b, (first_name, second_name)) for a, b in with_picture],
        words=_words(num_first, len(apart), len(first.answers), first_name, second_name),
    )


def _is_right(answer: Answer) -> bool:
    return answer.label == answer.prediction


def _wrong(a: Answer, b: Answer) -> Answer:
    return b if _is_right(a) else a


def _said(answer: Answer) -> str:
    return f"{answer.prediction}, {percent(answer.probability)}"


def _words(num_first: int, num_apart: int, num_images: int, first: str, second: str) -> str:
    shown = f" The {MAX_ROWS} of which the wrong one was most certain are listed." if num_apart > MAX_ROWS else ""
    return (
        f"Of {num_images:,} test images {num_apart:,} are answered right by one of the two alone:"
        f" {num_first:,} by {first}, {num_apart - num_first:,} by {second}.{shown}"
    )


def _pictures_of(files: RunFiles) -> dict[str, bytes]:
    """The pictures that a run has kept, by the names of their images."""
    found: dict[str, bytes] = {}
    for kind in _KINDS:
        for picture in files.material.get(kind) or ():
            if isinstance(picture, Mapping):
                try:
                    found[str(picture["name"])] = picture_bytes(picture)
                except (KeyError, TypeError, ValueError):
                    continue
    return found


def _picture(data: bytes, a: Answer, b: Answer, names: tuple[str, str]) -> Picture:
    right = names[0] if _is_right(a) else names[1]
    lines = (f"is {a.label}", f"only {right} is right", f"the other said {_said(_wrong(a, b))}")
    return Picture(data, f"{a.image}: {', '.join(lines)}", lines)
