import csv
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

import cvtrain
from cvtrain.classifier import image_paths
from cvtrain.cli import dispatch
from cvtrain.data.digits import load_digits
from cvtrain.ending import exit_code_of
from cvtrain.errors import CheckpointError, ConfigError, DataError


def train(root, *words):
    words = ["model=mlp", "model.hidden=[32]", "trainer.device=cpu", *words, f"output_dir={root}"]
    assert exit_code_of(lambda: dispatch(words)) == 0
    return max(root.glob("train/*/*"))


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run of two epochs on the digits."""
    return train(tmp_path_factory.mktemp("runs"), "trainer.epochs=2", "optimizer.lr=0.02")


@pytest.fixture(scope="module")
def model(trained):
    return cvtrain.load(trained, device="cpu")


@pytest.fixture(scope="module")
def digits():
    return load_digits().test.images.pixels.numpy()


def rows_of(run):
    with open(run / "predictions.csv", encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_loaded_model_predicts_what_the_run_predicted(trained, model, digits):
    predictions = model.predict(list(digits))
    rows = rows_of(trained)
    assert len(predictions) == len(rows) == 360
    assert [p.class_name for p in predictions] == [row["prediction"] for row in rows]
    for prediction, row in zip(predictions, rows, strict=True):
        assert prediction.probability == pytest.approx(float(row["probability"]), rel=1e-4)
        assert sum(prediction.probabilities.values()) == pytest.approx(1, abs=1e-5)
        values = list(prediction.probabilities.values())
        assert values == sorted(values, reverse=True)
        assert next(iter(prediction.probabilities.items())) == (prediction.class_name, prediction.probability)


def test_files_arrays_and_batches_of_any_size_agree(model, digits, tmp_path):
    pixels = digits[:5]
    paths = []
    for i, image in enumerate(pixels):
        paths.append(tmp_path / f"{i}.png")
        Image.fromarray(image[:, :, 0]).save(paths[-1])
    expected = model.predict(list(pixels))
    assert model.predict(paths) == expected
    assert model.predict([str(path) for path in paths]) == expected
    assert model.predict([image[:, :, 0] for image in pixels]) == expected
    assert model.predict(np.stack([np.repeat(pixels[0], 3, axis=2)])[0])[0].class_name == expected[0].class_name
    assert model.predict(paths[0])[0].class_name == expected[0].class_name
    assert model.predict(str(paths[0]))[0].class_name == expected[0].class_name
    for ours, theirs in zip(model.predict(paths, batch_size=2), expected, strict=True):
        assert ours.class_name == theirs.class_name
        assert ours.probability == pytest.approx(theirs.probability, abs=1e-6)
    assert model.predict([]) == []


@pytest.mark.parametrize("shape", [(8, 8), (57, 33), (57, 33, 1), (200, 64, 3), (1, 1, 3)])
def test_arrays_of_any_size_are_pictures(model, shape):
    array = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    before = array.copy()
    assert model.predict(array)[0].class_name in model.class_names
    assert np.array_equal(array, before)


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((8, 8), np.float32),
        np.zeros((8, 8, 4), np.uint8),
        np.zeros((2, 8, 8, 3), np.uint8),
        np.zeros((8,), np.uint8),
        np.zeros((0, 8), np.uint8),
    ],
)
def test_arrays_that_are_no_pictures_are_refused(model, array):
    with pytest.raises(DataError, match="is no picture") as caught:
        model.predict(array)
    assert "uint8" in caught.value.hint


def test_other_things_than_paths_and_arrays_are_refused(model):
    with pytest.raises(DataError, match="a Tensor is no picture"):
        model.predict([torch.zeros(8, 8, dtype=torch.uint8)])


def test_files_that_cannot_be_read_are_named(model, tmp_path):
    with pytest.raises(DataError, match=r"missing\.png: no such file"):
        model.predict(tmp_path / "missing.png")
    (tmp_path / "text.png").write_text("no picture")
    with pytest.raises(DataError, match=r"text\.png: is not an image"):
        model.predict([tmp_path / "text.png"])


def test_predictions_say_what_is_odd_about_a_picture(model, digits, tmp_path):
    array = np.stack([255 - digits[0, :, :, 0]] * 3, axis=2).repeat(20, axis=0).repeat(20, axis=1)
    array[..., 0] //= 2
    Image.fromarray(array).save(tmp_path / "odd.png")
    usual, odd, file = model.predict([digits[1], array, tmp_path / "odd.png"])
    assert [note for note in usual.notes if note != "uncertain"] == []
    assert odd.notes[0] == "640x640 px, 20 times larger than the training images"
    assert any(note.startswith("unlike the training images: brighter") for note in odd.notes)
    assert "in colour, and read as grey as the training images are" in odd.notes
    assert file.notes == odd.notes
    assert ("uncertain" in odd.notes) == (odd.probability < 0.5)
    grey = model.predict(np.repeat(digits[1], 3, axis=2))[0]
    assert grey.notes == usual.notes, "grey that was saved in colour is grey"


def test_model_is_ready_for_use(model):
    assert not model.model.training
    assert model.class_names == tuple("0123456789")
    assert model.config["model"]["hidden"] == [32]
    assert model.notes == ()


def test_colour_and_size_follow_the_rule_that_training_used(tmp_path, write_images):
    root = write_images(tmp_path / "data", {"train/cat": 6, "train/dog": 6, "test/cat": 2, "test/dog": 2}, size=20)
    words = ["data=image_folder", f"data.root={root}", "data.resize=pad", "trainer=smoke", "trainer.batch_size=4"]
    run = train(tmp_path / "runs", *words, f"data.cache_dir={tmp_path / 'cache'}")
    model = cvtrain.load(run, device="cpu")
    paths = [root / row["image"] for row in rows_of(run)]
    assert len(paths) == 4
    for prediction, row in zip(model.predict(paths), rows_of(run), strict=True):
        assert prediction.class_name == row["prediction"]
        assert prediction.probability == pytest.approx(float(row["probability"]), rel=1e-4)
    wide = np.full((20, 40, 3), 255, np.uint8)
    decoded = model.decode(wide)
    assert decoded.shape == (20, 20, 3)
    assert decoded[0].max() == 0, "resize=pad fills up with black"
    assert decoded[10].min() == 255


# ------------------------------------------------------------------------------------------------ which checkpoint


def test_lone_checkpoint_file_explains_itself(trained, model, digits, tmp_path):
    best = next((trained / "checkpoints").glob("best-*"))
    shutil.copy(best, tmp_path / "moved.ckpt")
    assert cvtrain.load(tmp_path / "moved.ckpt", device="cpu").predict(digits[0]) == model.predict(digits[0])
    assert cvtrain.load(best, device="cpu").predict(digits[0]) == model.predict(digits[0])
    assert cvtrain.load(trained / "checkpoints", device="cpu").predict(digits[0]) == model.predict(digits[0])


def test_missing_checkpoints_are_refused(tmp_path):
    with pytest.raises(CheckpointError, match="there is no such file or folder"):
        cvtrain.load(tmp_path / "nothing")
    with pytest.raises(CheckpointError, match="the folder holds no checkpoint"):
        cvtrain.load(tmp_path)


@pytest.mark.parametrize("content", [b"", b"no checkpoint", b"PK\x03\x04" + bytes(100)])
def test_foreign_files_are_refused(tmp_path, content):
    (tmp_path / "model.ckpt").write_bytes(content)
    with pytest.raises(CheckpointError, match="is not a checkpoint of cvtrain"):
        cvtrain.load(tmp_path / "model.ckpt")


def test_incomplete_checkpoint_is_refused(tmp_path):
    torch.save({"format": 1, "config": {"trainer": {}}}, tmp_path / "model.ckpt")
    with pytest.raises(CheckpointError, match="is not a checkpoint of cvtrain: it lacks"):
        cvtrain.load(tmp_path / "model.ckpt")


def test_damaged_best_checkpoint_is_not_replaced_by_another_in_silence(trained, tmp_path):
    run = shutil.copytree(trained, tmp_path / "run")
    best = next((run / "checkpoints").glob("best-*"))
    data = bytearray(best.read_bytes())
    data[len(data) // 2] ^= 1
    best.write_bytes(data)
    before = sorted(path.name for path in (run / "checkpoints").iterdir())
    for _ in range(2):
        with pytest.raises(CheckpointError, match="checksum") as caught:
            cvtrain.load(run)
        assert "step-" in caught.value.hint
    assert sorted(path.name for path in (run / "checkpoints").iterdir()) == before, "loading changes no run"
    assert cvtrain.load(caught.value.hint.removeprefix("type checkpoint=")).class_names


def test_run_that_keeps_its_last_weights_is_loaded_with_them(tmp_path):
    words = ["trainer.steps=10", "trainer.evaluate_every=5", "trainer.early_stopping.restore_best=false"]
    # A learning rate that spoils what was learnt: the best evaluation is not the last.
    run = train(tmp_path, *words, "scheduler=constant", "optimizer=sgd", "optimizer.lr=0.5", "data.max_per_class=20")
    model = cvtrain.load(run, device="cpu")
    rows = rows_of(run)
    pixels = load_digits().test.images.pixels.numpy()
    predictions = model.predict([pixels[int(row["image"])] for row in rows])
    assert [p.class_name for p in predictions] == [row["prediction"] for row in rows]
    assert [path.name[:14] for path in (run / "checkpoints").glob("best-*")] == ["best-000000005"]


def test_missing_device_is_a_config_error(trained):
    with pytest.raises(ConfigError, match=r"trainer\.device=cuda:99"):
        cvtrain.load(trained, device="cuda:99")


# ------------------------------------------------------------------------------------------------ which pictures


@pytest.fixture
def photos(tmp_path, monkeypatch):
    """photos/ with pictures at two depths, other files, and hidden ones; the working folder is above it."""
    for name in ("b.png", "a.JPG", "sub/c.jpeg", "sub/notes.txt", ".thumbs/x.png", "sub/._c.jpeg", "[1].png"):
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    monkeypatch.chdir(tmp_path)
    return tmp_path / "photos"


def named(inputs, root):
    return [path.relative_to(root).as_posix() for path in image_paths(inputs)]


@pytest.mark.parametrize(
    ("inputs", "expected"),
    [
        ("photos", ["[1].png", "a.JPG", "b.png", "sub/c.jpeg"]),
        ("photos/b.png", ["b.png"]),
        ("photos/*.png", ["[1].png", "b.png"]),
        ("photos/**/*.jpeg", ["sub/c.jpeg"]),
        ("photos/[1].png", ["[1].png"]),
        (["photos/b.png", "photos", "photos/b.png"], ["b.png", "[1].png", "a.JPG", "sub/c.jpeg"]),
        ("photos/sub/._c.jpeg", ["sub/._c.jpeg"]),
        ("photos/sub/notes.txt", ["sub/notes.txt"]),
    ],
)
def test_inputs_are_files_folders_and_globs(photos, inputs, expected):
    assert named(inputs, "photos") == expected


@pytest.mark.parametrize("name", ["photos/none.png", "photos/*.gif", "nowhere/", "x" * 300, "photos/b.png/c.png"])
def test_inputs_that_match_nothing_are_refused(photos, name):
    with pytest.raises(DataError, match="input="):
        list(image_paths(name))


def test_folder_without_pictures_is_refused(photos):
    (photos / "empty").mkdir()
    with pytest.raises(DataError, match="input=photos/empty: the folder holds no images"):
        list(image_paths("photos/empty"))


def test_loop_of_links_ends(photos):
    (photos / "sub" / "loop").symlink_to(photos, target_is_directory=True)
    (photos / "dangling.png").symlink_to(photos / "gone.png")
    assert named("photos", "photos") == ["[1].png", "a.JPG", "b.png", "dangling.png", "sub/c.jpeg"]
