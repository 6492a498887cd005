"""The image files of train, val and test with their labels: carving, dropping the unreadable, the fingerprint.

Does not open a file, and does not know pixels or torch.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from cvtrain.data.image_file import FileStamp, listed, printable
from cvtrain.data.scan import Scan, check_counts
from cvtrain.errors import DataError

TEST_FRACTION = 0.2


class BadImagesError(DataError):
    """Some images cannot be read.

    Args:
        images: `(name, reason)` of each; the message shows the first three.
        num_images: How many images there are in all.
        root: The folder that the names are relative to.
    """

    def __init__(self, images: Sequence[tuple[str, str]], *, num_images: int, root: str) -> None:
        count = f"{len(images):,} of {num_images:,} images in {printable(root)} cannot be read"
        shown = [f"  {name}: {reason}" for name, reason in images[:3]]
        head = f"{count}:" if len(images) <= 3 else f"{count}, the first three are:"
        hint = "mend or remove them, or leave them out: data.on_bad=skip"
        super().__init__("\n".join([head, *shown]), hint=hint + "; cvtrain task=audit lists all" * (len(images) > 3))
        self.images = tuple(images)


@dataclass(frozen=True)
class LabelledFiles:
    """The images of one split, in the order of their labels and then names."""

    stamps: list[FileStamp]
    labels: list[int]


def label_files(scan: Scan) -> tuple[LabelledFiles, LabelledFiles, LabelledFiles]:
    """Train, val (possibly empty) and test with labels; a missing test split is carved from train.

    Raises:
        DataError: Nothing is left to test on.
    """
    if scan.test is None:
        train, test = {}, {}
        for name, stamps in scan.train.items():
            train[name], test[name] = _carve(stamps)
        scan.warnings.append(
            f"there is no {scan.layout.test}: "
            f"a fixed {TEST_FRACTION:.0%} of every class of {scan.layout.train} is the test split"
        )
    else:
        train, test = scan.train, scan.test
    if not any(test.values()):
        raise DataError(f"one image per class in {printable(scan.root)} leaves none to test on", hint=scan.layout.hint)
    return tuple(_split(classes or {}, scan.class_names) for classes in (train, scan.val, test))


def _carve(stamps: list[FileStamp]) -> tuple[list[FileStamp], list[FileStamp]]:
    """Images to keep and images to test on: ranked by a hash of their names, so that a new file moves few others."""
    ranked = sorted(stamps, key=lambda stamp: hashlib.sha256(_encoded(stamp.name)).digest())
    count = min(max(1, round(TEST_FRACTION * len(stamps))), len(stamps) - 1)
    return sorted(ranked[count:]), sorted(ranked[:count])


def _split(classes: dict[str, list[FileStamp]], class_names: Sequence[str]) -> LabelledFiles:
    stamps = [stamp for name in class_names for stamp in classes.get(name, ())]
    labels = [label for label, name in enumerate(class_names) for _ in classes.get(name, ())]
    return LabelledFiles(stamps, labels)


def fingerprint_files(splits: Sequence[LabelledFiles], class_names: Sequence[str]) -> str:
    """SHA-256 over names, sizes and labels of all files: not over times or places, so a copy has the same."""
    digest = hashlib.sha256(_encoded("\n".join(map(repr, class_names))))
    for split in splits:
        lines = (f"{s.name}\0{s.size_bytes}\0{label}\n" for s, label in zip(split.stamps, split.labels, strict=True))
        digest.update(_encoded(f"\0{len(split.stamps)}\n" + "".join(lines)))
    return digest.hexdigest()


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def all_stamps(splits: Sequence[LabelledFiles]) -> list[FileStamp]:
    """The files of all splits in a row."""
    return [stamp for split in splits for stamp in split.stamps]


def without_bad(
    scan: Scan, splits: Sequence[LabelledFiles], *, bad: Sequence[tuple[int, str]], on_bad: str
) -> Sequence[LabelledFiles]:
    """The splits without the unreadable images.

    Args:
        scan: Where the images are from; gets a warning of those left out.
        splits: All images.
        bad: `(index into the images of all splits in a row, reason)` of the unreadable ones.
        on_bad: `error` refuses them, `skip` leaves them out.

    Raises:
        BadImagesError: They are not to be left out.
        DataError: No image of a class is left to train on, or none to test on.
    """
    if not bad:
        return splits
    stamps = all_stamps(splits)
    images = [(printable(stamps[index].name), reason) for index, reason in bad]
    if on_bad == "error":
        raise BadImagesError(images, num_images=len(stamps), root=scan.root)
    shown = ", ".join(f"{name} ({reason})" for name, reason in images[:3])
    more = ", ..." if len(images) > 3 else ""
    scan.warnings.append(f"{len(images):,} of {len(stamps):,} images cannot be read and are left out: {shown}{more}")
    kept = _without_rows(splits, {index for index, _ in bad})
    counts = Counter(kept[0].labels)
    check_counts(scan, {name: counts[label] for label, name in enumerate(scan.class_names)})
    if not kept[2].stamps:
        raise DataError(f"no readable test image in {printable(scan.root)}")
    return kept


def _without_rows(splits: Sequence[LabelledFiles], dropped: set[int]) -> list[LabelledFiles]:
    kept, start = [], 0
    for split in splits:
        rows = [row for row in range(len(split.stamps)) if start + row not in dropped]
        kept.append(LabelledFiles([split.stamps[row] for row in rows], [split.labels[row] for row in rows]))
        start += len(split.stamps)
    return kept


def warn_of_missing(scan: Scan, splits: Sequence[LabelledFiles]) -> None:
    """Add a warning for each split in which some class has no image."""
    for name, split in zip(("val", "test"), splits[1:], strict=True):
        found = set(split.labels)
        missing = [class_name for label, class_name in enumerate(scan.class_names) if label not in found]
        if missing and split.stamps:
            scan.warnings.append(f"no {name} images of {len(missing)} of {len(scan.train)} classes: {listed(missing)}")
