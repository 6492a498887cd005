"""Folders of small images, made below `tmp_path / "root"` and loaded from there."""

import os

import numpy as np
import pytest
from PIL import Image

from cvtrain.data.folder import load_image_folder


@pytest.fixture
def load_folder(tmp_path):
    def load_folder(root=tmp_path / "root", **options):
        return load_image_folder(root=root, cache_dir=tmp_path / "cache", **options)

    return load_folder


@pytest.fixture
def make(tmp_path):
    """Makes files below the root: `make("train/cat", 3)` three images, `make("a/b.txt")` one text file."""

    def make(name, num_images=None, *, size=(8, 8), mode="RGB"):
        path = tmp_path / "root" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if num_images is None:
            path.write_bytes(b"text")
            return path
        path.mkdir(exist_ok=True)
        for index in range(num_images):
            seed = [index, *os.fsencode(name)]
            noise = np.random.default_rng(seed).integers(0, 256, (size[0], size[1], 3), dtype=np.uint8)
            Image.fromarray(noise).convert(mode).save(path / f"{index}.png")
        return path

    return make


@pytest.fixture
def pictures(tmp_path):
    """Makes images of given names below the root: `pictures("a/H1.jpg", "a/P1.JPG")`; gives the root."""

    def pictures(*names):
        root = tmp_path / "root"
        for name in names:
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            noise = np.random.default_rng(list(os.fsencode(name))).integers(0, 256, (8, 8, 3), dtype=np.uint8)
            Image.fromarray(noise).save(path)
        return root

    return pictures


@pytest.fixture
def tree(make, tmp_path):
    """`root` with 3 cats and 2 dogs to train on, 1 and 2 to validate, 2 and 1 to test."""
    for name, count in [
        ("train/cat", 3),
        ("train/dog", 2),
        ("val/cat", 1),
        ("val/dog", 2),
        ("test/cat", 2),
        ("test/dog", 1),
    ]:
        make(name, count)
    return tmp_path / "root"
