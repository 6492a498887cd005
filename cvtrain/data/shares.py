"""The share that one of several processes has in each batch, so that all shares together are the batch.

Knows numbers of images; not where images are, nor what is done with them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor


class PartShare(NamedTuple):
    """What one process computes of one part of a batch.

    Args:
        low: Position in the batch of the first image.
        high: Of the last one, plus 1.
        num_copies: How many processes compute just these images: 1, or all where a part has fewer images than there
            are processes. Then each of them computes the whole part, since models need an image at least.
    """

    low: int
    high: int
    num_copies: int


@dataclass(frozen=True)
class Share:
    """One of several processes that part each batch among them.

    Args:
        rank: From 0.
        num_ranks: How many processes there are.
        num_parts: Parts that each batch is computed in, one after the other; each part is shared by all.
    """

    rank: int
    num_ranks: int
    num_parts: int = 1

    def of(self, batch_size: int) -> list[PartShare]:
        """What this process computes of a batch, part by part."""
        shares, start = [], 0
        for size in part_sizes(batch_size, self.num_parts):
            if size < self.num_ranks:
                shares.append(PartShare(start, start + size, self.num_ranks))
            else:
                sizes = _even_sizes(size, self.num_ranks)
                low = start + sum(sizes[: self.rank])
                shares.append(PartShare(low, low + sizes[self.rank], 1))
            start += size
        return shares

    def positions(self, batch_size: int, *, with_neighbours: bool) -> Tensor:
        """int64: the positions in a batch of the images that this process needs.

        Args:
            batch_size: Of all processes together.
            with_neighbours: Whether each part begins with the image before it; before the first comes the last.
        """
        before = int(with_neighbours)
        runs = [torch.arange(part.low - before, part.high) for part in self.of(batch_size)]
        return torch.cat(runs) % batch_size


def part_sizes(batch_size: int, num_parts: int) -> list[int]:
    """The sizes of at most `num_parts` parts of nearly equal size, none of a single image unless the batch is one."""
    return _even_sizes(batch_size, max(min(num_parts, batch_size // 2), 1))


def _even_sizes(total: int, count: int) -> list[int]:
    """As `Tensor.tensor_split` cuts."""
    size, rest = divmod(total, count)
    return [size + 1] * rest + [size] * (count - rest)
