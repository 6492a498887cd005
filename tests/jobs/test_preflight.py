"""What is found wrong with a grid before its first job starts."""

import sys
from pathlib import Path

import pytest

from cvtrain.arguments import parse_arguments
from cvtrain.compose import JobComposer, compose
from cvtrain.config import config_hash
from cvtrain.errors import ConfigError
from cvtrain.jobs.grid import alternatives, combinations
from cvtrain.multirun import Multirun

SMOKE = ["experiment=smoke", "model=linear"]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def problems_of(*words):
    with pytest.raises(ConfigError) as caught:
        Multirun(words).run()
    return caught.value.problems


def test_combinations_are_those_of_hydra_and_the_last_word_changes_fastest():
    assert combinations(["a=1,2", "b=x", "c=range(0,3)"]) == [
        (a, "b=x", c) for a in ("a=1", "a=2") for c in ("c=0", "c=1", "c=2")
    ]
    assert alternatives("model=choice(mlp,lenet)") == ["model=mlp", "model=lenet"]
    assert alternatives("trainer.freeze=[],[stem.*]") == ["trainer.freeze=[]", "trainer.freeze=[stem.*]"]
    assert alternatives("name=a b") == ["name=a b"]  # Hydra cannot read it; compose says so
    assert combinations(["seed=1,0,1", "a=x"]) == [("seed=1", "a=x"), ("seed=0", "a=x")]  # each once


def test_jobs_composed_together_are_those_composed_alone():
    jobs = [
        (f"optimizer={optimizer}", f"optimizer.lr={lr}", "model=lenet", f"data={data}")
        for optimizer in ("sgd", "adam")
        for lr in ("0.1", "1e-1", "3")
        for data in ("digits", "cifar10")
    ]
    together = JobComposer(parse_arguments([])).compose_all(jobs)
    assert together == [compose(words) for words in jobs]
    together[0]["optimizer"]["lr"] = None
    assert together[1]["optimizer"]["lr"] == 0.1  # nothing is shared between jobs


def test_a_mistake_in_one_choice_of_many_is_told_with_all_others_at_once():
    models = "model=linear,mlp,lenet,fc2,vgg11,alexnet,vgg61"
    told = problems_of(models, "optimizer.lr=0.1,-1", "seed=0,1", "loss=mse,hinge", "trainer.epoch=3")
    assert len(told) == 4
    text = "\n".join(told)
    assert "vgg61: did you mean" in text
    assert "optimizer.lr=-1" in text
    assert "hinge" in text
    assert "trainer.epochs" in text


def test_a_clash_of_two_values_is_found_in_their_combination():
    told = problems_of("optimizer=sgd,nesterov", "++optimizer.momentum=0,0.9", "data=digits")
    assert any("optimizer.nesterov=true needs optimizer.momentum > 0" in problem for problem in told)


def test_every_distinct_model_and_data_is_made_on_trial():
    told = problems_of("model=linear,vgg11", "data=digits,mnist", "optimizer.lr=0.1,0.2", "seed=0,1,2")
    assert len([problem for problem in told if "vgg11" in problem]) == 1  # at 8 pixels of digits, not at 28


def test_loss_that_cannot_train_a_model_is_found_by_a_step_without_numbers(tmp_path, monkeypatch):
    (tmp_path / "my_losses.py").write_text(
        "import torch\n\n\nclass TooWide(torch.nn.Module):\n"
        "    def __init__(self, *, num_classes):\n        super().__init__()\n        self.wide = num_classes + 1\n\n"
        "    def forward(self, logits, labels):\n        return (logits - torch.zeros(self.wide)).sum(1)\n"
    )
    (tmp_path / "loss").mkdir()
    (tmp_path / "loss" / "wide.yaml").write_text("_target_: my_losses.TooWide\n")
    monkeypatch.syspath_prepend(tmp_path)
    words = ["--config-dir", str(tmp_path), "plugins=[my_losses]", "loss=cross_entropy,wide"]
    (told,) = problems_of(*words)
    assert told.startswith("loss=wide cannot train model=lenet: RuntimeError: ")
    sys.modules.pop("my_losses", None)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["seed=range(3,3)"], "seed=range(3,3): names no value"),
        (["optimizer.lr=interval(0.1,1)"], "can be searched (hydra/sweeper=search), not swept over"),
        (["sweep.jobs=1,2"], "sweep.jobs: one multirun has one sweep.jobs, for all its jobs"),
        (["output_dir=a,b"], "output_dir: one multirun has one output_dir"),
        (["sweep.jobs=0"], "sweep.jobs=0"),
        (["sweep.name=a/b"], "sweep.name=a/b: must be a word of letters"),
        (["sweep.job_timeout=0"], "sweep.job_timeout=0"),
        (["sweep.retry=true"], "did you mean sweep.retry_failed?"),
        (["seed=range(1,1000000000)", "optimizer.lr=0.1,0.2"], "seed=range(1,1000000000): makes more than 10,000 jobs"),
        (["hydra.launcher.n_jobs=2"], "hydra.launcher.n_jobs=2: Hydra has no such setting"),
        (["hydra/launcher=isolatd"], "unknown option hydra/launcher=isolatd: did you mean hydra/launcher=isolated?"),
        (["hydra.sweep.dir=x"], "hydra.sweep.dir=x: the folder of a sweep is output_dir=FOLDER sweep.name=NAME"),
        (["++hydra.sweeper.params.seed=3"], "hydra.sweeper.params.seed=3: type KEY=VALUES without it"),
        (["hydra/sweeper=search", "hydra.sweeper.num_trials=x"], "hydra.sweeper.num_trials=x: Hydra has no such"),
    ],
)
def test_wrong_settings_of_the_multirun_itself_are_told(words, told):
    assert any(told in problem for problem in problems_of(*SMOKE, *words)), problems_of(*SMOKE, *words)
    assert not Path("outputs").exists()


def test_settings_of_hydra_are_judged_together_with_the_options_that_bring_them():
    words = ["hydra/sweeper=search", "hydra.sweeper.num_trials=3", "hydra/launcher=basic", "optimizer.lr=0.1,0.2"]
    assert len(Multirun([*SMOKE, *words]).configs) == 2
    assert Multirun(["experiment=search_lr", "hydra.sweeper.num_trials=3"]).configs


@pytest.mark.long
def test_mistake_among_many_jobs_is_found_before_their_combinations_are_composed(monkeypatch):
    composed = []
    original = JobComposer.compose_all
    monkeypatch.setattr(JobComposer, "compose_all", lambda self, jobs: composed.extend(jobs) or original(self, jobs))
    (told,) = problems_of(*SMOKE, "seed=range(0,60)", "optimizer.lr=0.1,0.2,-1", "optimizer=sgd,adam")
    assert told == "optimizer.lr=-1: must be a number > 0"
    assert len(composed) == 60  # of 360


def test_same_settings_have_one_hash_however_they_are_typed():
    same = [
        ["optimizer.lr=0.1"],
        ["optimizer.lr=1e-1"],
        ["optimizer.lr=0.10", "sweep.jobs=3", "name=other", "output_dir=elsewhere"],
    ]
    assert len({config_hash(compose([*SMOKE, *words])) for words in same}) == 1
    whole = [["optimizer.lr=1"], ["optimizer.lr=1.0"], ["optimizer.lr=1e0"]]
    assert len({config_hash(compose([*SMOKE, *words])) for words in whole}) == 1
    assert config_hash(compose([*SMOKE, "seed=1"])) != config_hash(compose([*SMOKE, "seed=2"]))
