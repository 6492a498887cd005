import os
import pickle
import shutil
import time

import numpy as np
import pytest
import torch
from PIL import Image

from cvtrain.data.decode import ImageError
from cvtrain.data.file_splits import BadImagesError
from cvtrain.data.images import MemoryImages
from cvtrain.data.labelled_images import FileImages
from cvtrain.errors import ConfigError


def labels(data):
    return [images.labels.tolist() for images in (data.train, data.val, data.test)]


def all_images(image_set):
    return image_set.images.read(torch.arange(len(image_set)))


def test_tree_is_read_with_labels_names_and_pixels(load_folder, tree):
    data = load_folder()
    assert data.class_names == ("cat", "dog")
    assert labels(data) == [[0, 0, 0, 1, 1], [0, 1, 1], [0, 0, 1]]
    assert data.train.labels.dtype == torch.int64
    assert data.test.names == ("test/cat/0.png", "test/cat/1.png", "test/dog/0.png")
    expected = np.stack([np.asarray(Image.open(tree / name)) for name in data.test.names])
    np.testing.assert_array_equal(all_images(data.test).permute(0, 2, 3, 1), expected)
    assert data.warnings == ()
    assert (data.preprocessing.image_size, data.preprocessing.channels, data.preprocessing.resize) == (8, 3, "crop")


@pytest.mark.parametrize("settings", [{}, {"image_size": 5, "channels": 1, "resize": "pad"}])
def test_files_and_memory_give_the_same_data(load_folder, tree, settings):
    memory, files = load_folder(loader="memory", **settings), load_folder(loader="files", **settings)
    assert isinstance(memory.val.images, MemoryImages)
    assert isinstance(files.val.images, FileImages)
    for name in ("train", "val", "test"):
        one, other = getattr(memory, name), getattr(files, name)
        order = torch.randperm(len(one), generator=torch.Generator().manual_seed(0))
        assert torch.equal(one.images.read(order), other.images.read(order))
        assert one.images.read(order).stride() == other.images.read(order).stride()
        assert one.images.shape == other.images.shape
        assert (one.names, one.labels.tolist()) == (other.names, other.labels.tolist())
    assert memory.fingerprint == files.fingerprint
    assert memory.preprocessing == files.preprocessing


def test_memory_limit_decides_how_images_are_loaded(load_folder, tree):
    num_bytes = 11 * 8 * 8 * 3
    assert isinstance(load_folder(memory_limit_gb=num_bytes / 1e9).train.images, MemoryImages)
    assert isinstance(load_folder(memory_limit_gb=(num_bytes - 1) / 1e9).train.images, FileImages)
    assert isinstance(load_folder(memory_limit_gb=None).train.images, MemoryImages)


def test_file_images_travel_to_worker_processes(load_folder, tree):
    images = load_folder(loader="files").train.images
    copy = pickle.loads(pickle.dumps(images))
    assert torch.equal(copy.read(torch.tensor([4, 0])), images.read(torch.tensor([4, 0])))


def test_image_that_went_bad_is_named_when_read(load_folder, tree):
    data = load_folder(loader="files")
    (tree / "train/cat/1.png").write_bytes(b"junk")
    with pytest.raises(ImageError, match=r"train/cat/1\.png: is not an image"):
        all_images(data.train)


def test_names_that_are_no_utf8_are_shown_escaped(load_folder, make):
    make("train/b\udcff", 2)
    make("train/<i>\x1b[1m", 2)
    data = load_folder()
    assert data.class_names == ("<i>\\x1b[1m", "b\\xff")
    assert "".join(data.train.names).encode("utf-8").isascii()
    assert len(all_images(data.train)) == 2
    assert load_folder(loader="files").fingerprint == data.fingerprint


def test_all_wrong_options_are_told_at_once(load_folder):
    with pytest.raises(ConfigError) as caught:
        load_folder(None, image_size=0, channels=2, resize="zoom", loader="disk", on_bad="ignore")
    assert len(caught.value.problems) == 6
    assert caught.value.problems[0].startswith("data.root is needed")


def test_files_are_checked_once_and_again_when_they_change(load_folder, tree):
    calls = []
    for _ in range(2):
        load_folder(loader="files", progress=lambda *call: calls.append(call))
    assert calls == [(11, 11, "checking images")]
    path = tree / "train/cat/1.png"
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(BadImagesError, match=r"train/cat/1\.png: is damaged"):
        load_folder(loader="files", progress=lambda *call: calls.append(call))
    assert len(calls) == 2


@pytest.mark.parametrize("loader", ["memory", "files"])
def test_image_that_can_be_read_again_is_taken_although_size_and_time_are_the_same(load_folder, tree, loader):
    path = tree / "train/cat/1.png"
    content, times = path.read_bytes(), (path.stat().st_atime_ns, path.stat().st_mtime_ns)
    path.write_bytes(b"x" * len(content))
    os.utime(path, ns=times)  # as after a change of permissions, or of a disk's mood
    assert len(load_folder(loader=loader, on_bad="skip").train) == 4
    path.write_bytes(content)
    os.utime(path, ns=times)
    assert len(load_folder(loader=loader, on_bad="skip").train) == 5


def test_cache_is_used_at_the_second_start(load_folder, tree):
    calls = []
    first = load_folder(progress=lambda *call: calls.append(call))
    assert calls[-1] == (11, 11, "decoding images")
    calls.clear()
    second = load_folder(progress=lambda *call: calls.append(call))
    assert not calls
    assert torch.equal(all_images(first.train), all_images(second.train))
    time.sleep(0.01)
    Image.new("RGB", (8, 8), "red").save(tree / "train/cat/0.png")
    assert all_images(load_folder().train)[0, :, 0, 0].tolist() == [255, 0, 0]


def test_image_size_is_the_images_own_when_they_agree(load_folder, make):
    make("train/a", 3, size=(20, 20))
    make("train/b", 3, size=(20, 20))
    data = load_folder(loader="files")
    assert data.train.images.shape == (4, 3, 20, 20)
    assert not any("brought to" in warning for warning in data.warnings)


@pytest.mark.parametrize(("size", "expected"), [((300, 240), 224), ((600, 600), 224), ((60, 40), 40)])
def test_image_size_is_224_or_less_when_they_do_not(load_folder, make, size, expected):
    make("train/a", 3, size=size)
    make("train/b", 3, size=size)
    data = load_folder()
    assert data.preprocessing.image_size == expected
    assert f"not all images are {expected}x{expected} px: they are brought to it (crop)" in data.warnings


def test_grey_images_are_recognised(load_folder, make):
    make("train/a", 3, mode="L")
    make("train/b", 3, mode="1")
    assert load_folder().train.images.shape[1] == 1
    assert load_folder(channels=3).train.images.shape[1] == 3
    make("train/c", 1, mode="RGB")
    assert load_folder().train.images.shape[1] == 3


def test_colour_image_that_the_sample_missed_is_told_of(load_folder, make):
    make("train/a", 300, mode="L", size=(2, 2))
    make("train/b", 300, mode="L", size=(2, 2))
    Image.new("RGB", (2, 2), "red").save(make("train/a", 1, mode="L", size=(2, 2)) / "1.png")
    data = load_folder()
    assert data.preprocessing.channels == 1
    assert any("have colours but are read as grey" in warning for warning in data.warnings)
    assert not any("have colours" in warning for warning in load_folder(channels=1).warnings)


def test_many_files_are_decoded_by_processes_with_the_same_result(load_folder, make, tmp_path):
    make("train/a", 4, size=(9, 7))
    make("train/b", 4, size=(9, 7))
    for index in range(2000):
        os.link(tmp_path / f"root/train/a/{index % 4}.png", tmp_path / f"root/train/a/x{index}.png")
    options = {"image_size": 4, "channels": 3}
    there = load_folder(num_workers=2, **options)
    shutil.rmtree(tmp_path / "cache")
    assert torch.equal(all_images(load_folder(num_workers=0, **options).train), all_images(there.train))


def test_odd_images_are_told_of(load_folder, tree):
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    frames[0].save(tree / "train/cat/f.gif", save_all=True, append_images=frames[1:])
    Image.new("RGB", (1, 1)).save(tree / "train/cat/g.png")
    warnings = " | ".join(load_folder().warnings)
    assert "1 images hold several frames or pages, of which the first is used: train/cat/f.gif" in warnings
    assert "1 images are less than 8 px high or wide: train/cat/g.png" in warnings
    assert "2 images are of one single colour: train/cat/f.gif, train/cat/g.png" in warnings
