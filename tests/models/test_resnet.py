from __future__ import annotations

import pytest
import torch
from torch import nn

from cvtrain.errors import ConfigError
from cvtrain.models import resnet


def build_on_meta(name: str, **facts) -> nn.Module:
    with torch.device("meta"):
        return getattr(resnet, name)(**{"num_classes": 10, "in_channels": 3, "image_size": 32} | facts)


def count(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize("name", ["resnet18", "resnet34", "resnet50"])
def test_large_stem_has_torchvisions_parameters(name):
    from torchvision import models

    with torch.device("meta"):
        reference = models.get_model(name, num_classes=1000)
    assert count(build_on_meta(name, num_classes=1000, image_size=224)) == count(reference)


def test_resnet18_computes_what_torchvisions_does():
    from torchvision import models

    ours = resnet.resnet18(num_classes=5, in_channels=3, image_size=64).eval()
    reference = models.resnet18(num_classes=5).eval()
    # Both list their weights in the order in which they run, but for the position of the shortcuts.
    renamed = {
        name.replace("stem.0", "conv1").replace("stem.1", "bn1").replace("stage", "layer")
        .replace("shortcut", "downsample").replace("head", "fc"): value
        for name, value in ours.state_dict().items()
    }  # fmt: skip
    reference.load_state_dict(renamed)
    images = torch.randn(2, 3, 64, 64)
    torch.testing.assert_close(ours(images), reference(images))


def test_resnet18_with_the_small_stem_has_11_17_million_parameters():
    assert count(build_on_meta("resnet18")) == 11_173_962


@pytest.mark.parametrize(
    ("image_size", "stem", "map_size"),
    [(32, "auto", 32), (63, "auto", 63), (64, "auto", 16), (32, "large", 8), (64, "small", 64)],
)
def test_stem_is_chosen_by_image_size(image_size, stem, map_size):
    model = build_on_meta("resnet18", image_size=image_size, stem=stem)
    images = torch.empty(2, 3, image_size, image_size, device="meta")
    assert model.stem(images).shape == (2, 64, map_size, map_size)


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_forward_and_backward_at_other_widths(name):
    model = getattr(resnet, name)(num_classes=3, in_channels=1, image_size=8, width=4)
    model(torch.randn(2, 1, 8, 8)).square().sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_zero_init_residual_makes_every_block_its_shortcut(name):
    model = getattr(resnet, name)(num_classes=3, in_channels=1, image_size=8, width=4, zero_init_residual=True)
    block = model.stage1[1]
    positive = torch.rand(2, block.conv1.in_channels, 8, 8)
    assert torch.equal(block(positive), positive)


def test_state_names_are_stable():
    names = set(build_on_meta("resnet18").state_dict())
    assert {
        "stem.0.weight",
        "stem.1.running_mean",
        "stage1.0.conv1.weight",
        "stage2.0.shortcut.0.weight",
        "stage4.1.bn2.bias",
        "head.weight",
    } <= names
    assert len(names) == 122


@pytest.mark.parametrize(
    ("options", "message"), [({"stem": "tiny"}, "model.stem=tiny"), ({"width": 0}, "model.width=0")]
)
def test_unknown_settings_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        build_on_meta("resnet18", **options)
