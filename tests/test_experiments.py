"""Every experiment composes with all its arms, says what to expect, and runs through a step and a test."""

import json
import re
from pathlib import Path

import pytest
import yaml

from cvtrain.arguments import parse_arguments
from cvtrain.compose import arms_of_experiment
from cvtrain.config import config_dir
from cvtrain.help import options_of
from cvtrain.multirun import Multirun

EXPERIMENTS = [name for name in options_of("experiment", config_dir()) if name != "smoke"]
MULTI_ARM = {
    "losses",
    "margin_losses",
    "mnist_fc_vs_cnn",
    "mnist_permuted",
    "optimizers",
    "own_photos",
    "search_lr",
    "search_optimizer",
    "spiral",
    "spiral_optimizers",
    "vgg_table",
}
SEARCHES = {"search_lr", "search_optimizer"}
OF_SEVERAL_SIZES = {"sample_size_posts"}
SHORT = (
    "trainer.epochs=null",
    "trainer.steps=1",
    "trainer.evaluate_every=1",
    "trainer.batch_size=4",
    "scheduler.warmup_epochs=0",
)
STAND_INS = {  # images of the same number of channels where the experiment's own are not at hand
    "palm": ("data=synthetic", "data.num_classes=2"),
    "mnist": ("data=digits",),
    "spiral": ("data.per_class=8",),
}


def data_of(experiment: str) -> str:
    text = (config_dir() / "experiment" / f"{experiment}.yaml").read_text()
    found = re.search(r"override /data: (\w+)", text)
    return found[1] if found else "spiral"


def short(experiment: str) -> list[str]:
    """The command of an experiment on little data, for one step."""
    stand_in = STAND_INS.get(data_of(experiment), ("data=synthetic",))
    few = () if data_of(experiment) == "spiral" else ("data.max_per_class=2",)
    return [f"experiment={experiment}", *stand_in, *few, *SHORT]


@pytest.fixture
def trained(command):
    """A run that an experiment may start from."""

    def train(experiment: str) -> list[str]:
        if experiment != "fine_tune":
            return []
        text = (config_dir() / "experiment" / "fine_tune.yaml").read_text()
        model = re.search(r"override /model: (\w+)", text)[1]
        assert command("experiment=smoke", "data=synthetic", f"model={model}").code == 0
        (run,) = Path("outputs/train").glob("*/*")
        return [f"model.init_from={run}"]

    return train


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_every_experiment_runs(experiment, command, trained):
    more = trained(experiment)
    result = command(*short(experiment), *more, "name=it")
    assert result.code == 0, result.errors
    if experiment in OF_SEVERAL_SIZES:
        (run,) = Path("outputs/sample_size_sweep").glob("*/*-it/runs/*")
    else:
        (run,) = Path("outputs/train").glob("*/*-it")
    card = json.loads((run / "run.json").read_text())
    assert (card["status"], card["steps"]) == ("done", 1)
    assert 0 <= card["test"]["accuracy"] <= 1
    assert ("--multirun runs all" in result.out) == (experiment in MULTI_ARM)


LARGE = ("optimizers", "spiral_optimizers")
"""Experiments with so many arms that composing them all takes seconds."""


@pytest.mark.parametrize(
    "experiment", [pytest.param(name, marks=[pytest.mark.long] if name in LARGE else []) for name in sorted(MULTI_ARM)]
)
def test_every_arm_composes(experiment):
    multirun = Multirun([f"experiment={experiment}"])
    assert multirun.is_grid == (experiment not in SEARCHES)
    assert len(multirun.configs) >= (2 if experiment in SEARCHES else 3)


def test_experiments_with_arms_are_known():
    with_sweep = {name for name in EXPERIMENTS if arms_of_experiment(parse_arguments([f"experiment={name}"]))}
    assert with_sweep == MULTI_ARM


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_every_experiment_opens_with_command_and_measured_result(experiment):
    head = (config_dir() / "experiment" / f"{experiment}.yaml").read_text().split("defaults:")[0]
    assert f"experiment={experiment}" in head
    assert re.search(r"^# Expected: .*\d", head, re.M), "a measured figure"
    assert "@@" not in head
    assert all(len(line) <= 140 for line in head.splitlines())


@pytest.mark.long
def test_multirun_of_an_experiment_runs_its_arms_and_what_is_typed_wins(command):
    words = ["-m", *short("mnist_permuted"), "seed=3,4", "model=linear"]
    result = command(*words)
    assert result.code == 0, result.errors
    assert "4 of 4 jobs done" in result.out
    cards = [json.loads(path.read_text()) for path in Path("outputs/sweeps").rglob("run.json")]
    configs = [yaml.safe_load((path.parent / "config.yaml").read_text()) for path in Path().rglob("run.json")]
    assert {card["model"] for card in cards} == {"linear"}
    found = {(config["seed"], config["data"]["permute_pixels"]) for config in configs}
    assert found == {(3, None), (3, 0), (4, None), (4, 0)}
