"""Randomness as a pure function: seeds derived from names and numbers, draws derived from sample indices.

Knows no model and no data. Nothing here keeps state, which is why a resumed run needs no random state.
"""

from __future__ import annotations

import hashlib

import torch


def derive_seed(*parts: int | str) -> int:
    """A seed in `0..2^63-1` that depends on every part, e.g. `derive_seed(seed, "order", epoch)`."""
    digest = hashlib.sha256("/".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def permutation(n: int, *parts: int | str) -> torch.Tensor:
    """A random order of `0..n-1`, int64 `(n,)`, that depends on the parts alone."""
    return torch.randperm(n, generator=torch.Generator().manual_seed(derive_seed(*parts)))
