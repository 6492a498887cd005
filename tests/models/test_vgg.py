from __future__ import annotations

import pytest
import torch
from torch import nn

from cvtrain.errors import ConfigError
from cvtrain.models import vgg

DEPTHS = (11, 13, 16, 19)


def build_on_meta(name: str, **facts) -> nn.Module:
    with torch.device("meta"):
        return getattr(vgg, name)(**{"num_classes": 10, "in_channels": 3, "image_size": 32} | facts)


def count(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize("name", [f"vgg{depth}{tail}" for depth in DEPTHS for tail in ("", "_bn")])
def test_convolutions_equal_torchvisions(name):
    from torchvision import models

    with torch.device("meta"):
        reference = models.get_model(name, num_classes=10)
    shapes = [m.weight.shape for m in build_on_meta(name).modules() if isinstance(m, nn.Conv2d)]
    assert shapes == [m.weight.shape for m in reference.modules() if isinstance(m, nn.Conv2d)]


@pytest.mark.parametrize("depth", DEPTHS)
def test_classic_head_at_224_px_has_torchvisions_parameters(depth):
    from torchvision import models

    with torch.device("meta"):
        reference = models.get_model(f"vgg{depth}", num_classes=1000)
    model = build_on_meta(f"vgg{depth}", num_classes=1000, image_size=224, hidden=[4096, 4096])
    assert count(model) == count(reference)


def test_vgg16_bn_has_14_7_million_parameters():
    assert count(build_on_meta("vgg16_bn")) == 14_724_042
    assert count(build_on_meta("vgg16")) == 14_719_818


def test_convolution_has_a_bias_only_without_normalisation():
    assert all(m.bias is None for m in build_on_meta("vgg11_bn").modules() if isinstance(m, nn.Conv2d))
    assert all(m.bias is not None for m in build_on_meta("vgg11").modules() if isinstance(m, nn.Conv2d))


@pytest.mark.parametrize(
    ("image_size", "num_features"), [(32, 512), (63, 512), (64, 512 * 4), (224, 512 * 49), (299, 512 * 49)]
)
def test_classic_head_acts_on_at_most_7_by_7(image_size, num_features):
    model = build_on_meta("vgg11", image_size=image_size, hidden=[16])
    assert model.hidden.fc1.in_features == num_features
    assert model(torch.empty(2, 3, image_size, image_size, device="meta")).shape == (2, 10)


def test_dropout_is_a_half_with_hidden_layers():
    assert build_on_meta("vgg11", hidden=[16]).hidden.dropout1.p == 0.5
    assert build_on_meta("vgg11", hidden=[16], dropout=0.1).hidden.dropout1.p == 0.1


def test_dropout_without_hidden_layers_is_refused():
    with pytest.raises(ConfigError, match="no effect without hidden layers"):
        build_on_meta("vgg11", dropout=0.5)


def test_state_names_are_stable():
    names = list(build_on_meta("vgg16_bn").state_dict())
    assert names[:3] == ["features.0.weight", "features.1.weight", "features.1.bias"]
    assert names[-2:] == ["head.weight", "head.bias"]
    assert "features.40.weight" in names
    assert len(names) == 13 * 6 + 2


def test_pooling_before_relu_is_the_textbook_net():
    model = vgg.vgg11_bn(num_classes=3, in_channels=3, image_size=32).eval()
    features = x = torch.randn(2, 3, 32, 32)
    for layer in model.features:
        # The textbook's order: every ReLU directly after its normalisation.
        if isinstance(layer, nn.BatchNorm2d):
            x = layer(x).relu()
        elif not isinstance(layer, nn.ReLU):
            x = layer(x)
    torch.testing.assert_close(model.features(features), x)


def test_forward_and_backward():
    model = vgg.vgg11(num_classes=3, in_channels=1, image_size=32, hidden=[8])
    model(torch.randn(2, 1, 32, 32)).square().sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
