import pytest
import torch

from cvtrain.config import config_dir
from cvtrain.export.description import describe, probabilities_rule
from cvtrain.help import options_of
from tests.export.classifiers_for_tests import classifier_of, exported_of, some_inputs

SMALL = ("model=mlp", "model.hidden=[16]")
LOSSES = {
    **{f"loss={name}": "softmax" for name in options_of("loss", config_dir())},
    "loss=bce": "sigmoid",
    "loss=mse": "clipped",
}


@pytest.mark.parametrize("loss", LOSSES)
def test_every_loss_gives_the_probabilities_of_the_classifier(loss):
    data = ["data=synthetic", "data.num_classes=2"] if loss == "loss=bce" else ["data=digits"]
    classifier = classifier_of(*SMALL, *data, loss)
    pixels, inputs = some_inputs(classifier)
    expected = classifier.probabilities(pixels)
    assert expected.std() > 1e-3, "inputs make a difference"
    found = exported_of(classifier)(inputs)
    assert found.shape == (20, classifier.facts.num_classes)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    assert probabilities_rule(classifier.loss_fn, classifier.loss_fn.num_outputs) == LOSSES[loss]


def test_raw_outputs_of_mae_are_clipped():
    loss_fn = classifier_of(*SMALL, "loss=mae", "loss.compare=outputs").loss_fn
    assert probabilities_rule(loss_fn, 10) == "clipped"


def test_rule_that_nobody_knows_is_called_unknown():
    class Odd:
        def probabilities(self, logits):
            return (2 * logits).softmax(1)

    assert probabilities_rule(Odd(), 10) == "unknown"


@pytest.mark.parametrize("data", [["data=spiral"], ["data=digits", "data.permute_pixels=3"], ["data=synthetic"]])
def test_points_permuted_and_coloured_images_are_prepared_inside(data):
    classifier = classifier_of(*SMALL, *data)
    pixels, inputs = some_inputs(classifier)
    torch.testing.assert_close(exported_of(classifier)(inputs), classifier.probabilities(pixels))


def test_model_that_is_exported_stays_as_it_was():
    classifier = classifier_of("model=lenet", "data=digits", "trainer.channels_last=true")
    classifier.compute.place(classifier.model)
    before = {name: (tensor.clone(), tensor.stride()) for name, tensor in classifier.model.state_dict().items()}
    exported_of(classifier).program()
    for name, tensor in classifier.model.state_dict().items():
        assert torch.equal(tensor, before[name][0])
        assert tensor.stride() == before[name][1]
    assert all(parameter.requires_grad for parameter in classifier.model.parameters())


def test_description_tells_what_a_program_needs():
    classifier = classifier_of("model=lenet", "data=digits", "data.permute_pixels=3")
    described = describe(exported_of(classifier), classifier.loss_fn, num_outputs=10)
    assert described["class_names"] == list(classifier.class_names)
    assert described["input"] == {
        "name": "images",
        "dtype": "float32",
        "shape": ["N", 1, 32, 32],
        "range": [0, 1],
        "colours": "grey",
    }
    assert described["output"]["shape"] == ["N", 10]
    assert described["preprocessing"]["resize"] == "crop"
    assert any("shorter side to 32 px" in step for step in described["preprocessing"]["steps"])
    bare = described["bare_model"]
    assert (bare["mean"], bare["std"]) == ([0.3], [0.2])
    assert sorted(bare["pixel_order"]) == list(range(32 * 32)) != bare["pixel_order"]
    assert any("Conv2d(1, 6" in layer for layer in bare["layers"])


def test_description_of_a_model_of_points_speaks_of_no_pictures():
    classifier = classifier_of(*SMALL, "data=spiral")
    described = describe(exported_of(classifier), classifier.loss_fn, num_outputs=3)
    assert described["input"] == {"name": "points", "dtype": "float32", "shape": ["N", 2]}
    assert "preprocessing" not in described
