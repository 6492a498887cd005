"""Signals at any moment: nothing that was trained is lost, the exit code names the signal, the run goes on exactly."""

import fcntl
import os
import random
import signal
import statistics
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from tests.faults.figures import Figure, Settings
from tests.faults.lives import (
    AT_SIGNALS,
    STEPS,
    Kind,
    kinds,
    last_step_told,
    leave_for_a_while,
    lost,
    next_words,
    remains,
    saved_step,
    side_by_side,
    wrong_end,
)
from tests.faults.processes import Ended, Running, Server, environment, session_of
from tests.faults.small_runs import only_run, read_card, words

SIGNALS_PER_RUN = 8

REQUIRED = "ends with 128 + N within 10 s, in six lines; no step lost; the run ends like an uninterrupted one"
REQUIRED_TWICE = "ends with 130 within 10 s; the run ends like an uninterrupted one"

Send = Callable[[Running, random.Random], None]


@dataclass(frozen=True)
class Way:
    """How a process is asked to stop, and what came of it.

    Args:
        name: In words.
        first: The signal that decides the exit code.
        send: Sends it, and what follows it.
        share: Of all signals.
        keeps_steps: Whether no step may be lost.
        seconds: From the last signal to the end, of each process.
        runs: That met it.
        broken: What went wrong.
    """

    name: str
    first: signal.Signals
    send: Send
    share: float
    keeps_steps: bool = True
    seconds: list[float] = field(default_factory=list)
    runs: set[Path] = field(default_factory=set)
    broken: list[str] = field(default_factory=list)

    def figure(self) -> Figure:
        ordered = sorted(self.seconds) or [0.0]
        p95 = ordered[round(0.95 * (len(ordered) - 1))]
        times = f"median {statistics.median(ordered):.2f} s, p95 {p95:.2f} s, longest {ordered[-1]:.2f} s"
        required = REQUIRED if self.keeps_steps else REQUIRED_TWICE
        return Figure(self.name, len(self.seconds), len(self.runs), required, tuple(self.broken), times)


def ways() -> list[Way]:
    """Every signal; and the sequences that people and schedulers send."""
    single = [
        Way(number.name, number, lambda process, _rng, number=number: process.send_signal(number), 0.2)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP)
    ]
    groups = [
        Way(
            f"{number.name} to the whole group",
            number,
            lambda process, _rng, number=number: process.send_signal(number, to_group=True),
            0.05,
        )
        for number in (signal.SIGINT, signal.SIGTERM)
    ]
    several = [
        Way("SIGINT twice within 0.1 s", signal.SIGINT, interrupt_twice, 0.05, keeps_steps=False),
        Way("SIGUSR1, SIGTERM, SIGKILL after 30 s", signal.SIGUSR1, warn_terminate_kill, 0.05),
    ]
    return [*single, *groups, *several]


def interrupt_twice(process: Running, rng: random.Random) -> None:
    process.send_signal(signal.SIGINT)
    process.leave_alone(rng.uniform(0, 0.1))
    process.send_signal(signal.SIGINT)


def warn_terminate_kill(process: Running, rng: random.Random) -> None:
    """What Slurm does at the end of a job's time."""
    process.send_signal(signal.SIGUSR1)
    process.leave_alone(rng.uniform(0, 0.1))
    process.send_signal(signal.SIGTERM)
    process.leave_alone(30)
    process.send_signal(signal.SIGKILL)


def measure(settings: Settings) -> list[Figure]:
    """Stops runs of four kinds, at times that have no memory, so that any moment of a process is as likely."""
    stops = Stops(settings, settings.folder(__name__), settings.signals)
    side_by_side(settings.processes, stops.folder, stops.work)
    return [*stops.figures(), closed_terminals(settings, max(3, settings.signals // 50))]


class Stops:
    """Runs in several threads, which are asked to stop until each way has had its share.

    Args:
        settings: What is drawn, and who is told.
        folder: Of the runs.
        num_signals: Of the five single ones together; the sequences come beside them.
        num_steps: Of each run.
    """

    def __init__(self, settings: Settings, folder: Path, num_signals: int, *, num_steps: int = STEPS) -> None:
        self.settings, self.folder = settings, folder
        self.ways = ways()
        self._left = [way for way in self.ways for _ in range(max(1, round(way.share * num_signals)))]
        settings.random("order of signals").shuffle(self._left)
        self._num_steps = num_steps
        self._kinds: list[Kind] = []
        self.num_trained = 0
        self._counting = threading.Lock()

    def work(self, server: Server, worker: int) -> None:
        """Lives runs of every kind in turn."""
        with self._counting:
            self._kinds = self._kinds or kinds(server, self.folder, *AT_SIGNALS, steps=self._num_steps)
        number = 0
        while self._left:
            self.live(server, self._kinds[(number + 2 * worker) % len(self._kinds)], f"{worker}-{number}")
            number += 1

    def _next_way(self) -> Way | None:
        with self._counting:
            return self._left.pop() if self._left else None

    def live(self, server: Server, kind: Kind, name: str) -> None:
        """One run from its first process to its end."""
        rng, cwd, told, life, met = self.settings.random("signals", name), self.folder / name, 0, 0, []
        while True:
            process = server.start(next_words(kind, cwd, life), cwd=cwd)
            life += 1
            leave_for_a_while(process, kind, rng, faults_per_run=SIGNALS_PER_RUN)
            way = self._next_way() if process.poll() is None else None
            if way is None:
                ended = process.wait()
                break
            met.append(way)
            ended = self._stop(way, process, rng)
            self.num_trained += last_step_told(ended.stdout) > 0
            if way.keeps_steps:
                told = max(told, last_step_told(ended.stdout))
            if ended.code == 0 or (ended.code == -way.first and is_done(only_run(cwd))):  # it came when all was done
                ended = replace(ended, code=0)
                break
            self._note([way], cwd, wrong_stop(way, only_run(cwd), ended, told))
        self._note(met, cwd, wrong_end(kind, only_run(cwd), ended))

    def _stop(self, way: Way, process: Running, rng: random.Random) -> Ended:
        members = session_of(process.pid)
        start = time.monotonic()
        way.send(process, rng)
        ended = process.wait()
        seconds = time.monotonic() - start
        self._note([way], process.cwd, remains(process, members, seconds=self.settings.patience_seconds))
        if seconds > self.settings.patience_seconds:
            self._note([way], process.cwd, f"took {seconds:.1f} s to end")
        with self._counting:
            way.seconds.append(seconds)
            way.runs.add(process.cwd)
            if len(self._left) % 50 == 0:
                self.settings.say(f"{sum(len(one.seconds) for one in self.ways)} signals")
        return ended

    def _note(self, met: list[Way], cwd: Path, sentence: str) -> None:
        if sentence:
            with self._counting:
                for way in met:
                    way.broken.append(f"{cwd}: {sentence}")
            self.settings.say(f"BROKEN  {cwd}: {sentence}")

    def figures(self) -> list[Figure]:
        """A row for each way."""
        return [way.figure() for way in self.ways]


def is_done(run: Path | None) -> bool:
    """Whether a run has come to its end."""
    return run is not None and (run / "run.json").exists() and read_card(run).get("status") == "done"


def wrong_stop(way: Way, run: Path | None, ended: Ended, told: int) -> str:
    """What is wrong with a process that was asked to stop, in words, or nothing."""
    if ended.code == -way.first and not ended.stdout:
        return ""  # it was no run yet, and had asked for no signal
    if ended.code != 128 + way.first:
        return f"ended with {ended.code} instead of {128 + way.first}: {ended.stderr.strip()}"
    if "Traceback" in ended.stderr or len(ended.stderr.splitlines()) > 6:
        return f"said {ended.stderr.strip()}"
    if not way.keeps_steps or run is None or not (run / "config.yaml").exists():
        return ""
    if missing := lost(run, told):
        return missing
    if f" at step {saved_step(run)} of " not in ended.stderr and "at step" in ended.stderr:
        return f"step {saved_step(run)} is saved, and it said {ended.stderr.strip()}"
    card = read_card(run) if "at step" in ended.stderr else {"status": "stopped", "exit_code": ended.code}
    if (card["status"], card["exit_code"]) != ("stopped", ended.code):
        return f"the run card says {card['status']}, {card['exit_code']}"
    return ""


def closed_terminals(settings: Settings, count: int) -> Figure:
    """Closes the terminal of runs that draw their bar in it."""
    seconds, broken = [], []
    for number in range(count):
        cwd = settings.folder(__name__) / f"terminal-{number}"
        try:
            ended, took = close_terminal(cwd, settings.random("terminal", number).randrange(1, 60))
        except TimeoutError as error:
            broken.append(str(error))
            continue
        seconds.append(took)
        run = only_run(cwd)
        if ended != 128 + signal.SIGHUP or not saved_step(run):
            broken.append(f"{cwd}: ended with {ended}, and step {saved_step(run)} is saved")
    return Figure(
        "closed terminal", count, count, "ends with 129; the state is saved", tuple(broken),
        f"longest {max(seconds, default=0):.2f} s",
    )  # fmt: skip


def close_terminal(cwd: Path, step: int) -> tuple[int, float]:
    """Starts a run in a terminal and closes that once it shows a step; its exit code, and how long it took."""
    cwd.mkdir(parents=True)
    ours, its = os.openpty()
    command = [sys.executable, "-m", "cvtrain", *words(*AT_SIGNALS, steps=100_000, every=1000)]
    process = subprocess.Popen(
        command,
        cwd=cwd,
        env=environment(),
        start_new_session=True,
        **dict.fromkeys(("stdin", "stdout", "stderr"), its),
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
    )
    os.close(its)
    shown = b""
    while f"step {step} ".encode() not in shown:
        shown += os.read(ours, 65536)
    os.close(ours)
    start = time.monotonic()
    try:
        return process.wait(60), time.monotonic() - start
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        raise TimeoutError(f"no end after 60 s: {cwd}") from None
