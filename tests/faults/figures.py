"""What a part of `python -m tests.faults` is asked for, and what it answers.

A part is a module of this folder with one function, and stands in the list `PARTS` of `__main__`:

    def measure(settings: Settings) -> list[Figure]:

It makes runs below `settings.folder(__name__)`, brings faults upon them, and counts what broke. It tells how far it
is with `settings.say`, once in a while, and draws all that is random from `settings.random(...)`. What broke is
described in `Figure.broken`, a sentence each, with the folder: it is kept when anything broke.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Figure:
    """How runs stood one kind of fault; a row of the table.

    Args:
        what: The fault.
        num_faults: How many there were.
        num_runs: How many runs they came upon.
        required: What must hold, in words.
        broken: A sentence for each time that it did not hold, with the folder that shows it.
        measured: What else was measured, in words.
        left_out: Why nothing was measured, if so: what this machine lacks.
    """

    what: str
    num_faults: int
    num_runs: int
    required: str
    broken: tuple[str, ...] = ()
    measured: str = ""
    left_out: str = ""


@dataclass(frozen=True)
class Settings:
    """What was typed.

    Args:
        root: Everything is made below it.
        kills: Of processes.
        signals: Of all kinds together.
        power_cuts: Of disks.
        seed: Of all that is random.
        processes: How many runs at the same time.
        patience_seconds: How long a process may take to end once it is asked to, or to leave nothing once it is dead.
        say: Takes a line of progress.
    """

    root: Path
    kills: int = 1000
    signals: int = 1000
    power_cuts: int = 100
    seed: int = 0
    processes: int = 2
    patience_seconds: float = 10.0
    say: Callable[[str], None] = field(default=lambda _line: None)

    def folder(self, part: str) -> Path:
        """A folder for a part, by the name of its module."""
        path = self.root / part.rpartition(".")[2]
        path.mkdir(parents=True, exist_ok=True)
        return path

    def random(self, *names: object) -> random.Random:
        """A generator that the seed and the names decide, whatever else was drawn before."""
        return random.Random(repr((self.seed, *names)))
