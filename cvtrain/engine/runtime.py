"""Settings of the process that must be made before torch is loaded: the allocator and waiting threads.

Knows nothing of training; `prepare()` is called once, first thing, by the command line.
"""

from __future__ import annotations

import ctypes
import os
import sys
import time
from pathlib import Path

_MMAP_THRESHOLD, _TRIM_THRESHOLD = -3, -1
"""Numbers of glibc's `mallopt` parameters, from <malloc.h>."""

_LOOK_SECONDS = 0.08
"""Eight ticks of the clock that /proc/stat counts in."""


def prepare() -> None:
    """Keeps big activations in the heap, and threads from spinning on a busy machine.

    Both are decided by measurement (see docs/performance.md): without the first, glibc maps and page-faults every
    large activation anew in every step; without the second, OpenMP's spinning barrier is many times slower as soon
    as another process uses one of its cores. A variable that the user has set is left alone.
    """
    keep_freed_memory()
    if "RANK" in os.environ:
        # Of several processes, C++ code warns of each connection that ends with one of them, and buries our words.
        os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    if machine_is_busy():
        os.environ.setdefault("OMP_WAIT_POLICY", "passive")


def keep_freed_memory() -> None:
    """Tells glibc to serve blocks up to 1 GB from the heap and to keep up to 2 GB that was freed."""
    if not sys.platform.startswith("linux") or "MALLOC_TRIM_THRESHOLD_" in os.environ:
        return
    try:
        libc = ctypes.CDLL("libc.so.6", use_errno=True)
        libc.mallopt(_MMAP_THRESHOLD, 1 << 30)
        libc.mallopt(_TRIM_THRESHOLD, (1 << 31) - 1)
    except (OSError, AttributeError):
        pass  # another C library: nothing is lost but some speed


def machine_is_busy() -> bool:
    """Whether other processes use at least half a core now, and did during the last minute.

    The load average alone would take the quiet after a long job for its noise; looking twice at the clock of the
    processors costs a moment, and so is done only where the average gives a reason.
    """
    try:
        if os.getloadavg()[0] <= 0.5:
            return False
        before = _busy_seconds()
        time.sleep(_LOOK_SECONDS)
        return _busy_seconds() - before >= 0.5 * _LOOK_SECONDS
    except (OSError, ValueError, IndexError):
        return False


def _busy_seconds() -> float:
    """Seconds that all processors together have spent on work. Source: proc(5), /proc/stat."""
    ticks = [int(word) for word in Path("/proc/stat").read_text(encoding="ascii").split("\n", 1)[0].split()[1:9]]
    return (sum(ticks) - ticks[3] - ticks[4]) / os.sysconf("SC_CLK_TCK")


def available_cores(num_processes: int = 1) -> int:
    """The number of cores that this process may use; of several that share them its part, at least one."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(count // num_processes, 1)
