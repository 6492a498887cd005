import copy
import functools

import pytest

from cvtrain import compose as composing
from cvtrain.sweeps.settings import words_of


@functools.cache
def composed(command):
    return composing.compose(command.split())


def compose(words):
    """Composing takes a quarter of a second."""
    return copy.deepcopy(composed(" ".join(words)))


def words(*commands):
    """The words that tell runs apart, without the learning rate where it does not."""
    found = words_of([compose(command.split()) for command in commands])
    if len({each.get("optimizer.lr") for each in found}) == 1:
        found = [{key: word for key, word in each.items() if key != "optimizer.lr"} for each in found]
    return found


def test_runs_that_are_alike_need_no_words():
    assert words("model=mlp", "model=mlp name=other output_dir=elsewhere trainer.device=cpu") == [{}, {}]


def test_another_option_is_named_and_what_follows_from_it_is_not():
    assert words("optimizer=sgd", "optimizer=adam") == [
        {"optimizer": "sgd", "optimizer.lr": "0.1"},
        {"optimizer": "adam", "optimizer.lr": "0.001"},
    ]
    assert words("model=mlp", "model=lenet", "model=mlp") == [{"model": "mlp"}, {"model": "lenet"}, {"model": "mlp"}]


def test_what_was_set_beside_another_option_is_named():
    assert words("optimizer=momentum optimizer.momentum=0.5", "optimizer=adam optimizer.lr=0.01") == [
        {"optimizer": "momentum", "optimizer.lr": "0.05", "optimizer.momentum": "0.5"},
        {"optimizer": "adam", "optimizer.lr": "0.01"},
    ]


def test_value_that_all_runs_share_is_not_named():
    assert words("optimizer=sgd optimizer.weight_decay=0.1", "optimizer=adam optimizer.weight_decay=0.1") == [
        {"optimizer": "sgd", "optimizer.lr": "0.1"},
        {"optimizer": "adam", "optimizer.lr": "0.001"},
    ]


def test_option_whose_runs_differ_names_the_default_too():
    found = words("model=mlp model.dropout=0.5", "model=mlp", "model=linear")
    assert found == [
        {"model": "mlp", "model.dropout": "0.5"},
        {"model": "mlp", "model.dropout": "0"},
        {"model": "linear"},
    ]


def test_key_of_an_option_that_all_chose_is_named_alone():
    assert words("model.dropout=0.1 model=mlp", "model=mlp") == [{"model.dropout": "0.1"}, {"model.dropout": "0"}]
    assert words("model=mlp model.hidden=[8]", "model=mlp model.hidden=[8,8]") == [
        {"model.hidden": "[8]"},
        {"model.hidden": "[8,8]"},
    ]


def test_lengths_in_epochs_and_in_steps_name_the_one_that_holds():
    assert words("trainer.epochs=3", "trainer.steps=50") == [{"trainer.epochs": "3"}, {"trainer.steps": "50"}]


def test_options_that_build_on_another_have_its_defaults():
    # trainer=smoke says only what is other than in trainer=default.
    assert words("trainer=smoke", "trainer=default") == [{"trainer": "smoke"}, {"trainer": "default"}]
    assert words("trainer=smoke trainer.ema=0.9", "trainer=default")[0] == {"trainer": "smoke", "trainer.ema": "0.9"}


def test_seeds_are_named():
    assert words("seed=1", "seed=2") == [{"seed": "1"}, {"seed": "2"}]
    assert words("data=spiral data.seed=1", "data=spiral") == [{"data.seed": "1"}, {"data.seed": "0"}]


def test_learning_rate_is_always_there():
    assert words_of([compose(["optimizer.lr=0.25"])] * 2) == [{"optimizer.lr": "0.25"}] * 2


def test_key_that_an_earlier_version_did_not_know_has_its_default():
    now, before = compose(["model=mlp"]), compose(["model=mlp"])
    del before["trainer"]["ema"]
    assert [set(each) for each in words_of([now, before])] == [{"optimizer.lr"}] * 2
    averaged = compose(["model=mlp", "trainer.ema=0.9"])
    assert [each.get("trainer.ema") for each in words_of([averaged, before])] == ["0.9", "null"]


def test_option_of_the_users_own_is_named_by_its_name():
    own = compose(["model=mlp"])
    own["choices"]["optimizer"] = "mine"
    own["optimizer"] = {**own["optimizer"], "momentum": 0.3}
    assert words_of([own, compose(["model=mlp"])])[0] == {"optimizer": "mine", "optimizer.lr": "0.05"}


@pytest.mark.parametrize(("a", "b"), [(1, 1.0), ([1, 2], [1, 2])])
def test_one_value_in_two_spellings_is_no_difference(a, b):
    first, second = compose(["model=mlp"]), compose(["model=mlp"])
    first["trainer"]["grad_clip"], second["trainer"]["grad_clip"] = a, b
    assert [set(each) for each in words_of([first, second])] == [{"optimizer.lr"}] * 2


def test_long_values_are_told_apart_at_their_ends():
    first = compose(["model=mlp"])
    second = copy.deepcopy(first)
    first["model"]["init_from"], second["model"]["init_from"] = "x" * 100 + "1", "x" * 100 + "2"
    names = [each["model.init_from"] for each in words_of([first, second])]
    assert names[0] != names[1]
