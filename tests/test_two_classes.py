"""Two classes as one output or as two: the same loss, the same gradient, the same figures."""

from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from cvtrain import build
from cvtrain.compose import compose
from cvtrain.data.facts import DataFacts
from cvtrain.data.images import Preprocessing
from cvtrain.data.statistics import Statistics
from cvtrain.engine.device import Compute
from cvtrain.engine.evaluator import evaluate
from cvtrain.results import figures

FACTS = DataFacts(
    class_names=("normal", "pathologic"),
    class_counts=(187, 213),
    preprocessing=Preprocessing(8, 3),
    statistics=Statistics((0.5,) * 3, (0.25,) * 3),
    fingerprint="",
    split_hash="",
)
SIZE = ["data=palm", "data.root=x", "data.image_size=8", "model=linear"]


class Batch(NamedTuple):
    images: Tensor
    labels: Tensor


@pytest.fixture
def pair():
    """Loss and float64 model with one output, and the same with two outputs that differ by it."""
    losses, models = [], []
    for loss in ("bce", "cross_entropy"):
        config = compose([*SIZE, f"loss={loss}"])
        losses.append(build.loss(config, FACTS))
        models.append(build.model(config, FACTS, num_outputs=losses[-1].num_outputs).double())
    one, two = models
    with torch.no_grad():
        for single, double in zip(one.parameters(), two.parameters(), strict=True):
            single.copy_(double[1:] - double[:1])
    return list(zip(losses, models, strict=True))


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(0)
    images = 3 * torch.randn(64, 3, 8, 8, generator=generator, dtype=torch.float64)
    return Batch(images, torch.randint(2, (64,), generator=generator))


def test_loss_and_gradient_of_one_output_are_those_of_two(pair, batch):
    images, labels = batch
    values, gradients = [], []
    for loss_fn, model in pair:
        inputs = images.clone().requires_grad_()
        losses = loss_fn(model(inputs), labels)
        losses.mean().backward()
        values.append(losses.detach())
        gradients.append([inputs.grad, *(parameter.grad for parameter in model.parameters())])
    assert values[0].max() > 1
    torch.testing.assert_close(values[0], values[1], rtol=0, atol=1e-6)
    (by_image, *of_one), (by_image_too, *of_two) = gradients
    torch.testing.assert_close(by_image, by_image_too, rtol=0, atol=1e-6)
    for single, double in zip(of_one, of_two, strict=True):
        assert single.abs().max() > 1e-3
        torch.testing.assert_close(single[0], double[1], rtol=0, atol=1e-6)
        torch.testing.assert_close(single[0], -double[0], rtol=0, atol=1e-6)


def test_figures_of_one_output_are_those_of_two(pair, batch):
    compute = Compute(torch.device("cpu"))
    results = [evaluate(model, loss_fn, [batch], compute=compute, collect=True) for loss_fn, model in pair]
    one, two = (figures(result, FACTS.class_names) for result in results)
    assert torch.equal(results[0].predictions, results[1].predictions)
    torch.testing.assert_close(results[0].probabilities, results[1].probabilities, rtol=0, atol=1e-6)
    assert 0 < one["accuracy"] < 1
    for name in ("accuracy", "balanced_accuracy", "auroc", "macro_f1", "confusion_matrix"):
        assert one[name] == two[name]
    for name in ("loss", "cross_entropy"):
        assert one[name] == pytest.approx(two[name], abs=1e-6)
