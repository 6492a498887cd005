import csv
import json
import re

import numpy as np
import pytest
import torch
from PIL import Image

import cvtrain
from cvtrain.cli import dispatch
from cvtrain.data.digits import load_digits
from cvtrain.ending import exit_code_of
from cvtrain.engine.checkpoint import list_checkpoints, read_checkpoint

HEADER = ["image", "prediction", "probability", *(f"p({digit})" for digit in range(10)), "error", "note"]
NAMES_OF_ODD = ("black", "inverted", "noise", "large", "long", "red")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run of two epochs on the digits."""
    root = tmp_path_factory.mktemp("runs")
    words = ["model=mlp", "model.hidden=[16]", "trainer.epochs=2", "trainer.device=cpu", f"output_dir={root}"]
    assert exit_code_of(lambda: dispatch(words)) == 0
    return next(root.glob("train/*/*"))


@pytest.fixture
def photos(tmp_path):
    """Five digits as files, at two depths."""
    pixels = load_digits().test.images.pixels.numpy()
    for i, name in enumerate(["a.png", "b.png", "c.jpg", "sub/d.png", "sub/e.bmp"]):
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels[i, :, :, 0]).save(path)
    return tmp_path / "photos"


@pytest.fixture
def predict(command, tmp_path, trained):
    """Predicts and returns the result of the command, with the rows of predictions and the run card."""

    def run(*words):
        result = command("task=predict", f"checkpoint={trained}", *words)
        run_dir = max((tmp_path / "outputs" / "predict").glob("*/*"), default=None)
        if run_dir is None:
            return result, None, None
        card = json.loads((run_dir / "run.json").read_text())
        if not (run_dir / "predictions.csv").exists():
            return result, None, card
        with open(run_dir / "predictions.csv", encoding="utf-8", newline="") as file:
            return result, list(csv.DictReader(file)), card

    return run


@pytest.mark.parametrize(
    ("words", "names"),
    [
        (["input=photos/a.png"], ["a.png"]),
        (["input=photos"], ["a.png", "b.png", "c.jpg", "sub/d.png", "sub/e.bmp"]),
        (["input=photos/*.png"], ["a.png", "b.png"]),
        (["input='photos/**/*.png'"], ["a.png", "b.png", "sub/d.png"]),
        (["input=[photos/b.png,photos/sub]"], ["b.png", "sub/d.png", "sub/e.bmp"]),
    ],
)
def test_files_folders_globs_and_lists_are_predicted(predict, photos, trained, words, names):
    result, rows, card = predict(*words)
    assert result.code == 0
    assert [row["image"] for row in rows] == [f"photos/{name}" for name in names]
    assert list(rows[0]) == HEADER
    for row, expected in zip(
        rows, cvtrain.load(trained, device="cpu").predict([photos / n for n in names]), strict=True
    ):
        assert row["prediction"] == expected.class_name
        assert float(row["probability"]) == pytest.approx(expected.probability, rel=1e-4)
        assert float(row[f"p({row['prediction']})"]) == float(row["probability"])
        assert sum(float(row[f"p({digit})"]) for digit in range(10)) == pytest.approx(1, abs=1e-4)
        assert row["error"] == ""
    assert card["status"] == "done"
    assert card["num_images"] == len(names)
    assert f"{len(names)} predictions" in result.out
    assert re.search(r"^results  .*predictions\.csv$", result.out, re.MULTILINE)


def test_unreadable_files_are_named_and_the_rest_is_done(predict, photos):
    (photos / "bad.png").write_bytes(b"no picture")
    (photos / "empty.png").write_bytes(b"")
    (photos / "cut.jpg").write_bytes((photos / "c.jpg").read_bytes()[:100])
    result, rows, card = predict("input=photos", "trainer.eval_batch_size=2")
    errors = {row["image"]: row["error"] for row in rows if row["error"]}
    assert result.code == 0
    assert len(rows) == 8
    assert set(errors) == {"photos/bad.png", "photos/empty.png", "photos/cut.jpg"}
    assert card["num_images"] == 5
    assert sorted(card["unreadable"]) == sorted(errors.values())
    for row in rows:
        assert (row["prediction"] == "") == bool(row["error"])
    assert result.out.count("warning: not read: photos/") == 3


def test_nothing_readable_is_a_data_error(predict, photos):
    for path in photos.rglob("*.*"):
        path.write_bytes(b"no picture")
    result, rows, card = predict("input=photos")
    assert result.code == 3
    assert rows is None
    assert result.errors[0] == "error: none of 5 files can be read"
    assert "photos/a.png: is not an image" in result.errors[1]
    assert len(result.errors) <= 6
    assert card["status"] == "failed"
    assert card["exit_code"] == 3


@pytest.mark.parametrize("name", ["nowhere", "photos/*.gif", "photos/z.png"])
def test_input_that_is_not_there_is_a_data_error(predict, photos, name):
    result, rows, _ = predict(f"input={name}")
    assert result.code == 3
    assert f"input={name}: there is no such file" in result.errors[0]
    assert rows is None


def test_checkpoint_and_input_are_asked_for_together(command):
    result = command("task=predict")
    assert result.code == 2
    assert [line.strip() for line in result.errors[:2]] == [
        "error: task=predict needs checkpoint=",
        "task=predict needs input=",
    ]


def test_missing_checkpoint_is_told(command, photos):
    result = command("task=predict", "checkpoint=nowhere", "input=photos")
    assert result.code == 4
    assert "nowhere" in result.errors[0]


def test_hostile_file_names_drive_neither_spreadsheet_nor_terminal(predict, photos, tmp_path):
    picture = (photos / "a.png").read_bytes()
    names = ["=cmd|' C calc'!A0.png", "+1.png", "-1.png", "@x.png", "\x1b[2J\x1b]0;owned\x07.png", 'a\nb,c".png']
    names += ["[red]x[b].png", "\udcff.png"]
    folder = tmp_path / "hostile"
    folder.mkdir()
    for name in names:
        (folder / name).write_bytes(picture)
    (folder / "\x1b[31m=bad\udcfe.png").write_bytes(b"no picture")
    result, rows, card = predict(f"input={folder}")
    assert result.code == 0
    assert len(rows) == 9
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\ud800-\udfff]", result.out)
    assert "[red]x[b].png" in result.out
    for row in rows:
        for cell in row.values():
            assert cell.isprintable()
            assert cell[:1] not in ("=", "+", "@")
    assert all(reason.isprintable() for reason in card["unreadable"])


def test_hostile_names_relative_to_the_folder_are_no_formulas(predict, photos, tmp_path):
    (tmp_path / "=1+1.png").write_bytes((photos / "a.png").read_bytes())
    _, rows, _ = predict('input="=1+1.png"')
    assert rows[0]["image"] == "'=1+1.png"


def test_pictures_of_any_size_and_colour_are_predicted(predict, tmp_path):
    folder = tmp_path / "any"
    folder.mkdir()
    random = np.random.default_rng(0)
    for name, shape in {
        "wide.png": (20, 90, 3),
        "tall.png": (64, 9, 3),
        "grey.png": (50, 50),
        "rgba.png": (8, 8, 4),
    }.items():
        Image.fromarray(random.integers(0, 256, shape, dtype=np.uint8)).save(folder / name)
    result, rows, _ = predict("input=any")
    assert result.code == 0
    assert [row["error"] for row in rows] == [""] * 4


def test_many_predictions_are_shown_in_part(predict, photos):
    picture = (photos / "a.png").read_bytes()
    for i in range(50):
        (photos / f"{i:02}.png").write_bytes(picture)
    result, rows, _ = predict("input=photos/*.png")
    assert len(rows) == 52
    assert "... and 12 more in predictions.csv" in result.out
    assert len(result.out.splitlines()) < 50


# ------------------------------------------------------------------------------------------------- odd pictures


@pytest.fixture
def odd(photos):
    """The five digits, and pictures that are none of the kind."""
    pixels = load_digits().test.images.pixels.numpy()[7, :, :, 0]
    noise = np.random.default_rng(0).integers(0, 256, (32, 32), dtype=np.uint8)
    for name, array in {"black": pixels * 0, "inverted": 255 - pixels, "noise": noise}.items():
        Image.fromarray(array).save(photos / f"odd_{name}.png")
    Image.fromarray(pixels).resize((1280, 1280)).save(photos / "odd_large.png")
    Image.fromarray(np.pad(pixels, ((0, 0), (100, 100)))).save(photos / "odd_long.png")
    red = np.stack([pixels, pixels // 4, pixels // 4], axis=2)
    Image.fromarray(red).save(photos / "odd_red.png")
    Image.fromarray(np.stack([pixels] * 3, axis=2)).save(photos / "rgb.png")
    return photos


def test_odd_pictures_are_told_of_with_reasons_and_cure(predict, odd):
    result, rows, _ = predict("input=photos")
    unlike = {}
    for row in rows:
        words = [note for note in row["note"].split("; ") if note not in ("", "uncertain")]
        if words:
            unlike[row["image"].removeprefix("photos/")] = words
        assert ("uncertain" in row["note"]) == (float(row["probability"]) < 0.5)
    assert {name for name in unlike if name.startswith("odd")} == {f"odd_{name}.png" for name in NAMES_OF_ODD}
    assert set(unlike) == {name for name in unlike if name.startswith("odd")}, "digits are digits"
    assert "1280x1280 px, 40 times larger than the training images" in unlike["odd_large.png"]
    assert "232x32 px: 86 % is cut off" in unlike["odd_long.png"]
    assert "in colour, and read as grey as the training images are" in unlike["odd_red.png"]
    assert unlike["odd_inverted.png"][0].startswith("unlike the training images: brighter")
    assert "warning: 6 of 12 pictures are unlike the training images:" in result.out
    assert "  photos/odd_inverted.png: brighter" in result.out
    assert "... and 1 more: the column note of predictions.csv" in result.out
    assert "training with augment=strong" in result.out


def test_usual_pictures_are_no_warning(predict, photos):
    result, rows, _ = predict("input=photos")
    assert [row["note"].replace("uncertain", "") for row in rows] == [""] * 5
    assert "unlike" not in result.out


def test_uncertain_predictions_are_counted(predict, photos):
    result, rows, _ = predict("input=photos")
    num_uncertain = sum(row["note"] == "uncertain" for row in rows)
    line = f"warning: {num_uncertain} of 5 predictions are uncertain: less than 50 % probable"
    assert (line in result.out) == (num_uncertain > 0)
    assert sum(float(row["probability"]) < 0.5 for row in rows) == num_uncertain


def test_checkpoints_that_know_no_appearance_predict_without_such_warnings(command, odd, trained, tmp_path):
    file = list_checkpoints(trained / "checkpoints", "best")[-1].path
    state = read_checkpoint(file)
    del state["facts"]["appearance"]
    torch.save(state, tmp_path / "old.ckpt")
    result = command("task=predict", "checkpoint=old.ckpt", "input=photos")
    assert result.code == 0
    assert "12 predictions" in result.out
    assert "unlike" not in result.out


def test_many_grey_pictures_are_told_of_where_few_training_images_are_grey(command, tmp_path, write_images):
    root = write_images(tmp_path / "data", {"train/a": 60, "train/b": 60, "test/a": 6, "test/b": 2})
    for path in (root / "train" / "a" / "0.png", *(root / "test" / "a").iterdir()):
        Image.open(path).convert("L").save(path)
    words = ["data=image_folder", f"data.root={root}", f"data.cache_dir={tmp_path / 'cache'}", "model=linear"]
    assert command(*words, "trainer=smoke", "data.channels=3").code == 0
    (run,) = (tmp_path / "outputs" / "train").glob("*/*")
    result = command("task=predict", f"checkpoint={run}", f"input={root / 'test'}")
    assert "warning: 6 of 8 pictures are grey, and 0.9 % of the training images" in result.out
    assert "pictures in colour" in result.out
    result = command("task=predict", f"checkpoint={run}", f"input={root / 'train'}")
    assert "pictures are grey" not in result.out
