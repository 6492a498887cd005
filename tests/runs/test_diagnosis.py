"""Runs that do not learn say so, and why; runs that learn say nothing; a run can be told to stop there."""

import json
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
QUICK = (
    "13 convolutions, PyTorch's init",
    "momentum, lr 20 times too high",
    "lr 1e-7",
    "labels shuffled, few images",
    "softmax twice",
    "MAE of the softmax, 50 classes",
    "weight decay 10",
    "validation labels of another list",
)
"""A third of the faults; `python -m benchmarks.diagnosis` plants all."""


@pytest.fixture
def planted(monkeypatch):
    """The benchmark of planted faults."""
    monkeypatch.syspath_prepend(str(ROOT))
    import benchmarks.diagnosis

    return benchmarks.diagnosis


@pytest.fixture(autouse=True)
def one_thread():
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize("what", QUICK)
def test_planted_fault_is_named_within_300_steps(what, planted, tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    fault = next(fault for fault in planted.FAULTS if fault.what == what)
    outcome = planted.outcome_of(planted.words_of(fault), tmp_path)
    assert outcome.names(fault), outcome
    assert all("\n" not in said and len(said) < 500 for said in outcome.warnings)


@pytest.mark.parametrize("words", [["model=mlp"], ["model=linear", "optimizer=sgd"], ["loss=mse", "optimizer=adam"]])
def test_healthy_run_gives_no_alarm(words, planted, tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    outcome = planted.outcome_of([*words, "data.image_size=16", "trainer.precision=fp32"], tmp_path)
    assert outcome.warnings == []
    assert outcome.accuracy > 0.8


STUCK = ["data=synthetic", "data.image_size=16", "data.per_class=40", "model=lenet", "augment=none", "trainer.ema=null"]
STUCK += ["optimizer.weight_decay=10", "scheduler=constant", "trainer.batch_size=16", "optimizer.lr=0.05"]


def test_run_that_is_told_to_stop_ends_with_the_cause_and_can_go_on(server, words, only_run, read_card, tmp_path):
    stuck = words(*STUCK, "trainer.on_not_learning=stop", steps=340, every=100)
    ended = server(stuck, cwd=tmp_path)
    assert ended.code == 5, ended.stdout + ended.stderr
    assert "optimizer.weight_decay=0.0005" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert len(ended.stderr.splitlines()) <= 6
    run = only_run(tmp_path)
    card = read_card(run)
    assert (card["status"], card["stop_reason"], card["exit_code"]) == ("failed", "not_learning", 5)
    said = [warning for warning in card["warnings"] if "not learning" in warning]
    assert len(said) == 1
    again = server([f"resume={run}"], cwd=tmp_path)
    assert again.code == 0, again.stderr
    assert "not learning" not in again.stdout, "it was said before"
    assert [w for w in read_card(run)["warnings"] if "not learning" in w] == said
    assert read_card(run)["steps"] == 340


def test_run_that_is_told_to_warn_goes_on(server, words, only_run, read_card, tmp_path):
    ended = server(words(*STUCK, steps=340, every=100), cwd=tmp_path)
    assert ended.code == 0, ended.stderr
    assert ended.stdout.count("warning: not learning after 300 steps") == 1
    assert json.dumps(read_card(only_run(tmp_path))["warnings"]).count("not learning") == 1
    assert "not learning" in (only_run(tmp_path) / "log.txt").read_text()
