"""`python -m tests.planted`: plants each bug of the list in a copy of the checkout and runs tests that should see it.

A bug counts as caught when tests fail that pass without it; a test file that cannot be loaded proves nothing. Prints a
line per bug and ends with exit code 1 if one was not caught. `--only NAME...` takes some, `--list` names them.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.planted.bugs import BUGS

ROOT = Path(__file__).parents[2]
SOME_FAILED = 1
"""Pytest's exit code when tests ran and some failed."""


def copied_checkout(folder: Path) -> Path:
    """A copy of what a checkout needs to run its tests, as it stands now."""
    for name in ("configs", "cvtrain", "hydra_plugins", "tests", "benchmarks"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE", "constraints.txt"):
        shutil.copy(ROOT / name, folder / name)
    return folder


def run_tests(checkout: Path, tests: tuple[str, ...]) -> tuple[int, str]:
    """The exit code of pytest, and the first test that failed."""
    command = [
        sys.executable,
        "-B",
        "-m",
        "pytest",
        "-n0",
        "-x",
        "-q",
        "-p",
        "no:cacheprovider",
        "-W",
        "default",
        *tests,
    ]
    environment = {**os.environ, "PYTHONPATH": str(checkout), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=checkout, env=environment, capture_output=True, text=True)
    failed = [line for line in done.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
    return done.returncode, failed[0].partition(" - ")[0] if failed else done.stdout[-300:]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.planted")
    parser.add_argument("--only", nargs="+", metavar="NAME", choices=[bug.name for bug in BUGS])
    parser.add_argument("--list", action="store_true")
    arguments = parser.parse_args()
    chosen = [bug for bug in BUGS if not arguments.only or bug.name in arguments.only]
    if arguments.list:
        print("\n".join(f"{bug.name:34}{bug.file}" for bug in chosen))
        return 0
    with tempfile.TemporaryDirectory(prefix="cvtrain-planted-") as folder:
        checkout = copied_checkout(Path(folder) / "checkout")
        code, words = run_tests(checkout, tuple(dict.fromkeys(test for bug in chosen for test in bug.tests)))
        if code != 0:
            print(f"without any bug the tests do not pass: {words}")
            return 2
        num_caught = 0
        for bug in chosen:
            started = time.monotonic()
            with bug.planted(checkout):
                code, words = run_tests(checkout, bug.tests)
            num_caught += code == SOME_FAILED
            verdict = f"caught by {words.removeprefix('FAILED ')}" if code == SOME_FAILED else f"NOT CAUGHT ({words})"
            print(f"{bug.name:34}{time.monotonic() - started:5.0f} s  {verdict}", flush=True)
        print(f"{num_caught} of {len(chosen)} caught")
    return int(num_caught < len(chosen))


if __name__ == "__main__":
    sys.exit(main())
