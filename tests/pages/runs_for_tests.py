"""Folders of runs for tests of their pages: written by hand, and changed in one place each."""

import json

import numpy as np

from cvtrain.outputs import RunDir

ROWS = (
    "epoch,step,train_loss,train_accuracy,val_loss,val_accuracy,lr,seconds,images_per_second,val_cross_entropy\n"
    "1,3,2,0.3,1.9,0.35,0.1,0.5,1000,1.9\n"
    "2,6,1,0.6,1.2,0.55,0.05,0.5,1000,1.2\n"
)


def class_names(num_classes):
    return [f"class {i}" for i in range(num_classes)]


def card_for_tests(names, *, per_class=4, num_errors=1, **changes):
    """The card of a training whose every class has so many test images, the first `num_errors` called the next one."""
    size = len(names)
    matrix = [[0] * size for _ in names]
    for i in range(size):
        matrix[i][i] = per_class - num_errors
        matrix[i][(i + 1) % size] += num_errors
    accuracy = sum(matrix[i][i] for i in range(size)) / (size * per_class)
    row = {"num_images": per_class, "precision": accuracy, "recall": accuracy, "f1": accuracy}
    test = {"loss": 0.5, "cross_entropy": 0.5, "accuracy": accuracy, "num_images": size * per_class}
    test |= {"top5_accuracy": 1.0, "balanced_accuracy": accuracy, "macro_f1": accuracy, "confusion_matrix": matrix}
    test["per_class"] = [{"name": name, **row} for name in names]
    if size == 2:
        test["auroc"] = 0.9
    best = {"epoch": 2, "step": 6, "val_loss": 1.2, "val_accuracy": 0.55, "val_cross_entropy": 1.2}
    card = {"status": "done", "task": "train", "data": "digits", "model": "mlp", "seed": 0, "best": best, "test": test}
    card |= {"class_names": list(names), "class_counts": [9] * size, "num_parameters": 123, "seconds": 3.0}
    card |= {"epochs": 2.0, "steps": 6, "data_wait_share": 0.25, "device": "cpu", "image_size": 8, "in_channels": 3}
    card |= {"split_hash": "ab" * 32, "typed": {"model": "mlp"}, "versions": {"torch": "2"}, "warnings": []}
    return card | changes


def write_run(folder, names=("a", "b", "c"), *, rows=ROWS, material=None, answers=True, **changes):
    """Writes the files of a run; returns its folder."""
    folder.mkdir(parents=True)
    run_dir, card = RunDir(folder), card_for_tests(names, **changes)
    run_dir.write_card(card)
    if rows:
        run_dir.metrics_path.write_text(rows)
    if answers and card.get("test"):
        pairs = [
            (i, j)
            for i, row in enumerate(card["test"]["confusion_matrix"])
            for j, n in enumerate(row)
            for _ in range(n)
        ]
        shares = np.linspace(0.4, 1, len(pairs))
        lines = [
            (str(at), names[i], names[j], f"{p:.6g}") for at, ((i, j), p) in enumerate(zip(pairs, shares, strict=True))
        ]
        run_dir.write_predictions(("image", "label", "prediction", "probability"), lines)
    if material is not None:
        (folder / "report.json").write_text(json.dumps(material))
    return folder
