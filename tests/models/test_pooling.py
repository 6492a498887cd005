from __future__ import annotations

import pytest
import torch
from torch import nn

from cvtrain.models.pooling import average_pool


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
