"""Processes killed with SIGKILL at any moment: the run that is continued ends like one that was never killed."""

import signal
import threading
from collections import Counter
from dataclasses import replace
from pathlib import Path

from tests.faults.figures import Figure, Settings
from tests.faults.lives import (
    EACH_STEP,
    STEPS,
    Kind,
    acknowledged_step,
    kinds,
    last_step_told,
    leave_for_a_while,
    lost,
    next_words,
    remains,
    side_by_side,
    wrong_end,
)
from tests.faults.processes import Running, Server, session_of, start_program
from tests.faults.small_runs import only_run

KILLS_PER_RUN = 8
REAL_SHARE = 0.05
"""Of the processes that are started with all their imports, instead of copied from one that has done them."""
IMPORT_SECONDS = 3.0

REQUIRED = "the end of an uninterrupted run; nothing told of is lost; no process, shared memory or temporary file left"


def measure(settings: Settings) -> list[Figure]:
    """Kills runs of four kinds, at times that have no memory, so that any moment of a process is as likely."""
    killings = Killings(settings, settings.folder(__name__), settings.kills)
    side_by_side(settings.processes, killings.folder, killings.work)
    return killings.figures()


class Killings:
    """Runs in several threads, which are killed until there were enough kills.

    Args:
        settings: What is drawn, and who is told.
        folder: Of the runs.
        num_kills: How many are enough.
        real_share: Of processes that begin with their imports.
        num_steps: Of each run.
    """

    def __init__(
        self,
        settings: Settings,
        folder: Path,
        num_kills: int,
        *,
        real_share: float = REAL_SHARE,
        num_steps: int = STEPS,
    ) -> None:
        self.settings, self.folder = settings, folder
        self.num_kills, self.real_share = num_kills, real_share
        self.kills: Counter[str] = Counter()
        self.runs: Counter[str] = Counter()
        self.moments: Counter[str] = Counter()
        self.broken: dict[str, list[str]] = {}
        self._num_steps = num_steps
        self._kinds: list[Kind] = []
        self._counting = threading.Lock()

    def work(self, server: Server, worker: int) -> None:
        """Lives runs of every kind in turn."""
        with self._counting:
            self._kinds = self._kinds or kinds(server, self.folder, *EACH_STEP, steps=self._num_steps)
        number = 0
        while self.kills.total() < self.num_kills:
            self.live(server, self._kinds[(number + 2 * worker) % len(self._kinds)], f"{worker}-{number}")
            number += 1

    def live(self, server: Server, kind: Kind, name: str) -> None:
        """One run from its first process to its end."""
        rng, cwd, told, life = self.settings.random("kills", name), self.folder / name, 0, 0
        killed_before: tuple[Running, list[int]] | None = None
        while True:
            command = next_words(kind, cwd, life)
            life += 1
            is_real = rng.random() < self.real_share
            process = (start_program if is_real else server.start)(command, cwd=cwd)
            members = []
            if self.kills.total() < self.num_kills:
                process.leave_alone(rng.uniform(0, IMPORT_SECONDS) if is_real else 0)
                leave_for_a_while(process, kind, rng, faults_per_run=KILLS_PER_RUN)
                members = session_of(process.pid)
                process.send_signal(signal.SIGKILL)
            ended, run = process.wait(), only_run(cwd)
            if killed_before:  # only now: the run must go on although its old workers may take seconds to leave
                self._note(kind, cwd, remains(*killed_before, seconds=self.settings.patience_seconds))
            killed_before = process, members
            if ended.code != -signal.SIGKILL:
                break
            told = max(told, acknowledged_step(ended.stdout))
            self._count(kind, moment(kind, ended.stdout, run))
            self._note(kind, cwd, lost(run, told))
        self._note(kind, cwd, wrong_end(kind, run, ended))
        with self._counting:
            self.runs[kind.name] += 1

    def _count(self, kind: Kind, when: str) -> None:
        with self._counting:
            self.kills[kind.name] += 1
            self.moments[when] += 1
            if self.kills.total() % 50 == 0:
                self.settings.say(f"{self.kills.total()} kills, {self.runs.total()} runs")

    def _note(self, kind: Kind, cwd: Path, sentence: str) -> None:
        if sentence:
            with self._counting:
                self.broken.setdefault(kind.name, []).append(f"{cwd}: {sentence}")
            self.settings.say(f"BROKEN  {cwd}: {sentence}")

    def figures(self) -> list[Figure]:
        """A row for each kind of run."""
        moments = "; ".join(f"{count} {when}" for when, count in sorted(self.moments.items()))
        figures = [
            Figure(f"kill -9: {name}", self.kills[name], count, REQUIRED, tuple(self.broken.get(name, ())))
            for name, count in sorted(self.runs.items())
        ]
        return [*figures[:-1], replace(figures[-1], measured=f"of all kills: {moments}")] if figures else []


def moment(kind: Kind, text: str, run: Path | None) -> str:
    """Where in its life a process was that has written this."""
    if run is None or not (run / "config.yaml").exists():
        return "before there was a run"
    if "writes to" not in text:
        return "while it read its data, its parts or its state"
    if last_step_told(text) >= kind.last_step:
        return "in and after its last evaluation"
    return "while it trained"
