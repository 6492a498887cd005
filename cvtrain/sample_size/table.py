"""What each training of a sample-size sweep came to, read from its folder, and the table of all of them.

Knows run cards and CSV; not curves.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path

from cvtrain.engine.diagnosis.chance import chance_accuracy, is_above
from cvtrain.outputs import RunDir
from cvtrain.plain_text import cell as cell_text
from cvtrain.plain_text import csv_text
from cvtrain.sample_size.plan import Cell, Plan

TABLE_NAME = "sample_size.csv"


@dataclass(frozen=True)
class Row:
    """One training that is done: a row of `sample_size.csv`; accuracies are 0..1.

    Args:
        per_class: Labelled images of each class.
        replicate: 0, 1, ...
        train_size: Images trained on, of all classes.
        val_size: Images that validated.
        steps: Taken.
        best_step: After which the weights were tested.
        stop_reason: `finished` or `early_stopping`.
        train_accuracy: On augmented images, in the steps before `best_step`.
        val_accuracy: At `best_step`.
        test_accuracy: On the whole test set.
        test_loss: Mean over its images.
        seconds: Of all processes that worked on it.
        split_hash: SHA-256 of which image had which role.
    """

    per_class: int
    replicate: int
    train_size: int
    val_size: int
    steps: int
    best_step: int
    stop_reason: str
    train_accuracy: float
    val_accuracy: float
    test_accuracy: float
    test_loss: float
    seconds: float
    split_hash: str


def read_row(cell: Cell, sweep_dir: Path) -> Row | None:
    """The figures of a training; None where it is not done."""
    run_dir = RunDir(cell.folder(sweep_dir))
    card = run_dir.read_card()
    if card.get("status") != "done":
        return None
    best, test = card["best"], card["test"]
    return Row(
        per_class=cell.per_class,
        replicate=cell.replicate,
        train_size=cell.train_size,
        val_size=cell.val_size,
        steps=card["steps"],
        best_step=best["step"],
        stop_reason=card["stop_reason"],
        train_accuracy=_train_accuracy(run_dir, best["step"]),
        val_accuracy=best["val_accuracy"],
        test_accuracy=test["accuracy"],
        test_loss=test["loss"],
        seconds=card["seconds"],
        split_hash=card["split_hash"],
    )


def troubles(plan: Plan, sweep_dir: Path) -> dict[int, list[str]]:
    """Of each size, what was said of trainings that ended no better than chance; a late start is no trouble."""
    found: dict[int, list[str]] = {}
    for cell in plan.cells:
        card = RunDir(cell.folder(sweep_dir)).read_card()
        test, said = card.get("test"), [w for w in card.get("warnings") or [] if w.startswith("not learning")]
        if not test or not said:
            continue
        num_correct = round(test["accuracy"] * test["num_images"])
        if not is_above(num_correct, test["num_images"], chance_accuracy(card["class_counts"])):
            found.setdefault(cell.per_class, []).append(said[-1])
    return found


def _train_accuracy(run_dir: RunDir, step: int) -> float:
    try:
        rows = (row for row in run_dir.read_metrics() if row["step"] == str(step))
        return next((float(row["train_accuracy"]) for row in rows), math.nan)
    except (OSError, ValueError, KeyError):  # the file is gone or damaged: all other figures are on the card
        return math.nan


def write_table(run_dir: RunDir, rows: Sequence[Row]) -> None:
    """Replaces `sample_size.csv` in one move.

    Raises:
        OutputError: The disk is full or not writable.
    """
    ordered = sorted(rows, key=lambda row: (row.per_class, row.replicate))
    header = [field.name for field in fields(Row)]
    body = [[cell_text(value) for value in astuple(row)] for row in ordered]
    run_dir.write_text(run_dir.path / TABLE_NAME, csv_text(header, body))


def read_table(sweep_dir: Path) -> list[Row]:
    """The rows of a sweep's table.

    Raises:
        OSError: There is none, or it cannot be read.
        ValueError: It is not such a table.
    """
    import csv

    kinds = {"int": int, "float": float, "str": str}
    with open(sweep_dir / TABLE_NAME, encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    try:
        return [Row(**{field.name: kinds[str(field.type)](row[field.name]) for field in fields(Row)}) for row in rows]
    except (KeyError, TypeError) as error:
        raise ValueError(f"the column {error} is missing") from None
