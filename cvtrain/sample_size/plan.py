"""Which sizes, how many trainings of each, and what each of them is: all of it before the first starts.

Knows settings and labels; trains nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from cvtrain.config import Config
from cvtrain.data.images import ImageData
from cvtrain.data.splits import Split, first_per_class
from cvtrain.data.subsets import balanced_subset, num_val_of
from cvtrain.errors import DataError
from cvtrain.sample_size.protocol import Course, course_of, schedule_problem
from cvtrain.seeding import derive_seed

SIZES = (10, 20, 50, 100, 200, 500, 1000, 2000, 5000)

REPLICATES = ((50, 20), (500, 10))
"""Up to so many images per class so many trainings, beyond them `FEWEST_REPLICATES`: small sizes vary most."""

FEWEST_REPLICATES = 5


@dataclass(frozen=True)
class Cell:
    """One training of a sweep.

    Args:
        per_class: Labelled images of each class.
        replicate: 0, 1, ...: which images these are, and the seed of everything else.
        train_size: Images to train on, of all classes.
        val_size: Images to validate.
        course: How it is trained.
    """

    per_class: int
    replicate: int
    train_size: int
    val_size: int
    course: Course

    @property
    def name(self) -> str:
        """Of its folder: `n00500-r03`."""
        return f"n{self.per_class:05d}-r{self.replicate:02d}"

    def folder(self, sweep_dir: Path) -> Path:
        """Where it is kept."""
        return sweep_dir / "runs" / self.name


@dataclass(frozen=True)
class Plan:
    """All trainings of a sweep.

    Args:
        sizes: Ascending.
        cells: Ordered by size, then by replicate.
        notes: What the user should know of the sizes.
    """

    sizes: tuple[int, ...]
    cells: tuple[Cell, ...]
    notes: tuple[str, ...] = ()

    def at(self, per_class: int) -> list[Cell]:
        """The trainings at one size."""
        return [cell for cell in self.cells if cell.per_class == per_class]


def make_plan(config: Config, data: ImageData) -> Plan:
    """The plan that settings and data give.

    Raises:
        DataError: A class has too few images.
    """
    pool = pool_of(config, data)
    counts = torch.bincount(data.train.labels[pool], minlength=len(data.class_names))
    sizes, notes = _sizes(config, counts.tolist(), data.class_names)
    num_classes, cells = len(data.class_names), []
    for per_class, num_replicates in zip(sizes, _replicates(config, sizes), strict=True):
        val = num_val_of(per_class, config["data"]["val_fraction"])
        train_size, val_size = (per_class - val) * num_classes, val * num_classes
        course = course_of(config, num_train=train_size, num_val=val_size)
        cells += [Cell(per_class, r, train_size, val_size, course) for r in range(num_replicates)]
    problem = schedule_problem(config, cells[-1].course)
    notes += [problem] if problem else []
    notes += _shared_images(cells, smallest=min(counts.tolist()))
    return Plan(tuple(sizes), tuple(cells), tuple(notes))


def _shared_images(cells: Sequence[Cell], *, smallest: int) -> list[str]:
    """Where replicates overlap so much that their spread tells little of what other images would give."""
    largest = max(cell.per_class for cell in cells)
    num_replicates = sum(cell.per_class == largest for cell in cells)
    if num_replicates < 2 or largest < 0.5 * smallest:
        return []
    share = largest / smallest
    what = "all of the images" if share == 1 else f"{100 * share:.0f} % of the images of the smallest class"
    return [f"each training with {largest:,} images per class takes {what}: the spread between them is understated"]


def pool_of(config: Config, data: ImageData) -> Tensor:
    """Positions of the training images that subsets are drawn from, int64 ascending."""
    return first_per_class(data.train.labels, config["data"]["max_per_class"])


def _sizes(config: Config, counts: Sequence[int], class_names: Sequence[str]) -> tuple[list[int], list[str]]:
    """The sizes that the data allow, and what there is to say of those that they do not."""
    smallest = min(counts)
    if smallest < 2:
        raise DataError(f"a class has fewer than 2 training images: {_listed(counts, class_names)}")
    if config["sizes"] == "auto":
        return [size for size in SIZES if size <= smallest] or [smallest], []
    sizes = sorted(config["sizes"])
    short = [size for size in sizes if size > smallest]
    if not short:
        return sizes, []
    what = f"sizes={short[-1]}: there are not so many training images of each class ({_listed(counts, class_names)})"
    if config["on_short"] == "error":
        able = ",".join(map(str, [size for size in sizes if size <= smallest] or [smallest]))
        raise DataError(what, hint=f"type sizes=[{able}], or on_short=cap to take {smallest} of each class instead")
    left = [size for size in sizes if size < smallest]
    return [*left, smallest], [f"{what}: {smallest} of each class are taken instead"]


def _listed(counts: Sequence[int], class_names: Sequence[str]) -> str:
    """The classes with the fewest images first."""
    ordered = sorted(zip(counts, class_names, strict=True))
    listed = ", ".join(f"{name} {count:,}" for count, name in ordered[:10])
    return f"{listed}, ..." if len(ordered) > 10 else listed


def _replicates(config: Config, sizes: Sequence[int]) -> list[int]:
    wanted = config["replicates"]
    if isinstance(wanted, int):
        return [wanted] * len(sizes)
    if wanted == "auto":
        return [next((count for size, count in REPLICATES if n <= size), FEWEST_REPLICATES) for n in sizes]
    by_size = dict(zip(config["sizes"], wanted, strict=True))
    # A size that was cut to what there is keeps the number of the smallest that it stands for.
    return [by_size.get(n, by_size[min(size for size in by_size if size >= n)]) for n in sizes]


def split_of(config: Config, data: ImageData, cell: Cell) -> Split:
    """Which images a training sees, in which roles; the test images are all that there are."""
    pool = pool_of(config, data)
    subset = balanced_subset(
        data.train.labels[pool],
        per_class=cell.per_class,
        val_fraction=config["data"]["val_fraction"],
        seed=config["seed"],
        replicate=cell.replicate,
    )
    test = first_per_class(data.test.labels, config["data"]["max_per_class"])
    return Split(pool[subset.train], pool[subset.val], test, val_from_train=True)


def seed_of(config: Config, replicate: int) -> int:
    """The seed of initialisation, order and augmentation, which all sizes of a replicate share."""
    return derive_seed(config["seed"], "replicate", replicate) % 2**31
