import os
import shutil

import pytest
import torch

from cvtrain.data.file_splits import BadImagesError
from cvtrain.errors import DataError


def labels(data):
    return [images.labels.tolist() for images in (data.train, data.val, data.test)]


def all_images(image_set):
    return image_set.images.read(torch.arange(len(image_set)))


def test_missing_test_folder_is_carved_from_train(load_folder, tree, make):
    shutil.rmtree(tree / "test")
    make("train/cat", 20)
    data = load_folder()
    assert labels(data) == [[0] * 16 + [1], [0, 1, 1], [0] * 4 + [1]]
    assert set(data.train.names).isdisjoint(data.test.names)
    assert len({*data.train.names, *data.test.names}) == 22
    assert "a fixed 20% of every class" in data.warnings[0]
    assert load_folder(loader="files").test.names == data.test.names
    make("train/cat", 21)
    assert len(set(load_folder().test.names) & set(data.test.names)) >= 4


def test_class_missing_from_test_is_warned_of_and_shifts_no_label(load_folder, tree):
    shutil.rmtree(tree / "test/cat")
    data = load_folder()
    assert data.test.labels.tolist() == [1]
    assert data.warnings == ("no test images of 1 of 2 classes: cat",)


def test_one_image_per_class_leaves_none_to_test_on(load_folder, make):
    make("train/cat", 1)
    make("train/dog", 1)
    with pytest.raises(DataError, match="leaves none to test on"):
        load_folder()


def spoil(tree):
    (tree / "train/cat/0.png").write_bytes(b"junk")
    (tree / "train/dog/a.png").touch()
    (tree / "test/cat/b.png").symlink_to("nowhere")
    os.mkfifo(tree / "val/cat/c.png")


@pytest.mark.parametrize("loader", ["memory", "files"])
def test_all_unreadable_images_are_refused_together(load_folder, tree, loader):
    spoil(tree)
    with pytest.raises(BadImagesError, match=r"4 of 14 images in .* cannot be read, the first three are:") as caught:
        load_folder(loader=loader)
    assert [name for name, _ in caught.value.images] == [
        "train/cat/0.png",
        "train/dog/a.png",
        "val/cat/c.png",
        "test/cat/b.png",
    ]
    assert len(caught.value.lines()) <= 6
    assert "data.on_bad=skip" in caught.value.hint


@pytest.mark.parametrize("loader", ["memory", "files"])
def test_unreadable_images_are_left_out_on_demand(load_folder, tree, loader):
    intact = load_folder()
    spoil(tree)
    data = load_folder(on_bad="skip", loader=loader)
    assert labels(data) == [[0, 0, 1, 1], [0, 1, 1], [0, 0, 1]]
    assert data.train.names == intact.train.names[1:]
    assert torch.equal(all_images(data.train), all_images(intact.train)[1:])
    assert torch.equal(all_images(data.test), all_images(intact.test))
    assert "4 of 14 images cannot be read and are left out: train/cat/0.png (is not an image" in data.warnings[-1]


def test_class_whose_images_are_all_unreadable_is_refused(load_folder, tree):
    for path in (tree / "train/dog").iterdir():
        path.write_bytes(b"junk")
    with pytest.raises(DataError, match=r"\(dog 0, cat 3\)"):
        load_folder(on_bad="skip")


def test_fingerprint_is_of_the_data_not_of_the_place(load_folder, tree, tmp_path):
    fingerprint = load_folder().fingerprint
    shutil.copytree(tree, tmp_path / "copy", copy_function=shutil.copyfile)
    (tmp_path / "copy" / "notes.txt").touch()
    assert load_folder(tmp_path / "copy", image_size=4, channels=1).fingerprint == fingerprint
    (tree / "train/cat/0.png").rename(tree / "train/dog/9.png")
    assert load_folder().fingerprint != fingerprint
