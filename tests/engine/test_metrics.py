import itertools

import numpy as np
import pytest
import torch

from cvtrain.engine.metrics import (
    auroc,
    balanced_accuracy,
    class_figures,
    confusion_matrix,
    macro_f1,
    predicted_classes,
    top_k_accuracy,
)

LABELS = torch.tensor([0, 0, 0, 0, 1, 1, 1, 2])
PREDICTIONS = torch.tensor([0, 0, 1, 2, 1, 1, 0, 1])


def test_confusion_matrix_has_a_row_per_true_class():
    assert confusion_matrix(LABELS, PREDICTIONS, 4).tolist() == [[2, 1, 1, 0], [1, 2, 0, 0], [0, 1, 0, 0], [0] * 4]


def test_confusion_matrix_equals_counting():
    generator = torch.Generator().manual_seed(0)
    labels, predictions = (torch.randint(0, 7, (1000,), generator=generator) for _ in range(2))
    expected = np.zeros((7, 7), int)
    np.add.at(expected, (labels.numpy(), predictions.numpy()), 1)
    assert confusion_matrix(labels, predictions, 7).tolist() == expected.tolist()


def test_class_figures_equal_those_by_hand():
    figures = class_figures(confusion_matrix(LABELS, PREDICTIONS, 3), ("a", "b", "c"))
    assert [(f.name, f.num_images) for f in figures] == [("a", 4), ("b", 3), ("c", 1)]
    assert [f.precision for f in figures] == [2 / 3, 2 / 4, 0.0]
    assert [f.recall for f in figures] == [2 / 4, 2 / 3, 0.0]
    assert [f.f1 for f in figures] == [4 / 7, 4 / 7, 0.0]
    assert macro_f1(figures) == pytest.approx((4 / 7 + 4 / 7) / 3)
    assert balanced_accuracy(confusion_matrix(LABELS, PREDICTIONS, 3)) == pytest.approx((1 / 2 + 2 / 3) / 3)


def test_f1_is_the_harmonic_mean_of_precision_and_recall():
    generator = torch.Generator().manual_seed(0)
    labels, predictions = (torch.randint(0, 5, (200,), generator=generator) for _ in range(2))
    for f in class_figures(confusion_matrix(labels, predictions, 5), tuple("abcde")):
        assert f.f1 == pytest.approx(2 * f.precision * f.recall / (f.precision + f.recall))


def test_figures_without_images_to_judge_by_are_absent():
    labels, predictions = torch.tensor([0, 0, 1]), torch.tensor([0, 3, 0])
    a, b, c, d = class_figures(confusion_matrix(labels, predictions, 4), tuple("abcd"))
    assert (a.precision, a.recall, a.f1) == (0.5, 0.5, 0.5)
    assert (b.precision, b.recall, b.f1) == (None, 0.0, 0.0)  # never said
    assert (c.precision, c.recall, c.f1) == (None, None, None)  # neither there nor said
    assert (d.precision, d.recall, d.f1) == (0.0, None, 0.0)  # said, but never there
    confusion = confusion_matrix(labels, predictions, 4)
    assert balanced_accuracy(confusion) == pytest.approx(0.25)
    assert macro_f1([a, b, c, d]) == pytest.approx(0.25)


@pytest.mark.parametrize("k", [1, 2, 3, 5, 9])
def test_top_k_equals_sorting(k):
    generator = torch.Generator().manual_seed(0)
    probabilities, labels = torch.rand(300, 6, generator=generator), torch.randint(0, 6, (300,), generator=generator)
    order = np.argsort(-probabilities.numpy(), axis=1)[:, :k]
    expected = np.mean([label in row for label, row in zip(labels.tolist(), order.tolist(), strict=True)])
    assert top_k_accuracy(probabilities, labels, k) == pytest.approx(expected)
    assert k < 6 or expected == 1


def pairwise_auroc(scores, positive):
    pairs = list(itertools.product(scores[positive].tolist(), scores[~positive].tolist()))
    return sum((p > n) + 0.5 * (p == n) for p, n in pairs) / len(pairs)


@pytest.mark.parametrize("levels", [2, 5, 1000])
def test_auroc_equals_comparing_all_pairs_with_ties_as_halves(levels):
    generator = torch.Generator().manual_seed(levels)
    scores = torch.randint(0, levels, (120,), generator=generator) / levels
    positive = torch.rand(120, generator=generator) < 0.2 + 0.4 * scores
    assert auroc(scores, positive) == pytest.approx(pairwise_auroc(scores, positive), abs=1e-12)


def test_auroc_of_known_cases():
    positive = torch.tensor([True, True, False, False])
    assert auroc(torch.tensor([0.9, 0.8, 0.2, 0.1]), positive) == 1.0
    assert auroc(torch.tensor([0.1, 0.2, 0.8, 0.9]), positive) == 0.0
    assert auroc(torch.full((4,), 0.5), positive) == 0.5
    assert auroc(torch.tensor([0.9, 0.2, 0.8, 0.1]), positive) == 0.75
    assert auroc(torch.rand(4), torch.ones(4, dtype=torch.bool)) is None
    assert auroc(torch.rand(4), torch.zeros(4, dtype=torch.bool)) is None


def test_predicted_class_is_the_largest_logit_or_the_sign_of_the_only_one():
    assert predicted_classes(torch.tensor([[1.0, 3.0, 2.0], [-1.0, -2.0, -3.0]])).tolist() == [1, 0]
    assert predicted_classes(torch.tensor([[0.5], [-0.5], [0.0]])).tolist() == [1, 0, 0]
