import shlex
from pathlib import Path

import pytest

from cvtrain.compose import compose
from cvtrain.config import typed_settings
from cvtrain.pages.run_commands import command_to_continue, command_to_reproduce, typed_value


def composed_again(config):
    words = shlex.split(command_to_reproduce({"task": config["task"], "typed": typed_settings(config)}, config))
    assert words[0] == "cvtrain"
    return compose(words[1:])


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["model=mlp", "model.hidden=[16,8]", "seed=3", "name=x", "output_dir=elsewhere"],
        ["data=image_folder", "data.root='a folder, with [odd] (signs)'", "trainer.grad_clip=1e-3"],
        ["data=image_folder", r"data.root='it\'s a {folder}'", "data.on_bad=skip", "augment=none"],
        ["experiment=smoke", "trainer.precision=fp32", "trainer.grad_clip=null"],
    ],
)
def test_command_composes_to_the_same_settings(words):
    config = compose(words)
    again = composed_again(config)
    left_out = ("typed", "name", "output_dir")
    assert {k: v for k, v in again.items() if k not in left_out} == {
        k: v for k, v in config.items() if k not in left_out
    }


@pytest.mark.parametrize(
    "value", [None, True, 3, 0.25, "null", "true", "1e5", "it's", "back\\slash\\", "a,b", "", "ü x"]
)
def test_typed_value_is_read_back_as_it_was(value):
    found = compose(["model=torchvision", "model.name=resnet18", f"+model.kwargs.x={typed_value(value)}"])
    assert found["model"]["kwargs"] == {"x": value}


def test_card_of_an_older_version_gives_the_options_that_were_chosen():
    config = compose(["model=mlp", "seed=4"])
    words = shlex.split(command_to_reproduce({"task": "train"}, config))
    assert {"model=mlp", "data=digits", "optimizer=nesterov", "seed=4"} <= set(words)


def test_secrets_are_not_shown():
    found = typed_settings({"typed": ["data.token", "seed"], "data": {"token": "abc"}, "seed": 1})
    assert found == {"data.token": "***", "seed": 1}


def test_folder_with_a_space_is_one_word():
    assert shlex.split(command_to_continue(Path("/a b/c")))[1:] == ["resume='/a b/c'"]
