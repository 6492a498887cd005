"""Fixtures for tests that type command lines."""

import gc
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cvtrain.cli import dispatch
from cvtrain.ending import exit_code_of

# A collection of all that torch has loaded takes a second, and tests make garbage enough for hundreds of them.
gc.set_threshold(50_000, 20, 100)

# Before torch is loaded: two test processes with a thread per core each get in each other's way.
os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="session", autouse=True)
def signals_are_heard():
    """Lets signals through that `nohup` or `&` made this process ignore: its children would ignore them too."""
    ignored = [number for number in (signal.SIGHUP, signal.SIGINT) if signal.getsignal(number) is signal.SIG_IGN]
    for number in ignored:
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    yield
    for number in ignored:
        signal.signal(number, signal.SIG_IGN)


@pytest.fixture(scope="session", autouse=True)
def cache_of_its_own(tmp_path_factory):
    """Keeps what is decoded out of the user's own cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


def pytest_collection_modifyitems(items):
    """Files of whole runs come first: a long one at the end would leave the other test processes without work."""
    order = ("runs", "test_cli.py", "trackers", "search", "jobs", "test_experiments.py", "tasks", "browser", "security")
    place = {name: number for number, name in enumerate(order)}

    def rank(item):
        parts = item.path.relative_to(Path(__file__).parent).parts
        return place.get(parts[0], len(place))

    items.sort(key=rank)


@dataclass(frozen=True)
class CommandResult:
    code: int
    out: str
    errors: list[str]


@pytest.fixture
def command(capsys, monkeypatch, tmp_path):
    """Runs a command line in this process, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))

    def run(*words: str) -> CommandResult:
        capsys.readouterr()
        code = exit_code_of(lambda: dispatch(list(words)))
        out, err = capsys.readouterr()
        return CommandResult(code, out, err.splitlines())

    return run


@pytest.fixture
def process(tmp_path):
    """Runs a command line in a process of its own, in an empty folder."""

    def run(*words: str, program: tuple[str, ...] = ("-m", "cvtrain"), **environment: str) -> CommandResult:
        done = subprocess.run(
            [sys.executable, *program, *words],
            cwd=tmp_path,
            env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
            capture_output=True,
            text=True,
            timeout=120,
        )
        return CommandResult(done.returncode, done.stdout, done.stderr.splitlines())

    return run


@pytest.fixture
def write_images():
    """Writes random images: `write_images(root, {"train/cat": 4})`."""

    def write(root: Path, counts: dict[str, int], *, size: int = 32) -> Path:
        random = np.random.default_rng(0)
        for folder, count in counts.items():
            (root / folder).mkdir(parents=True)
            for i in range(count):
                pixels = random.integers(0, 256, (size, size, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(root / folder / f"{i}.png")
        return root

    return write
