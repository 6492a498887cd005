"""What all drawings share: whole files in the wanted format, and words that fit."""

from xml.etree import ElementTree

import pytest
from PIL import Image

from cvtrain.report.frame import drawing, wrapped


def test_the_name_of_the_file_chooses_the_format(tmp_path):
    for name in ("a.png", "a.svg"):
        with drawing(tmp_path / "new" / name, width=3, height=2, dpi=50) as figure:
            figure.subplots().set_title("a < b & $c$")
    with Image.open(tmp_path / "new" / "a.png") as image:
        assert (image.format, image.size) == ("PNG", (150, 100))
    assert ElementTree.parse(tmp_path / "new" / "a.svg").getroot().tag.endswith("svg")
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["a.png", "a.svg"]


def test_the_same_picture_is_the_same_file(tmp_path):
    for name in ("1.svg", "2.svg"):
        with drawing(tmp_path / name, width=3, height=2) as figure:
            figure.subplots().plot([1, 2], [1, 2])
    assert (tmp_path / "1.svg").read_bytes() == (tmp_path / "2.svg").read_bytes()


def test_words_are_broken_and_what_does_not_fit_is_cut():
    assert wrapped("a learning curve", num_letters=10, num_lines=2) == "a learning\ncurve"
    assert wrapped("a learning curve", num_letters=10) == "a learni …"
    assert wrapped("x" * 200, num_letters=20, num_lines=2) == "x" * 20 + "\n" + "x" * 18 + " …"
    assert wrapped("", num_letters=20) == ""


def test_intervals_and_per_cents_are_not_torn():
    assert wrapped("they cross at [2,100, 3,800] or so", num_letters=20, num_lines=3) == (
        "they cross at\n[2,100, 3,800] or so"
    )
    assert wrapped("the target is 93 %", num_letters=16, num_lines=2) == "the target is\n93 %"


@pytest.mark.parametrize("text", ["two\nlines\tand  more", " two lines and more "])
def test_white_space_is_one_space(text):
    assert wrapped(text, num_letters=40) == "two lines and more"


def test_control_characters_are_shown_and_not_written():
    assert wrapped("bell \x07", num_letters=40) == r"bell \x07"
