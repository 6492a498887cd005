from __future__ import annotations

import pytest
import torch
from torch import nn

from cvtrain.errors import ConfigError
from cvtrain.models.alexnet import alexnet


def build_on_meta(**facts) -> nn.Module:
    with torch.device("meta"):
        return alexnet(**facts)


def count(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def test_parameters_at_224_px_equal_torchvisions():
    from torchvision import models

    with torch.device("meta"):
        reference = models.alexnet(num_classes=1000)
    assert count(build_on_meta(num_classes=1000, in_channels=3, image_size=224)) == count(reference) == 61_100_840


@pytest.mark.parametrize("image_size", [8, 28, 32, 47, 48, 56, 63, 64, 75, 96, 160, 224, 299])
def test_head_fits_the_last_map_at_every_size(image_size):
    model = build_on_meta(num_classes=7, in_channels=1, image_size=image_size)
    assert model(torch.empty(2, 1, image_size, image_size, device="meta")).shape == (2, 7)


def test_stem_changes_at_64_px():
    small = build_on_meta(num_classes=7, in_channels=3, image_size=63).features[0]
    large = build_on_meta(num_classes=7, in_channels=3, image_size=64).features[0]
    assert (small.kernel_size, small.stride) == ((3, 3), (1, 1))
    assert (large.kernel_size, large.stride) == ((11, 11), (4, 4))


def test_hidden_and_dropout_follow_the_options():
    model = build_on_meta(num_classes=7, in_channels=3, image_size=32, hidden=[64], dropout=0.25)
    assert model.hidden.fc1.out_features == model.head.in_features == 64
    assert model.hidden.dropout1.p == 0.25


def test_dropout_without_hidden_layers_is_refused():
    with pytest.raises(ConfigError, match=r"model.dropout=0.5 has no effect"):
        alexnet(num_classes=7, in_channels=3, image_size=32, hidden=[])


def test_forward_and_backward_on_small_images():
    model = alexnet(num_classes=3, in_channels=1, image_size=16, hidden=[32])
    model(torch.randn(2, 1, 16, 16)).square().sum().backward()
    assert all(torch.isfinite(parameter.grad).all() for parameter in model.parameters())
