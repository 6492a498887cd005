"""Runs on labelled files in other layouts than a folder per class, each in a process of its own."""

import shutil

import numpy as np
import pytest
from PIL import Image

from cvtrain.data.food11 import CLASS_NAMES


@pytest.fixture
def photos(tmp_path):
    """Makes small photographs of given names: `photos("train/H1.jpg")`; gives the folder of all."""

    def make(*names):
        for index, name in enumerate(names):
            path = tmp_path / "photos" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            pixels = np.random.default_rng(index).integers(0, 256, (32, 32, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(path)
        return tmp_path / "photos"

    return make


@pytest.fixture
def palm(photos):
    root = photos(
        *(f"PALM-Training400/PALM-Training400/{letter}{i:04d}.jpg" for letter in "HNP" for i in range(4)),
        *(f"PALM-Validation400/V{i:04d}.jpg" for i in range(12)),
    )
    rows = [f"{i};V{i:04d}.jpg;{i % 2};1157,7" for i in range(12)]
    (root / "labels.csv").write_text("\ufeffID;imgName;Label;Fovea_X\r\n" + "\r\n".join(rows), newline="")
    return root


@pytest.fixture
def smoke(server, only_run, read_card, tmp_path):
    """Trains a few steps and gives the run card: `smoke("data=palm", ...)`."""

    def run(*words, code=0):
        cache = f"data.cache_dir={tmp_path / 'cache'}"
        cwd = tmp_path / f"run{sum(1 for _ in tmp_path.glob('run*'))}"
        ended = server(["experiment=smoke", "model=linear", "output_dir=out", cache, *words], cwd=cwd)
        assert ended.code == code, ended.stderr
        return read_card(only_run(cwd)) if code == 0 else ended.stderr

    return run


@pytest.mark.parametrize("loss", ["bce", "cross_entropy"])
def test_palm_is_trained_on_with_one_output_or_two(smoke, palm, loss):
    card = smoke("data=palm", f"data.root={palm}", "data.image_size=32", f"loss={loss}", "data.max_per_class=null")
    assert card["class_names"] == ["normal", "pathologic"]
    assert card["class_counts"] == [7, 3]
    assert card["num_parameters"] == (3 * 32 * 32 + 1) * (1 if loss == "bce" else 2)
    test = card["test"]
    assert test["num_images"] == 12
    (a, b), (c, d) = test["confusion_matrix"]
    assert (a + b, c + d) == (6, 6)
    assert test["accuracy"] == pytest.approx((a + d) / 12)
    assert test["balanced_accuracy"] == pytest.approx((a / 6 + d / 6) / 2)
    assert 0 <= test["auroc"] <= 1
    assert test["auroc"] * 36 == pytest.approx(round(test["auroc"] * 36 * 2) / 2)  # of 6 x 6 pairs, ties are halves


def test_palm_validation_images_can_choose_the_weights(smoke, palm):
    card = smoke("data=palm", f"data.root={palm}", "data.image_size=32", "data.use_validation_as=val")
    assert card["test"]["num_images"] == 3
    assert any("there is no test split beside the validation images" in warning for warning in card["warnings"])


def test_food11_is_trained_on_from_its_zip_file(smoke, photos, tmp_path):
    splits = {"training": 2, "validation": 1, "evaluation": 1}
    root = photos(*(f"food-11/{s}/{label}_{i}.jpg" for s, n in splits.items() for label in range(11) for i in range(n)))
    archive = shutil.make_archive(tmp_path / "food-11", "zip", root)
    cards = [smoke("data=food11", f"data.root={source}", "data.image_size=32") for source in (archive, root)]
    for card in cards:
        assert card["class_names"] == list(CLASS_NAMES)
        assert card["class_counts"] == [2] * 11
        assert card["test"]["num_images"] == 11
    assert cards[0]["data_fingerprint"] == cards[1]["data_fingerprint"]
    assert cards[0]["test"] == cards[1]["test"]


def test_images_of_a_table_are_trained_on(smoke, photos):
    root = photos(*(f"{i}.png" for i in range(12)))
    rows = [f"{i}.png,{'cat' if i % 2 else 'dog'},{'test' if i > 7 else 'train'}\n" for i in range(12)]
    (root / "labels.csv").write_text("file,animal,split\n" + "".join(rows))
    card = smoke("data=image_csv", f"data.root={root}", "data.label_column=animal")
    assert card["class_names"] == ["cat", "dog"]
    assert card["test"]["num_images"] == 4


def test_faulty_table_ends_with_3_and_says_where(smoke, palm):
    (palm / "labels.csv").write_text("imgName,Label\nV0000.jpg,2\nV0099.jpg,1\n")
    stderr = smoke("data=palm", f"data.root={palm}", code=3)
    assert "line 2, column Label: '2' is neither 0 nor 1" in stderr
    assert "line 3, column imgName: there is no image V0099.jpg" in stderr
    assert "11 images have no row: " in stderr
    assert len(stderr.splitlines()) <= 6
    assert "Traceback" not in stderr
