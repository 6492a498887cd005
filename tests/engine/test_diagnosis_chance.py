"""What chance reaches, against closed forms and against scipy."""

import math

import pytest
import torch
from torch import nn

from cvtrain.engine.diagnosis.chance import ALPHA, chance_accuracy, chance_loss, is_above, upper_tail
from cvtrain.losses import (
    AdditiveMarginSoftmax,
    BinaryCrossEntropy,
    CrossEntropy,
    Focal,
    GeneralizedCrossEntropy,
    LargeMarginSoftmax,
    MeanAbsoluteError,
    MeanSquaredError,
    SoftMarginSoftmax,
)
from cvtrain.losses.foreign import ForeignLoss

EVEN = (50,) * 10
UNEVEN = (70, 20, 10)


def made(loss, counts=EVEN, **options):
    return loss(num_classes=len(counts), class_counts=counts, **options)


@pytest.mark.parametrize(
    ("loss", "expected"),
    [
        (made(CrossEntropy), math.log(10)),
        (made(CrossEntropy, label_smoothing=0.1), math.log(10)),
        (made(MeanSquaredError), 0.09),
        (made(MeanAbsoluteError), 0.18),
        (made(MeanAbsoluteError, compare="outputs"), 0.1),
        (made(GeneralizedCrossEntropy, q=0.7), (1 - 0.1**0.7) / 0.7),
        (made(Focal, gamma=2.0), 0.81 * math.log(10)),
        (made(SoftMarginSoftmax, margin=0.5), math.log(1 + 9 * math.exp(0.5))),
        (made(AdditiveMarginSoftmax, margin=0.35, scale=30.0), math.log(1 + 9 * math.exp(30 * 0.35))),
        (made(LargeMarginSoftmax), math.log(10)),
        (ForeignLoss(nn.CrossEntropyLoss(), 10), math.log(10)),
        (ForeignLoss(nn.NLLLoss(reduction="none"), 10), None),
    ],
)
def test_loss_of_a_constant_answer_is_that_of_the_closed_form(loss, expected):
    found = chance_loss(loss, EVEN)
    if expected is None:  # unbounded below: any number, but no error
        return
    assert found == pytest.approx(expected, rel=1e-3)


def test_loss_of_a_constant_answer_follows_the_counts_and_weights_of_classes():
    shares = torch.tensor(UNEVEN) / 100
    entropy = -(shares * shares.log()).sum().item()
    assert chance_loss(made(CrossEntropy, UNEVEN), UNEVEN) == pytest.approx(entropy, rel=1e-4)
    balanced = made(CrossEntropy, UNEVEN, class_weights="auto")
    assert chance_loss(balanced, UNEVEN) == pytest.approx(math.log(3), rel=1e-4)
    assert chance_loss(made(MeanAbsoluteError, UNEVEN), UNEVEN) == pytest.approx(2 * 0.3 / 3, rel=1e-3)
    squares = sum(p * (1 - p) for p in shares.tolist()) / 3
    assert chance_loss(made(MeanSquaredError, UNEVEN), UNEVEN) == pytest.approx(squares, rel=1e-4)
    foreign = ForeignLoss(nn.CrossEntropyLoss(), 3)
    assert chance_loss(foreign, UNEVEN) == pytest.approx(entropy, rel=1e-3)


def test_loss_of_a_constant_answer_for_one_logit():
    assert chance_loss(made(BinaryCrossEntropy, (50, 50)), (50, 50)) == pytest.approx(math.log(2), rel=1e-5)
    entropy = -(0.9 * math.log(0.9) + 0.1 * math.log(0.1))
    assert chance_loss(made(BinaryCrossEntropy, (90, 10)), (90, 10)) == pytest.approx(entropy, rel=1e-4)


def test_loss_that_cannot_be_asked_has_no_chance_level():
    class Odd(nn.Module):
        def forward(self, outputs, labels):
            raise ValueError("not like this")

    assert chance_loss(Odd(), EVEN) is None


def test_computing_it_changes_neither_the_loss_nor_a_generator():
    loss = made(LargeMarginSoftmax)
    loss.set_step(50)
    before, state = loss.lambda_now, torch.get_rng_state()
    chance_loss(loss, EVEN)
    assert loss.lambda_now == before
    assert torch.equal(torch.get_rng_state(), state)


def test_tail_is_the_exact_binomial_one():
    scipy_stats = pytest.importorskip("scipy.stats")
    for correct, images, share in [(0, 20, 0.1), (8, 20, 0.1), (246, 2000, 0.1), (1102, 10_000, 0.1), (20, 20, 0.5)]:
        expected = scipy_stats.binom.sf(correct - 1, images, share)
        assert upper_tail(correct, images, share) == pytest.approx(expected, rel=1e-6), (correct, images)


@pytest.mark.parametrize(
    ("images", "highest"), [(20, 0.35), (200, 0.17), (1000, 0.13), (2000, 0.1215), (10_000, 0.1094)]
)
def test_highest_accuracy_that_is_no_better_than_chance(images, highest):
    correct = round(highest * images)
    assert not is_above(correct, images, 0.1)
    assert is_above(correct + 1, images, 0.1)
    assert upper_tail(correct + 1, images, 0.1) <= ALPHA


def test_chance_is_the_share_of_the_commonest_class():
    assert chance_accuracy(EVEN) == 0.1
    assert chance_accuracy(UNEVEN) == 0.7
