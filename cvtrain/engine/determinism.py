"""What keeps a computation from giving the same bits each time, in words.

Knows torch and its refusals; not models, nor who has asked for the same bits.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from cvtrain.errors import ConfigError

SETTING = "trainer.deterministic=true"

_CUBLAS_SETTINGS = (":4096:8", ":16:8")
"""With other workspaces cuBLAS may choose another algorithm each time. Source: cuBLAS documentation, "Results
reproducibility"."""


def determinism_problem(device: torch.device) -> str | None:
    """What keeps a device from giving the same bits each time whatever the model is, or None."""
    if device.type == "mps":
        return f"{SETTING}: torch does not know which operations of an Apple GPU are: type trainer.device=cpu"
    workspace = os.environ.get("CUBLAS_WORKSPACE_CONFIG")
    if device.type == "cuda" and workspace not in (None, *_CUBLAS_SETTINGS):
        return f"{SETTING}: CUBLAS_WORKSPACE_CONFIG={workspace} in the environment keeps it from being so: unset it"
    return None


@contextmanager
def refusals_explained() -> Iterator[None]:
    """Turns torch's refusal of an operation inside the block into words.

    Raises:
        ConfigError: With the operation.
    """
    try:
        yield
    except RuntimeError as error:
        text = " ".join(str(error).split())
        if not torch.are_deterministic_algorithms_enabled() or "deterministic" not in text:
            raise
        operation, found, _ = text.partition(" does not have a deterministic")
        raise ConfigError(
            f"{SETTING}: {operation} has no deterministic form" if found else f"{SETTING}: {text[:200]}",
            hint="use another layer or another device instead, or type trainer.deterministic=false",
        ) from None


def first_difference(one: Any, other: Any, name: str = "") -> str | None:
    """The dotted name of the first tensor or value that differs in any bit between two states, or None.

    Both are of the same structure; numbers that are none (NaN) are alike.
    """
    if isinstance(one, Tensor):
        return None if torch.isclose(one, other, rtol=0, atol=0, equal_nan=True).all() else name
    if isinstance(one, Mapping | list | tuple):
        items = one.items() if isinstance(one, Mapping) else enumerate(one)
        found = (first_difference(value, other[key], f"{name}.{key}".lstrip(".")) for key, value in items)
        return next((each for each in found if each is not None), None)
    return None if one == other else name
