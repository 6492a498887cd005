"""Whole commands as they are typed, timed one by one; knows no contestant."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
MAX_FOREIGN_CORES = 0.1
"""Of other processes; a turn during which they took more is marked as disturbed."""


def busy_seconds() -> float:
    """CPU seconds that the whole machine has spent on work since it started."""
    numbers = [int(n) for n in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]]
    idle = numbers[3] + numbers[4]
    return (sum(numbers[:8]) - idle) / os.sysconf("SC_CLK_TCK")


def read_all(folder: Path) -> int:
    """Brings every file into the memory of the system; their number."""
    paths = [path for path in folder.rglob("*") if path.is_file()]
    for path in paths:
        path.read_bytes()
    return len(paths)


def run(command: list[str], *, folder: Path, variables: dict[str, str]) -> tuple[float, float]:
    """Wall seconds of a command, and the cores that others used meanwhile."""
    # Threads and allocator are the contestant's affair: what this shell has set for them could favour one of the two.
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("OMP_", "KMP_", "MKL_", "MALLOC_"))}
    log_path = folder / "log.txt"
    busy, started = busy_seconds(), time.perf_counter()
    with log_path.open("w") as log:
        process = subprocess.Popen(command, cwd=ROOT, env={**environment, **variables}, stdout=log, stderr=log)
        _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - started
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)}\nended with {process.returncode}:\n{log_path.read_text()[-3000:]}")
    foreign_seconds = busy_seconds() - busy - usage.ru_utime - usage.ru_stime  # its children are in its usage
    return seconds, max(foreign_seconds, 0) / seconds
