"""How sure a share is that was counted: of so many images, so many right.

Knows counts only.
"""

from __future__ import annotations

import math

_Z_95 = 1.959963984540054
"""The 0.975 quantile of the normal distribution."""


def wilson_interval(num_hits: int, num_trials: int) -> tuple[float, float]:
    """The 95 % interval of a share.

    Stays within 0..1 and has a width even where all, or none, are hits. For the accuracy of one model it says how the
    figure would move with other test images of the same kind; not how it would move with another seed.

    Args:
        num_hits: From 0 to `num_trials`.
        num_trials: At least 1.

    Returns:
        Lower and upper end, 0..1. Source: Wilson 1927, JASA 22; Brown, Cai & DasGupta 2001, section 3.1.1.

    Raises:
        ValueError: No trial, or another number of hits than there can be.
    """
    if not 0 <= num_hits <= num_trials or num_trials < 1:
        raise ValueError(f"{num_hits} hits of {num_trials}")
    share, z2 = num_hits / num_trials, _Z_95**2
    middle = (share + z2 / (2 * num_trials)) / (1 + z2 / num_trials)
    half = _Z_95 / (1 + z2 / num_trials) * math.sqrt(share * (1 - share) / num_trials + z2 / (4 * num_trials**2))
    return max(middle - half, 0.0), min(middle + half, 1.0)
