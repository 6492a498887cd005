"""Runs that die and are continued again and again until they end; and the checks after each death.

A *life* is one process of a run. What a process has said is taken at its word: a line about a step, or about an
evaluation, comes after the save before it, so that save must be there whatever happens to the process then.
"""

import random
import re
import shutil
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from cvtrain.engine.checkpoint import load_newest
from cvtrain.errors import CheckpointError
from tests.faults.processes import Ended, Running, Server, session_of, wait_until
from tests.faults.small_runs import WARM_UP, differences, end_of, files_words, leftovers, only_run, words, write_images

STEPS, EVERY = 120, 10
EACH_STEP = ("trainer.checkpoint.every_minutes=1e-9", "trainer.log_every=1")
"""A save and a line after each step."""
AT_SIGNALS = ("trainer.checkpoint.every_minutes=100", "trainer.log_every=1")
"""A line after each step, and a save at evaluations only."""

_STEP_LINE = re.compile(r"^(?:step (\d+)|epoch \S+  step +(\d+))  ", re.MULTILINE)


@dataclass(frozen=True)
class Kind:
    """Settings that runs are made with.

    Args:
        name: Of what is special in them.
        words: The command line of life number N, for the first; later ones take those that begin with `varied`.
        expected: What a run that nothing happens to comes to.
        last_step: Of its last evaluation.
        start_seconds: Until its first step was taken.
        work_seconds: From there to its end.
    """

    name: str
    words: Callable[[int], list[str]]
    varied: tuple[str, ...]
    expected: dict[str, str]
    last_step: int
    start_seconds: float
    work_seconds: float


def kinds(server: Server, folder: Path, *saving: str, steps: int = STEPS) -> list[Kind]:
    """Runs from files with and without worker processes, and three whose state has much to lose."""
    images = folder / "images"
    if not images.exists():
        write_images(images)
    length = {"steps": steps, "every": EVERY}
    made = {
        "files, 0 and 2 workers in turn": lambda n: files_words(images, *saving, workers=2 * (n % 2), **length),
        "EMA, cosine": lambda n: words("scheduler=cosine", "optimizer=adamw", "trainer.ema=0.95", *saving, **length),
        "plateau, early stopping": lambda n: words("trainer.early_stopping.patience=5", *saving, **length),
        "gradient accumulation": lambda n: words("trainer.accumulate=2", "augment=mixup", *saving, **length),
    }
    return [_measured(server, folder / f"kind-{i}", *kind) for i, kind in enumerate(made.items())]


def _measured(server: Server, cwd: Path, name: str, command: Callable[[int], list[str]]) -> Kind:
    copy = server.start(command(0), cwd=cwd)
    start = time.monotonic()  # not before: a server that has just been made answers when it is prepared
    wait_until(lambda: "step 1 " in copy.stdout() or copy.poll() is not None, seconds=120)
    begun = time.monotonic()
    ended = copy.wait()
    if ended.code:
        raise RuntimeError(f"a run that nothing happened to ended with {ended.code}: {ended.stderr}")
    times = begun - start, time.monotonic() - begun
    expected = end_of(only_run(cwd))
    last_step = int(expected["metrics.csv"].splitlines()[-1].split(",")[1])
    return Kind(name, command, ("data.num_workers=",), expected, last_step, *times)


def next_words(kind: Kind, cwd: Path, number: int) -> list[str]:
    """The command line of the next life: go on, or begin where the last process was killed before it was a run."""
    run = only_run(cwd)
    if run is not None and not (run / "config.yaml").exists():
        shutil.rmtree(run)
        run = None
    if run is None:
        return kind.words(number)
    return [f"resume={run}", *(word for word in kind.words(number) if word.startswith(kind.varied))]


def leave_for_a_while(process: Running, kind: Kind, rng: random.Random, *, faults_per_run: int) -> None:
    """Waits for a time that has no memory, from the start on or from the first step: any moment is as likely."""
    seconds = kind.work_seconds / faults_per_run
    if rng.random() < 0.5:
        wait_until(lambda: _STEP_LINE.search(process.stdout()) or process.poll() is not None, seconds=60)
    else:
        seconds += kind.start_seconds
    process.leave_alone(rng.expovariate(1 / seconds))


def last_step_told(text: str) -> int:
    """The last step that a process has told of, or 0."""
    return max((int(a or b) for a, b in _STEP_LINE.findall(text)), default=0)


def acknowledged_step(text: str) -> int:
    """The step whose save a process has told of, where it saves after each step: the one before the last told."""
    told = [(int(a or b), bool(b)) for a, b in _STEP_LINE.findall(text)]
    return max((step if is_evaluation else step - 1 for step, is_evaluation in told), default=0)


def saved_step(run: Path | None) -> int:
    """The step of the newest checkpoint that can be loaded, or 0.

    Raises:
        CheckpointError: There are checkpoints, and none can be loaded.
    """
    found = load_newest(run / "checkpoints", set_aside=False) if run else None
    return found.state["trainer"]["step"] if found else 0


def lost(run: Path | None, acknowledged: int) -> str:
    """What is missing of what a process has told of, in words, or nothing."""
    try:
        step = saved_step(run)
    except CheckpointError as error:
        return error.message
    return f"step {acknowledged} was told of and step {step} is there" if step < acknowledged else ""


def remains(process: Running, members: list[int], *, seconds: float) -> str:
    """What a process that has ended has left in the machine after some seconds, in words, or nothing."""
    if not wait_until(lambda: not session_of(process.pid), seconds=seconds):
        return f"processes {session_of(process.pid)} outlive process {process.pid} by {seconds:g} s"
    shared = [path.name for pid in {process.pid, *members} for path in Path("/dev/shm").glob(f"torch_{pid}_*")]
    return f"shared memory is left: {shared}" if shared else ""


def wrong_end(kind: Kind, run: Path | None, ended: Ended) -> str:
    """What is wrong with a run that has come to its end, in words, or nothing."""
    if ended.code or run is None:
        return f"ended with {ended.code}: {ended.stderr.strip()}"
    different = differences(run, kind.expected)
    if different:
        return f"differs from an uninterrupted run in {', '.join(different)}"
    return f"temporary files are left: {leftovers(run)}" if leftovers(run) else ""


def side_by_side(num_processes: int, folder: Path, work: Callable[[Server, int], None]) -> None:
    """Calls `work(server, i)` for so many i at the same time, each with a prepared process of its own."""

    def one(i: int) -> None:
        cwd = folder / f"server-{i}"
        cwd.mkdir(parents=True, exist_ok=True)
        with Server(cwd, WARM_UP) as server:
            work(server, i)

    with ThreadPoolExecutor(num_processes) as pool:
        list(pool.map(one, range(num_processes)))
