"""Randomness as a pure function: seeds derived from names and numbers, draws derived from sample indices.

Knows no model and no data. Nothing here keeps state, which is why a resumed run needs no random state. What others
have written draws from the generators of Python, NumPy and torch: these are set to a seed wherever it may draw.
"""

from __future__ import annotations

import hashlib
import random

import numpy as np
import torch


def derive_seed(*parts: int | str) -> int:
    """A seed in `0..2^63-1` that depends on every part, e.g. `derive_seed(seed, "order", epoch)`."""
    digest = hashlib.sha256("/".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def permutation(n: int, *parts: int | str) -> torch.Tensor:
    """A random order of `0..n-1`, int64 `(n,)`, that depends on the parts alone."""
    return torch.randperm(n, generator=torch.Generator().manual_seed(derive_seed(*parts)))


def seed_generators(seed: int, *, device_type: str | None = None) -> None:
    """Sets the generators that code which we have not written draws from, those of Python, NumPy and torch.

    Costs about 10 microseconds, nearly all of them Python's.

    Args:
        seed: As `derive_seed` gives it.
        device_type: Of the device whose generator is set besides that of the CPU; None sets all there are, which takes
            far longer: torch visits every kind of device that it knows.
    """
    random.seed(seed)
    np.random.seed(seed & 0xFFFFFFFF)
    if device_type is None:
        torch.manual_seed(seed)
        return
    torch.default_generator.manual_seed(seed)
    if device_type == "cuda":
        torch.cuda.manual_seed(seed)
    elif device_type == "mps":
        torch.mps.manual_seed(seed)
