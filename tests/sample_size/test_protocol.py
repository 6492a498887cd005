"""How long each size is trained: by the two protocols, and where the user says otherwise."""

import pytest

from cvtrain.compose import compose
from cvtrain.sample_size.protocol import course_of, training_config


@pytest.fixture
def course(monkeypatch, tmp_path):
    """The course of a size of a data set with ten classes, a fifth of it to validate."""
    monkeypatch.chdir(tmp_path)

    def made(per_class, *words):
        config = compose(["task=sample_size_sweep", *words])
        return course_of(config, num_train=per_class * 8, num_val=per_class * 2)

    return made


@pytest.mark.parametrize(
    ("per_class", "batch_size", "total_steps", "evaluate_every"),
    [
        (10, 10, 2000, 50),
        (50, 50, 2000, 50),
        (200, 128, 2000, 50),
        (500, 128, 3125, 78),
        (1000, 128, 6250, 156),
        (5000, 128, 31250, 781),
    ],
)
def test_robust_gives_every_size_steps_enough(course, per_class, batch_size, total_steps, evaluate_every):
    made = course(per_class)
    assert (made.batch_size, made.total_steps, made.evaluate_every) == (batch_size, total_steps, evaluate_every)
    assert made.evaluate_every >= made.steps_per_epoch
    assert made.patience == 3


def test_robust_never_evaluates_more_than_once_an_epoch(course):
    assert course(5000, "budget.epochs=10").evaluate_every == course(5000).steps_per_epoch


def test_few_validation_images_are_judged_by_their_loss(course):
    assert course(200).metric == "val_loss"  # 400 images
    assert course(250).metric == "val_accuracy"  # 500
    assert course(200, "protocol=posts").metric == "val_accuracy"


@pytest.mark.parametrize("per_class", [10, 5000])
def test_posts_is_the_same_at_every_size(course, per_class):
    made = course(per_class, "protocol=posts")
    assert (made.batch_size, made.evaluate_every, made.patience, made.min_steps) == (128, made.steps_per_epoch, 3, 0)
    assert made.total_steps == 100 * made.steps_per_epoch


@pytest.mark.parametrize(
    ("words", "armed"),
    [
        (["scheduler=constant"], 2000),  # a rate that never comes down is not waited for
        (["scheduler=plateau"], 2000),
        (["scheduler=one_cycle", "budget.min_steps=10"], 0.857),  # cosine: a tenth of the peak at 80 % of the way down
        (["scheduler=linear", "scheduler.final_factor=0", "budget.min_steps=10"], 0.9),
        (
            ["scheduler=multistep", "scheduler.milestones_epochs=[50]", "scheduler.gamma=0.01", "budget.min_steps=10"],
            0.5,
        ),
    ],
)
def test_evaluations_count_once_the_learning_rate_has_come_down(course, words, armed):
    made = course(1000, *words)
    assert made.min_steps == pytest.approx(armed if armed > 1 else armed * made.total_steps, rel=0.01)


def test_smallest_sizes_are_judged_at_the_end_alone(course):
    assert course(10).min_steps == course(10).total_steps


def test_what_the_trainer_says_goes_before_the_protocol(course):
    words = ["trainer.steps=40", "trainer.evaluate_every=7", "trainer.early_stopping.patience=9"]
    words += ["trainer.early_stopping.metric=val_loss", "trainer.early_stopping.min_steps=21"]
    made = course(1000, *words)
    assert (made.total_steps, made.evaluate_every, made.patience, made.min_steps) == (40, 7, 9, 21)
    assert made.metric == "val_loss"
    epochs = course(1000, "trainer.epochs=2", "trainer.evaluate_every=epoch")
    assert (epochs.total_steps, epochs.evaluate_every) == (2 * 63, 63)


def test_budget_has_a_floor_and_a_ceiling(course):
    assert course(10, "budget.min_steps=300").total_steps == 800  # 100 epochs of 8 steps
    assert course(10, "budget.min_steps=300", "budget.epochs=1").total_steps == 300
    assert course(5000, "budget.max_steps=4000").total_steps == 4000


def lr_at(per_class, *words):
    config = compose(["task=sample_size_sweep", "optimizer.lr=0.05", *words])
    course = course_of(config, num_train=per_class * 8, num_val=per_class * 2)
    return training_config(config, course, seed=1)["optimizer"]["lr"]


def test_learning_rate_goes_with_the_batch():
    assert lr_at(1000) == 0.05
    assert lr_at(10) == pytest.approx(0.05 * 10 / 128)
    assert lr_at(10, "optimizer=adam", "optimizer.lr=0.05") == pytest.approx(0.05 * (10 / 128) ** 0.5)
    assert lr_at(10, "budget.scale_lr=false") == 0.05
    assert lr_at(10, "protocol=posts") == 0.05


def test_training_config_leaves_nothing_open():
    config = compose(["task=sample_size_sweep", "model=mlp", "augment=flip_crop"])
    course = course_of(config, num_train=800, num_val=200)
    made = training_config(config, course, seed=7)
    reference = compose(["model=mlp", "augment=flip_crop"])
    assert {*made} == {*reference} - {"typed", "resume", "sweep"}
    assert made["trainer"].keys() == reference["trainer"].keys()
    assert (made["task"], made["seed"], made["choices"]["task"]) == ("train", 7, "train")
    open_keys = {"epochs", "grad_clip", "ema", "log_every"}
    assert {key for key, value in made["trainer"].items() if value is None} == open_keys
    assert None not in made["trainer"]["early_stopping"].values()
    assert config["trainer"]["steps"] is None, "the settings of the sweep stay as they are"
