import pytest
import torch

from cvtrain.engine.evaluator import EvaluationResult
from cvtrain.results import figures, prediction_rows

PROBABILITIES = torch.tensor([[0.7, 0.2, 0.1], [0.1, 0.8, 0.1], [0.5, 0.3, 0.2], [0.3, 0.3, 0.4]])
LABELS = torch.tensor([0, 1, 1, 2])


def result_of(probabilities=PROBABILITIES, labels=LABELS):
    predictions = probabilities.argmax(1)
    accuracy = (predictions == labels).double().mean().item()
    return EvaluationResult(0.5, accuracy, len(labels), 0.6, labels, probabilities, predictions)


def test_figures_are_plain_values_that_agree_with_each_other():
    found = figures(result_of(), ("cat", "dog", "cow"))
    assert found["accuracy"] == 0.75
    assert found["loss"] == 0.5
    assert found["cross_entropy"] == 0.6
    assert found["num_images"] == 4
    assert found["top5_accuracy"] == 1.0
    assert found["confusion_matrix"] == [[1, 0, 0], [1, 1, 0], [0, 0, 1]]
    assert found["balanced_accuracy"] == pytest.approx((1 + 0.5 + 1) / 3)
    assert found["macro_f1"] == pytest.approx((2 / 3 + 2 / 3 + 1) / 3)
    assert "auroc" not in found
    assert found["per_class"][1] == {
        "name": "dog",
        "num_images": 2,
        "precision": 1.0,
        "recall": 0.5,
        "f1": pytest.approx(2 / 3),
    }


def test_two_classes_have_an_auroc():
    probabilities = torch.tensor([[0.9, 0.1], [0.6, 0.4], [0.65, 0.35], [0.2, 0.8]])
    found = figures(result_of(probabilities, torch.tensor([0, 0, 1, 1])), ("no", "yes"))
    assert found["auroc"] == 0.75
    one_kind = figures(result_of(probabilities, torch.zeros(4, dtype=torch.int64)), ("no", "yes"))
    assert one_kind["auroc"] is None


def test_predictions_name_classes_and_keep_the_order_of_images():
    rows = list(prediction_rows(result_of(), ["a.png", "b.png", "c.png", "d.png"], ("cat", "dog", "cow")))
    assert rows == [
        ("a.png", "cat", "cat", "0.7"),
        ("b.png", "dog", "dog", "0.8"),
        ("c.png", "dog", "cat", "0.5"),
        ("d.png", "cow", "cow", "0.4"),
    ]
