from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from cvtrain.errors import ConfigError
from cvtrain.models.init import initialise
from cvtrain.models.resnet import resnet18
from cvtrain.models.vgg import vgg11, vgg16, vgg16_bn

FACTS = {"num_classes": 10, "in_channels": 3, "image_size": 32}


def spread(model: nn.Module) -> float:
    """Standard deviation of the logits across inputs."""
    with torch.no_grad():
        return model.eval()(torch.randn(16, 3, 32, 32)).std(dim=0).mean().item()


def weights(model: nn.Module) -> list[torch.Tensor]:
    return [parameter.detach().clone() for parameter in model.parameters()]


def test_auto_rescues_plain_vgg16_from_equal_logits():
    torch.manual_seed(0)
    model = vgg16(**FACTS)
    assert spread(model) < 2e-6
    assert initialise(model, init="auto") == "he"
    assert spread(model) > 1e-4


def test_he_has_the_variance_of_the_paper_and_zero_biases():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(16, 64, 3), nn.Linear(400, 200))
    assert initialise(model, init="he") == "he"
    conv, linear = model
    assert conv.weight.std().item() == pytest.approx(math.sqrt(2 / (64 * 9)), rel=0.05)
    assert linear.weight.std().item() == pytest.approx(math.sqrt(2 / 400), rel=0.05)
    assert not conv.bias.any()
    assert not linear.bias.any()


def test_same_seed_gives_the_same_draw():
    model = vgg11(**FACTS)
    initialise(model, init="he", generator=torch.Generator().manual_seed(3))
    first = weights(model)
    initialise(model, init="he", generator=torch.Generator().manual_seed(3))
    assert all(map(torch.equal, first, weights(model)))
    torch.manual_seed(3)
    initialise(model, init="he")
    assert all(map(torch.equal, first, weights(model)))


@pytest.mark.parametrize("factory", [vgg11, vgg16_bn, resnet18])
def test_auto_leaves_shallow_and_normalised_nets_alone(factory):
    model = factory(**FACTS)
    before = weights(model)
    assert initialise(model, init="auto") == "default"
    assert all(map(torch.equal, before, weights(model)))


def test_auto_leaves_weights_alone_that_are_not_pytorchs_default():
    model = vgg16(**FACTS)
    with torch.no_grad():
        model.features[0].weight[0, 0, 0, 0] = 0.9  # as trained weights have: far outside 1 / sqrt(27)
    assert initialise(model, init="auto") == "default"


def test_default_leaves_everything_alone():
    model = vgg16(**FACTS)
    before = weights(model)
    assert initialise(model, init="default") == "default"
    assert all(map(torch.equal, before, weights(model)))


def test_unknown_initialisation_is_refused():
    with pytest.raises(ConfigError, match=r"trainer.init=xavier is unknown"):
        initialise(nn.Linear(2, 2), init="xavier")
