import numpy as np
import pytest
import torch

from cvtrain.data.audit.exact import leak_warning, shared_images
from cvtrain.data.digits import load_digits
from cvtrain.data.images import ImageSet, MemoryImages
from cvtrain.data.labelled_images import FileImages
from cvtrain.data.spiral import load_spiral


def images_of(pixels, names=None):
    return ImageSet(MemoryImages(torch.as_tensor(pixels)), torch.zeros(len(pixels), dtype=torch.int64), names)


def every(images):
    return torch.arange(len(images))


@pytest.mark.parametrize("shape", [(8, 8, 3), (28, 28, 1), (1, 1, 3), (3, 3, 1), (32, 32, 3)])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_planted_twins_are_found_and_no_others(shape, dtype):
    random = np.random.default_rng(0)
    train = random.integers(0, 256, (500, *shape)).astype(dtype)
    test = random.integers(0, 256, (200, *shape)).astype(dtype)
    test[[3, 77, 199]] = train[[400, 0, 400]]
    same = {
        (i, j)
        for i, j in np.argwhere(
            (test.reshape(200, 1, -1)[:, :, :3] == train.reshape(1, 500, -1)[:, :, :3]).all(2)
        ).tolist()
        if np.array_equal(test[i], train[j])
    }
    found = shared_images(images_of(test), torch.arange(200), images_of(train), torch.arange(500))
    assert set(found) <= same
    assert {i for i, _ in found} == {i for i, _ in same} >= {3, 77, 199}


def test_images_that_differ_in_one_pixel_are_no_twins():
    base = np.random.default_rng(0).integers(0, 256, (1, 32, 32, 3), dtype=np.uint8)
    train = np.repeat(base, 3072, axis=0)
    train.reshape(3072, -1)[np.arange(3072), np.arange(3072)] ^= 1
    assert shared_images(images_of(base), torch.arange(1), images_of(train), torch.arange(3072)) == []
    train[1234] = base
    assert shared_images(images_of(base), torch.arange(1), images_of(train), torch.arange(3072)) == [(0, 1234)]


def test_only_images_of_the_split_count():
    pixels = np.random.default_rng(0).integers(0, 256, (10, 4, 4, 1), dtype=np.uint8)
    pixels[7] = pixels[2]
    images = images_of(pixels)
    both = shared_images(images, torch.tensor([6, 7]), images, torch.tensor([0, 1, 2, 3]))
    assert both == [(7, 2)]
    assert shared_images(images, torch.tensor([6, 7]), images, torch.tensor([0, 1, 3])) == []


def test_warning_counts_splits_and_names_an_example():
    pixels = np.random.default_rng(0).integers(0, 256, (30, 4, 4, 1), dtype=np.uint8)
    pixels[29] = pixels[28] = pixels[3]
    pixels[20] = pixels[5]
    images = images_of(pixels, [f"{i}.png" for i in range(30)])
    parts = {
        "train": (images, torch.arange(20)),
        "val": (images, torch.arange(20, 25)),
        "test": (images, torch.arange(25, 30)),
    }
    assert leak_warning(parts, command="cvtrain task=audit data=x") == (
        "1 of 5 val images and 2 of 5 test images are trained on too (20.png is 5.png): accuracy is too good there;"
        " cvtrain task=audit data=x lists them"
    )
    parts["train"] = (images, torch.arange(6, 20))
    assert leak_warning(parts, command="") is None


def test_embedded_data_have_no_twins_and_points_are_not_asked():
    for data in (load_digits(), load_spiral()):
        parts = {
            "train": (data.train, every(data.train)),
            "val": (data.train, torch.arange(0)),
            "test": (data.test, every(data.test)),
        }
        assert leak_warning(parts, command="") is None


def test_files_are_left_alone():
    images = ImageSet(FileImages(["nowhere.png"], 8, 3), torch.zeros(1, dtype=torch.int64))
    assert shared_images(images, torch.arange(1), images, torch.arange(1)) == []
