import numpy as np
import pytest

from cvtrain.errors import CheckpointError
from cvtrain.sweeps.predictions import are_of_same_images, read_predictions

TEXT = (
    'image,label,prediction,probability\n0,cat,cat,0.9\n1,"dog, big",cat,0.5\n2,"dog, big","dog, big",1\n3,cat,cat,1\n'
)
CARD = {"test": {"num_images": 4, "accuracy": 0.75}}


def write(folder, text=TEXT):
    folder.mkdir(exist_ok=True)
    (folder / "predictions.csv").write_bytes(text if isinstance(text, bytes) else text.encode())
    return folder


def test_right_answers_are_those_that_name_the_label(tmp_path):
    found = read_predictions(write(tmp_path / "a"), CARD)
    assert found.images == ("0", "1", "2", "3")
    assert found.labels == ("cat", "dog, big", "dog, big", "cat")
    np.testing.assert_array_equal(found.is_right, [True, False, True, True])
    assert found.is_right.dtype == np.bool_


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is damaged: each row needs image, label, prediction"),
        ("image,label,prediction,probability\n", "is damaged"),
        ("image,label\n0,cat\n", "is damaged"),
        (TEXT[:-8], "is damaged"),  # cut in the middle of a row
        (TEXT[: TEXT.index("3,cat")], "holds 3 images, and the run was tested on 4"),
        (TEXT.replace("0,cat,cat", "0,cat,dog"), "gives a test accuracy of 0.5000, and the run card one of 0.7500"),
        (b"\xff\xfe\x00", "cannot be read"),
        (TEXT + '4,"cat', "cannot be read"),
    ],
)
def test_damaged_files_are_refused(tmp_path, text, message):
    with pytest.raises(CheckpointError, match=message):
        read_predictions(write(tmp_path / "a", text), CARD)


def test_missing_file_is_named(tmp_path):
    with pytest.raises(CheckpointError, match=r"predictions.csv is missing"):
        read_predictions(tmp_path, CARD)


@pytest.mark.parametrize("card", [{}, {"test": None}, {"test": {}}, {"test": {"num_images": 4, "accuracy": None}}])
def test_card_without_figures_vouches_for_nothing(tmp_path, card):
    with pytest.raises(CheckpointError, match="run card"):
        read_predictions(write(tmp_path / "a"), card)


def test_same_images_have_the_same_names_labels_and_order(tmp_path):
    same = [read_predictions(write(tmp_path / name), CARD) for name in "ab"]
    assert are_of_same_images(same)
    lines = TEXT.splitlines(keepends=True)
    swapped = "".join([lines[0], lines[4], *lines[2:4], lines[1]])
    relabelled = TEXT.replace('1,"dog, big",cat', "1,cat,dog")
    for text in (swapped, relabelled, TEXT.replace("3,cat", "9,cat")):
        assert not are_of_same_images([same[0], read_predictions(write(tmp_path / "c", text), CARD)])
