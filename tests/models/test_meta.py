from __future__ import annotations

import torch
from torch import nn

from cvtrain.models.meta import on_meta


def test_copy_is_on_meta_and_the_model_stays_as_it_was():
    model = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3))
    model[0].bias.requires_grad_(False)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    twin = on_meta(model)
    assert all(value.is_meta for value in twin.state_dict().values())
    assert [p.requires_grad for p in twin.parameters()] == [True, False, True, True]
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_shared_weights_stay_shared():
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    model[1].weight = model[0].weight
    twin = on_meta(model)
    assert twin[0].weight is twin[1].weight
