"""How many calls run at the same time, and with which cores and GPU each.

Knows the machine, not what is called.
"""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Sequence
from typing import Literal

from cvtrain.engine.runtime import available_cores
from cvtrain.isolation.calls import Slot
from cvtrain.isolation.memory import available_memory_bytes

_BYTES_PER_CALL = 2 << 30
"""A training of a small model takes about one; a guess for others, which `jobs=N` corrects."""

_GPU_FILES = ("/dev/nvidiactl", "/dev/dxg", "/dev/kfd")
"""Of NVIDIA's driver, of Windows' subsystem for Linux, of AMD's driver."""


def slots_of(jobs: int | Literal["auto"], *, num_jobs: int | None, device: str) -> list[Slot]:
    """Divides the cores, and the GPUs, among the jobs that run at the same time.

    Args:
        jobs: How many at a time, at least 1. `auto`: one per GPU where they run on GPUs, one on an Apple GPU, else as
            many as there are cores and memory for.
        num_jobs: In all, done or not, so that a job has as many threads when the rest is done later; None: unknown.
        device: `auto`, `cpu`, `cuda`, `cuda:N` or `mps`; with `auto` and `cuda` each job is given one GPU.
    """
    return divided(
        jobs,
        num_jobs=num_jobs,
        device="mps" if device == "auto" and _is_apple() else device,
        cores=available_cores(),
        memory_bytes=available_memory_bytes(),
        gpus=visible_gpus() if device in ("auto", "cuda") else [],
    )


def divided(
    jobs: int | Literal["auto"],
    *,
    num_jobs: int | None,
    device: str,
    cores: int,
    memory_bytes: int | None,
    gpus: Sequence[str],
) -> list[Slot]:
    """As `slots_of`, for any machine.

    Args:
        jobs: See there.
        num_jobs: See there.
        device: See there.
        cores: That may be used.
        memory_bytes: That are free; None: unknown.
        gpus: As `CUDA_VISIBLE_DEVICES` names them; empty where jobs are not to be given GPUs.
    """
    if jobs != "auto":
        count = jobs
    elif gpus:
        count = len(gpus)
    elif device.startswith(("cuda", "mps")):
        count = 1
    else:
        count = cores if memory_bytes is None else min(cores, memory_bytes // _BYTES_PER_CALL)
    count = max(1, count if num_jobs is None else min(count, num_jobs))
    num_threads = max(1, cores // count)
    environments = [{"CUDA_VISIBLE_DEVICES": gpus[i % len(gpus)]} if gpus else {} for i in range(count)]
    return [Slot(num_threads, {"OMP_NUM_THREADS": str(num_threads), **more}) for more in environments]


def visible_gpus() -> list[str]:
    """The GPUs that this process may use, each as `CUDA_VISIBLE_DEVICES` names it; none of them is touched."""
    if not any(map(os.path.exists, _GPU_FILES)):
        return []  # without two seconds for loading torch
    import torch

    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None and visible.startswith("MIG-") and torch.version.cuda is not None:
        return names_of(None, visible)  # a process sees but one part of a GPU, and asking would begin CUDA here
    return names_of(torch.cuda.device_count(), visible)


def names_of(count: int | None, visible: str | None) -> list[str]:
    """The names of GPUs.

    Args:
        count: How many of them can be used; None: all that are visible.
        visible: `CUDA_VISIBLE_DEVICES`; None where it is not set. Its entries are handed out as they are: a process
            that is given one of them numbers anew.
    """
    if visible is None:
        return [str(i) for i in range(count or 0)]
    return [name.strip() for name in visible.split(",")][:count]


def _is_apple() -> bool:
    return sys.platform == "darwin" and platform.machine() == "arm64"
