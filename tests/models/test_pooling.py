from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from cvtrain.models.pooling import FewChannelsMaxPool2d, average_pool


@pytest.mark.parametrize(
    ("map_size", "kind", "pooled_size"),
    [(1, nn.Identity, 1), (7, nn.Identity, 7), (14, nn.AvgPool2d, 7), (9, nn.AdaptiveAvgPool2d, 7)],
)
def test_pool_is_the_plainest_that_gives_the_adaptive_average(map_size, kind, pooled_size):
    pool, size = average_pool(map_size, at_most=7)
    assert isinstance(pool, kind)
    assert size == pooled_size
    maps = torch.randn(2, 3, map_size, map_size)
    torch.testing.assert_close(pool(maps), nn.functional.adaptive_avg_pool2d(maps, pooled_size))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", [(5, 6, 28, 28), (2, 1, 4, 6), (3, 8, 2, 2)])
def test_few_channels_max_pool_equals_torchs_in_value_and_gradient(shape, dtype):
    # A permutation has no equal pixels, so that both must give the gradient to the same one.
    pixels = torch.randperm(math.prod(shape), generator=torch.Generator().manual_seed(0)).view(shape) % 251
    pixels = (pixels + torch.arange(shape[-1]) / 256).to(dtype).contiguous(memory_format=torch.channels_last)
    ours, theirs = pixels.clone().requires_grad_(), pixels.clone().requires_grad_()
    out, expected = FewChannelsMaxPool2d()(ours), F.max_pool2d(theirs, 2)
    gradient = torch.randn(expected.shape, generator=torch.Generator().manual_seed(1)).to(dtype)
    out.backward(gradient)
    expected.backward(gradient)
    assert torch.equal(out, expected)
    assert out.is_contiguous(memory_format=torch.channels_last)
    windows = F.unfold(pixels.float(), 2, stride=2).view(shape[0], shape[1], 4, -1)
    unique = (windows == windows.amax(2, keepdim=True)).sum(2) == 1
    mask = F.fold(
        unique[:, :, None].expand(-1, -1, 4, -1).float().reshape(shape[0], -1, unique.shape[-1]), shape[2:], 2, stride=2
    ).bool()
    assert mask.float().mean() > 0.5
    assert torch.equal(ours.grad[mask], theirs.grad[mask])


def test_few_channels_max_pool_gives_the_gradient_of_equal_pixels_to_one_of_them():
    images = torch.zeros(2, 3, 4, 4, requires_grad=True)
    FewChannelsMaxPool2d()(images).sum().backward()
    assert torch.equal(F.avg_pool2d(images.grad, 2) * 4, torch.ones(2, 3, 2, 2))
    assert set(images.grad.unique().tolist()) == {0.0, 1.0}


def test_few_channels_max_pool_leaves_odd_sizes_and_many_channels_to_torch():
    for shape in ((2, 6, 5, 5), (2, 32, 4, 4)):
        images = torch.randn(shape)
        assert torch.equal(FewChannelsMaxPool2d()(images), F.max_pool2d(images, 2))


def test_few_channels_max_pool_passes_gradcheck():
    images = torch.randn(2, 3, 4, 6, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(FewChannelsMaxPool2d(), images)
