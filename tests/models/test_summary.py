from __future__ import annotations

import torch
from torch import nn

from cvtrain.models.cnn import conv_pool, lenet
from cvtrain.models.resnet import resnet18
from cvtrain.models.summary import LayerSummary, summarise


def test_lenet_equals_the_hand_computed_table():
    summary = summarise(lenet(num_classes=10, in_channels=1, image_size=32), in_channels=1, image_size=32)
    with_weights = [layer for layer in summary.layers if layer.num_parameters]
    assert with_weights == [
        LayerSummary("features.0", "Conv2d", (6, 28, 28), 156, 2 * 6 * 28 * 28 * 25),
        LayerSummary("features.3", "Conv2d", (16, 10, 10), 2416, 2 * 16 * 10 * 10 * 150),
        LayerSummary("hidden.0", "Linear", (120,), 48120, 2 * 400 * 120),
        LayerSummary("hidden.2", "Linear", (84,), 10164, 2 * 120 * 84),
        LayerSummary("head", "Linear", (10,), 850, 2 * 84 * 10),
    ]
    assert summary.num_parameters == summary.num_trainable == 61_706
    assert summary.flops == 833_040


def test_conv_pool_equals_the_hand_computed_table():
    summary = summarise(conv_pool(num_classes=10, in_channels=3, image_size=32), in_channels=3, image_size=32)
    rows = [(layer.kind, layer.output_shape, layer.num_parameters, layer.flops) for layer in summary.layers]
    assert rows == [
        ("Conv2d", (20, 28, 28), 1520, 2_352_000),
        ("MaxPool2d", (20, 14, 14), 0, 0),
        ("ReLU", (20, 14, 14), 0, 0),
        ("BatchNorm2d", (20, 14, 14), 40, 0),
        ("Conv2d", (50, 10, 10), 25050, 5_000_000),
        ("MaxPool2d", (50, 5, 5), 0, 0),
        ("ReLU", (50, 5, 5), 0, 0),
        ("BatchNorm2d", (50, 5, 5), 100, 0),
        ("Conv2d", (50, 1, 1), 62550, 125_000),
        ("MaxPool2d", (50, 1, 1), 0, 0),
        ("ReLU", (50, 1, 1), 0, 0),
        ("Flatten", (50,), 0, 0),
        ("Linear", (10,), 510, 1_000),
    ]
    assert summary.flops == 7_478_000


def test_layers_add_up_to_the_sums_for_a_transformer():
    from cvtrain.models.library import torchvision

    model = torchvision(num_classes=10, in_channels=3, image_size=32, name="vit_b_16")
    summary = summarise(model, in_channels=3, image_size=32)
    assert sum(layer.num_parameters for layer in summary.layers) == summary.num_parameters
    assert sum(layer.flops for layer in summary.layers) == summary.flops
    # The class token belongs to the net itself, which computes nothing of its own.
    assert summary.layers[0] == LayerSummary("", "VisionTransformer", (10,), 768, 0)
    assert min(layer.flops for layer in summary.layers) == 0


def test_layer_that_is_called_twice_has_one_row_with_both_calls():
    shared = nn.Conv2d(3, 3, 3, padding=1, bias=False)
    summary = summarise(nn.Sequential(shared, shared), in_channels=3, image_size=4)
    assert summary.layers == (LayerSummary("0", "Conv2d", (3, 4, 4), 81, 2 * 2 * 81 * 16),)


def test_shared_weight_counts_once():
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False))
    model[2].weight = model[1].weight
    summary = summarise(model, in_channels=1, image_size=2)
    assert [layer.num_parameters for layer in summary.layers] == [0, 16, 0]
    assert summary.num_parameters == 16


def test_model_is_neither_run_nor_changed():
    model = resnet18(num_classes=10, in_channels=3, image_size=32, width=4).train()
    model.head.requires_grad_(False)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    random_state = torch.get_rng_state()
    summary = summarise(model, in_channels=3, image_size=32)
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not any(module._forward_hooks for module in model.modules())
    assert torch.equal(torch.get_rng_state(), random_state)
    assert summary.num_parameters - summary.num_trainable == 4 * 8 * 10 + 10
