import pytest
import torch
from torch import nn

from cvtrain.engine.averaging import WeightAverage


def model_of(value):
    model = nn.Linear(2, 2)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(value)
    return model


def fill(model, value):
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(value)


def test_average_follows_the_formula():
    model = model_of(1.0)
    average, expected = WeightAverage(model, 0.5), 1.0
    for t, value in enumerate([2.0, -3.0, 5.0, 0.5, 0.25, 7.0, 1.0, 2.0, 3.0, 4.0]):
        fill(model, value)
        average.update()
        decay = min(0.5, (1 + t) / (10 + t))
        expected = decay * expected + (1 - decay) * value
        for tensor in average.state_dict()["averages"]:
            assert tensor.flatten().tolist() == pytest.approx([expected] * tensor.numel(), rel=1e-6)


def test_weights_are_exchanged_inside_the_block_only():
    model = model_of(1.0)
    average = WeightAverage(model, 0.9)
    fill(model, 3.0)
    with average.applied():
        assert model.weight.unique().item() == 1.0
    assert model.weight.unique().item() == 3.0
    with pytest.raises(ValueError, match="stop"), average.applied():
        raise ValueError("stop")
    assert model.weight.unique().item() == 3.0
    assert average.state_dict()["averages"][0].unique().item() == 1.0


def test_average_of_weights_that_stand_still_is_exact():
    model = model_of(0.1)
    average = WeightAverage(model, 0.999)
    for _ in range(20):
        average.update()
    assert torch.equal(average.state_dict()["averages"][0], model.weight)


def test_state_survives_a_round_trip():
    model = model_of(1.0)
    average = WeightAverage(model, 0.9)
    fill(model, 2.0)
    average.update()
    again = WeightAverage(model_of(0.0), 0.9)
    again.load_state_dict(average.state_dict())
    assert again.num_updates == 1
    assert torch.equal(again.state_dict()["averages"][0], average.state_dict()["averages"][0])


def test_memory_order_of_filters_is_kept():
    model = nn.Conv2d(3, 4, 3).to(memory_format=torch.channels_last)
    average = WeightAverage(model, 0.9)
    average.update()
    assert average.state_dict()["averages"][0].is_contiguous(memory_format=torch.channels_last)
