"""Points on a spiral: the formula, how they travel, and what a command line makes of them."""

import json
import math

import numpy as np
import pytest
import torch

import cvtrain
from cvtrain.build import data as read_data
from cvtrain.compose import compose
from cvtrain.data.images import MemoryImages
from cvtrain.data.spiral import load_spiral
from cvtrain.data.statistics import Normalize, Statistics, measure_statistics
from cvtrain.errors import ConfigError, DataError

FINGERPRINT = "b12bee58e3aef77fa7428b87935a7ffec98749106bfa13ff95c7e572ecacc8e2"


def points_of(image_set, label):
    """float64 `(N, 2)`, in the order of the distance from the centre, which is the order of the formula."""
    pixels = image_set.images.pixels[image_set.labels == label].reshape(-1, 2).double().numpy() / 255
    return pixels[np.argsort(np.hypot(*pixels.T), kind="stable")]


def formula(label, *, num_classes, count, i, noise=0.0):
    """The notebook's lines for one point, in plain arithmetic."""
    t = i / (count - 1)
    angle = 2 * math.pi / num_classes * label + 4 * math.pi / num_classes * t + noise
    return t * math.sin(angle), t * math.cos(angle)


@pytest.mark.parametrize("num_classes", [2, 3, 5])
def test_points_without_noise_are_those_of_the_formula(num_classes):
    data = load_spiral(num_classes=num_classes, per_class=50, noise=0)
    for image_set in (data.train, data.test):
        for label in range(num_classes):
            expected = [formula(label, num_classes=num_classes, count=50, i=i) for i in range(50)]
            np.testing.assert_allclose(points_of(image_set, label), expected, atol=2e-7)


def test_noise_of_the_angle_is_normal_and_new_in_every_arm_and_split():
    data = load_spiral(per_class=2000, noise=0.2)
    found = []
    for image_set in (data.train, data.test):
        for label in range(3):
            points, clean = points_of(image_set, label)[1:], load_spiral(per_class=2000, noise=0)
            clean = points_of(clean.train, label)[1:]
            angle = np.arctan2(*points.T) - np.arctan2(*clean.T)
            found.append(((angle + math.pi) % (2 * math.pi) - math.pi) / 0.2)
    every = np.concatenate(found)
    assert abs(every.mean()) < 4 / len(every) ** 0.5
    assert every.std() == pytest.approx(1, abs=0.03)
    # The shares within 1, 2 and 3 deviations of a normal variable.
    for bound, share in ((1, 0.6827), (2, 0.9545), (3, 0.9973)):
        assert np.mean(abs(every) < bound) == pytest.approx(share, abs=0.015)
    correlations = np.corrcoef(found) - np.eye(6)
    assert abs(correlations).max() < 5 / 2000**0.5


def test_points_travel_as_images_of_one_pixel():
    data = load_spiral(per_class=100)
    assert data.train.images.shape == data.test.images.shape == (300, 2, 1, 1)
    assert data.train.images.pixels.dtype == torch.float32
    assert torch.bincount(data.train.labels).tolist() == torch.bincount(data.test.labels).tolist() == [100] * 3
    assert data.class_names == ("arm_0", "arm_1", "arm_2")
    assert data.statistics == Statistics((0.0, 0.0), (1.0, 1.0))
    assert (data.preprocessing.image_size, data.preprocessing.channels) == (1, 2)
    assert data.preprocessing.is_point


def test_a_model_sees_the_bare_coordinates():
    data = load_spiral(per_class=100)
    seen = Normalize(data.statistics)(data.train.images.read(torch.arange(300)))
    np.testing.assert_allclose(seen.flatten(1).numpy(), data.train.images.pixels.flatten(1).numpy() / 255, atol=1e-6)
    assert seen.abs().max() <= 1 + 1e-6
    assert seen.abs().max() > 0.9


def test_same_seed_gives_the_same_points_on_every_machine():
    assert load_spiral().fingerprint == FINGERPRINT
    assert load_spiral(seed=1).fingerprint != FINGERPRINT
    assert torch.equal(load_spiral(seed=5).train.images.pixels, load_spiral(seed=5).train.images.pixels)


def test_few_points_of_each_class_come_from_the_whole_arm():
    prepared = read_data(compose(["data=spiral", "data.max_per_class=40", "data.val_fraction=0"]))
    images, indices = prepared.part("train")
    radius = images.images.read(indices).flatten(1).norm(dim=1) / 255
    assert len(radius) == 120
    assert radius.max() > 0.9
    assert 0.35 < radius.mean() < 0.65


@pytest.mark.parametrize(
    "options",
    [{"num_classes": 1}, {"num_classes": 21}, {"per_class": 0}, {"noise": -0.1}, {"noise": math.nan}, {"seed": -1}],
)
def test_argument_out_of_range_is_refused(options):
    (name,) = options
    with pytest.raises(ConfigError, match=rf"data\.{name} = .* must be"):
        load_spiral(**options)


# ------------------------------------------------------------------------------------------- pixels of floating point


def test_normalise_leaves_stored_numbers_alone():
    pixels = torch.randn(7, 1, 1, 2)
    before = pixels.clone()
    images = pixels.permute(0, 3, 1, 2)
    output = Normalize(Statistics((0.5, -0.5), (2.0, 0.5)))(images)
    assert torch.equal(pixels, before)
    expected = (before.double() / 255 - torch.tensor([0.5, -0.5]).double()) / torch.tensor([2.0, 0.5]).double()
    torch.testing.assert_close(output.permute(0, 2, 3, 1).double(), expected, rtol=1e-6, atol=1e-6)


def test_statistics_of_floating_point_are_measured_in_full():
    pixels = 0.3 * torch.randn(500, 2, 2, 3) + 0.1
    statistics = measure_statistics(MemoryImages(255 * pixels), torch.arange(500))
    np.testing.assert_allclose(statistics.mean, pixels.double().mean((0, 1, 2)), atol=1e-6)
    np.testing.assert_allclose(statistics.std, pixels.double().std((0, 1, 2), correction=0), rtol=1e-5)


def test_statistics_of_the_source_go_before_measured_ones():
    facts = read_data(compose(["data=spiral"])).facts
    assert facts.statistics == Statistics((0.0, 0.0), (1.0, 1.0))
    assert len(read_data(compose(["data=digits"])).facts.statistics.mean) == 1


# ----------------------------------------------------------------------------------------------------- command lines


def test_data_choose_a_model_that_takes_points_and_a_typed_one_wins():
    assert compose(["data=spiral"])["choices"]["model"] == "mlp"
    assert compose(["data=spiral", "model=linear"])["choices"]["model"] == "linear"
    assert compose(["data=digits"])["choices"]["model"] == "lenet"


def test_seed_of_the_points_can_follow_that_of_the_run():
    assert compose(["data=spiral", "seed=7"])["data"]["seed"] == 0
    assert compose(["data=spiral", "seed=7", "data.seed=${seed}"])["data"]["seed"] == 7


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["model=lenet"], "lenet needs images; these are points"),
        (["model=vgg11"], "vgg11 needs images; these are points"),
        (["model=resnet18"], "resnet18 needs images; these are points"),
        (["augment=flip_crop"], "augment.flip=random has no meaning for points"),
        (["augment.cutmix=1"], "augment.cutmix=1 has no meaning for points"),
        (["data.permute_pixels=1"], "data.permute_pixels=1 has no effect"),
    ],
)
def test_what_has_no_meaning_for_points_is_refused(command, tmp_path, words, message):
    result = command("data=spiral", *words)
    assert result.code == 2
    assert message in "\n".join(result.errors)
    assert not (tmp_path / "outputs").exists()


def test_mixing_points_is_allowed(command):
    result = command("data=spiral", "augment.mixup=0.5", "data.per_class=20", "trainer.epochs=1")
    assert result.code == 0, result.errors


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run on the spiral that ends near 1."""
    from cvtrain.cli import dispatch
    from cvtrain.ending import exit_code_of

    root = tmp_path_factory.mktemp("runs")
    words = ["data=spiral", "data.per_class=400", "trainer.device=cpu", "trainer.epochs=25", "trainer.batch_size=64"]
    assert exit_code_of(lambda: dispatch([*words, f"output_dir={root}"])) == 0
    return next(root.glob("train/spiral-mlp/*"))


def test_spiral_is_learnt_and_drawn(trained):
    card = json.loads((trained / "run.json").read_text())
    assert card["test"]["accuracy"] > 0.97
    assert card["test"]["num_images"] == 1200
    of_every_run = ("training_curves", "confusion_matrix", "calibration")
    drawn = {f"{name}.{kind}" for name in of_every_run for kind in ("png", "svg")} | {"decision_boundary.png"}
    assert {path.name for path in (trained / "plots").iterdir()} == drawn
    assert "could not be drawn" not in (trained / "log.txt").read_text()
    assert "1,080 points to train on" in (trained / "log.txt").read_text()


def test_evaluation_repeats_the_test_of_the_run(command, trained):
    result = command("task=evaluate", f"checkpoint={trained}", "trainer.device=cpu")
    assert result.code == 0, result.errors
    assert "images" not in result.out
    tested = json.loads((trained / "run.json").read_text())["test"]
    assert f"test accuracy  {100 * tested['accuracy']:.1f} % of 1,200 points" in result.out


def test_prediction_of_pictures_is_refused(command, trained, write_images, tmp_path):
    write_images(tmp_path / "photos", {"a": 1})
    result = command("task=predict", f"checkpoint={trained}", "input=photos")
    assert result.code == 3
    assert "this model classifies points of 2 coordinates, not pictures" in result.errors[0]
    assert "predict_points" in result.errors[1]
    assert not (tmp_path / "outputs").exists()


def test_loaded_model_classifies_points(trained):
    model, data = cvtrain.load(trained, device="cpu"), load_spiral(per_class=400)
    points = data.test.images.pixels.reshape(-1, 2).numpy() / 255
    predictions = model.predict_points(points.tolist())
    right = [p.class_name == f"arm_{label}" for p, label in zip(predictions, data.test.labels.tolist(), strict=True)]
    assert np.mean(right) == json.loads((trained / "run.json").read_text())["test"]["accuracy"]
    with pytest.raises(DataError, match="not pictures"):
        model.predict(np.zeros((8, 8), np.uint8))
    for wrong in ([1.0, 2.0], [[1.0, 2.0, 3.0]], [["a", "b"]]):
        with pytest.raises(DataError, match="is no list of points"):
            model.predict_points(wrong)
