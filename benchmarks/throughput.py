"""Training throughput of cvtrain against pure compute and the textbook loop, interleaved in one call.

    python -m benchmarks.throughput [--models lenet conv_pool resnet18 vgg16_bn] [--rounds 5] [--seconds 8]

Every contestant is a process of its own; they take turns, so that the drift of a shared machine hits all alike. The
table gives medians with their range, and the median of the ratios within each round. A segment in which other
processes used more than a tenth of a core is marked, and left out where enough clean ones remain.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from benchmarks.commands import MAX_FOREIGN_CORES, busy_seconds
from benchmarks.contestants import CONTESTANTS


@dataclass(frozen=True)
class Segment:
    """One turn of one contestant."""

    images_per_second: float
    foreign_cores: float


def family_seconds(pid: int) -> float:
    """CPU seconds of a process and its children."""
    total = 0
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue
        if pid in (int(path.parent.name), int(fields[1])):
            total += int(fields[11]) + int(fields[12])
    return total / os.sysconf("SC_CLK_TCK")


class Contestant:
    """A process that trains when told to."""

    def __init__(self, name: str, model: str) -> None:
        command = [sys.executable, "-m", "benchmarks.contestants", name, model]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._answer("ready")
        time.sleep(1)  # its loader workers fill their queues: the next process must not start on a busy machine

    def run(self, seconds: float) -> Segment:
        """Trains for some seconds."""
        busy, own = busy_seconds(), family_seconds(self.process.pid)
        self.process.stdin.write(f"run {seconds}\n")
        self.process.stdin.flush()
        images_per_second = float(self._answer(None))
        foreign = (busy_seconds() - busy) - (family_seconds(self.process.pid) - own)
        return Segment(images_per_second, max(foreign, 0) / seconds)

    def _answer(self, expected: str | None) -> str:
        line = self.process.stdout.readline().strip()
        while expected and line != expected and self.process.poll() is None:
            line = self.process.stdout.readline().strip()
        if not line:
            raise SystemExit("a contestant died")
        return line

    def close(self) -> None:
        """Ends the process."""
        self.process.stdin.close()
        self.process.terminate()
        self.process.wait()


def compare(model: str, *, rounds: int, seconds: float) -> dict[str, list[Segment]]:
    """Lets all contestants take turns on one model."""
    contestants = {name: Contestant(name, model) for name in CONTESTANTS}
    try:
        for contestant in contestants.values():
            contestant.run(min(seconds, 2))  # warm-up, not counted
        segments: dict[str, list[Segment]] = {name: [] for name in contestants}
        for _ in range(rounds):
            for name, contestant in contestants.items():
                segments[name].append(contestant.run(seconds))
        return segments
    finally:
        for contestant in contestants.values():
            contestant.close()


def clean_rounds(segments: dict[str, list[Segment]]) -> list[int]:
    """The rounds in which nobody was disturbed, or all rounds when fewer than three were clean."""
    rounds = range(len(next(iter(segments.values()))))
    clean = [i for i in rounds if all(s[i].foreign_cores <= MAX_FOREIGN_CORES for s in segments.values())]
    return clean if len(clean) >= 3 else list(rounds)


def report(model: str, segments: dict[str, list[Segment]]) -> None:
    """Prints one row of the table."""
    rounds = clean_rounds(segments)
    cells = []
    for name in CONTESTANTS:
        values = [segments[name][i].images_per_second for i in rounds]
        cells.append(f"{statistics.median(values):,.0f} ({min(values):,.0f}-{max(values):,.0f})")
    for other in ("pure", "textbook"):
        ratios = [segments["cvtrain"][i].images_per_second / segments[other][i].images_per_second for i in rounds]
        cells.append(f"{statistics.median(ratios):.2f} ({min(ratios):.2f}-{max(ratios):.2f})")
    disturbed = len(next(iter(segments.values()))) - len(rounds)
    print(f"| {model} | " + " | ".join(cells) + f" | {len(rounds)}, {disturbed} left out |", flush=True)


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["lenet", "conv_pool", "resnet18", "vgg16_bn"])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=8)
    arguments = parser.parse_args()
    print("| model | pure, images/s | textbook | cvtrain | cvtrain / pure | cvtrain / textbook | rounds |")
    print("|---|---|---|---|---|---|---|")
    for model in arguments.models:
        report(model, compare(model, rounds=arguments.rounds, seconds=arguments.seconds))


if __name__ == "__main__":
    main()
