import inspect
import math
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
import yaml

from cvtrain import losses
from cvtrain.errors import ConfigError
from cvtrain.losses import (
    BinaryCrossEntropy,
    CrossEntropy,
    Focal,
    GeneralizedCrossEntropy,
    MeanAbsoluteError,
    MeanSquaredError,
    Squentropy,
)

CONFIG_PATHS = sorted((Path(__file__).parents[1] / "configs" / "loss").glob("*.yaml"))
HEAD_LOSSES = {"soft_margin_softmax", "am_softmax", "l_softmax"}
COUNTS = (10, 20, 30, 40, 50)

MULTICLASS = {
    "cross_entropy": (CrossEntropy, {}),
    "cross_entropy_smoothed": (CrossEntropy, {"label_smoothing": 0.1}),
    "mse": (MeanSquaredError, {}),
    "mse_rescaled": (MeanSquaredError, {"target_scale": 15.0, "target_value": 30.0}),
    "mae_softmax": (MeanAbsoluteError, {}),
    "mae_outputs": (MeanAbsoluteError, {"compare": "outputs"}),
    "gce": (GeneralizedCrossEntropy, {}),
    "focal": (Focal, {}),
    "focal_half": (Focal, {"gamma": 0.5}),
    "squentropy": (Squentropy, {}),
}
multiclass = pytest.mark.parametrize("name", MULTICLASS)


def build(name, num_classes=5, class_counts=None, **options):
    loss_class, defaults = MULTICLASS[name]
    counts = class_counts or COUNTS[:num_classes]
    return loss_class(num_classes=num_classes, class_counts=counts, **{**defaults, **options})


def binary(class_counts=(30, 10), **options):
    return BinaryCrossEntropy(num_classes=2, class_counts=class_counts, **options)


def batch(num_classes=5, size=16, dtype=torch.float32, seed=0):
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(size, num_classes, generator=generator, dtype=torch.float64)
    return logits.to(dtype), torch.randint(num_classes, (size,), generator=generator)


# --- values -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_cross_entropy_equals_torch(smoothing):
    logits, labels = batch()
    expected = F.cross_entropy(logits, labels, reduction="none", label_smoothing=smoothing)
    torch.testing.assert_close(build("cross_entropy", label_smoothing=smoothing)(logits, labels), expected)


def test_cross_entropy_with_smoothing_equals_cross_entropy_of_smoothed_targets():
    logits, labels = batch()
    targets = F.one_hot(labels, 5) * 0.9 + 0.1 / 5
    expected = -(targets * logits.log_softmax(dim=1)).sum(dim=1)
    torch.testing.assert_close(build("cross_entropy_smoothed")(logits, labels), expected)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_bce_equals_cross_entropy_on_two_logits(smoothing):
    logits, labels = batch(num_classes=2, size=200)
    one = binary(label_smoothing=smoothing)((logits[:, 1] - logits[:, 0])[:, None], labels)
    two = CrossEntropy(num_classes=2, class_counts=(1, 1), label_smoothing=smoothing)(logits, labels)
    torch.testing.assert_close(one, two, rtol=0, atol=1e-6)


def test_bce_equals_torch_with_auto_pos_weight():
    logits, labels = batch(num_classes=2)
    logits = logits[:, :1]
    expected = F.binary_cross_entropy_with_logits(
        logits[:, 0], labels.float(), pos_weight=torch.tensor(3.0), reduction="none"
    )
    torch.testing.assert_close(binary(pos_weight="auto")(logits, labels), expected)
    torch.testing.assert_close(binary(pos_weight=3)(logits, labels), expected)


def test_mse_equals_torch_and_rescaled_mse_the_formula():
    logits, labels = batch()
    one_hot = F.one_hot(labels, 5).float()
    expected = F.mse_loss(logits, one_hot, reduction="none").mean(dim=1)
    torch.testing.assert_close(build("mse")(logits, labels), expected)
    rows = [
        sum((15 * (f - 30) ** 2 if c == y else f**2) for c, f in enumerate(outputs)) / 5
        for outputs, y in zip(logits.tolist(), labels.tolist(), strict=True)
    ]
    torch.testing.assert_close(build("mse_rescaled")(logits, labels), torch.tensor(rows))


def test_mae_equals_torch_on_softmax_and_on_outputs():
    logits, labels = batch()
    one_hot = F.one_hot(labels, 5).float()
    on_outputs = F.l1_loss(logits, one_hot, reduction="none").mean(dim=1)
    torch.testing.assert_close(build("mae_outputs")(logits, labels), on_outputs)
    on_softmax = F.l1_loss(logits.softmax(dim=1), one_hot, reduction="none").mean(dim=1)
    torch.testing.assert_close(build("mae_softmax")(logits, labels), on_softmax)


def test_gce_equals_its_formula_and_joins_mae_and_cross_entropy():
    logits, labels = batch(dtype=torch.float64)
    p = logits.softmax(dim=1).gather(1, labels[:, None])[:, 0]
    torch.testing.assert_close(build("gce")(logits, labels), (1 - p**0.7) / 0.7)
    torch.testing.assert_close(build("gce", q=1)(logits, labels), 1 - p)
    near_zero = build("gce", q=1e-9)(logits, labels)
    torch.testing.assert_close(near_zero, -p.log(), rtol=1e-6, atol=1e-6)


def test_focal_equals_its_formula_and_is_cross_entropy_at_gamma_0():
    logits, labels = batch(dtype=torch.float64)
    p = logits.softmax(dim=1).gather(1, labels[:, None])[:, 0]
    torch.testing.assert_close(build("focal")(logits, labels), -((1 - p) ** 2) * p.log())
    torch.testing.assert_close(build("focal", gamma=0)(logits, labels), -p.log())


def test_squentropy_equals_its_formula():
    logits, labels = batch()
    squares = [
        sum(f**2 for c, f in enumerate(outputs) if c != y) / 4
        for outputs, y in zip(logits.tolist(), labels.tolist(), strict=True)
    ]
    expected = F.cross_entropy(logits, labels, reduction="none") + torch.tensor(squares)
    torch.testing.assert_close(build("squentropy")(logits, labels), expected)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("cross_entropy", math.log(10)),
        ("cross_entropy_smoothed", math.log(10)),
        ("mse", 0.1),
        ("mae_outputs", 0.1),
        ("mae_softmax", 0.18),
        ("gce", (1 - 0.1**0.7) / 0.7),
        ("focal", 0.81 * math.log(10)),
        ("squentropy", math.log(10)),
    ],
)
def test_zero_logits_of_ten_classes_give_the_chance_loss(name, expected):
    values = build(name, num_classes=10, class_counts=[5] * 10)(torch.zeros(10, 10), torch.arange(10))
    torch.testing.assert_close(values, torch.full((10,), expected))


def test_best_constant_output_gives_the_chance_loss_of_mse():
    values = build("mse", num_classes=10, class_counts=[5] * 10)(torch.full((10, 10), 0.1), torch.arange(10))
    torch.testing.assert_close(values, torch.full((10,), 0.09))


def test_zero_logit_gives_the_chance_loss_of_bce():
    values = binary()(torch.zeros(2, 1), torch.arange(2))
    torch.testing.assert_close(values, torch.full((2,), math.log(2)))


# --- gradients, dtypes, extremes --------------------------------------------------------------------------------


@multiclass
def test_gradient_is_right_in_float64(name):
    logits, labels = batch(size=6, dtype=torch.float64)
    loss = build(name, class_weights=[1, 2, 3, 4, 5])
    assert torch.autograd.gradcheck(lambda z: loss(z, labels), logits.requires_grad_())


def test_gradient_of_bce_is_right_in_float64():
    logits, labels = batch(num_classes=2, size=6, dtype=torch.float64)
    loss = binary(pos_weight="auto", label_smoothing=0.1)
    assert torch.autograd.gradcheck(lambda z: loss(z, labels), logits[:, :1].clone().requires_grad_())


@multiclass
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_logits_are_computed_in_float32(name, dtype):
    logits, labels = batch(dtype=dtype)
    values = build(name)(logits, labels)
    assert values.shape == (16,)
    assert values.dtype == torch.float32
    torch.testing.assert_close(values, build(name)(logits.float(), labels), rtol=0, atol=0)
    assert build(name).probabilities(logits).dtype == torch.float32


@multiclass
def test_loss_stays_float32_under_autocast(name):
    logits, labels = batch()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        values = build(name)(logits.bfloat16(), labels)
    torch.testing.assert_close(values, build(name)(logits.bfloat16(), labels), rtol=0, atol=0)


@multiclass
@pytest.mark.parametrize("scale", [0.0, 1e4])
def test_extreme_logits_give_finite_losses_and_gradients(name, scale):
    logits = (scale * torch.eye(5).repeat_interleave(5, dim=0)).requires_grad_()
    labels = torch.arange(5).repeat(5)
    values = build(name)(logits, labels)
    values.sum().backward()
    assert values.isfinite().all()
    assert (values >= 0).all()
    assert logits.grad.isfinite().all()


@pytest.mark.parametrize("options", [{}, {"pos_weight": 2.5, "label_smoothing": 0.1}])
def test_extreme_logits_of_bce_give_finite_losses_and_gradients(options):
    logits = torch.tensor([[1e4], [-1e4], [1e4], [-1e4]], requires_grad=True)
    values = binary(**options)(logits, torch.tensor([0, 0, 1, 1]))
    values.sum().backward()
    assert values.isfinite().all()
    assert logits.grad.isfinite().all()


# --- probabilities ----------------------------------------------------------------------------------------------


@multiclass
def test_probabilities_sum_to_one_and_keep_the_largest_output_first(name):
    logits, _ = batch(size=500)
    logits[:100] = -logits[:100].abs()  # no output positive: what mse falls back for
    loss = build(name)
    probabilities = loss.probabilities(logits)
    assert loss.num_outputs == 5
    assert probabilities.dtype == torch.float32
    assert (probabilities >= 0).all()
    torch.testing.assert_close(probabilities.sum(dim=1), torch.ones(500))
    assert probabilities.argmax(dim=1).equal(logits.argmax(dim=1))


@multiclass
def test_probabilities_of_equal_outputs_are_uniform(name):
    torch.testing.assert_close(build(name).probabilities(torch.zeros(1, 5)), torch.full((1, 5), 0.2))


def test_bce_predicts_class_1_where_the_logit_is_positive():
    logits = torch.tensor([[-100.0], [-0.1], [0.1], [100.0]])
    loss = binary()
    probabilities = loss.probabilities(logits)
    assert loss.num_outputs == 1
    assert probabilities.argmax(dim=1).tolist() == [0, 0, 1, 1]
    torch.testing.assert_close(probabilities.sum(dim=1), torch.ones(4))
    torch.testing.assert_close(probabilities[:, 1], logits[:, 0].sigmoid())


# --- class weights ----------------------------------------------------------------------------------------------


@multiclass
def test_class_weights_multiply_the_loss_of_each_image(name):
    logits, labels = batch()
    weights = torch.tensor([0.5, 1, 2, 3, 4])
    weighted = build(name, class_weights=weights.tolist())(logits, labels)
    torch.testing.assert_close(weighted, weights[labels] * build(name)(logits, labels))


def test_auto_class_weights_average_to_one_over_the_training_images():
    loss = build("cross_entropy", class_weights="auto")
    expected = [150 / (5 * count) for count in COUNTS]
    torch.testing.assert_close(loss.weight_per_class, torch.tensor(expected))
    assert (loss.weight_per_class * torch.tensor(COUNTS)).sum().item() == pytest.approx(150)


def test_class_weights_move_with_the_loss_but_are_not_saved():
    loss = build("focal", class_weights="auto").to(torch.float64)
    assert loss.weight_per_class.dtype == torch.float64
    assert loss.state_dict() == {}


# --- what is refused --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("cross_entropy", {"class_weights": [1.0, 2.0]}, r"class_weights has 2 numbers for 5 classes"),
        ("cross_entropy", {"class_weights": [1, 1, 0, 1, 1]}, r"class_weights\[2\] is 0"),
        ("mse", {"class_weights": [1, 1, 1, 1, float("nan")]}, r"class_weights\[4\] is nan"),
        ("focal", {"class_weights": "balanced"}, r"class_weights is 'balanced'"),
        ("focal", {"class_weights": 2.0}, r"class_weights is 2.0"),
        ("gce", {"class_weights": "auto", "class_counts": (1, 2, 0, 4, 5)}, r"class 2: it has no training image"),
        ("cross_entropy", {"label_smoothing": 1.0}, r"label_smoothing is 1.0"),
        ("cross_entropy", {"label_smoothing": "0.1"}, r"label_smoothing is '0.1'"),
        ("mse", {"target_scale": 0}, r"target_scale is 0"),
        ("mse", {"target_value": -1}, r"target_value is -1"),
        ("mae_softmax", {"compare": "logits"}, r"loss.compare is 'logits'"),
        ("gce", {"q": 0}, r"loss.q is 0"),
        ("gce", {"q": 1.5}, r"loss.q is 1.5"),
        ("focal", {"gamma": -1}, r"loss.gamma is -1"),
    ],
)
def test_unusable_option_is_refused(name, options, message):
    with pytest.raises(ConfigError, match=message):
        build(name, **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pos_weight": 0}, r"pos_weight is 0"),
        ({"pos_weight": "yes"}, r"pos_weight is 'yes'"),
        ({"pos_weight": "auto", "class_counts": (3, 0)}, r"class 1: it has no training image"),
        ({"label_smoothing": -0.1}, r"label_smoothing is -0.1"),
    ],
)
def test_unusable_option_of_bce_is_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        binary(**options)


def test_bce_refuses_more_than_two_classes():
    with pytest.raises(ConfigError, match="one output for 2 classes; the training images have 3") as caught:
        BinaryCrossEntropy(num_classes=3, class_counts=(1, 1, 1))
    assert caught.value.hint == "use loss=cross_entropy"


def test_single_class_is_refused():
    with pytest.raises(ConfigError, match="at least 2"):
        build("cross_entropy", num_classes=1)


# --- configs ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", [p for p in CONFIG_PATHS if p.stem not in HEAD_LOSSES], ids=lambda path: path.stem)
def test_config_builds_its_loss_and_lists_every_option(path):
    config = yaml.safe_load(path.read_text())
    loss_class = getattr(losses, config.pop("_target_").removeprefix("cvtrain.losses."))
    arguments = set(inspect.signature(loss_class).parameters) - {"num_classes", "class_counts"}
    assert set(config) == arguments
    loss = loss_class(num_classes=2, class_counts=(3, 4), **config)
    assert loss(torch.zeros(4, loss.num_outputs), torch.tensor([0, 1, 1, 0])).shape == (4,)


def test_every_loss_has_a_config():
    expected = {"cross_entropy", "bce", "mse", "mae", "gce", "focal", "squentropy"}
    assert expected <= {path.stem for path in CONFIG_PATHS}
