"""The clock of phases: where each moment of a step is counted, and that looking at it changes nothing."""

from itertools import count
from types import SimpleNamespace

import pytest
import torch

from cvtrain import build
from cvtrain.compose import compose
from cvtrain.engine import phases
from cvtrain.engine.events import Step
from cvtrain.engine.phases import PHASES, PhaseClock, watched_by_clock
from cvtrain.engine.throughput import measure_training
from cvtrain.parts import make_parts, make_trainer

WORDS = ["model=mlp", "model.hidden=[8]", "data.max_per_class=8", "trainer.device=cpu", "trainer.precision=fp32"]


def new_trainer(*words):
    config = compose([*WORDS, "trainer.batch_size=16", *words])
    config["trainer"] |= {"epochs": None, "steps": 10**6, "evaluate_every": 10**6}
    parts = make_parts(config, build.data(config), precision=None, start=None, team=None)
    return make_trainer(config, parts, evaluate_fn=None, warn=lambda sentence: None)


def take(trainer, num_steps, *, events=None):
    events = events or trainer.run()
    for event in events:
        if isinstance(event, Step) and event.step == num_steps:
            return events


@pytest.fixture
def ticks(monkeypatch):
    """A clock that shows how often it was looked at."""
    counter = count()
    monkeypatch.setattr(phases, "time", SimpleNamespace(perf_counter=lambda: float(next(counter))))


@pytest.mark.parametrize(
    ("words", "forward", "backward"),
    # A part begins in forward; then the loss does, once for each label of a mixed image.
    [([], 2, 1), (["trainer.accumulate=2"], 4, 2), (["augment=mixup"], 3, 2), (["trainer.grad_clip=1"], 2, 1)],
)
def test_every_change_of_phase_is_seen_once_a_step(ticks, words, forward, backward):
    trainer = new_trainer(*words)
    clock = watched_by_clock(trainer)
    events = take(trainer, 1)
    assert clock.seconds == dict.fromkeys(PHASES, 0.0)  # it is off
    clock.start()
    take(trainer, 4, events=events)
    clock.stop()
    steps = 3
    assert {phase: clock.seconds[phase] / steps for phase in PHASES[:-1]} == {
        "data": 1,
        "augmentation": 2,  # before the batch is there, and after it
        "forward": forward,
        "backward": backward,
        "optimizer": 1,
    }
    # Before the first part, and after the weights have changed; once more from the start and to the stop.
    assert clock.seconds["other"] >= 2 * steps
    take(trainer, 5, events=events)
    assert clock.seconds["optimizer"] == steps  # it is off again


def test_the_end_of_an_epoch_and_the_order_of_the_next_are_counted_with_the_data(ticks):
    trainer = new_trainer()  # 5 steps are an epoch
    clock = watched_by_clock(trainer)
    events = take(trainer, 1)
    clock.start()
    take(trainer, 6, events=events)
    clock.stop()
    assert len(trainer.inputs) == 5
    assert clock.seconds["data"] == 5 + 2
    assert clock.seconds["augmentation"] == 2 * 5 + 2


def test_phases_sum_to_the_time_between_start_and_stop(ticks):
    clock = PhaseClock(torch.device("cpu"))
    clock.start()
    for phase in ("data", "forward", "data", "optimizer"):
        clock.enter(phase)
    clock.stop()
    assert clock.seconds == {"data": 2, "augmentation": 0, "forward": 1, "backward": 0, "optimizer": 1, "other": 1}


def test_training_under_the_clock_is_the_same_training():
    plain, watched = new_trainer("augment=mixup"), new_trainer("augment=mixup")
    clock = watched_by_clock(watched)
    clock.start()
    take(plain, 9)
    take(watched, 9)
    for one, other in zip(plain.model.parameters(), watched.model.parameters(), strict=True):
        assert torch.equal(one, other)


def test_measured_training_goes_on_from_round_to_round():
    trainer = new_trainer()
    result = measure_training(trainer, [16, 16, 16, 16, 8], rounds=3, seconds=0.001)
    assert len(result.speed.rounds) == 3
    assert result.speed.least <= result.speed.images_per_second <= result.speed.most
    assert sum(result.shares.values()) == pytest.approx(1)
    counted = sum(one.num_steps for one in (*result.speed.rounds, result.split))
    assert trainer.step >= counted + 3  # those of the warm-up
