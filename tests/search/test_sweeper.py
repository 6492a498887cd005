"""The sweeper as it is typed, with real jobs."""

import csv
import json
import sys
from pathlib import Path

import pytest

from cvtrain.multirun import Multirun

TINY = ("model=linear", "data.max_per_class=10", "trainer.epochs=2", "trainer.batch_size=32", "sweep.jobs=1")
LR = "optimizer.lr=tag(log,interval(1e-3,1e-1))"
SWEEP = Path("outputs/sweeps/mine")
SEARCH = ("--multirun", "hydra/sweeper=search", "sweep.name=mine", *TINY)


def trials():
    return json.loads((SWEEP / "search.json").read_text())["trials"]


def leaderboard():
    with open(SWEEP / "leaderboard.csv", newline="") as file:
        return {row["optimizer.lr"]: row for row in csv.DictReader(file)}


@pytest.mark.long
def test_typed_search_trains_its_trials_and_goes_on_where_it_was(command):
    result = command(*SEARCH, LR, "optimizer=sgd,adam", "hydra.sweeper.num_trials=3")
    assert result.code == 0, result.errors
    assert "trials: 3 done, of 3" in result.out
    first = trials()
    rows = leaderboard()
    for trial in first:
        row = rows[str(trial["values"]["optimizer.lr"])]
        assert trial["val_accuracy"] == pytest.approx(float(row["val_accuracy"]))
        assert row["optimizer"] == trial["values"]["optimizer"]
        assert max(accuracy for _, accuracy in trial["evaluations"]) == pytest.approx(trial["val_accuracy"])
        assert (SWEEP / trial["folder"] / "run.json").is_file()
    written = [path.stat().st_mtime_ns for path in sorted(SWEEP.glob("*/run.json"))]
    more = command(*SEARCH, LR, "optimizer=sgd,adam", "hydra.sweeper.num_trials=4")
    assert more.code == 0, more.errors
    assert trials()[:3] == first
    assert len(trials()) == 4
    assert len(set(written) & {path.stat().st_mtime_ns for path in SWEEP.glob("*/run.json")}) == 3


def test_launcher_of_batches_runs_a_search_without_early_stops(command):
    words = ("hydra/launcher=basic", "optimizer.lr=0.01,0.1,1e30", "hydra.sweeper.sampler=grid")
    mine = [word for word in SEARCH if word != "sweep.jobs=1"]  # which is for our own launcher
    result = command(*mine, *words, "hydra.sweeper.batch_size=2")
    assert result.code == 0, result.errors
    assert result.out.count("none is stopped early") == 1
    assert "jobs 1 to 2" in result.out
    assert "jobs 3 to 3" in result.out
    assert {trial["words"][0]: trial["status"] for trial in trials()} == {
        "optimizer.lr=0.01": "done",
        "optimizer.lr=0.1": "done",
        "optimizer.lr=1e+30": "failed",
    }
    rows = leaderboard()
    for trial in trials():
        if trial["status"] == "done":
            accuracy = float(rows[str(trial["values"]["optimizer.lr"])]["val_accuracy"])
            assert trial["val_accuracy"] == pytest.approx(accuracy)


def test_experiments_choose_the_search_and_a_typed_sweeper_wins():
    for experiment in ("search_lr", "search_optimizer"):
        words = [f"experiment={experiment}", "optimizer.lr=0.01,0.1", "optimizer.weight_decay=0"]
        assert not Multirun(words).is_grid
        assert Multirun([*words, "hydra/sweeper=grid"]).is_grid


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (("optimizer.lr=0.1",), "nothing to search"),
        ((LR, "optimizer.weight_decay=tag(log,interval(0,1e-2))"), "the logarithm of 0"),
        ((LR, "hydra.sweeper.sampler=tpee"), "did you mean tpe?"),
        ((LR, "hydra.sweeper.num_trial=3"), "num_trial"),
        ((LR, "hydra.sweeper.num_trials=many"), "num_trials"),
    ],
)
def test_mistake_is_told_in_words_before_any_job(command, words, problem):
    result = command(*SEARCH, *words)
    assert result.code == 2
    assert problem in " ".join(result.errors)
    assert len(result.errors) <= 6
    assert not list(Path().glob("outputs/sweeps/*/*/run.json"))


def test_without_optuna_the_command_says_what_to_install(command, monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    result = command(*SEARCH, LR)
    assert result.code == 2
    assert result.errors == ["error: hydra/sweeper=search needs Optuna: pip install 'cvtrain[hpo]'"]
    assert not list(Path().glob("outputs/sweeps/*/*/run.json"))


@pytest.mark.long
def test_refused_command_does_not_take_the_place_of_the_one_that_resume_types(command):
    assert command(*SEARCH, LR, "hydra.sweeper.num_trials=1").code == 0
    before = (SWEEP / "sweep.json").read_text()
    refused = command(*SEARCH, LR, "hydra.sweeper.num_trials=1", "seed=4")
    assert refused.code == 2
    assert "had other settings" in refused.errors[0]
    assert (SWEEP / "sweep.json").read_text() == before
    assert command(f"resume={SWEEP}").code == 0
