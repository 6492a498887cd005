from __future__ import annotations

import os
import sys

import pytest
import torch
from torch import nn

from cvtrain.errors import ConfigError, DataError
from cvtrain.models.library import timm, torchvision

FACTS = {"num_classes": 7, "in_channels": 3, "image_size": 64}


@pytest.fixture
def weights_cache(tmp_path, monkeypatch):
    """An empty cache of weights, and no way to a server."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    for variable in ("https_proxy", "HTTPS_PROXY"):
        monkeypatch.setenv(variable, "http://127.0.0.1:9")
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    return folder


def plant_weights(folder, name: str, *, content=None, **arguments) -> nn.Module:
    """Put random weights where torchvision looks for its downloads; returns the model that they belong to."""
    from torchvision import models

    reference = models.get_model(name, **arguments)
    url = models.get_model_weights(name)["DEFAULT"].url
    torch.save(reference.state_dict() if content is None else content, folder / os.path.basename(url))
    return reference


@pytest.mark.parametrize(
    "name",
    ["resnet18", "googlenet", "inception_v3", "squeezenet1_1", "vit_b_16", "swin_t", "densenet121", "convnext_tiny"],
)  # fmt: skip
@pytest.mark.parametrize("in_channels", [1, 3])
def test_torchvision_models_fit_the_data(name, in_channels):
    image_size = 96
    with torch.device("meta"):
        model = torchvision(num_classes=7, in_channels=in_channels, image_size=image_size, name=name)
        logits = model.train()(torch.empty(2, in_channels, image_size, image_size))
    assert logits.shape == (2, 7)


def test_torchvision_model_trains_on_grey_images():
    model = torchvision(num_classes=3, in_channels=1, image_size=32, name="mobilenet_v3_small")
    model(torch.randn(2, 1, 32, 32)).square().sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_kwargs_reach_the_model():
    with torch.device("meta"):
        model = torchvision(**FACTS, name="resnet50", kwargs={"width_per_group": 128})
        dropped = timm(**FACTS, name="resnet18", kwargs={"drop_rate": 0.3})
    assert model.layer1[0].conv1.out_channels == 128
    assert dropped.drop_rate == 0.3


@pytest.mark.parametrize("factory", [torchvision, timm])
def test_unknown_name_is_refused_with_the_nearest(factory):
    with pytest.raises(ConfigError, match=r"model.name=resnett18 is not a classification model") as caught:
        factory(**FACTS, name="resnett18")
    nearest = caught.value.hint.removeprefix("nearest: ").split(", ")
    assert nearest[0] == "resnet18"
    assert len(nearest) == 3


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("fasterrcnn_resnet50_fpn", "detection"),
        ("deeplabv3_resnet50", "segmentation"),
        ("r3d_18", "video"),
        ("quantized_resnet18", "quantization"),
    ],
)
def test_models_of_other_tasks_are_refused(name, kind):
    with pytest.raises(ConfigError, match=f"model.name={name} is a {kind} model"):
        torchvision(**FACTS, name=name)


@pytest.mark.parametrize("factory", [torchvision, timm])
def test_kwargs_that_do_not_fit_are_refused(factory):
    with pytest.raises(ConfigError, match=r"resnet18 cannot be built .*unexpected keyword argument 'depth'"):
        factory(**FACTS, name="resnet18", kwargs={"depth": 3})
    with pytest.raises(ConfigError, match=r"model.kwargs sets num_classes"):
        factory(**FACTS, name="resnet18", kwargs={"num_classes": 3})


def test_unknown_weights_are_refused_with_those_that_exist():
    with pytest.raises(ConfigError, match=r"model.weights=BEST is unknown for resnet18") as caught:
        torchvision(**FACTS, name="resnet18", weights="BEST")
    assert "IMAGENET1K_V1" in caught.value.hint


def test_weights_for_another_image_size_are_refused():
    with pytest.raises(ConfigError, match="are for images of 224 px; these have 64 px"):
        torchvision(**FACTS, name="vit_b_16", weights="DEFAULT")


def test_failing_download_is_a_data_error(weights_cache):
    with pytest.raises(DataError, match="pretrained weights of resnet18 cannot be fetched") as caught:
        torchvision(**FACTS, name="resnet18", weights="DEFAULT")
    assert "model.weights=null" in caught.value.hint


def test_weights_that_are_no_plain_tensors_are_refused(weights_cache):
    plant_weights(weights_cache, "squeezenet1_1", content={"hook": print})
    with pytest.raises(DataError, match="weights of squeezenet1_1 cannot be fetched"):
        torchvision(**FACTS, name="squeezenet1_1", weights="DEFAULT")


@pytest.mark.parametrize("name", ["squeezenet1_1", "mobilenet_v3_small"])
def test_pretrained_weights_are_kept_but_for_the_ends(name, weights_cache):
    reference = plant_weights(weights_cache, name)
    model = torchvision(num_classes=7, in_channels=1, image_size=64, name=name, weights="DEFAULT").eval()
    ours, theirs = model.state_dict(), reference.state_dict()
    changed = [key for key in ours if ours[key].shape != theirs[key].shape]
    assert changed[0].startswith("features.0")
    assert {key.split(".")[0] for key in changed[1:]} == {"classifier"}
    assert all(torch.equal(ours[key], theirs[key]) for key in ours if key not in changed)
    grey = torch.randn(2, 1, 64, 64)
    torch.testing.assert_close(
        model.features(grey), reference.eval().features(grey.expand(-1, 3, -1, -1)), rtol=1e-3, atol=1e-4
    )
    assert model(grey).shape == (2, 7)


def test_pretrained_googlenet_returns_one_tensor(weights_cache):
    plant_weights(weights_cache, "googlenet", init_weights=True)
    model = torchvision(**FACTS, name="googlenet", weights="DEFAULT").train()
    assert model(torch.randn(2, 3, 64, 64)).shape == (2, 7)


def test_no_weights_are_fetched_on_the_meta_device(weights_cache):
    with torch.device("meta"):
        torchvision(**FACTS, name="resnet18", weights="DEFAULT")
        timm(**FACTS, name="resnet18", pretrained=True)


@pytest.mark.parametrize("name", ["resnet18", "resnet18.a1_in1k", "vit_tiny_patch16_224", "convnext_atto"])
@pytest.mark.parametrize("in_channels", [1, 3])
def test_timm_models_fit_the_data(name, in_channels):
    with torch.device("meta"):
        model = timm(num_classes=7, in_channels=in_channels, image_size=64, name=name)
        assert model(torch.empty(2, in_channels, 64, 64)).shape == (2, 7)


@pytest.mark.parametrize("name", ["resnet18.nosuch", "hf-hub:someone/something"])
def test_timm_refuses_unknown_tags_and_remote_configs(name):
    with pytest.raises(ConfigError, match=f"model.name={name} is not a classification model of timm"):
        timm(**FACTS, name=name)


def test_missing_timm_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(ConfigError, match="needs the package timm") as caught:
        timm(**FACTS)
    assert caught.value.hint == "pip install 'cvtrain[timm]'"


def test_failing_timm_download_is_a_data_error(tmp_path, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(DataError, match="pretrained weights of resnet18 cannot be fetched") as caught:
        timm(**FACTS, name="resnet18", pretrained=True)
    assert "model.pretrained=false" in caught.value.hint
