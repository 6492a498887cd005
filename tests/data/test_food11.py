import shutil

import pytest
import torch

from cvtrain.data.food11 import CLASS_NAMES, load_food11
from cvtrain.errors import ConfigError, DataError

SPLITS = {"training": 2, "validation": 1, "evaluation": 1}
FILES = [f"{split}/{label}_{i}.jpg" for split, count in SPLITS.items() for label in range(11) for i in range(count)]


@pytest.fixture
def food(pictures):
    return pictures(*FILES)


@pytest.fixture
def load(tmp_path):
    def load(root=tmp_path / "root", **options):
        return load_food11(root=root, **{"image_size": 8, "cache_dir": tmp_path / "cache", **options})

    return load


def test_number_in_the_name_is_the_label(load, food):
    data = load()
    assert data.class_names == CLASS_NAMES
    assert (CLASS_NAMES[0], CLASS_NAMES[10], len(CLASS_NAMES)) == ("Bread", "Vegetable/Fruit", 11)
    assert data.train.labels.tolist() == [label for label in range(11) for _ in range(2)]
    assert data.train.names[4:6] == ("training/2_0.jpg", "training/2_1.jpg")
    assert data.train.names[-1] == "training/10_1.jpg"
    assert data.val.labels.tolist() == data.test.labels.tolist() == list(range(11))
    assert data.test.names[10] == "evaluation/10_0.jpg"
    assert data.warnings == ()


def test_folder_around_and_zip_give_the_same_data(load, food, tmp_path):
    plain = load()
    (tmp_path / "around").mkdir()
    food.rename(tmp_path / "around" / "food-11")
    around = load(tmp_path / "around")
    archive = shutil.make_archive(tmp_path / "food-11", "zip", tmp_path / "around")
    shutil.rmtree(tmp_path / "around")
    packed = load(archive)
    for other in (around, packed):
        assert other.fingerprint == plain.fingerprint
        assert other.test.names == plain.test.names
        assert torch.equal(other.val.images.read(torch.arange(11)), plain.val.images.read(torch.arange(11)))
        assert other.warnings == ()
    assert load(archive, loader="files").fingerprint == plain.fingerprint


def test_missing_splits_are_carved_or_left_to_be_carved(load, food):
    shutil.rmtree(food / "validation")
    shutil.rmtree(food / "evaluation")
    data = load()
    assert data.val is None
    assert data.test.labels.tolist() == data.train.labels.tolist() == list(range(11))
    assert "there is no evaluation/ folder: a fixed 20% of every class of training/" in data.warnings[0]


def test_names_without_a_label_are_told_together(load, food, pictures):
    pictures("training/11_0.jpg", "training/bread.jpg", "evaluation/0001.jpg", "training/1_x.JPG")
    with pytest.raises(
        DataError, match=r"3 of \d+ images in .* do not begin with a number from 0 to 10 and '_'"
    ) as caught:
        load()
    assert caught.value.message.endswith(": training/11_0.jpg, training/bread.jpg, evaluation/0001.jpg")


def test_images_in_class_folders_are_pointed_at(load, pictures):
    pictures("training/Bread/0_0.jpg")
    with pytest.raises(DataError, match=r"no images in .*training; there are folders in it: training/Bread/"):
        load()


def test_other_files_and_folders_are_passed_over(load, food, pictures):
    pictures("testing/0000.jpg", "training/.0_9.jpg", "training/0_2.JPEG")
    (food / "training" / "Thumbs.db").touch()
    data = load()
    assert len(data.train) == 23
    assert data.warnings == (
        "2 files that are no images were passed over: .db 1, hidden 1",
        "folders were not looked into: testing/",
    )


def test_class_without_training_images_is_refused(load, food):
    for path in (food / "training").glob("3_*"):
        path.unlink()
    with pytest.raises(DataError, match=r"1 of 11 classes .* \(Egg 0, "):
        load()


def test_root_without_the_folders_says_what_there_is(load, food, tmp_path, pictures):
    (food / "training").rename(food / "train")
    with pytest.raises(DataError, match=r"there is no training/ in .*: evaluation, train, validation") as caught:
        load()
    assert "wanted: training/0_0.jpg" in caught.value.hint
    with pytest.raises(DataError, match=r"data\.root does not exist: .*nowhere"):
        load(tmp_path / "nowhere")
    pictures("a/training/0_0.jpg", "b/training/0_0.jpg")
    with pytest.raises(DataError, match="holds training/ in a and b"):
        load()
    with pytest.raises(DataError, match=r"data\.root does not exist: .*~nobody-of-that-name"):
        load("~nobody-of-that-name/food-11.zip")
    with pytest.raises(ConfigError, match=r"data\.root is needed"):
        load(None)


def test_file_that_is_no_archive_is_refused(load, tmp_path):
    (tmp_path / "food-11.zip").write_bytes(b"<html>log in first</html>")
    with pytest.raises(DataError, match=r"food-11\.zip cannot be read, or is damaged"):
        load(tmp_path / "food-11.zip")
    assert not list((tmp_path / "cache").glob("unpacked-*.part"))
