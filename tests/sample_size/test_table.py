"""The table of a sweep: what its rows are read from, how they are written, and what is said of trainings at chance."""

import json
import math
from dataclasses import replace

import pytest

from cvtrain.outputs import RunDir
from cvtrain.sample_size.plan import Cell, Plan
from cvtrain.sample_size.protocol import Course
from cvtrain.sample_size.table import Row, read_row, read_table, troubles, write_table

COURSE = Course(10, 8, 80, 10, "val_loss", 3, 20)
CELL = Cell(10, 3, 80, 20, COURSE)
ROW = Row(10, 3, 80, 20, 70, 40, "early_stopping", 0.75, 0.5, 0.4375, 1.625, 2.5, "ab" * 32)
CARD = {
    "status": "done",
    "steps": 70,
    "stop_reason": "early_stopping",
    "seconds": 2.5,
    "split_hash": "ab" * 32,
    "best": {"step": 40, "val_accuracy": 0.5},
    "test": {"accuracy": 0.4375, "loss": 1.625, "num_images": 1000},
    "class_counts": [8] * 10,
    "warnings": [],
}


@pytest.fixture
def written(tmp_path):
    """Writes the files of a training: `written(cell, **changes of its card)`."""

    def write(cell, **changes):
        folder = cell.folder(tmp_path)
        folder.mkdir(parents=True)
        (folder / "run.json").write_text(json.dumps({**CARD, **changes}))
        (folder / "metrics.csv").write_text("step,train_accuracy\n20,0.25\n40,0.75\n70,1\n")

    return write


def test_row_is_what_card_and_metrics_say(written, tmp_path):
    written(CELL)
    assert read_row(CELL, tmp_path) == ROW


@pytest.mark.parametrize("status", ["running", "stopped", "failed"])
def test_training_that_is_not_done_has_no_row(status, written, tmp_path):
    assert read_row(CELL, tmp_path) is None
    written(CELL, status=status)
    assert read_row(CELL, tmp_path) is None


def test_damaged_card_counts_as_not_done(written, tmp_path):
    written(CELL)
    path = CELL.folder(tmp_path) / "run.json"
    path.write_text(path.read_text()[:-20])
    assert read_row(CELL, tmp_path) is None


def test_table_is_sorted_and_reads_back_as_it_was(tmp_path):
    rows = [replace(ROW, per_class=n, replicate=r) for n, r in ((100, 0), (20, 1), (20, 0), (3, 11), (3, 2))]
    write_table(RunDir(tmp_path), rows)
    found = read_table(tmp_path)
    assert [(row.per_class, row.replicate) for row in found] == [(3, 2), (3, 11), (20, 0), (20, 1), (100, 0)]
    assert set(found) == set(rows)


def test_figures_that_are_not_finite_survive_the_table(tmp_path):
    write_table(RunDir(tmp_path), [replace(ROW, train_accuracy=math.nan)])
    (row,) = read_table(tmp_path)
    assert math.isnan(row.train_accuracy)


def test_foreign_table_is_refused_by_its_missing_column(tmp_path):
    (tmp_path / "sample_size.csv").write_text("per_class,replicate\n10,0\n")
    with pytest.raises(ValueError, match="'train_size' is missing"):
        read_table(tmp_path)
    with pytest.raises(FileNotFoundError):
        read_table(tmp_path / "nowhere")


def test_trainings_at_chance_that_learnt_nothing_are_troubles(written, tmp_path):
    said = "not learning after 300 steps"
    at_chance = {"accuracy": 0.1, "loss": 2.3, "num_images": 1000}
    written(CELL, test=at_chance, warnings=["few images", said])
    written(replace(CELL, replicate=4), test=at_chance, warnings=[])  # nothing was noticed
    written(replace(CELL, replicate=5), warnings=[said])  # a late start: 43.75 % in the end
    cells = [replace(CELL, replicate=r) for r in (3, 4, 5, 6)]  # the last has not begun
    assert troubles(Plan((10,), tuple(cells)), tmp_path) == {10: [said]}
