import os
import pickle
import shutil
import time

import numpy as np
import pytest
import torch
from PIL import Image

from cvtrain.data.decode import ImageError
from cvtrain.data.folder import BadImagesError, FileImages, load_image_folder
from cvtrain.data.images import MemoryImages
from cvtrain.errors import ConfigError, DataError


@pytest.fixture
def load(tmp_path):
    def load(root=tmp_path / "root", **options):
        return load_image_folder(root=root, cache_dir=tmp_path / "cache", **options)

    return load


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


def labels(data):
    return [images.labels.tolist() for images in (data.train, data.val, data.test)]


def all_images(image_set):
    return image_set.images.read(torch.arange(len(image_set)))


def test_tree_is_read_with_labels_names_and_pixels(load, tree):
    data = load()
    assert data.class_names == ("cat", "dog")
    assert labels(data) == [[0, 0, 0, 1, 1], [0, 1, 1], [0, 0, 1]]
    assert data.train.labels.dtype == torch.int64
    assert data.test.names == ("test/cat/0.png", "test/cat/1.png", "test/dog/0.png")
    expected = np.stack([np.asarray(Image.open(tree / name)) for name in data.test.names])
    np.testing.assert_array_equal(all_images(data.test).permute(0, 2, 3, 1), expected)
    assert data.warnings == ()
    assert (data.preprocessing.image_size, data.preprocessing.channels, data.preprocessing.resize) == (8, 3, "crop")


@pytest.mark.parametrize("settings", [{}, {"image_size": 5, "channels": 1, "resize": "pad"}])
def test_files_and_memory_give_the_same_data(load, tree, settings):
    memory, files = load(loader="memory", **settings), load(loader="files", **settings)
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


def test_memory_limit_decides_how_images_are_loaded(load, tree):
    num_bytes = 11 * 8 * 8 * 3
    assert isinstance(load(memory_limit_gb=num_bytes / 1e9).train.images, MemoryImages)
    assert isinstance(load(memory_limit_gb=(num_bytes - 1) / 1e9).train.images, FileImages)
    assert isinstance(load(memory_limit_gb=None).train.images, MemoryImages)


def test_file_images_travel_to_worker_processes(load, tree):
    images = load(loader="files").train.images
    copy = pickle.loads(pickle.dumps(images))
    assert torch.equal(copy.read(torch.tensor([4, 0])), images.read(torch.tensor([4, 0])))


def test_image_that_went_bad_is_named_when_read(load, tree):
    data = load(loader="files")
    (tree / "train/cat/1.png").write_bytes(b"junk")
    with pytest.raises(ImageError, match=r"train/cat/1\.png: is not an image"):
        all_images(data.train)


@pytest.mark.parametrize("name", ["val", "valid", "validation"])
def test_validation_folder_has_three_names(load, tree, name):
    (tree / "val").rename(tree / name)
    assert load().val.labels.tolist() == [0, 1, 1]


def test_two_validation_folders_are_refused(load, tree, make):
    make("valid/cat", 1)
    with pytest.raises(DataError, match="val and valid"):
        load()


def test_no_validation_folder_is_no_validation_split(load, tree):
    shutil.rmtree(tree / "val")
    assert load().val is None


def test_classes_are_sorted_by_code_point_and_may_differ_in_case_only(load, make):
    for name in ("b", "B", "a10", "a2"):
        make(f"train/{name}", 1)
        make(f"test/{name}", 1)
    assert load().class_names == ("B", "a10", "a2", "b")


def test_names_that_are_no_utf8_are_shown_escaped(load, make):
    make("train/b\udcff", 2)
    make("train/<i>\x1b[1m", 2)
    data = load()
    assert data.class_names == ("<i>\\x1b[1m", "b\\xff")
    assert "".join(data.train.names).encode("utf-8").isascii()
    assert len(all_images(data.train)) == 2
    assert load(loader="files").fingerprint == data.fingerprint


def test_missing_test_folder_is_carved_from_train(load, tree, make):
    shutil.rmtree(tree / "test")
    make("train/cat", 20)
    data = load()
    assert labels(data) == [[0] * 16 + [1], [0, 1, 1], [0] * 4 + [1]]
    assert set(data.train.names).isdisjoint(data.test.names)
    assert len({*data.train.names, *data.test.names}) == 22
    assert "a fixed 20% of every class" in data.warnings[0]
    assert load(loader="files").test.names == data.test.names
    make("train/cat", 21)
    assert len(set(load().test.names) & set(data.test.names)) >= 4


def test_class_folders_in_the_root_are_taken_as_train(load, make):
    make("cat", 5)
    make("dog", 5)
    data = load()
    assert data.train.labels.tolist() == [0] * 4 + [1] * 4
    assert data.test.labels.tolist() == [0, 1]
    assert "there is no train/ folder" in data.warnings[0]


def test_root_that_is_a_train_folder_says_what_was_meant(load, tree):
    assert f"did you mean data.root={tree}?" in load(tree / "train").warnings[0]


def test_class_that_train_lacks_is_refused_with_the_nearest(load, tree, make):
    make("test/dogs", 1)
    with pytest.raises(DataError, match=r"test folder .* holds classes that train/ lacks: dogs") as caught:
        load()
    assert caught.value.hint == "did you mean dog? classes are the folders in train/: cat, dog"


def test_class_missing_from_test_is_warned_of_and_shifts_no_label(load, tree):
    shutil.rmtree(tree / "test/cat")
    data = load()
    assert data.test.labels.tolist() == [1]
    assert data.warnings == ("no test images of 1 of 2 classes: cat",)


def test_empty_class_is_refused_with_the_counts(load, tree, make):
    make("train/emu", 0)
    with pytest.raises(DataError, match=r"1 of 3 class folders .* \(emu 0, dog 2, cat 3\)"):
        load()


def test_single_class_is_refused(load, make):
    make("train/cat", 3)
    with pytest.raises(DataError, match=r"only one class in .* \(cat 3\)"):
        load()


def test_one_image_per_class_leaves_none_to_test_on(load, make):
    make("train/cat", 1)
    make("train/dog", 1)
    with pytest.raises(DataError, match="leaves none to test on"):
        load()


def test_empty_test_folder_is_refused(load, tree):
    shutil.rmtree(tree / "test/cat")
    shutil.rmtree(tree / "test/dog")
    with pytest.raises(DataError, match=r"the test folder in .* holds no images"):
        load()


def test_images_without_class_folders_are_refused(load, make):
    make("train", 2)
    with pytest.raises(DataError, match=r"no class folders .* 2 images lie outside") as caught:
        load()
    assert "train/<class>" in caught.value.hint


def test_train_one_level_deeper_is_pointed_at(load, tree, tmp_path):
    with pytest.raises(DataError, match="no train/, but its folder root has") as caught:
        load(tmp_path)
    assert caught.value.hint == f"data.root={tree}"


def test_test_without_train_is_refused(load, tree):
    shutil.rmtree(tree / "train")
    with pytest.raises(DataError, match="has val/ but no train/"):
        load()


def test_missing_root_is_shown_as_resolved_with_the_nearest(load, tree, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError) as caught:
        load("rot/deeper")
    assert f"does not exist: {tmp_path}/rot/deeper\n" in caught.value.message
    assert f"{tmp_path} (did you mean root in it?)" in caught.value.message
    assert len(caught.value.lines()) <= 6


def test_root_that_is_a_file_or_empty_is_refused(load, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="is a file, not a folder"):
        load(tmp_path / "file")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no class folders"):
        load(tmp_path / "empty")


def test_home_is_expanded_in_the_root(load, tree, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert len(load("~/root").train) == 5


def test_all_wrong_options_are_told_at_once(load):
    with pytest.raises(ConfigError) as caught:
        load(None, image_size=0, channels=2, resize="zoom", loader="disk", on_bad="ignore")
    assert len(caught.value.problems) == 6
    assert caught.value.problems[0].startswith("data.root is needed")


def test_other_files_hidden_ones_and_links_to_folders_are_passed_over(load, tree, make):
    for name in ("cat/notes.txt", "cat/.DS_Store", "cat/x.jpg.part", "dog/README", ".hidden/0.png"):
        make(f"train/{name}")
    make("train/.ipynb_checkpoints", 2)
    make("train/cat/.thumbnails", 2)
    (tree / "train/cat/loop").symlink_to("..")
    (tree / "train/emu").symlink_to("cat")
    (tree / "train/loose.jpg").touch()
    data = load()
    assert labels(data)[0] == [0, 0, 0, 1, 1]
    assert data.warnings == (
        "4 files that are no images were passed over: .part 1, .txt 1, hidden 1, without an extension 1",
        "1 images outside any class folder were passed over: train/loose.jpg",
        "links to folders were not followed: train/cat/loop, train/emu",
    )


def test_folders_below_a_class_and_links_to_files_count(load, tree, make):
    make("train/cat/more/deep", 2)
    make("train/cat/folder.jpg", 0)
    (tree / "train/dog/link.png").symlink_to("0.png")
    (tree / "test").rename(tree.parent / "elsewhere")
    (tree / "test").symlink_to(tree.parent / "elsewhere")
    data = load()
    assert labels(data) == [[0] * 5 + [1] * 3, [0, 1, 1], [0, 0, 1]]
    assert "train/cat/more/deep/1.png" in data.train.names


def spoil(tree):
    (tree / "train/cat/0.png").write_bytes(b"junk")
    (tree / "train/dog/a.png").touch()
    (tree / "test/cat/b.png").symlink_to("nowhere")
    os.mkfifo(tree / "val/cat/c.png")


def test_all_unreadable_images_are_refused_together(load, tree):
    spoil(tree)
    with pytest.raises(BadImagesError, match=r"4 of 14 images in .* cannot be read, the first three are:") as caught:
        load()
    assert [name for name, _ in caught.value.images] == [
        "train/cat/0.png",
        "train/dog/a.png",
        "val/cat/c.png",
        "test/cat/b.png",
    ]
    assert len(caught.value.lines()) <= 6
    assert "data.on_bad=skip" in caught.value.hint
    with pytest.raises(BadImagesError, match="3 of 14 images"):  # the file system does not tell of the fourth
        load(loader="files")


def test_unreadable_images_are_left_out_on_demand(load, tree):
    intact = load()
    spoil(tree)
    data = load(on_bad="skip")
    assert labels(data) == [[0, 0, 1, 1], [0, 1, 1], [0, 0, 1]]
    assert data.train.names == intact.train.names[1:]
    assert torch.equal(all_images(data.train), all_images(intact.train)[1:])
    assert torch.equal(all_images(data.test), all_images(intact.test))
    assert "4 of 14 images cannot be read and are left out: train/cat/0.png (is not an image" in data.warnings[-1]
    assert labels(load(on_bad="skip", loader="files")) == [[0, 0, 0, 1, 1], [0, 1, 1], [0, 0, 1]]


def test_class_whose_images_are_all_unreadable_is_refused(load, tree):
    for path in (tree / "train/dog").iterdir():
        path.write_bytes(b"junk")
    with pytest.raises(DataError, match=r"\(dog 0, cat 3\)"):
        load(on_bad="skip")


def test_fingerprint_is_of_the_data_not_of_the_place(load, tree, tmp_path):
    fingerprint = load().fingerprint
    shutil.copytree(tree, tmp_path / "copy", copy_function=shutil.copyfile)
    (tmp_path / "copy" / "notes.txt").touch()
    assert load(tmp_path / "copy", image_size=4, channels=1).fingerprint == fingerprint
    (tree / "train/cat/0.png").rename(tree / "train/dog/9.png")
    assert load().fingerprint != fingerprint


def test_cache_is_used_at_the_second_start(load, tree):
    calls = []
    first = load(progress=lambda *call: calls.append(call))
    assert calls[-1] == (11, 11, "decoding images")
    calls.clear()
    second = load(progress=lambda *call: calls.append(call))
    assert not calls
    assert torch.equal(all_images(first.train), all_images(second.train))
    time.sleep(0.01)
    Image.new("RGB", (8, 8), "red").save(tree / "train/cat/0.png")
    assert all_images(load().train)[0, :, 0, 0].tolist() == [255, 0, 0]


def test_image_size_is_the_images_own_when_they_agree(load, make):
    make("train/a", 3, size=(20, 20))
    make("train/b", 3, size=(20, 20))
    data = load(loader="files")
    assert data.train.images.shape == (4, 3, 20, 20)
    assert not any("brought to" in warning for warning in data.warnings)


@pytest.mark.parametrize(("size", "expected"), [((300, 240), 224), ((600, 600), 224), ((60, 40), 40)])
def test_image_size_is_224_or_less_when_they_do_not(load, make, size, expected):
    make("train/a", 3, size=size)
    make("train/b", 3, size=size)
    data = load()
    assert data.preprocessing.image_size == expected
    assert f"not all images are {expected}x{expected} px: they are brought to it (crop)" in data.warnings


def test_grey_images_are_recognised(load, make):
    make("train/a", 3, mode="L")
    make("train/b", 3, mode="1")
    assert load().train.images.shape[1] == 1
    assert load(channels=3).train.images.shape[1] == 3
    make("train/c", 1, mode="RGB")
    assert load().train.images.shape[1] == 3


def test_colour_image_that_the_sample_missed_is_told_of(load, make):
    make("train/a", 300, mode="L", size=(2, 2))
    make("train/b", 300, mode="L", size=(2, 2))
    Image.new("RGB", (2, 2), "red").save(make("train/a", 1, mode="L", size=(2, 2)) / "1.png")
    data = load()
    assert data.preprocessing.channels == 1
    assert any("have colours but are read as grey" in warning for warning in data.warnings)
    assert not any("have colours" in warning for warning in load(channels=1).warnings)


def test_many_files_are_decoded_by_processes_with_the_same_result(load, make, tmp_path):
    make("train/a", 4, size=(9, 7))
    make("train/b", 4, size=(9, 7))
    for index in range(2000):
        os.link(tmp_path / f"root/train/a/{index % 4}.png", tmp_path / f"root/train/a/x{index}.png")
    options = {"image_size": 4, "channels": 3}
    there = load(num_workers=2, **options)
    shutil.rmtree(tmp_path / "cache")
    assert torch.equal(all_images(load(num_workers=0, **options).train), all_images(there.train))


def test_odd_images_are_told_of(load, tree):
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    frames[0].save(tree / "train/cat/f.gif", save_all=True, append_images=frames[1:])
    Image.new("RGB", (1, 1)).save(tree / "train/cat/g.png")
    warnings = " | ".join(load().warnings)
    assert "1 images hold several frames or pages, of which the first is used: train/cat/f.gif" in warnings
    assert "1 images are less than 8 px high or wide: train/cat/g.png" in warnings
    assert "2 images are of one single colour: train/cat/f.gif, train/cat/g.png" in warnings
