"""Brings faults upon real training processes and says how they stood it: `python -m tests.faults --help`."""

import argparse
import os
import shlex
import shutil
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is loaded

from tests.faults import calls, damage, disks, exactness, kills, limits, power_cuts, signals, starts
from tests.faults.figures import Figure, Settings

PARTS = [kills, signals, power_cuts, starts, calls, disks, damage, limits, exactness]
NAMES = [part.__name__.rpartition(".")[2] for part in PARTS]


def parsed(typed: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--kills", type=int, default=1000, help="with SIGKILL (%(default)s)")
    parser.add_argument("--signals", type=int, default=1000, help="of all kinds together (%(default)s)")
    parser.add_argument("--power-cuts", type=int, default=100, help="of simulated disks (%(default)s)")
    parser.add_argument("--only", default="", help=f"parts, with commas between them, of: {','.join(NAMES)}")
    parser.add_argument("--seed", type=int, default=0, help="of all that is random (%(default)s)")
    parser.add_argument("--processes", type=int, default=2, help="runs at the same time (%(default)s)")
    parser.add_argument("--folder", type=Path, help="an empty folder to work in, which is kept (a temporary one)")
    arguments = parser.parse_args(typed)
    arguments.only = arguments.only.split(",") if arguments.only else NAMES
    unknown = [name for name in arguments.only if name not in NAMES]
    if unknown:
        parser.error(f"there is no part {', '.join(unknown)}: choose from {', '.join(NAMES)}")
    if arguments.folder and arguments.folder.exists() and any(arguments.folder.iterdir()):
        parser.error(f"{arguments.folder} is not empty")
    return arguments


def main(typed: list[str]) -> int:
    arguments = parsed(typed)
    root = arguments.folder or Path(tempfile.mkdtemp(prefix="cvtrain-faults."))
    root.mkdir(parents=True, exist_ok=True)
    begun = time.monotonic()

    def say(line: str) -> None:
        print(f"{time.monotonic() - begun:7.0f} s  {line}", flush=True)

    settings = Settings(
        root,
        kills=arguments.kills,
        signals=arguments.signals,
        power_cuts=arguments.power_cuts,
        seed=arguments.seed,
        processes=arguments.processes,
        say=say,
    )
    figures = []
    for part, name in zip(PARTS, NAMES, strict=True):
        if name in arguments.only:
            say(f"{name} ...")
            figures += part.measure(settings)
    print(table(figures))
    if any(figure.broken for figure in figures):
        print(f"\nThe folder is kept: {root}\nThe same again: python -m tests.faults {shlex.join(typed)}")
        return 1
    if arguments.folder is None:
        shutil.rmtree(root)
    return 0


def table(figures: list[Figure]) -> str:
    """A row for each fault, and below it what broke."""
    rows = [("fault", "faults", "runs", "broken", "required")]
    rows += [
        (f.what, f"{f.num_faults:,}", f"{f.num_runs:,}", "-" if f.left_out else str(len(f.broken)), f.required)
        for f in figures
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    lines = []
    for row, figure in zip(rows, [None, *figures], strict=True):
        cells = [row[0].ljust(widths[0]), *(row[i].rjust(widths[i]) for i in (1, 2, 3)), row[4]]
        lines.append("  ".join(cells))
        if figure is not None:
            notes = [figure.measured, figure.left_out and f"left out: {figure.left_out}", *figure.broken[:5]]
            lines += [f"    {note}" for note in notes if note]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
