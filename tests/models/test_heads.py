"""Finding the layer that gives the logits, and replacing it."""

import pytest
import torch
from torch import nn

from cvtrain.errors import ConfigError
from cvtrain.models.heads import replace_head
from cvtrain.models.library import torchvision
from cvtrain.models.resnet import resnet18

FACTS = {"in_channels": 1, "image_size": 4}


class TwoHeads(nn.Module):
    """Averages the logits of two layers, as distilled transformers do."""

    def __init__(self):
        super().__init__()
        self.head, self.head_dist = nn.Linear(16, 3), nn.Linear(16, 3)

    def forward(self, images):
        features = images.flatten(1)
        return (self.head(features) + self.head_dist(features)) / 2


class LastIsFirst(nn.Module):
    """Makes its layers in another order than it uses them, and gives the logits another shape on the way."""

    def __init__(self):
        super().__init__()
        self.out, self.dropout, self.first = nn.Linear(3, 3), nn.Dropout(0.5), nn.Linear(16, 3)

    def forward(self, images):
        return self.out(self.dropout(self.first(images.flatten(1)))).view(-1, 3)


class Scaled(nn.Sequential):
    def forward(self, images):
        return super().forward(images) / 256


class Doubling(nn.Linear):
    def forward(self, features):
        return 2 * super().forward(features)


def unbiased(linear):
    return nn.Linear(linear.in_features, linear.out_features, bias=False)


def replace(model, **facts):
    replace_head(model, unbiased, reason="loss=some_loss", **{**FACTS, **facts})
    return model


def test_layer_that_gives_the_logits_is_found_by_what_it_does():
    model = replace(LastIsFirst())
    assert model.out.bias is None
    assert model.first.bias is not None


def test_nested_layer_is_replaced_under_its_name():
    model = torchvision(num_classes=7, in_channels=3, image_size=32, name="mobilenet_v3_small")
    before = list(model.state_dict())
    after = list(replace(model, in_channels=3, image_size=32).state_dict())
    assert after == [name for name in before if name != "classifier.3.bias"]


def test_layer_of_timm_is_replaced():
    timm = pytest.importorskip("timm")
    model = timm.create_model("mobilenetv3_small_050", num_classes=7)
    assert replace(model, in_channels=3, image_size=32).classifier.bias is None


@pytest.mark.parametrize(
    "model",
    [TwoHeads(), Scaled(nn.Flatten(), nn.Linear(16, 3)), nn.Sequential(nn.Flatten(), Doubling(16, 3))],
    ids=["two", "scaled", "subclass"],
)
def test_logits_that_are_not_the_outputs_of_one_linear_layer_are_refused(model):
    before = model.state_dict()
    with pytest.raises(ConfigError, match="loss=some_loss replaces the linear layer"):
        replace(model)
    assert model.state_dict().keys() == before.keys()


def test_nothing_is_drawn_and_nothing_moves_while_it_is_sought():
    facts = {"in_channels": 3, "image_size": 32}
    model = nn.Sequential(nn.Dropout(0.5), resnet18(num_classes=4, **facts, width=4)).eval()
    kept = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    before = torch.get_rng_state()
    replace_head(model, lambda linear: linear, reason="a test", **facts)
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(tensor, kept[name]) for name, tensor in model.state_dict().items())
    assert not model.training


def test_model_on_the_meta_device_is_taken():
    with torch.device("meta"):
        model = replace(nn.Sequential(nn.Flatten(), nn.Linear(16, 3)))
    assert model[1].bias is None
    assert model[1].weight.is_meta
