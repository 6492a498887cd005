"""One training of a sweep, alone: its figures, its files, and how it goes on where it was left."""

import csv
import json

import numpy as np
import pytest
import torch
import yaml

from cvtrain import build
from cvtrain.compose import compose
from cvtrain.console import SilentConsole
from cvtrain.data.mapped import share
from cvtrain.engine.checkpoint import list_checkpoints, read_checkpoint
from cvtrain.errors import DivergedError, InterruptedBySignal
from cvtrain.fit import Run
from cvtrain.outputs import RunDir
from cvtrain.sample_size.cell import Study, tidy, train_cell
from cvtrain.sample_size.plan import make_plan, split_of
from cvtrain.sample_size.table import read_row
from cvtrain.signals import StopRequest

WORDS = ["task=sample_size_sweep", "model=mlp", "model.hidden=[16]", "optimizer.lr=0.02", "trainer.device=cpu"]
WORDS += ["sizes=[4,8]", "replicates=2", "trainer.steps=12", "trainer.evaluate_every=3"]


@pytest.fixture(scope="module")
def digits():
    return build.read_data(compose([]))


@pytest.fixture
def study(digits, tmp_path):
    """A study, with more words, in a folder of its own: `study("name", "seed=1")`."""

    def made(name, *more):
        chosen = {word.partition("=")[0] for word in more}
        words = [word for word in WORDS if word.partition("=")[0] not in chosen]
        return Study(compose([*words, *more]), tmp_path / name, digits)

    return made


def cells_of(study):
    return make_plan(study.config, study.images).cells


def train(study, cell, *, post=lambda step: None):
    return train_cell(study, cell, post=post, stop=StopRequest())


def metrics_of(folder):
    with open(folder / "metrics.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    return [{key: row[key] for key in row if key not in ("seconds", "images_per_second")} for row in rows]


def test_figures_are_those_of_the_same_training_done_by_hand(study, digits, tmp_path):
    made = study("sweep", "keep_models=true")
    cell = cells_of(made)[1]
    train(made, cell)
    folder = cell.folder(made.sweep_dir)
    split = split_of(made.config, digits, cell)
    labels = digits.train.labels
    assert torch.bincount(labels[split.train]).tolist() == [3] * 10
    assert torch.bincount(labels[split.val]).tolist() == [1] * 10
    saved = dict(np.load(folder / "split.npz"))
    assert saved["train"].tolist() == split.train.tolist()
    assert saved["val"].tolist() == split.val.tolist()

    # The settings that the cell has written are those of a training: done by hand they give the same weights.
    config = yaml.safe_load((folder / "config.yaml").read_text())
    prepared = build.prepare(config, digits, split)
    by_hand = RunDir.open_at(tmp_path / "by hand")
    console = SilentConsole(by_hand.log, on_step=lambda step: None)
    run = Run(config, prepared, run_dir=by_hand, console=console, stop=StopRequest())
    result = run.test(run.train())
    by_hand.close()
    row = read_row(cell, made.sweep_dir)
    assert row.test_accuracy == result.test.accuracy
    assert row.test_loss == result.test.loss
    assert metrics_of(folder) == metrics_of(by_hand.path)
    (kept,) = list_checkpoints(folder / "checkpoints", "best")
    weights = read_checkpoint(kept.path)["trainer"]["model"]
    assert all(torch.equal(weights[name], tensor.cpu()) for name, tensor in run.model.state_dict().items())


def test_images_from_shared_files_give_the_same_figures(study, digits, tmp_path):
    made = study("memory")
    cell = cells_of(made)[0]
    train(made, cell)
    (tmp_path / "shared").mkdir()
    mapped = Study(made.config, tmp_path / "mapped", share(digits, tmp_path / "shared"))
    train(mapped, cell)
    assert metrics_of(cell.folder(made.sweep_dir)) == metrics_of(cell.folder(mapped.sweep_dir))
    rows = [read_row(cell, each.sweep_dir) for each in (made, mapped)]
    assert (rows[0].test_loss, rows[0].split_hash) == (rows[1].test_loss, rows[1].split_hash)


def test_replicates_differ_and_the_seed_of_the_study_moves_them_all(study):
    made, other = study("a"), study("b", "seed=1")
    for cell in cells_of(made)[:2]:
        train(made, cell)
    train(other, cells_of(other)[0])
    rows = [read_row(cell, made.sweep_dir) for cell in cells_of(made)[:2]]
    rows.append(read_row(cells_of(other)[0], other.sweep_dir))
    assert len({row.split_hash for row in rows}) == 3
    assert len({row.test_loss for row in rows}) == 3


def test_interrupted_training_goes_on_where_it_was_left(study):
    whole, broken = study("whole"), study("broken")
    cell, stop = cells_of(whole)[0], StopRequest()
    train(whole, cell)

    def signal_comes(_step):
        stop.signum = 15

    with pytest.raises(InterruptedBySignal, match=r"at step 2 of 12; the state is saved"):
        train_cell(broken, cell, post=signal_comes, stop=stop)
    folder = cell.folder(broken.sweep_dir)
    assert read_row(cell, broken.sweep_dir) is None
    assert json.loads((folder / "run.json").read_text())["status"] == "stopped"
    assert [file.step for file in list_checkpoints(folder / "checkpoints", "step")] == [2]
    steps = []
    train(broken, cell, post=steps.append)
    assert steps[0] == 3, "the first two are not taken again"
    assert metrics_of(folder) == metrics_of(cell.folder(whole.sweep_dir))
    before, after = read_row(cell, whole.sweep_dir), read_row(cell, broken.sweep_dir)
    assert (before.test_loss, before.best_step) == (after.test_loss, after.best_step)


def test_done_training_keeps_its_best_weights_only_where_they_are_wanted(study):
    made = study("sweep", "keep_models=true")
    cell = cells_of(made)[0]
    train(made, cell)
    run_dir = RunDir(cell.folder(made.sweep_dir))
    assert [file.kind for file in list_checkpoints(run_dir.checkpoint_dir, "best")] == ["best"]
    assert list_checkpoints(run_dir.checkpoint_dir, "step") == []
    tidy(run_dir, keep_model=False)
    assert not run_dir.checkpoint_dir.exists()
    tidy(run_dir, keep_model=False)  # a second time there is nothing to do
    assert read_row(cell, made.sweep_dir) is not None


def test_training_that_diverges_says_so_in_its_folder_and_can_be_tried_again(study):
    made = study("sweep", "optimizer=sgd", "optimizer.lr=1e30", "scheduler=constant", "budget.scale_lr=false")
    cell = cells_of(made)[0]
    for _ in range(2):
        with pytest.raises(DivergedError, match="the loss is not a finite number at step"):
            train(made, cell)
        card = json.loads((cell.folder(made.sweep_dir) / "run.json").read_text())
        assert (card["status"], card["exit_code"], card["stop_reason"]) == ("failed", 5, "diverged")
        assert read_row(cell, made.sweep_dir) is None


def test_what_there_is_to_warn_of_is_handed_over_and_kept(study):
    made = study("sweep", "optimizer=sgd", "optimizer.lr=1e-9", "trainer.steps=400", "trainer.evaluate_every=200")
    cell = cells_of(made)[0]
    warnings = train(made, cell)
    assert [warning[:12] for warning in warnings] == ["not learning"]
    assert json.loads((cell.folder(made.sweep_dir) / "run.json").read_text())["warnings"] == warnings
