"""Time from the shell to `--help`, to an error, to the first training step; and the peak memory of a run.

    python -m benchmarks.startup [--runs 5] [OVERRIDE ...]

The overrides choose data and model, e.g. `data=cifar10_images data.root=DIR model=lenet`; the first run, which may
have to decode and cache the data, is not counted.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time

_FIRST_STEP = """
import os, sys
from cvtrain.console import Console
Console.step = lambda self, step: os._exit(0)  # the moment that is measured
from cvtrain.cli import main
main(sys.argv[1:])
"""


def run(command: list[str], folder: str) -> tuple[float, float, int]:
    """Wall seconds, peak megabytes of the largest process, and exit code."""
    started = time.perf_counter()
    process = subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    return time.perf_counter() - started, usage.ru_maxrss / 1024, process.returncode


def measure(name: str, command: list[str], *, runs: int, expected: int = 0) -> None:
    """Prints one row."""
    with tempfile.TemporaryDirectory() as folder:
        results = [run(command, folder) for _ in range(runs + 1)][1:]
    if any(code != expected for _, _, code in results):
        raise SystemExit(f"{name}: exit codes {[code for _, _, code in results]}, expected {expected}")
    seconds, memory = [r[0] for r in results], max(r[1] for r in results)
    median, low, high = statistics.median(seconds), min(seconds), max(seconds)
    print(f"| {name} | {median:.2f} s ({low:.2f}-{high:.2f}) | {memory:,.0f} MB |", flush=True)


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("overrides", nargs="*")
    arguments = parser.parse_args()
    words = [
        w if "=/" in w or not w.startswith("data.root=") else f"data.root={os.path.abspath(w[10:])}"
        for w in arguments.overrides
    ]
    cvtrain = [sys.executable, "-m", "cvtrain"]
    print("| what | seconds, median (range) | peak memory |")
    print("|---|---|---|")
    measure("cvtrain --help", [*cvtrain, "--help"], runs=arguments.runs)
    measure("a misspelt key", [*cvtrain, "optimizer.lrr=1"], runs=arguments.runs, expected=2)
    measure("to the first step", [sys.executable, "-c", _FIRST_STEP, *words], runs=arguments.runs)
    measure("one epoch and the test", [*cvtrain, "trainer.epochs=1", *words], runs=min(arguments.runs, 2))


if __name__ == "__main__":
    main()
