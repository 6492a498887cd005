import csv
import json

import numpy as np
import pytest
import torch

import cvtrain
from cvtrain.data.digits import load_digits

SMALL = ["model=mlp", "model.hidden=[16]", "trainer.device=cpu", "data.max_per_class=30", "optimizer.lr=0.02"]


@pytest.fixture
def train(command, tmp_path):
    """Trains on some digits and returns the result of the command, and its folder if there is one."""

    def run(*words):
        result = command(*SMALL, *words)
        return result, max((tmp_path / "outputs" / "train").glob("*/*"), default=None)

    return run


def card_of(run):
    return json.loads((run / "run.json").read_text())


def rows_of(path):
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_run_leaves_what_it_promises(train):
    result, run = train("trainer.epochs=3", "seed=5", "name=first")
    card, metrics, predictions = card_of(run), rows_of(run / "metrics.csv"), rows_of(run / "predictions.csv")
    assert result.code == 0
    assert run.name.endswith("-first")
    assert run.parent.name == "digits-mlp"
    assert {"status": "done", "exit_code": 0, "error": None, "task": "train", "data": "digits"}.items() <= card.items()
    assert {"model": "mlp", "seed": 5, "steps": 9, "epochs": 3, "stop_reason": "finished"}.items() <= card.items()
    assert card["class_names"] == list("0123456789")
    assert card["class_counts"] == [27] * 10
    assert card["num_parameters"] == 1024 * 16 + 16 + 16 * 10 + 10
    assert card["precision"] == "fp32"
    assert card["test"]["num_images"] == len(predictions) == 300
    assert card["test"]["accuracy"] == np.mean([row["label"] == row["prediction"] for row in predictions])
    assert [(row["epoch"], row["step"]) for row in metrics] == [("1", "3"), ("2", "6"), ("3", "9")]
    best = max(metrics, key=lambda row: (float(row["val_accuracy"]), -float(row["val_loss"])))
    assert card["best"]["step"] == int(best["step"])
    assert card["best"]["val_accuracy"] == pytest.approx(float(best["val_accuracy"]), rel=1e-9)
    assert card["last"]["step"] == 9
    assert len(list((run / "checkpoints").glob("best-*"))) == 1
    split = np.load(run / "split.npz")
    assert (len(split["train"]), len(split["val"]), len(split["test"])) == (270, 30, 300)
    for words in ("test accuracy  ", "results        outputs/train/digits-mlp/", "next           cvtrain task=predict"):
        assert words in result.out
    assert (run / "log.txt").read_text().count("test accuracy") == 1


def test_same_command_gives_the_same_run(train):
    words = ("trainer.epochs=2", "augment=strong", "model.dropout=0.3")
    _, first = train(*words)
    _, second = train(*words)
    _, other = train(*words, "seed=1")
    names = [next((run / "checkpoints").glob("best-*")) for run in (first, second, other)]
    weights = [torch.load(name, weights_only=True)["trainer"]["model"] for name in names]
    assert all(torch.equal(a, b) for a, b in zip(weights[0].values(), weights[1].values(), strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(weights[0].values(), weights[2].values(), strict=True))
    assert (first / "predictions.csv").read_bytes() == (second / "predictions.csv").read_bytes()
    assert card_of(first)["split_hash"] == card_of(second)["split_hash"] != card_of(other)["split_hash"]
    assert card_of(first)["data_fingerprint"] == card_of(other)["data_fingerprint"]


@pytest.mark.parametrize("words", [["trainer.early_stopping.restore_best=true"], ["trainer.ema=0.9"]])
def test_test_figures_are_those_of_the_best_weights(train, words):
    _, run = train("trainer.steps=8", "trainer.evaluate_every=2", "scheduler=constant", "optimizer.lr=0.3", *words)
    card = card_of(run)
    model = cvtrain.load(run, device="cpu")
    rows = rows_of(run / "predictions.csv")
    pixels = load_digits().test.images.pixels.numpy()
    found = [p.class_name for p in model.predict([pixels[int(row["image"])] for row in rows])]
    assert found == [row["prediction"] for row in rows]
    assert card["best"]["val_accuracy"] == max(float(row["val_accuracy"]) for row in rows_of(run / "metrics.csv"))


def test_run_without_validation_tests_its_last_weights(train):
    result, run = train("trainer.epochs=2", "data.val_fraction=0")
    assert result.code == 0
    assert "validation     " not in result.out
    assert card_of(run)["best"] == {
        "epoch": 2,
        "step": 6,
        "val_loss": None,
        "val_accuracy": None,
        "val_cross_entropy": None,
    }
    assert [row["val_loss"] for row in rows_of(run / "metrics.csv")] == ["", ""]


def test_patience_stops_training(train):
    words = ["trainer.epochs=50", "trainer.early_stopping.patience=2", "optimizer=sgd", "optimizer.lr=1e-9"]
    result, run = train(*words, "scheduler=constant", "trainer.early_stopping.min_delta=0.5")
    card = card_of(run)
    assert result.code == 0
    assert card["stop_reason"] == "early_stopping"
    assert card["epochs"] == 3
    assert "stopped early at step 9: no improvement for 2 evaluations" in result.out


def test_patience_without_validation_is_a_mistake(train):
    result, run = train("data.val_fraction=0", "trainer.early_stopping.patience=2")
    assert result.code == 2
    assert "trainer.early_stopping.patience needs validation images" in result.errors[0]
    assert run is None, "a run that never started leaves no folder"


def test_diverging_run_says_where_and_fails(train):
    result, run = train("trainer.epochs=3", "optimizer=sgd", "optimizer.lr=1e20", "scheduler=constant")
    card = card_of(run)
    assert result.code == 5
    assert "is not a finite number at step" in result.errors[0]
    assert (card["status"], card["exit_code"], card["stop_reason"]) == ("failed", 5, "diverged")
    assert "is not a finite number" in card["error"]


def test_frozen_layers_keep_their_weights(train):
    states = []
    for num_epochs in (1, 2):
        words = [f"trainer.epochs={num_epochs}", "trainer.freeze=['head.*']", "data.val_fraction=0"]
        _, run = train(*words)
        path = next((run / "checkpoints").glob("best-*"))
        states.append(torch.load(path, weights_only=True)["trainer"]["model"])
    equal = {name: torch.equal(states[0][name], states[1][name]) for name in states[0]}
    assert any(equal.values())
    assert equal == {name: name.startswith("head.") for name in equal}


def test_few_images_are_told(train):
    result, run = train("trainer.epochs=1", "data.max_per_class=3", "trainer.batch_size=512")
    assert result.code == 0
    assert "warning: 20 training images are fewer than trainer.batch_size=512" in result.out
    assert any("fewer than" in warning for warning in card_of(run)["warnings"])
    assert card_of(run)["steps"] == 1


def test_files_train_the_same_model_as_memory(command, tmp_path, write_images):
    root = write_images(tmp_path / "data", {"train/cat": 9, "train/dog": 8, "test/cat": 2, "test/dog": 2}, size=16)
    words = [f"data.root={root}", f"data.cache_dir={tmp_path / 'cache'}", "trainer.epochs=2", "trainer.batch_size=4"]
    cards = []
    for loader in (["data.loader=memory"], ["data.loader=files", "data.num_workers=0"]):
        result = command("data=image_folder", "model=mlp", "model.hidden=[8]", "augment=flip_crop", *words, *loader)
        assert result.code == 0
        cards.append(card_of(max((tmp_path / "outputs/train").glob("*/*"))))
    for key in ("split_hash", "data_fingerprint", "best", "test"):
        assert cards[0][key] == cards[1][key]
