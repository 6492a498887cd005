import inspect
import io
from pathlib import Path

import pytest
import torch
import yaml
from torch import nn

from cvtrain.errors import ConfigError
from cvtrain.muon import Muon, orthogonalise
from cvtrain.optimizers import build_optimizer

CONFIG_PATHS = sorted((Path(__file__).parents[1] / "configs" / "optimizer").glob("*.yaml"))
NAMES = [path.stem for path in CONFIG_PATHS]
every_optimizer = pytest.mark.parametrize("name", NAMES)
every_layout = pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])


def network(seed=0, layout=torch.contiguous_format):
    torch.manual_seed(seed)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 8, 1),
        nn.ReLU(),
        nn.Conv2d(8, 4, 3),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(16, 5),
    )
    return model.to(memory_format=layout)


def load(name):
    config = yaml.safe_load((CONFIG_PATHS[0].parent / f"{name}.yaml").read_text())
    target = config.pop("_target_")
    return (Muon if target == "cvtrain.muon.Muon" else getattr(torch.optim, target.split(".")[-1])), config


def build(name, model, **changes):
    optimizer_class, config = load(name)
    return build_optimizer(optimizer_class, model, device_type="cpu", **{**config, **changes})


def train(model, optimizer, steps):
    for step in steps:
        generator = torch.Generator().manual_seed(step)
        images = torch.randn(4, 3, 8, 8, generator=generator).contiguous(memory_format=torch.channels_last)
        optimizer.zero_grad()
        model(images).square().mean().backward()
        optimizer.step()


def save_and_load(state):
    buffer = io.BytesIO()
    torch.save(state, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=True)


def assert_same_weights(model, other):
    for name, weight in model.state_dict().items():
        assert weight.equal(other.state_dict()[name]), name


# --- all optimizers ---------------------------------------------------------------------------------------------


def test_every_optimizer_has_a_config():
    expected = ["adagrad", "adam", "adamw", "momentum", "muon", "nesterov", "rmsprop", "sgd"]
    assert expected == NAMES


@every_optimizer
@every_layout
def test_resumed_steps_equal_uninterrupted_steps(name, layout):
    straight = network(layout=layout)
    train(straight, build(name, straight), range(6))

    first = network(layout=layout)
    optimizer = build(name, first)
    train(first, optimizer, range(3))
    saved = save_and_load({"model": first.state_dict(), "optimizer": optimizer.state_dict()})
    second = network(seed=1, layout=layout)
    second.load_state_dict(saved["model"])
    optimizer = build(name, second)
    optimizer.load_state_dict(saved["optimizer"])
    train(second, optimizer, range(3, 6))

    assert_same_weights(straight, second)


@every_optimizer
def test_repeated_run_gives_the_same_bits(name):
    first, second = network(), network()
    train(first, build(name, first), range(3))
    train(second, build(name, second), range(3))
    assert_same_weights(first, second)


@every_optimizer
def test_state_of_another_memory_layout_is_used_rightly(name):
    straight = network()
    train(straight, build(name, straight), range(4))

    first = network()
    optimizer = build(name, first)
    train(first, optimizer, range(2))
    second = network(seed=1, layout=torch.channels_last)
    second.load_state_dict(first.state_dict())
    continued = build(name, second)
    continued.load_state_dict(optimizer.state_dict())
    train(second, continued, range(2, 4))

    for name_, weight in straight.state_dict().items():
        torch.testing.assert_close(second.state_dict()[name_], weight, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", [name for name in NAMES if name != "muon"])
def test_fused_steps_equal_torch_without_fusion(name):
    ours, theirs = network(), network()
    optimizer = build(name, ours)
    optimizer_class, config = load(name)
    decay = config.pop("weight_decay")
    del config["decay_norm_and_bias"]
    groups = [
        {"params": [p for p in theirs.parameters() if p.ndim > 1], "weight_decay": decay},
        {"params": [p for p in theirs.parameters() if p.ndim == 1], "weight_decay": 0.0},
    ]
    reference = optimizer_class(groups, foreach=False, **config)
    train(ours, optimizer, range(4))
    train(theirs, reference, range(4))
    for name_, weight in theirs.state_dict().items():
        torch.testing.assert_close(ours.state_dict()[name_], weight, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", ["sgd", "momentum", "nesterov", "adagrad", "adam", "adamw"])
def test_fused_kernel_is_used_where_torch_has_one(name):
    assert all(group["fused"] for group in build(name, network()).param_groups)
    optimizer_class, config = load(name)
    if name == "adagrad":
        optimizer = build_optimizer(optimizer_class, network(), device_type="mps", **config)
        assert not any(group["fused"] for group in optimizer.param_groups)


@every_optimizer
def test_lr_of_zero_changes_nothing(name):
    model, untouched = network(), network()
    optimizer = build(name, model)
    for group in optimizer.param_groups:
        group["lr"] = 0.0
    train(model, optimizer, range(2))
    for weight, expected in zip(model.parameters(), untouched.parameters(), strict=True):
        assert weight.equal(expected)


@every_optimizer
def test_config_lists_only_options_of_its_class(name):
    optimizer_class, config = load(name)
    signature = inspect.signature(optimizer_class)
    assert {"lr", "weight_decay", "decay_norm_and_bias"} <= set(config)
    del config["decay_norm_and_bias"]
    signature.bind([], **config)
    if optimizer_class is Muon:
        assert set(config) == set(signature.parameters) - {"params"}


# --- groups -----------------------------------------------------------------------------------------------------


@every_optimizer
def test_weight_decay_spares_norms_and_biases(name):
    optimizer = build(name, network(), weight_decay=0.25)
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            assert group["weight_decay"] == (0.25 if parameter.ndim > 1 else 0.0)
    assert sum(len(group["params"]) for group in optimizer.param_groups) == len(list(network().parameters()))


@every_optimizer
def test_weight_decay_reaches_norms_and_biases_when_asked(name):
    optimizer = build(name, network(), weight_decay=0.25, decay_norm_and_bias=True)
    assert {group["weight_decay"] for group in optimizer.param_groups} == {0.25}


def test_frozen_parameters_are_left_out():
    model = network()
    model[0].requires_grad_(False)
    optimizer = build("momentum", model)
    trained = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    assert trained == {id(parameter) for parameter in model.parameters() if parameter.requires_grad}


@every_optimizer
def test_wholly_frozen_model_is_refused(name):
    with pytest.raises(ConfigError, match="all parameters are frozen"):
        build(name, network().requires_grad_(False))


# --- what is refused --------------------------------------------------------------------------------------------


def test_unknown_option_is_refused_with_the_nearest_name():
    with pytest.raises(ConfigError, match=r"SGD has no option momentun; did you mean momentum\?") as caught:
        build("sgd", network(), momentun=0.9)
    assert "nesterov" in caught.value.hint
    with pytest.raises(ConfigError, match=r"Adam has no option fused$"):
        build("adam", network(), fused=True)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("sgd", {"lr": -1.0}, "learning rate"),
        ("sgd", {"lr": "fast"}, "SGD refuses its options"),
        ("adam", {"lr": float("nan")}, "optimizer.lr is nan"),
        ("sgd", {"nesterov": True}, "Nesterov"),
        ("adam", {"betas": [0.9, 1.5]}, "beta"),
        ("adamw", {"weight_decay": -0.1}, "weight_decay"),
        ("muon", {"momentum": 1.0}, "momentum is 1.0"),
        ("muon", {"adamw_betas": [0.9, 1.5]}, r"adamw_betas\[1\] is 1.5"),
        ("muon", {"adamw_lr": -1}, "adamw_lr is -1"),
        ("muon", {"ns_steps": 0}, "ns_steps is 0"),
    ],
)
def test_refused_option_is_named(name, options, message):
    with pytest.raises(ConfigError, match=message):
        build(name, network(), **options)


# --- Muon -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(8, 8), (64, 64), (32, 288), (288, 32), (3, 16, 40)])
@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_orthogonalised_matrix_has_the_vectors_of_the_svd_and_values_near_one(shape, scale):
    matrices = scale * torch.randn(shape, generator=torch.Generator().manual_seed(0))
    result = orthogonalise(matrices)
    u, values, vt = torch.linalg.svd(matrices, full_matrices=False)
    turned = u.mT @ result @ vt.mT
    gained = turned.diagonal(dim1=-2, dim2=-1)
    off_diagonal = turned - torch.diag_embed(gained)
    assert off_diagonal.abs().max() < 1e-3
    # The iteration has 5 steps to lift a singular value: the smallest of a square matrix stay below.
    healthy = values > 0.02 * values.amax(dim=-1, keepdim=True)
    assert gained[healthy].min() > 0.6
    assert gained.max() < 1.3


def test_matrices_orthogonalised_together_equal_each_alone():
    matrices = torch.randn(3, 12, 20, generator=torch.Generator().manual_seed(0))
    alone = torch.stack([orthogonalise(matrix) for matrix in matrices])
    torch.testing.assert_close(orthogonalise(matrices), alone, rtol=1e-4, atol=1e-5)


def test_zero_matrix_stays_zero():
    assert orthogonalise(torch.zeros(3, 4)).equal(torch.zeros(3, 4))


@pytest.mark.parametrize("nesterov", [True, False])
@pytest.mark.parametrize("shape", [(24, 16), (16, 24)])
def test_muon_follows_torch_muon_on_a_matrix(nesterov, shape):
    options = {"lr": 0.02, "weight_decay": 0.1, "momentum": 0.9, "nesterov": nesterov}
    generator = torch.Generator().manual_seed(0)
    ours = nn.Parameter(torch.randn(shape, generator=generator))
    theirs = nn.Parameter(ours.detach().clone())
    start = ours.detach().clone()
    optimizer = Muon([ours], adamw_last_layer=False, **options)
    reference = torch.optim.Muon([theirs], **options)
    for _ in range(5):
        ours.grad = torch.randn(shape, generator=generator)
        theirs.grad = ours.grad.clone()
        optimizer.step()
        reference.step()
    # torch iterates in bfloat16 on the CPU as well
    difference = (ours - theirs).norm() / (ours - start).norm()
    assert difference < 0.02


def test_muon_treats_filters_as_matrices():
    generator = torch.Generator().manual_seed(0)
    filters = nn.Parameter(torch.randn(8, 4, 3, 3, generator=generator))
    matrix = nn.Parameter(filters.detach().flatten(1).clone())
    for parameter in (filters, matrix):
        optimizer = Muon([parameter], adamw_last_layer=False)
        for seed in range(3):
            gradient = torch.randn(8, 36, generator=torch.Generator().manual_seed(seed))
            parameter.grad = gradient.view(parameter.shape)
            optimizer.step()
    torch.testing.assert_close(filters.detach().flatten(1), matrix.detach(), rtol=0, atol=0)


def test_muon_gives_adamw_what_is_no_hidden_matrix():
    model = network()
    vectors = {id(parameter) for parameter in model.parameters() if parameter.ndim == 1}

    def methods(**options):
        groups = build("muon", model, **options).param_groups
        return {id(p): (group["method"], group["lr"]) for group in groups for p in group["params"]}

    muon, adamw = ("muon", 0.02), ("adamw", 0.001)
    default = methods()
    assert all(default[vector] == adamw for vector in vectors)
    assert [default[id(model[i].weight)] for i in (0, 3, 5, 8)] == [muon, muon, muon, adamw]
    turned = methods(adamw_first_layer=True, adamw_last_layer=False, decay_norm_and_bias=True)
    assert [turned[id(model[i].weight)] for i in (0, 3, 5, 8)] == [adamw, muon, muon, muon]


def test_muon_updates_the_rest_as_adamw_does():
    ours, theirs = network(), network()
    options = {"lr": 0.001, "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0.01}
    optimizer = build("muon", ours)
    reference = torch.optim.AdamW([theirs[8].weight], **options)
    for seed in range(3):
        gradient = torch.randn(5, 16, generator=torch.Generator().manual_seed(seed))
        ours[8].weight.grad = gradient
        theirs[8].weight.grad = gradient.clone()
        optimizer.step()
        reference.step()
    assert ours[8].weight.equal(theirs[8].weight)


def test_muon_normalises_weights_when_asked():
    model = network()
    optimizer = build("muon", model, lr=1e-9, normalise_weights=True)
    train(model, optimizer, [0])
    assert [model[i].weight.norm().item() for i in (0, 3, 5)] == pytest.approx([8**0.5, 8**0.5, 2.0], rel=1e-5)


def test_muon_skips_parameters_without_a_gradient():
    model = network()
    before = model[5].weight.detach().clone()
    optimizer = build("muon", model)
    model[0].weight.grad = torch.ones_like(model[0].weight)
    optimizer.step()
    assert model[5].weight.equal(before)


def test_muon_without_hidden_matrices_is_refused():
    with pytest.raises(ConfigError, match="nothing to orthogonalise: the model has 1 weight matrices"):
        build("muon", nn.Linear(4, 3))
    optimizer = build("muon", nn.Linear(4, 3), adamw_last_layer=False)
    assert [group["method"] for group in optimizer.param_groups] == ["muon", "adamw"]


def test_muon_learns():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 2))
    inputs = torch.randn(256, 8)
    labels = (inputs[:, 0] * inputs[:, 1] > 0).long()
    optimizer = build("muon", model)
    for _ in range(100):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(inputs), labels).backward()
        optimizer.step()
    assert (model(inputs).argmax(dim=1) == labels).float().mean() > 0.95


def test_muon_reports_the_loss_of_a_closure():
    weight = nn.Parameter(torch.eye(3))
    optimizer = Muon([weight], adamw_last_layer=False)

    def closure():
        optimizer.zero_grad()
        loss = weight.square().sum()
        loss.backward()
        return loss

    assert optimizer.step(closure).item() == 3.0
