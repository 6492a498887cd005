"""Pixels that several processes map from one file are the pixels that were there."""

import pickle
import subprocess
import sys
from dataclasses import replace

import pytest
import torch

from cvtrain.data.digits import load_digits
from cvtrain.data.images import ImageSet, MemoryImages
from cvtrain.data.mapped import share
from cvtrain.errors import OutputError


@pytest.fixture(scope="module")
def digits():
    return load_digits(image_size=16)


def same_images(a, b):
    return torch.equal(a.images.pixels, b.images.pixels) and torch.equal(a.labels, b.labels) and a.names == b.names


def test_shared_data_open_as_they_were(digits, tmp_path):
    opened = share(digits, tmp_path).open()
    assert same_images(opened.train, digits.train)
    assert same_images(opened.test, digits.test)
    assert opened.val is None
    assert (opened.class_names, opened.fingerprint) == (digits.class_names, digits.fingerprint)


def test_what_is_sent_to_a_process_holds_no_pixels(digits, tmp_path):
    sent = pickle.dumps(share(digits, tmp_path))
    assert len(sent) < 0.2 * digits.train.images.pixels.nbytes


def test_writing_to_opened_pixels_changes_no_file(digits, tmp_path):
    shared = share(digits, tmp_path)
    shared.open().train.images.pixels.zero_()
    assert same_images(shared.open().train, digits.train)


def test_float_points_are_shared_too(digits, tmp_path):
    points = ImageSet(MemoryImages(torch.randn(30, 1, 1, 2)), torch.zeros(30, dtype=torch.int64))
    opened = share(replace(digits, train=points, val=points), tmp_path).open()
    assert same_images(opened.train, points)
    assert same_images(opened.val, points)


def test_another_process_reads_the_same_pixels(digits, tmp_path):
    pixels = share(digits, tmp_path).mapped["train"]
    code = "import pickle, sys; print(int(pickle.load(sys.stdin.buffer).open().long().sum()))"
    done = subprocess.run([sys.executable, "-c", code], input=pickle.dumps(pixels), capture_output=True, check=True)
    assert int(done.stdout) == int(digits.train.images.pixels.long().sum())


def test_folder_that_cannot_be_written_is_told(digits, tmp_path):
    with pytest.raises(OutputError, match=r"train.pixels could not be written"):
        share(digits, tmp_path / "missing")
