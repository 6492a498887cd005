import inspect
import json
from itertools import pairwise
from pathlib import Path

import pytest
import torch
import yaml
from torch.optim import lr_scheduler

from cvtrain import schedulers
from cvtrain.errors import CheckpointError, ConfigError
from cvtrain.schedulers import (
    Constant,
    Cosine,
    Exponential,
    Linear,
    Multistep,
    OneCycle,
    Plateau,
    Step,
)

CONFIG_PATHS = sorted((Path(__file__).parents[1] / "configs" / "scheduler").glob("*.yaml"))
SCHEDULES = [Constant, Step, Multistep, Exponential, Cosine, Linear, OneCycle, Plateau]
every_schedule = pytest.mark.parametrize("schedule_class", SCHEDULES)


def factors(schedule):
    return [schedule.factor(step) for step in range(schedule.total_steps)]


def torch_factors(build_fn, num_steps):
    """The lr of each step under a torch scheduler that is stepped once a training step, from lr 1."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = build_fn(optimizer)
    values = []
    for _ in range(num_steps):
        values.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return values


def close(expected):
    return pytest.approx(expected, rel=1e-12, abs=1e-12)


# --- against torch ----------------------------------------------------------------------------------------------


def test_step_equals_torch():
    ours = Step(total_steps=100, steps_per_epoch=7, step_epochs=3, gamma=0.3)
    assert factors(ours) == close(torch_factors(lambda o: lr_scheduler.StepLR(o, 21, gamma=0.3), 100))


def test_multistep_equals_torch():
    ours = Multistep(total_steps=100, steps_per_epoch=7, milestones_epochs=[2, 5, 6, 50], gamma=0.2)
    expected = torch_factors(lambda o: lr_scheduler.MultiStepLR(o, [14, 35, 42, 350], gamma=0.2), 100)
    assert factors(ours) == close(expected)


def test_exponential_equals_torch_stepped_once_an_epoch():
    ours = Exponential(total_steps=100, steps_per_epoch=7, gamma=0.9)
    by_epoch = torch_factors(lambda o: lr_scheduler.ExponentialLR(o, gamma=0.9), 15)
    assert factors(ours) == close([by_epoch[step // 7] for step in range(100)])


def test_cosine_equals_torch():
    ours = Cosine(total_steps=100, steps_per_epoch=7, final_factor=0.05)
    expected = torch_factors(lambda o: lr_scheduler.CosineAnnealingLR(o, T_max=100, eta_min=0.05), 100)
    assert factors(ours) == close(expected)


def test_linear_equals_torch():
    ours = Linear(total_steps=100, steps_per_epoch=7, final_factor=0.05)
    expected = torch_factors(lambda o: lr_scheduler.LinearLR(o, 1.0, 0.05, total_iters=100), 100)
    assert factors(ours) == close(expected)


@pytest.mark.parametrize("anneal", ["cosine", "linear"])
def test_one_cycle_has_the_shape_of_torch(anneal):
    ours = OneCycle(total_steps=100, steps_per_epoch=7, peak_fraction=0.3, anneal=anneal)

    def build(optimizer):  # torch puts peak and end one step earlier
        return lr_scheduler.OneCycleLR(
            optimizer,
            max_lr=1.0,
            total_steps=101,
            pct_start=31 / 101,
            anneal_strategy="cos" if anneal == "cosine" else "linear",
            div_factor=25,
            final_div_factor=400,
            cycle_momentum=False,
        )

    assert factors(ours) == close(torch_factors(build, 100))


def test_warmup_equals_torch_warmup_followed_by_the_schedule():
    ours = Cosine(total_steps=50, steps_per_epoch=10, warmup_epochs=1, warmup_start=0.2)

    def build(optimizer):
        warmup = lr_scheduler.LinearLR(optimizer, 0.2, 1.0, total_iters=10)
        return lr_scheduler.ChainedScheduler([warmup])

    def proper(optimizer):
        return lr_scheduler.CosineAnnealingLR(optimizer, T_max=40)

    assert factors(ours) == close(torch_factors(build, 10) + torch_factors(proper, 40))


@pytest.mark.parametrize("patience", [0, 1, 3])
@pytest.mark.parametrize("min_delta", [0.0, 0.1])
def test_plateau_equals_torch(patience, min_delta):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    reference = lr_scheduler.ReduceLROnPlateau(
        optimizer, factor=0.5, patience=patience, threshold=min_delta, threshold_mode="abs", min_lr=0.05, eps=0.0
    )
    ours = Plateau(
        total_steps=100, steps_per_epoch=1, patience=patience, gamma=0.5, min_delta=min_delta, min_factor=0.05
    )
    losses = torch.rand(60, generator=torch.Generator().manual_seed(0)) + torch.linspace(1, 0, 60)
    for loss in [*losses.tolist(), float("nan"), float("inf"), 0.0]:
        reference.step(loss)
        ours.observe(loss)
        assert ours.factor(50) == close(optimizer.param_groups[0]["lr"])
    assert ours.factor(0) < 1


# --- every schedule ---------------------------------------------------------------------------------------------


@every_schedule
@pytest.mark.parametrize("total_steps", [0, 1, 2, 3, 100])
def test_factors_are_finite_and_in_range(schedule_class, total_steps):
    schedule = schedule_class(total_steps=total_steps, steps_per_epoch=5)
    values = [schedule.factor(step) for step in range(total_steps + 3)]
    assert all(isinstance(value, float) and 0 <= value <= 1 for value in values)


@every_schedule
def test_schedule_reaches_one_and_never_rises_after(schedule_class):
    schedule = schedule_class(total_steps=2000, steps_per_epoch=10)
    values = factors(schedule)
    peak = values.index(max(values))
    assert values[peak] == 1.0
    assert peak == (600 if schedule_class is OneCycle else 0)
    assert all(before <= after for before, after in pairwise(values[: peak + 1]))
    assert all(before >= after for before, after in pairwise(values[peak:]))


@every_schedule
@pytest.mark.parametrize("warmup", [{"warmup_steps": 10}, {"warmup_epochs": 2}, {"warmup_epochs": 2.0}])
def test_warmup_rises_in_a_line_and_delays_the_schedule(schedule_class, warmup):
    plain = schedule_class(total_steps=290, steps_per_epoch=5)
    warmed = schedule_class(total_steps=300, steps_per_epoch=5, warmup_start=0.1, **warmup)
    first = plain.factor(0)
    assert factors(warmed)[:11] == close([first * (0.1 + 0.09 * step) for step in range(11)])
    assert factors(warmed)[10:] == close(factors(plain))


@every_schedule
def test_warmup_may_fill_the_training(schedule_class):
    schedule = schedule_class(total_steps=10, steps_per_epoch=5, warmup_steps=10, warmup_start=0.0)
    assert schedule.factor(0) == 0.0
    assert all(before < after for before, after in pairwise(factors(schedule)))


@every_schedule
def test_factor_depends_on_the_step_alone(schedule_class):
    options = {"total_steps": 100, "steps_per_epoch": 5, "warmup_steps": 7}
    once, again = schedule_class(**options), schedule_class(**options)
    backwards = [again.factor(step) for step in reversed(range(100))]
    assert factors(once) == backwards[::-1]


@every_schedule
def test_state_is_plain_and_goes_round(schedule_class):
    schedule = schedule_class(total_steps=100, steps_per_epoch=5)
    for val_loss in [1.0, 0.5] + [0.7] * 8:
        schedule.observe(val_loss)
    other = schedule_class(total_steps=100, steps_per_epoch=5)
    state = json.loads(json.dumps(schedule.state_dict(), allow_nan=False))
    other.load_state_dict(state)
    assert other.state_dict() == schedule.state_dict()
    assert factors(other) == factors(schedule)
    assert bool(state) == (schedule_class is Plateau)


def test_resumed_plateau_equals_uninterrupted_plateau():
    losses = torch.rand(40, generator=torch.Generator().manual_seed(1)).tolist()
    options = {"total_steps": 100, "steps_per_epoch": 1, "patience": 2, "gamma": 0.5}
    straight = Plateau(**options)
    expected = []
    for loss in losses:
        straight.observe(loss)
        expected.append(straight.factor(10))
    for stop in range(40):
        first, second = Plateau(**options), Plateau(**options)
        for loss in losses[:stop]:
            first.observe(loss)
        second.load_state_dict(first.state_dict())
        for index in range(stop, 40):
            second.observe(losses[index])
            assert second.factor(10) == expected[index]


def test_state_of_another_schedule_is_refused():
    plateau, cosine = (c(total_steps=10, steps_per_epoch=1) for c in (Plateau, Cosine))
    with pytest.raises(CheckpointError, match="Cosine needs"):
        cosine.load_state_dict(plateau.state_dict())
    with pytest.raises(CheckpointError, match="Plateau needs"):
        plateau.load_state_dict(cosine.state_dict())


def test_plateau_warms_up_and_falls_no_lower_than_its_floor():
    schedule = Plateau(total_steps=100, steps_per_epoch=10, patience=0, min_factor=0.25, gamma=0.5, warmup_steps=10)
    assert schedule.factor(5) == close(0.55)
    for _ in range(5):
        schedule.observe(1.0)
    assert schedule.factor(5) == close(0.55 * 0.25)
    assert schedule.factor(50) == 0.25


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        (Cosine(total_steps=40, steps_per_epoch=4, final_factor=0.1), 0.1),
        (Linear(total_steps=40, steps_per_epoch=4, final_factor=0.1), 0.1),
        (OneCycle(total_steps=40, steps_per_epoch=4, final_factor=0.1), 0.1),
        (OneCycle(total_steps=40, steps_per_epoch=4, peak_fraction=1.0), 1.0),
        (Exponential(total_steps=40, steps_per_epoch=4, gamma=0.5), 0.5**10),
        (Step(total_steps=40, steps_per_epoch=4, step_epochs=2.5, gamma=0.5), 0.5**4),
        (Multistep(total_steps=40, steps_per_epoch=4, milestones_epochs=[], gamma=0.5), 1.0),
    ],
    ids=lambda value: type(value).__name__ if not isinstance(value, float) else str(value),
)
def test_end_value_lies_one_step_past_the_last_and_holds(schedule, expected):
    assert schedule.factor(40) == close(expected)
    assert schedule.factor(1000) == schedule.factor(40)


def test_one_cycle_begins_at_its_start_or_at_the_peak():
    assert OneCycle(total_steps=40, steps_per_epoch=4, start_factor=0.2).factor(0) == close(0.2)
    assert OneCycle(total_steps=40, steps_per_epoch=4, peak_fraction=0.0).factor(0) == 1.0
    triangle = OneCycle(total_steps=100, steps_per_epoch=4, start_factor=0.2, peak_fraction=0.5, anneal="linear")
    assert triangle.factor(25) == close(0.6)


# --- what is refused --------------------------------------------------------------------------------------------


@every_schedule
def test_warmup_longer_than_the_training_is_refused_with_both_numbers(schedule_class):
    with pytest.raises(ConfigError, match="warm-up takes 15 steps, the whole training 12"):
        schedule_class(total_steps=12, steps_per_epoch=5, warmup_epochs=3)


@every_schedule
def test_two_lengths_of_the_warmup_are_refused(schedule_class):
    with pytest.raises(ConfigError, match="both set the length"):
        schedule_class(total_steps=100, steps_per_epoch=5, warmup_epochs=1, warmup_steps=5)


@pytest.mark.parametrize(
    ("schedule_class", "options", "message"),
    [
        (Constant, {"warmup_steps": -1}, r"warmup_steps is -1; it must be a whole number at least 0"),
        (Constant, {"warmup_steps": 2.5}, r"warmup_steps is 2.5; it must be a whole number"),
        (Constant, {"warmup_epochs": "two"}, r"warmup_epochs is 'two'"),
        (Constant, {"warmup_start": 1.5}, r"warmup_start is 1.5; it must be a number at least 0 and at most 1"),
        (Step, {"step_epochs": 0}, r"step_epochs is 0"),
        (Step, {"gamma": 0}, r"gamma is 0"),
        (Multistep, {"milestones_epochs": 30}, r"milestones_epochs is 30"),
        (Multistep, {"milestones_epochs": [30, 20]}, r"milestones_epochs\[1\] is 20; it must be a number above 30"),
        (Multistep, {"gamma": True}, r"gamma is True"),
        (Exponential, {"gamma": float("nan")}, r"gamma is nan"),
        (Cosine, {"final_factor": -0.1}, r"final_factor is -0.1"),
        (Linear, {"final_factor": 2}, r"final_factor is 2"),
        (OneCycle, {"peak_fraction": 1.5}, r"peak_fraction is 1.5"),
        (OneCycle, {"anneal": "cos"}, r"scheduler.anneal is 'cos'"),
        (Plateau, {"patience": 1.5}, r"patience is 1.5"),
        (Plateau, {"gamma": 1.0}, r"gamma is 1.0"),
        (Plateau, {"min_delta": -1}, r"min_delta is -1"),
        (Plateau, {"min_factor": 2}, r"min_factor is 2"),
    ],
)
def test_unusable_option_is_refused(schedule_class, options, message):
    with pytest.raises(ConfigError, match=message):
        schedule_class(total_steps=100, steps_per_epoch=5, **options)


# --- configs ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", CONFIG_PATHS, ids=lambda path: path.stem)
def test_config_holds_every_option_with_its_default(path):
    config = yaml.safe_load(path.read_text())
    schedule_class = getattr(schedulers, config.pop("_target_").removeprefix("cvtrain.schedulers."))
    parameters = inspect.signature(schedule_class).parameters
    assert set(config) == set(parameters) - {"total_steps", "steps_per_epoch"}
    for name, value in config.items():
        default = parameters[name].default
        assert value == (list(default) if isinstance(default, tuple) else default), name
    assert schedule_class(total_steps=10, steps_per_epoch=2, **config).factor(0) > 0


def test_every_schedule_has_a_config():
    expected = ["constant", "cosine", "exponential", "linear", "multistep", "one_cycle", "plateau", "step"]
    assert [path.stem for path in CONFIG_PATHS] == expected
