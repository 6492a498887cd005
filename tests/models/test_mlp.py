from __future__ import annotations

import pytest
import torch

from cvtrain.errors import ConfigError
from cvtrain.models.mlp import fc2, linear, mlp


def count(model: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def test_linear_is_one_matrix_on_the_pixels():
    model = linear(num_classes=10, in_channels=3, image_size=32)
    images = torch.randn(4, 3, 32, 32)
    expected = images.reshape(4, -1) @ model.head.weight.T + model.head.bias
    torch.testing.assert_close(model(images), expected)


def test_fc2_has_the_parameters_of_the_course():
    assert count(fc2(num_classes=10, in_channels=1, image_size=28)) == 6442


def test_mlp_state_names_do_not_depend_on_dropout():
    plain = mlp(num_classes=3, in_channels=1, image_size=8, hidden=[16, 8], dropout=0.0)
    dropped = mlp(num_classes=3, in_channels=1, image_size=8, hidden=[16, 8], dropout=0.5)
    names = ["hidden.fc1.weight", "hidden.fc1.bias", "hidden.fc2.weight", "hidden.fc2.bias"]
    assert list(plain.state_dict()) == list(dropped.state_dict()) == [*names, "head.weight", "head.bias"]


def test_mlp_without_hidden_layers_is_linear():
    model = mlp(num_classes=3, in_channels=1, image_size=8, hidden=[])
    assert count(model) == count(linear(num_classes=3, in_channels=1, image_size=8))


def test_dropout_acts_in_training_only():
    model = mlp(num_classes=3, in_channels=1, image_size=8, hidden=[64], dropout=0.5)
    images = torch.randn(2, 1, 8, 8)
    assert not torch.equal(model(images), model(images))
    model.eval()
    assert torch.equal(model(images), model(images))


@pytest.mark.parametrize(
    ("activation", "function"), [("relu", torch.relu), ("tanh", torch.tanh), ("none", lambda x: x)]
)
def test_activation_stands_between_the_layers(activation, function):
    model = mlp(num_classes=3, in_channels=2, image_size=1, hidden=[16, 8], activation=activation)
    points = torch.randn(5, 2, 1, 1)
    layers = model.hidden.fc1, model.hidden.fc2
    features = points.flatten(1)
    for layer in layers:
        features = function(features @ layer.weight.T + layer.bias)
    expected = features @ model.head.weight.T + model.head.bias
    torch.testing.assert_close(model(points), expected)
    reference = mlp(num_classes=3, in_channels=2, image_size=1, hidden=[16, 8])
    assert list(model.state_dict()) == list(reference.state_dict())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"hidden": [16], "dropout": 1.5}, "model.dropout=1.5"),
        ({"hidden": [16, 0]}, r"model.hidden=\[16, 0\]"),
        ({"hidden": [], "dropout": 0.2}, "no effect without hidden layers"),
        ({"hidden": [], "activation": "tanh"}, "model.activation=tanh has no effect without hidden layers"),
        ({"hidden": [8], "activation": "gelu"}, "model.activation=gelu is none of relu, tanh, none"),
    ],
)
def test_mlp_refuses_settings_without_sense(options, message):
    with pytest.raises(ConfigError, match=message):
        mlp(num_classes=3, in_channels=1, image_size=8, **options)
