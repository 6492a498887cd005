"""Folders of sample-size studies, written by the package's own writers from made-up accuracies."""

import functools
import math
import random
from pathlib import Path

from cvtrain.compose import compose
from cvtrain.config import save_text
from cvtrain.outputs import RunDir
from cvtrain.record import new_card
from cvtrain.sample_size.conclusion import conclude, json_text
from cvtrain.sample_size.sentences import answer_sentences
from cvtrain.sample_size.table import Row, write_table

NUM_CLASSES, NUM_TEST = 10, 10_000
settings = functools.cache(lambda *words: compose(["task=sample_size_sweep", "model=mlp", *words]))


def study(
    folder: Path,
    *words: str,
    sizes=(10, 20, 50, 100, 200, 500),
    num_replicates=3,
    num_planned=None,
    failures=(),
    model="mlp",
) -> Path:
    """A study whose accuracy is 95 % less 0.8 / n^0.35, with some noise; the `failures` are (size, run, error)."""
    config = settings(*words)
    folder.mkdir(parents=True)
    run_dir, draw = RunDir(folder), random.Random(0)
    rows = [_row(size, run, draw=draw) for size in sizes for run in range(num_replicates)]
    run_dir.write_text(run_dir.config_path, save_text(config))
    card = {**new_card(config), "model": model, "status": "done", "exit_code": 0, "sizes": list(sizes)}
    run_dir.write_card(card | {"num_runs": num_planned or len(rows) + len(failures), "warnings": []})
    for row in rows:
        _training(run_dir, row.per_class, row.replicate, {"status": "done", "exit_code": 0, "error": None}, config)
    for size, run, error in failures:
        _training(run_dir, size, run, {"status": "failed", "exit_code": 5, "error": error}, config)
    write_table(run_dir, rows)
    conclusion = conclude(
        rows,
        chance_accuracy=1 / NUM_CLASSES,
        num_test=NUM_TEST,
        target=config["target"],
        elbow=config["elbow"],
        validate=config["validate"],
    )
    text = json_text(conclusion, sentences=answer_sentences(conclusion))
    run_dir.write_text(folder / "learning_curve.json", text)
    return folder


def _row(size: int, run: int, *, draw: random.Random) -> Row:
    accuracy = 0.95 - 0.8 * size**-0.35 + draw.gauss(0, 0.05 / math.sqrt(size))
    val_size = max(size // 5, 1) * NUM_CLASSES
    return Row(
        per_class=size,
        replicate=run,
        train_size=size * NUM_CLASSES - val_size,
        val_size=val_size,
        steps=2000 + 4 * size,
        best_step=2000,
        stop_reason="early_stopping" if run == 1 else "finished",
        train_accuracy=0.99,
        val_accuracy=accuracy + 0.01,
        test_accuracy=accuracy,
        test_loss=1 - accuracy,
        seconds=0.5 + size / 100,
        split_hash="0" * 64,
    )


def _training(sweep: RunDir, size: int, run: int, card: dict, config: dict) -> None:
    run_dir = RunDir(sweep.path / "runs" / f"n{size:05d}-r{run:02d}")
    run_dir.path.mkdir(parents=True)
    run_dir.write_text(run_dir.config_path, save_text(config))
    run_dir.write_card(card | {"per_class": size, "replicate": run})
