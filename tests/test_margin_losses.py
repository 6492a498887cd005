"""The losses with a margin: their values, gradients and extremes, and whole runs with the last layers they bring."""

import csv
import inspect
import json
import math
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
import yaml
from torch import nn

from cvtrain import build, losses
from cvtrain.classifier import load
from cvtrain.compose import compose
from cvtrain.console import Console
from cvtrain.engine.checkpoint import list_checkpoints, load_newest, read_checkpoint
from cvtrain.engine.freezing import freeze
from cvtrain.errors import ConfigError
from cvtrain.fit import Run
from cvtrain.losses import AdditiveMarginSoftmax, LargeMarginSoftmax, SoftMarginSoftmax
from cvtrain.losses.heads import CosineLinear, LargeMarginLinear
from cvtrain.losses.margin import large_margin_cosine
from cvtrain.outputs import RunDir
from cvtrain.signals import StopRequest

CONFIGS = Path(__file__).parents[1] / "configs" / "loss"
LOSSES = {
    "soft_margin_softmax": SoftMarginSoftmax,
    "am_softmax": AdditiveMarginSoftmax,
    "l_softmax": LargeMarginSoftmax,
}
OPTIONS = {
    "soft_margin_softmax": {"margin": 0.3},
    "am_softmax": {"margin": 0.35, "scale": 8.0},
    "l_softmax": {"margin": 3, "lambda_start": 2.0},
}
every_loss = pytest.mark.parametrize("name", LOSSES)
with_head = pytest.mark.parametrize("name", ["am_softmax", "l_softmax"])
RUN = ["data=synthetic", "data.num_classes=4", "data.per_class=20", "data.image_size=16"]
RUN += ["trainer.batch_size=16", "trainer.device=cpu", "trainer.evaluate_every=5"]


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Small batches gain nothing from threads."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def make(name, num_classes=5, **options):
    return LOSSES[name](num_classes=num_classes, class_counts=(1,) * num_classes, **{**OPTIONS[name], **options})


def linear(num_features=7, num_classes=5, dtype=torch.float64):
    generator = torch.Generator().manual_seed(1)
    layer = nn.Linear(num_features, num_classes).to(dtype)
    with torch.no_grad():
        layer.weight.copy_(torch.randn(num_classes, num_features, generator=generator, dtype=torch.float64))
    return layer


def composed(*words):
    network = [] if any(word.startswith("model") for word in words) else ["model=mlp", "model.hidden=[16]"]
    return compose([*RUN, *network, *words])


def head_of(loss, layer):
    return loss.head(layer) if hasattr(loss, "head") else layer


def batch(size=12, num_features=7, num_classes=5, dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(size, num_features, generator=generator, dtype=torch.float64).to(dtype)
    return features.requires_grad_(), torch.randint(num_classes, (size,), generator=generator)


def value_and_gradients(losses_of_images, *tensors):
    return [losses_of_images, *torch.autograd.grad(losses_of_images.sum(), tensors)]


def assert_equal(ours, theirs, tolerance=1e-6):
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=tolerance)


# --- without a margin they are cross-entropy --------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_soft_margin_of_zero_is_cross_entropy(dtype):
    logits, labels = batch(num_features=5, dtype=dtype)
    ours = value_and_gradients(make("soft_margin_softmax", margin=0)(logits, labels), logits)
    assert_equal(ours, value_and_gradients(F.cross_entropy(logits, labels, reduction="none"), logits))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_additive_margin_of_zero_is_cross_entropy_of_scaled_cosines(dtype):
    features, labels = batch(dtype=dtype)
    layer, loss = linear(dtype=dtype), make("am_softmax", margin=0)
    ours = value_and_gradients(loss(loss.head(layer)(features), labels), features, layer.weight)
    cosines = F.cosine_similarity(features[:, None], layer.weight[None], dim=2)
    theirs = F.cross_entropy(8 * cosines, labels, reduction="none")
    assert_equal(ours, value_and_gradients(theirs, features, layer.weight), 1e-5 if dtype == torch.float32 else 1e-12)


@pytest.mark.parametrize("lambda_start", [0, 7.5])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_angle_taken_once_is_cross_entropy(dtype, lambda_start):
    features, labels = batch(dtype=dtype)
    layer, loss = linear(dtype=dtype), make("l_softmax", margin=1, lambda_start=lambda_start)
    ours = value_and_gradients(loss(loss.head(layer)(features), labels), features, layer.weight)
    theirs = F.cross_entropy(features @ layer.weight.T, labels, reduction="none")
    assert_equal(ours, value_and_gradients(theirs, features, layer.weight), 1e-6 if dtype == torch.float32 else 1e-12)


@every_loss
def test_margin_makes_every_loss_larger(name):
    features, labels = batch()
    layer = linear()
    none = make(name, margin=1 if name == "l_softmax" else 0)
    plain = none(head_of(none, layer)(features), labels)
    loss = make(name)
    assert (loss(head_of(loss, layer)(features), labels) > plain).all()


# --- values computed by hand ------------------------------------------------------------------------------------


def test_soft_margin_has_the_value_of_the_formula():
    loss = make("soft_margin_softmax", num_classes=3, margin=0.5)
    value = loss(torch.tensor([[2.0, 1.0, 0.0]]), torch.tensor([0]))
    expected = math.log(1 + (math.exp(1) + 1) / math.exp(1.5))
    assert value.item() == pytest.approx(expected, abs=1e-6)


def test_additive_margin_has_the_value_of_the_formula():
    # cos(theta) of (3, 4) with the axes: 0.6 and 0.8, whatever the lengths.
    layer = nn.Linear(2, 2)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[5.0, 0.0], [0.0, 0.1]]))
        layer.bias.fill_(100.0)  # has no part in it
    loss = make("am_softmax", num_classes=2, margin=0.35, scale=10.0)
    outputs = loss.head(layer)(torch.tensor([[3.0, 4.0]]))
    torch.testing.assert_close(outputs, torch.tensor([[6.0, 8.0]]))
    value = loss(outputs, torch.tensor([1]))
    assert value.item() == pytest.approx(math.log(1 + math.exp(6 - (8 - 3.5))), abs=1e-5)


@pytest.mark.parametrize(
    ("margin", "degrees", "psi"),
    [
        (2, 30, 0.5),  # k = 0: cos 60
        (2, 120, 0.5 - 2),  # k = 1: -cos 240 - 2
        (3, 40, -0.5),  # k = 0: cos 120
        (3, 80, 0.5 - 2),  # k = 1: -cos 240 - 2
        (3, 140, 0.5 - 4),  # k = 2: cos 420 - 4
        (4, 150, 0.5 - 6),  # k = 3: -cos 600 - 6
    ],
)
def test_large_margin_has_the_value_of_the_formula(margin, degrees, psi):
    angle = math.radians(degrees)
    features = torch.tensor([[2 * math.cos(angle), 2 * math.sin(angle)]], dtype=torch.float64)  # |x| = 2
    layer = nn.Linear(2, 2).double()
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[3.0, 0.0], [0.0, 1.0]]))  # |W_0| = 3
    other = 2 * math.sin(angle)
    for step, weight in ((0, 5.0), (1, 2.5), (3, 0.7)):  # 5 / 8 is below lambda_min
        loss = make("l_softmax", num_classes=2, margin=margin, lambda_start=5, lambda_decay=0.5, lambda_min=0.7)
        loss.set_step(step)
        target = 6 * (weight * math.cos(angle) + psi) / (1 + weight)
        value = loss(loss.head(layer)(features), torch.tensor([0]))
        assert value.item() == pytest.approx(math.log(1 + math.exp(other - target)), abs=1e-9)


@pytest.mark.parametrize("margin", [1, 2, 3, 4])
def test_psi_is_its_definition_and_falls_all_the_way(margin):
    angles = torch.linspace(0, math.pi, 2001, dtype=torch.float64)
    k = (margin * angles / math.pi).floor().clamp_max(margin - 1)
    psi = large_margin_cosine(angles.cos(), margin=margin)
    expected = (-1) ** k * (margin * angles).cos() - 2 * k
    torch.testing.assert_close(psi, expected, rtol=0, atol=1e-9)
    assert (psi.diff() <= 1e-12).all()
    assert psi[[0, -1]].tolist() == pytest.approx([1, 1 - 2 * margin])
    assert (psi <= angles.cos() + 1e-12).all()


# --- gradients and extremes -------------------------------------------------------------------------------------


@every_loss
def test_gradient_is_right_in_float64(name):
    features, labels = batch(size=6)
    layer, loss = linear(), make(name, class_weights=[1, 2, 3, 4, 5]).double()
    head = head_of(loss, layer)

    def value(features, weight):
        return loss(torch.func.functional_call(head, {"weight": weight}, (features,)), labels)

    assert torch.autograd.gradcheck(value, (features, layer.weight))


@pytest.mark.parametrize("margin", [1, 2, 3, 4])
@pytest.mark.parametrize("lambda_start", [0, 3.0])
def test_gradient_of_every_large_margin_is_right(margin, lambda_start):
    features, labels = batch(size=6)
    loss = make("l_softmax", margin=margin, lambda_start=lambda_start)
    head = loss.head(linear())
    assert torch.autograd.gradcheck(lambda x: loss(head(x), labels), features)


@every_loss
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("factor", [0.0, 1e-4, 1.0, 100.0])
@pytest.mark.parametrize("no_weight", [False, True])
def test_extremes_give_finite_losses_and_gradients(name, dtype, factor, no_weight):
    """Features of zero, along and against the weights, short and long; a class whose weights are zero."""
    layer = linear(dtype=torch.float32)
    if no_weight:
        nn.init.zeros_(layer.weight[2:4])
    features = (factor * torch.cat([layer.weight, -layer.weight]).detach()).to(dtype).requires_grad_()
    labels = torch.arange(5).repeat(2)
    for options in [{"margin": m, "lambda_start": 0} for m in (2, 3, 4)] if name == "l_softmax" else [{}]:
        loss = make(name, **options)
        outputs = head_of(loss, layer)(features) if hasattr(loss, "head") else features.float() @ layer.weight.T
        values = loss(outputs, labels)
        found = value_and_gradients(values, features, layer.weight)
        assert values.dtype == torch.float32
        assert all(tensor.isfinite().all() for tensor in found)


@pytest.mark.parametrize("margin", [2, 3, 4])
def test_gradient_at_the_ends_of_the_angle_is_finite(margin):
    cosine = torch.tensor([1.0, -1.0, 1.0 + 1e-6, -1.0 - 1e-6], requires_grad=True)
    large_margin_cosine(cosine, margin=margin).sum().backward()
    torch.testing.assert_close(cosine.grad, torch.full((4,), float(margin**2)), rtol=1e-3, atol=0)


@with_head
@pytest.mark.parametrize("training", [True, False])
def test_head_computes_in_float32_under_autocast(name, training):
    features, labels = batch(size=8, dtype=torch.float32)
    loss = make(name)
    head = loss.head(linear(dtype=torch.float32)).train(training)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        outputs = head(features)
        half = head(features.bfloat16())
        values = loss(outputs, labels)
    assert outputs.dtype == half.dtype == values.dtype == torch.float32
    assert torch.equal(outputs, head(features))
    assert torch.equal(half, head(features.bfloat16().float()))


# --- heads ------------------------------------------------------------------------------------------------------


def test_large_margin_head_gives_products_of_norms_in_training_alone():
    features, labels = batch()
    layer, loss = linear(), make("l_softmax")
    head = loss.head(layer)
    outputs, logits = head(features), head.eval()(features)
    torch.testing.assert_close(logits, features @ layer.weight.T)
    torch.testing.assert_close(outputs[:, 5:], features.norm(dim=1)[:, None] * layer.weight.norm(dim=1))
    assert torch.equal(loss.class_logits(outputs), logits)
    assert torch.equal(loss.class_logits(logits), logits)
    torch.testing.assert_close(loss(logits, labels), F.cross_entropy(logits, labels, reduction="none"))
    assert loss.probabilities(logits).shape == (12, 5)


def test_frozen_large_margin_head_keeps_its_margin():
    model = nn.Sequential(nn.Linear(4, 3), LargeMarginLinear(nn.Linear(3, 5)))
    for module in freeze(model, ["1.*"]):
        module.training = False
    assert model(torch.zeros(2, 4)).shape == (2, 10)
    assert model.eval()(torch.zeros(2, 4)).shape == (2, 5)
    assert model.train()(torch.zeros(2, 4)).shape == (2, 10)


@pytest.mark.parametrize("head", [CosineLinear, LargeMarginLinear], ids=lambda head: head.__name__)
def test_head_takes_the_weights_of_the_old_layer_and_draws_nothing(head):
    layer = nn.Linear(3, 4)
    before = torch.get_rng_state()
    new = head(layer, scale=2.0) if head is CosineLinear else head(layer)
    assert new.weight is layer.weight
    assert new.bias is None
    assert torch.equal(torch.get_rng_state(), before)


def test_zero_weights_which_have_no_direction_are_drawn_anew():
    layer = nn.Linear(3, 4)
    nn.init.zeros_(layer.weight)
    head = CosineLinear(layer, scale=2.0)
    assert head.weight.count_nonzero() == 12
    head(torch.ones(1, 3)).square().sum().backward()
    assert head.weight.grad.count_nonzero() == 12


def model_for(*words):
    config = composed(*words)
    prepared = build.data(config)
    num_outputs = build.loss(config, prepared.facts).num_outputs
    return build.initialised_model(config, prepared.facts, num_outputs=num_outputs)[0]


@with_head
@pytest.mark.parametrize("network", ["model=lenet", "model=mlp", "model=torchvision"])
def test_model_has_the_head_and_otherwise_the_same_weights(name, network):
    plain = model_for(network).state_dict()
    margin = model_for(network, f"loss={name}")
    ours = margin.state_dict()
    layer = "fc" if network == "model=torchvision" else "head"
    assert plain.keys() - ours.keys() == {f"{layer}.bias"}
    assert all(torch.equal(ours[key], plain[key]) for key in ours)
    assert type(margin.get_submodule(layer)) in (CosineLinear, LargeMarginLinear)
    assert torch.equal(next(reversed(list(margin.parameters()))), plain[f"{layer}.weight"])  # the last one still


def test_embedding_leaves_the_orthant_and_the_other_weights_alone():
    plain, ours = model_for().state_dict(), model_for("loss=am_softmax", "loss.embedding=6")
    assert ours.head.embedding.weight.shape == (6, 16)
    assert ours.head.cosine.weight.shape == (4, 6)
    assert all(torch.equal(ours.state_dict()[key], plain[key]) for key in plain if not key.startswith("head"))
    again = model_for("loss=am_softmax", "loss.embedding=6")
    assert torch.equal(again.head.embedding.weight, ours.head.embedding.weight)
    assert ours.head.embedding(torch.rand(50, 16)).min() < 0


def test_hidden_layer_as_wide_as_the_logits_is_not_mistaken_for_the_head():
    model = model_for("model=mlp", "model.hidden=[4,4]", "loss=am_softmax")
    assert [type(m) for m in model.modules() if isinstance(m, nn.Linear)] == [nn.Linear, nn.Linear, CosineLinear]
    assert isinstance(model.head, CosineLinear)


@with_head
def test_model_whose_logits_come_from_no_linear_layer_is_refused(name):
    with pytest.raises(ConfigError, match=f"loss={name} replaces the linear layer that gives the logits") as caught:
        model_for(f"loss={name}", "data.image_size=32", "model=torchvision", "model.name=squeezenet1_1")
    assert "loss=soft_margin_softmax" in caught.value.hint


@with_head
def test_weights_of_classes_decay_and_go_to_adamw_under_muon(name):
    config = composed(f"loss={name}", "model=lenet", "optimizer=muon", "optimizer.weight_decay=0.1")
    model = model_for(f"loss={name}", "model=lenet")
    groups = build.optimizer(config, model, device=torch.device("cpu")).param_groups
    (group,) = [g for g in groups if any(p is model.head.weight for p in g["params"])]
    assert (group["method"], group["weight_decay"]) == ("adamw", 0.1)


# --- runs -------------------------------------------------------------------------------------------------------


def run_of(words, folder, *, checkpoint=False):
    config = composed(*words)
    parts = {"run_dir": folder, "console": Console(), "stop": StopRequest()}
    parts["checkpoint"] = load_newest(folder.checkpoint_dir) if checkpoint else None
    return Run(config, build.data(config), **parts)


@pytest.fixture
def folders(tmp_path):
    made = [RunDir.create(tmp_path / name) for name in ("whole", "stopped")]
    yield made
    for one in made:
        one.close()


def end_of(folder):
    return read_checkpoint(list_checkpoints(folder.checkpoint_dir, "step")[-1].path)["trainer"]


@with_head
def test_resumed_run_has_the_same_bits_as_an_uninterrupted_one(name, folders):
    # Lambda falls by half each step, so that a run which forgot its step would end elsewhere.
    words = [f"loss={name}", "trainer.steps=12", "trainer.precision=bf16"]
    words += ["loss.lambda_decay=0.5"] if name == "l_softmax" else ["loss.embedding=8"]
    whole, stopped = folders
    run_of(words, whole).train()

    first = run_of(words, stopped)
    for event in first.trainer.run():
        if event.step == 7:
            break
    first.save(must=True)
    run_of(words, stopped, checkpoint=True).train()

    ours, theirs = end_of(stopped), end_of(whole)
    assert ours["step"] == theirs["step"] == 12
    for key, weight in theirs["model"].items():
        assert torch.equal(ours["model"][key], weight), key


def test_lambda_is_that_of_the_step(folders):
    run = run_of(["loss=l_softmax", "loss.lambda_decay=0.5", "trainer.steps=4"], folders[0])
    used = []
    run.model.register_forward_hook(lambda module, *_: used.append(run.loss_fn.lambda_now) if module.training else None)
    list(run.trainer.run())
    assert used == [100, 50, 25, 12.5]


@every_loss
@pytest.mark.parametrize(
    "network",
    [
        ["model=lenet"],
        ["model=mlp"],
        pytest.param(["model=torchvision", "data.image_size=32"], marks=pytest.mark.long),
    ],
)
def test_run_learns(name, network, folders):
    words = [*network, f"loss={name}", "trainer.steps=20", "optimizer=adam", "trainer.evaluate_every=10"]
    run = run_of(words, folders[0])
    run.train()
    result = run.test("finished")
    assert result.test.probabilities.shape[1] == 4
    with open(folders[0].metrics_path, encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert float(rows[-1]["train_loss"]) < float(rows[0]["train_loss"])
    assert 0.25 < float(rows[-1]["train_accuracy"]) <= 1


@with_head
def test_trained_run_is_evaluated_predicted_and_summarised(name, command, tmp_path):
    words = ["experiment=smoke", "model=lenet", f"loss={name}"]
    words += ["loss.embedding=6"] if name == "am_softmax" else []
    assert command(*words).code == 0
    (run,) = (tmp_path / "outputs" / "train").glob("*/*")
    evaluated = command("task=evaluate", f"checkpoint={run}", "data.max_per_class=2")
    assert evaluated.code == 0, evaluated.errors
    (folder,) = (tmp_path / "outputs" / "evaluate").glob("*/*")
    trained = json.loads((run / "run.json").read_text())
    assert json.loads((folder / "run.json").read_text())["test"]["loss"] == pytest.approx(trained["test"]["loss"])
    classifier = load(run)
    images = torch.zeros(3, 32, 32, 1, dtype=torch.uint8)
    probabilities = classifier.probabilities(images)
    torch.testing.assert_close(probabilities.sum(1), torch.ones(3))
    summary = command("task=summary", *words[1:])
    assert summary.code == 0, summary.errors
    assert ("CosineLinear" if name == "am_softmax" else "LargeMarginLinear") in summary.out
    num_parameters = sum(p.numel() for p in classifier.model.parameters())
    assert f"{num_parameters:,}" in summary.out


# --- options ----------------------------------------------------------------------------------------------------


@every_loss
def test_config_builds_its_loss_and_lists_every_option(name):
    config = yaml.safe_load((CONFIGS / f"{name}.yaml").read_text())
    loss_class = getattr(losses, config.pop("_target_").removeprefix("cvtrain.losses."))
    assert loss_class is LOSSES[name]
    parameters = inspect.signature(loss_class).parameters
    assert config == {k: p.default for k, p in parameters.items() if k not in ("num_classes", "class_counts")}


@every_loss
def test_class_weights_multiply_the_loss_of_each_image(name):
    features, labels = batch()
    weights = torch.tensor([0.5, 1, 2, 3, 4], dtype=torch.float64)
    plain, weighted = make(name), make(name, class_weights=weights.tolist()).double()
    outputs = head_of(plain, linear())(features)
    torch.testing.assert_close(weighted(outputs, labels), weights[labels] * plain(outputs, labels))


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("soft_margin_softmax", {"margin": -0.1}, r"loss.margin is -0.1"),
        ("am_softmax", {"margin": -1}, r"loss.margin is -1"),
        ("am_softmax", {"margin": float("nan")}, r"loss.margin is nan"),
        ("am_softmax", {"scale": 0}, r"loss.scale is 0"),
        ("am_softmax", {"scale": -15}, r"loss.scale is -15"),
        ("am_softmax", {"embedding": 0}, r"loss.embedding is 0"),
        ("am_softmax", {"embedding": 2.5}, r"loss.embedding is 2.5"),
        ("l_softmax", {"margin": 0}, r"loss.margin is 0"),
        ("l_softmax", {"margin": 5}, r"loss.margin is 5"),
        ("l_softmax", {"margin": 2.5}, r"loss.margin is 2.5"),
        ("l_softmax", {"lambda_start": -1}, r"loss.lambda_start is -1"),
        ("l_softmax", {"lambda_min": -1}, r"loss.lambda_min is -1"),
        ("l_softmax", {"lambda_min": 3.0}, r"loss.lambda_min=3.0 is above loss.lambda_start=2.0"),
        ("l_softmax", {"lambda_decay": 0}, r"loss.lambda_decay is 0"),
        ("l_softmax", {"lambda_decay": 1.1}, r"loss.lambda_decay is 1.1"),
    ],
)
def test_unusable_option_is_refused(name, options, message):
    with pytest.raises(ConfigError, match=message):
        make(name, **options)


def test_unusable_margin_is_told_once_and_before_any_data_are_read(command):
    result = command("loss=l_softmax", "loss.margin=5", "model=mlp")
    assert result.code == 2
    assert sum("loss.margin" in line for line in result.errors) == 1, result.errors
