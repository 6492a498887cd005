"""Runs on labelled files, in any layout and in any state, each in a process of its own."""

import os
import shutil

import numpy as np
import pytest
from PIL import Image

from cvtrain.data.food11 import CLASS_NAMES
from cvtrain.engine.checkpoint import list_checkpoints
from tests.faults.small_runs import files_words


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


def test_image_lost_in_mid_run_ends_with_3_and_the_run_goes_on_when_it_is_back(
    server, images, only_run, end_of, tmp_path
):
    root = images(tmp_path / "images")
    shutil.copytree(root / "test", root / "val")
    more = [f"data.cache_dir={tmp_path / 'cache'}", "trainer.checkpoint.every_minutes=60"]
    assert server(files_words(root, *more, workers=0, steps=9, every=4), cwd=tmp_path / "whole").code == 0
    lost = root / "val/b/001.png"
    content, times = lost.read_bytes(), (lost.stat().st_atime_ns, lost.stat().st_mtime_ns)
    lost.write_bytes(b"x" * len(content))
    os.utime(lost, ns=times)  # nothing shows that it is not the file that was checked
    ended = server(files_words(root, *more, workers=2, steps=9, every=4), cwd=tmp_path / "stopped")
    assert ended.code == 3
    run = only_run(tmp_path / "stopped")
    assert f"{lost}: is not an image that can be read" in ended.stderr
    assert f"put it back as it was, and continue with: cvtrain resume={run.relative_to(tmp_path / 'stopped')}" in (
        ended.stderr
    )
    assert "Traceback" not in ended.stderr
    assert list_checkpoints(run / "checkpoints", "step")[-1].step == 4
    lost.write_bytes(content)
    ended = server([f"resume={run}"], cwd=tmp_path / "stopped")
    assert ended.code == 0, ended.stderr
    assert end_of(run) == end_of(only_run(tmp_path / "whole"))


def test_all_damaged_images_are_told_before_training_and_left_out_on_demand(
    server, images, read_card, only_run, tmp_path
):
    root = images(tmp_path / "images")
    for number in range(5):
        path = root / f"train/a/{number:03d}.png"
        path.write_bytes(path.read_bytes()[:-40])
    words = files_words(root, f"data.cache_dir={tmp_path / 'cache'}", workers=0, steps=4, every=2)
    ended = server(words, cwd=tmp_path / "refused")
    assert ended.code == 3
    assert "5 of 72 images" in ended.stderr
    assert "train/a/000.png: is damaged" in ended.stderr
    assert len(ended.stderr.splitlines()) <= 6
    assert "Traceback" not in ended.stderr
    assert server([*words, "data.on_bad=skip"], cwd=tmp_path / "skipped").code == 0
    card = read_card(only_run(tmp_path / "skipped"))
    assert any(warning.startswith("5 of 72 images cannot be read and are left out") for warning in card["warnings"])
