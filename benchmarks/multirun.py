"""A grid of jobs: `--multirun` with one job at a time and with two, against a loop in the shell.

    python -m benchmarks.multirun [--data DIR] [--jobs 6] [--tiny-jobs 20] [--rounds 3] [--cores 2] [--output JSON]

The loop is what one would type without `--multirun`: `python -m cvtrain ...`, one command after the other. All do the
same jobs, which differ in their seed, as whole commands with a result that is checked. They take turns, each round
begun by another one, so that the drift of a shared machine hits all alike.

Two grids: lenet on the digits, or with --data on a folder of photographs as for data=cifar10_images; and tiny jobs
(`experiment=smoke model=linear`), which show what a job costs beside its training. Images are decoded, and all files
read, before the first turn. A turn during which other processes used more than a tenth of a core counts as disturbed.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.commands import MAX_FOREIGN_CORES, read_all, run

CVTRAIN = [sys.executable, "-m", "cvtrain"]
LOOP = "a loop in the shell"
TINY = ["experiment=smoke", "model=linear"]


@dataclass(frozen=True)
class Turn:
    """One contestant's turn.

    Args:
        seconds: From the start of the first command to the end of the last.
        run_seconds: Of these, what the run cards of the jobs count, added up: data, training, test.
        foreign_cores: Cores that other processes used meanwhile.
    """

    seconds: float
    run_seconds: float
    foreign_cores: float


def contestants(settings: Sequence[str], *, num_jobs: int) -> dict[str, list[list[str]]]:
    """The commands of each contestant; all do the same jobs."""
    multirun = [*CVTRAIN, "--multirun", *settings, f"seed=range({num_jobs})"]
    return {
        LOOP: [[*CVTRAIN, *settings, f"seed={seed}"] for seed in range(num_jobs)],
        "--multirun sweep.jobs=1": [[*multirun, "sweep.jobs=1"]],
        "--multirun sweep.jobs=2": [[*multirun, "sweep.jobs=2"]],
    }


def take_turn(commands: Sequence[Sequence[str]], *, num_jobs: int, variables: dict[str, str]) -> Turn:
    """Runs the commands of a contestant one after the other.

    Raises:
        SystemExit: A command failed, or not all jobs were done.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        turns = [run([*c, f"output_dir={folder / 'outputs'}"], folder=folder, variables=variables) for c in commands]
        cards = [json.loads(path.read_text(encoding="utf-8")) for path in (folder / "outputs").rglob("run.json")]
    num_done = sum(card["status"] == "done" for card in cards)
    if num_done != num_jobs:
        raise SystemExit(f"{' '.join(commands[0])}: {num_done} of {num_jobs} jobs done")
    seconds = sum(turn_seconds for turn_seconds, _ in turns)
    foreign_seconds = sum(turn_seconds * cores for turn_seconds, cores in turns)
    return Turn(seconds, sum(card["seconds"] for card in cards), foreign_seconds / seconds)


def rotated(names: Sequence[str], *, by: int) -> list[str]:
    """The same names in the same circle, begun elsewhere."""
    start = by % len(names)
    return [*names[start:], *names[:start]]


def compare(settings: Sequence[str], *, num_jobs: int, rounds: int, variables: dict[str, str]) -> dict[str, list[Turn]]:
    """Lets all contestants take turns."""
    commands = contestants(settings, num_jobs=num_jobs)
    turns: dict[str, list[Turn]] = {name: [] for name in commands}
    for i in range(rounds):
        for name in rotated(list(commands), by=i):
            turns[name].append(take_turn(commands[name], num_jobs=num_jobs, variables=variables))
    return turns


def ranged(values: Sequence[float], digits: int) -> str:
    """Median and range."""
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f}-{max(values):.{digits}f})"


def report(what: str, turns: Mapping[str, Sequence[Turn]], *, num_jobs: int) -> None:
    """Prints a table with a row per contestant."""
    print(f"\n| {num_jobs} jobs: {what} | seconds | {LOOP} / this | per job, s | of it beside the run, s | disturbed |")
    print("|---|---|---|---|---|---|")
    for name, own in turns.items():
        ratios = [loop.seconds / turn.seconds for loop, turn in zip(turns[LOOP], own, strict=True)]
        cells = [
            ranged([turn.seconds for turn in own], 1),
            "" if name == LOOP else ranged(ratios, 2),
            ranged([turn.seconds / num_jobs for turn in own], 2),
            # With two at a time the runs overlap, and there is nothing to take their sum from.
            "" if "jobs=2" in name else ranged([(turn.seconds - turn.run_seconds) / num_jobs for turn in own], 2),
            f"{sum(turn.foreign_cores > MAX_FOREIGN_CORES for turn in own)} of {len(own)}",
        ]
        print(f"| {name} | " + " | ".join(cells) + " |", flush=True)


def main() -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="a folder with train/<class>/ and test/<class>/; digits without it")
    parser.add_argument(
        "--epochs", type=int, help="of each job but the tiny ones; the default of the recipe without it"
    )
    parser.add_argument("--jobs", type=int, default=6)
    parser.add_argument("--tiny-jobs", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--cores", type=int, default=2, help="that all may use")
    parser.add_argument("--output", type=Path, help="a JSON file for all figures")
    arguments = parser.parse_args()

    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: arguments.cores])
    print(f"{len(os.sched_getaffinity(0))} cores, {arguments.rounds} rounds", flush=True)
    settings = ["model=lenet"]
    if arguments.data:
        settings += ["data=cifar10_images", f"data.root={arguments.data.resolve()}"]
        print(f"{read_all(arguments.data):,} files", flush=True)
    settings += [f"trainer.epochs={arguments.epochs}"] if arguments.epochs else []
    grids = {" ".join(settings): (settings, arguments.jobs), " ".join(TINY): (TINY, arguments.tiny_jobs)}
    figures = {}
    with tempfile.TemporaryDirectory() as cache_dir:
        variables = {"XDG_CACHE_HOME": cache_dir}
        for what, (words, num_jobs) in grids.items():
            take_turn([[*CVTRAIN, *words]], num_jobs=1, variables=variables)  # fills the caches; not counted
            turns = compare(words, num_jobs=num_jobs, rounds=arguments.rounds, variables=variables)
            report(what, turns, num_jobs=num_jobs)
            figures[what] = {name: [asdict(turn) for turn in own] for name, own in turns.items()}
    if arguments.output:
        arguments.output.write_text(json.dumps(figures, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
