import shutil

import pytest
import torch

from cvtrain.data.image_csv import load_image_csv
from cvtrain.data.label_file import LabelFileError
from cvtrain.errors import ConfigError, DataError

HEAD = "image,label,split\n"
ROWS = "a/1.png,cat,train\na/2.png,dog,train\na/3.png,dog,Training\nb/1.png,dog,val\nb/2.png,cat,test\n"


@pytest.fixture
def listed(pictures):
    root = pictures("a/1.png", "a/2.png", "a/3.png", "b/1.png", "b/2.png", "b/unlisted.png")
    (root / "labels.csv").write_text(HEAD + ROWS)
    return root


@pytest.fixture
def load(tmp_path):
    def load(**options):
        return load_image_csv(**{"root": tmp_path / "root", "cache_dir": tmp_path / "cache", **options})

    return load


@pytest.fixture
def problems_of(load, listed):
    """What is told of a text as labels.csv, as `{line: (column, text)}`."""

    def problems_of(text):
        (listed / "labels.csv").write_text(text)
        with pytest.raises(LabelFileError) as caught:
            load()
        return {p.line: (p.column, p.text) for p in caught.value.problems}

    return problems_of


def parts(data):
    return {
        name: dict(zip(images.names, images.labels.tolist(), strict=True))
        for name, images in (("train", data.train), ("val", data.val), ("test", data.test))
        if images
    }


EXPECTED = {"train": {"a/1.png": 0, "a/2.png": 1, "a/3.png": 1}, "val": {"b/1.png": 1}, "test": {"b/2.png": 0}}


def test_rows_say_image_label_and_split(load, listed):
    data = load()
    assert data.class_names == ("cat", "dog")
    assert parts(data) == EXPECTED
    assert data.preprocessing.image_size == 8
    assert load(loader="files").fingerprint == data.fingerprint
    (listed / "labels.csv").write_text(HEAD + "\n".join(reversed(ROWS.split())))
    assert load().fingerprint == data.fingerprint


def test_splits_may_have_files_of_their_own(load, listed):
    for name, split in (("labels", "rain"), ("v", "val"), ("t", "test")):
        rows = [row.rpartition(",")[0] for row in ROWS.split() if split in row]
        (listed / f"{name}.csv").write_text("path;class\n" + "\n".join(rows).replace(",", ";"))
    assert parts(load(val_labels="v.csv", test_labels="t.csv")) == EXPECTED
    with pytest.raises(ConfigError, match=r"data\.split_column and data\.val_labels are both set"):
        load(val_labels="v.csv", split_column="x")
    (listed / "v.csv").write_text("path;class\n")
    with pytest.raises(DataError, match=r"v\.csv holds no rows"):
        load(val_labels="v.csv", test_labels="t.csv")


def test_columns_can_be_named(load, listed):
    rows = [row.split(",") for row in ROWS.split()]
    text = "".join(f"x.png,emu,{image},{label},{split},val\n" for image, label, split in rows)
    (listed / "labels.csv").write_text("image,label,Photo,animal,part,split\n" + text)
    columns = {"image_column": "photo", "label_column": "animal", "split_column": "PART"}
    assert parts(load(**columns)) == EXPECTED
    with pytest.raises(DataError, match=r"no column animl \(did you mean animal\?\)") as caught:
        load(**{**columns, "label_column": "animl"})
    assert caught.value.hint == "name it: data.label_column=NAME"
    with pytest.raises(ConfigError, match="name the same column"):
        load(image_column="image", label_column="image")


def test_without_splits_a_fifth_of_every_class_tests(load, pictures):
    root = pictures(*(f"{i}.png" for i in range(20)))
    (root / "my.csv").write_text("file,target\n" + "".join(f"{i}.png,{i % 2 * 10}\n" for i in range(20)))
    data = load(labels="my.csv")
    assert data.val is None
    assert torch.bincount(data.test.labels).tolist() == [2, 2]
    assert data.warnings[0].startswith("there is no test row: a fixed 20% of every class of the training rows")


def test_numbers_are_sorted_by_value_and_words_by_character(load, pictures):
    root = pictures(*(f"{i}.png" for i in range(6)))
    for labels, expected in (("10 9 -1", ("-1", "9", "10")), ("10 9 x", ("10", "9", "x"))):
        rows = [f"{i}.png,{label}" for i, label in enumerate(labels.split() * 2)]
        (root / "labels.csv").write_text("image,label\n" + "\n".join(rows))
        assert load().class_names == expected


def test_windows_separators_and_dots_lead_to_the_same_file(load, listed):
    (listed / "labels.csv").write_text((HEAD + ROWS).replace("a/1", "a\\1").replace("a/2", "./a/./2"))
    assert parts(load()) == EXPECTED


def test_paths_that_lead_out_of_the_root_are_refused(problems_of, listed, tmp_path):
    shutil.copytree(listed / "a", tmp_path / "elsewhere")
    (listed / "link").symlink_to(tmp_path / "elsewhere")
    outside = [str(tmp_path / "elsewhere/1.png"), "../elsewhere/1.png", "a/../../elsewhere/1.png", "link/1.png"]
    outside += ["C:\\x.png", "..\\elsewhere\\1.png", "."]
    found = problems_of(HEAD + ROWS + "".join(f"{path},cat,train\n" for path in outside))
    assert {line: text.endswith(" leads out of data.root") for line, (_, text) in found.items()} == dict.fromkeys(
        range(7, 14), True
    )


def test_links_to_files_and_odd_cases_are_read(load, listed, tmp_path):
    shutil.move(listed / "a/1.png", tmp_path / "1.png")
    (listed / "a/1.png").symlink_to(tmp_path / "1.png")
    (listed / "b/2.png").rename(listed / "b/2.PNG")
    (listed / "labels.csv").write_text((HEAD + ROWS).replace("b/2.png", "b/2.PNG"))
    assert list(parts(load())["test"]) == ["b/2.PNG"]


def test_all_faults_of_rows_are_told_with_line_and_column(problems_of):
    found = problems_of(
        HEAD + ROWS + "a/1.png,dog,test\na/4.png,cat,train\nb/unlisted,cat,train\n"
        "b/unlisted.png,emu,test\na/9.png,,train\n,cat,train\na/8.png,cat,fold1\n"
    )
    assert found == {
        7: ("image", "a/1.png is in line 2 already, as cat"),
        8: ("image", "there is no file a/4.png"),
        9: ("image", "there is no file b/unlisted"),
        10: ("label", "emu is no class of the training rows, but the label of a test row"),
        11: ("image", "there is no file a/9.png"),
        12: ("image", "is empty"),
        13: ("image", "there is no file a/8.png"),
    }


LABEL_FILES = {
    "byte order mark": ("\ufeff" + HEAD + ROWS, None),
    "line ends of Windows": ((HEAD + ROWS).replace("\n", "\r\n"), None),
    "line ends of old Macs": ((HEAD + ROWS).replace("\n", "\r"), None),
    "semicolons": ((HEAD + ROWS).replace(",", ";"), None),
    "tabs": ((HEAD + ROWS).replace(",", "\t"), None),
    "quotes around all": ('"image","label","split"\n' + ROWS, None),
    "names of columns in capitals": (HEAD.upper() + ROWS, None),
    "spaces around": ((HEAD + ROWS).replace(",", " , "), None),
    "commas at the ends": ((HEAD + ROWS).replace("\n", ",,\n"), None),
    "blank lines": ("\n\n" + (HEAD + ROWS).replace("\n", "\n\n"), None),
    "no line end": ((HEAD + ROWS).rstrip(), None),
    "other columns": ("n,image,split,label\n" + "".join(
        f"{n},{image},{split},{label}\n" for n, (image, label, split) in enumerate(r.split(",") for r in ROWS.split())
    ), None),
    "a row twice": (HEAD + ROWS + "a/1.png,cat,train\n", None),
    "a row twice with another label": (HEAD + ROWS + "a/1.png,dog,train\n", "line 7, column image: a/1.png is in line 2"
                                       " already, as cat"),
    "a row twice with another split": (HEAD + ROWS + "a/1.png,cat,test\n", "line 7, column image: a/1.png is in line 2"
                                       " already"),
    "UTF-16": ((HEAD + ROWS).encode("utf-16"), "labels.csv is UTF-16 text"),
    "UTF-16 without a mark": ((HEAD + ROWS).encode("utf-16-le"), "labels.csv, line 1: holds a NUL byte"),
    "Latin-1": ((HEAD + ROWS).replace("cat", "chat\xe9").encode("latin-1"), "labels.csv, line 2: is not UTF-8 text"),
    "NUL": (HEAD + ROWS.replace("b/1", "b\0"), "labels.csv, line 5: holds a NUL byte"),
    "quote that is never closed": (HEAD + ROWS + 'a/4.png,"cat,train\n', "line 7: cannot be read"),
    "text behind a quote": (HEAD + '"a/1.png"x,cat,train\n', "line 2: cannot be read"),
    "huge cell": (HEAD + ROWS + "x" * 200_000 + ",cat,train\n", "line 7: cannot be read (field larger than"),
    "no names of columns": (ROWS, "line 1: names none of the columns: a/1.png, cat, train"),
    "comment first": ("# made by hand\n" + HEAD + ROWS, "line 1: names none of the columns: # made by hand"),
    "comment between": (HEAD + ROWS + "# the rest\n", "line 7, column label: is empty"),
    "names of columns again": (HEAD + ROWS + HEAD, "line 7: names the columns again"),
    "column twice": ("image,label,Label\n", "line 1: there are two columns label"),
    "column that lacks": ("image,animal\na/1.png,cat\n", "line 1: there is no column label"),
    "cell too many": (HEAD + ROWS + "a/1,5.png,cat,train\n", "line 7: 4 cells, but there are 3 columns"),
    "cell too few": (HEAD + ROWS + "b/unlisted.png\n", "line 7, column label: is empty"),
    "empty": ("", "labels.csv is empty"),
    "only names of columns": (HEAD, "there are no rows to train on"),
    "empty label": (HEAD + ROWS.replace("dog,val", ",val"), "line 5, column label: is empty"),
    "way out": (HEAD + ROWS + "../x.png,cat,train\n", "line 7, column image: ../x.png leads out of data.root"),
    "absolute path": (HEAD + ROWS + "/etc/hostname,cat,train\n", "line 7, column image: /etc/hostname leads out"),
    "missing file": (HEAD + ROWS + "a/x.png,cat,train\n", "line 7, column image: there is no file a/x.png"),
    "folder": (HEAD + ROWS + "a,cat,train\n", "a: is a folder"),
    "one number in two ways": (
        HEAD + "a/1.png,1,train\na/2.png,01,train\na/3.png,1.0,train\nb/1.png,2,train\nb/2.png,2,test\n",
        "line 3, column label: 01 is the number that line 2 calls 1 (also line 4)",
    ),
    "workbook": (b"PK\x03\x04rest", "labels.csv is a workbook or an archive"),
}  # fmt: skip


@pytest.mark.parametrize("kind", LABEL_FILES)
def test_label_file_of_any_kind_is_read_or_refused_with_its_place(load, listed, kind):
    content, message = LABEL_FILES[kind]
    (listed / "labels.csv").write_bytes(content if isinstance(content, bytes) else content.encode())
    if message is None:
        assert parts(load()) == EXPECTED
        return
    with pytest.raises(DataError) as caught:
        load()
    assert message in "\n".join(caught.value.lines())
    assert len(caught.value.lines()) <= 6
    assert all(len(line) < 400 for line in caught.value.lines())


def test_what_is_odd_about_rows_is_warned_of(load, listed):
    assert "1 images beside these have no row: b/unlisted.png" in load().warnings
    (listed / "labels.csv").write_text(HEAD + ROWS + "a/1.png,cat,train\nb/unlisted.png,Cat,train\n")
    warnings = load().warnings
    assert "1 rows say again what earlier ones say: each image counts once" in warnings
    assert "names of classes differ in case or spelling only: 'Cat' and 'cat'" in warnings


def test_labels_of_markup_and_formulas_are_only_names(load, listed):
    for label in ("<script>alert(1)</script>", "=1+1", "@SUM(A1)", "猫", "-1;2"):
        (listed / "labels.csv").write_text((HEAD + ROWS).replace("cat", label))
        assert set(load().class_names) == {label, "dog"}


def test_file_of_labels_may_be_a_link(load, listed, tmp_path):
    shutil.move(listed / "labels.csv", tmp_path / "elsewhere.csv")
    (listed / "labels.csv").symlink_to(tmp_path / "elsewhere.csv")
    assert parts(load()) == EXPECTED


def test_class_whose_training_row_has_a_fault_is_no_unknown_class(problems_of):
    found = problems_of(HEAD + ROWS + "a/4.png,emu,train\nb/unlisted.png,emu,test\n")
    assert found == {7: ("image", "there is no file a/4.png")}


def test_name_without_its_extension_says_what_was_meant(problems_of):
    found = problems_of("id_code,diagnosis\na/1,0\na/2.png,1\n")
    assert found == {2: ("id_code", "there is no file a/1 (did you mean 1.png?)")}


def test_split_that_is_none_is_told(problems_of):
    found = problems_of(HEAD + ROWS.replace("val", "fold1").replace("test", ""))
    assert found == {
        5: ("split", "'fold1' is not train, val or test"),
        6: ("split", "'' is not train, val or test"),
    }


def test_no_rows_to_train_on_and_a_single_class_are_refused(load, listed):
    (listed / "labels.csv").write_text(HEAD)
    with pytest.raises(DataError, match="no rows to train on"):
        load()
    (listed / "labels.csv").write_text(HEAD + "a/1.png,cat,test\n")
    with pytest.raises(DataError, match="no rows to train on"):
        load()
    (listed / "labels.csv").write_text(HEAD + "a/1.png,cat,train\na/2.png,cat,test\n")
    with pytest.raises(DataError, match=r"only one class in .* \(cat 1\)"):
        load()


def test_missing_file_of_labels_says_which_there_are(load, listed, monkeypatch):
    with pytest.raises(DataError, match=r"no file of labels .*label\.csv") as caught:
        load(labels="label.csv")
    assert caught.value.hint == "the CSV files there are: labels.csv"
    monkeypatch.chdir(listed.parent)
    with pytest.raises(DataError) as caught:
        load(labels="root/labels.csv")
    assert f"did you mean {listed}/labels.csv?" in caught.value.hint
