"""Every option of the model group builds by its `_target_` and fits common data."""

from __future__ import annotations

import importlib
import inspect
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

CONFIG_DIR = Path(__file__).parents[2] / "configs" / "model"
OPTIONS = sorted(path.stem for path in CONFIG_DIR.glob("*.yaml"))
OWN_MODELS = [
    *("linear", "mlp", "fc2", "simple_cnn", "lenet", "conv_pool", "block_cnn", "alexnet"),
    *(f"vgg{depth}{tail}" for depth in (11, 13, 16, 19) for tail in ("", "_bn")),
    *("resnet18", "resnet34", "resnet50"),
]


def read(option: str):
    settings = OmegaConf.to_container(OmegaConf.load(CONFIG_DIR / f"{option}.yaml"))
    assert settings.pop("init_from") is None, "an option of every model, which cvtrain itself reads"
    module, _, function = settings.pop("_target_").rpartition(".")
    return getattr(importlib.import_module(module), function), settings


def test_every_model_of_the_zoo_is_an_option():
    assert {*OWN_MODELS, "torchvision", "timm"} <= set(OPTIONS)


@pytest.mark.parametrize("in_channels", [1, 3])
@pytest.mark.parametrize("option", OPTIONS)
def test_option_builds_and_fits_32_px(option, in_channels):
    factory, settings = read(option)
    for num_classes in (2, 10):
        with torch.device("meta"):
            model = factory(num_classes=num_classes, in_channels=in_channels, image_size=32, **settings)
            assert model(torch.empty(2, in_channels, 32, 32)).shape == (2, num_classes)


@pytest.mark.parametrize("option", OPTIONS)
def test_option_names_every_setting_with_the_default_of_the_code(option):
    factory, settings = read(option)
    parameters = dict(inspect.signature(factory).parameters)
    for fact in ("num_classes", "in_channels", "image_size"):
        assert parameters.pop(fact).default is inspect.Parameter.empty
    defaults = {name: parameter.default for name, parameter in parameters.items()}
    for name, value in defaults.items():
        if isinstance(value, tuple):
            defaults[name] = list(value)
    if "kwargs" in defaults:
        defaults["kwargs"] = {}
    assert settings == defaults


@pytest.mark.parametrize("option", OPTIONS)
def test_option_opens_with_a_comment(option):
    assert (CONFIG_DIR / f"{option}.yaml").read_text().startswith("# ")


@pytest.mark.parametrize("option", OWN_MODELS)
def test_own_models_end_in_a_linear_head(option):
    factory, settings = read(option)
    with torch.device("meta"):
        model = factory(num_classes=10, in_channels=3, image_size=32, **settings)
    assert isinstance(model.head, torch.nn.Linear)
    assert list(model.state_dict())[-1] == "head.bias"
