from __future__ import annotations

import pytest
import torch
from torch import nn

from cvtrain.errors import ConfigError
from cvtrain.models.cnn import block_cnn, conv_pool, lenet, simple_cnn


def count(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def counts_of(model: nn.Module, kind: type[nn.Module]) -> list[int]:
    return [count(module) for module in model.modules() if isinstance(module, kind)]


def test_simple_cnn_has_the_parameters_of_the_course():
    assert count(simple_cnn(num_classes=10, in_channels=1, image_size=28)) == 6422


def test_lenet_has_the_parameters_of_the_textbook():
    model = lenet(num_classes=10, in_channels=3, image_size=32)
    assert counts_of(model, nn.Conv2d) == [456, 2416]
    assert counts_of(model, nn.Linear) == [48120, 10164, 850]


def test_conv_pool_has_the_parameters_of_its_description():
    model = conv_pool(num_classes=10, in_channels=3, image_size=32)
    assert counts_of(model, nn.Conv2d) == [1520, 25050, 62550]
    assert counts_of(model, nn.BatchNorm2d) == [40, 100]
    assert counts_of(model, nn.Linear) == [510]


def test_conv_pool_keeps_the_last_map_of_32_px_as_it_is():
    model = conv_pool(num_classes=10, in_channels=3, image_size=32).eval()
    last_pool = model.features[9]
    assert isinstance(last_pool, nn.MaxPool2d)
    last_map = torch.randn(2, 50, 1, 1)
    assert torch.equal(last_pool(last_map), last_map)


@pytest.mark.parametrize("factory", [simple_cnn, lenet, conv_pool, block_cnn])
@pytest.mark.parametrize("image_size", [32, 33, 37, 48])
def test_every_image_size_from_32_px_runs_forward_and_backward(factory, image_size):
    model = factory(num_classes=4, in_channels=2, image_size=image_size)
    images = torch.randn(2, 2, image_size, image_size).to(memory_format=torch.channels_last)
    logits = model(images)
    assert logits.shape == (2, 4)
    logits.square().sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


@pytest.mark.parametrize("factory", [simple_cnn, lenet])
def test_pooling_before_relu_is_the_textbook_net(factory):
    model = factory(num_classes=10, in_channels=1, image_size=28)
    conv1, pool1, relu1, conv2, pool2, relu2 = model.features
    images = torch.randn(3, 1, 28, 28)
    textbook = pool2(relu2(conv2(pool1(relu1(conv1(images))))))
    assert torch.equal(model.features(images), textbook)


@pytest.mark.parametrize(("factory", "smallest"), [(simple_cnn, 16), (lenet, 16), (conv_pool, 32), (block_cnn, 16)])
def test_images_that_are_too_small_are_refused(factory, smallest):
    factory(num_classes=10, in_channels=1, image_size=smallest)
    with pytest.raises(ValueError, match=r"leave nothing|finds a map"):
        factory(num_classes=10, in_channels=1, image_size=smallest - 1)


def test_block_cnn_follows_its_options():
    model = block_cnn(num_classes=5, in_channels=1, image_size=8, widths=[4, 6], kernel_size=5, dropout=0.5)
    assert counts_of(model, nn.Conv2d) == [4 * 25, 6 * 4 * 25]
    assert counts_of(model, nn.Linear) == [6 * 2 * 2 * 5 + 5]
    assert model.dropout.p == 0.5


def test_block_cnn_names_are_stable():
    names = list(block_cnn(num_classes=5, in_channels=1, image_size=8, widths=[4]).state_dict())
    assert names == [
        "features.block1.conv.weight",
        "features.block1.bn.weight",
        "features.block1.bn.bias",
        "features.block1.bn.running_mean",
        "features.block1.bn.running_var",
        "features.block1.bn.num_batches_tracked",
        "head.weight",
        "head.bias",
    ]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"widths": []}, r"model.widths=\[\]"),
        ({"widths": [8, 0]}, r"model.widths=\[8, 0\]"),
        ({"kernel_size": 4}, "model.kernel_size=4 must be odd"),
        ({"dropout": -0.1}, "model.dropout=-0.1"),
    ],
)
def test_block_cnn_refuses_settings_without_sense(options, message):
    with pytest.raises(ConfigError, match=message):
        block_cnn(num_classes=3, in_channels=1, image_size=32, **options)
