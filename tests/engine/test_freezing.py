import pytest
from torch import nn

from cvtrain.engine.freezing import freeze
from cvtrain.errors import ConfigError


class Net(nn.Module):
    """Features, a head, and a parameter of its own."""

    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.BatchNorm2d(4, affine=False), nn.ReLU())
        self.head = nn.Sequential(nn.Dropout(0.5), nn.Linear(4, 2))
        self.scale = nn.Parameter(nn.Linear(1, 1).weight.detach().clone())


def trained(model):
    return {name for name, parameter in model.named_parameters() if parameter.requires_grad}


def test_patterns_freeze_parameters_and_name_the_modules_that_stand_still():
    model = Net()
    frozen = freeze(model, ["features.*"])
    assert trained(model) == {"scale", "head.1.weight", "head.1.bias"}
    assert frozen == [model.features[0], model.features[1], model.features[2]]


def test_module_with_a_trained_parameter_goes_on_training():
    model = Net()
    assert freeze(model, ["features.1.weight"]) == []
    assert "features.1.bias" in trained(model)
    assert freeze(Net(), ["features.1.weight", "features.1.bias"])[0].num_features == 4


def test_parameter_of_the_model_itself_does_not_stop_its_parts():
    model = Net()
    assert freeze(model, ["scale"]) == [model]
    assert "scale" not in trained(model)
    assert len(trained(model)) == 6


def test_pattern_without_a_match_shows_the_names_there_are():
    with pytest.raises(ConfigError, match=r"trainer.freeze: 'feature\.\*' matches no parameter") as caught:
        freeze(Net(), ["feature.*", "head.*", "nothing"])
    assert len(caught.value.problems) == 2
    assert "scale" in caught.value.hint
    assert "features.*, head.*" in caught.value.hint


def test_freezing_everything_is_refused():
    with pytest.raises(ConfigError, match="leaves no parameter to train"):
        freeze(Net(), ["*"])


def test_case_of_names_counts():
    with pytest.raises(ConfigError, match="matches no parameter"):
        freeze(Net(), ["Features.*"])
