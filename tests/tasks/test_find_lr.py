"""`task=find_lr` from the command line: what it measures and leaves, and what it says where there is nothing to see."""

import csv
import json

import pytest
import torch
import torch.nn.functional as F

from cvtrain import build
from cvtrain.compose import compose
from cvtrain.pages.find_lr_page import write_find_lr_page
from cvtrain.tasks.find_lr import words_for

SMALL = ["model=mlp", "model.hidden=[32]", "data.max_per_class=30", "trainer.device=cpu", "trainer.precision=fp32"]


@pytest.fixture
def find_lr(command, tmp_path):
    """Tests learning rates; returns the result of the command, the newest folder, its card and its rows."""

    def run(*words):
        result = command("task=find_lr", *SMALL, *words)
        folder = max((tmp_path / "outputs" / "find_lr").glob("*/*"), default=None)
        if folder is None or not (folder / "find_lr.csv").exists():
            return result, folder, None, None
        with open(folder / "find_lr.csv", encoding="utf-8", newline="") as file:
            rows = [{key: float(value) for key, value in row.items()} for row in csv.DictReader(file)]
        return result, folder, json.loads((folder / "run.json").read_text()), rows

    return run


def test_range_test_suggests_and_leaves_what_it_promises(find_lr):
    result, folder, card, rows = find_lr("repeats=2", "num_steps=60", "optimizer=adam", "name=mine")
    found = card["find_lr"]
    assert (result.code, result.errors) == (0, [])
    assert (card["task"], card["status"], card["exit_code"]) == ("find_lr", "done", 0)
    assert folder.name.endswith("-mine")
    assert {s["kind"] for s in found["suggestions"]} >= {"steepest", "valley"}
    for suggestion in found["suggestions"]:
        assert found["low"] < suggestion["low"] <= suggestion["lr"] <= suggestion["high"] < found["high"]
        assert suggestion["words"] == f"optimizer.lr={suggestion['lr']:.2g}"
        assert suggestion["words"] in result.out
    assert {row["repeat"] for row in rows} == {0.0, 1.0}
    first, second = ([row for row in rows if row["repeat"] == repeat] for repeat in (0, 1))
    assert [row["step"] for row in first] == list(range(1, len(first) + 1))
    assert first[0]["lr"] == pytest.approx(1e-6)
    assert first[10]["lr"] / first[9]["lr"] == pytest.approx(10 ** (5 / 59))
    assert first[0]["loss"] != second[0]["loss"]  # other weights
    assert not list(folder.rglob("*.ckpt"))
    for name in ("find_lr.png", "find_lr.svg"):
        assert (folder / "plots" / name).stat().st_size > 5000
    assert "$" not in (folder / "plots" / "find_lr.svg").read_text()
    page = (folder / "report.html").read_text()
    assert found["suggestions"][0]["words"] in page
    assert "optimizer=adam" in page
    assert write_find_lr_page(folder).read_text() == page  # it is a function of the folder


def test_other_rates_of_an_optimizer_go_along():
    config = compose(["optimizer=muon"])  # 0.02, and 0.001 for what is no matrix
    words = words_for(config, 0.0412)
    assert words == "optimizer.lr=0.041 optimizer.adamw_lr=0.0021"
    assert compose(["optimizer=muon", *words.split()])["optimizer"]["adamw_lr"] == 0.0021


def test_losses_are_those_of_a_plain_loop(find_lr):
    words = [*SMALL, "optimizer=nesterov", "augment=flip_crop", "trainer.batch_size=64", "seed=4"]
    _, _, _, rows = find_lr(*words, "num_steps=20", "low=0.001", "high=0.1")
    config = compose(words)
    prepared = build.data(config)
    model, _ = build.initialised_model(config, prepared.facts, num_outputs=10)
    model.to(memory_format=torch.channels_last).train()
    weights = [p for p in model.parameters() if p.ndim > 1]
    others = [p for p in model.parameters() if p.ndim <= 1]
    groups = [{"params": weights, "weight_decay": 5e-4}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.SGD(groups, lr=1.0, momentum=0.9, nesterov=True)
    inputs, losses = build.train_inputs(config, prepared, device=torch.device("cpu")), []
    while len(losses) < 20:
        for batch in inputs.epoch(len(losses) // len(inputs)):
            for group in optimizer.param_groups:
                group["lr"] = 0.001 * 100 ** (len(losses) / 19)
            loss = F.cross_entropy(model(batch.images), batch.labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    assert [row["loss"] for row in rows] == pytest.approx(losses[: len(rows)], rel=1e-5)
    assert len(rows) == 20


def test_numbers_that_are_none_end_the_test_and_not_the_command(find_lr):
    result, _, card, rows = find_lr("loss=mse", "num_steps=60", "low=1e-4", "high=1e36")
    assert result.code == 0
    assert len(rows) < 60
    assert card["find_lr"]["ends"][0].startswith(("the loss was no finite number", "the loss was lost"))
    assert card["find_lr"]["ends"][0] in result.out


def test_a_first_step_without_a_finite_number_is_divergence(find_lr):
    result, folder, _, rows = find_lr("num_steps=20", "low=1e60", "high=1e61")
    assert result.code == 5
    assert "step 1" in result.errors[0]
    assert "low=1e+57" in result.errors[-1]
    card = json.loads((folder / "run.json").read_text())
    assert (rows, card["status"], card["stop_reason"]) == (None, "failed", "diverged")


@pytest.mark.parametrize(
    ("words", "advice"),
    [
        (["low=1e-9", "high=1e-8"], "never fell clearly from lr 1e-09 to 1e-08: type high=1e-06 or num_steps=40"),
        (["low=10", "high=1000"], "type low=0.01"),
    ],
)
def test_ranges_that_do_not_tell_all_say_what_to_type(find_lr, words, advice):
    result, _, card, _ = find_lr("num_steps=20", *words)
    assert result.code == 0
    assert card["find_lr"]["suggestions"] == []
    assert "learning rates to try" not in result.out
    assert advice in card["find_lr"]["notes"][0]
    assert f"warning: {card['find_lr']['notes'][0]}" in result.out


def test_a_loss_that_does_not_rise_asks_for_a_higher_end(find_lr):
    result, _, card, _ = find_lr("num_steps=80", "low=1e-6", "high=0.003", "optimizer=adam")
    assert {s["kind"] for s in card["find_lr"]["suggestions"]} == {"steepest", "valley"}
    assert "the loss did not rise up to lr 0.003: type high=0.3" in result.out


@pytest.mark.parametrize(
    ("words", "problems"),
    [
        (["scheduler=cosine", "trainer.epochs=3"], ["scheduler has no effect with task=find_lr", "trainer.epochs"]),
        (["trainer.ema=0.9", "scheduler.warmup_steps=3"], ["scheduler.warmup_steps", "trainer.ema has no effect"]),
        (["low=1", "high=0.1"], ["the range of lr from 1 to 0.1 does not rise"]),
        (["low=7"], ["the range of lr from 7 to 5 does not rise"]),
        (["low=-1"], ["low=-1"]),
        (["num_steps=5"], ["num_steps=5: must be a whole number from 20"]),
        (["repeats=0"], ["repeats=0"]),
        (["resume=x"], ["x"]),
    ],
)
def test_settings_that_cannot_be_are_refused_and_leave_nothing(find_lr, words, problems, tmp_path):
    result, folder, _, _ = find_lr(*words)
    assert result.code == (4 if words == ["resume=x"] else 2)
    assert folder is None
    for problem in problems:
        assert any(problem in line for line in result.errors), result.errors


INTERRUPTING = """
import signal
import torch.nn.functional as F
from torch import nn

class Interrupting(nn.Module):
    calls = 0
    def __init__(self, **options):
        super().__init__()
    def forward(self, logits, labels):
        if logits.device.type != "meta":
            Interrupting.calls += 1
        if Interrupting.calls == 5:
            signal.raise_signal(signal.SIGINT)
        return F.cross_entropy(logits, labels)
"""


def test_interrupted_test_leaves_its_card(find_lr, tmp_path):
    (tmp_path / "interrupting.py").write_text(INTERRUPTING)
    result, folder, _, rows = find_lr("plugins=[interrupting]", "loss._target_=interrupting.Interrupting")
    card = json.loads((folder / "run.json").read_text())
    assert result.code == 130
    assert (rows, card["status"], card["exit_code"]) == (None, "stopped", 130)
