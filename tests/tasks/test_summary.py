import re

import pytest


def numbers_of(out):
    """Parameters of every layer that has some, in order."""
    rows = [re.split(r"\s{2,}", line.strip()) for line in out.splitlines()]
    return [row[3] for row in rows if len(row) == 5 and row[0] != "layer" and row[3] != "0"]


def test_layers_have_the_sizes_that_arithmetic_gives(command):
    result = command("task=summary", "data=cifar10", "model=conv_pool")
    assert result.code == 0
    assert numbers_of(result.out) == ["1,520", "40", "25,050", "100", "62,550", "510"]
    assert "conv_pool on cifar10: 3x32x32 images, 10 classes" in result.out
    assert "parameters  89,770 (89,770 trainable)" in result.out


@pytest.mark.parametrize(
    ("words", "title", "num_parameters"),
    [
        (["data=cifar10", "model=vgg16_bn"], "3x32x32 images, 10 classes", "14,724,042"),
        (["data=mnist", "model=lenet"], "1x28x28 images, 10 classes", "44,426"),
        (["data=cifar100", "model=linear"], "3x32x32 images, 100 classes", "307,300"),
        (["data=cifar100", "data.label=coarse", "model=linear"], "20 classes", "61,460"),
        (["data=digits", "data.image_size=16", "model=linear"], "1x16x16 images", "2,570"),
        (["data=synthetic", "data.num_classes=3", "data.channels=1", "model=linear"], "1x32x32 images, 3", "3,075"),
    ],
)
def test_standard_data_are_not_needed(command, words, title, num_parameters):
    result = command("task=summary", *words)
    assert result.code == 0
    assert title in result.out
    assert f"parameters  {num_parameters} (" in result.out
    assert result.errors == []


def test_other_data_are_read(command, write_images, tmp_path):
    root = write_images(tmp_path / "data", {"train/cat": 3, "train/dog": 3, "test/cat": 1, "test/dog": 1}, size=24)
    words = ["data=image_folder", f"data.root={root}", f"data.cache_dir={tmp_path / 'cache'}", "model=linear"]
    result = command("task=summary", *words)
    assert result.code == 0
    assert "3x24x24 images, 2 classes" in result.out


def test_missing_data_are_a_data_error(command):
    result = command("task=summary", "data=image_folder", "data.root=nowhere", "model=linear")
    assert result.code == 3
    assert "nowhere" in result.errors[0]


def test_images_too_small_for_the_model_are_refused(command):
    result = command("task=summary", "data=digits", "data.image_size=8", "model=vgg16_bn")
    assert result.code == 2
    assert "needs images of at least 32 px" in result.errors[0]


def test_pretrained_weights_are_not_fetched_for_a_summary(command):
    words = ["model=torchvision", "model.name=resnet18", "model.weights=DEFAULT", "data=cifar10"]
    result = command("task=summary", *words)
    assert result.code == 0
    assert "resnet18 on cifar10" in result.out


def test_summary_leaves_nothing_behind(command, tmp_path):
    assert command("task=summary", "data=cifar10", "model=linear").code == 0
    assert list(tmp_path.iterdir()) == []


def test_summary_is_plain_text_without_trailing_spaces(command):
    out = command("task=summary", "data=cifar10", "model=linear").out
    assert out.startswith("linear on cifar10")
    assert all(line == line.rstrip() for line in out.splitlines())
    assert "\n\n\n" not in out
    assert "\x1b" not in out
