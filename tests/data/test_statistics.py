import numpy as np
import pytest
import torch

from cvtrain.data.images import MemoryImages
from cvtrain.data.statistics import MAX_IMAGES, Normalize, Statistics, measure_statistics


def noise(count, channels=3, height=6, width=9):
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (count, height, width, channels), generator=generator, dtype=torch.uint8)


@pytest.mark.parametrize("channels", [1, 3])
def test_statistics_equal_numpys(channels):
    pixels, indices = noise(300, channels), torch.arange(0, 300, 3)
    statistics = measure_statistics(MemoryImages(pixels), indices)
    chosen = pixels[indices].numpy().astype(np.float64) / 255
    np.testing.assert_allclose(statistics.mean, chosen.mean((0, 1, 2)), rtol=1e-12)
    np.testing.assert_allclose(statistics.std, chosen.std((0, 1, 2)), rtol=1e-9)


@pytest.mark.parametrize("period", [2, 3, 10])
def test_sample_of_many_images_does_not_follow_the_order_of_classes(period):
    pixels = torch.zeros(2 * MAX_IMAGES + 2, 1, 1, 1, dtype=torch.uint8)
    pixels[::period] = 255  # a class in turn
    statistics = measure_statistics(MemoryImages(pixels), torch.arange(len(pixels)))
    assert statistics.mean[0] == pytest.approx(1 / period, abs=6 * 0.5 / MAX_IMAGES**0.5)
    assert measure_statistics(MemoryImages(pixels), torch.arange(len(pixels))) == statistics


def test_images_of_one_colour_do_not_divide_by_zero():
    pixels = torch.full((5, 4, 4, 3), 255, dtype=torch.uint8)
    statistics = measure_statistics(MemoryImages(pixels), torch.arange(5))
    assert statistics.mean == (1.0, 1.0, 1.0)
    assert min(statistics.std) == pytest.approx(1 / 255)
    assert Normalize(statistics)(pixels.permute(0, 3, 1, 2)).abs().max() < 1e-4


@pytest.mark.parametrize("statistics", [Statistics((0.4914, 0.4822, 0.4465), (0.247, 0.2435, 0.2616)), None])
@pytest.mark.parametrize("shape", [(4, 8, 8), (1, 5, 11), (7, 1, 1)])
def test_normalise_equals_the_usual_formula(statistics, shape):
    channels = 3 if statistics else 1
    statistics = statistics or Statistics((0.1307,), (0.3081,))
    images = noise(shape[0], channels, *shape[1:]).permute(0, 3, 1, 2)
    before = images.clone()
    mean, std = (torch.tensor(v, dtype=torch.float64).view(-1, 1, 1) for v in (statistics.mean, statistics.std))
    output = Normalize(statistics)(images)
    torch.testing.assert_close(output.double(), (images.double() / 255 - mean) / std, rtol=1e-6, atol=1e-6)
    assert output.dtype == torch.float32
    assert output.shape == images.shape
    assert output.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(images, before)


def test_normalise_takes_any_memory_order():
    images = noise(4).permute(0, 3, 1, 2)
    normalize = Normalize(Statistics((0.5, 0.4, 0.3), (0.2, 0.3, 0.4)))
    output = normalize(images.contiguous())
    assert torch.equal(output, normalize(images))
    assert output.is_contiguous(memory_format=torch.channels_last)


def test_training_images_have_mean_0_and_deviation_1():
    pixels = noise(200)
    statistics = measure_statistics(MemoryImages(pixels), torch.arange(200))
    output = Normalize(statistics)(pixels.permute(0, 3, 1, 2)).double()
    torch.testing.assert_close(output.mean((0, 2, 3)), torch.zeros(3, dtype=torch.float64), rtol=0, atol=1e-5)
    torch.testing.assert_close(output.std((0, 2, 3)), torch.ones(3, dtype=torch.float64), rtol=0, atol=1e-3)


def test_normalise_saves_nothing_in_a_model():
    assert Normalize(Statistics((0.5,), (0.5,))).state_dict() == {}
