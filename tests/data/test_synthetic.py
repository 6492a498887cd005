import numpy as np
import pytest
import torch

from cvtrain.data.synthetic import load_synthetic
from cvtrain.errors import ConfigError

FINGERPRINT = "1afce216a6cb79f0fd299c3ea0c2f009cd5326fd6a67be42fe0594de5a7a0b6b"


def test_counts_shapes_and_order():
    data = load_synthetic(num_classes=4, per_class=7, image_size=24, channels=1)
    assert data.train.images.shape == (28, 1, 24, 24)
    assert data.test.images.shape == (4, 1, 24, 24)
    assert data.train.images.pixels.dtype == torch.uint8
    assert data.train.labels.tolist() == [0, 1, 2, 3] * 7
    assert data.class_names == ("class_000", "class_001", "class_002", "class_003")
    assert data.val is None


def test_fingerprint_is_the_same_everywhere():
    assert load_synthetic().fingerprint == FINGERPRINT
    assert load_synthetic(seed=1).fingerprint != FINGERPRINT


def test_more_images_per_class_keep_the_first_ones():
    few, many = load_synthetic(per_class=5), load_synthetic(per_class=9)
    torch.testing.assert_close(many.train.images.pixels[:50], few.train.images.pixels, rtol=0, atol=0)


def test_no_image_is_in_both_splits():
    data = load_synthetic(image_size=8, channels=1)
    train = {bytes(image) for image in data.train.images.pixels.flatten(1).numpy()}
    assert len(train) == 1000
    assert train.isdisjoint(bytes(image) for image in data.test.images.pixels.flatten(1).numpy())


@pytest.mark.parametrize("channels", [1, 3])
def test_classes_can_be_learnt(channels):
    data = load_synthetic(image_size=16, channels=channels)

    def features(images):
        images = images.images.pixels.double().flatten(1).numpy() / 255
        return np.concatenate([images, np.ones((len(images), 1))], 1)

    # Ridge regression to one-hot targets: the weakest learner that must see something.
    inputs, targets = features(data.train), np.eye(10)[data.train.labels]
    weights = inputs.T @ np.linalg.solve(inputs @ inputs.T + 10 * np.eye(len(inputs)), targets)
    accuracy = np.mean((features(data.test) @ weights).argmax(1) == data.test.labels.numpy())
    assert accuracy > 0.6


@pytest.mark.parametrize(
    "options",
    [
        {"num_classes": 1},
        {"num_classes": 257},
        {"per_class": 0},
        {"image_size": 7},
        {"channels": 2},
        {"seed": -1},
        {"per_class": 1.5},
    ],
)
def test_argument_out_of_range_is_refused(options):
    (name,) = options
    with pytest.raises(ConfigError, match=rf"data\.{name} = .* must be"):
        load_synthetic(**options)


def test_all_wrong_arguments_are_told_together():
    with pytest.raises(ConfigError) as caught:
        load_synthetic(num_classes=1, channels=2)
    assert len(caught.value.problems) == 2


def test_largest_number_of_classes_differ():
    data = load_synthetic(num_classes=256, per_class=1, image_size=16)
    assert len({bytes(image) for image in data.train.images.pixels.flatten(1).numpy()}) == 256
