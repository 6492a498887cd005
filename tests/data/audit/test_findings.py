from dataclasses import replace

import pytest
import torch

from cvtrain.data.audit.findings import HEADER, KINDS, class_counts, findings_of
from cvtrain.data.audit.inspection import Seen
from cvtrain.data.audit.survey import Pair, Survey, same_pictures


def looks(content, pixels, *, size=(32, 32), num_bytes=900, notes=()):
    return Seen(content.encode(), pixels.encode(), b"", size[1], size[0], num_bytes, "RGB", tuple(notes))


def survey_of(rows):
    """A survey of `(split, label, look)`."""
    split_of, labels, seen = zip(*rows, strict=True)
    names = [f"{i}.jpg" for i in range(len(rows))]
    return Survey(torch.tensor(split_of), torch.tensor(labels), names, ("cat", "dog"), seen)


def test_same_pictures_are_paired_with_the_first_of_their_kind():
    images = survey_of(
        [
            (0, 0, looks("a", "x")),
            (0, 1, looks("a", "x")),
            (0, 0, "is damaged"),
            (1, 0, looks("b", "y")),
            (2, 0, looks("c", "x")),
            (2, 0, looks("", "y")),
        ]
    )
    pairs, numbers = same_pictures(images)
    assert pairs == [Pair("same_file", 1, 0, 1.0), Pair("same_pixels", 4, 0, 1.0), Pair("same_pixels", 5, 3, 1.0)]
    assert numbers == [0, 3]


def test_pixels_in_memory_are_never_the_same_file():
    images = survey_of([(0, 0, looks("", "x")), (0, 0, looks("", "x"))])
    assert [pair.kind for pair in same_pictures(images)[0]] == ["same_pixels"]


def test_gravest_come_first():
    images = survey_of(
        [
            (0, 0, looks("a", "x", notes=["turned"])),
            (0, 0, looks("a", "x")),
            (0, 1, looks("b", "x")),
            (2, 0, looks("c", "x")),
            (2, 1, "is damaged"),
            (2, 0, looks("d", "z")),
        ]
    )
    pairs = [*same_pictures(images)[0], Pair("near_duplicate", 5, 0, 0.7)]
    found = findings_of(images, pairs)
    assert [(f.kind, f.path, f.detail) for f in found] == [
        ("unreadable", "4.jpg", "is damaged"),
        ("same_pixels", "3.jpg", "leak"),
        ("near_duplicate", "5.jpg", "likeness 0.70; leak"),
        ("same_pixels", "2.jpg", "two labels"),
        ("same_file", "1.jpg", ""),
        ("turned", "0.jpg", "32x32 px RGB"),
    ]
    assert found[1].row() == ("same_pixels", "test", "3.jpg", "cat", "train", "0.jpg", "cat", "leak")
    assert len(HEADER) == len(found[0].row())
    assert {f.kind for f in found} <= set(KINDS)


def test_classes_are_counted_with_unreadable_images_and_missing_ones_are_told():
    images = survey_of([(0, 0, looks("a", "a")), (0, 1, "is damaged"), (2, 0, looks("b", "b"))])
    assert class_counts(images) == {"train": {"cat": 1, "dog": 1}, "test": {"cat": 1, "dog": 0}}
    (missing,) = [f for f in findings_of(images, []) if f.kind == "missing_class"]
    assert (missing.split, missing.class_name, missing.path) == ("test", "dog", "")


def odd(sizes, kind="odd_size"):
    images = survey_of([(0, 0, looks(str(i), str(i), size=size)) for i, size in enumerate(sizes)])
    return [f.path for f in findings_of(images, []) if f.kind == kind]


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ([(32, 32)] * 30, []),
        ([(32, 32)] * 30 + [(32, 33)], ["30.jpg"]),
        ([(600 + i, 400 + i) for i in range(30)], []),
        (
            [(600 + i, 400 + i) for i in range(30)] + [(90, 60), (6000, 4000), (900, 250)],
            ["30.jpg", "31.jpg", "32.jpg"],
        ),
        ([], []),
    ],
)
def test_unusual_sizes_are_told(sizes, expected):
    assert odd(sizes or [(8, 8)]) == expected


def test_files_of_far_too_few_or_too_many_bytes_are_told():
    rows = [(0, 0, looks(str(i), str(i), num_bytes=900 + 7 * i)) for i in range(40)]
    rows += [(0, 0, looks("low", "low", num_bytes=120)), (0, 0, looks("high", "high", num_bytes=9000))]
    images = survey_of(rows)
    assert [f.path for f in findings_of(images, []) if f.kind == "odd_file_size"] == ["40.jpg", "41.jpg"]
    apart = replace(images, names=[*images.names[:40], "40.bmp", "41.png"])
    assert [f.path for f in findings_of(apart, []) if f.kind == "odd_file_size"] == [], "each format has its own middle"
