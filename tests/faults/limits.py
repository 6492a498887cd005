"""Limits that a system sets: open files, shared memory, sizes of files, memory of a process."""

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from tests.faults.figures import Figure, Settings
from tests.faults.processes import environment
from tests.faults.small_runs import files_words, words, write_images


@dataclass(frozen=True)
class Limit:
    """A limit and how a run may end that meets it.

    Args:
        what: In words.
        shell: Sets it.
        words: Of the command line.
        codes: Exit codes that are right.
        said: Of these words one stands in the error, if there is one.
        needs: A program without which it cannot be set.
        as_root: Whether that takes root.
    """

    what: str
    shell: str
    words: tuple[str, ...]
    codes: tuple[int, ...]
    said: tuple[str, ...]
    needs: str = "sh"
    as_root: bool = False


def limits(images: Path) -> list[Limit]:
    """All that are tried."""
    many, few = (tuple(files_words(images, workers=number, steps=20)) for number in (8, 2))
    files, memory = ("ulimit -n",), ("shared memory", "shm")
    small_shm = "mount -t tmpfs -o size=1m tmpfs /dev/shm"
    large = ("data.image_size=224", "model=linear", "trainer.batch_size=16")
    large_few = (*(word for word in few if not word.startswith(("model", "trainer.batch", "augment"))), *large)
    plain = tuple(words("trainer.checkpoint.every_minutes=100", steps=28))
    sizes = [
        Limit(f"files of {512 * blocks:,} bytes at most", f"ulimit -f {blocks}", plain, (0, 4), ("File too large",))
        for blocks in (0, 1, 2, 8, 32, 64, 128)
    ]
    return [
        *(Limit(f"{n} open files, 8 workers", f"ulimit -n {n}", many, (0, 2), files) for n in (64, 72, 96, 128, 256)),
        Limit("/dev/shm of 1 MB, 2 workers", small_shm, large_few, (6,), memory, needs="unshare", as_root=True),
        *sizes,
    ]


def lacking_for(limit: Limit) -> str:
    """What this machine lacks to set a limit; nothing where it can."""
    is_there = shutil.which(limit.needs) is not None and (not limit.as_root or os.geteuid() == 0)
    return "" if is_there else f"{limit.needs}, and the right to use it"


def broken_by(limit: Limit, *, cwd: Path) -> str | None:
    """Runs under a limit; returns what did not hold, or None."""
    cwd.mkdir(parents=True)
    command = ["sh", "-c", f'{limit.shell} && exec "$@"', "sh", sys.executable, "-m", "cvtrain", *limit.words]
    if limit.needs == "unshare":
        command = ["unshare", "-m", *command]
    try:
        done = subprocess.run(
            command, cwd=cwd, env=environment(), capture_output=True, text=True, timeout=120, check=False
        )
    except subprocess.TimeoutExpired:
        return "did not end in 120 s"
    if done.returncode not in limit.codes or "Traceback" in done.stderr or "Bus error" in done.stderr:
        return f"ended with {done.returncode}: {done.stderr[-400:]}"
    if done.returncode and not (any(word in done.stderr for word in limit.said) and len(done.stderr.splitlines()) <= 6):
        return f"says {done.stderr[:400]}"
    return None


def measure(settings: Settings) -> list[Figure]:
    """Runs under each limit."""
    folder = settings.folder(__name__)
    figures = []
    for number, limit in enumerate(limits(write_images(folder / "images"))):
        required = f"ends with {' or '.join(map(str, limit.codes))}, and names it"
        if lacking := lacking_for(limit):
            figures.append(Figure(limit.what, 0, 0, required, left_out=lacking))
            continue
        what = broken_by(limit, cwd=folder / str(number))
        figures.append(Figure(limit.what, 1, 1, required, (what,) if what else ()))
        settings.say(limit.what)
    return figures
