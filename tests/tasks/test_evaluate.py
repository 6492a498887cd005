import csv
import json
import shutil

import pytest
from PIL import Image

import cvtrain
from cvtrain.cli import dispatch
from cvtrain.data.digits import load_digits
from cvtrain.ending import exit_code_of

SMALL = ["model=mlp", "model.hidden=[16]", "trainer.device=cpu", "trainer.epochs=2"]


def train(root, *words):
    assert exit_code_of(lambda: dispatch([*SMALL, *words, f"output_dir={root}"])) == 0
    return max(root.glob("train/*/*"))


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run on a part of the digits."""
    return train(tmp_path_factory.mktemp("runs"), "data.max_per_class=40", "seed=7", "data.val_fraction=0.25")


@pytest.fixture
def evaluate(command, tmp_path):
    """Evaluates and returns the result of the command, with the run card and the rows of predictions."""

    def run(checkpoint, *words):
        result = command("task=evaluate", f"checkpoint={checkpoint}", *words)
        if result.code:
            return result, None, None
        run_dir = max((tmp_path / "outputs" / "evaluate").glob("*/*"))
        card = json.loads((run_dir / "run.json").read_text())
        with open(run_dir / "predictions.csv", encoding="utf-8", newline="") as file:
            return result, card, list(csv.DictReader(file))

    return run


def card_of(run):
    return json.loads((run / "run.json").read_text())


def test_figures_are_those_of_the_training_run(trained, evaluate):
    result, card, rows = evaluate(trained)
    before = card_of(trained)
    assert result.code == 0
    assert card["test"] == before["test"]
    assert card["split"] == "test"
    assert card["status"] == "done"
    assert card["data_fingerprint"] == before["data_fingerprint"]
    assert card["split_hash"] == before["split_hash"]
    assert card["num_parameters"] == before["num_parameters"]
    with open(trained / "predictions.csv", encoding="utf-8", newline="") as file:
        assert rows == list(csv.DictReader(file))
    assert f"test accuracy  {100 * before['test']['accuracy']:.1f} % of 360 images" in result.out
    assert "per class" in result.out
    assert "confusion" in result.out


def test_validation_images_are_those_of_the_training_run(trained, evaluate):
    result, card, rows = evaluate(trained, "split=val")
    best = card_of(trained)["best"]
    assert result.code == 0
    assert card["val"]["accuracy"] == best["val_accuracy"]
    assert card["val"]["loss"] == pytest.approx(best["val_loss"], rel=1e-6)
    assert card["val"]["num_images"] == len(rows) == 100
    assert "val accuracy  " in result.out


def test_training_images_are_measured_as_they_are(trained, evaluate):
    _, card, rows = evaluate(trained, "split=train", "trainer.eval_batch_size=7")
    assert card["train"]["num_images"] == len(rows) == 300
    model, source = cvtrain.load(trained, device="cpu"), load_digits().train
    found = model.predict([source.images.pixels[int(row["image"])].numpy() for row in rows])
    assert [p.class_name for p in found] == [row["prediction"] for row in rows]
    assert [str(source.labels[int(row["image"])].item()) for row in rows] == [row["label"] for row in rows]
    correct = sum(row["label"] == row["prediction"] for row in rows)
    assert card["train"]["accuracy"] == correct / 300


def test_figures_agree_with_predictions(trained, evaluate):
    _, card, rows = evaluate(trained)
    test = card["test"]
    assert test["accuracy"] == sum(row["label"] == row["prediction"] for row in rows) / len(rows)
    assert sum(map(sum, test["confusion_matrix"])) == len(rows)
    for i, figures in enumerate(test["per_class"]):
        own = [row for row in rows if row["label"] == figures["name"]]
        assert figures["num_images"] == len(own) == sum(test["confusion_matrix"][i])
        assert figures["recall"] == sum(row["prediction"] == figures["name"] for row in own) / len(own)


def test_batch_size_changes_no_figure(trained, evaluate):
    _, card, _ = evaluate(trained, "trainer.eval_batch_size=1")
    before = card_of(trained)["test"]
    assert card["test"]["accuracy"] == before["accuracy"]
    assert card["test"]["loss"] == pytest.approx(before["loss"], rel=1e-5)


def test_other_images_may_be_named(trained, evaluate):
    _, card, rows = evaluate(trained, "data.max_per_class=3")
    assert card["test"]["num_images"] == len(rows) == 30


def test_moved_checkpoint_file_is_enough(trained, evaluate, tmp_path):
    shutil.copy(next((trained / "checkpoints").glob("best-*")), tmp_path / "model.ckpt")
    _, card, _ = evaluate("model.ckpt")
    assert card["test"] == card_of(trained)["test"]


def test_averaged_weights_are_evaluated_as_they_were_tested(tmp_path, evaluate):
    run = train(tmp_path / "runs", "trainer.ema=0.9", "data.val_fraction=0", "data.max_per_class=20")
    _, card, _ = evaluate(run)
    assert card["test"] == card_of(run)["test"]


def test_folder_may_have_moved_and_hold_other_images(evaluate, tmp_path, write_images):
    counts = {"train/cat": 5, "train/dog": 5, "test/cat": 3, "test/dog": 3}
    root = write_images(tmp_path / "a", counts, size=16)
    cache = f"data.cache_dir={tmp_path / 'cache'}"
    run = train(tmp_path / "runs", "data=image_folder", f"data.root={root}", cache, "trainer.batch_size=4")
    before = card_of(run)["test"]
    moved = root.rename(tmp_path / "b")
    result, _, _ = evaluate(run)
    assert result.code == 3
    assert "data.root does not exist" in result.errors[0]
    for path in (moved / "train").rglob("*.png"):  # other training images: the checkpoint rules the normalisation
        Image.new("RGB", (16, 16), "black").save(path)
    _, card, rows = evaluate(run, f"data.root={moved}")
    assert card["test"] == before
    assert rows[0]["image"] == "test/cat/0.png"
    for i in range(2):
        (moved / "test/cat" / f"{i}.png").unlink()
    _, card, _ = evaluate(run, f"data.root={moved}")
    assert card["test"]["num_images"] == 4
    (moved / "test/cat").rename(moved / "test/cow")
    (moved / "train/cat").rename(moved / "train/cow")
    result, _, _ = evaluate(run, f"data.root={moved}")
    assert result.code == 3
    assert "the images have other classes than the model: cow, dog" in result.errors[0]
    assert "cat, dog" in result.errors[1]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["data=synthetic", "data.channels=1"], "the images have other classes than the model"),
        (["data.image_size=16"], "the model takes 32x32x1 images; these are 16x16x1"),
    ],
)
def test_unsuitable_data_are_refused(trained, evaluate, words, message):
    result, _, _ = evaluate(trained, *words)
    assert result.code == 3
    assert message in result.errors[0]
    assert len(result.errors) <= 6


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        ([], 2, "task=evaluate needs a trained model: checkpoint=RUN"),
        (["checkpoint=nowhere"], 4, "nowhere"),
        (["checkpoint={run}", "split=all"], 2, "split"),
        (["checkpoint={run}", "model=lenet"], 2, "the checkpoint was trained with model=mlp"),
    ],
)
def test_mistakes_are_told_before_anything_is_read(trained, command, tmp_path, words, code, message):
    result = command("task=evaluate", *(word.format(run=trained) for word in words))
    assert result.code == code
    assert message in result.errors[0]
    assert not (tmp_path / "outputs").exists()


def test_split_without_images_is_a_data_error(tmp_path, evaluate):
    run = train(tmp_path / "runs", "data.val_fraction=0", "data.max_per_class=5")
    result, _, _ = evaluate(run, "split=val")
    assert result.code == 3
    assert "split=val has no images" in result.errors[0]


def test_long_class_names_are_numbered_in_the_confusion_matrix(evaluate, tmp_path, write_images):
    names = ["large_omnivores_and_herbivores", "[red]household[/b] furniture"]
    counts = {f"{split}/{name.replace('/', '_')}": 4 for split in ("train", "test") for name in names}
    root = write_images(tmp_path / "data", counts, size=8)
    cache = f"data.cache_dir={tmp_path / 'cache'}"
    run = train(tmp_path / "runs", "data=image_folder", f"data.root={root}", cache, "trainer.batch_size=4")
    result, card, _ = evaluate(run)
    assert result.code == 0
    assert "AUROC" in result.out
    assert 0 <= card["test"]["auroc"] <= 1
    assert "1 large_omnivores_and_herbivores" in result.out
    assert "0 [red]household[_b] furniture" in result.out
    assert "top-5" not in result.out
