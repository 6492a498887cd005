"""The average pool between the last feature map and the classic fully connected layers.

Does not know which net it serves.
"""

from __future__ import annotations

from torch import nn


def average_pool(map_size: int, *, at_most: int) -> tuple[nn.Module, int]:
    """A pool of `(B, C, map_size, map_size)` to at most `(B, C, at_most, at_most)`, and the size that it gives.

    A smaller map stays as it is: blowing it up, as adaptive pooling to a fixed size does, would only feed copies of
    the same numbers to the next layer (49 of each for a VGG on 32 px). Where the sizes divide, the pool is a plain
    one, whose gradient is deterministic on a GPU; that of adaptive pooling is not.
    """
    if map_size <= at_most:
        return nn.Identity(), max(map_size, 1)
    if map_size % at_most == 0:
        return nn.AvgPool2d(map_size // at_most), at_most
    return nn.AdaptiveAvgPool2d(at_most), at_most
