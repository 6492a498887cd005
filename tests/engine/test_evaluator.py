import math
from typing import NamedTuple

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cvtrain.build import ForeignLoss
from cvtrain.engine.device import Compute
from cvtrain.engine.evaluator import evaluate, surprise
from cvtrain.engine.memory import EVALUATION, PartedWork
from cvtrain.errors import DivergedError, MemoryLimitError
from cvtrain.losses import BinaryCrossEntropy, CrossEntropy, MeanAbsoluteError

CPU = Compute(torch.device("cpu"))
LOSS = CrossEntropy(num_classes=4, class_counts=(1,) * 4)


class Batch(NamedTuple):
    images: Tensor
    labels: Tensor


def images_and_labels(count=37):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(count, 3, 5, 5, generator=generator), torch.randint(0, 4, (count,), generator=generator)


def batches(batch_size, count=37):
    return [Batch(*both) for both in zip(*(t.split(batch_size) for t in images_and_labels(count)), strict=True)]


def net(num_outputs=4):
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Dropout(0.5), nn.Flatten()]
    return nn.Sequential(*layers, nn.Linear(54, num_outputs))


@pytest.mark.parametrize("batch_size", [1, 5, 36, 37, 100])
def test_batch_size_changes_no_figure(batch_size):
    model = net()
    images, labels = images_and_labels()
    logits = net().eval()(images)
    result = evaluate(model, LOSS, batches(batch_size), compute=CPU, collect=True)
    assert result.num_images == 37
    assert result.loss == pytest.approx(F.cross_entropy(logits, labels).item(), rel=1e-6)
    assert result.accuracy == (logits.argmax(1) == labels).double().mean().item()
    assert torch.equal(result.labels, labels)
    assert torch.equal(result.predictions, logits.argmax(1))
    torch.testing.assert_close(result.probabilities, logits.softmax(1), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(result.probabilities.sum(1), torch.ones(37))


def test_cross_entropy_is_reported_whatever_the_loss():
    images, labels = images_and_labels()
    logits = net().eval()(images)
    loss_fn = MeanAbsoluteError(num_classes=4, class_counts=(1,) * 4)
    result = evaluate(net(), loss_fn, batches(5), compute=CPU)
    assert result.cross_entropy == pytest.approx(F.cross_entropy(logits, labels).item(), rel=1e-5)
    assert result.loss != pytest.approx(result.cross_entropy, rel=0.1)


def test_an_impossible_label_counts_as_one_in_ten_million():
    impossible = torch.tensor([[0.0, 1.0], [0.25, 0.75]])
    expected = torch.tensor([7 * math.log(10), math.log(4)])
    torch.testing.assert_close(surprise(impossible, torch.tensor([0, 0])), expected)


@pytest.mark.parametrize("training", [True, False])
def test_mode_and_weights_of_the_model_are_left_alone(training):
    model = net().train(training)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    state = torch.get_rng_state()
    evaluate(model, LOSS, batches(8), compute=CPU)
    assert model.training is training
    assert all(module.training is training for module in model.modules())
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name])
    assert torch.equal(torch.get_rng_state(), state)


def test_mode_is_restored_after_an_error():
    model = net()
    with pytest.raises(RuntimeError):
        evaluate(model, LOSS, [Batch(torch.zeros(2, 3, 1, 1), torch.zeros(2, dtype=torch.int64))], compute=CPU)
    assert model.training


def test_nothing_is_collected_unless_asked_for():
    result = evaluate(net(), LOSS, batches(8), compute=CPU)
    assert (result.labels, result.probabilities, result.predictions) == (None, None, None)


def test_evaluation_ends_when_it_is_asked_to_stop():
    seen = []
    model = net()
    result = evaluate(
        model,
        LOSS,
        batches(8),
        compute=CPU,
        on_batch=lambda: seen.append(None),
        should_stop=lambda: len(seen) == 2,
    )
    assert result is None
    assert len(seen) == 2
    assert model.training


def test_foreign_loss_that_gives_one_mean_counts_by_images():
    expected = evaluate(net(), LOSS, batches(8), compute=CPU)
    result = evaluate(net(), ForeignLoss(nn.CrossEntropyLoss(), 4), batches(8), compute=CPU)
    assert result.loss == pytest.approx(expected.loss, rel=1e-6)


def test_single_logit_of_two_classes_is_judged_by_its_sign():
    loss_fn = BinaryCrossEntropy(num_classes=2, class_counts=(1, 1))
    images, labels = images_and_labels()
    data = [Batch(images, labels % 2)]
    logits = net(1).eval()(images)[:, 0]
    result = evaluate(net(1), loss_fn, data, compute=CPU, collect=True)
    assert torch.equal(result.predictions, (logits > 0).long())
    assert result.loss == pytest.approx(F.binary_cross_entropy_with_logits(logits, (labels % 2).float()).item())
    torch.testing.assert_close(result.probabilities[:, 1], logits.sigmoid())


def test_accuracy_and_predictions_agree_where_probabilities_tie():
    """Two different logits may have the same probability in float32."""

    class Ties(nn.Module):
        def forward(self, images):
            return torch.tensor([[0.0, 30.0, 30.000002, 0.0]]).expand(len(images), 4)

    data = [Batch(torch.zeros(3, 1, 1, 1), torch.full((3,), 2))]
    result = evaluate(Ties(), LOSS, data, compute=CPU, collect=True)
    assert result.accuracy == 1.0
    assert result.predictions.tolist() == [2, 2, 2]


class Limited(nn.Module):
    """Has no room for more than some images."""

    def __init__(self, room):
        super().__init__()
        self.net, self.room, self.sizes = net(), room, []

    def forward(self, images):
        self.sizes.append(len(images))
        return self.net(images if len(images) <= self.room else torch.empty(2**60))


def test_batch_without_room_is_evaluated_in_parts_with_the_same_figures():
    expected, said = evaluate(net(), LOSS, batches(20), compute=CPU, collect=True), []
    model, parted = Limited(5), PartedWork(EVALUATION, CPU.device, warn=said.append)
    for _ in range(2):
        result = evaluate(model, LOSS, batches(20), compute=CPU, collect=True, parted=parted)
        assert (result.num_images, result.accuracy) == (37, expected.accuracy)
        assert result.loss == pytest.approx(expected.loss, rel=1e-6)
        assert torch.equal(result.labels, expected.labels)
        assert torch.equal(result.predictions, expected.predictions)
        torch.testing.assert_close(result.probabilities, expected.probabilities, rtol=1e-5, atol=1e-6)
    assert model.sizes == [20, 10, *[5] * 4, *[5, 4, 4, 4], *[5] * 4, *[5, 4, 4, 4]], "what was found out is kept"
    assert said == [
        "out of memory while evaluating 20 images at once: now 5 at a time, which changes no result;"
        " next time type trainer.eval_batch_size=5"
    ]


def test_lack_of_memory_says_what_to_type():
    with pytest.raises(MemoryLimitError, match="while evaluating 8 images and also in 8 parts of 1 images") as caught:
        evaluate(Limited(0), LOSS, batches(8), compute=CPU)
    assert "trainer.eval_batch_size" in caught.value.hint


def test_figures_that_are_not_finite_are_refused():
    data = batches(8)
    data[1].images[3, 0, 0, 0] = float("inf")
    result = evaluate(net(), LOSS, data, compute=CPU)
    assert not result.is_finite
    with pytest.raises(DivergedError, match="the loss of the test images is not a finite number"):
        result.check_finite("test")
    evaluate(net(), LOSS, batches(8), compute=CPU).check_finite("test")
