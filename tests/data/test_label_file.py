import os

import pytest

from cvtrain.data.label_file import Column, LabelFileError, read_label_file, refuse_problems
from cvtrain.errors import DataError

COLUMNS = {"image": Column(("imgName",)), "label": Column(("Label", "class"), key="data.label_column")}
OPTIONAL = {**COLUMNS, "split": Column(("split",), needed=False)}


@pytest.fixture
def read(tmp_path):
    def read(content, columns=COLUMNS):
        path = tmp_path / "labels.csv"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return read_label_file(path, columns)

    return read


def cells(file):
    return [(row.line, *row.cells.values()) for row in file.rows]


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_every_delimiter_and_line_end_of_spreadsheets_is_read(read, delimiter, newline, mark):
    lines = ["ID,IMGNAME,label,Fovea_X", "1,V1.jpg,0,1157.7", "2,V2.jpg,1,1023.1", ""]
    file = read(mark + newline.join(lines).replace(",", delimiter))
    assert cells(file) == [(2, "V1.jpg", "0"), (3, "V2.jpg", "1")]
    assert file.columns == {"image": "IMGNAME", "label": "label"}
    assert not file.problems


def test_decimal_commas_do_not_make_the_comma_the_delimiter(read):
    assert cells(read("imgName;Label;X\nV1.jpg;0;1157,7\n")) == [(2, "V1.jpg", "0")]


def test_quoted_cells_with_any_delimiter_are_read(read):
    for delimiter in ",;\t":
        text = '"imgName","Label"\n"a ""b"".jpg","0"\n'.replace(",", delimiter)
        assert cells(read(text)) == [(2, 'a "b".jpg', "0")]


def test_lines_are_those_of_the_file_with_blank_rows_and_breaks_inside_quotes(read):
    text = '\n\nimgName,Label,note\n\n"a, b.jpg",0,"two\nlines"\n,,\n c.jpg , 1 ,x\n'
    assert cells(read(text)) == [(5, "a, b.jpg", "0"), (8, "c.jpg", "1")]


def test_column_that_is_not_needed_may_lack_and_be_empty(read):
    assert cells(read("imgName,class\na,0\n", OPTIONAL)) == [(2, "a", "0")]
    file = read("imgName,class,Split\na,0,\n", OPTIONAL)
    assert cells(file) == [(2, "a", "0", "")]
    assert not file.problems


@pytest.mark.parametrize(
    ("content", "message", "hint"),
    [
        (b"imgName,Label\na,0\ncaf\xe9,1\n", r"labels\.csv, line 3: is not UTF-8 text \(byte 0xe9\)", "CSV UTF-8"),
        ("imgName,Label\n".encode("utf-16"), "is UTF-16 text", "CSV UTF-8"),
        (b"PK\x03\x04rest", "is a workbook or an archive", "CSV UTF-8"),
        (b"", r"labels\.csv is empty", "imgName, Label"),
        ("image_name,Label\n", r"no column imgName \(did you mean image_name\?\); the columns are: image_name", ""),
        ("imgName,Lab\n", r"no column Label or class \(did you mean Lab\?\)", "data.label_column=NAME"),
        ("imgName,Label,LABEL\n", "two columns Label", "remove"),
        ('"imgName,Label\n', "line 1: cannot be read", "CSV"),
    ],
)
def test_file_that_cannot_be_understood_is_refused(read, content, message, hint):
    with pytest.raises(DataError, match=message) as caught:
        read(content)
    assert hint in (caught.value.hint or "")
    assert len(caught.value.lines()) <= 6


def test_file_that_is_no_plain_file_is_refused_without_waiting(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for name, message in [("pipe", "not a regular file"), ("nothing", "no such file"), (".", "not a regular file")]:
        with pytest.raises(DataError, match=f"(?i){message}"):
            read_label_file(tmp_path / name, COLUMNS)


def test_rows_that_cannot_be_used_are_noted_together(read):
    file = read('imgName,Label\na,0\n,1\nb,\nc\nd,0,extra\ne,1,,\nf,"1"x\n')
    assert [(p.line, p.column, p.kind) for p in file.problems] == [
        (3, "imgName", "empty"),
        (4, "Label", "empty"),
        (5, "Label", "empty"),
        (6, None, "cells"),
        (8, None, "csv"),
    ]
    with pytest.raises(LabelFileError, match=r"5 problems in .*labels\.csv:") as caught:
        refuse_problems([file], hint="mend them")
    assert caught.value.lines()[1:3] == [
        "  line 3, column imgName: is empty",
        "  line 4, column Label: is empty (also line 5)",
    ]
    assert len(caught.value.lines()) == 6
    assert caught.value.exit_code == 3


def test_many_problems_take_six_lines_and_are_all_kept(read):
    file = read("imgName,Label\n" + "a,\n" * 100)
    for row in file.rows:
        for kind in "vwxyz":
            file.blame(row, "image", f"is {kind}", kind=kind)
    with pytest.raises(LabelFileError, match=r"600 problems .* of 6 kinds, of which these are 4:") as caught:
        refuse_problems([file], hint="mend them")
    assert len(caught.value.lines()) == 6
    assert "(also lines 3, 4, 5, 6, 7, 8, 9, 10, 11 and 90 more)" in caught.value.lines()[1]
    assert len(caught.value.problems) == 600


def test_problems_of_several_files_name_the_file(tmp_path):
    for name in ("one.csv", "two.csv"):
        (tmp_path / name).write_text("imgName,Label\na,\n")
    files = [read_label_file(tmp_path / name, COLUMNS) for name in ("one.csv", "two.csv")]
    with pytest.raises(LabelFileError) as caught:
        refuse_problems(files)
    assert caught.value.lines()[1:] == [
        "  one.csv, line 2, column Label: is empty",
        "  two.csv, line 2, column Label: is empty",
    ]
    refuse_problems([])
