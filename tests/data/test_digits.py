from pathlib import Path

import numpy as np
import pytest
import torch

import cvtrain.data.digits
from cvtrain.data.digits import load_digits
from cvtrain.errors import ConfigError

FINGERPRINT = "ae050c503400c1dc43f6a03f305b8c6a35baa455de79fbf2cd6a859b5449a0ad"


def originals():
    with np.load(Path(cvtrain.data.digits.__file__).with_name("digits.npz"), allow_pickle=False) as file:
        return {name: file[name] for name in file.files}


def test_file_holds_images_and_where_they_come_from():
    file = originals()
    assert file["images"].shape == (1797, 8, 8)
    assert (file["images"].dtype, file["images"].max()) == (np.uint8, 16)
    assert np.bincount(file["labels"]).tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    assert "10.24432/C50P49" in str(file["source"])
    assert "CC BY 4.0" in str(file["licence"])
    assert "Alpaydin" in str(file["attribution"])


def test_digits_are_split_and_shown_large():
    data = load_digits()
    assert data.train.images.shape == (1437, 1, 32, 32)
    assert data.test.images.shape == (360, 1, 32, 32)
    assert data.train.images.pixels.dtype == torch.uint8
    assert data.train.images.pixels.is_contiguous()
    assert torch.bincount(data.test.labels).tolist() == [36] * 10
    assert data.class_names == tuple("0123456789")
    assert data.val is None


def test_fingerprint_is_the_same_everywhere():
    assert load_digits().fingerprint == FINGERPRINT
    assert load_digits(image_size=28).fingerprint != FINGERPRINT


def test_native_size_gives_the_original_values():
    data = load_digits(image_size=8)
    pixels = torch.cat([data.train.images.pixels, data.test.images.pixels]).flatten(1)
    shown = (originals()["images"].reshape(1797, 64).astype(int) * 510 + 16) // 32
    assert sorted(map(bytes, pixels.numpy())) == sorted(map(bytes, shown.astype(np.uint8)))


@pytest.mark.parametrize("size", [8, 11, 28, 32, 64])
def test_enlarging_is_bilinear(size):
    images = torch.from_numpy(originals()["images"][:50]).double()[:, None] * 255 / 16
    expected = torch.nn.functional.interpolate(images, size=size, mode="bilinear", align_corners=False)
    enlarged = cvtrain.data.digits._enlarged(originals()["images"][:50], size)
    assert (torch.from_numpy(enlarged)[:, None] - expected).abs().max() <= 0.5 + 1e-9


@pytest.mark.parametrize("size", [7, 513, 32.0, "32"])
def test_size_out_of_range_is_refused(size):
    with pytest.raises(ConfigError, match=r"data\.image_size"):
        load_digits(image_size=size)
