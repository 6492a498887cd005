from __future__ import annotations

from collections import OrderedDict
from functools import partial

import pytest
import torch
from torch import nn

from cvtrain.errors import ConfigError
from cvtrain.models.alexnet import alexnet
from cvtrain.models.cnn import block_cnn, conv_pool, lenet, simple_cnn
from cvtrain.models.fit import check_image_size
from cvtrain.models.library import torchvision
from cvtrain.models.mlp import linear, mlp
from cvtrain.models.resnet import resnet18
from cvtrain.models.vgg import vgg11, vgg19_bn

FACTS = {"num_classes": 10, "in_channels": 3, "name": "net"}


@pytest.mark.parametrize(
    ("factory", "image_size", "smallest"),
    [
        (vgg11, 16, 32),
        (partial(vgg11, hidden=[64]), 16, 32),
        (vgg19_bn, 31, 32),
        (alexnet, 4, 8),
        (conv_pool, 16, 32),
        (lenet, 8, 16),
        (simple_cnn, 15, 16),
        (block_cnn, 8, 16),
        (partial(block_cnn, widths=[4, 4, 4, 4, 4, 4, 4]), 32, 128),
        (partial(torchvision, name="alexnet"), 32, 63),
    ],
)
def test_too_small_images_are_refused_with_the_smallest_size(factory, image_size, smallest):
    message = f"net needs images of at least {smallest} px; these have {image_size} px"
    with pytest.raises(ConfigError, match=message) as caught:
        check_image_size(factory, image_size=image_size, **FACTS)
    assert f"data.image_size={smallest}" in caught.value.hint
    check_image_size(factory, image_size=smallest, **FACTS)


@pytest.mark.parametrize(("factory", "smallest"), [(linear, 1), (resnet18, 2)])
def test_any_size_passes_where_any_size_works(factory, smallest):
    for image_size in (smallest, 8, 100):
        check_image_size(factory, image_size=image_size, **FACTS)


def test_multiple_of_a_patch_is_not_called_a_smallest_size():
    factory = partial(torchvision, name="vit_b_16")
    with pytest.raises(ConfigError, match="cannot take images of 33 px; the next size that works is 48 px"):
        check_image_size(factory, image_size=33, **FACTS)


def test_reason_is_shown_when_no_size_works():
    def broken(*, num_classes: int, in_channels: int, image_size: int) -> nn.Module:
        raise RuntimeError("mat1 and mat2 do not fit\nand a long tail")

    with pytest.raises(ConfigError, match=r"^net cannot take images of 32 px: mat1 and mat2 do not fit$"):
        check_image_size(broken, image_size=32, **FACTS)


def test_head_that_does_not_fit_is_refused_with_both_numbers():
    """The maps are (B, 512, 2, 2), and the head was written for 512 features."""

    def misfit(*, num_classes: int, in_channels: int, image_size: int) -> nn.Module:
        maps = nn.Sequential(nn.Conv2d(in_channels, 512, 3, padding=1), nn.AdaptiveMaxPool2d(2), nn.Flatten())
        return nn.Sequential(OrderedDict(features=maps, head=nn.Linear(512, num_classes)))

    told = "^net cannot take images of 32 px: its layer head takes 512 features per image and is given 2,048 "
    with pytest.raises(ConfigError, match=told):
        check_image_size(misfit, image_size=32, **FACTS)


def test_wrong_number_of_logits_names_both_numbers():
    def wrong(*, num_classes: int, in_channels: int, image_size: int) -> nn.Module:
        return linear(num_classes=1000, in_channels=in_channels, image_size=image_size)

    with pytest.raises(ConfigError, match=r"\(2, 1000\) for 2 images; 10 classes need \(2, 10\)"):
        check_image_size(wrong, image_size=8, **FACTS)


def test_output_that_is_no_tensor_is_refused():
    factory = partial(torchvision, name="googlenet", kwargs={"aux_logits": True})
    with pytest.raises(ConfigError, match="net returns a GoogLeNetOutputs, not one tensor"):
        check_image_size(factory, image_size=64, **FACTS)


def test_unknown_option_is_a_config_error():
    with pytest.raises(ConfigError, match=r"net cannot be built: .*unexpected keyword argument 'depth'"):
        check_image_size(partial(vgg11, depth=3), image_size=32, **FACTS)


def test_config_error_of_the_factory_passes_through():
    with pytest.raises(ConfigError, match=r"model.dropout=2"):
        check_image_size(partial(mlp, dropout=2.0), image_size=32, **FACTS)


def test_constructor_that_needs_numbers_is_checked_all_the_same():
    check_image_size(partial(torchvision, name="regnet_y_400mf"), image_size=32, **FACTS)


@pytest.mark.parametrize("factory", [resnet18, alexnet, partial(torchvision, name="regnet_y_400mf")])
def test_random_state_is_left_as_it_was(factory):
    before = torch.get_rng_state()
    check_image_size(factory, image_size=32 if factory is not alexnet else 64, **FACTS)
    assert torch.equal(torch.get_rng_state(), before)


def test_random_state_is_left_as_it_was_by_a_failing_check():
    before = torch.get_rng_state()
    with pytest.raises(ConfigError):
        check_image_size(vgg11, image_size=16, **FACTS)
    assert torch.equal(torch.get_rng_state(), before)
