import os
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from cvtrain.data.file_splits import BadImagesError
from cvtrain.data.images import MemoryImages
from cvtrain.data.label_file import LabelFileError
from cvtrain.data.labelled_images import FileImages
from cvtrain.data.palm import load_palm
from cvtrain.errors import ConfigError, DataError

TRAIN = [f"PALM-Training400/{name}.jpg" for name in ("H0001", "N0001", "N0002", "P0001", "P0002")]
VAL = [f"PALM-Validation400/V000{i}.jpg" for i in (1, 2, 3)]
TABLE = "imgName,Label\nV0001.jpg,1\nV0003.jpg,0\nV0002.jpg,0\n"


@pytest.fixture
def palm(pictures):
    root = pictures(*TRAIN, *VAL)
    (root / "labels.csv").write_text(TABLE)
    return root


@pytest.fixture
def load(tmp_path):
    def load(**options):
        given = {"root": tmp_path / "root", "image_size": 8, "cache_dir": tmp_path / "cache", **options}
        return load_palm(**given)

    return load


def names(images):
    return [name.rpartition("/")[2][:-4] for name in images.names]


def test_letters_label_training_and_the_table_labels_the_test_split(load, palm):
    data = load()
    assert data.class_names == ("normal", "pathologic")
    assert names(data.train) == ["H0001", "N0001", "N0002", "P0001", "P0002"]
    assert data.train.labels.tolist() == [0, 0, 0, 1, 1]
    assert data.val is None
    assert names(data.test) == ["V0002", "V0003", "V0001"]
    assert data.test.labels.tolist() == [0, 0, 1]
    assert data.warnings == ()
    pixels = np.asarray(Image.open(palm / VAL[0]))
    np.testing.assert_array_equal(data.test.images.read(torch.tensor([2]))[0].permute(1, 2, 0), pixels)


def test_validation_images_may_validate_and_a_part_of_training_tests(load, palm, pictures):
    pictures(*(f"PALM-Training400/{letter}{i}.jpg" for letter in "NP" for i in range(20)))
    data = load(use_validation_as="val")
    assert names(data.val) == ["V0002", "V0003", "V0001"]
    assert torch.bincount(data.test.labels).tolist() == [5, 4]
    assert torch.bincount(data.train.labels).tolist() == [18, 18]
    assert not set(data.test.names) & {*data.train.names, *data.val.names}
    assert data.warnings == (
        "there is no test split beside the validation images: "
        "a fixed 20% of every class of the training folder is the test split",
    )


def test_files_and_memory_give_the_same_data(load, palm):
    memory, files = load(loader="memory"), load(loader="files")
    assert isinstance(memory.test.images, MemoryImages)
    assert isinstance(files.test.images, FileImages)
    order = torch.tensor([2, 0, 1])
    assert torch.equal(memory.test.images.read(order), files.test.images.read(order))
    assert memory.fingerprint == files.fingerprint


def test_folders_are_found_as_unpacking_leaves_them(load, palm):
    (palm / "PALM-Validation400").rename(palm / "Val")
    inner = palm / "PALM-Training400" / "PALM-Training400"
    (palm / "PALM-Training400").rename(palm / "inner")
    inner.parent.mkdir()
    (palm / "inner").rename(inner)
    (palm / "labels.csv").rename(palm / "Val" / "Labels.CSV")
    data = load()
    assert data.train.names[0] == "PALM-Training400/PALM-Training400/H0001.jpg"
    assert names(data.test) == ["V0002", "V0003", "V0001"]
    assert data.warnings == ()


def test_folders_and_table_can_be_named(load, palm):
    (palm / "a").mkdir()
    (palm / "PALM-Training400").rename(palm / "a" / "one")
    (palm / "PALM-Validation400").rename(palm / "two")
    (palm / "labels.csv").rename(palm / "a" / "table.txt")
    data = load(train_dir="a/one", val_dir="two/", labels="a/table.txt")
    assert (len(data.train), len(data.test)) == (5, 3)


def test_table_of_a_spreadsheet_with_other_columns_and_cases_is_read(load, palm):
    (palm / VAL[0]).rename(palm / "PALM-Validation400/V0001.JPG")
    table = "\ufeffID;IMGNAME;label;Fovea_X\r\n1;v0001.jpg;1.0;1157,7\r\n2;V0002.jpg;0;\r\n3;V0003.JPG;0;1\r\n;;;\r\n"
    (palm / "labels.csv").write_text(table, encoding="utf-8", newline="")
    assert names(load().test) == ["V0002", "V0003", "V0001"]


def test_fingerprint_follows_labels_not_the_order_of_rows(load, palm):
    before = load().fingerprint
    (palm / "labels.csv").write_text("imgName,Label\nV0003.jpg,0\nV0002.jpg,0\nV0001.jpg,1\n")
    assert load().fingerprint == before
    (palm / "labels.csv").write_text("imgName,Label\nV0003.jpg,1\nV0002.jpg,0\nV0001.jpg,1\n")
    assert load().fingerprint != before


def test_all_faults_of_the_table_are_told_with_line_and_column(load, palm):
    rows = ["V0001.jpg,2", "V0001.jpg,0", "V0009.jpg,0", "V0010.jpg,yes", ",1"]
    (palm / "labels.csv").write_text("imgName,Label\n" + "\n".join(rows) + "\n")
    with pytest.raises(LabelFileError) as caught:
        load()
    told = {(p.line, p.column, p.kind): p.text for p in caught.value.problems}
    assert told == {
        (2, "Label", "label"): "'2' is neither 0 nor 1",
        (3, "imgName", "twice"): "V0001.jpg is in line 2 already",
        (4, "imgName", "missing"): "there is no image V0009.jpg (did you mean V0003.jpg?)",
        (5, "Label", "label"): "'yes' is neither 0 nor 1",
        (5, "imgName", "missing"): "there is no image V0010.jpg",
        (6, "imgName", "empty"): "is empty",
        (None, None, "no row"): "2 images have no row: PALM-Validation400/V0002.jpg, PALM-Validation400/V0003.jpg",
    }
    lines = caught.value.lines()
    assert lines[0].startswith("7 problems in ")
    assert "labels.csv, of 5 kinds" in lines[0]
    assert lines[1] == "  line 2, column Label: '2' is neither 0 nor 1 (also line 5)"
    assert len(lines) == 6


def test_image_whose_label_is_empty_is_told_once(load, palm):
    (palm / "labels.csv").write_text(TABLE.replace("V0003.jpg,0", "V0003.jpg,"))
    with pytest.raises(LabelFileError, match="1 problem in") as caught:
        load()
    assert caught.value.lines()[1] == "  line 3, column Label: is empty"


def test_table_that_is_not_utf8_is_refused_not_guessed(load, palm):
    (palm / "labels.csv").write_bytes(TABLE.encode() + b"\xe9.jpg,1\n")
    with pytest.raises(DataError, match=r"labels\.csv, line 5: is not UTF-8"):
        load()


def test_names_that_begin_with_none_of_the_letters_are_told_together(load, palm, pictures):
    pictures("PALM-Training400/V0001.jpg", "PALM-Training400/0001.jpg", "PALM-Training400/p0003.JPG")
    with pytest.raises(DataError, match=r"2 of 8 images in .* begin neither with H or N .* with P") as caught:
        load()
    assert caught.value.message.endswith(": PALM-Training400/0001.jpg, PALM-Training400/V0001.jpg")
    for name in ("V0001.jpg", "0001.jpg"):
        (palm / "PALM-Training400" / name).unlink()
    assert names(load().train)[-1] == "p0003"


def test_hidden_and_other_files_and_folders_are_passed_over(load, palm, pictures):
    pictures("PALM-Training400/.H9.jpg", "PALM-Training400/Lesion_Masks/P0001.jpg", "PALM-Training400/.h/P9.jpg")
    (palm / "PALM-Training400" / "Thumbs.db").touch()
    (palm / "PALM-Validation400" / "Thumbs.db").touch()
    data = load()
    assert (len(data.train), len(data.test)) == (5, 3)
    assert data.warnings == (
        "3 files that are no images were passed over: .db 2, hidden 1",
        "folders were not looked into: PALM-Training400/Lesion_Masks/",
    )


def test_unreadable_images_of_both_folders_are_refused_together_or_left_out(load, palm):
    (palm / TRAIN[1]).write_bytes(b"junk")
    (palm / VAL[1]).write_bytes(b"")
    with pytest.raises(BadImagesError, match="2 of 8 images") as caught:
        load()
    assert [name for name, _ in caught.value.images] == [TRAIN[1], VAL[1]]
    data = load(on_bad="skip")
    assert (len(data.train), len(data.test)) == (4, 2)
    assert data.test.labels.tolist() == [0, 1]


def test_missing_parts_are_told_with_what_there_is(load, palm):
    (palm / "PALM-Validation400").rename(palm / "PALM-Valid")
    with pytest.raises(DataError, match="the folders there are: PALM-Training400, PALM-Valid") as caught:
        load()
    assert "data.val_dir=FOLDER" in caught.value.hint
    (palm / "PALM-Valid").rename(palm / "val")
    (palm / "labels.csv").rename(palm / "table.csv")
    with pytest.raises(DataError, match=r"there is no labels\.csv in") as caught:
        load()
    assert "save it as CSV" in caught.value.hint
    with pytest.raises(DataError, match=r"data\.labels: there is no file"):
        load(labels="tabel.csv")
    with pytest.raises(DataError, match=r"data\.labels: there is no file .*~nobody-of-that-name"):
        load(labels="~nobody-of-that-name/labels.csv")
    shutil.rmtree(palm / "PALM-Training400")
    with pytest.raises(DataError, match="none of PALM-Training400/"):
        load()


def test_table_named_from_the_current_folder_says_what_was_meant(load, palm, monkeypatch):
    monkeypatch.chdir(palm.parent)
    with pytest.raises(DataError) as caught:
        load(labels="root/labels.csv")
    assert caught.value.hint == f"did you mean data.labels={palm}/labels.csv?"


@pytest.mark.parametrize(("key", "value"), [("train_dir", ".."), ("val_dir", "/tmp"), ("train_dir", ".")])
def test_folder_outside_the_root_is_refused(load, palm, key, value):
    with pytest.raises(DataError, match=f"data.{key}={value} is no folder in data.root"):
        load(**{key: value})


def test_what_is_there_twice_is_not_guessed(load, palm):
    with pytest.raises(DataError, match="are both PALM-Training400"):
        load(val_dir="PALM-Training400")
    shutil.copy(palm / "labels.csv", palm / "PALM-Validation400")
    with pytest.raises(DataError, match="which is meant"):
        load()
    os.mkdir(palm / "train")
    with pytest.raises(DataError, match="holds PALM-Training400 and train: which is meant") as caught:
        load()
    assert caught.value.hint == "choose one: data.train_dir=PALM-Training400"


def test_class_without_images_and_empty_folder_are_refused(load, palm):
    for path in (palm / "PALM-Training400").glob("P*"):
        path.unlink()
    with pytest.raises(DataError, match=r"1 of 2 classes in .* \(pathologic 0, normal 3\)"):
        load()
    for path in (palm / "PALM-Training400").iterdir():
        path.unlink()
    with pytest.raises(DataError, match=r"no images in .*PALM-Training400"):
        load()


def test_wrong_options_are_told_together(load):
    with pytest.raises(ConfigError) as caught:
        load(root=None, use_validation_as="train", on_bad="ignore")
    assert len(caught.value.problems) == 3
