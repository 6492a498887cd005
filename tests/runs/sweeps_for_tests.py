"""What tests of sweeps have in common: a folder with a model of their own, a table to read, an end to wait for."""

import csv
import json
import time
from pathlib import Path


def with_troubled_model(folder, *, source, options):
    """A folder in which `--config-dir own plugins=[trouble] model=troubled` finds a model."""
    (folder / "own" / "model").mkdir(parents=True)
    (folder / "own" / "model" / "troubled.yaml").write_text(f"_target_: trouble.Troubled\n{options}init_from: null\n")
    (folder / "trouble.py").write_text(source)
    return folder


def leaderboard(home):
    """The rows of the table of sweep `s`."""
    with open(home / "out" / "sweeps" / "s" / "leaderboard.csv", newline="") as file:
        return list(csv.DictReader(file))


def records(home):
    """What is known of each job of sweep `s`."""
    return [json.loads(path.read_text()) for path in home.glob("out/sweeps/s/*/job.json")]


def wait_until(condition, *, seconds=120):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come to pass"
        time.sleep(0.02)


def no_process_below(home):
    """Whether no process works in a folder."""
    for path in Path("/proc").glob("[0-9]*/cwd"):
        try:
            if path.resolve() == home and not (path.parent / "stat").read_text().split(")")[1].startswith(" Z"):
                return False
        except OSError:
            continue
    return True
