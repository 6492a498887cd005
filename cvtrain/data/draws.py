"""Random numbers for the images of a batch, as a pure function of (seed, epoch, image index).

Knows nothing of what is drawn for. Keeps no state: the same image in the same epoch of the same run always gets the
same numbers, on every device, in any batch, after any resume.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

_GAMMA = 0x9E3779B97F4A7C15 - (1 << 64)
_MIX = (0xBF58476D1CE4E5B9 - (1 << 64), 0x94D049BB133111EB - (1 << 64))
"""Constants of SplitMix64 as signed 64-bit numbers. Source: Steele, Lea & Flood 2014, "Fast splittable PRNGs"."""

_NAMES_AT_ONCE = 8
"""Numbers that are drawn together: on a batch of 128 the calls cost more than the arithmetic."""


def _shift_right(x: Tensor, bits: int) -> Tensor:
    """A logical shift: torch's own keeps the sign."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)


def _scramble(x: Tensor) -> Tensor:
    x = (x ^ _shift_right(x, 30)) * _MIX[0]
    x = (x ^ _shift_right(x, 27)) * _MIX[1]
    return x ^ _shift_right(x, 31)


@dataclass(frozen=True)
class Draws:
    """Uniform random numbers for the images of a batch.

    Args:
        seed: Of the run.
        epoch: Of the batch.
        indices: int64 `(B,)`, the index of each image in its data set.
    """

    seed: int
    epoch: int
    indices: Tensor
    _blocks: dict[int, Tensor] = field(default_factory=dict, init=False, repr=False, compare=False)

    def uniform(self, name: int, low: float = 0.0, high: float = 1.0) -> Tensor:
        """float32 `(B,)` in `[low, high)`, `high` itself only by rounding; each `name` gives numbers of its own."""
        block, row = divmod(name, _NAMES_AT_ONCE)
        if block not in self._blocks:
            self._blocks[block] = self._draw(block * _NAMES_AT_ONCE)
        return low + (high - low) * self._blocks[block][row]

    def _draw(self, first_name: int) -> Tensor:
        """float32 `(_NAMES_AT_ONCE, B)` in `[0, 1)`, for names from `first_name` on."""
        names = torch.arange(first_name, first_name + _NAMES_AT_ONCE, device=self.indices.device)
        key = _scramble(self.indices * _GAMMA + ((self.epoch << 20) + names[:, None]))
        bits = _scramble(key ^ self.seed)
        return _shift_right(bits, 40).float() / (1 << 24)

    def integers(self, name: int, num: int) -> Tensor:
        """int64 `(B,)` in `0..num-1`."""
        return (self.uniform(name) * num).long().clamp_(max=num - 1)
