import shutil

import pytest

from cvtrain.errors import DataError


def labels(data):
    return [images.labels.tolist() for images in (data.train, data.val, data.test)]


@pytest.mark.parametrize("name", ["val", "valid", "validation"])
def test_validation_folder_has_three_names(load_folder, tree, name):
    (tree / "val").rename(tree / name)
    assert load_folder().val.labels.tolist() == [0, 1, 1]


def test_two_validation_folders_are_refused(load_folder, tree, make):
    make("valid/cat", 1)
    with pytest.raises(DataError, match="val and valid"):
        load_folder()


def test_no_validation_folder_is_no_validation_split(load_folder, tree):
    shutil.rmtree(tree / "val")
    assert load_folder().val is None


def test_classes_are_sorted_by_code_point_and_may_differ_in_case_only(load_folder, make):
    for name in ("b", "B", "a10", "a2"):
        make(f"train/{name}", 1)
        make(f"test/{name}", 1)
    assert load_folder().class_names == ("B", "a10", "a2", "b")


def test_class_folders_in_the_root_are_taken_as_train(load_folder, make):
    make("cat", 5)
    make("dog", 5)
    data = load_folder()
    assert data.train.labels.tolist() == [0] * 4 + [1] * 4
    assert data.test.labels.tolist() == [0, 1]
    assert "there is no train/ folder" in data.warnings[0]


def test_root_that_is_a_train_folder_says_what_was_meant(load_folder, tree):
    assert f"did you mean data.root={tree}?" in load_folder(tree / "train").warnings[0]


def test_class_that_train_lacks_is_refused_with_the_nearest(load_folder, tree, make):
    make("test/dogs", 1)
    with pytest.raises(DataError, match=r"test folder .* holds classes that train/ lacks: dogs") as caught:
        load_folder()
    assert caught.value.hint == "did you mean dog? classes are the folders in train/: cat, dog"


def test_empty_class_is_refused_with_the_counts(load_folder, tree, make):
    make("train/emu", 0)
    with pytest.raises(DataError, match=r"1 of 3 class folders .* \(emu 0, dog 2, cat 3\)"):
        load_folder()


def test_single_class_is_refused(load_folder, make):
    make("train/cat", 3)
    with pytest.raises(DataError, match=r"only one class in .* \(cat 3\)"):
        load_folder()


def test_empty_test_folder_is_refused(load_folder, tree):
    shutil.rmtree(tree / "test/cat")
    shutil.rmtree(tree / "test/dog")
    with pytest.raises(DataError, match=r"the test folder in .* holds no images"):
        load_folder()


def test_images_without_class_folders_are_refused(load_folder, make):
    make("train", 2)
    with pytest.raises(DataError, match=r"no class folders .* 2 images lie outside") as caught:
        load_folder()
    assert "train/<class>" in caught.value.hint


def test_train_one_level_deeper_is_pointed_at(load_folder, tree, tmp_path):
    with pytest.raises(DataError, match="no train/, but its folder root has") as caught:
        load_folder(tmp_path)
    assert caught.value.hint == f"data.root={tree}"


def test_test_without_train_is_refused(load_folder, tree):
    shutil.rmtree(tree / "train")
    with pytest.raises(DataError, match="has val/ but no train/"):
        load_folder()


def test_missing_root_is_shown_as_resolved_with_the_nearest(load_folder, tree, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError) as caught:
        load_folder("rot/deeper")
    assert f"does not exist: {tmp_path}/rot/deeper\n" in caught.value.message
    assert f"{tmp_path} (did you mean root in it?)" in caught.value.message
    assert len(caught.value.lines()) <= 6


def test_root_that_is_a_file_or_empty_is_refused(load_folder, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="is a file, not a folder"):
        load_folder(tmp_path / "file")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no class folders"):
        load_folder(tmp_path / "empty")


def test_home_is_expanded_in_the_root(load_folder, tree, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert len(load_folder("~/root").train) == 5


def test_other_files_hidden_ones_and_links_to_folders_are_passed_over(load_folder, tree, make):
    for name in ("cat/notes.txt", "cat/.DS_Store", "cat/x.jpg.part", "dog/README", ".hidden/0.png"):
        make(f"train/{name}")
    make("train/.ipynb_checkpoints", 2)
    make("train/cat/.thumbnails", 2)
    (tree / "train/cat/loop").symlink_to("..")
    (tree / "train/emu").symlink_to("cat")
    (tree / "train/loose.jpg").touch()
    data = load_folder()
    assert labels(data)[0] == [0, 0, 0, 1, 1]
    assert data.warnings == (
        "4 files that are no images were passed over: .part 1, .txt 1, hidden 1, without an extension 1",
        "1 images outside any class folder were passed over: train/loose.jpg",
        "links to folders were not followed: train/cat/loop, train/emu",
    )


def test_folders_below_a_class_and_links_to_files_count(load_folder, tree, make):
    make("train/cat/more/deep", 2)
    make("train/cat/folder.jpg", 0)
    (tree / "train/dog/link.png").symlink_to("0.png")
    (tree / "test").rename(tree.parent / "elsewhere")
    (tree / "test").symlink_to(tree.parent / "elsewhere")
    data = load_folder()
    assert labels(data) == [[0] * 5 + [1] * 3, [0, 1, 1], [0, 0, 1]]
    assert "train/cat/more/deep/1.png" in data.train.names
