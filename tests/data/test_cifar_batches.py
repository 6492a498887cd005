import pickle
from pathlib import Path

import numpy as np
import pytest

from cvtrain.data.cifar_batches import convert_batches
from cvtrain.data.cifar_layout import CIFAR10, CIFAR10_NAMES
from cvtrain.errors import DataError

PLANES = np.random.default_rng(0).integers(0, 256, (4, 3072), np.uint8)


def batch(data=None, labels=(0, 1, 2, 3), **more):
    data = np.zeros((4, 3072), np.uint8) if data is None else data
    return pickle.dumps({"data": data, "labels": labels if labels is None else list(labels), **more})


def pickled():
    return {"batches.meta": pickle.dumps({"label_names": list(CIFAR10_NAMES)})} | {
        name: batch(PLANES + np.uint8(i)) for i, name in enumerate(CIFAR10.batches)
    }


def binary():
    return {"batches.meta.txt": "\n".join([*CIFAR10_NAMES, ""]).encode()} | {
        f"{name}.bin": np.concatenate([np.arange(4, dtype=np.uint8)[:, None], PLANES + np.uint8(i)], 1).tobytes()
        for i, name in enumerate(CIFAR10.batches)
    }


def convert(files, progress=None):
    return convert_batches(CIFAR10, files, where=Path("somewhere"), progress=progress)


def test_pickled_and_binary_batches_give_the_same_images():
    seen = []
    arrays, names = convert(pickled(), lambda *args: seen.append(args))
    others, other_names = convert(binary())
    assert names == other_names == [list(CIFAR10_NAMES)]
    for name, array in arrays.items():
        np.testing.assert_array_equal(array, others[name])
    assert arrays["train_pixels"].shape == (20, 32, 32, 3)
    np.testing.assert_array_equal(arrays["train_pixels"][:4], PLANES.reshape(4, 3, 32, 32).transpose(0, 2, 3, 1))
    np.testing.assert_array_equal(arrays["test_labels"], [[0], [1], [2], [3]])
    assert seen[-1] == (6, 6, "reading CIFAR-10")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (batch()[:-30], "data_batch_3 is damaged or cut short"),
        (batch(data=np.zeros((4, 3000), np.uint8)), r"`data` has the shape \(4, 3000\); N x 3072"),
        (batch(data=np.zeros(3072, np.uint8)), "`data` has the shape"),
        (batch(data=np.zeros((0, 3072), np.uint8), labels=()), "`data` has the shape"),
        (batch(data=np.zeros((4, 3072))), "not of uint8"),
        (batch(data=[1, 2]), "`data` is no array"),
        (batch(labels=(0, 1, 2, 10)), "`labels` go from 0 to 10; 0 to 9 are expected"),
        (batch(labels=(0, 1, 2, -1)), "`labels` go from -1 to 2"),
        (batch(labels=(0, 1, 2)), "has 4 images and 3 `labels`"),
        (batch(labels=None), "no list of whole numbers"),
        (batch(labels=(0, 1, 2, "3")), "no list of whole numbers"),
        (pickle.dumps({"labels": [1]}), "`data` is no array"),
    ],
)
def test_bad_batch_is_refused_by_name(content, reason):
    with pytest.raises(DataError, match=reason) as caught:
        convert(pickled() | {"data_batch_3": content})
    assert "somewhere: data_batch_3" in caught.value.message
    assert len(caught.value.lines()) <= 6


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("data_batch_2.bin", bytes(3072), "no whole number of 3,073-byte records"),
        ("data_batch_2.bin", b"", "no whole number"),
        ("data_batch_2.bin", b"\x0a" + bytes(3072), "`labels` go from 10 to 10"),
        ("batches.meta.txt", b"only\nthree\nnames", "class names are not 10 different words"),
    ],
)
def test_bad_binary_file_is_refused_by_name(name, content, reason):
    with pytest.raises(DataError, match=reason):
        convert(binary() | {name: content})


def test_missing_batch_is_named():
    files = pickled()
    del files["data_batch_4"]
    with pytest.raises(DataError, match="lacks data_batch_4"):
        convert(files)


@pytest.mark.parametrize("names", [list(CIFAR10_NAMES)[:9], ["x"] * 10, [*CIFAR10_NAMES[:9], "\x1b[31m"], 7])
def test_bad_class_names_are_refused(names):
    files = pickled() | {"batches.meta": pickle.dumps({"label_names": names})}
    with pytest.raises(DataError, match="class names"):
        convert(files)


def test_class_names_fall_back_to_the_official_ones():
    files = pickled()
    del files["batches.meta"]
    assert convert(files)[1] == [list(CIFAR10_NAMES)]
